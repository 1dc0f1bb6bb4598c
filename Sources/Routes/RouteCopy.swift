// A worker's copy of all routes.

internal import CRingway
internal import Packet
internal import Synchronization
internal import Wire

/// Where packets go next: what many routes share.
struct NextHop<Address: Hashable & Sendable & BitwiseCopyable>: Hashable, Sendable, BitwiseCopyable {
  var gateway: Address?
  var interface: InterfaceIndex
  var flags: RouteFlags
  /// Bytes; 0: the interface's.
  var mtu: UInt32
}

/// A family of routes: prefix, address, and what fits them.
protocol RouteFamily {
  associatedtype Address: Hashable & Sendable & TrieKey
  associatedtype Prefix: Hashable & Sendable & Comparable & BitwiseCopyable & CustomStringConvertible
  static func prefix(_ address: Address, _ length: Int) -> Prefix
  static func parts(_ prefix: Prefix) -> (Address, Int)
  static func added(_ route: Route<Prefix, Address>) -> RouteEvent
  static func removed(_ route: Route<Prefix, Address>) -> RouteEvent
  static func changed(_ route: Route<Prefix, Address>) -> RouteEvent
}

enum Family4: RouteFamily {
  @inline(__always) static func prefix(_ address: IPv4Address, _ length: Int) -> IPv4Prefix { IPv4Prefix(address, length) }
  @inline(__always) static func parts(_ prefix: IPv4Prefix) -> (IPv4Address, Int) { (prefix.address, prefix.length) }
  static func added(_ route: Route4) -> RouteEvent { .added4(route) }
  static func removed(_ route: Route4) -> RouteEvent { .removed4(route) }
  static func changed(_ route: Route4) -> RouteEvent { .changed4(route) }
}

enum Family6: RouteFamily {
  @inline(__always) static func prefix(_ address: IPv6Address, _ length: Int) -> IPv6Prefix { IPv6Prefix(address, length) }
  @inline(__always) static func parts(_ prefix: IPv6Prefix) -> (IPv6Address, Int) { (prefix.address, prefix.length) }
  static func added(_ route: Route6) -> RouteEvent { .added6(route) }
  static func removed(_ route: Route6) -> RouteEvent { .removed6(route) }
  static func changed(_ route: Route6) -> RouteEvent { .changed6(route) }
}

/// A change, as the log holds it.
enum RouteChange<F: RouteFamily>: Sendable, CustomStringConvertible {
  /// A next hop's number means this from now on.
  case nextHop(UInt32, NextHop<F.Address>)
  case set(F.Prefix, UInt32)
  case remove(F.Prefix)

  var description: String {
    switch self {
    case .nextHop(let number, _): "set next hop \(number)"
    case .set(let prefix, _): "set the route to \(prefix)"
    case .remove(let prefix): "remove the route to \(prefix)"
    }
  }
}

/// One family of a worker's routes. The worker alone changes it and looks up in it; any thread may read the uses.
@safe struct FamilyCopy<F: RouteFamily>: ~Copyable {
  private struct Slot: ~Copyable {
    var hop: NextHop<F.Address>
    let uses: Atomic<UInt64>
  }
  private var table: LookupCore<F.Address>
  private let memory: TableMemory
  private let hops: UnsafeMutablePointer<Slot>
  private let hopLimit: Int

  init(hopLimit: Int) {
    table = LookupCore<F.Address>(nodeLimit: 1 << 26)
    let memory = TableMemory(necessary: (hopLimit + 1) * MemoryLayout<Slot>.stride)
    // SAFETY: zeroed memory is an array of next hops that nobody names, with uses of 0.
    unsafe hops = memory.base.bindMemory(to: Slot.self, capacity: hopLimit + 1)
    self.memory = memory
    self.hopLimit = hopLimit
  }

  var size: Int { table.size + memory.count }
  var count: Int { table.count }

  mutating func apply(_ change: RouteChange<F>) throws(RouteError) {
    switch change {
    case .nextHop(let number, let hop):
      // SAFETY: the book gives numbers from 1 to the limit.
      unsafe hops[Int(number)].hop = hop
      unsafe hops[Int(number)].uses.store(0, ordering: .relaxed)
    case .set(let prefix, let number):
      let (address, length) = F.parts(prefix)
      _ = try table.set(address, length, to: number)
    case .remove(let prefix):
      let (address, length) = F.parts(prefix)
      _ = table.remove(address, length)
    }
  }

  /// The best route, counted as used.
  @inline(__always) func lookup(_ address: F.Address) -> Route<F.Prefix, F.Address>? {
    let found = table.match(address)
    guard found.value != 0 else { return nil }
    // SAFETY: the table holds numbers that the book has given.
    let slot = unsafe hops + Int(truncatingIfNeeded: found.value)
    unsafe slot.pointee.uses.store(slot.pointee.uses.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
    return unsafe route(slot.pointee.hop, F.prefix(address, found.length))
  }

  @inline(__always) func exact(_ prefix: F.Prefix) -> Route<F.Prefix, F.Address>? {
    let (address, length) = F.parts(prefix)
    let value = table.find(address, length)
    return value == 0 ? nil : unsafe route(hops[Int(truncatingIfNeeded: value)].hop, prefix)
  }

  @inline(__always) private func route(_ hop: NextHop<F.Address>, _ prefix: F.Prefix) -> Route<F.Prefix, F.Address> {
    Route(prefix, gateway: hop.gateway, interface: hop.interface, flags: hop.flags, mtu: Int(truncatingIfNeeded: hop.mtu))
  }

  /// How often a next hop was the answer on this worker. From any thread.
  func uses(_ number: UInt32) -> UInt64 {
    Int(number) <= hopLimit ? unsafe hops[Int(number)].uses.load(ordering: .relaxed) : 0
  }
}

/// What a worker has of both families.
struct RouteCopy: ~Copyable {
  /// The worker's token: who may look up here.
  let token: UInt32
  var ipv4: FamilyCopy<Family4>
  var ipv6: FamilyCopy<Family6>

  init(token: UInt32, limits: RouteLimits) {
    self.token = token
    ipv4 = FamilyCopy(hopLimit: limits.nextHops)
    ipv6 = FamilyCopy(hopLimit: limits.nextHops)
  }
}
