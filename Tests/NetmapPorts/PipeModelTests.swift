import NetmapAPI
import NetmapCore
import Platform
import Testing

@testable import NetmapPorts

/// One direction of a pipe beside its model: a queue of numbers.
private final class Direction {
  let sender: NetmapPort, reader: NetmapPort
  let tx: NetmapProgramRing, rx: NetmapProgramRing
  private(set) var sent: [(number: UInt64, fragments: Int)] = []
  private(set) var received = 0
  private var next: UInt64 = 0

  init(_ sender: NetmapPort, _ reader: NetmapPort) {
    self.sender = sender
    self.reader = reader
    tx = sender.transmitRings[0]
    rx = reader.receiveRings[0]
  }

  func step(_ random: inout Seeded) {
    switch random.below(5) {
    case 0, 1:
      for _ in 0..<random.below(20) {
        let fragments = random.chance(20) ? 1 + random.below(9) : 1
        guard tx.space >= fragments else { break }
        TestFrame.put(tx, next, fragments: fragments)
        sent.append((next, fragments))
        next += 1
      }
    case 2: sender.sync(.transmit)
    case 3: reader.sync(.receive)
    default: take(random.below(30))
    }
  }

  func take(_ most: Int) {
    for _ in 0..<most {
      guard let frame = TestFrame.take(rx) else { return }
      check(received < sent.count && sent[received] == frame, "packet \(received) is \(frame)")
      received += 1
    }
  }

  func drain() {
    for _ in 0..<100 where received < sent.count {
      sender.sync(.transmit)
      reader.sync(.receive)
      take(.max)
    }
    check(received == sent.count, "\(received) of \(sent.count) arrived")
  }
}

@Suite("Pipes against a model")
struct PipeModelTests {
  @Test("Any order of what both ends do: a queue each way", arguments: 0..<40)
  func interleavings(seed: Int) throws {
    var random = Seeded(UInt64(seed))
    let lab = try NetmapTestSystem.complete()
    let slots = UInt32(10 + random.below(60))
    let a = try lab.pipe("x{1", slots: slots), b = try lab.pipe("x}1")
    let forth = Direction(a, b), back = Direction(b, a)
    for _ in 0..<2000 {
      forth.step(&random)
      back.step(&random)
    }
    forth.drain()
    back.drain()
    check(forth.sent.count > 500)
    for port in [a, b] {
      check(port.krings.allSatisfy { $0.counters.resets == 0 && $0.counters.drops == 0 })
    }
    // No buffer is in two slots, and all are there.
    a.sync(.transmit)
    b.sync(.transmit)
    a.close()
    b.close()
    try lab.expectAllBack()
  }

  @Test("Slots, heads and tails that change at any time: nothing is lost of the memory, and the ends go on", arguments: 0..<40)
  func hostile(seed: Int) throws {
    var random = Seeded(UInt64(seed) &+ 1000)
    let lab = try NetmapTestSystem.complete()
    let foreign = try lab.system.memory.global().allocator.allocateBuffers(8)
    let ports = [try lab.pipe("x{1", slots: 16), try lab.pipe("x}1")]
    for _ in 0..<3000 {
      let port = ports[random.below(2)], ring = port.rings[random.below(2)]
      switch random.below(8) {
      case 0:
        let index = [0, 1, foreign[random.below(8)], .max, UInt32(random.below(20000)), ring.slot(0).bufferIndex][random.below(6)]
        ring.setSlot(
          UInt32(random.below(16)),
          NetmapSlot(bufferIndex: index, length: UInt16(truncatingIfNeeded: random.next()), flags: SlotFlags(rawValue: UInt16(truncatingIfNeeded: random.next()))))
      case 1: ring.ring.storeHead(UInt32(truncatingIfNeeded: random.next()) >> UInt32(random.below(32)))
      case 2: ring.ring.storeCur(UInt32(truncatingIfNeeded: random.next()) >> UInt32(random.below(32)))
      case 3: ring.ring.storeTail(UInt32(truncatingIfNeeded: random.next()) >> UInt32(random.below(32)))
      case 4, 5: ring.setHead(UInt32(random.below(16)))
      default: port.sync(ring)
      }
      for kring in port.krings {
        check([kring.rhead, kring.rcur, kring.rtail, kring.hwcur, kring.hwtail].allSatisfy { $0 < kring.count })
        check(kring.distance(kring.rhead, kring.rcur) <= kring.distance(kring.rhead, kring.rtail))
      }
    }
    let ledger = try lab.system.memory.global().allocator.ledger
    #expect(foreign.allSatisfy { ledger.isHeld($0, by: .stack) }, "another owner's buffers stay that owner's")
    #expect(ports.flatMap(\.krings).contains { $0.counters.resets > 0 })
    // Fresh buffers in all slots: the pipe works again.
    for port in ports {
      for kring in port.krings { port.rings.first { $0.id == kring.id }?.setHead(kring.rhead) }
      port.sync(.transmit)
      port.sync(.receive)
    }
    for port in ports { port.close() }
    try lab.system.memory.global().allocator.freeBuffers(foreign, owner: .stack)
    #expect(try lab.inUse() == [0, 0, 0])
  }

