// Who holds which buffer, for code that must ask once a slot.

public import CRingway

/// The private book of buffer owners, readable and changeable from the packet path.
///
/// A program names buffers by index. The daemon believes an index only when the book says that the
/// program, or whatever it acts for, holds that buffer. Entries change by compare and swap, so two
/// workers that are shown the same index cannot both get it.
@frozen @safe public struct BufferLedger: BitwiseCopyable, @unchecked Sendable {
  @usableFromInline let owners: UnsafeMutablePointer<UInt32>
  /// Buffers; indices are below this.
  public let count: UInt32

  /// - Parameter owners: `count` entries that live as long as the allocator, which outlives the view.
  init(unsafe owners: UnsafeMutablePointer<UInt32>, count: UInt32) {
    unsafe self.owners = owners
    self.count = count
  }

  /// Who holds a buffer; `.reserved` for one that does not exist.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func owner(of index: UInt32) -> BufferOwner {
    // SAFETY: index < count.
    index < count ? unsafe BufferOwner(rawValue: rw_load_acquire32(owners + Int(index))) : .reserved
  }

  /// Whether `owner` holds the buffer. False for reserved ones and those that do not exist.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func isHeld(_ index: UInt32, by owner: BufferOwner) -> Bool {
    self.owner(of: index) == owner && owner.rawValue > BufferOwner.reserved.rawValue
  }

  /// Hands a buffer on that the caller holds, and of which nobody else knows. Nothing happens for one that does not exist.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func give(_ index: UInt32, to: BufferOwner) {
    // SAFETY: index < count.
    if index < count { unsafe rw_store_release32(owners + Int(index), to.rawValue) }
  }

  /// Hands a buffer from one owner to another.
  /// - Returns: false, and nothing changes, when `from` does not hold it.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always)
  public func transfer(_ index: UInt32, from: BufferOwner, to: BufferOwner) -> Bool {
    guard index < count, from.rawValue > BufferOwner.reserved.rawValue, to.rawValue > BufferOwner.reserved.rawValue
    else { return false }
    // SAFETY: index < count.
    return unsafe rw_compare_and_swap32(owners + Int(index), from.rawValue, to.rawValue) != 0
  }
}
