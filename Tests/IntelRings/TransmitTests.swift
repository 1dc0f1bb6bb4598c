// The transmit ring: what it hands to the card, read back by hand, and what it does with reports.

import Packet
import Testing

@testable import IntelRings

/// A transmit ring with a pool, and the card's side of it.
final class TransmitBench {
  let buffers: Buffers
  let pool: PacketPool
  let memory: RingMemory
  var ring: AdvancedTransmitRing
  /// The next descriptor the card sends.
  var head = 0
  static let free = 256

  init(count: Int = 64, family: AdvancedFamily = .igb, maximumFrame: Int = 1518, insertsVLAN: Bool = true) {
    buffers = Buffers(Self.free)
    pool = buffers.pool()
    memory = RingMemory(count)
    ring = unsafe AdvancedTransmitRing(unsafe: memory.window, count: count, tail: memory.doorbell, family: family)
    ring.open(maximumFrame: maximumFrame, insertsVLAN: insertsVLAN)
    ring.running = true
  }
  deinit { ring.release() }

  /// A packet over as many buffers as `pieces` has, changed by `set`.
  func packet(_ pieces: [[UInt8]], _ set: (borrowing Packet) -> Void = { _ in }) throws -> Packet {
    let first = try take(pool)
    check(first.fill(with: pieces[0]))
    for piece in pieces.dropFirst() {
      let more = try take(pool)
      check(more.fill(with: piece))
      first.append(more)
    }
    set(first)
    return first
  }

  @discardableResult func send(_ packet: consuming Packet) -> Int {
    var batch = PacketBatch(capacity: 1)
    _ = batch.append(packet)
    return ring.send(&batch)
  }

  /// The data and context descriptors between head and tail; the card has read them. Reports where
  /// it is asked to.
  func transmit(reporting: Bool = true) -> [(low: UInt64, high: UInt64)] {
    var taken: [(low: UInt64, high: UInt64)] = []
    while head != memory.tail, memory.tail < memory.count {
      taken.append((memory[head, 0], memory[head, 1]))
      if reporting, memory[head, 1] & 1 << 27 != 0 { memory[head, 1] = 1 << 32 }
      head = (head + 1) % memory.count
    }
    return taken
  }
}

struct Empty: Error {}

/// `#require` cannot hand a noncopyable value on.
func take(_ pool: PacketPool) throws -> Packet {
  guard let packet = pool.allocate() else { throw Empty() }
  return packet
}

@Suite struct TransmitTests {
  @Test func plainFramesAreOneDescriptorEach() throws {
    let bench = TransmitBench()
    var batch = PacketBatch(capacity: 8)
    for size in [60, 1518, 17] { _ = try batch.append(bench.packet([pattern(size)])) }
    check(bench.ring.send(&batch) == 3)
    #expect(bench.memory.tail == 3)
    let sent = bench.transmit()
    // DTALEN, DTYP 3, EOP IFCS DEXT; PAYLEN from bit 46; RS on the last of the group alone.
    #expect(sent.map(\.high) == [60 << 46 | 0x2330_003c, 1518 << 46 | 0x2330_05ee, 17 << 46 | 0x2b30_0011])
    #expect(bench.buffers.read(60, at: sent[0].low) == pattern(60))
    #expect(bench.pool.available == TransmitBench.free - 3)
    bench.ring.reclaim()
    #expect(bench.pool.available == TransmitBench.free)
    check(bench.ring.counters.packets == 3 && bench.ring.counters.bytes == 60 + 1518 + 17)
    check(bench.ring.counters.doorbells == 1 && bench.ring.contexts == 0)
  }

