// What lies around the rings: vectors, moderation, the watchdog.

import Testing

@testable import IntelRings

@Suite struct VectorTests {
  @Test func enoughVectorsGiveEachQueueItsOwn() throws {
    let vectors = try QueueVectors(available: 25, queues: 4)
    #expect(vectors.count == 5 && vectors.controlVector == 4)
    #expect((0..<4).map { vectors.vector(queue: $0) } == [0, 1, 2, 3])
    #expect((0..<4).map { vectors.transmitVector(queue: $0) } == [0, 1, 2, 3])
    #expect(Set((0..<5).map { vectors.descriptor($0) }).count == 5)
    #expect(vectors.isOwn(queue: 3))
    #expect(vectors.descriptor(5) == -1 && vectors.descriptor(-1) == -1)
  }

  @Test func sentFramesHaveVectorsOnTheSameDescriptor() throws {
    let vectors = try QueueVectors(available: 10, queues: 4, separateTransmit: true)
    #expect(vectors.count == 9 && vectors.controlVector == 8)
    for i in 0..<4 {
      #expect(vectors.transmitVector(queue: i) == 4 + i)
      #expect(vectors.descriptor(4 + i) == vectors.descriptor(i))
    }
    // One too few for that.
    let fewer = try QueueVectors(available: 8, queues: 4, separateTransmit: true)
    #expect(fewer.count == 5 && fewer.transmitVector(queue: 2) == 2)
  }

  @Test func fewVectorsAreShared() throws {
    let vectors = try QueueVectors(available: 10, queues: 16, separateTransmit: true)
    #expect(vectors.count == 10 && vectors.controlVector == 9)
    #expect((0..<16).map { vectors.vector(queue: $0) } == [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3, 4, 5, 6])
    #expect(!vectors.isOwn(queue: 0))
    let one = try QueueVectors(available: 1, queues: 2)
    #expect(one.count == 1 && one.controlVector == 0 && one.vector(queue: 1) == 0)
    let none = try QueueVectors(available: 0, queues: 2)
    #expect(none.count == 0 && none.descriptor(0) == -1)
  }
}

@Suite struct ModerationTests {
  @Test func littleTrafficKeepsTheShortestInterval() {
    var moderation = AdaptiveModeration(shortest: 20)
    #expect(moderation.interval == 20 && moderation.longest == 160)
    var packets: UInt64 = 0
    for turn in 1...100 as ClosedRange<UInt64> {
      // A request and its answer every 100 microseconds.
      packets += 2
      #expect(moderation.update(packets: packets, bytes: packets * 60, now: turn * 100_000) == nil)
    }
  }

  @Test func muchTrafficRaisesItInStepsAndALullLowersItAtOnce() {
    var moderation = AdaptiveModeration(shortest: 20)
    var packets: UInt64 = 0, now: UInt64 = 0, seen: [Int] = []
    for _ in 0..<40 {
      // 300000 a second of 60 bytes: 6 in the shortest interval.
      packets += 30
      now += 100_000
      if let next = moderation.update(packets: packets, bytes: packets * 60, now: now) { seen.append(next) }
    }
    #expect(seen == seen.sorted() && seen.count >= 4)
    #expect((80...110).contains(moderation.interval), "32 frames at that rate take 100 microseconds: \(moderation.interval)")
    #expect(moderation.update(packets: packets + 1, bytes: 0, now: now + 1_000_000) == 20)
  }

  @Test func largeFramesCountForMore() {
    var moderation = AdaptiveModeration(shortest: 20)
    var packets: UInt64 = 0, now: UInt64 = 0
    for _ in 0..<40 {
      packets += 8
      now += 100_000
      _ = moderation.update(packets: packets, bytes: packets * 1514, now: now)
    }
    // 80000 a second: too few by number, enough by size.
    #expect(moderation.interval > 60)
  }

  @Test func noModerationStaysNone() {
    var moderation = AdaptiveModeration(shortest: 0)
    #expect(moderation.update(packets: 1_000_000, bytes: 0, now: 1_000_000) == nil)
    #expect(moderation.interval == 0)
    #expect(AdaptiveModeration(shortest: 1000).longest == 1000)
  }
}

@Suite struct WatchTests {
  @Test func aHeadThatStandsStillIsAHang() throws {
    let bench = TransmitBench()
    var watch = TransmitWatch()
    bench.send(try bench.packet([pattern(60)]))
    func look(_ now: UInt64, head: UInt32 = 0, linkUp: Bool = true) -> TransmitWatch.Finding {
      watch.look(queue: 0, &bench.ring, linkUp: linkUp, now: now) { head }
    }
    #expect(look(1_000_000_000) == .fine)
    #expect(look(2_900_000_000) == .fine)
    #expect(look(3_000_000_000, linkUp: false) == .fine, "without a link nothing moves")
    #expect(look(4_000_000_000) == .fine)
    #expect(look(5_000_000_000) == .hung)
    #expect(look(5_100_000_000, head: 1) == .fine, "it moved")
  }

  @Test func aHeadThatWasNeverHandedOverIsImpossible() throws {
    let bench = TransmitBench()
    var watch = TransmitWatch()
    for _ in 0..<3 { bench.send(try bench.packet([pattern(60)])) }
    func look(_ heads: [UInt32]) -> TransmitWatch.Finding {
      var left = heads
      return watch.look(queue: 2, &bench.ring, linkUp: true, now: 0) { left.count > 1 ? left.removeFirst() : left[0] }
    }
    #expect(look([3]) == .fine && look([0]) == .fine)
    #expect(look([64]) == .impossible("transmit queue 2's head is 64, which was never handed over"))
    #expect(look([4]) == .impossible("transmit queue 2's head is 4, which was never handed over"))
    #expect(look([.max]) != .fine)
    // A head that was read before the ring was collected may lie behind.
    #expect(look([60, 1]) == .fine)
  }
}
