// The model's IOMMU: bus addresses to memory of this process, each range checked.

import CRingway
import DMAMemory

/// Mapped ranges. An access outside them fails, as behind a real IOMMU.
@safe final class VirtioModelMemory {
  @safe private struct Range {
    let start: UInt64
    let count: Int
    let base: UnsafeMutableRawPointer
  }
  private var ranges: [Range] = []

  var bytes: Int { ranges.reduce(0) { $0 + $1.count } }

  func map(_ source: DMASource, at iova: IOVA) throws(DMAError) {
    let end = iova.rawValue + UInt64(source.count)
    for range in ranges where iova.rawValue < range.start + UInt64(range.count) && range.start < end {
      throw .map(errno: 17, count: source.count, iova: iova)
    }
    unsafe ranges.append(Range(start: iova.rawValue, count: source.count, base: source.base))
  }

  func unmap(_ iova: IOVA, count: Int) throws(DMAError) {
    guard let i = ranges.firstIndex(where: { $0.start == iova.rawValue && $0.count == count }) else {
      throw .unmap(errno: 2, count: count, iova: iova)
    }
    ranges.remove(at: i)
  }

  /// Memory behind `count` bytes at a bus address; nil when not all of them are mapped.
  func pointer(_ address: UInt64, _ count: Int) -> UnsafeMutableRawPointer? {
    for range in ranges where address >= range.start {
      let offset = address - range.start
      if offset <= UInt64(range.count), UInt64(count) <= UInt64(range.count) - offset {
        return unsafe range.base + Int(offset)
      }
    }
    return nil
  }

  func read16(_ address: UInt64) -> UInt16? { unsafe pointer(address, 2).map { unsafe rw_load_acquire16($0) } }
  func read32(_ address: UInt64) -> UInt32? { unsafe pointer(address, 4).map { unsafe rw_read32($0) } }
  func read64(_ address: UInt64) -> UInt64? { unsafe pointer(address, 8).map { unsafe rw_read64($0) } }
  @discardableResult func write16(_ address: UInt64, _ value: UInt16) -> Bool {
    guard let at = unsafe pointer(address, 2) else { return false }
    unsafe rw_store_release16(at, value)
    return true
  }
  @discardableResult func write32(_ address: UInt64, _ value: UInt32) -> Bool {
    guard let at = unsafe pointer(address, 4) else { return false }
    unsafe rw_write32(at, value)
    return true
  }
}
