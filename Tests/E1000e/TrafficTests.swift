// Frames through the rings: order, wrapping, jumbo frames, offloads, two queues.

import DriverKit
import ModelKit
import Models
import Packet
import Testing
import Wire

@testable import E1000e

@Suite struct TrafficTests {
  @Test func framesComeInInOrderOverManyRounds() throws {
    let bench = try Bench()
    var expected = 0
    for round in 0..<40 {
      for i in 0..<(round % 5) * 12 { bench.wire.send(Frames.plain(expected + i, count: 60 + (expected + i) % 1400)) }
      bench.card.settle()
      for frame in bench.frames() {
        #expect(frame == Frames.plain(expected, count: 60 + expected % 1400))
        expected += 1
      }
    }
    #expect(expected == 8 * 12 * (1 + 2 + 3 + 4))
    #expect(bench.pool.available == Bench.buffers - 64)
    #expect(bench.statistic("rx_packets") == UInt64(expected))
    #expect(bench.statistic("rx_queue_0_packets") == UInt64(expected))
    #expect(bench.model.bus.memory.faults == 0)
  }

  @Test func aFullRingLosesFramesAndTheCardCountsThem() throws {
    let bench = try Bench()
    for i in 0..<100 { bench.wire.send(Frames.plain(i)) }
    bench.card.settle()
    // One descriptor of 64 stays with the driver.
    #expect(bench.frames() == (0..<63).map { Frames.plain($0) })
    #expect(bench.statistic("rx_missed_errors") == 37)
    bench.wire.send(Frames.plain(500))
    bench.card.settle()
    #expect(bench.frames() == [Frames.plain(500)])
  }

  @Test func withoutFreeBuffersFramesWait() throws {
    let bench = try Bench()
    var hoard = PacketBatch(capacity: Bench.buffers)
    while let packet = bench.pool.allocate() { if let refused = hoard.append(packet) { _ = consume refused } }
    bench.wire.send(Frames.plain(1))
    bench.card.settle()
    #expect(bench.frames() == [])
    #expect(bench.pool.exhausted > 0)
    hoard.removeAll()
    #expect(bench.frames() == [Frames.plain(1)])
  }

  @Test(arguments: [1, 3, 31, 32, 33, 63])
  func framesGoOutInOrderOverManyRounds(batch: Int) throws {
    let bench = try Bench()
    var number = 0
    for _ in 0..<40 {
      let frames = (0..<batch).map { Frames.plain(number + $0, count: 60 + (number + $0) % 1400) }
      let taken = try bench.send(frames)
      #expect(taken == batch)
      number += batch
      bench.card.settle()
    }
    #expect(bench.wire.sent.map(\.bytes) == (0..<number).map { Frames.plain($0, count: 60 + $0 % 1400) })
    bench.driver.reclaim(queue: 0)
    #expect(bench.pool.available == Bench.buffers - 64)
    #expect(bench.statistic("tx_queue_0_packets") == UInt64(number))
    #expect(bench.statistic("tx_packets") == UInt64(number))
    #expect(bench.statistic("tx_queue_0_doorbells") == 40, "one tail write a batch")
  }

  @Test func aFullRingTakesAPrefixAndTheRestStaysInTheBatch() throws {
    let bench = try Bench()
    var batch = PacketBatch(capacity: 80)
    for i in 0..<80 {
      let packet = try bench.packet(Frames.plain(i))
      if let refused = batch.append(packet) { _ = consume refused }
    }
    let first = bench.driver.send(queue: 0, &batch)
    #expect(first == 63)
    let left = batch.count
    #expect(left == 17)
    let none = bench.driver.send(queue: 0, &batch)
    #expect(none == 0)
    bench.card.settle()
    let second = bench.driver.send(queue: 0, &batch)
    #expect(second == 17)
    bench.card.settle()
    #expect(bench.wire.sent.map(\.bytes) == (0..<80).map { Frames.plain($0) })
  }

