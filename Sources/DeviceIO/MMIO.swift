// A register space in memory: a mapped BAR, or the memory of a device model.

import CRingway

/// Registers that are memory of this process.
///
/// Does not own the memory: whoever mapped it keeps the mapping for as long as this object lives
/// (`owner` is held for that).
@safe public final class MMIOSpace: RegisterSpace {
  @usableFromInline let base: UnsafeMutableRawPointer
  public let count: Int
  /// Keeps the mapping alive.
  private let owner: AnyObject?

  /// - Parameters:
  ///   - base: first byte; aligned to 4096 for a BAR.
  ///   - count: bytes.
  ///   - owner: whatever keeps the memory mapped.
  public init(unsafe base: UnsafeMutableRawPointer, count: Int, owner: AnyObject?) {
    unsafe self.base = base
    self.count = count
    self.owner = owner
  }

  /// True when `width` bytes at `offset` lie inside and are aligned.
  private func holds(_ offset: Int, _ width: Int) -> Bool {
    offset >= 0 && offset <= count - width && offset & (width - 1) == 0
  }

  // SAFETY: each access below is inside [base, base + count), checked by `holds`.
  public func read8(at offset: Int) -> UInt8 { holds(offset, 1) ? unsafe rw_read8(base + offset) : .max }
  public func read16(at offset: Int) -> UInt16 { holds(offset, 2) ? unsafe rw_read16(base + offset) : .max }
  public func read32(at offset: Int) -> UInt32 { holds(offset, 4) ? unsafe rw_read32(base + offset) : .max }
  public func write8(_ value: UInt8, at offset: Int) { if holds(offset, 1) { unsafe rw_write8(base + offset, value) } }
  public func write16(_ value: UInt16, at offset: Int) { if holds(offset, 2) { unsafe rw_write16(base + offset, value) } }
  public func write32(_ value: UInt32, at offset: Int) { if holds(offset, 4) { unsafe rw_write32(base + offset, value) } }

  public func doorbell(at offset: Int) -> Doorbell? {
    holds(offset, 4) ? unsafe Doorbell(unsafe: base + offset) : nil
  }
}

/// A window into another space: a virtio structure inside a BAR.
public final class SubSpace: RegisterSpace {
  private let parent: any RegisterSpace
  private let start: Int
  public let count: Int

  /// nil when [offset, offset + count) does not lie inside `parent`.
  public init?(_ parent: any RegisterSpace, offset: Int, count: Int) {
    guard offset >= 0, count >= 0, offset <= parent.count, count <= parent.count - offset else { return nil }
    self.parent = parent
    start = offset
    self.count = count
  }

  private func holds(_ offset: Int, _ width: Int) -> Bool { offset >= 0 && offset <= count - width }

  public func read8(at offset: Int) -> UInt8 { holds(offset, 1) ? parent.read8(at: start + offset) : .max }
  public func read16(at offset: Int) -> UInt16 { holds(offset, 2) ? parent.read16(at: start + offset) : .max }
  public func read32(at offset: Int) -> UInt32 { holds(offset, 4) ? parent.read32(at: start + offset) : .max }
  public func write8(_ value: UInt8, at offset: Int) { if holds(offset, 1) { parent.write8(value, at: start + offset) } }
  public func write16(_ value: UInt16, at offset: Int) { if holds(offset, 2) { parent.write16(value, at: start + offset) } }
  public func write32(_ value: UInt32, at offset: Int) { if holds(offset, 4) { parent.write32(value, at: start + offset) } }
  public func doorbell(at offset: Int) -> Doorbell? { holds(offset, 4) ? parent.doorbell(at: start + offset) : nil }
}
