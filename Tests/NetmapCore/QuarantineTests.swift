// Memory that programs take away again, for real.

import CRingway
import Glibc
import NetmapAPI
import Platform
import Testing

@testable import NetmapCore

@Suite struct QuarantineTests {
  private static let pools = PoolsInfo((4, 256), (8, 1024), (0, 2048))

  @Test func `a file that is cut short quarantines its region, and no other`() throws {
    let event = try EventFD()
    let memory = makeMemory { $0.faultEvent = event.descriptor }
    let file = try ProgramFile(1 << 20), size = 1 << 20
    let region = try memory.makeExternal(file.hand(), offset: 0, bytes: UInt64(size), pools: Self.pools, name: "ext")
    let other = try memory.global(), third = try memory.makePrivate(smallSizes, name: "p")
    let holder = try region.enter(), theirs = try other.enter()
    let (head, count) = region.allocator.allocateExtra(300, holder: holder)
    let fresh = other.allocator.allocateExtra(10, holder: theirs)
    #expect(count == 300 && !region.isQuarantined)
    try region.checkWhole()

    file.cut(to: 4096)
    // The walk meets the end of the file: zeros end it.
    let freed = region.allocator.freeExtra(from: head, holder: holder)
    #expect(freed.freed == 1 && region.isQuarantined && event.drain() == 1)
    #expect(region.statistics.isQuarantined && !other.statistics.isQuarantined && !third.isQuarantined)
    let error = #expect(throws: NetmapError.self) { try region.checkWhole() }
    #expect(error?.code == .EIO && error?.problem.contains("ext") == true)
    #expect(throws: NetmapError.self) { try region.enter() }
    #expect(region.users == 1, "who was refused is no user")
    // Nobody else notices.
    #expect(other.allocator.freeExtra(from: fresh.head, holder: theirs) == ExtraBufferReturn(freed: 10))
    #expect(try third.enter() != .nobody)
    // The books are whole: they lie elsewhere.
    #expect(region.leave() == 299 && region.statistics.freeBuffers == region.statistics.totalBuffers)

    #expect(throws: NetmapError.self) { try region.enter() }
    #expect(region.isQuarantined, "the file is still short")
    file.cut(to: size)
    let again = try region.enter()
    #expect(!region.isQuarantined && again != holder)
    // It is the file again, not our zeros.
    let list = region.allocator.allocateExtra(2, holder: again)
    #expect(file[Int(region.pools.buffers.offset) + Int(list.head) * 2048] != 0)
    #expect(region.leave() == 2)
  }

  @Test func `a ring whose memory is gone is reset, and does not stop the process`() throws {
    let memory = makeMemory()
    let file = try ProgramFile(1 << 20)
    let region = try memory.makeExternal(file.hand(), offset: 0, bytes: 1 << 20, pools: Self.pools, name: "ext")
    let holder = try region.enter()
    let ring = try region.allocator.allocateRing(slots: 8, id: 0, direction: .transmit, owner: holder)
    let kring = Kring(
      RingID(.transmit, 0), ring, ledger: region.allocator.ledger, bufferSize: region.allocator.bufferSize, holder: holder,
      wakeup: try KringWakeup())
    unsafe rw_write32(ring.ring.base + 20, 3)
    unsafe rw_write32(ring.ring.base + 24, 3)
    #expect(kring.prologue()?.to == 3)
    kring.hwcur = kring.rhead
    kring.finalise()
    file.cut(to: 0)
    #expect(kring.prologue() == nil && kring.isFaulted, "head and cur read as 0, which is behind")
    #expect(region.isQuarantined)
    #expect(kring.checkedSlot(0) == nil)
  }