  @Test func groupsOf32AreReportedAndFreedTogether() throws {
    let bench = TransmitBench(count: 128)
    var batch = PacketBatch(capacity: 100)
    for _ in 0..<100 { _ = try batch.append(bench.packet([pattern(60)])) }
    check(bench.ring.send(&batch) == 100)
    let sent = bench.transmit(reporting: false)
    #expect(sent.indices.filter { sent[$0].high & 1 << 27 != 0 } == [31, 63, 95, 99])
    bench.ring.reclaim()
    #expect(bench.pool.available == TransmitBench.free - 100)
    // A report out of turn frees nothing before its time.
    bench.memory[63, 1] = 1 << 32
    bench.ring.reclaim()
    #expect(bench.pool.available == TransmitBench.free - 100)
    bench.memory[31, 1] = 1 << 32
    bench.ring.reclaim()
    #expect(bench.pool.available == TransmitBench.free - 36)
  }

  @Test func aFullRingKeepsTheRestAndSaysSo() throws {
    let bench = TransmitBench()
    var batch = PacketBatch(capacity: 100)
    for _ in 0..<100 { _ = try batch.append(bench.packet([pattern(60)])) }
    check(bench.ring.send(&batch) == 63)
    check(bench.ring.waitsForRoom && batch.count == 37 && !bench.ring.hasWork)
    _ = bench.transmit()
    check(bench.ring.hasWork)
    check(bench.ring.send(&batch) == 37)
    check(!bench.ring.waitsForRoom)
    _ = bench.transmit()
    bench.ring.reclaim()
    #expect(bench.pool.available == TransmitBench.free)
  }

  @Test func framesOfSeveralPoolsGoHomeInBulk() throws {
    let bench = TransmitBench()
    let foreign = Buffers(32, at: 0x900_0000), other = foreign.pool()
    for _ in 0..<8 {
      var batch = PacketBatch(capacity: 12)
      for i in 0..<12 {
        if i < 4 { _ = try batch.append(bench.packet([pattern(60)])) } else {
          let packet = try take(other)
          check(packet.fill(with: pattern(70)))
          _ = batch.append(packet)
        }
      }
      check(bench.ring.send(&batch) == 12)
      #expect(bench.transmit().count == 12)
      bench.ring.reclaim()
      #expect(bench.pool.available == TransmitBench.free && other.available == 32)
    }
  }

  @Test func chainsAreOneFrame() throws {
    let bench = TransmitBench(maximumFrame: 9018)
    check(try bench.send(bench.packet([pattern(2048), [], pattern(2048), pattern(100)])) == 1)
    let sent = bench.transmit()
    #expect(sent.map { $0.high & 0xffff } == [2048, 2048, 100])
    #expect(sent.map { $0.high >> 46 } == [4196, 4196, 4196])
    #expect(sent.map { $0.high & 1 << 24 != 0 } == [false, false, true], "only the last ends the packet")
    bench.ring.reclaim()
    #expect(bench.pool.available == TransmitBench.free)
  }

  @Test(arguments: [AdvancedFamily.igb, .ixgbe]) func checksumsHaveAContextThatIsKept(_ family: AdvancedFamily) throws {
    let bench = TransmitBench(family: family)
    func tcp(_ network: Int = 20) throws -> Packet {
      try bench.packet([[UInt8](repeating: 0xff, count: 100)]) {
        $0.flags = [.ipChecksum, .tcpChecksum]
        $0.setHeaderLengths(link: 14, network: network)
      }
    }
    bench.send(try tcp())
    let sent = bench.transmit()
    #expect(sent.count == 2)
    // IPLEN 20, MACLEN 14 from bit 9; TUCMD IPv4 (10) and TCP (11), DTYP 2, DEXT; slot 0.
    #expect(sent[0].low == 20 | 14 << 9)
    #expect(sent[0].high == 0x2020_0c00)
    let cc: UInt64 = family == .ixgbe ? 1 << 39 : 0
    #expect(sent[1].high == 100 << 46 | 3 << 40 | cc | 0x2b30_0064)
    #expect(Array(bench.buffers.read(100, at: sent[1].low)[24...25]) == [0, 0], "the IP checksum field is cleared")
    // The same again needs no context; another one takes the second slot; then both are there.
    bench.send(try tcp())
    #expect(bench.transmit().count == 1)
    bench.send(try tcp(24))
    let second = bench.transmit()
    #expect(second.map { $0.high >> 36 & 7 } == [1, 1])
    bench.send(try tcp())
    bench.send(try tcp(24))
    #expect(bench.transmit().map { $0.high >> 36 & 7 } == [0, 1])
    check(bench.ring.contexts == 2)
    // A reset forgets them.
    bench.ring.release()
    bench.ring.open(maximumFrame: 1518, insertsVLAN: true)
    bench.ring.running = true
    bench.head = 0
    bench.send(try tcp())
    #expect(bench.transmit().count == 2)
  }

