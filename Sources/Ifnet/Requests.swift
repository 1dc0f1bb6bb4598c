// The requests of an interface: the BSDs' ioctl set, typed. `InterfaceTable.perform` carries them out.

public import Netisr
public import Packet
public import Wire

/// Who asks.
public struct Credentials: Equatable, Sendable {
  public var uid: UInt32
  /// Every group of the process.
  public var gids: [UInt32]
  /// May change interfaces: uid 0, or a member of the configured group.
  public var isPrivileged: Bool
  /// The stack instance whose interfaces it sees.
  public var vnet: Vnet

  public init(uid: UInt32, gids: [UInt32], isPrivileged: Bool, vnet: Vnet = .base) {
    self.uid = uid
    self.gids = gids
    self.isPrivileged = isPrivileged
    self.vnet = vnet
  }
  /// What SO_PEERCRED says, judged: uid 0 and members of `group` are privileged.
  public init(uid: UInt32, gids: [UInt32], privilegedGroup group: UInt32?, vnet: Vnet = .base) {
    self.init(uid: uid, gids: gids, isPrivileged: uid == 0 || group.map(gids.contains) ?? false, vnet: vnet)
  }
  /// The stack itself, and programs that hold it in their own process.
  public static let system = Credentials(uid: 0, gids: [0], isPrivileged: true)
}

/// A request. Lengths and rooms are in bytes, as in the BSDs: a group's name takes 16.
public enum InterfaceRequest: Equatable, Sendable {
  /// GIFCONF: every address that fits into `room` bytes (see `ConfigurationEntry.size`).
  case configuration(room: Int)
  /// IFGCLONERS: the names of up to `count` cloners.
  case cloners(count: Int)
  /// IFCREATE, IFCREATE2: "tap3", or "tap" for the lowest free unit.
  case create(name: String, parameters: [String: String] = [:])
  /// IFDESTROY
  case destroy(name: String)
  /// GIFGMEMB: a group's members.
  case groupMembers(group: String, length: Int)
  /// Everything that names an interface.
  case on(String, InterfaceOperation)
}

/// A request to one interface. "Set" requests need privilege.
public enum InterfaceOperation: Equatable, Sendable {
  // GIFINDEX, GIFFLAGS, GIFCAP, GIFMETRIC, GIFMTU, GIFTSOLEN, GIFDATA, GIFPHYS
  case getIndex, getFlags, getCapabilities, getMetric, getMTU, getTSOLength, getData, getPhysical
  /// Everything that `ifconfig` prints, in one answer.
  case describe
  case setFlags(InterfaceFlags)
  /// Adds and takes away flags in one step, so that two askers do not undo each other.
  case changeFlags(set: InterfaceFlags, clear: InterfaceFlags)
  case setCapabilities(InterfaceCapabilities)
  case setMetric(Int)
  case setMTU(Int)
  case setTSOLength(Int)
  case setPhysical(Int)
  case rename(String)
  case setDescription(String)
  // GIFSTATUS, GIFMEDIA, SIFMEDIA
  case getStatus, getMedia
  case setMedia(String)
  /// GIFGENERIC, SIFGENERIC: the driver's own.
  case getGeneric(name: String)
  case setGeneric(name: String, value: String)
  // GIFPSRCADDR and GIFPDSTADDR, SIFPHYADDR, DIFPHYADDR: a tunnel's ends
  case getTunnel
  case setTunnel(source: SocketAddress, destination: SocketAddress)
  case deleteTunnel
  /// SIFLLADDR: the octets of the new link address.
  case setLinkAddress([UInt8])
  // ADDMULTI, DELMULTI
  case addMulticast(SocketAddress)
  case deleteMulticast(SocketAddress)
  // AIFGROUP, DIFGROUP, GIFGROUP
  case joinGroup(String)
  case leaveGroup(String)
  case groups(length: Int)
  /// SIFADDR: the first address of its family is replaced.
  case setAddress(SocketAddress, prefixLength: Int?, broadcast: SocketAddress?, destination: SocketAddress?)
  /// AIFADDR
  case addAddress(SocketAddress, prefixLength: Int?, broadcast: SocketAddress?, destination: SocketAddress?)
  /// DIFADDR
  case deleteAddress(SocketAddress)
  // GIFADDR, GIFNETMASK, GIFBRDADDR, GIFDSTADDR: of the family's first address, or of the one that is named. The
  // family is a number, since any may be asked for.
  case getAddress(family: UInt8)
  case getNetmask(family: UInt8, of: SocketAddress? = nil)
  case getBroadcast(family: UInt8, of: SocketAddress? = nil)
  case getDestination(family: UInt8, of: SocketAddress? = nil)
  // GIFPOLLCPU, SIFPOLLCPU: -1; accepted and ignored
  case getPollCPU
  case setPollCPU(Int)
  /// NPOLLING: its worker polls the interface, or it interrupts.
  case setPolling(Bool)
}

