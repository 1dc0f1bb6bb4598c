// A model's registers as memory.

internal import CRingway
public import Platform
internal import SystemPackage

/// The memory behind a BAR: a memory file, so that pages of it can be given to another process.
@safe public final class BARMemory {
  public let base: UnsafeMutableRawPointer
  /// Bytes; a power of two, at least 4096.
  public let count: Int
  private let file: OwnedDescriptor

  /// - Throws: when there is no memory or no descriptor left.
  public init(count: Int, name: String = "ringway-bar") throws(SystemError) {
    precondition(count >= 4096 && count & (count - 1) == 0, "a BAR is a power of two of at least a page")
    let made = unsafe rw_memfd_create(name, RW_MFD_CLOEXEC | RW_MFD_ALLOW_SEALING)
    guard made >= 0 else { throw SystemError("memfd_create", name, Errno(rawValue: rw_errno())) }
    file = OwnedDescriptor(taking: made)
    guard ftruncate(made, off_t(count)) == 0 else { throw SystemError("ftruncate", name, Errno(rawValue: rw_errno())) }
    // Whoever is given the descriptor must not cut the file short under this process.
    _ = rw_fcntl(made, RW_F_ADD_SEALS, RW_F_SEAL_SIZE)
    let mapped = unsafe mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, made, 0)
    guard let mapped = unsafe mapped, UInt(bitPattern: mapped) != .max else {
      throw SystemError("mmap", name, Errno(rawValue: rw_errno()))
    }
    unsafe base = mapped
    self.count = count
  }

  // SAFETY: this object's own mapping.
  deinit { _ = unsafe munmap(base, count) }

  /// The memory file; offsets in it are offsets in the BAR.
  public var descriptor: Int32 { file.raw }

  private func holds(_ offset: Int, _ width: Int) -> Bool { offset >= 0 && offset <= count - width }

  /// 32 bits, without side effects; 0 outside, and writes outside go nowhere.
  public subscript(_ offset: Int) -> UInt32 {
    // SAFETY: checked against the memory's size.
    get { holds(offset, 4) ? unsafe rw_load_acquire32(base + (offset & ~3)) : 0 }
    set { if holds(offset, 4) { unsafe rw_store_release32(base + (offset & ~3), newValue) } }
  }

  /// 1, 2 or 4 bytes, without side effects.
  public func read(_ offset: Int, _ width: Int) -> UInt32 {
    guard holds(offset, width) else { return .max }
    return switch width {
    case 1: UInt32(unsafe rw_read8(base + offset))
    case 2: UInt32(unsafe rw_read16(base + offset))
    default: unsafe rw_read32(base + offset)
    }
  }
  public func write(_ value: UInt32, _ offset: Int, _ width: Int) {
    guard holds(offset, width) else { return }
    switch width {
    case 1: unsafe rw_write8(base + offset, UInt8(truncatingIfNeeded: value))
    case 2: unsafe rw_write16(base + offset, UInt16(truncatingIfNeeded: value))
    default: unsafe rw_write32(base + offset, value)
    }
  }

  /// Zeros in all of it.
  public func clear() { unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: count) }
}
