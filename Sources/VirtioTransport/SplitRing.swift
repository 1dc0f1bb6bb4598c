// The split virtqueue's memory (virtio 1.2, clause 2.7).
//
//   descriptors: {address 64, length 32, flags 16, next 16} x size          written by the driver
//   available:   flags 16, idx 16, ring 16 x size, used_event 16            written by the driver
//   used:        flags 16, idx 16, {id 32, length 32} x size, avail_event   written by the device
//
// The used ring starts 4 bytes past a cache line, which its 4-byte alignment allows: each of its
// elements is then 8-byte aligned and is read by one load that never crosses a line.

public import CRingway
public import DMAMemory

/// Sizes and places of a split ring's parts, in bytes from the start of its memory.
public struct SplitLayout: Equatable, Sendable {
  /// Descriptors; a power of two up to 32768.
  public let size: Int
  public let availableOffset: Int
  public let usedOffset: Int
  /// Bytes in all. The memory must be aligned to 64.
  public let count: Int

  /// nil when `size` is no power of two between 1 and 32768.
  public init?(size: Int) {
    guard size >= 1, size <= 32768, size & (size - 1) == 0 else { return nil }
    self.size = size
    availableOffset = (size * 16 + 63) & ~63
    usedOffset = ((availableOffset + 6 + size * 2 + 63) & ~63) + 4
    count = (usedOffset + 6 + size * 8 + 63) & ~63
  }

  /// Where the parts lie on the bus when the memory starts at `iova`.
  public func addresses(at iova: IOVA) -> QueueAddresses {
    QueueAddresses(
      descriptors: iova, driver: iova.advanced(by: availableOffset), device: iova.advanced(by: usedOffset))
  }
}

/// Descriptor flags (clause 2.7.5).
public enum DescriptorFlags {
  /// VIRTQ_DESC_F_NEXT: the chain goes on at `next`.
  public static let next: UInt16 = 1
  /// VIRTQ_DESC_F_WRITE: the device writes the buffer.
  public static let write: UInt16 = 2
}

/// The ring's memory as the packet path sees it: four words that fit registers.
///
/// Copy it into a local before a loop. Indexes are free running; every access masks them, so no
/// value leads outside the ring.
@frozen @safe public struct SplitRing: BitwiseCopyable {
  public let descriptors: UnsafeMutableRawPointer
  public let available: UnsafeMutableRawPointer
  public let used: UnsafeMutableRawPointer
  public let mask: UInt32

  /// - Parameter base: `layout.count` bytes, aligned to 64, for as long as the ring is used.
  public init(unsafe base: UnsafeMutableRawPointer, layout: SplitLayout) {
    unsafe descriptors = base
    unsafe available = base + layout.availableOffset
    unsafe used = base + layout.usedOffset
    mask = UInt32(layout.size - 1)
  }

  @inlinable @inline(__always) public var size: Int { Int(mask) &+ 1 }

  // SAFETY: of every access below: the creator gave `layout.count` bytes, and ids and indexes are
  // masked to the ring's size.

  /// Writes a whole descriptor: two 64-bit stores.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always)
  public func setDescriptor(_ id: UInt32, address: UInt64, length: UInt32, flags: UInt16 = 0, next: UInt16 = 0) {
    let at = unsafe descriptors + Int(id & mask) &* 16
    unsafe rw_write64(at, address)
    unsafe rw_write64(at + 8, UInt64(length) | UInt64(flags) << 32 | UInt64(next) << 48)
  }

  /// Changes only where a descriptor points: length and flags stay.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always)
  public func setAddress(_ id: UInt32, _ address: UInt64) {
    unsafe rw_write64(descriptors + Int(id & mask) &* 16, address)
  }

  /// Puts a chain's first descriptor on the available ring; `publish` makes it visible.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always)
  public func setAvailable(_ index: UInt16, id: UInt32) {
    unsafe rw_write16(available + 4 + Int(UInt32(index) & mask) &* 2, UInt16(truncatingIfNeeded: id))
  }

  /// A used element, read once: the id in the low half, the length in the high half.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always)
  public func usedElement(_ index: UInt16) -> UInt64 {
    unsafe rw_read64(used + 4 + Int(UInt32(index) & mask) &* 8)
  }

  // The same for loops over neighbouring entries: `slot` is an index into the ring, 0 ..< size, and
  // not masked again. The caller answers for it.

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always)
  public func setAddress(slot: Int, _ address: UInt64) {
    unsafe rw_write64(descriptors + slot &* 16, address)
  }

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always)
  public func setDescriptor(slot: Int, address: UInt64, length: UInt32) {
    let at = unsafe descriptors + slot &* 16
    unsafe rw_write64(at, address)
    unsafe rw_write64(at + 8, UInt64(length))
  }

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always)
  public func usedElement(slot: Int) -> UInt64 { unsafe rw_read64(used + 4 + slot &* 8) }

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always)
  public func setAvailable(slot: Int, id: UInt32) {
    unsafe rw_write16(available + 4 + slot &* 2, UInt16(truncatingIfNeeded: id))
  }

  @inlinable @inline(__always) func loadUsedIndex() -> UInt16 { unsafe rw_load_acquire16(used + 2) }
  /// Makes the available ring up to `index` visible, after all that was written before.
  @inlinable @inline(__always) func storeAvailableIndex(_ index: UInt16) {
    unsafe rw_store_release16(available + 2, index)
  }
  @inlinable @inline(__always) func storeAvailableFlags(_ flags: UInt16) { unsafe rw_write16(available, flags) }
  @inlinable @inline(__always) func loadUsedFlags() -> UInt16 { unsafe rw_read16(used) }
  @inlinable @inline(__always) func storeUsedEvent(_ index: UInt16) {
    unsafe rw_write16(available + 4 + size &* 2, index)
  }
  @inlinable @inline(__always) func loadAvailableEvent() -> UInt16 { unsafe rw_read16(used + 4 + size &* 8) }

  /// The state that a reset device expects: everything zero.
  public func clear(_ layout: SplitLayout) {
    unsafe descriptors.initializeMemory(as: UInt8.self, repeating: 0, count: layout.count)
  }
}
