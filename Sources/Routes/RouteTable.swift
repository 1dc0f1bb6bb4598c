// What a route is, and a copy of all of them for each worker.

public import Netisr
public import Packet
internal import Synchronization
public import Wire

/// Route flags, with the BSDs' letters in `netstat -r`.
public struct RouteFlags: OptionSet, Hashable, Sendable, CustomStringConvertible {
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
public typealias Route4 = Route<IPv4Prefix, IPv4Address>
public typealias Route6 = Route<IPv6Prefix, IPv6Address>

public enum RouteError: Error, Equatable, Sendable, CustomStringConvertible {
  /// EEXIST
  case exists(String)
  /// ESRCH
  case missing(String)
  /// ENETUNREACH: the gateway cannot be reached.
  case unreachable(String)
  public var description: String {
    switch self {
    case .exists(let prefix): "there is a route to \(prefix) already. Use `ringway route change`."
    case .missing(let prefix): "there is no route to \(prefix). `ringway netstat -r` lists them."
    case .unreachable(let gateway): "the gateway \(gateway) is on no network of an interface."
    }
  }
}

/// What happened to a route, for `ringway monitor`.
public enum RouteEvent: Equatable, Sendable {
  case added4(Route4), removed4(Route4), changed4(Route4), added6(Route6), removed6(Route6), changed6(Route6)
}

/// The routes of a stack. Changes may come from any thread; lookups come from workers.
public final class RouteTable: @unchecked Sendable {
  private struct State {
    var routes4: [Route4?] = [nil]
    var routes6: [Route6?] = [nil]
    let table4 = LookupTable4()
    let table6 = LookupTable6()
  }
  private let state = Mutex(State())
  public let netisr: Netisr
  /// Called after each change, on the thread that made it.
  public var onChange: (@Sendable (RouteEvent) -> Void)?

  public init(_ netisr: Netisr) { self.netisr = netisr }

  /// The best route for an address, from the calling worker's copy; nil: none.
  public func lookup(_ address: IPv4Address) -> Route4? { state.withLock { $0.routes4[Int($0.table4.lookup(address))] } }
  public func lookup(_ address: IPv6Address) -> Route6? { state.withLock { $0.routes6[Int($0.table6.lookup(address))] } }

  /// Adds a route on every worker, and returns when all have it.
  public func add(_ route: Route4, replacing: Bool = false) throws(RouteError) {
    let exists = state.withLock { state -> Bool in
      if !replacing, self.exact(route.prefix, state) != nil { return true }
      state.routes4.append(route)
      state.table4.set(route.prefix, to: UInt32(state.routes4.count - 1))
      return false
    }
    if exists { throw .exists("\(route.prefix)") }
    onChange?(.added4(route))
  }
  public func add(_ route: Route6, replacing: Bool = false) throws(RouteError) {
    state.withLock { state in
      state.routes6.append(route)
      state.table6.set(route.prefix, to: UInt32(state.routes6.count - 1))
    }
    onChange?(.added6(route))
  }

  private func exact(_ prefix: IPv4Prefix, _ state: State) -> Route4? { state.routes4.lazy.compactMap { $0 }.first { $0.prefix == prefix } }

  @discardableResult public func remove(_ prefix: IPv4Prefix) throws(RouteError) -> Route4 {
    let old = state.withLock { $0.routes4[Int($0.table4.remove(prefix))] }
    guard let old else { throw .missing("\(prefix)") }
    onChange?(.removed4(old))
    return old
  }
  @discardableResult public func remove(_ prefix: IPv6Prefix) throws(RouteError) -> Route6 {
    let old = state.withLock { $0.routes6[Int($0.table6.remove(prefix))] }
    guard let old else { throw .missing("\(prefix)") }
    onChange?(.removed6(old))
    return old
  }

  /// Takes every route through an interface away, on every worker in turn.
  public func removeRoutes(through interface: InterfaceIndex) {
    for route in list4() where route.interface == interface { _ = try? remove(route.prefix) }
    for route in list6() where route.interface == interface { _ = try? remove(route.prefix) }
  }

  /// All routes, by prefix.
  public func list4() -> [Route4] {
    state.withLock { state in state.routes4.compactMap { $0 } }.sorted { ($0.prefix.address, $0.prefix.length) < ($1.prefix.address, $1.prefix.length) }
  }
  public func list6() -> [Route6] {
    state.withLock { state in state.routes6.compactMap { $0 } }.sorted { ($0.prefix.address, $0.prefix.length) < ($1.prefix.address, $1.prefix.length) }
  }
}
