// The words of ifnet: flags, kinds, capabilities, errors, events.

public import Packet
public import Wire

/// Interface flags, with the BSDs' values (net/if.h).
public struct InterfaceFlags: OptionSet, Hashable, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static let up = InterfaceFlags(rawValue: 0x1)
  public static let broadcast = InterfaceFlags(rawValue: 0x2)
  public static let debug = InterfaceFlags(rawValue: 0x4)
  public static let loopback = InterfaceFlags(rawValue: 0x8)
  public static let pointToPoint = InterfaceFlags(rawValue: 0x10)
  /// The interface manages its own links: a flag change neither brings it up nor takes it down.
  public static let smart = InterfaceFlags(rawValue: 0x20)
  public static let running = InterfaceFlags(rawValue: 0x40)
  public static let noARP = InterfaceFlags(rawValue: 0x80)
  public static let promisc = InterfaceFlags(rawValue: 0x100)
  public static let allMulti = InterfaceFlags(rawValue: 0x200)
  /// At least one send queue waits for its ring (kept for `ifconfig`; queues hold their own).
  public static let oactive = InterfaceFlags(rawValue: 0x400)
  /// Does not hear what it sends.
  public static let simplex = InterfaceFlags(rawValue: 0x800)
  public static let link0 = InterfaceFlags(rawValue: 0x1000)
  public static let link1 = InterfaceFlags(rawValue: 0x2000)
  public static let link2 = InterfaceFlags(rawValue: 0x4000)
  public static let multicast = InterfaceFlags(rawValue: 0x8000)
  /// Promiscuous because somebody asked for it by name.
  public static let permanentPromisc = InterfaceFlags(rawValue: 0x20000)
  public static let monitor = InterfaceFlags(rawValue: 0x40000)
  public static let staticARP = InterfaceFlags(rawValue: 0x80000)
  /// Polled by its worker instead of interrupting.
  public static let polling = InterfaceFlags(rawValue: 0x100000)

  /// What a request to set flags leaves alone.
  public static let cannotChange: InterfaceFlags = [
    .broadcast, .pointToPoint, .running, .oactive, .simplex, .multicast, .allMulti, .promisc, .polling,
  ]
}

/// What an interface is (IANA ifType).
public enum InterfaceType: UInt8, Sendable {
  case other = 1, ethernet = 6, loopback = 24, tunnel = 131, vlan = 135, lag = 161, bridge = 209
  /// Its frames begin with a destination whose first bit says "group".
  var hasEthernetFrames: Bool { self == .ethernet || self == .vlan || self == .lag || self == .bridge }
}

/// Offloads of an interface, with FreeBSD's values where it has them (IFCAP_*).
public struct InterfaceCapabilities: OptionSet, Hashable, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static let rxcsum = InterfaceCapabilities(rawValue: 0x1)
  public static let txcsum = InterfaceCapabilities(rawValue: 0x2)
  public static let vlanMTU = InterfaceCapabilities(rawValue: 0x8)
  public static let vlanHardwareTagging = InterfaceCapabilities(rawValue: 0x10)
  public static let jumboMTU = InterfaceCapabilities(rawValue: 0x20)
  public static let polling = InterfaceCapabilities(rawValue: 0x40)
  public static let tso4 = InterfaceCapabilities(rawValue: 0x100)
  public static let tso6 = InterfaceCapabilities(rawValue: 0x200)
  public static let linkState = InterfaceCapabilities(rawValue: 0x80000)
  public static let rss = InterfaceCapabilities(rawValue: 0x1000_0000)
  public static let netmap = InterfaceCapabilities(rawValue: 0x10_0000)
}

public enum LinkStatus: UInt8, Sendable, CustomStringConvertible {
  case unknown, down, up
  public var description: String { self == .unknown ? "unknown" : self == .down ? "down" : "up" }
}

/// What the card says of its medium.
public struct MediaStatus: Equatable, Sendable {
  /// "Ethernet autoselect"
  public var configured: String
  /// "1000baseT <full-duplex>"; "none" without a link.
  public var active: String
  /// "active", "no carrier"
  public var status: String
  /// Bits a second; 0 when unknown.
  public var baudRate: UInt64
  /// What `ifconfig` may set.
  public var choices: [String]
  public init(configured: String, active: String, status: String, baudRate: UInt64, choices: [String] = []) {
    self.configured = configured
    self.active = active
    self.status = status
    self.baudRate = baudRate
    self.choices = choices
  }
}

/// The errno that the BSDs return for a request.
public enum InterfaceErrno: String, Sendable {
  case EPERM, ENOENT, EINTR, EIO, ENXIO, ENOMEM, EACCES, EBUSY, EEXIST, ENODEV, EINVAL, ENOSPC, ENAMETOOLONG, EOPNOTSUPP
  case EAFNOSUPPORT, EADDRINUSE, EADDRNOTAVAIL, ENETDOWN, ENETUNREACH, ENOBUFS, EHOSTDOWN, EHOSTUNREACH, EMSGSIZE, ESRCH
  case ENOPROTOOPT, EPROTONOSUPPORT, ERANGE
}

/// A request that was refused: the errno, on what, and a sentence that says what to do.
public struct InterfaceError: Error, Equatable, Sendable, CustomStringConvertible {
  public var code: InterfaceErrno
  /// "em0: the MTU 71 is outside 72 to 65535."
  public var problem: String
  public init(_ code: InterfaceErrno, _ problem: String) {
    self.code = code
    self.problem = problem
  }
  public var description: String { "\(problem) (\(code.rawValue))" }
}

public enum AddressFamily: UInt8, Sendable { case ipv4 = 2, link = 18, ipv6 = 28 }

/// An address of any family.
public enum SocketAddress: Hashable, Sendable, CustomStringConvertible {
  /// An interface's index, and its address when it has one. Several octet counts exist: not only Ethernet's.
  case link(index: UInt16, bytes: [UInt8])
  case ipv4(IPv4Address)
  case ipv6(IPv6Address)
  case other(family: UInt8, bytes: [UInt8])

  public var family: AddressFamily? {
    switch self {
    case .link: .link
    case .ipv4: .ipv4
    case .ipv6: .ipv6
    case .other: nil
    }
  }
  public static func link(_ index: UInt16, _ mac: MACAddress) -> SocketAddress { .link(index: index, bytes: mac.bytes) }
  public var description: String {
    switch self {
    case .link(let index, let bytes): MACAddress(bytes: bytes).map(\.description) ?? "link#\(index)"
    case .ipv4(let address): address.description
    case .ipv6(let address): address.description
    case .other(let family, let bytes): "family \(family) (\(bytes.count) bytes)"
    }
  }
}

/// What happened to an interface, for `ringway monitor` and for other modules.
public enum InterfaceEvent: Equatable, Sendable {
  case attach, arrival, departure, detach, up, down
  case link(LinkStatus)
  case renamed(from: String)
  case addressAdded(SocketAddress)
  case addressRemoved(SocketAddress)
  case multicastAdded(SocketAddress)
  case multicastRemoved(SocketAddress)
  case linkAddress(MACAddress)
  case mtu(Int)
  case flags(InterfaceFlags)
  case groupsChanged
}

/// Which way a packet passes, for captures.
public enum PacketDirection: UInt8, Sendable { case input, output }

/// Sees what passes an interface. Called on the worker that has the packet; must be quick.
public protocol InterfaceTap: AnyObject, Sendable {
  func passed(_ packet: borrowing Packet, _ direction: PacketDirection, on interface: Interface)
}
