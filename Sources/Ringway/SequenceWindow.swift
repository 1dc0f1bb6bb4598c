// Which sequence numbers have been seen, in memory that does not grow.

/// Accounts for every sequence number of a run: seen once, twice, late, never.
///
/// A bitmap covers the newest `size` numbers. What is older than that when it arrives is `late`: it
/// cannot be told whether it had been seen, and it stays counted as lost. Everything else is exact.
@safe public struct SequenceWindow: ~Copyable {
  public enum Verdict: Equatable, Sendable {
    /// The next one, or the next after a gap.
    case new
    /// New, but a later one came before it.
    case reordered
    case duplicate
    case late
  }

  /// Numbers covered: a power of two.
  public let size: UInt64
  /// Distinct numbers seen.
  public private(set) var distinct: UInt64 = 0
  public private(set) var duplicates: UInt64 = 0
  public private(set) var reordered: UInt64 = 0
  public private(set) var late: UInt64 = 0
  /// Smallest and largest number seen; nil before the first.
  public private(set) var first: UInt64?
  public private(set) var last: UInt64?
  private let words: UnsafeMutablePointer<UInt64>
  /// One behind the largest number seen; the bitmap covers [end - size, end).
  private var end: UInt64 = 0

  /// - Parameter size: numbers; rounded up to a power of two from 64 to 2^30. 2^20 take 128 KiB.
  public init(size: Int = 1 << 20) {
    var rounded = 64
    while rounded < min(size, 1 << 30) { rounded <<= 1 }
    self.size = UInt64(rounded)
    unsafe words = .allocate(capacity: rounded / 64)
    unsafe words.initialize(repeating: 0, count: rounded / 64)
  }

  deinit { unsafe words.deallocate() }

  // SAFETY of all uses of `words`: an index is a number below `size`, divided by 64.

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public mutating func record(_ number: UInt64) -> Verdict {
    let mask = size &- 1
    let word = Int(truncatingIfNeeded: (number & mask) >> 6)
    let bit: UInt64 = 1 << (number & 63)
    if number >= end {
      clear(from: end, to: number)
      unsafe words[word] |= bit
      end = number &+ 1
      distinct &+= 1
      if first == nil { first = number }
      last = number
      return .new
    }
    if end &- number > size {
      late &+= 1
      return .late
    }
    if unsafe words[word] & bit != 0 {
      duplicates &+= 1
      return .duplicate
    }
    unsafe words[word] |= bit
    distinct &+= 1
    reordered &+= 1
    if let known = first, number < known { first = number }
    return .reordered
  }

  /// Forgets the bits that the numbers in [from, to] will use.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  private func clear(from: UInt64, to: UInt64) {
    if to &- from >= size {
      var i = 0
      while i < Int(truncatingIfNeeded: size / 64) {
        unsafe words[i] = 0
        i &+= 1
      }
      return
    }
    let mask = size &- 1
    var number = from
    while number <= to {
      if number & 63 == 0 && to &- number >= 63 {
        unsafe words[Int(truncatingIfNeeded: (number & mask) >> 6)] = 0
        number &+= 64
      } else {
        unsafe words[Int(truncatingIfNeeded: (number & mask) >> 6)] &= ~(1 << (number & 63))
        number &+= 1
      }
    }
  }

  /// Numbers that never came.
  /// - Parameter expected: how many were sent, from 0 on; nil judges from the smallest to the largest
  ///   number seen.
  public func lost(expected: UInt64? = nil) -> UInt64 {
    if let expected { return expected > distinct ? expected &- distinct : 0 }
    guard let first, let last else { return 0 }
    return last &- first &+ 1 &- distinct
  }
}
