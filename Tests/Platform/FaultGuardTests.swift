// Memory that is taken away, for real: files are cut short and hugepages punched out under a mapping.

import CRingway
import Glibc
import SystemPackage
import Testing

@testable import Platform

/// A file of memory, mapped, guarded as long as this lives.
@safe private final class SharedPages: @unchecked Sendable {
  let file: OwnedDescriptor
  let base: UnsafeMutableRawPointer
  let count: Int
  let flag: FaultFlag
  let window: FaultGuard.Window
  static let page = Int(getpagesize())

  init(_ pages: Int = 4, kind: FaultGuard.Kind = .zeros, event: Int32 = -1) throws {
    let raw = unsafe rw_memfd_create("guarded", RW_MFD_CLOEXEC)
    try #require(raw >= 0)
    file = OwnedDescriptor(taking: raw)
    count = pages * SharedPages.page
    try #require(ftruncate(raw, off_t(count)) == 0)
    unsafe base = try #require(unsafe mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, raw, 0))
    flag = try FaultGuard.openFlag()
    window = try unsafe FaultGuard.add(
      base: base, count: count, pageSize: SharedPages.page, kind: kind, flag: flag, event: event)
  }
  deinit {
    FaultGuard.remove(window)
    FaultGuard.close(flag)
    _ = unsafe munmap(base, count)
  }
  func cut(to pages: Int) { _ = ftruncate(file.raw, off_t(pages * SharedPages.page)) }
  subscript(page: Int, offset: Int) -> UInt32 {
    get { unsafe rw_read32(base + page * SharedPages.page + offset) }
    set { unsafe rw_write32(base + page * SharedPages.page + offset, newValue) }
  }
}

@Suite struct FaultGuardTests {
  @Test func `the layout is what the handler assumes`() {
    #expect(MemoryLayout<rw_guard_window>.offset(of: \.base) == 0)
    #expect(MemoryLayout<rw_guard_table>.offset(of: \.used) == 4)
  }

  @Test func `zeros take the place of the page that is gone, and of no other`() throws {
    let event = try EventFD()
    let memory = try SharedPages(event: event.descriptor)
    for page in 0..<4 { memory[page, 8] = UInt32(page) + 100 }
    #expect(!memory.flag.isRaised && memory.flag.count == 0)
    memory.cut(to: 2)
    #expect(memory[0, 8] == 100 && memory[1, 8] == 101 && !memory.flag.isRaised, "what is there stays")
    #expect(memory[2, 8] == 0)
    #expect(memory.flag.isRaised && memory.flag.count == 1 && event.drain() == 1)
    memory[2, 12] = 5
    #expect(memory[2, 12] == 5 && memory.flag.count == 1, "a page faults once")
    memory[3, 0] = 7
    #expect(memory[3, 0] == 7 && memory.flag.count == 2 && event.drain() == 1)
    memory.cut(to: 4)
    #expect(memory[0, 8] == 100 && memory[2, 12] == 5, "our zeros stay until the owner maps anew")
    memory.flag.clear()
    #expect(!memory.flag.isRaised)
  }

  @Test func `ones take the place of the whole window`() throws {
    let memory = try SharedPages(kind: .ones)
    memory.cut(to: 3)
    memory[0, 0] = 1
    #expect(memory[3, 0] == .max && memory[0, 0] == .max && memory.flag.count == 1)
    let covered = try SharedPages(kind: .ones)
    covered[0, 0] = 1
    #expect(FaultGuard.cover(covered.window))
    #expect(covered[0, 0] == .max && !covered.flag.isRaised)
  }

  @Test func `windows of both kinds stand beside each other, each with its flag`() throws {
    let zeros = try SharedPages(), ones = try SharedPages(kind: .ones), other = try SharedPages()
    zeros.cut(to: 0)
    ones.cut(to: 0)
    #expect(zeros[1, 0] == 0 && ones[1, 0] == .max && other[1, 0] == 0)
    #expect(zeros.flag.count == 1 && ones.flag.count == 1 && !other.flag.isRaised)
  }

  @Test func `several windows may raise one flag, which outlives them`() throws {
    let flag = try FaultGuard.openFlag()
    for _ in 0..<3 {
      let memory = try SharedPages()
      let window = try unsafe FaultGuard.add(
        base: memory.base + 4096, count: 4096, pageSize: 4096, kind: .zeros, flag: flag)
      memory.cut(to: 0)
      // The first window of the table that holds the address serves it: here that of the whole file.
      _ = memory[1, 0]
      let before = flag.count + memory.flag.count
      #expect(before >= 1)
      FaultGuard.remove(window)
    }
    FaultGuard.close(flag)
    let next = try FaultGuard.openFlag()
    #expect(!next.isRaised, "a fresh flag is down, whoever had it before")
    FaultGuard.close(next)
  }

