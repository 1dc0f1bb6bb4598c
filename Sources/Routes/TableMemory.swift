// Memory of tables: zeroed, untouched until it is used, on large pages where it is large.

internal import Glibc

/// A piece of private memory, all zeros at first.
@safe struct TableMemory: ~Copyable {
  static var largePage: Int { 2 << 20 }
  let base: UnsafeMutableRawPointer
  let count: Int
  private let mapped: UnsafeMutableRawPointer
  /// 0: not a mapping of its own.
  private let mappedCount: Int

  /// nil: the kernel gives none.
  init?(_ bytes: Int) {
    count = max(bytes, 64)
    // Room to start at a large page, so that the kernel can use them: random lookups miss the TLB otherwise.
    let slack = count >= Self.largePage ? Self.largePage : 0
    mappedCount = (count + slack + 4095) & ~4095
    guard let memory = unsafe mmap(nil, mappedCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
      unsafe memory != MAP_FAILED
    else { return nil }
    unsafe mapped = memory
    // SAFETY: within the mapping; an advice that the kernel does not take changes nothing.
    if slack > 0 {
      unsafe base = memory.alignedUp(toMultipleOf: Self.largePage)
      _ = unsafe madvise(base, count, MADV_HUGEPAGE)
    } else {
      unsafe base = memory
    }
  }

  /// For what a process cannot do without: from Swift's own allocator when the kernel gives no mapping.
  init(necessary bytes: Int) {
    if let mapping = TableMemory(bytes) {
      self = mapping
      return
    }
    count = max(bytes, 64)
    mappedCount = 0
    unsafe mapped = .allocate(byteCount: count, alignment: 64)
    unsafe base = mapped
    unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: count)
  }

  // SAFETY: this object's own memory, given back the way it came.
  deinit {
    if mappedCount > 0 { _ = unsafe munmap(mapped, mappedCount) } else { unsafe mapped.deallocate() }
  }
}