  @Test func udpOverIPv6HasNoHeaderChecksum() throws {
    let bench = TransmitBench()
    bench.send(try bench.packet([pattern(100)]) {
      $0.flags = .udpChecksum
      $0.setHeaderLengths(link: 18, network: 40)
    })
    let sent = bench.transmit()
    #expect(sent[0].low == 40 | 18 << 9 && sent[0].high == 0x2020_0000)
    #expect(sent[1].high >> 40 & 0x3f == 2)
    #expect(bench.buffers.read(100, at: sent[1].low) == pattern(100))
  }

  @Test func checksumsThatCannotBeInsertedCostTheFrame() throws {
    let bench = TransmitBench()
    for (link, network) in [(14, 100), (13, 20), (14, 19), (127, 511)] {
      bench.send(try bench.packet([pattern(100)]) {
        $0.flags = [.ipChecksum, .tcpChecksum]
        $0.setHeaderLengths(link: link, network: network)
      })
      #expect(bench.transmit().isEmpty, "\(link) and \(network)")
    }
    check(bench.ring.counters.drops == 4)
    #expect(bench.pool.available == TransmitBench.free)
    // What another card found in a frame names no lengths, and asks for nothing.
    bench.send(try bench.packet([pattern(100)]) { $0.flags = [.ipChecksum, .tcpChecksum] })
    #expect(bench.transmit().map(\.high) == [100 << 46 | 0x2b30_0064])
  }

  @Test func tagsAreInsertedByTheCard() throws {
    let bench = TransmitBench()
    bench.send(try bench.packet([pattern(60)]) {
      $0.flags = .vlan
      $0.vlan = 0x602a
    })
    let sent = bench.transmit()
    #expect(sent.count == 2)
    #expect(sent[0].low == 0x602a << 16 | 14 << 9)
    #expect(sent[1].high == 60 << 46 | 0x6b30_003c, "VLE")
  }

  @Test func tagsAreWrittenWhereTheCardDoesNot() throws {
    let bench = TransmitBench(insertsVLAN: false)
    bench.send(try bench.packet([pattern(60)]) {
      $0.flags = .vlan
      $0.vlan = 0x602a
    })
    let sent = bench.transmit()
    #expect(sent.map(\.high) == [64 << 46 | 0x2b30_0040])
    let bytes = bench.buffers.read(64, at: sent[0].low)
    #expect(bytes == Array(pattern(60)[0..<12]) + [0x81, 0, 0x60, 0x2a] + Array(pattern(60)[12...]))
  }

  @Test func segmentationNamesPayloadAndSegmentSize() throws {
    let bench = TransmitBench()
    let headers = 14 + 20 + 32
    check(try bench.send(bench.packet([pattern(2048), pattern(2048), pattern(1000)]) {
      $0.flags = .ipChecksum
      $0.setHeaderLengths(link: 14, network: 20)
      $0.setSegmentation(size: 1448, transport: 32)
    }) == 1)
    let sent = bench.transmit()
    #expect(sent.count == 4)
    #expect(sent[0].low == 20 | 14 << 9)
    #expect(sent[0].high == 1448 << 48 | 32 << 40 | 0x2020_0c00)
    #expect(sent[1...].allSatisfy { $0.high >> 46 == UInt64(5096 - headers) })
    #expect(sent[1...].allSatisfy { $0.high & 1 << 31 != 0 }, "TSE")
    #expect(sent[1].high >> 40 & 0x3f == 3)
    bench.ring.reclaim()
    #expect(bench.pool.available == TransmitBench.free)
  }

