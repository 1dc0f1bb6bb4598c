import Foundation
import Testing
import Wire

@testable import Ringway

/// A small generator with a seed, so that runs repeat (Vigna's splitmix64).
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

@Suite struct SequenceWindowTests {
  /// Against a set that remembers everything.
  @Test(arguments: [UInt64(1), 2, 3, 4, 5, 6, 7, 8]) func agreesWithASet(seed: UInt64) {
    var random = Seeded(state: seed)
    let size = 1 << Int.random(in: 6...10, using: &random)
    var window = SequenceWindow(size: size)
    var seen: Set<UInt64> = []
    var top: UInt64?
    var base = UInt64.random(in: 0...(1 << 40), using: &random)
    var duplicates: UInt64 = 0
    var reordered: UInt64 = 0
    var late: UInt64 = 0
    for _ in 0..<20_000 {
      let jump: UInt64
      switch Int.random(in: 0..<100, using: &random) {
      case 0: jump = UInt64.random(in: 0...UInt64(3 * size), using: &random)
      case 1..<20: jump = UInt64.random(in: 0...5, using: &random)
      default: jump = 1
      }
      let back = Int.random(in: 0..<10, using: &random) == 0 ? UInt64.random(in: 0...UInt64(size + size / 4), using: &random) : 0
      let number = base + jump > back ? base + jump - back : 0
      let verdict = window.record(number)
      if let top, number <= top, top + 1 - number > UInt64(size) {
        late += 1
        #expect(verdict == .late)
      } else if seen.contains(number) {
        duplicates += 1
        #expect(verdict == .duplicate)
      } else {
        if let top, number < top {
          reordered += 1
          #expect(verdict == .reordered)
        } else {
          #expect(verdict == .new)
        }
        seen.insert(number)
        top = max(top ?? 0, number)
      }
      base = max(base, number)
    }
    #expect(window.distinct == UInt64(seen.count))
    #expect(window.duplicates == duplicates)
    #expect(window.reordered == reordered)
    #expect(window.late == late)
    #expect(duplicates > 100 && reordered > 100)
    #expect(window.last == seen.max())
    #expect(window.first == seen.min())
    #expect(window.lost() == seen.max()! - seen.min()! + 1 - UInt64(seen.count))
  }

  @Test func countsFromZeroWhenTheNumberIsKnown() {
    var window = SequenceWindow(size: 64)
    #expect(window.lost(expected: 10) == 10)
    #expect(window.lost() == 0)
    for number in [UInt64(3), 4, 6] { _ = window.record(number) }
    #expect(window.lost(expected: 10) == 7)
    #expect(window.lost() == 1)
    #expect(window.lost(expected: 2) == 0)
  }

  @Test func jumpsOfWholeWindowsForgetNothingTheyShouldKeep() {
    var window = SequenceWindow(size: 64)
    _ = window.record(0)
    _ = window.record(64)  // same bit as 0
    #expect(window.record(0) == .late)
    #expect(window.record(1) == .reordered)
    _ = window.record(1_000_000)
    #expect(window.record(1_000_000 - 63) == .reordered)
    #expect(window.record(1_000_000 - 64) == .late)
    #expect(window.record(1_000_000) == .duplicate)
    #expect(window.record(TestFrame.sequenceLimit - 1) == .new)
  }
}

@Suite struct TokenBucketTests {
  @Test func holdsItsRateExactly() {
    for rate in [UInt64(1), 7, 1000, 14_880_952, 10_000_000_000] {
      var bucket = TokenBucket(rate: rate, burst: 1_000_000)
      var random = Seeded(state: rate)
      var now: UInt64 = 123_456_789_000
      var taken: UInt64 = UInt64(bucket.take(1, now: now))
      #expect(taken == 1)
      let start = now
      let steps = 5000
      for _ in 0..<steps {
        // Never longer than the burst covers.
        now += UInt64.random(in: 1...max(1, min(1_000_000_000, 900_000 * 1_000_000_000 / rate)), using: &random)
        while true {
          let n = bucket.take(Int.random(in: 1...100_000, using: &random), now: now)
          if n == 0 { break }
          taken += UInt64(n)
        }
      }
      let (high, low) = (now - start).multipliedFullWidth(by: rate)
      let exact = UInt64(1_000_000_000).dividingFullWidth((high, low)).quotient
      #expect(taken == exact + 1, "\(rate) a second")
    }
  }

  @Test func burstIsBounded() {
    var bucket = TokenBucket(rate: 1000, burst: 10)
    #expect(bucket.take(100, now: 0) == 1)
    #expect(bucket.take(100, now: 1_000_000_000_000) == 10)
    #expect(bucket.take(100, now: .max) == 10)
    // A clock that goes back gives nothing.
    #expect(bucket.take(100, now: 5) == 0)
  }

  @Test func saysWhenTheNextIsDue() {
    var bucket = TokenBucket(rate: 1000, burst: 10)
    _ = bucket.take(1, now: 0)
    #expect(bucket.untilNext() == 1_000_000)
    _ = bucket.take(1, now: 400_000)
    #expect(bucket.untilNext() == 600_000)
    #expect(bucket.take(1, now: 999_999) == 0)
    #expect(bucket.take(1, now: 1_000_000) == 1)
    let unlimited = TokenBucket(rate: nil)
    #expect(unlimited.untilNext() == 0)
  }

  @Test func withoutARateThereIsNoLimit() {
    var bucket = TokenBucket(rate: nil)
    #expect(bucket.take(1000, now: 0) == 1000)
    #expect(bucket.take(1000, now: 0) == 1000)
  }
}
