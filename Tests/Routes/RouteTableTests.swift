// The routes of a stack: what the book decides, what the workers' copies say.

import Netisr
import Packet
import Platform
import Synchronization
import Testing
import Wire

@testable import Routes

private func manual(_ workers: Int) throws -> Netisr {
  var configuration = NetisrConfiguration()
  configuration.isManual = true
  configuration.maxThreads = workers
  return try Netisr(configuration)
}

private func route(_ text: String, _ gateway: String? = nil, through interface: UInt16 = 1, flags: RouteFlags = .up) throws -> Route4 {
  let parts = text.split(separator: "/")
  let address = try #require(IPv4Address(parts[0])), length = try #require(Int(parts[1]))
  return Route4(
    IPv4Prefix(address, length), gateway: gateway.flatMap { IPv4Address($0) },
    interface: InterfaceIndex(interface, generation: 1), flags: flags)
}

private let probe = IPv4Address(10, 1, 2, 3)

/// What each worker's own copy says.
private func everywhere(_ netisr: Netisr, _ table: RouteTable, _ address: IPv4Address) -> [Route4?] {
  netisr.workers.map { worker in worker.perform { table.lookup(address) } }
}

@Suite struct RouteTableTests {
  @Test("Case 60: 10.0.0.0/8 and 10.1.0.0/16, lookup 10.1.2.3 gives the /16")
  func case60() throws {
    let netisr = try manual(3)
    let table = RouteTable(netisr)
    let short = try route("10.0.0.0/8", "198.18.0.1"), long = try route("10.1.0.0/16", "198.18.0.2", through: 2)
    try table.add(short)
    try table.add(long)
    #expect(everywhere(netisr, table, probe) == [long, long, long])
    #expect(everywhere(netisr, table, IPv4Address(10, 2, 0, 1)) == [short, short, short])
    #expect(table.lookup(IPv4Address(11, 0, 0, 1)) == nil)
    // The order in which they come does not matter, nor does the longer one's going leave a hole.
    try table.remove(short.prefix)
    try table.add(short)
    #expect(everywhere(netisr, table, probe) == [long, long, long])
    try table.remove(long.prefix)
    #expect(everywhere(netisr, table, probe) == [short, short, short])
  }

