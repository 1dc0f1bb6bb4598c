// Memory of a file that the daemon shares.

internal import CRingway

/// A shared mapping, unmapped with its owner.
@safe struct SharedMapping: ~Copyable, @unchecked Sendable {
  let base: UnsafeMutableRawPointer
  let count: Int

  /// - Parameters:
  ///   - count: bytes from `offset`; the file must have them (EIO), or an access would be a SIGBUS.
  ///   - staysWithProcess: a forked child does not have it (MADV_DONTFORK).
  init(_ descriptor: Int32, count: Int, offset: Int = 0, staysWithProcess: Bool, _ what: String) throws(NetmapClientError) {
    let size = rw_file_size(descriptor)
    let (end, overflow) = count.addingReportingOverflow(offset)
    guard count > 0, offset >= 0, !overflow, size >= end else {
      throw NetmapClientError(EIO, "\(what) has \(size) bytes where the daemon says \(end). Use daemon and library of the same version.")
    }
    // SAFETY: a fresh mapping at an address that the kernel chooses.
    guard let base = unsafe rw_raw_mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, Int64(offset)) else {
      throw .last("\(what) cannot be mapped")
    }
    if staysWithProcess { _ = unsafe madvise(base, count, MADV_DONTFORK) }
    unsafe self.base = base
    self.count = count
  }

  // SAFETY: the mapping is this value's own.
  deinit { _ = unsafe munmap(base, count) }
}
