// Registering, unregistering, stack instances, controls.

import Packet
import Platform
import Testing

@testable import Netisr

@Suite struct RegistrationTests {
  let log = Log(), memory = Memory()
  let a = Vnet(rawValue: 1), b = Vnet(rawValue: 2)

  @Test func wrongRegistrationsAreTypedErrors() throws {
    let netisr = try manual()
    func refused(_ change: (inout NetisrHandler) -> Void) -> Bool {
      var handler = noting(log, policy: .flow)
      change(&handler)
      do {
        try netisr.register(handler)
        return false
      } catch {
        if case .registration(let name, let problem) = error { return name == handler.name && !problem.isEmpty }
        return false
      }
    }
    #expect(refused { $0.name = "" })
    #expect(refused { $0.name = "a b" })
    #expect(refused { $0.proto = NetisrProtocol(rawValue: 16) })
    #expect(refused { $0.queueLimit = -1 })
    #expect(refused { $0.policy = .source; $0.m2flow = { _, _ in true } })
    #expect(refused { $0.m2cpuid = { _, _ in .none } })
    #expect(refused { $0.policy = .cpu })
    try netisr.register(noting(log))
    #expect(refused { $0.name = "other" }, "the slot is taken")
    #expect(refused { $0.proto = .arp }, "the name is taken")
    #expect(netisr.protocols.map(\.name) == ["test"])
  }

  @Test("Case 20: unregister_vnet A with A, B, A queued: B remains; a further A is ENOPROTOOPT") func case20() throws {
    let netisr = try manual()
    try netisr.register(noting(log))
    netisr.queue(.ip, memory.packet(1), vnet: a)
    netisr.queue(.ip, memory.packet(2), vnet: b)
    netisr.queue(.ip, memory.packet(3), vnet: a)
    try netisr.unregisterVnet(.ip, a)
    #expect(netisr.lengths == [1])
    check(netisr.queue(.ip, memory.packet(4), vnet: a) == .notEnabled)
    check(netisr.dispatch(.ip, memory.packet(4), vnet: a) == .notEnabled)
    netisr.settle()
    #expect(log.all == [2])
    #expect(netisr.dropped(.netisrPurged) == 2)
    #expect(netisr.dropped(.netisrDisabled) == 2)
    let line = try netisr.stream(0)
    #expect((line.queued, line.purged, line.handled) == (3, 2, 1))
    try netisr.registerVnet(.ip, a)
    check(netisr.queue(.ip, memory.packet(5), vnet: a) == .ok)
    netisr.settle()
    #expect(log.all == [2, 5])
    #expect(memory.pool.available == 64)
  }

  @Test func aPurgeKeepsTheOrderAndClearsTheMarkOfAnEmptyQueue() throws {
    let netisr = try manual()
    try netisr.register(noting(log))
    for i in 0..<9 { netisr.queue(.ip, memory.packet(i), vnet: i % 3 == 0 ? a : b) }
    try netisr.unregisterVnet(.ip, a)
    netisr.queue(.ip, memory.packet(9), vnet: b)
    netisr.settle()
    #expect(log.all == [1, 2, 4, 5, 7, 8, 9])
    try netisr.registerVnet(.ip, a)
    netisr.queue(.ip, memory.packet(1), vnet: a)
    #expect(netisr.workers[0].hasWork)
    try netisr.unregisterVnet(.ip, a)
    #expect(!netisr.workers[0].hasWork)
    #expect(!netisr.run(worker: 0))
  }

  @Test func packetsOfInterfacesThatAreGoneArePurgedToo() throws {
    let netisr = try manual(), b = b
    netisr.vnetOfInterface = { $0.index == 7 ? b : nil }
    try netisr.register(noting(log))
    netisr.queue(.ip, memory.packet(1, interface: 6), vnet: b)
    netisr.queue(.ip, memory.packet(2, interface: 7), vnet: b)
    netisr.queue(.ip, memory.packet(3), vnet: b)
    try netisr.unregisterVnet(.ip, a)
    netisr.settle()
    #expect(log.all == [2, 3])
  }

  @Test func unregisteringFreesWhatIsQueuedAndStartsAnew() throws {
    let netisr = try manual(2)
    try netisr.register(noting(log, limit: 3))
    for i in 0..<5 { netisr.queue(.ip, memory.packet(i)) }
    netisr.dispatch(.ip, memory.packet(9), source: 1)
    try netisr.unregister(.ip)
    netisr.settle()
    #expect(log.all.isEmpty)
    #expect(memory.pool.available == 64)
    #expect(throws: NetisrError.unregistered(proto: 1)) { try netisr.unregister(.ip) }
    #expect(throws: NetisrError.unregistered(proto: 1)) { try netisr.queueLimit(.ip) }
    #expect(throws: NetisrError.self) { try netisr.unregister(NetisrProtocol(rawValue: 99)) }
    check(netisr.queue(.ip, memory.packet(1)) == .unregistered)
    try netisr.register(noting(log))
    let line = try netisr.stream(0)
    #expect((line.queued, line.handled, line.queueDrops, line.watermark, line.purged) == (0, 0, 0, 0, 0))
    netisr.queue(.ip, memory.packet(6))
    netisr.settle()
    #expect(log.all == [6])
    #expect(try netisr.stream(0).queued == 1)
  }

