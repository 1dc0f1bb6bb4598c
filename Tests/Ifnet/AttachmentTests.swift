// How interfaces come and go: indexes, order of events, generations, references, what is left behind.

import Netisr
import Packet
import Routes
import Synchronization
import Testing
import Wire

@testable import Ifnet

@Suite struct AttachmentTests {
  @Test("Case 28: attach a, b, c, detach b, attach d -> index 4")
  func holesStay() throws {
    let bench = try Bench()
    _ = try bench.attach("a")
    let b = try bench.attach("b")
    _ = try bench.attach("c")
    bench.table.detach(b)
    let d = try bench.attach("d")
    #expect(d.index.index == 4)
    #expect(bench.table.interfaces.map(\.name) == ["a", "c", "d"])
  }

  @Test("Case 29: detach the highest, attach -> same index")
  func tailIsReused() throws {
    let bench = try Bench()
    _ = try bench.attach("a")
    let b = try bench.attach("b")
    let c = try bench.attach("c")
    let old = c.index
    bench.table.detach(c)
    let again = try bench.attach("c")
    #expect(again.index.index == 3)
    // Here: the stale one names nothing.
    #expect(again.index != old)
    #expect(bench.table.interface(old) == nil)
    #expect(bench.table.interface(again.index) === again)
    // Past trailing holes as well.
    bench.table.detach(b)
    bench.table.detach(again)
    #expect(try bench.attach("d").index.index == 2)
  }

  @Test("Case 30: 20 attaches -> every lookup valid")
  func tableGrows() throws {
    let bench = try Bench(workers: 2)
    #expect(IndexTable().limit == 16)
    var all: [Interface] = []
    for n in 0..<20 {
      all.append(try bench.attach("em", { $0.unit = n }))
      for (i, interface) in all.enumerated() {
        #expect(bench.table.interface(named: "em\(i)") === interface)
        #expect(bench.table.interface(interface.index) === interface)
        #expect(bench.table.interface(number: i + 1) === interface)
        for worker in bench.netisr.workers {
          let index = interface.index
          #expect(worker.perform { bench.table.interface(index)?.name } == "em\(i)")
        }
      }
    }
    #expect(bench.table.interface(number: 21) == nil && bench.table.interface(number: 0) == nil)
    #expect(bench.table.interface(number: -1) == nil && bench.table.interface(number: 70000) == nil)
    #expect(bench.table.interface(.none) == nil)
  }

  @Test("Case 31: attach -> handler, ATTACH, ARRIVAL")
  func attachOrder() throws {
    let bench = try Bench()
    let token = bench.table.onAttachment { interface, isAttach in bench.note("\(interface.name) handler \(isAttach)") }
    _ = try bench.attach("em0")
    #expect(bench.domain4.taken == ["attach em0"])
    #expect(bench.seen == ["em0 handler true", "em0 attach", "em0 arrival"])
    token.cancel()
    _ = try bench.attach("em1")
    #expect(bench.seen == ["em1 attach", "em1 arrival"])
  }

