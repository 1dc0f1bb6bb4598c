// What a route is, what happens to it, and why it is refused.

public import Packet
public import Wire

/// Route flags, with the BSDs' letters in `netstat -r`.
public struct RouteFlags: OptionSet, Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static let up = RouteFlags(rawValue: 0x1)
  public static let gateway = RouteFlags(rawValue: 0x2)
  public static let host = RouteFlags(rawValue: 0x4)
  /// Answers with ICMP unreachable.
  public static let reject = RouteFlags(rawValue: 0x8)
  public static let dynamic = RouteFlags(rawValue: 0x10)
  /// By hand.
  public static let `static` = RouteFlags(rawValue: 0x800)
  /// Drops without a word.
  public static let blackhole = RouteFlags(rawValue: 0x1000)
  /// One of this machine's own addresses.
  public static let local = RouteFlags(rawValue: 0x20_0000)
  /// A network that is on the link.
  public static let connected = RouteFlags(rawValue: 0x40_0000)
  public var description: String {
    let letters: [(RouteFlags, String)] = [
      (.up, "U"), (.gateway, "G"), (.host, "H"), (.reject, "R"), (.dynamic, "D"), (.static, "S"), (.blackhole, "B"),
      (.local, "l"), (.connected, "c"),
    ]
    return letters.reduce("") { contains($1.0) ? $0 + $1.1 : $0 }
  }
}

/// A route of one family.
public struct Route<Prefix: Hashable & Sendable, Address: Hashable & Sendable>: Hashable, Sendable {
  public var prefix: Prefix
  /// nil: on the link.
  public var gateway: Address?
  public var interface: InterfaceIndex
  public var flags: RouteFlags
  /// Bytes; 0: the interface's.
  public var mtu: Int = 0
  public init(_ prefix: Prefix, gateway: Address? = nil, interface: InterfaceIndex, flags: RouteFlags, mtu: Int = 0) {
    self.prefix = prefix
    self.gateway = gateway
    self.interface = interface
    self.flags = flags
    self.mtu = mtu
  }
}
extension Route: BitwiseCopyable where Prefix: BitwiseCopyable, Address: BitwiseCopyable {}
public typealias Route4 = Route<IPv4Prefix, IPv4Address>
public typealias Route6 = Route<IPv6Prefix, IPv6Address>

/// Why a change of routes was refused. Nothing has changed then.
public enum RouteError: Error, Equatable, Sendable, CustomStringConvertible {
  /// EEXIST
  case exists(String)
  /// ESRCH
  case missing(String)
  /// ENETUNREACH: the gateway cannot be reached.
  case unreachable(String)
  /// ENOBUFS: the table holds as many as it may: what of ("routes", "next hops"), and the limit.
  case full(what: String, limit: Int)
  /// EINVAL: a number that no table can hold.
  case invalid(String)
  public var description: String {
    switch self {
    case .exists(let prefix): "there is a route to \(prefix) already. Use `ringway route change`."
    case .missing(let prefix): "there is no route to \(prefix). `ringway netstat -r` lists them."
    case .unreachable(let gateway): "the gateway \(gateway) is on no network of an interface."
    case .full(let what, let limit): "the route table holds \(limit) \(what), its limit. Remove some, or raise the limit."
    case .invalid(let problem): "the route cannot be stored: \(problem)."
    }
  }
}

/// What happened to a route, for `ringway monitor`.
public enum RouteEvent: Equatable, Sendable {
  case added4(Route4), removed4(Route4), changed4(Route4), added6(Route6), removed6(Route6), changed6(Route6)
}

/// A worker's copy that could not follow a change. The other workers have it.
public struct RouteFailure: Equatable, Sendable, CustomStringConvertible {
  public var worker: Int
  /// "add 10.0.0.0/8"
  public var operation: String
  public var problem: String
  public var description: String { "worker \(worker) could not \(operation): \(problem)" }
}

/// How much a route table may hold.
public struct RouteLimits: Equatable, Sendable {
  /// Routes a family.
  public var routes = 2_000_000
  /// Different next hops a family (gateway, interface, flags and MTU), at most 65536.
  public var nextHops = 16384
  public init() {}
}
