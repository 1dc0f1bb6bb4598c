// The classic queue: limits, priority, prepending, purging, other disciplines.

import Ifnet
import Packet
import Testing

@Suite struct SendQueueTests {
  /// A ring that takes nothing, so that packets stay in the queue.
  private func stalled(length: Int, workers: Int = 1) throws -> SendRig {
    let rig = try SendRig(workers: workers, length: length)
    rig.table.staging.countMaximum = 0
    rig.queue.setMaxLength(length)
    rig.queue.isActive = true
    return rig
  }

  @Test("Case 46: maxlen 50, 4 workers, cntmax 4 -> 66")
  func stagesRaiseTheLimit() throws {
    let rig = try SendRig(workers: 4, length: 50)
    #expect(rig.queue.limits == SendLimits(length: 66, bytes: 66 * 2048))
    rig.queue.setMaxLength(100)
    #expect(rig.queue.limits.length == 116)
    rig.table.staging.countMaximum = -3
    rig.queue.setMaxLength(50)
    #expect(rig.queue.limits.length == 50)
    #expect(try SendRig(length: 0).queue.limits.length == SendLimits.standard + 4)
    rig.queue.setMaxLength(.max)
    #expect(rig.queue.limits.length > 100_000)
  }

  @Test("Case 47: full: normal ENOBUFS; priority accepted, head dropped")
  func fullQueue() throws {
    let rig = try stalled(length: 4)
    #expect(rig.send(1...4) == [true, true, true, true])
    #expect(rig.send(5...5) == [false])
    #expect(rig.drops(.sendQueueFull) == 1)
    #expect(rig.send(9...9, priority: true) == [true])
    #expect(rig.drops(.sendQueuePushedOut) == 1)
    rig.queue.ready()
    #expect(rig.driver.sent == [9, 2, 3, 4])
    rig.expectConserved(offered: 6)
  }

  @Test("Case 48: full with priority at half -> ENOBUFS")
  func priorityAtHalf() throws {
    let rig = try stalled(length: 4)
    #expect(rig.send(1...2, priority: true) == [true, true])
    #expect(rig.send(3...4) == [true, true])
    #expect(rig.send(5...5, priority: true) == [false])
    #expect(rig.drops(.sendQueueFull) == 1)
    #expect(rig.drops(.sendQueuePushedOut) == 0)
    rig.expectConserved(offered: 5)
  }

  @Test("Case 49: priority dequeued before older normal")
  func priorityFirst() throws {
    let rig = try stalled(length: 10)
    rig.send(1...2)
    rig.send(3...3, priority: true)
    #expect(rig.queue.nextBytes == 60)
    rig.queue.ready()
    #expect(rig.driver.sent == [3, 1, 2])
  }

  @Test("Not full: priority has no cap; only priority and full -> ENOBUFS")
  func onlyPriority() throws {
    let rig = try stalled(length: 4)
    #expect(rig.send(1...4, priority: true) == [true, true, true, true])
    #expect(rig.send(5...5, priority: true) == [false])
    #expect(rig.queue.count == 4)
  }

  @Test("The byte limit fills the queue too, and several heads go for one packet of priority")
  func byteLimit() throws {
    let rig = try stalled(length: 2)
    // 4096 bytes; frames may go past the limit, the next one finds it reached.
    #expect(rig.send(1...2, length: 2000) == [true, true])
    #expect(rig.send(3...3, length: 60) == [false])
    let many = try stalled(length: 3)
    #expect(many.send(1...3, length: 2048) == [true, true, true])
    #expect(many.send(4...4, length: 60, priority: true) == [true])
    #expect(many.drops(.sendQueuePushedOut) == 1)
    // Prepended packets push the queue two over its limit: three heads have to go.
    let over = try stalled(length: 4)
    over.send(1...4)
    var back = PacketBatch(capacity: 4)
    over.check(back.append(over.packet(8)) == nil)
    over.check(back.append(over.packet(9)) == nil)
    over.queue.prepend(&back)
    #expect(over.queue.count == 6)
    #expect(over.send(7...7, priority: true) == [true])
    #expect(over.drops(.sendQueuePushedOut) == 3)
    over.queue.ready()
    #expect(over.driver.sent == [8, 9, 7, 4])
  }

  @Test("A prepended packet comes first, in its order, before priority")
  func prependedFirst() throws {
    let rig = try stalled(length: 10)
    rig.send(1...3)
    var batch = PacketBatch(capacity: 2)
    #expect(rig.queue.dequeue(into: &batch) == 2)
    rig.queue.prepend(&batch)
    #expect(batch.isEmpty == true)
    rig.send(9...9, priority: true)
    rig.queue.ready()
    #expect(rig.driver.sent == [1, 2, 9, 3])
    #expect(rig.queue.counters.sent == 4)
  }

