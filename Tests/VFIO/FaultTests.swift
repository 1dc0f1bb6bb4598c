// Registers that fault, for real: a mapped memory file that is cut short raises SIGBUS as a BAR does.

import CRingway
import Platform
import Synchronization
import SystemPackage
import Testing

@testable import VFIO

/// A memory file that stands for a device's file.
func memoryFile(_ size: Int) throws -> OwnedDescriptor {
  let raw = unsafe rw_memfd_create("registers", RW_MFD_CLOEXEC)
  try #require(raw >= 0)
  let file = OwnedDescriptor(taking: raw)
  try #require(ftruncate(raw, off_t(size)) == 0)
  return file
}

@Suite struct FaultTests {
  static let size = 0x20000

  @Test func aFaultReadsAllOnesAndIsSignalled() throws {
    let file = try memoryFile(FaultTests.size)
    let event = try EventFD()
    let window = try BARWindow(descriptor: file.raw, fileOffset: 0, count: FaultTests.size, event: event.descriptor)
    unsafe rw_write32(window.base + 0x18, 0x1234_5678)
    #expect(unsafe rw_read32(window.base + 0x18) == 0x1234_5678)
    #expect(!window.hasFaulted && event.drain() == 0)

    try #require(ftruncate(file.raw, 0) == 0)
    #expect(unsafe rw_read32(window.base + 0x18) == .max)
    #expect(window.hasFaulted)
    #expect(event.drain() == 1)
    // Everywhere, in every width, also behind the first piece of ones, and without a second fault.
    #expect(unsafe rw_read8(window.base + FaultTests.size - 1) == .max)
    #expect(unsafe rw_read64(window.base + 0x8000) == .max)
    unsafe rw_doorbell32(window.base + 0x3818, 7)
    #expect(event.drain() == 0)
  }

  @Test func aStoreMayFaultToo() throws {
    let file = try memoryFile(FaultTests.size)
    let window = try BARWindow(descriptor: file.raw, fileOffset: 0, count: FaultTests.size, event: -1)
    try #require(ftruncate(file.raw, 0) == 0)
    unsafe rw_doorbell32(window.base + 0x3818, 7)
    #expect(window.hasFaulted)
    #expect(unsafe rw_read32(window.base + 0x2818) == .max)
  }

  @Test func remapBringsTheDeviceBack() throws {
    let file = try memoryFile(FaultTests.size)
    let window = try BARWindow(descriptor: file.raw, fileOffset: 0, count: FaultTests.size, event: -1)
    try #require(ftruncate(file.raw, 0) == 0)
    #expect(unsafe rw_read32(window.base) == .max)
    try #require(ftruncate(file.raw, off_t(FaultTests.size)) == 0)
    #expect(unsafe rw_read32(window.base) == .max)
    try window.remap(descriptor: file.raw)
    #expect(!window.hasFaulted)
    unsafe rw_write32(window.base, 42)
    var stored: UInt32 = 0
    #expect(unsafe pread(file.raw, &stored, 4, 0) == 4)
    #expect(stored == 42)
  }

  @Test func detachGivesOnesWithoutAFault() throws {
    let file = try memoryFile(FaultTests.size)
    let window = try BARWindow(descriptor: file.raw, fileOffset: 0, count: FaultTests.size, event: -1)
    unsafe rw_write32(window.base, 1)
    window.detach()
    #expect(unsafe rw_read32(window.base) == .max)
    #expect(!window.hasFaulted)
  }