  @Test func `a card's mapping is renewed with the memory`() throws {
    let mapper = FakeMapper(), memory = makeMemory()
    let file = try ProgramFile(1 << 20)
    let region = try memory.makeExternal(file.hand(), offset: 0, bytes: 1 << 20, pools: Self.pools, name: "ext")
    try region.attach(mapper)
    _ = try region.enter()
    file.cut(to: 0)
    _ = unsafe rw_read32(region.allocator.bufferBase)
    #expect(region.isQuarantined)
    file.cut(to: 1 << 20)
    let card = try region.allocator.registerOwner("card")
    let buffers = try region.allocator.allocateBuffers(1, owner: card)
    region.leave()
    #expect(throws: NetmapError.self) { try region.enter() }
    #expect(mapper.mapCalls == 1, "a buffer is on its way: the card keeps the pages")
    region.allocator.freeBuffers(buffers, owner: card)
    _ = try region.enter()
    #expect(!region.isQuarantined && mapper.mapCalls == 2 && mapper.mapped.count == 1)
    region.leave()
    try region.detach(mapper, port: card)
    #expect(mapper.mapped.isEmpty)
    // An IOMMU that refuses keeps the region from being used.
    try region.attach(mapper)
    file.cut(to: 0)
    _ = unsafe rw_read32(region.allocator.bufferBase)
    file.cut(to: 1 << 20)
    mapper.failAfter = 0
    #expect(throws: NetmapError.self) { try region.enter() }
    mapper.failAfter = nil
    #expect(try region.enter() != .nobody)
    #expect(mapper.mapped.count == 1)
  }

  @Test func `holes in normal pages are filled by the kernel, and harm nobody`() throws {
    let memory = makeMemory()
    let file = try ProgramFile(1 << 20, flags: RW_MFD_ALLOW_SEALING)
    let region = try memory.makeExternal(file.hand(), offset: 0, bytes: 1 << 20, pools: Self.pools, name: "ext")
    #expect(file.punch(0..<1 << 20))
    #expect(unsafe rw_read32(region.allocator.bufferBase) == 0 && !region.isQuarantined)
    file.cut(to: 0)
    #expect(unsafe rw_read32(region.allocator.bufferBase) == 0 && !region.isQuarantined, "sealed: it cannot be cut")
  }

  /// Files in a hugetlbfs of two pages, in a mount namespace of its own; they outlive both.
  private func tinyHugetlbfs(_ names: [String]) throws -> [Int32] {
    let made = Guarded<[Int32]>([])
    let thread = try JoinedThread(name: "mounts") {
      guard rw_unshare(0x20000) == 0,  // CLONE_NEWNS
        unsafe mount("none", "/", nil, UInt(MS_REC | MS_PRIVATE), nil) == 0,
        unsafe "pagesize=2M,size=4M".withCString({ unsafe mount("hugetlbfs", "/mnt", "hugetlbfs", 0, $0) }) == 0
      else { return }
      made.withLock { $0 = names.map { unsafe rw_open("/mnt/\($0)", O_RDWR | O_CREAT | O_CLOEXEC, 0o600) } }
    }
    thread.join()
    let files = made.withLock { $0 }
    try #require(files.count == names.count && files.allSatisfy { $0 >= 0 }, "no mount could be made")
    return files
  }

  @Test(.enabled(if: Lab.isRoot, Lab.reason)) func `a hole in hugepages that cannot be filled quarantines the region`() throws {
    try Lab.reserve(8)
    let files = try tinyHugetlbfs(["region", "thief"])
    let huge = Lab.size
    let file = try ProgramFile(OwnedDescriptor(taking: files[0]), 2 * huge)
    let memory = makeMemory()
    let region = try memory.makeExternal(file.hand(), offset: 0, bytes: UInt64(2 * huge), pools: Self.pools, name: "ext")
    #expect(region.allocator.backing == .hugetlbfs(pageSize: huge) && region.allocator.sharedBytes == 2 * huge)
    let holder = try region.enter()
    let last = unsafe region.allocator.pointer(ofBuffer: UInt32(region.allocator.bufferCount - 1))
    unsafe rw_write32(last, 77)
    try #require(file.punch(huge..<2 * huge))
    let thief = try ProgramFile(OwnedDescriptor(taking: files[1]), huge)
    thief[0] = 1
    #expect(unsafe rw_read32(last) == 0, "the page went to another file")
    #expect(region.isQuarantined)
    unsafe rw_write32(last, 78)
    #expect(unsafe rw_read32(last) == 78 && thief[0] == 1)
    #expect(try memory.global().enter() != .nobody)
    _ = holder
    region.leave()
    #expect(throws: NetmapError.self) { try region.enter() }
    #expect(region.isQuarantined, "there is still no page")
    try #require(thief.punch(0..<huge))
    #expect(try region.enter() != .nobody)
    unsafe rw_write32(last, 79)
    #expect(!region.isQuarantined && file[2 * huge - 2048] == 79, "the program sees what is written")
    region.leave()
  }
}