  @Test("Case 62: when an interface's routes are removed, no worker holds one; other interfaces' routes stay")
  func case62() throws {
    let netisr = try manual(4)
    let table = RouteTable(netisr)
    try table.add(contentsOf: (0..<200).map { try route("10.\($0).0.0/16", through: UInt16(1 + $0 % 2)) })
    let six = Route6(
      IPv6Prefix(try #require(IPv6Address("2001:2::")), 48), interface: InterfaceIndex(1, generation: 1), flags: .up)
    try table.add(six)
    // The same index with another generation is another interface.
    let newer = Route4(IPv4Prefix(IPv4Address(11, 0, 0, 0), 8), interface: InterfaceIndex(1, generation: 2), flags: .up)
    try table.add(newer)
    let removed = Guarded(0)
    table.onChange = { event in
      switch event {
      case .removed4, .removed6: removed.withLock { $0 += 1 }
      default: break
      }
    }
    table.removeRoutes(through: InterfaceIndex(1, generation: 1))
    for worker in netisr.workers {
      worker.perform {
        for n in 0..<200 {
          #expect((table.lookup(IPv4Address(10, UInt8(n), 0, 1)) == nil) == (n % 2 == 0), "worker \(worker.id), 10.\(n)")
        }
        #expect(table.lookup(six.prefix.address) == nil)
        #expect(table.lookup(IPv4Address(11, 1, 1, 1)) == newer)
      }
    }
    #expect(removed.withLock { $0 } == 101)
    #expect(table.count4 == 101)
  }

  @Test("a failure on one worker is reported, and the walk goes on")
  func failure() throws {
    let netisr = try manual(3)
    let table = RouteTable(netisr)
    let told = Guarded<[RouteFailure]>([])
    table.onFailure = { failure in told.withLock { $0.append(failure) } }
    table.setFault { worker, operation in worker == 1 && operation.contains("10.1.0.0/16") }
    let lost = try route("10.1.0.0/16")
    try table.add(lost)
    try table.add(try route("10.2.0.0/16"))
    #expect(everywhere(netisr, table, probe) == [lost, nil, lost])
    #expect(everywhere(netisr, table, IPv4Address(10, 2, 0, 1)).allSatisfy { $0 != nil })
    #expect(table.failures.map(\.worker) == [1])
    #expect(told.withLock { $0 } == table.failures)
    #expect(table.failures[0].description.contains("worker 1 could not set the route to 10.1.0.0/16"))
  }

  @Test("EEXIST, ESRCH, change and replace")
  func errors() throws {
    let netisr = try manual(2)
    let table = RouteTable(netisr)
    let first = try route("10.0.0.0/8", "198.18.0.1"), other = try route("10.0.0.0/8", "198.18.0.9", through: 2, flags: [.up, .gateway])
    #expect(throws: RouteError.missing("10.0.0.0/8")) { try table.change(first) }
    #expect(throws: RouteError.missing("10.0.0.0/8")) { try table.remove(first.prefix) }
    try table.add(first)
    #expect(throws: RouteError.exists("10.0.0.0/8")) { try table.add(other) }
    #expect(everywhere(netisr, table, probe) == [first, first])
    try table.change(other)
    #expect(everywhere(netisr, table, probe) == [other, other])
    try table.add(first, replacing: true)
    #expect(table.exact(first.prefix) == first)
    #expect(table.exact(IPv4Prefix(probe, 32)) == nil)
    #expect(table.route(first.prefix) == first)
    #expect(try table.remove(first.prefix) == first)
    #expect(everywhere(netisr, table, probe) == [nil, nil])
  }

  @Test("events say what happened, in order, and an unchanged route says nothing")
  func events() throws {
    let netisr = try manual(2)
    let table = RouteTable(netisr)
    let seen = Guarded<[RouteEvent]>([])
    let token = table.subscribe { event in seen.withLock { $0.append(event) } }
    let first = try route("10.0.0.0/8", "198.18.0.1"), changed = try route("10.0.0.0/8", "198.18.0.2")
    try table.add(first)
    try table.add(first, replacing: true)
    try table.change(changed)
    try table.remove(first.prefix)
    #expect(seen.withLock { $0 } == [.added4(first), .changed4(changed), .removed4(changed)])
    token.cancel()
    try table.add(first)
    #expect(seen.withLock { $0.count } == 3)
  }

  @Test("routes and next hops have limits; next hops are shared and come back")
  func limits() throws {
    let netisr = try manual(2)
    var limits = RouteLimits()
    limits.routes = 3
    limits.nextHops = 2
    let table = RouteTable(netisr, limits: limits)
    try table.add(try route("10.0.0.0/8", "198.18.0.1"))
    try table.add(try route("11.0.0.0/8", "198.18.0.2"))
    #expect(throws: RouteError.full(what: "next hops", limit: 2)) { try table.add(try route("12.0.0.0/8", "198.18.0.3")) }
    try table.add(try route("12.0.0.0/8", "198.18.0.1"))
    #expect(throws: RouteError.full(what: "routes", limit: 3)) { try table.add(try route("13.0.0.0/8", "198.18.0.1")) }
    #expect(table.lookup(IPv4Address(13, 0, 0, 1)) == nil)
    try table.remove(try route("11.0.0.0/8").prefix)
    let third = try route("13.0.0.0/8", "198.18.0.3")
    try table.add(third)
    #expect(everywhere(netisr, table, IPv4Address(13, 0, 0, 1)) == [third, third])
  }

  @Test("uses are counted by the workers and summed; flush takes all, or those with a flag")
  func usesAndFlush() throws {
    let netisr = try manual(3)
    let table = RouteTable(netisr)
    try table.add(try route("10.0.0.0/8", "198.18.0.1", flags: [.up, .static]))
    try table.add(try route("11.0.0.0/8", "198.18.0.2"))
    for _ in 0..<5 { _ = everywhere(netisr, table, probe) }
    #expect(table.uses(IPv4Prefix(probe, 8)) == 15)
    #expect(table.uses(IPv4Prefix(IPv4Address(11, 0, 0, 0), 8)) == 0)
    table.flush(having: .static)
    #expect(table.list4().map(\.prefix.description) == ["11.0.0.0/8"])
    table.flush()
    #expect(everywhere(netisr, table, IPv4Address(11, 0, 0, 1)) == [nil, nil, nil])
    #expect(table.count4 == 0 && table.pendingChanges == 0)
  }

  @Test("a change made on a worker is in its own copy at once, and in the others' when they have run")
  func onWorker() throws {
    let netisr = try manual(3)
    let table = RouteTable(netisr)
    let added = try route("10.0.0.0/8")
    netisr.workers[1].perform {
      #expect(throws: Never.self) { try table.add(added) }
      #expect(table.lookup(probe) == added)
    }
    netisr.settle()
    #expect(everywhere(netisr, table, probe) == [added, added, added])
    #expect(table.pendingChanges == 0)
  }

  @Test("threads and workers change routes at once: nothing hangs, and all workers end with the same routes")
  func concurrent() throws {
    var configuration = NetisrConfiguration()
    configuration.maxThreads = 2
    configuration.cpus = [0, 1]
    let netisr = try Netisr(configuration)
    try netisr.start()
    defer { netisr.stop() }
    let table = RouteTable(netisr)
    // Both workers and two threads change the same few prefixes; whoever comes too late is refused.
    @Sendable func churn(_ seed: UInt64) {
      var random = SeededGenerator(seed)
      for _ in 0..<200 {
        let prefix = IPv4Prefix(IPv4Address(10, UInt8(random.next() % 4), 0, 0), 16)
        let route = Route4(prefix, interface: InterfaceIndex(UInt16(seed), generation: 1), flags: .up)
        switch random.next() % 3 {
        case 0: try? table.add(route)
        case 1: try? table.change(route)
        default: _ = try? table.remove(prefix)
        }
        _ = table.lookup(prefix.address)
      }
    }
    let done = Atomic(0)
    for n in 0..<2 {
      netisr.workers[n].post {
        churn(UInt64(10 + n))
        done.add(1, ordering: .releasing)
      }
    }
    churn(1)
    while done.load(ordering: .acquiring) < 2 { netisr.clock.sleep(nanoseconds: 1_000_000) }
    // The last walks may still be on their way.
    for _ in 0..<5 { netisr.barrier() }
    for n in 0..<4 {
      let address = IPv4Address(10, UInt8(n), 0, 1)
      let answers = everywhere(netisr, table, address)
      #expect(answers[0] == answers[1])
      #expect(answers[0] == table.route(IPv4Prefix(address, 16)))
    }
    #expect(table.pendingChanges == 0)
    #expect(table.failures.isEmpty)
  }
}
