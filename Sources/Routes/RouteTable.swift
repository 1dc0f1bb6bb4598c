// The routes of a stack.

internal import CRingway
public import Netisr
public import Packet
internal import Platform
public import Wire

/// The routes of a stack: changed from any thread, looked up by workers in copies of their own.
@safe public final class RouteTable: @unchecked Sendable {
  public let netisr: Netisr
  public let limits: RouteLimits
  private let book: Guarded<RouteBook>
  private let copies: UnsafeMutablePointer<RouteCopy>
  private let workerCount: Int
  private struct Listeners {
    var onChange: (@Sendable (RouteEvent) -> Void)?
    var onFailure: (@Sendable (RouteFailure) -> Void)?
    var subscribers: [(token: WorkerToken, body: @Sendable (RouteEvent) -> Void)] = []
    /// Tests only: what a worker's copy cannot take.
    var fault: (@Sendable (_ worker: Int, _ operation: String) -> Bool)?
  }
  private let listeners = Guarded(Listeners())

  public init(_ netisr: Netisr, limits: RouteLimits = RouteLimits()) {
    var limits = limits
    limits.nextHops = max(1, min(65536, limits.nextHops))
    limits.routes = max(1, limits.routes)
    self.netisr = netisr
    self.limits = limits
    let workers = netisr.workers
    workerCount = workers.count
    book = Guarded(RouteBook(limits: limits, workers: workers.count))
    unsafe copies = .allocate(capacity: workers.count)
    for (n, worker) in workers.enumerated() {
      unsafe (copies + n).initialize(to: RouteCopy(token: worker.token, limits: limits))
    }
  }

  // SAFETY: messages hold the table, so no worker uses its copy any more.
  deinit {
    unsafe copies.deinitialize(count: workerCount)
    unsafe copies.deallocate()
  }

  // MARK: Lookups

  /// The calling worker's copy; nil on other threads.
  @inline(__always) private var own: UnsafeMutablePointer<RouteCopy>? {
    let id = Int(truncatingIfNeeded: rw_thread_worker_id())
    // SAFETY: the index is in range, and only this thread changes the copy.
    guard id < workerCount, unsafe copies[id].token == rw_thread_token() else { return nil }
    return unsafe copies + id
  }

  /// The best route for an address, from the calling worker's copy; nil: none. Neither locks nor allocates on a
  /// worker; another thread asks worker 0 and waits.
  public func lookup(_ address: IPv4Address) -> Route4? {
    if let own = unsafe own { return unsafe own.pointee.ipv4.lookup(address) }
    return netisr.worker(0).perform { [self] in unsafe copies[0].ipv4.lookup(address) }
  }
  public func lookup(_ address: IPv6Address) -> Route6? {
    if let own = unsafe own { return unsafe own.pointee.ipv6.lookup(address) }
    return netisr.worker(0).perform { [self] in unsafe copies[0].ipv6.lookup(address) }
  }

  /// The route to exactly this prefix, as `lookup`.
  public func exact(_ prefix: IPv4Prefix) -> Route4? {
    if let own = unsafe own { return unsafe own.pointee.ipv4.exact(prefix) }
    return netisr.worker(0).perform { [self] in unsafe copies[0].ipv4.exact(prefix) }
  }
  public func exact(_ prefix: IPv6Prefix) -> Route6? {
    if let own = unsafe own { return unsafe own.pointee.ipv6.exact(prefix) }
    return netisr.worker(0).perform { [self] in unsafe copies[0].ipv6.exact(prefix) }
  }

  // MARK: Changes

  /// Adds a route on every worker. On a worker, the others have it soon after the call; otherwise all have it then.
  /// - Parameter replacing: takes the place of the route to the same prefix, if there is one.
  /// - Throws: `exists` (EEXIST), `full` (ENOBUFS), `invalid` (EINVAL). Nothing has changed then.
  public func add(_ route: Route4, replacing: Bool = false) throws(RouteError) {
    try commit4 { book, log throws(RouteError) in try book.put(route, replacing ? .replace : .add, into: &log) }
  }
  public func add(_ route: Route6, replacing: Bool = false) throws(RouteError) {
    try commit6 { book, log throws(RouteError) in try book.put(route, replacing ? .replace : .add, into: &log) }
  }

