import CRingway
import Glibc
import Platform
import Testing

@testable import DMAMemory

/// What every kind of memory must be: whole, zero, page-aligned, closed on exec.
private func checkBasics(_ file: borrowing MemoryFile, pages: Int) {
  let (count, pageSize, descriptor) = (file.count, file.pageSize, file.descriptor)
  let start = unsafe UInt(bitPattern: file.base)
  #expect(count == pages * pageSize)
  #expect(start % UInt(pageSize) == 0)
  var sum: UInt64 = 0
  for offset in stride(from: 0, to: file.count, by: 512) {
    sum |= unsafe file.base.load(fromByteOffset: offset, as: UInt64.self)
  }
  #expect(sum == 0)
  unsafe file.base.storeBytes(of: 7, toByteOffset: file.count - 1, as: UInt8.self)
  #expect(rw_fcntl(descriptor, F_GETFD, 0) & FD_CLOEXEC != 0)
}

@Suite struct NormalPageTests {
  @Test func `normal pages are whole, sealed and go away with their owner`() throws {
    let descriptor: Int32
    do {
      let file = try MemoryFile(name: "goes-away", bytes: 5 * basePageSize - 3, backing: .normalPages)
      checkBasics(file, pages: 5)
      descriptor = file.descriptor
      let sealed = file.isSealed
      #expect(sealed)
      #expect(ftruncate(descriptor, 0) == -1)
      #expect(ftruncate(descriptor, 1 << 20) == -1)
      let account = unsafe Lab.pages(at: file.base)
      #expect(account?.nodes.values.reduce(0, +) == 5, "every page is present before the first packet")
    }
    // Other tests open files meanwhile: the number may be in use again, but not for this file.
    let target = (try? Files.linkTarget("/proc/self/fd/\(descriptor)")) ?? ""
    #expect(!target.contains("memfd:goes-away"))
  }

  @Test func `sizes that make no sense are refused`() {
    for bytes in [0, -1, Int.min, Int.max, 1 << 47] {
      #expect(throws: MemoryError.badSize(bytes: bytes)) {
        _ = try MemoryFile(name: "test", bytes: bytes, backing: .normalPages)
      }
    }
    for pageSize in [0, -4096, 3 << 20] {
      #expect(throws: MemoryError.badSize(bytes: pageSize)) {
        _ = try MemoryFile(name: "test", bytes: 4096, backing: .memfd(pageSize: pageSize))
      }
    }
  }

  @Test func `a node that does not exist is refused by name`() {
    #expect(throws: MemoryError.noSuchNode(node: 777)) {
      _ = try MemoryFile(name: "test", bytes: 4096, backing: .normalPages, node: 777)
    }
  }

  @Test func `a page size that the kernel lacks is refused with those it has`() {
    #expect(throws: MemoryError.noSuchPageSize(pageSize: 8 << 20, available: HugepagePool.pageSizes())) {
      _ = try MemoryFile(name: "test", bytes: 4096, backing: .memfd(pageSize: 8 << 20))
    }
  }

  @Test func `the line for too few pages has everything a person needs`() {
    let error = MemoryError.tooFewHugepages(wanted: 64, available: 12, pageSize: 2 << 20, node: 1, total: 20)
    #expect(
      error.description
        == "64 hugepages of 2 MiB wanted on node 1, 12 available. Run `echo 72 | sudo tee /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages`, or use --no-huge.")
    #expect(!error.description.contains("\n"))
  }
}

