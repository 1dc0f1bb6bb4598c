// Which port a station was last seen on.
//
//    address ── hash ──> entry:  station (48 bits) · port + 1 (16 bits)  |  seconds of the last frame
//
// Several senders read and write at a time, without a lock: an entry's first word is one load or one store, so address and
// port always belong together. Two stations of one hash push each other out; what is not known goes to every port.

internal import CRingway

/// A switch's learning table.
@safe final class ValeTable: @unchecked Sendable {
  /// netmap's number of entries.
  static let entryCount = 1024
  private let entries: UnsafeMutablePointer<UInt64>
  /// Seconds after which a station that was silent counts as unknown.
  let lifetime: UInt32

  init(lifetime: UInt32) {
    self.lifetime = lifetime
    unsafe entries = .allocate(capacity: 2 * Self.entryCount)
    unsafe entries.initialize(repeating: 0, count: 2 * Self.entryCount)
  }

  deinit { unsafe entries.deallocate() }

  /// The 48 bits of an address, as a little-endian load gives them.
  static let addressMask: UInt64 = 0xffff_ffff_ffff
  /// What is not known, or is for several.
  static let everybody = 254

  @inline(__always) private func entry(_ address: UInt64) -> UnsafeMutablePointer<UInt64> {
    // Fibonacci's hash: ten bits from the top.
    let slot = (address &* 0x9e37_79b9_7f4a_7c15) >> 54
    // SAFETY: ten bits are below the number of entries.
    return unsafe entries + 2 &* Int(truncatingIfNeeded: slot)
  }

  /// A frame came from `address` on `port`.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always) func learn(_ address: UInt64, port: Int, now: UInt32) {
    let at = unsafe entry(address), word = address | UInt64(truncatingIfNeeded: port &+ 1) &<< 48
    // Without stores where nothing changes: other senders read the line.
    if unsafe rw_load_relaxed64(at) != word { unsafe rw_store_relaxed64(at, word) }
    if unsafe rw_load_relaxed64(at + 1) != UInt64(now) { unsafe rw_store_relaxed64(at + 1, UInt64(now)) }
  }

  /// The port of a station; `everybody` for one that is not known.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always) func port(of address: UInt64, now: UInt32) -> Int {
    let at = unsafe entry(address), word = unsafe rw_load_relaxed64(at)
    guard word & Self.addressMask == address, word >> 48 != 0 else { return Self.everybody }
    let seen = unsafe UInt32(truncatingIfNeeded: rw_load_relaxed64(at + 1))
    // A clock that another sender read later than this one makes the difference negative.
    guard Int32(bitPattern: now &- seen) <= Int32(bitPattern: lifetime) else { return Self.everybody }
    return Int(truncatingIfNeeded: word >> 48) &- 1
  }

  /// A port has gone: its stations are unknown again. Senders are kept out meanwhile.
  func forget(port: Int) {
    for i in 0..<Self.entryCount {
      let at = unsafe entries + 2 * i
      if unsafe rw_load_relaxed64(at) >> 48 == UInt64(port + 1) { unsafe rw_store_relaxed64(at, 0) }
    }
  }
}
