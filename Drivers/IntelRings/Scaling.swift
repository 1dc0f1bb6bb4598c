// Receive-side scaling and interrupt moderation: arithmetic without registers.

/// What both families put into their hash registers (82576 datasheet, 7.1.2.8; 82599, 7.1.2.8).
public enum ReceiveScaling {
  /// Ten words of key that repeat every 16 bits: both directions of a connection hash alike, and so
  /// reach the same queue.
  public static let keyWords = [UInt32](repeating: 0x5a6d_5a6d, count: 10)
  /// Entries of the indirection table.
  public static let tableSize = 128

  /// Queue numbers for the low seven bits of the hash: every queue gets its share.
  public static func table(queues: Int) -> [UInt8] {
    (0..<tableSize).map { UInt8(truncatingIfNeeded: $0 % max(1, queues)) }
  }

  /// The table as 32 registers of four entries, the first in the low byte.
  public static func tableWords(queues: Int) -> [UInt32] {
    let entries = table(queues: queues)
    return stride(from: 0, to: tableSize, by: 4).map { i in
      (0..<4).reduce(0) { $0 | UInt32(entries[i + $1]) << UInt32(8 * $1) }
    }
  }
}

/// How long a queue waits between two interrupts: the shortest time while little comes, longer when
/// an interrupt would find many frames anyway.
///
/// Work is counted in frames plus half kilobytes. Below four units in the shortest interval there
/// is nothing to gather, and latency counts; above, the interval that gathers 32 units is aimed at.
public struct AdaptiveModeration: Sendable {
  /// Microseconds; 0 is no moderation at all.
  public let shortest: Int
  /// Eight times the shortest, and no more than 250 microseconds unless the shortest is; or as given.
  public let longest: Int
  /// What is in force.
  public private(set) var interval: Int
  private var packets: UInt64 = 0
  private var bytes: UInt64 = 0
  private var time: UInt64 = 0

  public init(shortest: Int) { self.init(shortest: shortest, longest: min(shortest * 8, 250)) }

  /// As `PortOptions.moderationMicroseconds` wants it: between an eighth of the ceiling (but not less
  /// than 2 us, the 82599's unit) and the ceiling.
  public init(ceiling: Int) { self.init(shortest: ceiling == 0 ? 0 : max(2, ceiling / 8), longest: ceiling) }

  /// - Parameter longest: microseconds; at least `shortest`.
  public init(shortest: Int, longest: Int) {
    self.shortest = max(0, shortest)
    self.longest = max(self.shortest, longest)
    interval = self.shortest
  }

  /// The interval after what a queue has counted so far.
  /// - Parameters:
  ///   - packets, bytes: the queue's totals, both directions.
  ///   - now: monotonic nanoseconds.
  /// - Returns: the new interval in microseconds when it differs from the one in force.
  public mutating func update(packets: UInt64, bytes: UInt64, now: UInt64) -> Int? {
    let elapsed = now &- time
    // Less than two intervals say nothing.
    guard shortest > 0, elapsed >= UInt64(shortest) * 2000 else { return nil }
    let work = (packets &- self.packets) &+ (bytes &- self.bytes) / 512
    self.packets = packets
    self.bytes = bytes
    time = now
    let perShortest = work &* UInt64(shortest) &* 1000 / elapsed
    var wanted = shortest
    if perShortest >= 4 {
      let gathers = 32 &* elapsed / max(1, work) / 1000
      wanted = max(shortest, Int(min(gathers, UInt64(longest))))
    }
    // Down at once, up in steps: a burst does not cost the next request its latency.
    let next = wanted < interval ? wanted : interval + (wanted - interval + 3) / 4
    guard next != interval else { return nil }
    interval = next
    return next
  }
}
