// Files that programs hand over, good and bad.

import CRingway
import Glibc
import Platform
import Testing

@testable import DMAMemory

/// A memory file of the test's own, as a program makes one.
func programFile(_ bytes: Int, flags: UInt32 = 0) throws -> OwnedDescriptor {
  let raw = unsafe rw_memfd_create("programs", RW_MFD_CLOEXEC | flags)
  try #require(raw >= 0)
  let file = OwnedDescriptor(taking: raw)
  try #require(ftruncate(raw, off_t(bytes)) == 0)
  return file
}

@Suite struct ExternalFileTests {
  private func problem(_ file: consuming OwnedDescriptor, _ offset: UInt64, _ bytes: UInt64) -> ExternalMemoryProblem? {
    do throws(MemoryError) {
      _ = try MemoryFile(external: file.release(), offset: offset, bytes: bytes)
    } catch {
      if case .external(let problem) = error { return problem }
      Issue.record("\(error)")
    }
    return nil
  }

  @Test func `a range of a program's file is the same memory`() throws {
    let file = try programFile(8 * basePageSize, flags: RW_MFD_ALLOW_SEALING)
    let raw = file.raw
    let start = UInt64(2 * basePageSize)
    let memory = try MemoryFile(external: try file.duplicate().release(), offset: start, bytes: UInt64(5 * basePageSize + 100))
    let (count, offset, page, sealed) = (memory.count, memory.fileOffset, memory.pageSize, memory.isSealed)
    #expect(count == 5 * basePageSize && offset == 2 * basePageSize && page == basePageSize && sealed)
    unsafe memory.base.storeBytes(of: 0x5566_7788, toByteOffset: 4, as: UInt32.self)
    var seen: UInt32 = 0
    #expect(unsafe pread(raw, &seen, 4, off_t(start) + 4) == 4)
    #expect(seen == 0x5566_7788)
    let (from, length) = (memory.source.fileOffset, memory.source.count)
    #expect(from == 2 * basePageSize && length == count)
    #expect(ftruncate(raw, 0) == -1 && errno == EPERM, "sealed against shrinking")
    #expect(ftruncate(raw, off_t(16 * basePageSize)) == 0, "growing harms nobody")
  }

  @Test func `a file that takes no seals is used, and says so`() throws {
    let file = try programFile(4 * basePageSize)
    let memory = try MemoryFile(external: try file.duplicate().release(), offset: 0, bytes: UInt64(4 * basePageSize))
    let sealed = memory.isSealed
    #expect(!sealed)
    #expect(ftruncate(file.raw, 0) == 0)
  }

  @Test func `the descriptor is closed, used or not`() throws {
    let file = try programFile(basePageSize)
    func open() -> Int {
      ((try? Files.list("/proc/self/fd")) ?? []).count { name in
        guard let raw = Int32(name) else { return false }
        var one = stat(), other = stat()
        return unsafe fstat(raw, &one) == 0 && fstat(file.raw, &other) == 0 && one.st_ino == other.st_ino && one.st_dev == other.st_dev
      }
    }
    #expect(open() == 1)
    do {
      let memory = try MemoryFile(external: try file.duplicate().release(), offset: 0, bytes: UInt64(basePageSize))
      #expect(open() == 2)
      _ = memory.count
    }
    #expect(open() == 1)
    #expect(problem(try file.duplicate(), 1, 4096) != nil && open() == 1)
  }

  @Test func `ranges that are not there are refused`() throws {
    let size = UInt64(4 * basePageSize), page = UInt64(basePageSize)
    for (offset, bytes) in [(0, size + page), (page, size), (size, page), (size + page, page), (0, 0), (0, page - 1), (0, .max), (1 << 63, page), (UInt64.max & ~(page - 1), page)] {
      #expect(problem(try programFile(4 * basePageSize), offset, bytes) == .outside(offset: offset, bytes: bytes, size: size))
    }
    for offset in [1, page / 2, page + 8] {
      #expect(problem(try programFile(4 * basePageSize), offset, page) == .misaligned(offset: offset, pageSize: basePageSize))
    }
  }

  @Test func `what is no memory is refused: disks, devices, pipes, sockets, eventfds, directories`() throws {
    let page = UInt64(basePageSize)
    var ends: [Int32] = [-1, -1]
    try #require(unsafe pipe(&ends) == 0)
    #expect(problem(OwnedDescriptor(taking: ends[0]), 0, page) == .notMemory)
    #expect(problem(OwnedDescriptor(taking: ends[1]), 0, page) == .notMemory)
    for path in ["/dev/zero", "/dev/null", "/proc/self/maps", "/proc/self/exe", "/dev/shm"] {
      let file = OwnedDescriptor(taking: unsafe rw_open(path, O_RDONLY | O_CLOEXEC, 0))
      if file.raw >= 0 { #expect(problem(file, 0, page) == .notMemory, "\(path)") }
    }
    #expect(problem(OwnedDescriptor(taking: socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)), 0, page) == .notMemory)
    #expect(problem(OwnedDescriptor(taking: -1), 0, page) == .notMemory)
  }

  @Test func `memory that cannot be written is refused`() throws {
    let file = try programFile(basePageSize, flags: RW_MFD_ALLOW_SEALING)
    let readOnly = OwnedDescriptor(taking: unsafe rw_open("/proc/self/fd/\(file.raw)", O_RDONLY | O_CLOEXEC, 0))
    #expect(problem(readOnly, 0, UInt64(basePageSize)) == .readOnly)
    try #require(rw_fcntl(file.raw, RW_F_ADD_SEALS, 8) == 0)
    #expect(problem(file, 0, UInt64(basePageSize)) == .readOnly)
  }

  @Test(.enabled(if: Lab.isRoot, Lab.reason)) func `hugepages of a program's are mapped as such`() throws {
    try Lab.reserve(4)
    let file = try programFile(4 * Lab.size, flags: RW_MFD_HUGETLB)
    let memory = try MemoryFile(external: try file.duplicate().release(), offset: UInt64(Lab.size), bytes: UInt64(3 * Lab.size + 4096))
    let (count, page) = (memory.count, memory.pageSize)
    #expect(count == 3 * Lab.size && page == Lab.size)
    #expect(unsafe UInt(bitPattern: memory.base) % UInt(Lab.size) == 0)
    #expect(problem(try file.duplicate(), 4096, UInt64(Lab.size)) == .misaligned(offset: 4096, pageSize: Lab.size))
  }

  @Test func `every problem says what to do`() {
    let problems: [ExternalMemoryProblem] = [.notMemory, .outside(offset: 1, bytes: 2, size: 3), .misaligned(offset: 7, pageSize: 4096), .readOnly]
    for problem in problems {
      let text = "\(MemoryError.external(problem))"
      #expect(text.contains("Use") || text.contains("Make") || text.contains("Open"))
    }
  }
}