  @Test func shortFramesArePadded() throws {
    let bench = try Bench()
    try bench.send([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]])
    bench.card.settle()
    #expect(bench.wire.sent[0].bytes == Array(1...14) + [UInt8](repeating: 0, count: 46))
  }

  @Test func framesThatCannotBeSentAreDroppedAndCounted() throws {
    let bench = try Bench()
    let taken = try bench.send([Frames.plain(1), Frames.plain(2, count: 1519), Frames.plain(3)])
    #expect(taken == 3)
    let empty = try bench.packet([])
    let takenEmpty = bench.send(empty)
    #expect(takenEmpty == 1)
    bench.card.settle()
    #expect(bench.wire.sent.map(\.bytes) == [Frames.plain(1), Frames.plain(3)])
    #expect(bench.statistic("tx_queue_0_drops") == 2)
    bench.driver.reclaim(queue: 0)
    #expect(bench.pool.available == Bench.buffers - 64)
  }

  @Test func packetsOfAnotherPoolGoHome() throws {
    let bench = try Bench()
    let other = try PacketPool.lent(by: bench.allocator, count: 16)
    for _ in 0..<20 {
      var batch = PacketBatch(capacity: 8)
      for i in 0..<8 {
        let own = try bench.packet(Frames.plain(i))
        if i % 2 == 0 {
          if let refused = batch.append(own) { _ = consume refused }
        } else if let foreign = other.allocate() {
          check(foreign.fill(with: own.bytes()))
          if let refused = batch.append(foreign) { _ = consume refused }
        }
      }
      _ = bench.driver.send(queue: 0, &batch)
      bench.card.settle()
      #expect(bench.wire.sent.map(\.bytes) == (0..<8).map { Frames.plain($0) })
      bench.wire.sent = []
      #expect(other.available == 12)
      bench.driver.reclaim(queue: 0)
      #expect(other.available == 16)
      #expect(bench.pool.available == Bench.buffers - 64)
    }
  }

  // MARK: Jumbo frames

  @Test func jumboFramesComeInOverSeveralBuffers() throws {
    let bench = try Bench { $0.mtu = 9000 }
    for (i, count) in [9018, 60, 2048, 2049, 4096, 4097, 9014, 60].enumerated() {
      bench.wire.send(Frames.plain(i, count: count))
    }
    bench.card.settle()
    let batch = bench.receive()
    var seen: [(Int, Int)] = []
    batch.forEach { packet in
      seen.append((packet.count, packet.segmentCount))
      check(packet.bytes() == Frames.plain(seen.count - 1, count: packet.count))
    }
    #expect(seen.map(\.0) == [9018, 60, 2048, 2049, 4096, 4097, 9014, 60])
    #expect(seen.map(\.1) == [5, 1, 1, 2, 2, 3, 5, 1])
    #expect(bench.statistic("rx_queue_0_errors") == 0)
  }

  @Test func aLimitCountsFramesAndNotTheirBuffers() throws {
    let bench = try Bench { $0.mtu = 9000 }
    for i in 0..<4 { bench.wire.send(Frames.plain(i, count: 9018)) }
    bench.card.settle()
    var batch = PacketBatch(capacity: 8)
    for taken in 1...4 {
      check(bench.driver.receive(queue: 0, into: &batch, max: 1) == 1)
      check(batch.count == taken)
    }
    check(bench.driver.receive(queue: 0, into: &batch, max: 1) == 0)
  }

  @Test func jumboFramesGoOutOverSeveralBuffers() throws {
    let bench = try Bench { $0.mtu = 9000 }
    var number = 0
    for _ in 0..<30 {
      let frames = [60, 9018, 2049, 1000].map { size in
        number += 1
        return Frames.plain(number, count: size)
      }
      let taken = try bench.send(frames)
      #expect(taken == 4)
      bench.card.settle()
      #expect(bench.wire.sent.map(\.bytes) == frames)
      bench.wire.sent = []
    }
    bench.driver.reclaim(queue: 0)
    #expect(bench.pool.available == Bench.buffers - 64)
  }

  @Test func withoutJumboFramesLongOnesStayOut() throws {
    let bench = try Bench()
    bench.wire.send(Frames.plain(1, count: 1518))
    bench.wire.send(Frames.plain(2, count: 1519))
    bench.card.settle()
    #expect(bench.frames() == [Frames.plain(1, count: 1518)])
    #expect(bench.statistic("rx_long_length_errors") == 1)
  }

  // MARK: Offloads

  @Test func receiveChecksumsAreReported() throws {
    let bench = try Bench()
    var broken = Frames.ipv4(tcp: true)
    broken[60] ^= 1
    var brokenHeader = Frames.ipv4()
    brokenHeader[22] ^= 1
    for frame in [Frames.ipv4(tcp: true), Frames.ipv4(), broken, brokenHeader, Frames.plain(1)] {
      bench.wire.send(frame)
    }
    bench.card.settle()
    let batch = bench.receive()
    var flags: [PacketFlags] = []
    batch.forEach { flags.append($0.flags.subtracting(.hashed)) }
    #expect(
      flags == [
        [.ipChecksum, .tcpChecksum], [.ipChecksum, .udpChecksum], [.ipChecksum, .badChecksum],
        [.badChecksum, .udpChecksum], [],
      ])
  }

  /// Whoever inserts the tag, the card or the driver: the checksums land where they belong.
  @Test(arguments: [true, false], [(UInt16?.none, true), (77, true), (77, false)])
  func transmitChecksumsAreInserted(tcp: Bool, tag: (vlan: UInt16?, byCard: Bool)) throws {
    let vlan = tag.vlan
    let bench = try Bench { $0.stripVLAN = tag.byCard }
    let packet = try bench.packet(Frames.ipv4(tcp: tcp, checksums: false))
    packet.flags = tcp ? [.ipChecksum, .tcpChecksum] : [.ipChecksum, .udpChecksum]
    packet.setHeaderLengths(link: 14, network: 20)
    if let vlan {
      packet.flags.insert(.vlan)
      packet.vlan = vlan
    }
    let taken = bench.send(packet)
    #expect(taken == 1)
    bench.card.settle()
    let expected = Frames.ipv4(tcp: tcp, vlan: vlan)
    #expect(Array(bench.wire.sent[0].bytes.prefix(expected.count)) == expected)
    bench.driver.reclaim(queue: 0)
    #expect(bench.pool.available == Bench.buffers - 64)
  }

  /// A received frame that is sent on as it is keeps its bytes: its flags speak of what was checked.
  @Test func forwardedFramesAreNotTouched() throws {
    let bench = try Bench()
    var broken = Frames.ipv4(tcp: true)
    broken[60] ^= 1
    for frame in [Frames.ipv4(tcp: true), broken] { bench.wire.send(frame) }
    bench.card.settle()
    var batch = bench.receive()
    _ = bench.driver.send(queue: 0, &batch)
    bench.card.settle()
    #expect(bench.wire.sent.map(\.bytes) == [Frames.ipv4(tcp: true), broken])
  }

  @Test func tagsAreStrippedAndInserted() throws {
    let bench = try Bench { $0.stripVLAN = true }
    bench.wire.send(Frames.ipv4(vlan: 0x6123))
    bench.card.settle()
    var batch = bench.receive()
    batch.forEach { packet in
      check(packet.flags.contains(.vlan))
      check(packet.vlan == 0x6123)
      check(packet.bytes().starts(with: Frames.ipv4()))
    }
    // Sent on, the tag is there again.
    _ = bench.driver.send(queue: 0, &batch)
    bench.card.settle()
    #expect(bench.wire.sent.count == 1)
    #expect(bench.wire.sent[0].bytes.starts(with: Frames.ipv4(vlan: 0x6123)))
  }

  @Test(arguments: [0, 32])
  func withoutStrippingTheDriverInsertsTagsItself(room: Int) throws {
    let bench = try Bench()
    bench.wire.send(Frames.ipv4(vlan: 9))
    bench.card.settle()
    #expect(bench.frames()[0].starts(with: Frames.ipv4(vlan: 9)))
    let plain = Frames.ipv4(payload: 100)
    let packet = try bench.packet([UInt8](repeating: 0, count: room) + plain)
    unsafe packet.record.pointee.setSingle(length: UInt16(plain.count), offset: UInt16(room))
    packet.flags = .vlan
    packet.vlan = 0x2007
    _ = bench.send(packet)
    bench.card.settle()
    #expect(bench.wire.sent.map(\.bytes) == [Frames.ipv4(payload: 100, vlan: 0x2007)])
  }

  // MARK: Two queues

  @Test func connectionsKeepToOneQueueInBothDirections() throws {
    let bench = try Bench { $0.queues = 2 }
    var both = [0, 0]
    for port: UInt16 in 0..<64 {
      bench.wire.send(Frames.ipv4(tcp: true, from: 1, to: 2, ports: (port, 80)))
      bench.wire.send(Frames.ipv4(tcp: true, from: 2, to: 1, ports: (80, port)))
      bench.card.settle()
      var hashes: [UInt32] = []
      for queue in 0..<2 {
        let batch = bench.receive(queue: queue)
        let count = batch.count
        #expect(count == 0 || count == 2, "a connection's two directions reach the same queue")
        both[queue] += count
        batch.forEach { packet in
          check(packet.flags.contains(.hashed))
          hashes.append(packet.hash)
        }
      }
      #expect(hashes.count == 2 && hashes[0] == hashes[1])
    }
    #expect(both[0] > 20 && both[1] > 20)
  }

  @Test func bothQueuesSend() throws {
    let bench = try Bench { $0.queues = 2 }
    try bench.send([Frames.plain(1)], queue: 0)
    try bench.send([Frames.plain(2)], queue: 1)
    bench.card.settle()
    #expect(bench.wire.sent.map(\.queue) == [0, 1])
    #expect(bench.wire.sent.map(\.bytes) == [Frames.plain(1), Frames.plain(2)])
    #expect(bench.driver.receive(queue: 2, max: 1) == 0)
    #expect(bench.driver.receive(queue: -1, max: 1) == 0)
  }
}

extension E1000eDriver {
  fileprivate func receive(queue: Int, max: Int) -> Int {
    var batch = PacketBatch(capacity: 4)
    return receive(queue: queue, into: &batch, max: max)
  }
}
