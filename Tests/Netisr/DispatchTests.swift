// Dispatch: direct, hybrid, deferred, batches, and what threads do that are no worker.

import Packet
import Testing

@testable import Netisr

@Suite struct DispatchCases {
  let log = Log(), memory = Memory()

  @Test("Case 13: queue under direct dispatch is still asynchronous") func case13() throws {
    let netisr = try manual()
    try netisr.register(noting(log, dispatch: .direct))
    check(netisr.queue(.ip, memory.packet(1)) == .ok)
    #expect(log.all.isEmpty)
    netisr.settle()
    #expect(log.all == [1])
  }

  @Test("Case 14: dispatch by default: the handler has run; dispatched 1, queued 0") func case14() throws {
    let netisr = try manual(2), memory = memory, log = log
    try netisr.register(noting(log, dispatch: .default))
    netisr.workers[1].perform {
      check(netisr.dispatch(.ip, memory.packet(1, interface: 2)) == .ok)
      #expect(log.all == [1])
    }
    let line = try netisr.stream(1)
    #expect((line.dispatched, line.queued, line.handled) == (1, 0, 1))
    #expect(try netisr.stream(0).handled == 0)
  }

  @Test("Case 15: a deferred protocol under global direct dispatch is queued") func case15() throws {
    let netisr = try manual()
    try netisr.register(noting(log, dispatch: .deferred))
    check(netisr.dispatch(.ip, memory.packet(1)) == .ok)
    #expect(log.all.isEmpty)
    #expect(try netisr.stream(0).queued == 1)
    netisr.settle()
    #expect(log.all == [1])
  }

  @Test("Case 16: hybrid on one's own idle stream: hybridDispatched 1") func case16() throws {
    let netisr = try manual(), memory = memory, log = log
    try netisr.register(noting(log, dispatch: .hybrid))
    netisr.workers[0].perform {
      netisr.dispatch(.ip, memory.packet(1))
      #expect(log.all == [1])
    }
    let line = try netisr.stream(0)
    #expect((line.hybridDispatched, line.handled, line.queued, line.dispatched) == (1, 1, 0, 0))
  }

  @Test("Case 17: hybrid from inside one's own handler is queued and runs after the return") func case17() throws {
    let netisr = try manual(), memory = memory, log = log
    try netisr.register(
      NetisrHandler(name: "test", proto: .ip, dispatch: .hybrid) { packet in
        let mark = Int(packet.byte(at: 0) ?? 255)
        log.add(mark)
        if mark < 3 { check(netisr.dispatch(.ip, memory.packet(mark + 1)) == .ok) }
        log.add(mark + 100)
      })
    netisr.workers[0].perform { _ = netisr.dispatch(.ip, memory.packet(1)) }
    netisr.settle()
    #expect(log.all == [1, 101, 2, 102, 3, 103])
    #expect(try netisr.stream(0).hybridDispatched == 1)
    #expect(try netisr.stream(0).queued == 2)
  }

  @Test("Case 18: hybrid with a queued packet: the new one comes second") func case18() throws {
    let netisr = try manual(), memory = memory, log = log
    try netisr.register(noting(log, dispatch: .hybrid))
    netisr.workers[0].perform {
      netisr.queue(.ip, memory.packet(1))
      netisr.dispatch(.ip, memory.packet(2))
      #expect(log.all.isEmpty)
    }
    netisr.settle()
    #expect(log.all == [1, 2])
  }

  @Test("Case 21: a batch of 3: drainedcpu once; direct: never") func case21() throws {
    let netisr = try manual(), drained = Log()
    var handler = noting(log, dispatch: .direct)
    handler.drainedcpu = { drained.add($0) }
    try netisr.register(handler)
    netisr.workers[0].perform { [memory] in _ = netisr.dispatch(.ip, memory.packet(1)) }
    netisr.settle()
    #expect(drained.all.isEmpty)
    for i in 0..<3 { netisr.queue(.ip, memory.packet(i)) }
    netisr.settle()
    #expect(drained.all == [0])
    netisr.queue(.ip, memory.packet(9))
    try netisr.unregister(.ip)
    netisr.settle()
    #expect(drained.all == [0], "a purge does not call it")
  }

  @Test func hybridForAnotherWorkerIsQueuedThere() throws {
    let netisr = try manual(2), memory = memory
    try netisr.register(noting(log, dispatch: .hybrid))
    netisr.workers[0].perform { _ = netisr.dispatch(.ip, memory.packet(1, interface: 1)) }
    #expect(netisr.lengths == [0, 1])
    netisr.settle()
    #expect(log.all == [1])
  }