  @Test("purge empties everything, with the reason that was given")
  func purge() throws {
    let rig = try stalled(length: 10)
    rig.send(1...3)
    rig.send(4...5, priority: true)
    var batch = PacketBatch(capacity: 1)
    rig.queue.dequeue(into: &batch)
    rig.queue.prepend(&batch)
    rig.interface.purgeSubqueues()
    #expect(rig.queue.count == 0)
    #expect(rig.queue.bytes == 0)
    #expect(rig.drops(.sendQueuePurged) == 5)
    rig.expectConserved(offered: 5)
  }

  @Test("A batch goes in under one lock, and what does not fit is dropped")
  func batches() throws {
    let rig = try stalled(length: 4)
    var batch = PacketBatch(capacity: 8)
    for mark in 1...6 { rig.check(batch.append(rig.packet(UInt8(mark), isMulticast: mark == 2)) == nil) }
    #expect(rig.queue.send(batch: &batch) == 4)
    rig.check(batch.isEmpty)
    #expect(rig.queue.send(batch: &batch) == 0)
    let counters = rig.interface.counters
    #expect(counters.obytes == 240)
    #expect(counters.omcasts == 1)
    #expect(counters.oqdrops == 2)
    #expect(counters.opackets == 0)
    rig.queue.ready()
    #expect(rig.interface.counters.opackets == 4)
    #expect(rig.driver.sent == [1, 2, 3, 4])
    rig.expectConserved(offered: 6)
  }

  /// Last in, first out, and at most two.
  private final class Stack: SendQueueDiscipline, @unchecked Sendable {
    private var packets = PacketFIFO()
    var count: Int { packets.count }
    var bytes: Int { packets.bytes }
    func enqueue(_ packet: consuming Packet, priority: Bool, limits: SendLimits, _ refusals: inout SendRefusals) -> Bool {
      guard packets.count < 2 else {
        refusals.refused.append(packet)
        return false
      }
      packets.prepend(packet)
      return true
    }
    func dequeue() -> Packet? { packets.popFirst() }
    func poll() -> Int? { packets.firstBytes }
    func handle(_ request: SendQueueRequest, _ refusals: inout SendRefusals) {
      guard request == .purge else { return }
      while let packet = packets.popFirst() { refusals.refused.append(packet) }
    }
  }

  @Test("set_methods: another discipline takes the classic queue's place")
  func discipline() throws {
    let rig = try stalled(length: 10)
    rig.send(1...1)
    rig.queue.setDiscipline(Stack())
    #expect(rig.drops(.sendQueuePurged) == 1)
    #expect(rig.send(2...4) == [true, true, false])
    #expect(rig.queue.count == 2)
    var batch = PacketBatch(capacity: 1)
    rig.queue.dequeue(into: &batch)
    rig.queue.prepend(&batch)
    rig.queue.ready()
    #expect(rig.driver.sent == [3, 2])
    rig.queue.isActive = true
    rig.send(5...6)
    rig.queue.setDiscipline(nil)
    #expect(rig.drops(.sendQueuePurged) == 3)
    rig.send(7...7)
    rig.queue.ready()
    #expect(rig.driver.sent == [3, 2, 7])
    rig.expectConserved(offered: 7)
  }

  @Test("A detached interface's queue drops what comes, and holds nothing")
  func detached() throws {
    let rig = try SendRig(workers: 2)
    rig.send(1...2, on: 1)
    #expect(rig.queue.count == 2)
    rig.table.detach(rig.interface)
    #expect(rig.send(3...3, on: 0) == [false])
    rig.netisr.settle()
    #expect(rig.driver.starts.isEmpty)
    #expect(rig.drops(.sendInterfaceGone) == 3)
    rig.expectConserved(offered: 3)
  }

  @Test("Rings double when they are full and keep their order", arguments: [1, 3, 16])
  func ringsGrow(_ capacity: Int) throws {
    let rig = try SendRig()
    var ring = PacketFIFO(capacity: capacity)
    for mark in 1...20 { ring.append(rig.packet(UInt8(mark))) }
    for mark in [22, 21] { ring.prepend(rig.packet(UInt8(mark))) }
    #expect(ring.count == 22)
    #expect(ring.bytes == 22 * 60)
    var marks: [UInt8] = []
    while marks.count < 15, let packet = ring.popFirst() { marks.append(packet.byte(at: 6) ?? 0) }
    #expect(marks == [21, 22] + Array(1...13))
    _ = consume ring
    #expect(rig.pool.available == 512)
  }
}
