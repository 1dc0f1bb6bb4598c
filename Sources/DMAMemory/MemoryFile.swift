// A piece of memory with a descriptor: made, put on its node, touched, sealed.
//
//   create (memfd | libhugetlbfs | normal) ─> size ─> map ─> bind to node ─> prefault ─> seal
//
// The order matters. Mapping a hugepage file promises its pages, so that too few is an error
// here and never a SIGBUS later. The binding comes before the first touch, because a page stays
// where it was made. Every page is touched now, so that the packet path never faults.

internal import CHugetlbfs
internal import CRingway
internal import Glibc

/// Shareable memory: an open file without a name, mapped whole. Both end with the value, or with
/// the process, however it dies.
@safe public struct MemoryFile: ~Copyable {
  /// First byte; aligned to `pageSize`.
  public let base: UnsafeMutableRawPointer
  /// Bytes; a multiple of `pageSize`.
  public let count: Int
  public let backing: MemoryBacking
  /// The NUMA node the pages were asked from, or nil.
  public let node: Int?
  /// Open for as long as this value lives.
  public let descriptor: Int32
  /// Bytes from the start of the file to `base`: not 0 for a program's file alone.
  public let fileOffset: Int
  /// Whether nobody can cut the file short any more: true for memfds, never for hugetlbfs files.
  public let isSealed: Bool

  /// Bytes a page.
  public var pageSize: Int { backing.pageSize }

  /// Makes memory of at least `bytes` bytes, all zero, every page present.
  /// - Parameters:
  ///   - name: shown in /proc/PID/maps for memfds (memfd_create(2)); at most 200 bytes are used.
  ///   - bytes: rounded up to whole pages.
  ///   - node: take the pages from this NUMA node alone.
  public init(name: String, bytes: Int, backing: MemoryBacking, node: Int? = nil) throws(MemoryError) {
    let pageSize = backing.pageSize
    guard pageSize > 0, pageSize & (pageSize - 1) == 0 else { throw .badSize(bytes: pageSize) }
    guard bytes > 0, bytes <= (1 << 46) - pageSize else { throw .badSize(bytes: bytes) }
    if let node, !HugepagePool.nodes().contains(node) { throw .noSuchNode(node: node) }
    let count = (bytes + pageSize - 1) & ~(pageSize - 1)
    if backing.isHuge { try checkAvailable(count: count, pageSize: pageSize, node: node) }

    let descriptor = try openFile(name: name, backing: backing, count: count)
    do throws(MemoryError) {
      try unsafe self.init(unsafeSizing: descriptor, count: count, backing: backing, node: node)
    } catch {
      close(descriptor)
      throw error
    }
  }

  /// Sizes, maps, binds, touches and seals. The caller closes the descriptor when this throws.
  @unsafe private init(unsafeSizing descriptor: Int32, count: Int, backing: MemoryBacking, node: Int?) throws(MemoryError) {
    guard ftruncate(descriptor, count) == 0 else {
      throw .system(operation: "setting the size", errno: rw_errno(), bytes: count)
    }
    // SAFETY: a new mapping at an address of the kernel's choice; failure is MAP_FAILED (-1).
    let mapped = unsafe mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
    guard let base = unsafe mapped, UInt(bitPattern: base) != .max else {
      throw .shortage(errno: rw_errno(), operation: "mapping", count: count, backing: backing, node: node)
    }
    do throws(MemoryError) {
      if let node { try unsafe bind(base, count: count, to: node) }
      try unsafe prefault(base, count: count, backing: backing, node: node)
    } catch {
      _ = unsafe munmap(base, count)
      throw error
    }
    // Children of this process must not inherit the memory: two processes would feed one card.
    _ = unsafe madvise(base, count, MADV_DONTFORK)
    unsafe self.init(
      unsafeMapped: base, count: count, backing: backing, node: node, descriptor: descriptor, fileOffset: 0,
      isSealed: seal(descriptor))
  }

  /// Takes over a mapping and its descriptor.
  @unsafe init(
    unsafeMapped base: UnsafeMutableRawPointer, count: Int, backing: MemoryBacking, node: Int?, descriptor: Int32,
    fileOffset: Int, isSealed: Bool
  ) {
    unsafe self.base = base
    self.count = count
    self.backing = backing
    self.node = node
    self.descriptor = descriptor
    self.fileOffset = fileOffset
    self.isSealed = isSealed
  }

  /// The whole file, for a mapper.
  public var source: DMASource {
    unsafe DMASource(unsafe: base, count: count, descriptor: descriptor, fileOffset: fileOffset)
  }

  /// Maps the file anew at the same address, and makes every page present: whatever took the place of pages goes.
  /// What cannot be had is an error; the file then is mapped as it is.
  func restore() throws(MemoryError) {
    // SAFETY: replaces this value's own mapping in one step.
    let mapped = unsafe mmap(base, count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, off_t(fileOffset))
    guard UInt(bitPattern: mapped) != .max else {
      throw .shortage(errno: rw_errno(), operation: "mapping", count: count, backing: backing, node: node)
    }
    _ = unsafe madvise(base, count, MADV_DONTFORK)
    if let node { try unsafe bind(base, count: count, to: node) }
    try unsafe prefault(base, count: count, backing: backing, node: node)
  }

  // SAFETY: the mapping was made in `init` with this size and nobody else unmaps it.
  deinit {
    _ = unsafe munmap(base, count)
    close(descriptor)
  }
}

/// Has run once when it is mentioned: static programs start without the library's own set-up.
private let hugetlbfsSetup: Void = rw_hugetlbfs_setup()