  /// Adds many with one walk over the workers. Those before the first refused one are added.
  public func add(contentsOf routes: [Route4], replacing: Bool = false) throws(RouteError) {
    try commitAll4 { book, log, events throws(RouteError) in
      for route in routes {
        if let event = try book.put(route, replacing ? .replace : .add, into: &log) { events.append(event) }
      }
    }
  }
  public func add(contentsOf routes: [Route6], replacing: Bool = false) throws(RouteError) {
    try commitAll6 { book, log, events throws(RouteError) in
      for route in routes {
        if let event = try book.put(route, replacing ? .replace : .add, into: &log) { events.append(event) }
      }
    }
  }

  /// Changes the route to a prefix. Throws `missing` (ESRCH) when there is none.
  public func change(_ route: Route4) throws(RouteError) {
    try commit4 { book, log throws(RouteError) in try book.put(route, .change, into: &log) }
  }
  public func change(_ route: Route6) throws(RouteError) {
    try commit6 { book, log throws(RouteError) in try book.put(route, .change, into: &log) }
  }

  /// Takes the route to exactly this prefix away. Throws `missing` (ESRCH) when there is none.
  @discardableResult public func remove(_ prefix: IPv4Prefix) throws(RouteError) -> Route4 {
    var gone: Route4?
    try commit4 { book, log throws(RouteError) in
      let route = try book.remove(prefix, log: &log)
      gone = route
      return .removed4(route)
    }
    guard let gone else { throw .missing("\(prefix)") }
    return gone
  }
  @discardableResult public func remove(_ prefix: IPv6Prefix) throws(RouteError) -> Route6 {
    var gone: Route6?
    try commit6 { book, log throws(RouteError) in
      let route = try book.remove(prefix, log: &log)
      gone = route
      return .removed6(route)
    }
    guard let gone else { throw .missing("\(prefix)") }
    return gone
  }

  /// Takes every route through an interface away, on every worker in turn.
  public func removeRoutes(through interface: InterfaceIndex) { removeAll { $0.interface == interface } or: { $0.interface == interface } }

  /// Takes every route away that `flags` are set in; all without flags.
  public func flush(having flags: RouteFlags = []) {
    removeAll { $0.flags.isSuperset(of: flags) } or: { $0.flags.isSuperset(of: flags) }
  }

  private func removeAll(_ ipv4: (Route4) -> Bool, or ipv6: (Route6) -> Bool) {
    // Removing refuses nothing.
    try? commitAll4 { book, log, events in events += book.remove(where: ipv4, log: &log) }
    try? commitAll6 { book, log, events in events += book.remove(where: ipv6, log: &log) }
  }

  // MARK: Reading the book

  /// The route to exactly this prefix, as the book has it. From any thread, without a worker.
  public func route(_ prefix: IPv4Prefix) -> Route4? { book.withLock { $0.ipv4.find(prefix) } }
  public func route(_ prefix: IPv6Prefix) -> Route6? { book.withLock { $0.ipv6.find(prefix) } }

  /// All routes, by prefix.
  public func list4() -> [Route4] { book.withLock { $0.ipv4.all } }
  public func list6() -> [Route6] { book.withLock { $0.ipv6.all } }
  public var count4: Int { book.withLock { $0.ipv4.count } }
  public var count6: Int { book.withLock { $0.ipv6.count } }

  /// How often the next hop of a route was the answer, over all workers: `netstat -r`'s Use. Routes with the same
  /// gateway, interface, flags and MTU share the count.
  public func uses(_ prefix: IPv4Prefix) -> UInt64 {
    guard let number = book.withLock({ $0.ipv4.number(prefix) }) else { return 0 }
    // SAFETY: the counts are atomic, at fixed addresses.
    return (0..<workerCount).reduce(0) { unsafe $0 &+ copies[$1].ipv4.uses(number) }
  }
  public func uses(_ prefix: IPv6Prefix) -> UInt64 {
    guard let number = book.withLock({ $0.ipv6.number(prefix) }) else { return 0 }
    return (0..<workerCount).reduce(0) { unsafe $0 &+ copies[$1].ipv6.uses(number) }
  }

  /// What copies could not take, the latest hundred.
  public var failures: [RouteFailure] { book.withLock { $0.failures } }
  /// Changes that some worker has still to make.
  public var pendingChanges: Int { book.withLock { $0.pending } }

  // MARK: Events