  @Test func windowsLargerThanTheOnesAreCoveredWhole() throws {
    let size = 3 << 20
    let file = try memoryFile(size)
    let window = try BARWindow(descriptor: file.raw, fileOffset: 0, count: size, event: -1)
    try #require(ftruncate(file.raw, 0) == 0)
    #expect(unsafe rw_read32(window.base + size - 4) == .max)
    for offset in stride(from: 0, to: size, by: 4096) { #expect(unsafe rw_read32(window.base + offset) == .max) }
  }

  @Test func onlyTheFaultingWindowIsMarked() throws {
    let file = try memoryFile(FaultTests.size)
    let other = try memoryFile(FaultTests.size)
    let window = try BARWindow(descriptor: file.raw, fileOffset: 0, count: FaultTests.size, event: -1)
    let neighbour = try BARWindow(descriptor: other.raw, fileOffset: 0, count: FaultTests.size, event: -1)
    try #require(ftruncate(file.raw, 0) == 0)
    #expect(unsafe rw_read32(window.base) == .max)
    #expect(unsafe rw_read32(neighbour.base) == 0)
    #expect(window.hasFaulted && !neighbour.hasFaulted)
  }

  @Test func severalThreadsFaultAtOnce() throws {
    let file = try memoryFile(FaultTests.size)
    let event = try EventFD()
    let window = try BARWindow(descriptor: file.raw, fileOffset: 0, count: FaultTests.size, event: event.descriptor)
    for round in 0..<20 {
      try #require(ftruncate(file.raw, off_t(FaultTests.size)) == 0)
      if round > 0 { try window.remap(descriptor: file.raw) }
      let wrong = Mutex(0)
      try withThreads(4) { thread in
        // Until the file is cut short, registers give zero; afterwards ones, and never zero again.
        var ones = false
        var after = 0
        var turn = 0
        while after < 500 && turn < 50_000_000 {
          let value = unsafe rw_read32(window.base + (turn * 64 + thread * 4) % FaultTests.size)
          if value == .max { ones = true }
          if ones { after += 1 }
          if value != .max && (ones || value != 0) { wrong.withLock { $0 += 1 } }
          if thread == 0 && turn == 1000 { _ = ftruncate(file.raw, 0) }
          turn += 1
        }
        if !ones { wrong.withLock { $0 += 1 } }
      }
      #expect(wrong.withLock { $0 } == 0)
      #expect(window.hasFaulted && event.drain() >= 1)
    }
  }

  @Test func windowsComeAndGoWhileOthersFault() throws {
    let file = try memoryFile(FaultTests.size)
    try withThreads(4) { thread in
      for _ in 0..<200 {
        guard let window = try? BARWindow(descriptor: file.raw, fileOffset: 0, count: 8192, event: -1) else { return }
        _ = ftruncate(file.raw, thread % 2 == 0 ? 0 : off_t(FaultTests.size))
        let value = unsafe rw_read32(window.base)
        if value != 0 && value != .max { Issue.record("a register gives \(value)") }
      }
    }
  }

  @Test func aWindowGivesItsPlaceAndItsFlagBack() throws {
    let file = try memoryFile(4096)
    // More than there are places, one after another.
    for _ in 0..<FaultGuard.capacity + 10 { _ = try BARWindow(descriptor: file.raw, fileOffset: 0, count: 4096, event: -1) }
    #expect(throws: Errno.badFileDescriptor) { try BARWindow(descriptor: -1, fileOffset: 0, count: 4096, event: -1) }
  }

  @Test func aFaultElsewhereStillEndsTheProcess() async {
    await #expect(processExitsWith: .signal(SIGBUS)) {
      let file = try memoryFile(8192)
      let window = try BARWindow(descriptor: file.raw, fileOffset: 0, count: 4096, event: -1)
      let elsewhere = unsafe mmap(nil, 4096, PROT_READ, MAP_SHARED, file.raw, 4096)!
      _ = ftruncate(file.raw, 0)
      _ = unsafe rw_read32(window.base)
      _ = unsafe rw_read32(elsewhere)
    }
  }

  @Test func aFaultElsewhereGoesToTheHandlerBeforeOurs() async {
    await #expect(processExitsWith: .exitCode(7)) {
      _ = unsafe rw_install_fault_handler(SIGBUS) { _, _, _ in _exit(7) }
      let file = try memoryFile(8192)
      let window = try BARWindow(descriptor: file.raw, fileOffset: 0, count: 4096, event: -1)
      let elsewhere = unsafe mmap(nil, 4096, PROT_READ, MAP_SHARED, file.raw, 4096)!
      _ = ftruncate(file.raw, 0)
      guard unsafe rw_read32(window.base) == .max else { _exit(8) }
      _ = unsafe rw_read32(elsewhere)
    }
  }

  @Test func aSignalSentByAProcessIsNotTakenForAFault() async {
    await #expect(processExitsWith: .signal(SIGBUS)) {
      let file = try memoryFile(4096)
      let window = try BARWindow(descriptor: file.raw, fileOffset: 0, count: 4096, event: -1)
      _ = raise(SIGBUS)
      _ = window
    }
  }
}

/// Runs `body` on `count` threads and waits for all.
func withThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) throws {
  guard count > 0 else { return }
  let thread = try JoinedThread(name: "test \(count)") { body(count - 1) }
  try withThreads(count - 1, body)
  thread.join()
}