/// Opens a nameless file of the wanted kind.
private func openFile(name: String, backing: MemoryBacking, count: Int) throws(MemoryError) -> Int32 {
  let label = String(decoding: name.utf8.filter { $0 != 0 }.prefix(200), as: UTF8.self)
  let descriptor: Int32
  switch backing {
  case .memfd(let pageSize):
    let order = UInt32(pageSize.trailingZeroBitCount) << RW_MFD_HUGE_SHIFT
    let flags = RW_MFD_CLOEXEC | RW_MFD_HUGETLB | RW_MFD_ALLOW_SEALING | order
    descriptor = unsafe rw_memfd_create(label, flags)
    // Kernels before 4.16 do not seal hugepages (memfd_create(2)).
    if descriptor < 0 && rw_errno() == EINVAL { return try openUnsealed(label, flags: flags & ~RW_MFD_ALLOW_SEALING, count: count) }
  case .hugetlbfs(let pageSize):
    hugetlbfsSetup
    guard unsafe hugetlbfs_find_path_for_size(pageSize) != nil else { throw .noMount(pageSize: pageSize) }
    descriptor = hugetlbfs_unlinked_fd_for_size(pageSize)
    if descriptor < 0 { throw .noMount(pageSize: pageSize) }
    _ = rw_fcntl(descriptor, F_SETFD, FD_CLOEXEC)
  case .normalPages:
    descriptor = unsafe rw_memfd_create(label, RW_MFD_CLOEXEC | RW_MFD_ALLOW_SEALING)
  }
  guard descriptor >= 0 else { throw .system(operation: "memfd_create", errno: rw_errno(), bytes: count) }
  return descriptor
}

private func openUnsealed(_ label: String, flags: UInt32, count: Int) throws(MemoryError) -> Int32 {
  let descriptor = unsafe rw_memfd_create(label, flags)
  guard descriptor >= 0 else { throw .system(operation: "memfd_create", errno: rw_errno(), bytes: count) }
  return descriptor
}

/// Says early, and with the right numbers, that the pool cannot serve.
private func checkAvailable(count: Int, pageSize: Int, node: Int?) throws(MemoryError) {
  guard let pool = HugepagePool.read(pageSize: pageSize, node: node) else {
    throw .noSuchPageSize(pageSize: pageSize, available: HugepagePool.pageSizes())
  }
  let wanted = count / pageSize
  guard pool.available >= wanted else {
    throw .tooFewHugepages(wanted: wanted, available: pool.available, pageSize: pageSize, node: node, total: pool.total)
  }
}

/// Restricts the mapping's pages to one node (mbind(2), MPOL_BIND).
@unsafe private func bind(_ base: UnsafeMutableRawPointer, count: Int, to node: Int) throws(MemoryError) {
  let bits = UInt.bitWidth
  var mask = [UInt](repeating: 0, count: node / bits + 1)
  mask[node / bits] |= 1 << UInt(node % bits)
  // SAFETY: the mask holds as many bits as the call says, less one by the call's convention.
  let result = unsafe mask.withUnsafeBufferPointer {
    unsafe rw_mbind(base, UInt(count), Int32(MPOL_BIND), $0.baseAddress!, UInt($0.count * bits + 1), 0)
  }
  if result == 0 { return }
  let code = rw_errno()
  // A kernel without NUMA has one node, and every page is on it.
  if code == ENOSYS && node == 0 { return }
  throw .system(operation: "binding to NUMA node \(node)", errno: code, bytes: count)
}

/// Makes every page present and writable, reporting a shortage as an error and never as a signal.
@unsafe func prefault(_ base: UnsafeMutableRawPointer, count: Int, backing: MemoryBacking, node: Int?) throws(MemoryError) {
  let populateWrite: Int32 = 23  // MADV_POPULATE_WRITE, Linux 5.14 (madvise(2))
  while unsafe madvise(base, count, populateWrite) != 0 {
    let code = rw_errno()
    if code == EINTR || code == EAGAIN { continue }
    if code == EINVAL { return try unsafe prefaultByReading(base, count: count, backing: backing, node: node) }
    throw .shortage(errno: code, operation: "prefaulting", count: count, backing: backing, node: node)
  }
}

/// The same for older kernels: read(2) stores one byte of /dev/zero in each page, and answers
/// EFAULT where a plain store would raise SIGBUS.
@unsafe func prefaultByReading(_ base: UnsafeMutableRawPointer, count: Int, backing: MemoryBacking, node: Int?) throws(MemoryError) {
  let zero = unsafe rw_open("/dev/zero", O_RDONLY | O_CLOEXEC, 0)
  guard zero >= 0 else { throw .system(operation: "opening /dev/zero", errno: rw_errno(), bytes: count) }
  defer { close(zero) }
  var offset = 0
  while offset < count {
    // SAFETY: offset < count, so the byte lies in the mapping.
    let got = unsafe read(zero, base + offset, 1)
    if got < 0 && rw_errno() == EINTR { continue }
    if got < 0 { throw .shortage(errno: rw_errno(), operation: "prefaulting", count: count, backing: backing, node: node) }
    offset += backing.pageSize
  }
}

/// Fixes the file's size for everybody who holds it. Returns whether it could be.
private func seal(_ descriptor: Int32) -> Bool {
  let shrink: Int32 = 2  // F_SEAL_SHRINK (fcntl(2))
  let grow: Int32 = 4  // F_SEAL_GROW
  let end: Int32 = 1  // F_SEAL_SEAL
  return rw_fcntl(descriptor, RW_F_ADD_SEALS, shrink | grow | end) == 0
}
