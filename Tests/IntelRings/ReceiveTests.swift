// The receive ring against hand-written write-backs, truthful and lying.

import Packet
import Testing

@testable import IntelRings

@Suite struct ReceiveTests {
  @Test func framesComeInOrderWithWhatTheCardSaid() {
    let bench = ReceiveBench()
    bench.arrive(pattern(60, 1))
    bench.arrive(pattern(1514, 2), status: 0x6b, hash: 0xcafe_0001, types: 0x111, vlan: 0x602a)
    bench.arrive(pattern(2048, 3), status: 0x73 & ~3, hash: 7, types: 0x217)
    let frames = bench.frames()
    #expect(frames.map(\.bytes) == [pattern(60, 1), pattern(1514, 2), pattern(2048, 3)])
    #expect(frames.map(\.flags) == [[], [.vlan, .hashed, .ipChecksum, .tcpChecksum], [.hashed, .ipChecksum, .udpChecksum]])
    #expect(frames[1].hash == 0xcafe_0001 && frames[1].vlan == 0x602a)
    #expect(bench.memory.tail == 2, "the tail is the last descriptor that was given back")
    check(bench.ring.counters.packets == 3 && bench.ring.counters.bytes == 60 + 1514 + 2048)
    check(bench.ring.counters.doorbells == 1)
    #expect(bench.pool.available == 256 - 64, "packets that were dropped are back")
  }

  @Test func everyDescriptorHoldsABufferOfItsOwn() {
    let bench = ReceiveBench()
    for turn in 0..<500 {
      bench.arrive(pattern(100, turn))
      #expect(bench.frames().map(\.bytes) == [pattern(100, turn)])
    }
    #expect(Set((0..<64).map { bench.memory[$0, 0] }).count == 64)
    #expect((0..<64).allSatisfy { bench.memory[$0, 1] == 0 })
    check(bench.ring.counters.packets == 500)
  }

  @Test func framesOverSeveralBuffersAreChains() {
    let bench = ReceiveBench()
    for turn in 0..<40 {
      bench.arrive(pattern(60, turn))
      bench.arrive(pattern(9014, turn), status: 0x60, hash: 5, types: 0x111)
      let frames = bench.frames()
      #expect(frames.map(\.bytes) == [pattern(60, turn), pattern(9014, turn)])
      #expect(frames.map(\.segments) == [1, 5])
      #expect(frames[1].flags == [.hashed, .ipChecksum, .tcpChecksum])
    }
    #expect(bench.pool.available == 256 - 64)
  }

  @Test func aChainMayArriveInPieces() {
    let bench = ReceiveBench()
    bench.report(length: 2048, status: 1)
    #expect(bench.frames().isEmpty)
    bench.report(length: 100, status: 3)
    bench.arrive(pattern(60))
    let frames = bench.frames()
    #expect(frames.map(\.bytes.count) == [2148, 60])
    check(bench.ring.counters.errors == 0)
  }

  @Test func aLimitIsKept() {
    let bench = ReceiveBench()
    for turn in 0..<10 { bench.arrive(pattern(60, turn)) }
    #expect(bench.frames(max: 3).map(\.bytes) == (0..<3).map { pattern(60, $0) })
    #expect(bench.frames(max: 0).isEmpty && bench.frames(max: -5).isEmpty)
    #expect(bench.frames().map(\.bytes) == (3..<10).map { pattern(60, $0) })
  }

  @Test func withoutFreeBuffersFramesWait() {
    let bench = ReceiveBench(buffers: 66)
    for turn in 0..<5 { bench.arrive(pattern(60, turn)) }
    var batch = PacketBatch(capacity: 8)
    check(bench.ring.receive(into: &batch, max: 8) == 2)
    check(bench.ring.receive(into: &batch, max: 8) == 0)
    #expect(bench.pool.exhausted == 1)
    check(bench.ring.hasWork)
    batch.removeAll()
    #expect(bench.frames().map(\.bytes) == [pattern(60, 2), pattern(60, 3)])
    #expect(bench.frames().map(\.bytes) == [pattern(60, 4)])
    check(!bench.ring.hasWork)
  }

  @Test(arguments: [AdvancedFamily.igb, .ixgbe]) func damagedFramesAreDropped(_ family: AdvancedFamily) {
    let bench = ReceiveBench(family: family)
    let bits: [UInt32] = family == .igb ? [24, 25, 26, 28, 31] : [24, 25, 27, 28, 29]
    for bit in bits {
      bench.arrive(pattern(60), status: 1 << bit)
      bench.arrive(pattern(61))
      #expect(bench.frames().map(\.bytes.count) == [61], "bit \(bit)")
    }
    check(bench.ring.counters.errors == 5)
    #expect(bench.pool.available == 256 - 64)
  }

  @Test func impossibleLengthsAreDropped() {
    let bench = ReceiveBench()
    for length in [0, 2049, 65535] {
      bench.report(length: length, status: 3)
      bench.arrive(pattern(60, length))
      #expect(bench.frames().map(\.bytes) == [pattern(60, length)], "\(length) bytes")
    }
    check(bench.ring.counters.errors == 3)
  }

  @Test func aChainWithoutEndIsCutAtTheLargestFrame() {
    let bench = ReceiveBench(maximumFrame: 5000)
    for _ in 0..<63 { bench.report(length: 2048, status: 1) }
    #expect(bench.frames().isEmpty)
    check(bench.ring.counters.errors == 1, #_sourceLocation)
    #expect(bench.pool.available >= 256 - 66, "the buffers of a chain that was cut are back")
    // The end comes, and then a good frame.
    bench.report(length: 10, status: 3)
    bench.arrive(pattern(60))
    #expect(bench.frames().map(\.bytes) == [pattern(60)])
  }

  @Test func aCardThatReportsNothingButDamageDoesNotHoldTheLoop() {
    let bench = ReceiveBench()
    for _ in 0..<64 { bench.report(length: 60, status: 3 | 1 << 31) }
    #expect(bench.frames().isEmpty)
    check(bench.ring.counters.errors == 64)
  }

  @Test func wrongChecksumsAreDeliveredAndSaid() {
    let bench = ReceiveBench()
    bench.arrive(pattern(60), status: 0x60 | 1 << 29, types: 0x110)
    #expect(bench.frames().map(\.flags) == [[.ipChecksum, .badChecksum]])
    check(bench.ring.counters.errors == 0)
  }

  @Test func aStoppedRingGivesNothingAndReleasesAll() {
    let bench = ReceiveBench()
    bench.arrive(pattern(60))
    bench.report(length: 2048, status: 1)
    _ = bench.frames()
    bench.arrive(pattern(61))
    bench.ring.running = false
    #expect(bench.frames().isEmpty)
    bench.ring.release()
    #expect(bench.pool.available == 256)
    #expect((0..<64).allSatisfy { bench.memory[$0, 0] == 0 })
  }

  @Test func aResetKeepsWhatHasArrived() {
    let bench = ReceiveBench()
    for turn in 0..<5 { bench.arrive(pattern(60, turn)) }
    bench.arrive(pattern(5000, 9))
    bench.ring.save()
    bench.ring.running = false
    bench.ring.repost()
    bench.head = 0
    bench.ring.running = true
    bench.ring.open()
    check(bench.ring.hasWork)
    bench.arrive(pattern(77))
    #expect(bench.frames(max: 2).map(\.bytes) == [pattern(60, 0), pattern(60, 1)])
    #expect(bench.frames().map(\.bytes.count) == [60, 60, 60, 5000])
    #expect(bench.frames().map(\.bytes) == [pattern(77)])
    #expect(bench.pool.available == 256 - 64)
  }
}
