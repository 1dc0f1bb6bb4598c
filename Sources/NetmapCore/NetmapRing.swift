// A ring in shared memory, as the daemon's side sees it.
//
//        0         8        16      20    24   28    32     40    56      64      128        256
//        │ buf_ofs │ slots  │ ids   │head │cur │tail │flags │ ts  │ mask  │ align │ sem      │ slots …
//                    trusted copies   └ program ┘  └ us                            program's
//
// The program may write any byte at any time. So each accessor is one load or one store, what
// comes out is a copy, and nothing here is read twice: callers check the copy and keep it.

public import CRingway

/// Which way packets go.
@frozen public enum RingDirection: UInt16, Sendable {
  case transmit = 0
  case receive = 1
}

/// Byte offsets of `struct netmap_ring` (net/netmap.h, API 14, x86-64).
public enum RingOffset {
  public static let bufferOffset = 0
  public static let slotCount = 8
  public static let bufferSize = 12
  public static let id = 16
  public static let direction = 18
  public static let head = 20
  public static let cur = 24
  public static let tail = 28
  public static let flags = 32
  public static let seconds = 40
  public static let microseconds = 48
  public static let offsetMask = 56
  public static let bufferAlignment = 64
  /// 128 bytes that belong to the program: never read, never written.
  public static let semaphore = 128
  public static let slots = 256
  /// Bytes a slot.
  public static let slotSize = 16
}

/// A view of a ring. Knows the trusted number of slots; owns nothing.
@frozen @safe public struct NetmapRing: BitwiseCopyable, @unchecked Sendable {
  /// First byte; 64-byte aligned.
  public let base: UnsafeMutableRawPointer
  /// The number of slots that was allocated: never taken from shared memory.
  public let slotCount: UInt32

  /// - Parameter base: `256 + 16 * slotCount` bytes that stay mapped for as long as the view is used.
  @inlinable @inline(__always) public init(unsafe base: UnsafeMutableRawPointer, slotCount: UInt32) {
    unsafe self.base = base
    self.slotCount = slotCount
  }

  // SAFETY: every offset below lies in the 256 bytes of the header, which the creator answers for.

  /// The program's `head`: slots before it are given to the other side.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func loadHead() -> UInt32 { unsafe rw_load_acquire32(base + RingOffset.head) }
  /// The program's `cur`: where it waits for more.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func loadCur() -> UInt32 { unsafe rw_load_acquire32(base + RingOffset.cur) }
  /// `tail` as it is in shared memory; ours, but a program can overwrite it.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func loadTail() -> UInt32 { unsafe rw_load_acquire32(base + RingOffset.tail) }

  /// Restores `head`, after a bad value.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func storeHead(_ value: UInt32) { unsafe rw_store_release32(base + RingOffset.head, value) }
  /// Restores `cur`, after a bad value.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func storeCur(_ value: UInt32) { unsafe rw_store_release32(base + RingOffset.cur, value) }
  /// Publishes `tail`: every slot written before is visible to whoever sees the new value.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func storeTail(_ value: UInt32) { unsafe rw_store_release32(base + RingOffset.tail, value) }

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func loadFlags() -> RingFlags { unsafe RingFlags(rawValue: rw_read32(base + RingOffset.flags)) }
  @inlinable public func storeFlags(_ value: RingFlags) { unsafe rw_write32(base + RingOffset.flags, value.rawValue) }

  /// `offset_mask`: the bits of `ptr` that are a frame's offset. Told, never believed.
  public func storeOffsetMask(_ mask: UInt64) { unsafe rw_write64(base + RingOffset.offsetMask, mask) }

  /// `ts`: when the last receive sync happened (`struct timeval`).
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable public func storeTimestamp(seconds: Int64, microseconds: Int64) {
    unsafe rw_write64(base + RingOffset.seconds, UInt64(bitPattern: seconds))
    unsafe rw_write64(base + RingOffset.microseconds, UInt64(bitPattern: microseconds))
  }