  @Test("Case 32: detach -> handler, DEPARTURE, DETACH")
  func detachOrder() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0")
    let token = bench.table.onAttachment { interface, isAttach in bench.note("\(interface.name) handler \(isAttach)") }
    defer { token.cancel() }
    _ = bench.seen
    bench.table.detach(em0)
    #expect(bench.seen.prefix(3) == ["em0 handler false", "em0 departure", "em0 detach"])
    // A second time is nothing.
    bench.table.detach(em0)
    #expect(bench.seen == [])
  }

  @Test func detachUndoesEverything() throws {
    let bench = try Bench(workers: 2)
    let driver = NotingDriver()
    let em0 = try bench.attach("em0", driver: driver)
    try bench.ask("em0", .addAddress(.ipv4(IPv4Address(198, 18, 0, 1)), prefixLength: 24, broadcast: nil, destination: nil))
    try bench.ask("em0", .joinGroup("lan"))
    try bench.ask("em0", .setPolling(true))
    try em0.addMulticast(.ipv4(IPv4Address(224, 1, 1, 1)))
    try em0.addMulticast(.ipv4(IPv4Address(224, 1, 1, 1)))
    em0.watchdog.timer = 1
    let pending = em0.index
    driver.refuse(nil)
    _ = bench.domain4.taken
    bench.table.detach(em0)
    #expect(em0.isDying && !em0.flags.contains(.up) && !em0.flags.contains(.polling))
    #expect(driver.requests.first == .polling(false))
    #expect(driver.requests.contains(.deleteMulticast(MACAddress(0x01, 0, 0x5e, 1, 1, 1))))
    #expect(driver.state.withLock { $0.detached } == 1)
    #expect(bench.domain4.taken == ["em0 down", "detach em0"])
    #expect(em0.addresses.isEmpty && em0.groups.isEmpty && em0.multicastGroups.isEmpty && em0.linkMulticast.isEmpty)
    #expect(errno { try bench.table.members(of: "lan") } == .ENOENT)
    #expect(!em0.watchdog.isRunning && em0.watchdog.timer == 0)
    bench.tick()
    bench.tick()
    #expect(driver.watchdogs.isEmpty)
    for worker in bench.netisr.workers {
      #expect(worker.perform { bench.table.isLocal(IPv4Address(198, 18, 0, 1)) } == false)
      #expect(worker.perform { bench.table.interface(pending) == nil })
      #expect(worker.perform { em0.addresses.isEmpty })
    }
    // Nothing can be joined behind its back.
    #expect(errno { try em0.join(group: "lan") } == .ENXIO)
    #expect(errno { try em0.addMulticast(.ipv4(IPv4Address(224, 1, 1, 1))) } == .ENXIO)
  }

  @Test("Case 62: detach -> no worker holds a route to it")
  func routesGo() throws {
    let bench = try Bench(workers: 3)
    let routes = RouteTable(bench.netisr)
    let calls = Atomic(0)
    bench.table.removeRoutes = { interface in
      calls.wrappingAdd(1, ordering: .relaxed)
      routes.removeRoutes(through: interface.index)
    }
    let em0 = try bench.attach("em0")
    let em1 = try bench.attach("em1")
    let near = IPv4Prefix(IPv4Address(198, 18, 1, 0), 24), far = IPv4Prefix(IPv4Address(198, 18, 2, 0), 24)
    try routes.add(Route4(near, interface: em0.index, flags: [.up]))
    try routes.add(Route4(far, interface: em1.index, flags: [.up]))
    bench.table.detach(em0)
    #expect(calls.load(ordering: .relaxed) == 1)
    for worker in bench.netisr.workers {
      #expect(worker.perform { routes.lookup(IPv4Address(198, 18, 1, 7))?.interface } == nil)
      #expect(worker.perform { routes.lookup(IPv4Address(198, 18, 2, 7))?.interface } == em1.index)
    }
  }

  @Test func namesAreChecked() throws {
    let bench = try Bench()
    #expect(try bench.attach("fifteenletters1").name == "fifteenletters1")
    #expect(errno { try bench.table.attach(InterfaceOptions("fifteenletters1", unit: 0), driver: NotingDriver()) } == .ENAMETOOLONG)
    #expect(errno { try bench.table.attach(InterfaceOptions("fifteenletters", unit: 1), driver: NotingDriver()) } == .EEXIST)
    #expect(errno { try bench.table.attach(InterfaceOptions(""), driver: NotingDriver()) } == .EINVAL)
    #expect(errno { try bench.table.attach(InterfaceOptions("a b"), driver: NotingDriver()) } == .EINVAL)
    // What was refused has used no index.
    #expect(try bench.attach("em0").index.index == 2)
  }

  final class Common: LinkCommon {}

  @Test func linkTypesKeepState() throws {
    let bench = try Bench()
    let made = Atomic(0), freed = Atomic(0), refuses = Atomic(false)
    let allocator = LinkAllocator {
      _ in
      if refuses.load(ordering: .relaxed) { return nil }
      made.wrappingAdd(1, ordering: .relaxed)
      return Common()
    } free: { _, _ in freed.wrappingAdd(1, ordering: .relaxed) }
    try bench.table.register(allocator, for: .ethernet)
    #expect(errno { try bench.table.register(allocator, for: .ethernet) } == .EEXIST)
    let em0 = try bench.attach("em0")
    #expect(em0.common is Common)
    #expect(try bench.attach("lo0", type: .loopback).common == nil)
    refuses.store(true, ordering: .relaxed)
    #expect(errno { try bench.table.attach(InterfaceOptions("em1"), driver: NotingDriver()) } == .ENOMEM)
    #expect(bench.table.interface(named: "em1") == nil)
    // The last reference frees it.
    do {
      let reference = bench.table.reference(named: "em0")
      check(reference != nil)
      bench.table.detach(em0)
      #expect(freed.load(ordering: .relaxed) == 0)
      check(bench.table.reference(named: "em0") == nil && bench.table.reference(em0.index) == nil)
      _ = consume reference
    }
    #expect(made.load(ordering: .relaxed) == 1 && freed.load(ordering: .relaxed) == 1)
  }

  @Test func lateDomainsMeetEverybody() throws {
    let bench = try Bench()
    _ = try bench.attach("em0")
    _ = try bench.attach("em1")
    let late = NotingDomain(.ipv6)
    bench.table.register(late)
    #expect(late.taken == ["attach em0", "attach em1"])
    _ = try bench.attach("em2")
    #expect(late.taken == ["attach em2"])
    #expect(bench.table.staging.protocolHeader == 60)
  }

  @Test func everybodyIsInAll() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0")
    _ = try bench.attach("em1")
    #expect(em0.groups == ["all"])
    bench.table.detach(em0)
    #expect(try bench.table.members(of: "all").map(\.name) == ["em1"])
  }

  @Test func missingQueueLengthIsSaid() throws {
    let bench = try Bench()
    let log = EventLog()
    bench.table.log = { log.add($0) }
    let em0 = try bench.attach("em0", { $0.queueLength = 0; $0.subqueues = -3 })
    #expect(log.take().count == 1)
    #expect(em0.subqueues.count == 1)
    _ = try bench.attach("em1")
    #expect(log.take() == [])
  }

  @Test func otherWorkersMustSendAMessage() throws {
    let bench = try Bench(workers: 2)
    let em0 = try bench.attach("em0")
    let code = bench.netisr.workers[1].perform {
      errno { try bench.table.attach(InterfaceOptions("em1"), driver: NotingDriver()) }
    }
    #expect(code == .EBUSY)
    // What does not wait goes to worker 0.
    bench.netisr.workers[1].perform { bench.table.detach(em0) }
    bench.netisr.settle()
    #expect(bench.table.interfaces.isEmpty)
  }

  @Test func workersOfAnotherInstanceDoNotCount() throws {
    let one = try Bench(), two = try Bench()
    let em0 = try two.attach("em0")
    // A worker of one dispatcher is a stranger to the other's interfaces.
    one.netisr.workers[0].perform { em0.count(.ierrors, 3) }
    two.netisr.workers[0].perform { em0.count(.ierrors, 4) }
    em0.count(.ierrors, 5)
    #expect(em0.counters.ierrors == 12)
  }

  @Test func netisrKnowsWhoseAnInterfaceIs() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0", { $0.vnet = Vnet(rawValue: 7) })
    #expect(bench.netisr.vnetOfInterface?(em0.index) == Vnet(rawValue: 7))
    let index = em0.index
    bench.table.detach(em0)
    #expect(bench.netisr.vnetOfInterface?(index) == nil)
  }
}
