// The packet path's only register access.

public import CRingway

/// One register that is written by a plain store: a tail register, a virtio notify address.
///
/// Everything stored to memory before `ring` is visible to the device when the register changes.
@frozen @safe public struct Doorbell: BitwiseCopyable, @unchecked Sendable {
  @usableFromInline let address: UnsafeMutableRawPointer

  /// - Parameter address: mapped, 4-byte aligned, for as long as the doorbell is used.
  @inlinable @inline(__always) public init(unsafe address: UnsafeMutableRawPointer) { unsafe self.address = address }

  // SAFETY: the creator promised that `address` stays mapped; a BAR that faults is remapped by
  // its owner, never left without a mapping.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func ring(_ value: UInt32) { unsafe rw_doorbell32(address, value) }

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func ring16(_ value: UInt16) { unsafe rw_doorbell16(address, value) }
}

/// Descriptor memory that a device also writes: volatile, little endian, bounds are the owner's.
@frozen @unsafe public struct DescriptorWindow: BitwiseCopyable {
  public let base: UnsafeMutableRawPointer
  @inlinable @inline(__always) public init(unsafe base: UnsafeMutableRawPointer) { unsafe self.base = base }
  @inlinable @inline(__always) public func read16(_ offset: Int) -> UInt16 { unsafe rw_read16(base + offset) }
  @inlinable @inline(__always) public func read32(_ offset: Int) -> UInt32 { unsafe rw_read32(base + offset) }
  @inlinable @inline(__always) public func read64(_ offset: Int) -> UInt64 { unsafe rw_read64(base + offset) }
  @inlinable @inline(__always) public func write16(_ offset: Int, _ value: UInt16) { unsafe rw_write16(base + offset, value) }
  @inlinable @inline(__always) public func write32(_ offset: Int, _ value: UInt32) { unsafe rw_write32(base + offset, value) }
  @inlinable @inline(__always) public func write64(_ offset: Int, _ value: UInt64) { unsafe rw_write64(base + offset, value) }
}