  /// Called after each change, on the thread that made it.
  public var onChange: (@Sendable (RouteEvent) -> Void)? {
    get { listeners.withLock { $0.onChange } }
    set { listeners.withLock { $0.onChange = newValue } }
  }
  /// Called on a worker whose copy could not take a change.
  public var onFailure: (@Sendable (RouteFailure) -> Void)? {
    get { listeners.withLock { $0.onFailure } }
    set { listeners.withLock { $0.onFailure = newValue } }
  }
  /// Calls `body` after each change, on the thread that made it, until the token is cancelled.
  public func subscribe(_ body: @escaping @Sendable (RouteEvent) -> Void) -> WorkerToken {
    let token = WorkerToken()
    listeners.withLock {
      $0.subscribers.removeAll { $0.token.isCancelled }
      $0.subscribers.append((token, body))
    }
    return token
  }
  /// For tests: changes that a worker's copy refuses.
  func setFault(_ fault: (@Sendable (_ worker: Int, _ operation: String) -> Bool)?) { listeners.withLock { $0.fault = fault } }

  private func announce(_ events: [RouteEvent]) {
    guard !events.isEmpty else { return }
    let (first, others) = listeners.withLock { ($0.onChange, $0.subscribers) }
    for event in events {
      first?(event)
      for (token, body) in others where !token.isCancelled { body(event) }
    }
  }
}

// MARK: - From the book to the copies

extension RouteTable {
  private typealias One<F: RouteFamily> = (inout FamilyBook<F>, inout [RouteChange<F>]) throws(RouteError) -> RouteEvent?
  private typealias Many<F: RouteFamily> = (inout FamilyBook<F>, inout [RouteChange<F>], inout [RouteEvent]) throws(RouteError) -> Void

  private func commit4(_ body: One<Family4>) throws(RouteError) {
    try commitAll4 { book, log, events throws(RouteError) in if let event = try body(&book, &log) { events.append(event) } }
  }
  private func commit6(_ body: One<Family6>) throws(RouteError) {
    try commitAll6 { book, log, events throws(RouteError) in if let event = try body(&book, &log) { events.append(event) } }
  }
  private func commitAll4(_ body: Many<Family4>) throws(RouteError) {
    var events: [RouteEvent] = []
    defer { spread(events) }
    try book.withLock { book throws(RouteError) in
      try book.with4 { family, log throws(RouteError) in try body(&family, &log, &events) }
    }
  }
  private func commitAll6(_ body: Many<Family6>) throws(RouteError) {
    var events: [RouteEvent] = []
    defer { spread(events) }
    try book.withLock { book throws(RouteError) in
      try book.with6 { family, log throws(RouteError) in try body(&family, &log, &events) }
    }
  }

  /// Lets every worker follow, one after the other, and tells who listens.
  private func spread(_ events: [RouteEvent]) {
    guard !events.isEmpty else { return }
    if let worker = Worker.current, worker.netisr === netisr {
      // A worker must not wait for another, which may be waiting for it. It follows at once itself.
      follow(worker.id)
      netisr.chain { [self] worker in follow(worker.id) }
    } else {
      for n in 0..<workerCount { netisr.worker(n).perform { [self] in follow(n) } }
    }
    announce(events)
  }

  /// On worker `n`: makes the changes that are in the log and not in its copy.
  private func follow(_ n: Int) {
    while true {
      let changes = book.withLock { $0.changes(for: n) }
      guard !changes.isEmpty else { return }
      let fault = listeners.withLock { $0.fault }
      var failed: [RouteFailure] = []
      for change in changes {
        do throws(RouteError) {
          if let fault, fault(n, "\(change)") { throw .full(what: "bytes of memory", limit: 0) }
          // SAFETY: on the worker whose copy this is.
          switch change {
          case .ipv4(let change): unsafe try copies[n].ipv4.apply(change)
          case .ipv6(let change): unsafe try copies[n].ipv6.apply(change)
          }
        } catch { failed.append(RouteFailure(worker: n, operation: "\(change)", problem: "\(error)")) }
      }
      book.withLock { $0.made(changes.count, by: n) }
      for failure in failed { report(failure) }
    }
  }

  private func report(_ failure: RouteFailure) {
    book.withLock { $0.failed(failure) }
    listeners.withLock { $0.onFailure }?(failure)
  }

  /// Bytes of a worker's copy.
  public var copySize: Int { netisr.worker(0).perform { [self] in unsafe copies[0].ipv4.size + copies[0].ipv6.size } }
}