  @Test func aHandlerMayTakeItselfAway() throws {
    let netisr = try threaded(2), memory = memory, log = log
    try netisr.register(
      NetisrHandler(name: "test", proto: .ip, dispatch: .deferred) { packet in
        log.add(Int(packet.byte(at: 0) ?? 255))
        try? netisr.unregister(.ip)
      })
    check(netisr.queue(.ip, memory.packet(1)) == .ok)
    eventually("the handler") { log.all == [1] }
    eventually("another registration") { (try? netisr.register(noting(log))) != nil }
    eventually("the former handler's end") { netisr.shared.registry.withLock { $0.retired.isEmpty } }
    netisr.stop()
  }

  @Test func stopFreesWhatIsStillQueued() throws {
    let netisr = try manual()
    try netisr.register(noting(log))
    for i in 0..<5 { netisr.queue(.ip, memory.packet(i)) }
    netisr.stop()
    #expect(log.all == [0, 1, 2, 3, 4], "what was queued is done")
    check(netisr.queue(.ip, memory.packet(6)) == .noBuffers)
    #expect(netisr.dropped(.netisrPurged) == 1)
    #expect(memory.pool.available == 64)
  }
}

@Suite struct ControlTests {
  let log = Log()

  @Test("Case 19: net.isr.dispatch = \"default\" or \"bogus\" is EINVAL") func case19() throws {
    let netisr = try manual()
    for text in ["default", "bogus", "", "Direct", "deferred ", String(repeating: "direct", count: 4)] {
      #expect(throws: SysctlError.self) { try netisr.sysctl.write("net.isr.dispatch", text) }
      do { try netisr.sysctl.write("net.isr.dispatch", text) } catch { #expect(error.errno == "EINVAL") }
    }
    #expect(try netisr.sysctl.read("net.isr.dispatch") == .string("direct"))
    for text in ["deferred", "hybrid", "direct"] {
      try netisr.sysctl.write("net.isr.dispatch", text)
      #expect(try netisr.sysctl.read("net.isr.dispatch") == .string(text))
    }
  }

  @Test func theGlobalPolicyIsForProtocolsWithoutOne() throws {
    let netisr = try manual(), memory = Memory()
    try netisr.register(noting(log, dispatch: .default))
    try netisr.sysctl.write("net.isr.dispatch", "deferred")
    netisr.dispatch(.ip, memory.packet(1))
    #expect(log.all.isEmpty)
    netisr.settle()
    #expect(log.all == [1])
  }

  @Test("Case 23: maxthreads -1: all processors") func case23() throws {
    let processors = try CPUList.allowed().cpus.count
    func workers(_ threads: Int) throws -> Int {
      var configuration = NetisrConfiguration()
      configuration.maxThreads = threads
      return try Netisr(configuration).workers.count
    }
    #expect(try workers(-1) == processors)
    #expect(try workers(0) == 1)
    #expect(try workers(-2) == 1)
    #expect(try workers(1) == 1)
    #expect(try workers(100_000) == processors)
  }

  @Test func readOnlyControlsSayWhy() throws {
    let netisr = try manual(3) {
      $0.maxQueueLimit = 100
      $0.defaultQueueLimit = 5000
    }
    let tree = netisr.sysctl
    #expect(try tree.read("net.isr.numthreads") == .integer(3))
    #expect(try tree.read("net.isr.maxthreads") == .integer(3))
    #expect(try tree.read("net.isr.maxprot") == .integer(16))
    #expect(try tree.read("net.isr.maxqlimit") == .integer(100))
    #expect(try tree.read("net.isr.defaultqlimit") == .integer(100), "cut to the maximum")
    #expect(try tree.read("net.isr.bindthreads") == .integer(0))
    func errno(_ name: String) -> String? {
      do { try tree.write(name, "1") } catch { return error.errno }
      return nil
    }
    for name in ["numthreads", "maxthreads", "maxprot", "maxqlimit", "defaultqlimit", "bindthreads"] {
      #expect(errno("net.isr." + name) == "EPERM")
    }
    for name in ["proto", "workstream", "work"] { #expect(errno("net.isr." + name) == "EINVAL") }
    #expect(errno("net.isr.nothing") == "ENOENT")
    #expect(tree.list("net.isr").count == 10)
  }

  @Test func theTablesOfNetstat() throws {
    let netisr = try manual(2), memory = Memory()
    var handler = noting(log, policy: .cpu)
    handler.m2cpuid = { _, _ in .cpu(1) }
    handler.drainedcpu = { _ in }
    try netisr.register(handler)
    try netisr.register(noting(log, "arp", .arp, dispatch: .default, limit: 7))
    #expect(netisr.settings.map(\.name) == ["Thread count", "Default queue limit", "Dispatch policy", "Threads bound to CPUs"])
    #expect(netisr.settings[1].current == "256" && netisr.settings[1].limit == "10240")
    #expect(netisr.settings[3] == NetisrSetting(name: "Threads bound to CPUs", current: "disabled", limit: "n/a"))
    #expect(netisr.protocols.map(\.flags) == ["CD-", "---"])
    #expect(netisr.protocols[1].queueLimit == 7)
    netisr.queue(.ip, memory.packet(1))
    guard case .table(let columns, let rows) = try netisr.sysctl.read("net.isr.work") else {
      Issue.record("net.isr.work is no table")
      return
    }
    #expect(columns == ["WSID", "CPU", "Name", "Len", "WMark", "Disp'd", "HDisp'd", "QDrops", "Queued", "Handled"])
    #expect(rows.count == 6)
    #expect(rows[2] == ["1", "1", "test", "1", "1", "0", "0", "0", "1", "0"])
    netisr.settle()
  }
}
