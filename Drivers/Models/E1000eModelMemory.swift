// The IOMMU of a device model: bus addresses to memory of this process, and nothing else.

import CRingway
internal import DMAMemory

/// Memory that a device model may reach. Bus addresses are never pointers: an access outside the
/// mapped windows changes nothing and is counted, as an IOMMU reports a fault.
@safe public final class E1000eModelMemory {
  @safe private struct Window {
    let iova: UInt64
    let count: Int
    let base: UnsafeMutableRawPointer
  }

  private var windows: [Window] = []
  /// Accesses that hit no window, or came while bus mastering was off.
  public internal(set) var faults = 0
  /// The bus address of the last fault.
  public internal(set) var lastFault: UInt64 = 0
  var busMaster = false

  /// Windows mapped now.
  public var windowCount: Int { windows.count }

  func map(_ source: DMASource, at iova: IOVA) throws(DMAError) {
    let first = iova.rawValue
    let (end, overflow) = first.addingReportingOverflow(UInt64(source.count))
    let overlaps = windows.contains { $0.iova < end && first < $0.iova + UInt64($0.count) }
    guard !overflow, source.count > 0, first & 0xfff == 0, source.count & 0xfff == 0, !overlaps else {
      throw .map(errno: EEXIST, count: source.count, iova: iova)
    }
    unsafe windows.append(Window(iova: first, count: source.count, base: source.base))
  }

  func unmap(_ iova: IOVA, count: Int) throws(DMAError) {
    guard let i = windows.firstIndex(where: { $0.iova == iova.rawValue && $0.count == count }) else {
      throw .unmap(errno: ENOENT, count: count, iova: iova)
    }
    windows.remove(at: i)
  }

  func unmapAll() { windows = [] }

  /// Where `count` bytes at a bus address are in this process, for device sides that must be fast;
  /// nil outside the windows.
  public func pointer(_ iova: UInt64, _ count: Int) -> UnsafeMutableRawPointer? { unsafe find(iova, count) }

  private func find(_ iova: UInt64, _ count: Int) -> UnsafeMutableRawPointer? {
    for window in windows where iova >= window.iova && iova - window.iova <= UInt64(window.count) {
      let offset = Int(iova - window.iova)
      if busMaster, count <= window.count - offset { return unsafe window.base + offset }
    }
    faults += 1
    lastFault = iova
    return nil
  }

  /// Reads `count` bytes; nil on a fault.
  func read(_ iova: UInt64, _ count: Int) -> [UInt8]? {
    guard let at = unsafe find(iova, count) else { return nil }
    // SAFETY: `count` bytes at `at` lie inside a mapped window, whose owner keeps it until unmap.
    return unsafe [UInt8](UnsafeRawBufferPointer(start: at, count: count))
  }

  @discardableResult func write(_ bytes: some Collection<UInt8>, at iova: UInt64) -> Bool {
    guard let at = unsafe find(iova, bytes.count) else { return false }
    unsafe UnsafeMutableRawBufferPointer(start: at, count: bytes.count).copyBytes(from: bytes)
    return true
  }

  func read64(_ iova: UInt64) -> UInt64? {
    guard let at = unsafe find(iova, 8) else { return nil }
    return unsafe rw_read64(at)
  }

  @discardableResult func write64(_ value: UInt64, at iova: UInt64) -> Bool {
    guard let at = unsafe find(iova, 8) else { return false }
    unsafe rw_write64(at, value)
    return true
  }
}
