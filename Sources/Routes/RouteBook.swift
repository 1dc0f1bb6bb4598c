// The book: which routes there are. Everything here happens under the route table's mutex.

internal import Packet
internal import Wire

/// The routes of a family, and the numbers of their next hops.
struct FamilyBook<F: RouteFamily>: Sendable {
  typealias Entry = Route<F.Prefix, F.Address>
  typealias Hop = NextHop<F.Address>
  let limits: RouteLimits
  private var routes: [F.Prefix: UInt32] = [:]
  private var numbers: [Hop: UInt32] = [:]
  /// By number; 0 is never used.
  private var hops: [(hop: Hop, users: Int)?] = [nil]
  private var freeNumbers: [UInt32] = []

  init(limits: RouteLimits) { self.limits = limits }

  var count: Int { routes.count }
  var nextHopCount: Int { numbers.count }

  func find(_ prefix: F.Prefix) -> Entry? { routes[prefix].flatMap { entry(prefix, $0) } }
  func number(_ prefix: F.Prefix) -> UInt32? { routes[prefix] }

  private func entry(_ prefix: F.Prefix, _ number: UInt32) -> Entry? {
    guard let hop = hops[Int(number)]?.hop else { return nil }
    return Entry(prefix, gateway: hop.gateway, interface: hop.interface, flags: hop.flags, mtu: Int(hop.mtu))
  }

  /// Every route, by prefix.
  var all: [Entry] { routes.compactMap { entry($0.key, $0.value) }.sorted { $0.prefix < $1.prefix } }

  enum Mode { case add, replace, change }

  /// Writes a route down. Returns what the copies must do, and what has happened.
  mutating func put(_ route: Entry, _ mode: Mode, into log: inout [RouteChange<F>]) throws(RouteError) -> RouteEvent? {
    let old = routes[route.prefix]
    if old != nil, mode == .add { throw .exists("\(route.prefix)") }
    if old == nil, mode == .change { throw .missing("\(route.prefix)") }
    guard old != nil || routes.count < limits.routes else { throw .full(what: "routes", limit: limits.routes) }
    guard (0...65535).contains(route.mtu) else { throw .invalid("the MTU \(route.mtu) is outside 0 to 65535") }
    let hop = Hop(gateway: route.gateway, interface: route.interface, flags: route.flags, mtu: UInt32(route.mtu))
    let number = try acquire(hop, log: &log)
    routes[route.prefix] = number
    if let old { release(old) }
    guard old != number else { return nil }
    log.append(.set(route.prefix, number))
    return old == nil ? F.added(route) : F.changed(route)
  }

  mutating func remove(_ prefix: F.Prefix, log: inout [RouteChange<F>]) throws(RouteError) -> Entry {
    guard let number = routes.removeValue(forKey: prefix), let gone = entry(prefix, number) else { throw .missing("\(prefix)") }
    release(number)
    log.append(.remove(prefix))
    return gone
  }

  /// Removes every route that `condition` is true for.
  mutating func remove(where condition: (Entry) -> Bool, log: inout [RouteChange<F>]) -> [RouteEvent] {
    var gone: [Entry] = []
    for (prefix, number) in routes {
      if let route = entry(prefix, number), condition(route) { gone.append(route) }
    }
    gone.sort { $0.prefix < $1.prefix }
    for route in gone {
      if let number = routes.removeValue(forKey: route.prefix) { release(number) }
      log.append(.remove(route.prefix))
    }
    return gone.map { F.removed($0) }
  }

  private mutating func acquire(_ hop: Hop, log: inout [RouteChange<F>]) throws(RouteError) -> UInt32 {
    if let number = numbers[hop] {
      hops[Int(number)]?.users += 1
      return number
    }
    let number: UInt32
    if let free = freeNumbers.popLast() {
      number = free
      hops[Int(number)] = (hop, 1)
    } else {
      guard hops.count <= limits.nextHops else { throw .full(what: "next hops", limit: limits.nextHops) }
      number = UInt32(hops.count)
      hops.append((hop, 1))
    }
    numbers[hop] = number
    log.append(.nextHop(number, hop))
    return number
  }

  private mutating func release(_ number: UInt32) {
    guard let (hop, users) = hops[Int(number)] else { return }
    guard users <= 1 else {
      hops[Int(number)]?.users -= 1
      return
    }
    hops[Int(number)] = nil
    numbers[hop] = nil
    freeNumbers.append(number)
  }
}

/// Both families, and the changes that not every worker has made yet.
struct RouteBook: Sendable {
  var ipv4: FamilyBook<Family4>
  var ipv6: FamilyBook<Family6>

  enum Change: Sendable, CustomStringConvertible {
    case ipv4(RouteChange<Family4>)
    case ipv6(RouteChange<Family6>)
    var description: String {
      switch self {
      case .ipv4(let change): change.description
      case .ipv6(let change): change.description
      }
    }
  }
  private var log: [Change] = []
  /// The number of the log's first change, and of the first that each worker has not made.
  private var first: UInt64 = 0
  private var next: [UInt64]
  var failures: [RouteFailure] = []
  static let failureLimit = 100

  init(limits: RouteLimits, workers: Int) {
    ipv4 = FamilyBook(limits: limits)
    ipv6 = FamilyBook(limits: limits)
    next = Array(repeating: 0, count: workers)
  }

  /// Changes that some worker has still to make.
  var pending: Int { log.count }

  mutating func with4<T>(_ body: (inout FamilyBook<Family4>, inout [RouteChange<Family4>]) throws(RouteError) -> T) throws(RouteError) -> T {
    var changes: [RouteChange<Family4>] = []
    defer { for change in changes { log.append(.ipv4(change)) } }
    return try body(&ipv4, &changes)
  }
  mutating func with6<T>(_ body: (inout FamilyBook<Family6>, inout [RouteChange<Family6>]) throws(RouteError) -> T) throws(RouteError) -> T {
    var changes: [RouteChange<Family6>] = []
    defer { for change in changes { log.append(.ipv6(change)) } }
    return try body(&ipv6, &changes)
  }

  /// What a worker has still to do.
  func changes(for worker: Int) -> ArraySlice<Change> { log[Int(next[worker] - first)...] }

  /// A worker has made `count` more; what all have made is forgotten.
  mutating func made(_ count: Int, by worker: Int) {
    next[worker] += UInt64(count)
    guard let slowest = next.min(), slowest > first else { return }
    if slowest == first + UInt64(log.count) {
      log.removeAll()
    } else if slowest - first >= 256 {
      log.removeFirst(Int(slowest - first))
    } else {
      return
    }
    first = slowest
  }

  mutating func failed(_ failure: RouteFailure) {
    if failures.count == Self.failureLimit { failures.removeFirst() }
    failures.append(failure)
  }
}