  @Test func directDispatchRecurs() throws {
    let netisr = try manual(), memory = memory, log = log
    try netisr.register(
      NetisrHandler(name: "test", proto: .ip, dispatch: .direct) { packet in
        let mark = Int(packet.byte(at: 0) ?? 255)
        if mark < 3 { netisr.dispatch(.ip, memory.packet(mark + 1)) }
        log.add(mark)
      })
    netisr.workers[0].perform { _ = netisr.dispatch(.ip, memory.packet(1)) }
    #expect(log.all == [3, 2, 1])
  }

  @Test func threadsThatAreNoWorkerAreCountedOnAStreamThatIsShown() throws {
    let netisr = try manual()
    try netisr.register(noting(log, dispatch: .direct))
    netisr.dispatch(.ip, memory.packet(1))
    let line = try netisr.stream(nil)
    #expect((line.dispatched, line.handled) == (1, 1))
    #expect(try netisr.stream(0).handled == 0)
  }

  @Test func handlersForWorkersOnlyAreQueuedFromElsewhere() throws {
    let netisr = try manual(), memory = memory, log = log
    var handler = noting(log, dispatch: .direct)
    handler.workersOnly = true
    try netisr.register(handler)
    netisr.dispatch(.ip, memory.packet(1))
    #expect(log.all.isEmpty)
    netisr.settle()
    #expect(log.all == [1])
    netisr.workers[0].perform { _ = netisr.dispatch(.ip, memory.packet(2)) }
    #expect(log.all == [1, 2])
    let other = try manual()
    other.workers[0].perform { _ = netisr.dispatch(.ip, memory.packet(3)) }
    #expect(log.all == [1, 2], "another dispatcher's worker is none of this one's")
    netisr.settle()
    #expect(log.all == [1, 2, 3])
  }

  @Test(arguments: [DispatchPolicy.direct, .hybrid, .deferred]) func batchesKeepTheirOrder(policy: DispatchPolicy) throws {
    let netisr = try manual(2), memory = memory, log = log
    try netisr.register(noting(log, dispatch: policy))
    netisr.workers[1].perform {
      var batch = PacketBatch(capacity: 8)
      for i in 0..<8 { _ = batch.append(memory.packet(i, interface: 1)) }
      netisr.dispatch(.ip, batch: &batch)
      check(batch.isEmpty)
    }
    netisr.settle()
    #expect(log.all == Array(0..<8))
    #expect(memory.pool.available == 64)
    let line = try netisr.stream(1)
    #expect(line.handled == 8)
    #expect((line.dispatched, line.hybridDispatched, line.queued) == (policy == .direct ? 8 : 0, policy == .hybrid ? 8 : 0, policy == .deferred ? 8 : 0))
  }

  @Test func batchesThatNobodyTakesAreDropped() throws {
    let netisr = try manual()
    var batch = PacketBatch(capacity: 8)
    for i in 0..<5 { _ = batch.append(memory.packet(i)) }
    netisr.dispatch(.arp, batch: &batch)
    check(batch.isEmpty)
    #expect(netisr.dropped(.netisrUnregistered) == 5)
    try netisr.register(noting(log))
    try netisr.unregisterVnet(.ip, .base)
    for i in 0..<5 { _ = batch.append(memory.packet(i)) }
    netisr.dispatch(.ip, batch: &batch)
    netisr.dispatch(.ip, batch: &batch)
    #expect(netisr.dropped(.netisrDisabled) == 5)
    #expect(memory.pool.available == 64)
  }

  @Test func protocolsAreServedLowestNumberFirst() throws {
    let netisr = try manual()
    for proto in [NetisrProtocol.ipv6, .arp, .ip] {
      try netisr.register(noting(log, "p\(proto)", proto))
      for i in 0..<2 { netisr.queue(proto, memory.packet(Int(proto.rawValue) * 10 + i)) }
    }
    netisr.settle()
    #expect(log.all == [10, 11, 40, 41, 60, 61])
  }

  @Test func aProtocolWithoutHandlerIsAnErrorNotATrap() throws {
    let netisr = try manual()
    check(netisr.dispatch(.ip, memory.packet(1)) == .unregistered)
    check(netisr.queue(NetisrProtocol(rawValue: 200), memory.packet(1)) == .unregistered)
    #expect(netisr.dropped(.netisrUnregistered) == 2)
    #expect(memory.pool.available == 64)
  }
}