  /// A copy of slot `i`. Index, length and flags come from one load and so belong together. As with
  /// buffers, a slot that does not exist is slot 0.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func slot(_ i: UInt32) -> NetmapSlot {
    let at = unsafe address(ofSlot: i)
    let word = unsafe rw_read64(at)
    return NetmapSlot(
      bufferIndex: UInt32(truncatingIfNeeded: word), length: UInt16(truncatingIfNeeded: word >> 32),
      flags: SlotFlags(rawValue: UInt16(truncatingIfNeeded: word >> 48)), pointer: unsafe rw_read64(at + 8))
  }

  /// The same without `ptr`, which reads as 0: one load.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func slotWithoutPointer(_ i: UInt32) -> NetmapSlot {
    let word = unsafe rw_read64(address(ofSlot: i))
    return NetmapSlot(
      bufferIndex: UInt32(truncatingIfNeeded: word), length: UInt16(truncatingIfNeeded: word >> 32),
      flags: SlotFlags(rawValue: UInt16(truncatingIfNeeded: word >> 48)))
  }

  /// Writes slot `i`: two stores.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func setSlot(_ i: UInt32, _ slot: NetmapSlot) {
    setSlot(i, bufferIndex: slot.bufferIndex, length: slot.length, flags: slot.flags)
    unsafe rw_write64(address(ofSlot: i) + 8, slot.pointer)
  }

  /// Writes slot `i` but for its `pointer`: one store.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always)
  public func setSlot(_ i: UInt32, bufferIndex: UInt32, length: UInt16, flags: SlotFlags) {
    let word = UInt64(bufferIndex) | UInt64(length) << 32 | UInt64(flags.rawValue) << 48
    unsafe rw_write64(address(ofSlot: i), word)
  }

  /// Writes slot `i`'s `ptr` alone.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func setPointer(_ i: UInt32, _ pointer: UInt64) {
    unsafe rw_write64(address(ofSlot: i) + 8, pointer)
  }

  // SAFETY: the index is below `slotCount`, or 0, and there are two slots at least.
  @usableFromInline @inline(__always) func address(ofSlot i: UInt32) -> UnsafeMutableRawPointer {
    unsafe base + RingOffset.slots + Int(i < slotCount ? i : 0) &* RingOffset.slotSize
  }

  /// Makes a fresh ring in zeroed memory: transmit rings start full of free slots, receive rings
  /// empty. One slot always stays empty.
  /// - Parameters:
  ///   - bufferOffset: from the ring's first byte to buffer 0.
  ///   - id: the ring's number, with netmap's bits for host rings.
  func initialize(bufferOffset: Int, bufferSize: Int, id: UInt16, direction: RingDirection) {
    unsafe rw_write64(base + RingOffset.bufferOffset, UInt64(bitPattern: Int64(bufferOffset)))
    unsafe rw_write32(base + RingOffset.slotCount, slotCount)
    unsafe rw_write32(base + RingOffset.bufferSize, UInt32(bufferSize))
    unsafe rw_write16(base + RingOffset.id, id)
    unsafe rw_write16(base + RingOffset.direction, direction.rawValue)
    unsafe rw_write64(base + RingOffset.offsetMask, 0)
    unsafe rw_write64(base + RingOffset.bufferAlignment, 0)
    storeHead(0)
    storeCur(0)
    storeTail(direction == .transmit ? slotCount - 1 : 0)
  }
}

/// Flags of a ring.
@frozen public struct RingFlags: OptionSet, Sendable, BitwiseCopyable {
  public let rawValue: UInt32
  @inlinable @inline(__always) public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// `NR_TIMESTAMP`: the program wants `ts` set at each receive sync.
  @inlinable public static var timestamp: RingFlags { RingFlags(rawValue: 0x2) }
  /// `NR_FORWARD`: slots with `NS_FORWARD` go on between card and host.
  @inlinable public static var forward: RingFlags { RingFlags(rawValue: 0x4) }
}
