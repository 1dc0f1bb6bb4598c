// Frames through the rings and the model: order, wrapping, jumbo frames, in both modes.

import DriverKit
import ModelKit
import Models
import Packet
import Testing
import Wire

@testable import Ixgbe

@Suite struct TrafficTests {
  static let modes: [InProcessCard.Mode] = [.trapped, .shared]

  @Test(arguments: modes) func framesComeInInOrderOverManyRounds(mode: InProcessCard.Mode) throws {
    let bench = try Bench(mode: mode)
    var expected = 0
    for round in 0..<40 {
      bench.arrive((0..<(round % 5) * 12).map { Frames.plain(expected + $0, count: 60 + (expected + $0) % 1400) })
      for frame in bench.frames() {
        #expect(frame == Frames.plain(expected, count: 60 + expected % 1400))
        expected += 1
      }
    }
    #expect(expected == 8 * 12 * (1 + 2 + 3 + 4))
    bench.nothingIsLost()
    #expect(bench.statistic("rx_packets") == UInt64(expected))
    #expect(bench.statistic("rx_pkts_nic") == UInt64(expected))
    #expect(bench.statistic("rx_queue_0_packets") == UInt64(expected))
    #expect(bench.model.bus.memory.faults == 0)
    #expect(bench.model.bus.complaints == [])
  }

  @Test(arguments: modes, [1, 3, 31, 32, 33, 63])
  func framesGoOutInOrderOverManyRounds(mode: InProcessCard.Mode, batch: Int) throws {
    let bench = try Bench(mode: mode)
    var number = 0
    for _ in 0..<40 {
      let frames = (0..<batch).map { Frames.plain(number + $0, count: 60 + (number + $0) % 1400) }
      let taken = try bench.send(frames)
      #expect(taken == batch)
      number += batch
      bench.card.settle()
    }
    #expect(bench.wire.sent.map(\.bytes) == (0..<number).map { Frames.plain($0, count: 60 + $0 % 1400) })
    bench.nothingIsLost()
    #expect(bench.statistic("tx_packets") == UInt64(number))
    #expect(bench.statistic("tx_pkts_nic") == UInt64(number))
    #expect(bench.statistic("tx_queue_0_doorbells") == 40, "one tail write a batch")
    #expect(bench.model.bus.complaints == [])
  }

  /// With a full ring the card keeps frames in its packet memory, and loses them when that is full.
  @Test func aFullRingLosesFramesAndTheCardCountsThem() throws {
    let bench = try Bench(packetBuffer: 16 * 1024)
    for i in 0..<200 { bench.arrive([Frames.plain(i, count: 1000)]) }
    var seen = 0
    for _ in 0..<10 {
      for frame in bench.frames() {
        #expect(frame == Frames.plain(seen, count: 1000))
        seen += 1
      }
      bench.card.settle()
    }
    #expect(seen > 63 && seen < 90)
    #expect(bench.statistic("rx_missed_errors") == UInt64(200 - seen))
    bench.arrive([Frames.plain(500)])
    #expect(bench.frames() == [Frames.plain(500)])
    bench.nothingIsLost()
  }

  @Test func withoutFreeBuffersFramesWait() throws {
    let bench = try Bench()
    var hoard = PacketBatch(capacity: Bench.buffers)
    while let packet = bench.pool.allocate() { if let refused = hoard.append(packet) { _ = consume refused } }
    bench.arrive([Frames.plain(1)])
    #expect(bench.frames() == [])
    #expect(bench.pool.exhausted > 0)
    hoard.removeAll()
    #expect(bench.frames() == [Frames.plain(1)])
  }

  @Test func aFullTransmitRingTakesAPrefixAndTheRestStaysInTheBatch() throws {
    let bench = try Bench()
    var batch = PacketBatch(capacity: 80)
    for i in 0..<80 {
      let packet = try bench.packet(Frames.plain(i))
      if let refused = batch.append(packet) { _ = consume refused }
    }
    let first = bench.driver.send(queue: 0, &batch)
    #expect(first == 63)
    let none = bench.driver.send(queue: 0, &batch)
    #expect(none == 0)
    bench.card.settle()
    let second = bench.driver.send(queue: 0, &batch)
    #expect(second == 17)
    bench.card.settle()
    #expect(bench.wire.sent.map(\.bytes) == (0..<80).map { Frames.plain($0) })
  }

  @Test func framesThatCannotBeSentAreDroppedAndCounted() throws {
    let bench = try Bench()
    let taken = try bench.send([Frames.plain(1), Frames.plain(2, count: 1519), Frames.plain(3)])
    #expect(taken == 3)
    let empty = try bench.packet([])
    #expect(bench.send(empty) == 1)
    bench.card.settle()
    #expect(bench.wire.sent.map(\.bytes) == [Frames.plain(1), Frames.plain(3)])
    #expect(bench.statistic("tx_queue_0_drops") == 2)
    bench.nothingIsLost()
  }

  @Test(arguments: modes) func jumboFramesComeInOverSeveralBuffers(mode: InProcessCard.Mode) throws {
    let bench = try Bench(mode: mode) { $0.mtu = 15850 }
    let sizes = [15864, 60, 2048, 2049, 4096, 4097, 9014, 60]
    bench.arrive(sizes.enumerated().map { Frames.plain($0.offset, count: $0.element) })
    let batch = bench.receive()
    var seen: [(Int, Int)] = []
    batch.forEach { packet in
      seen.append((packet.count, packet.segmentCount))
      check(packet.bytes() == Frames.plain(seen.count - 1, count: packet.count))
    }
    #expect(seen.map(\.0) == sizes)
    #expect(seen.map(\.1) == [8, 1, 1, 2, 2, 3, 5, 1])
    #expect(bench.statistic("rx_queue_0_errors") == 0)
  }