  @Test func `what is no whole pages is refused`() throws {
    let memory = try SharedPages()
    let flag = memory.flag
    for (offset, count, page) in [(1, 4096, 4096), (0, 100, 4096), (0, 0, 4096), (0, -4096, 4096), (0, 4096, 0), (0, 4096, -4096), (0, 4096, 3000), (0, 4096, 1 << 21)] {
      #expect(throws: Errno.invalidArgument) {
        _ = try unsafe FaultGuard.add(base: memory.base + offset, count: count, pageSize: page, kind: .zeros, flag: flag)
      }
    }
  }

  @Test func `several threads fault at once on pages that come and go`() throws {
    let memory = try SharedPages(64)
    memory.cut(to: 0)
    try onThreads(4) { thread in
      for page in 0..<64 { memory[page, thread * 64] = UInt32(page) }
    }
    #expect(memory.flag.count >= 64)
    for page in 0..<64 { _ = memory[page, 0] }
    let count = memory.flag.count
    for page in 0..<64 { _ = memory[page, 128] }
    #expect(memory.flag.count == count, "no page is left to fault")
  }

  @Test func `windows come and go while others fault`() throws {
    try onThreads(4) { thread in
      for _ in 0..<200 {
        guard let memory = try? SharedPages() else {
          Issue.record("no window")
          return
        }
        if thread % 2 == 0 { memory.cut(to: 0) }
        let value = memory[2, 0]
        if value != 0 || memory.flag.isRaised != (thread % 2 == 0) { Issue.record("page gives \(value)") }
      }
    }
  }

  @Test func `a full table is ENOSPC, and is free again afterwards`() async {
    // In a process of its own: other tests guard memory at the same time.
    await #expect(processExitsWith: .success) {
      let memory = try SharedPages(1)
      var windows: [FaultGuard.Window] = []
      do throws(Errno) {
        while true {
          windows.append(
            try unsafe FaultGuard.add(base: memory.base, count: memory.count, pageSize: memory.count, kind: .zeros, flag: memory.flag))
        }
      } catch { guard error == .noSpace, windows.count == FaultGuard.capacity - 1 else { _exit(1) } }
      for window in windows { FaultGuard.remove(window) }
      var flags: [FaultFlag] = []
      do throws(Errno) { while true { flags.append(try FaultGuard.openFlag()) } } catch {
        guard error == .noSpace, flags.count == Int(RW_GUARD_FLAGS) - 1 else { _exit(2) }
      }
      for flag in flags { FaultGuard.close(flag) }
      let again = try SharedPages(1)
      again.cut(to: 0)
      guard again[0, 0] == 0, again.flag.count == 1 else { _exit(3) }
    }
  }

  @Test func `a fault elsewhere goes to the handler before ours`() async {
    await #expect(processExitsWith: .exitCode(7)) {
      _ = unsafe rw_install_fault_handler(SIGBUS) { _, _, _ in _exit(7) }
      let memory = try SharedPages()
      let elsewhere = unsafe mmap(nil, 4096, PROT_READ, MAP_SHARED, memory.file.raw, 0)!
      memory.cut(to: 0)
      guard memory[0, 0] == 0 else { _exit(8) }
      _ = unsafe rw_read32(elsewhere)
    }
  }

  @Test func `a fault elsewhere ends a process without another handler, and so does a signal that was sent`() async {
    await #expect(processExitsWith: .signal(SIGBUS)) {
      let memory = try SharedPages()
      let elsewhere = unsafe mmap(nil, 4096, PROT_READ, MAP_SHARED, memory.file.raw, 0)!
      memory.cut(to: 0)
      _ = unsafe rw_read32(elsewhere)
    }
    await #expect(processExitsWith: .signal(SIGBUS)) {
      let memory = try SharedPages()
      _ = raise(SIGBUS)
      _ = memory
    }
  }

  @Test func `a window that was removed guards nothing any more`() async {
    await #expect(processExitsWith: .signal(SIGBUS)) {
      let memory = try SharedPages()
      FaultGuard.remove(memory.window)
      memory.cut(to: 0)
      _ = memory[0, 0]
    }
  }
}

/// Runs `body` on `count` threads and waits for all.
private func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) throws {
  guard count > 0 else { return }
  let thread = try JoinedThread(name: "test \(count)") { body(count - 1) }
  try onThreads(count - 1, body)
  thread.join()
}
