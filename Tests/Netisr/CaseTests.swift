// The numbered cases of the specification of netisr, 1 to 12; the others are beside it.

import Packet
import Testing

@testable import Netisr

/// A handler that notes each packet's first byte, and frees the packet.
func noting(
  _ log: Log, _ name: String = "test", _ proto: NetisrProtocol = .ip, policy: OrderingPolicy = .source,
  dispatch: DispatchPolicy = .deferred, limit: Int = 0
) -> NetisrHandler {
  NetisrHandler(name: name, proto: proto, policy: policy, dispatch: dispatch, queueLimit: limit) { packet in
    log.add(Int(packet.byte(at: 0) ?? 255))
  }
}

extension Netisr {
  /// The line of a worker's stream; nil: of threads that are no worker.
  func stream(_ worker: Int?, _ proto: NetisrProtocol = .ip) throws -> WorkStreamLine {
    try #require(workStreams.first { $0.workstream == worker && $0.proto == proto })
  }
  /// Where packets are queued now, by worker.
  var lengths: [Int] { workers.map { worker in workStreams.first { $0.workstream == worker.id }?.length ?? -1 } }
  /// Drops of a reason.
  func dropped(_ reason: DropReason) -> UInt64 { drops.snapshot().filter { $0.reason == reason }.reduce(0) { $0 + $1.packets } }
}

@Suite struct LimitCases {
  let log = Log(), memory = Memory()

  @Test("Case 1: a queue limit of 0 becomes 256") func case1() throws {
    let netisr = try manual()
    try netisr.register(noting(log, limit: 0))
    #expect(try netisr.queueLimit(.ip) == 256)
  }

  @Test("Case 2: a queue limit of 20000 becomes 10240, with a warning") func case2() throws {
    let netisr = try manual(), warnings = Tally()
    netisr.onWarning = { _ in warnings.add() }
    try netisr.register(noting(log, limit: 20000))
    #expect(try netisr.queueLimit(.ip) == 10240)
    #expect(warnings.value == 1)
    try netisr.register(noting(log, "other", .arp, limit: 10240))
    #expect(warnings.value == 1)
  }

  @Test("Case 3: setqlimit 10241 is EINVAL, and nothing has changed") func case3() throws {
    let netisr = try manual()
    try netisr.register(noting(log, limit: 100))
    #expect(throws: NetisrError.self) { try netisr.setQueueLimit(.ip, 10241) }
    #expect(throws: NetisrError.self) { try netisr.setQueueLimit(.ip, -1) }
    #expect(try netisr.queueLimit(.ip) == 100)
    try netisr.setQueueLimit(.ip, 10240)
    #expect(try netisr.queueLimit(.ip) == 10240)
  }

  @Test("Case 4: limit 2, worker stalled, 3 queued: the third is ENOBUFS, drops 1, watermark 2") func case4() throws {
    let netisr = try manual()
    try netisr.register(noting(log, limit: 2))
    check(netisr.queue(.ip, memory.packet(1)) == .ok)
    check(netisr.queue(.ip, memory.packet(2)) == .ok)
    check(netisr.queue(.ip, memory.packet(3)) == .noBuffers)
    let line = try netisr.stream(0)
    #expect(line.queueDrops == 1)
    #expect(line.watermark == 2)
    #expect(line.queued == 2)
    #expect(try netisr.queueDrops(.ip) == 1)
    #expect(netisr.dropped(.netisrQueueFull) == 1)
    #expect(memory.pool.available == 62)
    netisr.settle()
    #expect(log.all == [1, 2])
  }

  @Test("Case 5: two in a batch and two queued meanwhile: all four are handled") func case5() throws {
    let netisr = try manual(), memory = memory, log = log
    try netisr.register(
      NetisrHandler(name: "test", proto: .ip, dispatch: .deferred, queueLimit: 2) { packet in
        let mark = Int(packet.byte(at: 0) ?? 255)
        log.add(mark)
        // The batch was taken out whole: the queue has room for two again.
        if mark == 1 {
          check(netisr.queue(.ip, memory.packet(3)) == .ok)
          check(netisr.queue(.ip, memory.packet(4)) == .ok)
          check(netisr.queue(.ip, memory.packet(5)) == .noBuffers)
        }
      })
    check(netisr.queue(.ip, memory.packet(1)) == .ok)
    check(netisr.queue(.ip, memory.packet(2)) == .ok)
    netisr.settle()
    #expect(log.all == [1, 2, 3, 4])
    #expect(try netisr.stream(0).handled == 4)
    #expect(memory.pool.available == 64)
  }

  @Test("Case 22: clearqdrops sets the drops alone to 0") func case22() throws {
    let netisr = try manual()
    try netisr.register(noting(log, limit: 1))
    for i in 0..<4 { netisr.queue(.ip, memory.packet(i)) }
    netisr.settle()
    let before = try netisr.stream(0)
    #expect(before.queueDrops == 3)
    try netisr.clearQueueDrops(.ip)
    var after = try netisr.stream(0)
    #expect(after.queueDrops == 0)
    after.queueDrops = 3
    #expect(after == before)
  }

