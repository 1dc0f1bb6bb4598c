// The 82599 model under drivers that write anything.

import ModelKit
import Testing

@testable import Models

/// Whatever a driver writes, the model goes on, and a reset brings it back.
@Suite struct Intel82599AbuseTests {
  struct Random: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state &+= 0x9e37_79b9_7f4a_7c15
      var mixed = (state ^ state >> 30) &* 0xbf58_476d_1ce4_e5b9
      mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
      return mixed ^ mixed >> 31
    }
  }

  /// Values that drivers get wrong: small, large, near the ends, addresses inside of memory.
  private func value(_ random: inout Random) -> UInt32 {
    switch random.next() % 8 {
    case 0: 0
    case 1: .max
    case 2: UInt32(truncatingIfNeeded: random.next())
    case 3: UInt32(random.next() % 64)
    case 4: UInt32(truncatingIfNeeded: Rig599.start + random.next() % UInt64(Rig599.size))
    case 5: 1 << UInt32(random.next() % 32)
    case 6: UInt32(truncatingIfNeeded: Rig599.start) + UInt32(random.next() % 64) * 4096
    default: 1 << 25 | UInt32(random.next() % 256) << 7
    }
  }

  private func offset(_ random: inout Random) -> Int {
    let places: [(Int, Int)] = [
      (0, 0x100), (0x800, 0x340), (0x1000, 0x200), (0x2100, 0x300), (0x3000, 0x300), (0x4000, 0xb00), (0x5000, 0xd00),
      (0x6000, 0x200), (0x8000, 0x900), (0xa000, 0x600), (0xd000, 0x100), (0xee00, 0x80), (0x10000, 0x200), (0x12300, 0x200),
    ]
    let (start, count) = places[Int(random.next() % UInt64(places.count))]
    return start + Int(random.next() % UInt64(count / 4)) * 4
  }

  @Test(arguments: 0..<24) func anythingGoes(seed: Int) throws {
    var random = Random(state: UInt64(seed))
    let rig = try Rig599(mode: seed % 3 == 0 ? .shared : .trapped, packetBuffer: seed % 2 == 0 ? 512 * 1024 : 8192)
    for i in 0..<2 {
      rig.startTransmit(i)
      rig.startReceive(i)
    }
    rig.set(0x700, 0x5080)
    for _ in 0..<400 {
      switch random.next() % 6 {
      case 0, 1: rig.write(value(&random), offset(&random))
      case 2: _ = rig.read(offset(&random))
      case 3:
        let kinds: [UInt32] = [2 << 20, 3 << 20, 0, 3 << 20]
        for _ in 0...random.next() % 6 {
          let command = kinds[Int(random.next() & 3)] | UInt32(truncatingIfNeeded: random.next()) & 0xff00_ffff
          let address = random.next() & 7 == 0 ? value(&random) : UInt32(Rig599.start) + UInt32(random.next() % (4 << 20))
          rig.setDescriptor(Int(random.next() & 1), [address, 0, command & ~(random.next() & 1 == 0 ? 0xc000 : 0), UInt32(truncatingIfNeeded: random.next())])
        }
        rig.ring(Int(random.next() & 1))
      default:
        let size = [0, 1, 13, 14, 15, 59, 60, 1500, 9000, 20_000][Int(random.next() % 10)]
        rig.wire.send((0..<size).map { _ in UInt8(truncatingIfNeeded: random.next() & 0x8f) }, marks: random.next() & 15 == 0 ? .badCheckSequence : [])
        rig.card.advance(nanoseconds: random.next() % 100_000)
      }
    }
    rig.card.advance(nanoseconds: 10_000_000)
    // A function reset makes a working card of it again.
    try rig.card.reset()
    rig.card.setBusMaster(true)
    rig.wire.sent = []
    rig.startTransmit(0)
    rig.startReceive(0)
    rig.queueFrame(0, [Frame599.plain(100)])
    rig.ring(0)
    rig.arrive([Frame599.plain(200)])
    #expect(rig.wire.sent.map(\.bytes) == [Frame599.plain(100)])
    #expect(rig.takeReceived(0).map(\.bytes) == [Frame599.plain(200)])
  }
}