  @Test func whatCannotBeCutIsRefused() throws {
    let bench = TransmitBench()
    func refused(_ size: Int, _ transport: Int, _ bytes: Int = 2000, link: Int = 14, network: Int = 20) throws {
      let before = bench.ring.counters.drops
      let packet = try bench.packet([pattern(bytes)]) {
        $0.flags = .ipChecksum
        $0.setHeaderLengths(link: link, network: network)
        $0.setSegmentation(size: size, transport: transport)
      }
      check(bench.send(packet) == 1)
      check(bench.ring.counters.drops == before + 1)
    }
    try refused(0, 20)
    try refused(1448, 19)
    try refused(1448, 61)
    try refused(1500, 20)
    try refused(1448, 20, 54)
    try refused(1448, 20, 2000, link: 0, network: 0)
    try refused(1448, 20, 2000, link: 14, network: 2000)
    #expect(bench.transmit().isEmpty)
    #expect(bench.pool.available == TransmitBench.free)
  }

  @Test func whatCannotBeSentIsRefused() throws {
    let bench = TransmitBench()
    check(try bench.send(bench.packet([pattern(1519)])) == 1)
    check(try bench.send(bench.packet([[]])) == 1)
    check(try bench.send(bench.packet(Array(repeating: pattern(10), count: 17))) == 1)
    check(bench.ring.counters.drops == 3 && bench.ring.counters.packets == 0)
    #expect(bench.pool.available == TransmitBench.free)
  }

  @Test func shortFramesArePadded() throws {
    let bench = TransmitBench()
    check(try bench.send(bench.packet([[1, 2, 3]])) == 1)
    let sent = bench.transmit()
    #expect(sent.map(\.high) == [17 << 46 | 0x2b30_0011])
    #expect(bench.buffers.read(17, at: sent[0].low) == [1, 2, 3] + [UInt8](repeating: 0, count: 14))
  }

  @Test func aResetCountsWhatItLost() throws {
    let bench = TransmitBench(maximumFrame: 9018)
    for _ in 0..<3 { bench.send(try bench.packet([pattern(60)])) }
    bench.send(try bench.packet([pattern(2048), pattern(60)]))
    bench.memory[0, 1] = 1 << 32
    bench.ring.release()
    check(bench.ring.lost == 3)
    #expect(bench.pool.available == TransmitBench.free)
  }

  @Test func theRingWrapsWithEveryShapeOfFrame() throws {
    let bench = TransmitBench(maximumFrame: 9018)
    for turn in 0..<300 {
      let packet: Packet
      switch turn % 4 {
      case 0: packet = try bench.packet([pattern(60, turn)])
      case 1: packet = try bench.packet([pattern(2048, turn), pattern(100, turn)])
      case 2:
        packet = try bench.packet([pattern(200, turn)]) {
          $0.flags = .tcpChecksum
          $0.setHeaderLengths(link: 14, network: 20 + 4 * (turn % 5))
        }
      default: packet = try bench.packet([pattern(10, turn)])
      }
      check(bench.send(packet) == 1)
      let data = bench.transmit().filter { $0.high & 0xf0_0000 == 3 << 20 }
      #expect(data.count == (turn % 4 == 1 ? 2 : 1), "turn \(turn)")
      #expect(bench.buffers.read(10, at: data[0].low) == Array(pattern(10, turn)))
    }
    bench.ring.reclaim()
    #expect(bench.pool.available == TransmitBench.free)
    check(bench.ring.pending == 0)
  }
}
