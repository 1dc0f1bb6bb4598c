// The transmit watchdog: is the card's head where it can be, and does it move?

/// What was seen of one transmit ring.
public struct TransmitWatch: Sendable {
  public enum Finding: Equatable, Sendable {
    case fine
    /// Nothing moved for two seconds, with work pending and the link up.
    case hung
    /// The head is where it cannot be.
    case impossible(String)
  }

  /// How long a head may stand still: 2 s.
  public static let hangNanoseconds: UInt64 = 2_000_000_000

  /// The card's head when it was last seen to move, and when that was.
  private var head: UInt32 = 0
  private var since: UInt64 = 0
  private var waiting = false

  public init() {}

  /// Looks at the ring; frees what was reported.
  /// - Parameters:
  ///   - readHead: the queue's TDH; read again when its value was overtaken.
  ///   - now: monotonic nanoseconds.
  public mutating func look(
    queue: Int, _ ring: inout AdvancedTransmitRing, linkUp: Bool, now: UInt64, readHead: () -> UInt32
  ) -> Finding {
    let head = readHead()
    ring.reclaim()
    let pending = ring.pending, mask = ring.count - 1
    let behind = (ring.next &- Int(truncatingIfNeeded: head)) & mask
    var possible = head < UInt32(truncatingIfNeeded: ring.count)
    if possible, pending > 0, behind > pending {
      // The head was read before the ring was collected, so it may lie behind what is free now, but
      // never ahead of the tail: ahead, it would seem nearly a whole ring behind.
      let again = readHead()
      possible = again < UInt32(truncatingIfNeeded: ring.count) && (ring.next &- Int(again)) & mask <= pending
    }
    guard possible else {
      return .impossible("transmit queue \(queue)'s head is \(head), which was never handed over")
    }
    if pending == 0 || !waiting || head != self.head || !linkUp {
      self.head = head
      since = now
      waiting = pending > 0
      return .fine
    }
    return now &- since >= Self.hangNanoseconds ? .hung : .fine
  }
}
