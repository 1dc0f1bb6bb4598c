// The packet path's only register access.

public import CRingway

/// One register that the packet path writes: a tail register, a virtio notify address.
///
/// It is a plain store wherever the register is mapped. Where it is not (a vfio-user server that
/// wants to see each access, a device model in this process) the same call goes to whoever reaches
/// the register: one predicted branch a batch, so that drivers have one path.
///
/// Everything stored to memory before `ring` is visible to the device when the register changes.
@frozen @safe public struct Doorbell: BitwiseCopyable, @unchecked Sendable {
  /// The register, or the `rw_trap` that reaches it.
  @usableFromInline let address: UnsafeMutableRawPointer
  @usableFromInline let isTrapped: Bool

  /// - Parameter address: mapped, 4-byte aligned, for as long as the doorbell is used.
  @inlinable @inline(__always) public init(unsafe address: UnsafeMutableRawPointer) {
    unsafe self.address = address
    isTrapped = false
  }

  /// - Parameter trap: stays allocated for as long as the doorbell is used.
  @inlinable public init(unsafe trap: UnsafeMutablePointer<rw_trap>) {
    unsafe address = UnsafeMutableRawPointer(trap)
    isTrapped = true
  }

  // SAFETY: the creator promised that `address` stays mapped; a BAR that faults is remapped by
  // its owner, never left without a mapping. `isTrapped` says which of the two it is.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func ring(_ value: UInt32) {
    if _fastPath(!isTrapped) {
      unsafe rw_doorbell32(address, value)
    } else {
      unsafe rw_trap_write(address.assumingMemoryBound(to: rw_trap.self), 4, value)
    }
  }

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always) public func ring16(_ value: UInt16) {
    if _fastPath(!isTrapped) {
      unsafe rw_doorbell16(address, value)
    } else {
      unsafe rw_trap_write(address.assumingMemoryBound(to: rw_trap.self), 2, UInt32(value))
    }
  }
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
