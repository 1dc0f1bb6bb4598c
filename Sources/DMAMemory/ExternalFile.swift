// Memory that a program hands over: a range of a file of its own.
//
//   descriptor ─> what is it? (tmpfs, hugetlbfs) ─> how long? ─> seal ─> map ─> prefault
//
// Nothing of it is trusted. What fstat(2) said is true at that moment: a seal against shrinking makes it
// stay true where the file takes one, and where it does not, whoever uses the mapping guards it
// (`FaultGuard`). Holes can be punched in either case.

internal import CRingway
internal import Glibc

/// Why a program's file cannot be used as memory.
public enum ExternalMemoryProblem: Equatable, Sendable, CustomStringConvertible {
  /// Not a file of memory (memfd, /dev/shm, hugetlbfs): a pipe, a device, a file on a disk.
  case notMemory
  /// The range does not lie in the file, or holds no whole page.
  case outside(offset: UInt64, bytes: UInt64, size: UInt64)
  /// The offset is not on a page.
  case misaligned(offset: UInt64, pageSize: Int)
  /// The descriptor is not open for reading and writing, or the file is sealed against writing.
  case readOnly

  public var description: String {
    switch self {
    case .notMemory:
      "the descriptor that was handed over is no memory. Use memfd_create(2), shm_open(3) or a file in a hugetlbfs."
    case .outside(let offset, let bytes, let size):
      "\(bytes) bytes at \(offset) hold no whole page inside a file of \(size) bytes. Make the file larger first (ftruncate(2))."
    case .misaligned(let offset, let pageSize):
      "external memory starts at byte \(offset) of its file, which is not on a page of \(ByteCount(pageSize)). Use a multiple of that."
    case .readOnly:
      "external memory must be readable and writable. Open the file with O_RDWR, and do not seal it against writing."
    }
  }
}

extension MemoryFile {
  /// Takes over a range of a program's file.
  /// - Parameters:
  ///   - descriptor: closed with the value, or when this throws.
  ///   - offset: the first byte, on a page of the file.
  ///   - bytes: rounded down to whole pages of the file.
  /// - Throws: `MemoryError.external` for what cannot be used, and what mapping and prefaulting say.
  public init(external descriptor: Int32, offset: UInt64, bytes: UInt64) throws(MemoryError) {
    do throws(MemoryError) {
      let backing = try Self.examine(descriptor)
      try unsafe self.init(unsafeExternal: descriptor, offset: offset, bytes: bytes, backing: backing)
    } catch {
      close(descriptor)
      throw error
    }
  }

  /// What the file's pages are; only filesystems that are memory through and through are taken.
  private static func examine(_ descriptor: Int32) throws(MemoryError) -> MemoryBacking {
    var block: UInt64 = 0
    // SAFETY: the kernel's answer goes into the local variable.
    switch unsafe rw_filesystem(descriptor, &block) {
    case 0x0102_1994: return .normalPages  // TMPFS_MAGIC
    case 0x9584_58f6:  // HUGETLBFS_MAGIC
      guard block >= UInt64(basePageSize), block <= 1 << 40, block & (block - 1) == 0 else { throw .external(.notMemory) }
      return .hugetlbfs(pageSize: Int(block))
    default: throw .external(.notMemory)
    }
  }

  /// The caller closes the descriptor when this throws.
  @unsafe private init(unsafeExternal descriptor: Int32, offset: UInt64, bytes: UInt64, backing: MemoryBacking) throws(MemoryError) {
    let page = UInt64(backing.pageSize)
    guard offset & (page - 1) == 0 else { throw .external(.misaligned(offset: offset, pageSize: backing.pageSize)) }
    let isSealed = Self.sealShrinking(descriptor)
    var status = stat()
    // After the seal: what is seen now stays so. SAFETY: the kernel fills the local variable.
    guard unsafe fstat(descriptor, &status) == 0, status.st_mode & 0xf000 == 0x8000 /* S_ISREG */, status.st_size >= 0 else {
      throw .external(.notMemory)
    }
    let size = UInt64(status.st_size), whole = bytes & ~(page - 1)
    guard whole > 0, whole < 1 << 46, offset <= size, whole <= size - offset else {
      throw .external(.outside(offset: offset, bytes: bytes, size: size))
    }
    let count = Int(whole)
    // SAFETY: a new mapping at an address of the kernel's choice; failure is MAP_FAILED (-1).
    let mapped = unsafe mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, off_t(offset))
    guard let base = unsafe mapped, UInt(bitPattern: base) != .max else {
      let code = rw_errno()
      if code == EACCES || code == EPERM { throw .external(.readOnly) }
      throw .shortage(errno: code, operation: "mapping", count: count, backing: backing, node: nil)
    }
    do throws(MemoryError) { try unsafe prefault(base, count: count, backing: backing, node: nil) } catch {
      _ = unsafe munmap(base, count)
      throw error
    }
    _ = unsafe madvise(base, count, MADV_DONTFORK)
    unsafe self.init(
      unsafeMapped: base, count: count, backing: backing, node: nil, descriptor: descriptor, fileOffset: Int(offset),
      isSealed: isSealed)
  }

  /// Asks that the file can only grow from now on. Returns whether it is so.
  private static func sealShrinking(_ descriptor: Int32) -> Bool {
    let shrink: Int32 = 2  // F_SEAL_SHRINK (fcntl(2))
    _ = rw_fcntl(descriptor, RW_F_ADD_SEALS, shrink)
    let seals = rw_fcntl(descriptor, RW_F_GET_SEALS, 0)
    return seals >= 0 && seals & shrink != 0
  }
}
