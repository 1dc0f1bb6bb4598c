// The IOMMU in front of a model: bus addresses to memory of this process, and nothing else.

internal import CRingway

/// Memory that a model may reach. An access outside the mapped windows, or while bus mastering is
/// off, changes nothing and is counted, as an IOMMU reports a fault.
@safe public final class ModelMemory {
  @safe private struct Window {
    let start: UInt64
    let count: Int
    /// nil: known to the client, but not reachable (a map without a descriptor).
    let base: UnsafeMutableRawPointer?
    let isWritable: Bool
    let owner: AnyObject?
  }

  /// Sorted by start, never overlapping.
  private var windows: [Window] = []
  /// The window that answered last: accesses come in runs.
  private var last = 0
  /// The command register's bus master bit.
  public var isBusMaster = false
  /// Accesses that hit no window, or came while bus mastering was off.
  public private(set) var faults = 0
  /// The bus address of the last fault.
  public private(set) var lastFault: UInt64 = 0

  public init() {}

  public var windowCount: Int { windows.count }
  public var bytes: Int { windows.reduce(0) { $0 + $1.count } }

  /// The first window that ends after `address`.
  private func index(endingAfter address: UInt64) -> Int {
    var low = 0, high = windows.count
    while low < high {
      let middle = (low + high) / 2
      if windows[middle].start + UInt64(windows[middle].count - 1) < address { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// Makes `count` bytes reachable at a bus address.
  /// - Parameters:
  ///   - base: the memory; nil keeps the range occupied, and accesses to it fault.
  ///   - owner: whatever keeps the memory mapped in this process; held until unmapped.
  /// - Returns: false when the range is empty, overflows or overlaps a window.
  public func map(
    _ start: UInt64, count: Int, unsafe base: UnsafeMutableRawPointer?, isWritable: Bool = true, owner: AnyObject? = nil
  ) -> Bool {
    guard count > 0, !start.addingReportingOverflow(UInt64(count - 1)).overflow else { return false }
    let place = index(endingAfter: start)
    if place < windows.count, windows[place].start <= start + UInt64(count - 1) { return false }
    unsafe windows.insert(
      Window(start: start, count: count, base: base, isWritable: isWritable, owner: owner), at: place)
    last = place
    return true
  }

  /// Takes away every window that lies inside the range. Windows that reach out of it stay.
  /// - Returns: bytes taken away.
  @discardableResult public func unmap(_ start: UInt64, count: UInt64) -> UInt64 {
    guard count > 0 else { return 0 }
    let (sum, overflow) = start.addingReportingOverflow(count - 1)
    let end = overflow ? UInt64.max : sum
    var gone: UInt64 = 0
    windows.removeAll { window in
      guard window.start >= start, window.start + UInt64(window.count - 1) <= end else { return false }
      gone += UInt64(window.count)
      return true
    }
    last = 0
    return gone
  }

  public func unmapAll() {
    windows = []
    last = 0
  }

  private func fault(_ address: UInt64) {
    faults += 1
    lastFault = address
  }

  private func window(_ address: UInt64, _ count: Int, writing: Bool) -> UnsafeMutableRawPointer? {
    guard isBusMaster, count >= 0 else { return nil }
    var place = last
    if place >= windows.count || address < windows[place].start
      || address - windows[place].start >= UInt64(windows[place].count)
    {
      place = index(endingAfter: address)
    }
    guard place < windows.count else { return nil }
    let found = windows[place]
    guard address >= found.start, let base = unsafe found.base, found.isWritable || !writing else { return nil }
    let offset = address - found.start
    guard offset < UInt64(found.count), UInt64(count) <= UInt64(found.count) - offset else { return nil }
    last = place
    return unsafe base + Int(offset)
  }

  /// Where `count` bytes at a bus address are in this process, when they lie in one window; nil is a
  /// DMA error, and counted.
  public func pointer(_ address: UInt64, _ count: Int, writing: Bool) -> UnsafeMutableRawPointer? {
    if let found = unsafe window(address, count, writing: writing) { return unsafe found }
    fault(address)
    return nil
  }

  /// As `pointer`, but nil is no error: the range may be mapped in several windows (`read`, `write`).
  public func contiguous(_ address: UInt64, _ count: Int, writing: Bool) -> UnsafeMutableRawPointer? {
    unsafe window(address, count, writing: writing)
  }

  /// Copies between memory and `body`'s pieces, over as many windows as the range spans.
  private func pieces(
    _ address: UInt64, _ count: Int, writing: Bool, _ body: (UnsafeMutableRawPointer, _ at: Int, _ count: Int) -> Void
  ) -> Bool {
    var done = 0
    while done < count {
      let (at, overflow) = address.addingReportingOverflow(UInt64(done))
      let place = index(endingAfter: at)
      guard !overflow, place < windows.count, at >= windows[place].start else {
        fault(at)
        return false
      }
      let room = UInt64(windows[place].count) - (at - windows[place].start)
      let size = Int(min(UInt64(count - done), room))
      guard let memory = unsafe window(at, size, writing: writing) else {
        fault(at)
        return false
      }
      unsafe body(memory, done, size)
      done += size
    }
    return true
  }

  /// Reads `target.count` bytes; false on a DMA error.
  public func read(_ address: UInt64, into target: UnsafeMutableRawBufferPointer) -> Bool {
    unsafe pieces(address, target.count, writing: false) { memory, at, count in
      unsafe target.baseAddress!.advanced(by: at).copyMemory(from: memory, byteCount: count)
    }
  }

  /// Writes all of `source`; false on a DMA error, when a part may have been written.
  @discardableResult public func write(_ source: UnsafeRawBufferPointer, at address: UInt64) -> Bool {
    unsafe pieces(address, source.count, writing: true) { memory, at, count in
      unsafe memory.copyMemory(from: source.baseAddress!.advanced(by: at), byteCount: count)
    }
  }

  /// Reads `count` bytes; nil on a DMA error.
  public func read(_ address: UInt64, count: Int) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    let isRead = unsafe bytes.withUnsafeMutableBytes { unsafe read(address, into: $0) }
    return isRead ? bytes : nil
  }

  @discardableResult public func write(_ bytes: [UInt8], at address: UInt64) -> Bool {
    unsafe bytes.withUnsafeBytes { unsafe write($0, at: address) }
  }

  // Fields of rings, which both sides access at once: single loads and stores. SAFETY: `pointer`
  // gives memory of the width asked for.
  public func read16(_ address: UInt64) -> UInt16? { unsafe pointer(address, 2, writing: false).map { unsafe rw_load_acquire16($0) } }
  public func read32(_ address: UInt64) -> UInt32? { unsafe pointer(address, 4, writing: false).map { unsafe rw_load_acquire32($0) } }
  public func read64(_ address: UInt64) -> UInt64? { unsafe pointer(address, 8, writing: false).map { unsafe rw_load_acquire64($0) } }
  @discardableResult public func write16(_ value: UInt16, at address: UInt64) -> Bool {
    guard let at = unsafe pointer(address, 2, writing: true) else { return false }
    unsafe rw_store_release16(at, value)
    return true
  }
  @discardableResult public func write32(_ value: UInt32, at address: UInt64) -> Bool {
    guard let at = unsafe pointer(address, 4, writing: true) else { return false }
    unsafe rw_store_release32(at, value)
    return true
  }
  @discardableResult public func write64(_ value: UInt64, at address: UInt64) -> Bool {
    guard let at = unsafe pointer(address, 8, writing: true) else { return false }
    unsafe rw_store_release64(at, value)
    return true
  }
}