/// One entry of GIFCONF.
public struct ConfigurationEntry: Hashable, Sendable {
  public var name: String
  /// nil: an interface without address; the BSDs' entry is zeroed.
  public var address: SocketAddress?
  public init(name: String, address: SocketAddress?) {
    self.name = name
    self.address = address
  }
  /// Bytes that the BSDs' `struct ifreq` takes for it: 16 of name, and the address, at least 16.
  public var size: Int {
    switch address {
    case nil, .ipv4: 32
    case .ipv6: 16 + 28
    case .link(_, let bytes): 16 + max(20, 8 + name.utf8.count + bytes.count)
    case .other(_, let bytes): 16 + max(16, 2 + bytes.count)
    }
  }
}

/// GIFDATA: what an interface says of itself in numbers.
public struct InterfaceData: Equatable, Sendable {
  public var type: InterfaceType
  public var mtu: Int
  public var metric: Int
  /// Bits a second; 0 when unknown.
  public var baudRate: UInt64
  public var linkStatus: LinkStatus
  public var counters: InterfaceCounters
  /// Nanoseconds of the dispatcher's clock.
  public var lastChange: UInt64
}

/// One address of an interface, as `ifconfig` prints it.
public struct AddressDescription: Equatable, Sendable {
  public var address: SocketAddress
  public var prefixLength: Int
  public var broadcast: SocketAddress?
  public var destination: SocketAddress?
  /// The family's own marks.
  public var flags: UInt32
}

/// Everything that `ifconfig` prints of an interface.
public struct InterfaceDescription: Equatable, Sendable {
  public var name: String
  public var index: InterfaceIndex
  public var vnet: Vnet
  public var flags: InterfaceFlags
  public var capabilities: InterfaceCapabilities
  public var enabledCapabilities: InterfaceCapabilities
  public var data: InterfaceData
  public var linkAddress: MACAddress?
  public var description: String
  public var addresses: [AddressDescription]
  public var groups: [String]
  public var media: MediaStatus?
  public var tsoLength: Int
  public var physical: Int
  /// Link-level and network-level groups with their reference counts.
  public var multicast: [MulticastDescription]
  public var promiscuousCount: Int
  public var allMulticastCount: Int
}

/// A multicast group that an interface is in.
public struct MulticastDescription: Hashable, Sendable {
  public var group: SocketAddress
  public var references: Int
  /// The link-level group that it is received under.
  public var link: MACAddress?
}

/// What a request gives back.
public enum InterfaceReply: Equatable, Sendable {
  case done
  /// The name that a created interface got.
  case created(String)
  case index(InterfaceIndex)
  case flags(InterfaceFlags)
  case capabilities(available: InterfaceCapabilities, enabled: InterfaceCapabilities)
  /// Metric, MTU, TSO length, physical, poll CPU.
  case number(Int)
  case text(String)
  case data(InterfaceData)
  case description(InterfaceDescription)
  /// The bytes that they take in the BSDs' form.
  case configuration([ConfigurationEntry], bytes: Int)
  /// The names that fit, and how many there are.
  case cloners([String], total: Int)
  /// Group names, or a group's members.
  case names([String], bytes: Int)
  /// The bytes that a list needs (asked with length 0).
  case needed(bytes: Int)
  case media(MediaStatus)
  case tunnel(source: SocketAddress, destination: SocketAddress)
  case address(SocketAddress)
}