  @Test("Two threads: every packet arrives whole and in order, whether the ends spin or sleep", arguments: [false, true])
  func threads(sleeps: Bool) throws {
    let lab = try NetmapTestSystem.complete()
    let a = try lab.pipe("x{1", slots: 128), b = try lab.pipe("x}1")
    let packets: UInt64 = sleeps ? 20_000 : 100_000
    let sender = TestThread {
      let tx = a.transmitRings[0]
      var random = Seeded(7), number: UInt64 = 0
      while number < packets {
        let batch = 1 + random.below(60)
        for _ in 0..<batch where number < packets {
          let fragments = random.chance(10) ? 2 + random.below(6) : 1
          guard tx.space >= fragments else { break }
          TestFrame.put(tx, number, fragments: fragments)
          number += 1
        }
        if sleeps {
          check(!a.wait(for: .transmit, milliseconds: 10_000).isEmpty, "the writer was not woken")
        } else {
          a.sync(.transmit)
        }
      }
      a.sync(.transmit)
    }
    let rx = b.receiveRings[0]
    var expected: UInt64 = 0, quiet = 0
    while expected < packets, quiet < 10_000_000 {
      if sleeps {
        guard b.wait(for: .receive, milliseconds: 10_000) == .receive else {
          check(false, "the reader was not woken at \(expected)")
          break
        }
      } else {
        b.sync(.receive)
      }
      quiet += 1
      while let frame = TestFrame.take(rx) {
        check(frame.number == expected, "\(frame.number) instead of \(expected)")
        expected = frame.number + 1
        quiet = 0
      }
    }
    #expect(expected == packets)
    sender.join()
    a.close()
    b.close()
    try lab.expectAllBack()
  }

  @Test("An end that comes and goes while the other is in use on another thread")
  func comings() throws {
    let lab = try NetmapTestSystem.complete()
    let a = try lab.pipe("x{1", slots: 32)
    let stop = Guarded(false)
    let thread = TestThread {
      let tx = a.transmitRings[0]
      var n: UInt64 = 0
      while !stop.withLock({ $0 }) {
        if tx.space > 0 { TestFrame.put(tx, n) }
        n += 1
        a.sync(.transmit)
        a.sync(.receive)
      }
    }
    var seen = 0
    for _ in 0..<300 {
      let b = try lab.pipe("x}1")
      var last: UInt64?
      for _ in 0..<20 {
        b.sync(.receive)
        while let frame = TestFrame.take(b.receiveRings[0]) {
          check(last.map { frame.number > $0 } ?? true)
          last = frame.number
          seen += 1
        }
      }
      b.close()
    }
    stop.withLock { $0 = true }
    thread.join()
    #expect(seen > 0)
    a.close()
    try lab.expectAllBack()
  }
}

@Suite("Offsets in pipes")
struct PipeOffsetTests {
  @Test("A packet's offset travels with it; a reader that knows of none finds it at the buffer's start")
  func travel() throws {
    let lab = try NetmapTestSystem.complete()
    let option = OffsetsOption(largest: 256, initial: 32, bits: 16)
    let a = try lab.pipe("x{1", offsets: option), b = try lab.pipe("x}1", offsets: option)
    b.sync(.receive)
    let tx = a.transmitRings[0], rx = b.receiveRings[0]
    #expect(tx.slot(3).pointer == 32)
    TestFrame.put(tx, 1, offset: 64)
    TestFrame.put(tx, 2, fragments: 2, offset: 128)
    a.sync(.transmit)
    b.sync(.receive)
    #expect(rx.slot(0).pointer & 0xffff == 64 && rx.slot(1).pointer & 0xffff == 128)
    check(TestFrame.take(rx, offset: 64)?.number == 1)
    check(TestFrame.take(rx, offset: 128).map { $0 == (2, 2) } == true)
    b.close()
    let plain = try lab.pipe("x}1")
    plain.sync(.receive)
    TestFrame.put(tx, 3, offset: 200)
    a.sync(.transmit)
    plain.sync(.receive)
    check(TestFrame.take(plain.receiveRings[0])?.number == 3)
    // Offset and length together end in the buffer; an offset beyond the largest counts as the largest.
    var slot = tx.slot(tx.head)
    (slot.length, slot.pointer) = (2048 - 255, 5000)
    tx.setSlot(tx.head, slot)
    tx.advance()
    #expect(a.wait(for: .transmit, milliseconds: 0).contains(.error))
    #expect((a.counters(RingID(.transmit, 0))?.badLengths ?? 0) >= 1)
    #expect(throws: NetmapError.self) { try lab.pipe("y{1", offsets: OffsetsOption(largest: 5000)) }
  }
}
