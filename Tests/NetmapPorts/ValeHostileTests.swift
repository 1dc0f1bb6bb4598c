import NetmapAPI
import NetmapCore
import NetmapPorts
import Platform
import Synchronization
import Testing

/// A small generator, so that runs repeat.
private struct Dice: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// A frame that says of itself whether it is whole: the last bytes are a sum over the rest.
private func summed(to: [UInt8], from: [UInt8], length: Int, number: UInt32) -> [UInt8] {
  var bytes = to + from + [0x88, 0xb5] + (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
  while bytes.count < length - 4 { bytes.append(UInt8(truncatingIfNeeded: bytes.count) ^ UInt8(truncatingIfNeeded: number)) }
  let sum = bytes.reduce(UInt32(17)) { ($0 &* 31) &+ UInt32($1) }
  return bytes + (0..<4).map { UInt8(truncatingIfNeeded: sum >> (8 * $0)) }
}
/// What threads count together.
private final class Together: Sendable {
  let left = Atomic(0)
  private let broken = Atomic(0), seen = Atomic(0), over = Atomic(false)
  func isBroken() { broken.wrappingAdd(1, ordering: .relaxed) }
  func hasSeen() { seen.wrappingAdd(1, ordering: .relaxed) }
  var isOver: Bool { over.load(ordering: .acquiring) }
  func end() { over.store(true, ordering: .releasing) }
  var brokenCount: Int { broken.load(ordering: .relaxed) }
  var seenCount: Int { seen.load(ordering: .relaxed) }
}
private func isWhole(_ bytes: [UInt8]) -> Bool {
  guard bytes.count >= 22 else { return false }
  let sum = bytes.dropLast(4).reduce(UInt32(17)) { ($0 &* 31) &+ UInt32($1) }
  return (0..<4).allSatisfy { bytes[bytes.count - 4 + $0] == UInt8(truncatingIfNeeded: sum >> (8 * $0)) }
}

@Suite("VALE: threads, and programs that mean it harm")
struct ValeHostileTests {
  /// Runs bodies on threads of their own, until all have ended.
  private func together(_ bodies: [@Sendable () -> Void]) throws {
    final class Runner {
      private let thread: JoinedThread
      init(_ body: @escaping @Sendable () -> Void) throws { thread = try JoinedThread(name: "vale test", body) }
    }
    // The last reference waits for the thread.
    _ = try bodies.map { try Runner($0) }
  }

  @Test("Several senders at one destination: every frame is whole, each sender's in order, and none is unaccounted for")
  func manySenders() throws {
    let lab = try ValeLab(), senders = 3, each = 3000
    let to = try lab.open("vale0:to", slots: 256), other = try lab.open("vale0:other", slots: 64)
    to.send([frame(to: everybody, from: station(1))])
    _ = other.receive()
    let ports = try (0..<senders).map { try lab.open("vale0:s\($0)", slots: 64) }
    let all = Together()
    all.left.store(senders, ordering: .relaxed)
    let bodies: [@Sendable () -> Void] = ports.enumerated().map { n, port in
      { @Sendable in
        var dice = Dice(state: UInt64(n)), number = 0
        while number < each {
          let batch = (0..<Int.random(in: 1...40, using: &dice)).map { k in
            summed(
              to: Int.random(in: 0..<8, using: &dice) == 0 ? everybody : station(1), from: station(100 + n),
              length: Int.random(in: 60...600, using: &dice), number: UInt32(number + k))
          }
          number += port.send(batch)
        }
        all.left.wrappingSubtract(1, ordering: .releasing)
      }
    }
    let reader: @Sendable () -> Void = {
      var last = [Int](repeating: -1, count: senders), isLast = false
      while true {
        isLast = all.left.load(ordering: .acquiring) == 0
        let frames = to.receive()
        for bytes in frames {
          all.hasSeen()
          guard isWhole(bytes), (100..<100 + senders).contains(Int(bytes[11])) else {
            all.isBroken()
            continue
          }
          let from = Int(bytes[11]) - 100, number = (0..<4).reduce(0) { $0 | Int(bytes[14 + $1]) << (8 * $1) }
          if number <= last[from] { all.isBroken() }
          last[from] = number
        }
        _ = other.receive()
        if isLast, frames.isEmpty { break }
      }
    }
    try together(bodies + [reader])
    #expect(all.brokenCount == 0)
    let report = try #require(lab.ports.report.first { $0.name == "vale0:to" })
    let sent = ports.reduce(0) { $0 + Int($1.counters(RingID(.transmit, 0))?.packets ?? 0) }
    #expect(Int(report.packets) == all.seenCount && Int(report.packets + report.drops) == sent && sent >= senders * each)
    for port in ports + [to, other] { port.close() }
    #expect(lab.isEmpty())
  }

  @Test("Ports come and go under traffic")
  func comeAndGo() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a", slots: 64), b = try lab.open("vale0:b", slots: 64)
    let all = Together()
    let sender: @Sendable () -> Void = {
      var n: UInt32 = 0
      while !all.isOver {
        a.send((0..<20).map { summed(to: [everybody, station(2), station(3)][Int($0) % 3], from: station(1), length: 64, number: n &+ $0) })
        n &+= 20
      }
    }
    let reader: @Sendable () -> Void = {
      while !all.isOver {
        for bytes in b.receive() {
          all.hasSeen()
          if !isWhole(bytes) { all.isBroken() }
        }
        b.send([summed(to: station(1), from: station(2), length: 64, number: 1)])
      }
    }
    // Control stays on this test's thread of the manual dispatcher.
    let control: @Sendable () -> Void = {
      var rounds = 0
      while rounds < 150 || all.seenCount < 200 {
        rounds += 1
        guard rounds < 100_000, let port = try? lab.open("vale0:c\(rounds % 7)", slots: 16), let again = try? lab.open("vale0:b", slots: 64) else { break }
        port.send([summed(to: everybody, from: station(3), length: 64, number: 0)])
        for bytes in port.receive() where !isWhole(bytes) { all.isBroken() }
        again.close()
        port.close()
      }
      all.end()
    }
    try together([sender, reader, control])
    #expect(all.brokenCount == 0 && all.seenCount >= 200)
    a.close()
    b.close()
    #expect(lab.isEmpty())
  }

  @Test("Slots that name what is not the program's cost their frames; the ring is reset, the others are sent")
  func badSlots() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a"), b = try lab.open("vale0:b")
    let ring = a.transmitRings[0], good = frame(to: everybody, from: station(1))
    let limit = UInt32(a.region.allocator.bufferCount)
    for index in [0, 1, limit, .max, limit - 1] as [UInt32] {
      let before = ring.slot(ring.next(ring.head)), hole = ring.next(ring.head)
      ring.put(good, at: ring.head)
      ring.put(good, at: ring.next(hole))
      // The last index is of a buffer that nobody has.
      ring.setSlot(hole, NetmapSlot(bufferIndex: index, length: 60))
      ring.setHead(ring.next(ring.next(hole)))
      #expect(!a.synchronise(a.krings[0]), "POLLERR for \(index)")
      #expect(b.receive() == [good, good])
      ring.setSlot(hole, before)
      #expect(a.synchronise(a.krings[0]))
    }
    let long = ring.head, buffer = ring.slot(long).bufferIndex
    ring.setSlot(long, NetmapSlot(bufferIndex: buffer, length: 2049))
    ring.advance()
    #expect(!a.synchronise(a.krings[0]) && ring.slot(long) == NetmapSlot(bufferIndex: buffer, length: 0))
    #expect(a.synchronise(a.krings[0]) && b.receive().isEmpty)
    // Pointers are not followed.
    a.send([good], flags: .indirect)
    #expect(b.receive().isEmpty)
    // One buffer in several slots is sent as often.
    let one = ring.slot(ring.head)
    ring.put(good, at: ring.head)
    for n in 0..<3 { ring.setSlot((ring.head + UInt32(n)) % ring.count, NetmapSlot(bufferIndex: one.bufferIndex, length: 60)) }
    ring.setHead((ring.head + 3) % ring.count)
    #expect(a.synchronise(a.krings[0]) && b.receive() == [good, good, good])
    let counted = try #require(a.counters(RingID(.transmit, 0)))
    #expect(counted.badIndexes >= 5 && counted.badLengths >= 1 && counted.drops == 7)
    // Head and cur out of place.
    for (head, cur) in [(ring.count, 0), (.max, .max), (ring.tail, ring.head)] as [(UInt32, UInt32)] {
      let before = ring.head
      ring.ring.storeHead(head)
      ring.ring.storeCur(cur)
      #expect(!a.synchronise(a.krings[0]) && ring.head == before && ring.cur == before)
    }
    a.send([good])
    #expect(b.receive() == [good])
    a.close()
    b.close()
    #expect(lab.ports.report.isEmpty)
  }

  @Test("A receiver's bad slots take no frame; whose they are not is never written to")
  func badReceiver() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a"), b = try lab.open("vale0:b"), c = try lab.open("vale0:c")
    let ring = b.receiveRings[0], limit = UInt32(b.region.allocator.bufferCount)
    let indexes: [UInt32] = [0, 1, limit, .max, limit - 1]
    var before: [NetmapSlot] = []
    for (n, index) in indexes.enumerated() {
      before.append(ring.slot(UInt32(n)))
      ring.setSlot(UInt32(n), NetmapSlot(bufferIndex: index, length: 2048))
    }
    unsafe ring.withBuffer(limit - 1) { buffer in for i in 0..<2048 { unsafe buffer[i] = 0x5a } }
    let frames = (0..<8).map { frame(to: everybody, from: station(1), mark: UInt8($0)) }
    a.send(frames)
    #expect(c.receive() == frames)
    b.sync(ring)
    #expect((0..<5).allSatisfy { ring.slot($0).length == 0 && ring.slot($0).bufferIndex == 0 })
    #expect((5..<8).map { ring.bytes(ring.slot($0)) } == Array(frames[5...]))
    unsafe ring.withBuffer(limit - 1) { buffer in unsafe #expect(buffer.allSatisfy { $0 == 0x5a }) }
    // Giving them back so is a violation; put right, the ring goes on.
    ring.setHead(8)
    #expect(!b.synchronise(b.krings[1]) && ring.head == 0)
    for n in 0..<5 { ring.setSlot(UInt32(n), before[n]) }
    ring.setHead(8)
    #expect(b.synchronise(b.krings[1]))
    a.send(frames)
    #expect(b.receive() == frames)
    for port in [a, b, c] { port.close() }
    #expect(lab.ports.report.isEmpty)
  }

  @Test("Slots, heads and bytes that change at any time harm nobody else, and everything comes back")
  func anyTime() throws {
    let lab = try ValeLab()
    // The honest ones on a switch of their own: on its own the bad one may say that it is anybody.
    let a = try lab.open("vale1:a", slots: 64), b = try lab.open("vale1:b", slots: 256)
    let bad = try lab.open("vale0:bad", slots: 64, rings: 2), peer = try lab.open("vale0:peer", slots: 64)
    try lab.ports.setHeader("vale0:bad", length: 12)
    let all = Together()
    let writer: @Sendable () -> Void = {
      var dice = Dice(state: 7)
      let rings = bad.rings, limit = UInt32(bad.region.allocator.bufferCount)
      while !all.isOver {
        let ring = rings[Int.random(in: 0..<rings.count, using: &dice)]
        switch Int.random(in: 0..<5, using: &dice) {
        case 0: ring.ring.storeHead(UInt32.random(in: 0..<70, using: &dice))
        case 1: ring.ring.storeCur(UInt32.random(in: 0..<70, using: &dice))
        case 2: ring.ring.storeTail(UInt32.random(in: 0..<70, using: &dice))
        default:
          ring.setSlot(
            UInt32.random(in: 0..<64, using: &dice),
            NetmapSlot(
              bufferIndex: UInt32.random(in: 0..<limit + 4, using: &dice), length: UInt16.random(in: 0...2100, using: &dice),
              flags: SlotFlags(rawValue: UInt16.random(in: 0...0xff, using: &dice)), pointer: dice.next()))
        }
      }
    }
    let syncer: @Sendable () -> Void = {
      while !all.isOver { for kring in bad.krings { bad.synchronise(kring) } }
    }
    let honest: @Sendable () -> Void = {
      for n in 0..<400 as Range<UInt32> {
        a.send((0..<20).map { summed(to: $0 % 4 == 0 ? everybody : station(2), from: station(1), length: 70, number: n * 20 + $0) })
        peer.send([frame(to: everybody, from: station(8)), frame(to: station(9), from: station(8), length: 1500)])
        _ = peer.receive()
        for bytes in b.receive() {
          all.hasSeen()
          if !isWhole(bytes) { all.isBroken() }
        }
        if n % 10 == 0 { b.send([summed(to: station(1), from: station(2), length: 70, number: n)]) }
      }
      all.end()
    }
    try together([writer, syncer, honest])
    #expect(all.brokenCount == 0 && all.seenCount > 400)
    for port in [bad, a, b, peer] { port.close() }
    #expect(lab.ports.report.isEmpty && a.region.users == 0 && bad.region.users == 0)
    #expect([a, b, bad, peer].allSatisfy { $0.region.allocator.statistics.prefix(3).allSatisfy { $0.inUse == 0 } })
  }

  @Test("Frames may start at offsets, in the sender's buffers and in the receiver's")
  func offsets() throws {
    let lab = try ValeLab()
    func open(_ name: String, largest: UInt64, initial: UInt64) throws -> NetmapPort {
      let option = OffsetsOption(largest: largest, initial: initial)
      var register = RegisterRequest()
      (register.transmitSlots, register.receiveSlots) = (32, 32)
      return try lab.system.register(PortRequest(name, RingSelection(.allNIC), register: register, offsets: option))
    }
    let a = try open("vale0:a", largest: 128, initial: 64), b = try open("vale0:b", largest: 256, initial: 100), c = try lab.open("vale0:c")
    let bytes = frame(to: everybody, from: station(1), length: 99), ring = a.transmitRings[0], at = ring.head
    var slot = ring.slot(at)
    #expect(slot.pointer == 64)
    unsafe ring.withBuffer(slot.bufferIndex) { buffer in for (i, byte) in bytes.enumerated() { unsafe buffer[64 + i] = byte } }
    slot.length = UInt16(bytes.count)
    ring.setSlot(at, slot)
    ring.advance()
    #expect(a.synchronise(a.krings[0]))
    #expect(c.receive() == [bytes])
    b.sync(.receive)
    let got = b.receiveRings[0].slot(0)
    #expect(got.length == 99 && got.pointer == 100)
    let there = unsafe b.receiveRings[0].withBuffer(got.bufferIndex) { unsafe Array($0[100..<199]) }
    #expect(there == bytes)
    // Beyond the buffer's end.
    slot = ring.slot(ring.head)
    slot.length = 2048
    ring.setSlot(ring.head, slot)
    ring.advance()
    #expect(!a.synchronise(a.krings[0]) && c.receive().isEmpty)
    for port in [a, b, c] { port.close() }
    #expect(lab.ports.report.isEmpty)
  }
}