  @Test(arguments: modes) func jumboFramesGoOutOverSeveralBuffers(mode: InProcessCard.Mode) throws {
    let bench = try Bench(mode: mode) { $0.mtu = 9000 }
    var number = 0
    for _ in 0..<30 {
      let frames = [60, 9014, 2049, 1000].map { size in
        number += 1
        return Frames.plain(number, count: size)
      }
      let taken = try bench.send(frames)
      #expect(taken == 4)
      bench.card.settle()
      #expect(bench.wire.takeSent().map(\.bytes) == frames)
    }
    bench.nothingIsLost()
  }

  @Test func withoutJumboFramesLongOnesStayOut() throws {
    let bench = try Bench()
    bench.arrive([Frames.plain(1, count: 1514), Frames.ipv4(payload: 1472, vlan: 5), Frames.plain(2, count: 1519)])
    #expect(bench.frames() == [Frames.plain(1, count: 1514), Frames.ipv4(payload: 1472, vlan: 5)])
    #expect(bench.statistic("rx_long_length_errors") == 1)
  }

  // MARK: Queues

  @Test(arguments: modes, [2, 5, 16])
  func connectionsKeepToOneQueueInBothDirections(mode: InProcessCard.Mode, queues: Int) throws {
    let bench = try Bench(mode: mode) { $0.queues = queues }
    var seen = [Int](repeating: 0, count: queues)
    for port: UInt16 in 0..<200 {
      bench.arrive([
        Frames.ipv4(tcp: true, from: 1, to: 2, ports: (port, 80)), Frames.ipv4(tcp: true, from: 2, to: 1, ports: (80, port)),
      ])
      var hashes: [UInt32] = []
      for queue in 0..<queues {
        let batch = bench.receive(queue: queue)
        let count = batch.count
        #expect(count == 0 || count == 2, "a connection's two directions reach the same queue")
        seen[queue] += count
        batch.forEach { packet in
          check(packet.flags.contains(.hashed))
          hashes.append(packet.hash)
        }
      }
      #expect(hashes.count == 2 && hashes[0] == hashes[1])
    }
    #expect(seen.allSatisfy { $0 >= 200 / queues }, "every queue has its share: \(seen)")
    bench.nothingIsLost()
  }

  @Test(arguments: modes) func everyQueueSends(mode: InProcessCard.Mode) throws {
    let bench = try Bench(mode: mode) { $0.queues = 16 }
    for queue in 0..<16 { try bench.send([Frames.plain(queue)], queue: queue) }
    bench.card.settle()
    let sent = bench.wire.takeSent()
    #expect(sent.count == 16)
    for frame in sent { #expect(frame.bytes == Frames.plain(frame.queue)) }
    #expect(Set(sent.map(\.queue)) == Set(0..<16))
    #expect(bench.driver.receiveNothing(queue: 16) && bench.driver.receiveNothing(queue: -1))
    bench.nothingIsLost()
  }

  /// One queue that nobody empties does not stop the others.
  @Test func aSlowQueueStopsNobody() throws {
    let bench = try Bench(packetBuffer: 32 * 1024) { $0.queues = 2 }
    func frame(_ port: UInt16) -> [UInt8] { Frames.ipv4(tcp: true, from: 1, to: 2, ports: (port, 80), payload: 500) }
    var slow: UInt16?, quick: UInt16?
    for port: UInt16 in 0..<64 where slow == nil || quick == nil {
      bench.arrive([frame(port)])
      if !bench.frames(queue: 0).isEmpty { slow = port } else if !bench.frames(queue: 1).isEmpty { quick = port }
    }
    let a = try #require(slow), b = try #require(quick)
    for _ in 0..<300 { bench.arrive([frame(a)]) }
    bench.arrive((0..<10).map { _ in frame(b) })
    #expect(bench.frames(queue: 1).count == 10)
    #expect((bench.statistic("rx_no_dma_resources") ?? 0) + (bench.statistic("rx_missed_errors") ?? 0) > 200)
  }

  @Test(arguments: modes) func manyStartsAndStopsLoseNothing(mode: InProcessCard.Mode) throws {
    let bench = try Bench(start: false, mode: mode) { $0.queues = 4 }
    for round in 0..<10 {
      try bench.driver.start(pools: [bench.pool])
      bench.card.advance(nanoseconds: 1_000_000)
      bench.arrive((0..<20).map { Frames.plain($0) })
      if round % 2 == 0 { #expect(bench.frames().count == 20) }
      try bench.send((0..<30).map { Frames.plain($0) }, queue: round % 4)
      if round % 3 == 0 { bench.card.settle() }
      bench.driver.stop()
      #expect(bench.driver.health == .stopped)
      #expect(bench.pool.available == Bench.buffers)
      #expect(!bench.card.isBusMaster)
    }
    #expect(bench.model.bus.memory.faults == 0)
  }
}

extension IxgbeDriver {
  fileprivate func receiveNothing(queue: Int) -> Bool {
    var batch = PacketBatch(capacity: 4)
    return receive(queue: queue, into: &batch, max: 4) == 0
  }
}
