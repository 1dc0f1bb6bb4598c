// IntelRings: advanced descriptors and their rings, which the igb and ixgbe families share.
//
//    igb, ixgbe (registers, interrupts, link)
//        │ start: rings cut from descriptor memory (RingSet), a tail doorbell each
//        ▼
//    AdvancedReceiveRing    look ── check ── swap the buffer ── ring once a batch
//    AdvancedTransmitRing   clean groups that were reported ── post ── ring once a batch
//        │ both hold what the card writes against private copies; neither touches a register
//        ▼
//    descriptors in memory that no program maps
//
// What differs between the families is an `AdvancedFamily` value, given at start; the paths of
// plain frames do not look at it. Beside the rings lie the few things around them that are the
// same arithmetic on both: eventfds of vectors, moderation, the hash key, the transmit watchdog.
//
// Invariants
// - A queue is used by its owner's thread alone, and lives at a fixed address.
// - Nothing read from descriptor memory becomes a pointer or an unchecked index.
// - The packet path neither allocates nor locks nor throws.

/// What a card's family does differently with the same descriptors.
public struct AdvancedFamily: Sendable, Equatable {
  /// Receive errors that mean damage: the frame is dropped.
  let damaged: UInt32
  /// Receive: the checksum of TCP, UDP or SCTP is wrong; the IPv4 header's is.
  let layer4Wrong: UInt32
  let ipWrong: UInt32
  /// The card calls UDP datagrams without a checksum wrong (82599 specification update):
  /// what it says of UDP errors is not passed on.
  let doubtsUDP: Bool
  /// What a data descriptor carries beside the slot's number when it uses a context (82599: CC).
  let usesContext: UInt64
  /// Context slots of a queue: how many different contexts are kept without posting them again.
  let contextSlots: Int
  /// Largest buffer a receive descriptor can name, in bytes: a multiple of 1024.
  public let largestBuffer: Int

  /// 82576, I350, I210, I211, and QEMU's igb (82576 datasheet, 7.1.5 and 7.2.2).
  public static let igb = AdvancedFamily(
    damaged: 1 << 24 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 31, layer4Wrong: 1 << 29, ipWrong: 1 << 30,
    doubtsUDP: false, usesContext: 0, contextSlots: 2, largestBuffer: 16 * 1024)

  /// 82599 and X540 (82599 datasheet, 7.1.6 and 7.2.3).
  public static let ixgbe = AdvancedFamily(
    damaged: 1 << 24 | 1 << 25 | 1 << 27 | 1 << 28 | 1 << 29, layer4Wrong: 1 << 30, ipWrong: 1 << 31,
    doubtsUDP: true, usesContext: 1 << 39, contextSlots: 2, largestBuffer: 16 * 1024)
}
