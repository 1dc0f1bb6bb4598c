// An interface, as `ifconfig` and `netstat -i` show it.

/// Counters of an interface, summed over workers, since it was attached.
public struct CountersRecord: Codable, Sendable, Equatable {
  public var ipackets: UInt64 = 0, ibytes: UInt64 = 0, ierrors: UInt64 = 0, imcasts: UInt64 = 0, iqdrops: UInt64 = 0
  public var opackets: UInt64 = 0, obytes: UInt64 = 0, oerrors: UInt64 = 0, omcasts: UInt64 = 0, oqdrops: UInt64 = 0
  public var collisions: UInt64 = 0, noproto: UInt64 = 0
  /// What came in, what card and rings lost included; what of it reached its end; what was dropped for a reason that
  /// the ledger names. received = delivered + dropped, as soon as nothing is on its way.
  public var received: UInt64 = 0, delivered: UInt64 = 0, dropped: UInt64 = 0
  public init() {}
}

/// An address of an interface (not its link-level one).
public struct AddressRecord: Codable, Sendable, Equatable {
  /// "inet" or "inet6".
  public var family: String
  /// In its usual text, without a zone.
  public var address: String
  /// Leading ones of the mask.
  public var prefixLength: Int
  public var broadcast: String?
  /// The other end of a point-to-point link.
  public var destination: String?
  /// "tentative", "duplicated", "deprecated", "autoconf", "anycast", "detached".
  public var marks: [String] = []
  /// Of IPv6: "link-local" or "global".
  public var scope: String?
  /// Seconds; nil: for ever.
  public var preferredLifetime: UInt64?
  public var validLifetime: UInt64?
  public init(family: String, address: String, prefixLength: Int) {
    self.family = family
    self.address = address
    self.prefixLength = prefixLength
  }
}

public struct MediaRecord: Codable, Sendable, Equatable {
  /// "Ethernet autoselect"
  public var configured: String
  /// "1000baseT <full-duplex>"
  public var active: String
  /// "active", "no carrier"
  public var status: String
  /// Bits a second; 0: unknown.
  public var baudRate: UInt64
  /// What may be set.
  public var choices: [String]
  public init(configured: String, active: String, status: String, baudRate: UInt64, choices: [String]) {
    self.configured = configured
    self.active = active
    self.status = status
    self.baudRate = baudRate
    self.choices = choices
  }
}

/// A send queue.
public struct SubqueueRecord: Codable, Sendable, Equatable {
  public var index: Int
  /// The worker whose ring it is; nil: not known.
  public var owner: Int?
  /// Packets that wait.
  public var length: Int
  /// Packets that may wait.
  public var limit: Int?
  public var bytes: UInt64?
  /// The ring is full.
  public var oactive: Bool
  /// Packets it refused or pushed out.
  public var drops: UInt64?
  /// Calls of `if_start`.
  public var starts: UInt64?
  /// Packets that `if_start` took.
  public var sent: UInt64?
  public init(index: Int, length: Int, oactive: Bool) {
    self.index = index
    self.length = length
    self.oactive = oactive
  }
}

/// An interface.
public struct InterfaceRecord: Codable, Sendable, Equatable {
  public var name: String
  public var index: Int
  /// Tells interfaces apart that had the same index one after another.
  public var generation: Int = 0
  /// The BSDs' names: "UP", "BROADCAST", "RUNNING", …, lowest bit first.
  public var flags: [String] = []
  /// The bits of the flags (net/if.h).
  public var flagBits: UInt32 = 0
  /// "ethernet", "loopback", "vlan", "bridge", "tunnel", "lag", "other".
  public var type: String
  /// Bytes.
  public var mtu: Int
  public var metric: Int = 0
  /// Largest segment that the card cuts, in bytes; nil: it cuts none.
  public var tsolen: Int?
  /// Bits a second; 0: unknown.
  public var baudRate: UInt64 = 0
  /// Offloads the card has, and those that are on: "RXCSUM", "TXCSUM", "VLAN_MTU", ….
  public var capabilities: [String] = []
  public var options: [String] = []
  public var optionBits: UInt32 = 0
  /// Link-level address, "02:00:00:00:00:01".
  public var ether: String?
  public var addresses: [AddressRecord] = []
  /// Link-level and network-level groups that are joined.
  public var multicast: [String]?
  public var media: MediaRecord?
  /// "unknown", "down", "up"
  public var link: String = "unknown"
  public var groups: [String] = []
  public var description: String?
  /// Of the last change, in seconds since 1970; nil: not known.
  public var lastChange: Double?
  public var counters = CountersRecord()
  public var subqueues: [SubqueueRecord] = []
  /// Stack instance.
  public var vnet: Int = 0
  /// Of a VLAN interface: parent and tag. Of a bridge: its members. Of a pair: the other end. By name and text.
  public var details: [String: String] = [:]
  public init(name: String, index: Int, type: String, mtu: Int) {
    self.name = name
    self.index = index
    self.type = type
    self.mtu = mtu
  }
}

/// One thing to change on an interface. As JSON: {"mtu":{"bytes":9000}}.
public enum InterfaceChange: Codable, Sendable, Equatable {
  /// Names of flags ("UP", "DEBUG", "LINK0" …) to set and to clear, in one step.
  case flags(set: [String], clear: [String])
  case mtu(bytes: Int)
  case metric(value: Int)
  case tsolen(bytes: Int)
  case name(new: String)
  case description(text: String)
  /// Names of capabilities ("RXCSUM" …) to switch on and off.
  case capabilities(enable: [String], disable: [String])
  /// "02:00:00:00:00:01"
  case linkAddress(address: String)
  case media(type: String)
  case addGroup(name: String)
  case deleteGroup(name: String)
  /// Counted: each `true` wants its `false`.
  case promiscuous(on: Bool)
  case allMulticast(on: Bool)
  case addMulticast(address: String)
  case deleteMulticast(address: String)
  /// Sets the first address of its family, adds one, takes one away. "198.18.0.1/24" or "2001:2::1/64"; without a
  /// length the family's usual one.
  case setAddress(address: String, broadcast: String?, destination: String?)
  case addAddress(address: String, broadcast: String?, destination: String?)
  case deleteAddress(address: String)
  case polling(on: Bool)
  /// A tunnel's ends (SIFPHYADDR); both nil: taken away.
  case tunnel(source: String?, destination: String?)
  /// The driver's own.
  case generic(name: String, value: String)
}