@Suite(.serialized, .enabled(if: Lab.isRoot, Lab.reason)) struct HugepageTests {
  @Test func `memfd: pages are huge, present, on the node, and sealed`() throws {
    try Lab.reserve(24)
    let file = try MemoryFile(name: "test", bytes: 4 * Lab.size, backing: .memfd(pageSize: Lab.size), node: 0)
    checkBasics(file, pages: 4)
    let (sealed, descriptor) = (file.isSealed, file.descriptor)
    #expect(sealed)
    #expect(ftruncate(descriptor, 0) == -1 && rw_errno() == EPERM)
    let account = try #require(unsafe Lab.pages(at: file.base))
    #expect(account.nodes == [0: 4])
    #expect(account.pageKB == 2048)
    #expect(account.policy == "bind:0")
  }

  @Test func `too few pages: an error with the numbers, and nothing is taken`() throws {
    let before = try #require(HugepagePool.read(pageSize: Lab.size))
    let wanted = before.total + 100
    let error = #expect(throws: MemoryError.self) {
      _ = try MemoryFile(name: "test", bytes: wanted * Lab.size, backing: .memfd(pageSize: Lab.size))
    }
    guard case .tooFewHugepages(wanted, let available, Lab.size, nil, _) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(available <= before.total)
    #expect(Lab.freePages(reaching: before.free) >= before.free)
  }

  @Test func `the command in the error mends it`() throws {
    try Lab.reserve(8)
    let pool = try #require(HugepagePool.read(pageSize: Lab.size))
    let command = HugepagePool.command(reserving: pool.total + 2, pageSize: Lab.size, node: 0)
    let words = command.split(separator: " ")
    let path = try #require(words.last)
    let before = try #require(Int(try Files.line(String(path))))
    try Files.write(String(words[1]), to: String(path))
    #expect(HugepagePool.read(pageSize: Lab.size, node: 0)?.total == pool.total + 2)
    try Files.write("\(before)", to: String(path))
  }

  @Test func `a shortage that shows up late is an error and no signal`() throws {
    try Lab.reserve(8)
    let pool = try #require(HugepagePool.read(pageSize: Lab.size))
    let count = (pool.total + 64) * Lab.size
    let descriptor = unsafe rw_memfd_create("late", RW_MFD_CLOEXEC | RW_MFD_HUGETLB)
    try #require(descriptor >= 0)
    defer { close(descriptor) }
    try #require(ftruncate(descriptor, count) == 0)
    // Unreserved: the pages are looked for at the first touch, as behind a node binding.
    let base = try unsafe #require(unsafe mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor, 0))
    try #require(unsafe base != MAP_FAILED)
    for byReading in [false, true] {
      let error = #expect(throws: MemoryError.self) { try unsafe touch(base, count: count, byReading: byReading) }
      guard case .tooFewHugepages(count / Lab.size, _, Lab.size, nil, _) = error else {
        Issue.record("\(String(describing: error))")
        continue
      }
      // Give the pages back before the next way of touching them.
      #expect(unsafe madvise(base, count, MADV_REMOVE) == 0)
    }
    #expect(unsafe munmap(base, count) == 0)
  }

  @Test func `both ways of touching make every page present`() throws {
    try Lab.reserve(8)
    for byReading in [false, true] {
      let descriptor = unsafe rw_memfd_create("touch", RW_MFD_CLOEXEC | RW_MFD_HUGETLB)
      defer { close(descriptor) }
      try #require(ftruncate(descriptor, 3 * Lab.size) == 0)
      let base = try unsafe #require(unsafe mmap(nil, 3 * Lab.size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0))
      try unsafe touch(base, count: 3 * Lab.size, byReading: byReading)
      #expect(unsafe Lab.pages(at: base)?.nodes.values.reduce(0, +) == 3)
      #expect(unsafe munmap(base, 3 * Lab.size) == 0)
    }
  }

  @Test func `libhugetlbfs: pages are huge, present, on the node, in a file without a name`() async throws {
    try Lab.reserve(24)
    let mount = try MountedHugetlbfs()
    // The library reads the mount table when a process starts: hence a process of its own.
    await #expect(processExitsWith: .success) {
      let file = try MemoryFile(name: "test", bytes: 4 * Lab.size, backing: .hugetlbfs(pageSize: Lab.size), node: 0)
      checkBasics(file, pages: 4)
      let sealed = file.isSealed
      #expect(!sealed)
      let account = try #require(unsafe Lab.pages(at: file.base))
      #expect(account.nodes == [0: 4])
      #expect(account.pageKB == 2048)
      let target = try Files.linkTarget("/proc/self/fd/\(file.descriptor)")
      #expect(target.hasSuffix("(deleted)"))
    }
    #expect(try Files.list(mount.path).isEmpty)
  }

  @Test func `libhugetlbfs without a mount: one line that says what to run`() async throws {
    await #expect(processExitsWith: .success) {
      // No mount of 1 GiB pages is ever made by these tests.
      let error = #expect(throws: MemoryError.self) {
        _ = try MemoryFile(name: "test", bytes: 1, backing: .hugetlbfs(pageSize: 1 << 30))
      }
      switch error {
      case .noMount(1 << 30), .noSuchPageSize(1 << 30, _), .tooFewHugepages(1, _, 1 << 30, nil, _): break
      default: Issue.record("\(String(describing: error))")
      }
    }
  }

  @Test func `a killed process leaves no page behind`() async throws {
    try Lab.reserve(32)
    let mount = try MountedHugetlbfs()
    let before = try #require(HugepagePool.read(pageSize: Lab.size)).free
    for _ in 0..<3 {
      await #expect(processExitsWith: .signal(SIGKILL)) {
        let one = try MemoryFile(name: "killed", bytes: 6 * Lab.size, backing: .memfd(pageSize: Lab.size))
        let two = try MemoryFile(name: "killed", bytes: 6 * Lab.size, backing: .hugetlbfs(pageSize: Lab.size), node: 0)
        let held = [unsafe Lab.pages(at: one.base), unsafe Lab.pages(at: two.base)].map { $0?.nodes[0] }
        // Dies only when it really holds the pages; any other end fails the test.
        if held == [6, 6] { kill(getpid(), SIGKILL) }
      }
      #expect(Lab.freePages(reaching: before) >= before)
    }
    #expect(try Files.list(mount.path).isEmpty)
  }

  @Test func `a child made by fork does not inherit the memory`() throws {
    try Lab.reserve(8)
    let file = try MemoryFile(name: "fork", bytes: Lab.size, backing: .memfd(pageSize: Lab.size))
    let start = unsafe String(UInt(bitPattern: file.base), radix: 16)
    let text = try Files.read("/proc/self/smaps")
    let entry = try #require(text.firstRange(of: "\(start)-"))
    let flags = try #require(text[entry.lowerBound...].split(separator: "\n").first { $0.hasPrefix("VmFlags:") })
    #expect(flags.split(separator: " ").contains("dc"))
  }
}

@unsafe private func touch(_ base: UnsafeMutableRawPointer, count: Int, byReading: Bool) throws(MemoryError) {
  if byReading {
    try unsafe prefaultByReading(base, count: count, backing: .memfd(pageSize: Lab.size), node: nil)
  } else {
    try unsafe prefault(base, count: count, backing: .memfd(pageSize: Lab.size), node: nil)
  }
}

/// A hugetlbfs of 2 MiB pages for one test.
final class MountedHugetlbfs {
  let path: String
  private let root: FakeRoot

  init() throws {
    root = try FakeRoot()
    path = root.path + "/huge"
    try #require(unsafe mkdir(path, 0o700) == 0)
    try #require(MountCall().mount(path: path, options: "pagesize=2M,mode=0700") == 0)
  }

  deinit {
    _ = unsafe umount2(path, Int32(MNT_DETACH))
    _ = unsafe rmdir(path)
  }
}