  @Test func aLoweredLimitLeavesTheExcessQueued() throws {
    let netisr = try manual()
    try netisr.register(noting(log))
    for i in 0..<5 { netisr.queue(.ip, memory.packet(i)) }
    try netisr.setQueueLimit(.ip, 2)
    check(netisr.queue(.ip, memory.packet(9)) == .noBuffers)
    #expect(netisr.lengths == [5])
    netisr.settle()
    #expect(log.all == [0, 1, 2, 3, 4])
    check(netisr.queue(.ip, memory.packet(9)) == .ok)
    netisr.settle()
  }
}

@Suite struct PlacementCases {
  let log = Log(), memory = Memory()

  func queued(_ handler: NetisrHandler, workers: Int = 4, source: UInt = 0, _ packet: consuming Packet) throws -> [Int] {
    let netisr = try manual(workers)
    try netisr.register(handler)
    netisr.queue(.ip, packet, source: source)
    defer { netisr.settle() }
    return netisr.lengths
  }

  @Test("Case 6: SOURCE, 4 workers, interface 3, source 2: worker 1, the flow's number is ignored") func case6() throws {
    #expect(try queued(noting(log), source: 2, memory.packet(interface: 3, hash: 6)) == [0, 1, 0, 0])
    #expect(try queued(noting(log), source: 7, memory.packet()) == [0, 0, 0, 1], "no interface: source alone")
  }

  @Test("Case 7: FLOW, flow 6, 4 workers: worker 2") func case7() throws {
    #expect(try queued(noting(log, policy: .flow), memory.packet(interface: 1, hash: 6)) == [0, 0, 1, 0])
  }

  @Test("Case 8: FLOW without hash and m2flow falls to SOURCE") func case8() throws {
    #expect(try queued(noting(log, policy: .flow), source: 2, memory.packet(interface: 1)) == [0, 0, 0, 1])
    var handler = noting(log, policy: .flow)
    handler.m2flow = { _, _ in true }
    #expect(try queued(handler, source: 2, memory.packet(interface: 1)) == [0, 0, 0, 1], "an m2flow that finds none")
    handler.m2flow = { packet, source in
      packet.hash = 4 + UInt32(source)
      packet.flags.insert(.hashed)
      return true
    }
    #expect(try queued(handler, source: 2, memory.packet(interface: 1)) == [0, 0, 1, 0])
  }

  @Test("Case 9: an m2flow that returns nothing: ENOBUFS, and the queue's drops are unchanged") func case9() throws {
    let netisr = try manual(4)
    var handler = noting(log, policy: .flow)
    handler.m2flow = { _, _ in false }
    try netisr.register(handler)
    check(netisr.queue(.ip, memory.packet(interface: 1)) == .noBuffers)
    #expect(try netisr.queueDrops(.ip) == 0)
    #expect(netisr.dropped(.netisrNoPlacement) == 1, "it has a reason of its own")
    #expect(memory.pool.available == 64)
  }

  @Test("Case 10: CPU returns 5 of 4 workers: worker 1") func case10() throws {
    var handler = noting(log, policy: .cpu)
    handler.m2cpuid = { _, _ in .cpu(5) }
    #expect(try queued(handler, memory.packet(interface: 2)) == [0, 1, 0, 0])
    handler.m2cpuid = { _, _ in .drop }
    #expect(try queued(handler, memory.packet(interface: 2)) == [0, 0, 0, 0])
  }

  @Test("Case 11: cpuidNone in deferred dispatch falls to SOURCE") func case11() throws {
    var handler = noting(log, policy: .cpu)
    handler.m2cpuid = { _, _ in .none }
    #expect(try queued(handler, source: 1, memory.packet(interface: 2)) == [0, 0, 0, 1])
  }

  @Test func cpuidNoneInHybridDispatchIsTheCurrentWorker() throws {
    let netisr = try manual(4), memory = memory
    var handler = noting(log, policy: .cpu, dispatch: .hybrid)
    handler.m2cpuid = { _, _ in .none }
    try netisr.register(handler)
    netisr.workers[2].perform { _ = netisr.dispatch(.ip, memory.packet(7, interface: 3)) }
    #expect(try netisr.stream(2).hybridDispatched == 1)
    #expect(log.all == [7])
  }

  @Test("Case 12: one worker: callbacks are never called") func case12() throws {
    let calls = Tally()
    var handler = noting(log, policy: .cpu)
    handler.m2cpuid = { _, _ in
      calls.add()
      return .drop
    }
    #expect(try queued(handler, workers: 1, memory.packet(interface: 2)) == [1])
    #expect(calls.value == 0)
    #expect(log.all == [0])
  }
}
