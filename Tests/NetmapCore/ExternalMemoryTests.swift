// Regions in a program's own file.

import CRingway
import Glibc
import NetmapAPI
import Platform
import Testing

@testable import NetmapCore

/// A program's memory file, and the program's own mapping of it.
@safe final class ProgramFile {
  let file: OwnedDescriptor
  let base: UnsafeMutableRawPointer
  let count: Int

  convenience init(_ count: Int, flags: UInt32 = 0) throws {
    let raw = unsafe rw_memfd_create("programs", RW_MFD_CLOEXEC | flags)
    try #require(raw >= 0)
    try self.init(OwnedDescriptor(taking: raw), count)
  }
  init(_ file: consuming OwnedDescriptor, _ count: Int) throws {
    let raw = file.raw
    try #require(ftruncate(raw, off_t(count)) == 0)
    unsafe base = try #require(unsafe mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, raw, 0))
    self.count = count
    self.file = file
  }
  deinit { _ = unsafe munmap(base, count) }

  /// What is sent to the daemon.
  func hand() -> OwnedDescriptor { OwnedDescriptor(taking: rw_fcntl(file.raw, F_DUPFD_CLOEXEC, 0)) }
  /// Punches a hole (MADV_REMOVE, 9).
  func punch(_ range: Range<Int>) -> Bool { unsafe madvise(base + range.lowerBound, range.count, 9) == 0 }
  func cut(to bytes: Int) { _ = ftruncate(file.raw, off_t(bytes)) }
  subscript(offset: Int) -> UInt32 {
    get { unsafe rw_read32(base + offset) }
    set { unsafe rw_write32(base + offset, newValue) }
  }
}

extension PoolsInfo {
  init(_ interfaces: (UInt32, UInt32), _ rings: (UInt32, UInt32), _ buffers: (UInt32, UInt32)) {
    self.init()
    self.interfaces = Pool(objects: interfaces.0, objectSize: interfaces.1)
    self.rings = Pool(objects: rings.0, objectSize: rings.1)
    self.buffers = Pool(objects: buffers.0, objectSize: buffers.1)
  }
}

@Suite struct ExternalMemoryTests {
  private func code(_ body: () throws(NetmapError) -> Void) -> NetmapError.Code? {
    do throws(NetmapError) { try body() } catch {
      #expect(error.problem.hasPrefix("ext: "))
      return error.code
    }
    return nil
  }

  @Test func `the program sees the region in its own file, from the offset on`() throws {
    let file = try ProgramFile(1 << 20, flags: RW_MFD_ALLOW_SEALING)
    let memory = makeMemory()
    let region = try memory.makeExternal(
      file.hand(), offset: 8192, bytes: 900_000, pools: PoolsInfo((3, 200), (6, 1000), (100, 2000)), name: "ext")
    #expect(region.kind == .external && region.id == 2 && memory.region(2) === region && region.allocator.sharedFileOffset == 8192)
    let pools = region.pools
    #expect(pools.interfaces == .init(offset: 0, objects: 3, objectSize: 256), "sizes are rounded up to cache lines")
    #expect(pools.rings == .init(offset: 4096, objects: 6, objectSize: 1024))
    #expect(pools.buffers == .init(offset: 4096 + 8192, objects: 100, objectSize: 2048))
    #expect(pools.memorySize == 900_000 & ~4095)
    let holder = try region.enter()
    let ring = try region.allocator.allocateRing(slots: 8, id: 5, direction: .receive, owner: holder)
    #expect(file[8192 + ring.offset + 8] == 8, "num_slots")
    let (head, count) = region.allocator.allocateExtra(2, holder: holder)
    #expect(count == 2 && file[8192 + Int(pools.buffers.offset) + Int(head) * 2048] != 0)
    // The program's ring says nonsense: nothing of it is believed.
    file[8192 + ring.offset + 8] = .max
    #expect(ring.ring.slotCount == 8)
    #expect(region.leave() == 2)
  }

  @Test func `what is not asked for is chosen, and buffers are as many as fit`() throws {
    let file = try ProgramFile(4 << 20)
    let region = try makeMemory().makeExternal(file.hand(), offset: 0, bytes: 4 << 20, pools: PoolsInfo(), name: "ext")
    let pools = region.pools
    #expect(pools.interfaces.objects == 4 && pools.rings.objects == 8 && pools.rings.objectSize == 20480 && pools.buffers.objectSize == 2048)
    #expect(Int(pools.buffers.objects) == (4 << 20) / 2048 - Int(pools.buffers.offset) / 2048)
    let many = try makeMemory().makeExternal(
      file.hand(), offset: 0, bytes: 4 << 20, pools: PoolsInfo((0, 0), (0, 0), (.max, 0)), name: "ext")
    #expect(many.pools.buffers == pools.buffers, "more than fit are not there")
  }

  @Test func `the last buffer lies inside the file`() throws {
    for bytes in [200_000, 262_144, 300_001] {
      let file = try ProgramFile(bytes)
      let region = try makeMemory().makeExternal(
        file.hand(), offset: 0, bytes: UInt64(bytes), pools: PoolsInfo((1, 64), (1, 320), (0, 0)), name: "ext")
      let end = Int(region.pools.buffers.offset) + Int(region.pools.buffers.objects) * 2048
      #expect(end <= region.allocator.sharedBytes && region.allocator.sharedBytes <= bytes && bytes - end < 4096 + 2048)
    }
  }

  @Test(arguments: [
    PoolsInfo((.max, 0), (0, 0), (0, 0)), PoolsInfo((0, .max), (0, 0), (0, 0)), PoolsInfo((0, 0), (.max, .max), (0, 0)),
    PoolsInfo((0, 0), (0, 64), (0, 0)), PoolsInfo((0, 0), (0, 0), (0, .max)), PoolsInfo((0, 0), (0, 0), (0, 65537)),
    PoolsInfo((.max, .max), (.max, .max), (.max, .max)),
  ])
  func `sizes that cannot work are EINVAL, not traps`(pools: PoolsInfo) throws {
    let file = try ProgramFile(1 << 20), memory = makeMemory()
    let error = #expect(throws: NetmapError.self) {
      try memory.makeExternal(file.hand(), offset: 0, bytes: 1 << 20, pools: pools, name: "ext")
    }
    #expect(error?.code == .EINVAL && memory.regions.isEmpty)
  }

  @Test func `files and ranges that cannot work leave nothing behind`() throws {
    let memory = makeMemory()
    let file = try ProgramFile(1 << 20)
    func make(_ offset: UInt64, _ bytes: UInt64, _ pools: PoolsInfo = PoolsInfo()) -> NetmapError.Code? {
      code { () throws(NetmapError) in
        _ = try memory.makeExternal(file.hand(), offset: offset, bytes: bytes, pools: pools, name: "ext")
      }
    }
    #expect(make(0, 0) == .EINVAL && make(0, (1 << 20) + 4096) == .EINVAL && make(100, 8192) == .EINVAL)
    #expect(make(1 << 20, 8192) == .EINVAL && make(UInt64.max & ~4095, 8192) == .EINVAL && make(0, .max) == .EINVAL)
    #expect(make(0, 65536) == .ENOMEM, "the pools do not fit")
    #expect(make(0, 1 << 20, PoolsInfo((0, 0), (60000, 4 << 20), (0, 0))) == .ENOMEM)
    let event = try EventFD()
    let copy = rw_fcntl(event.descriptor, F_DUPFD_CLOEXEC, 0)
    #expect(code { () throws(NetmapError) in
      _ = try memory.makeExternal(OwnedDescriptor(taking: copy), offset: 0, bytes: 4096, pools: PoolsInfo(), name: "ext")
    } == .EINVAL)
    let readOnly = unsafe rw_open("/proc/self/fd/\(file.file.raw)", O_RDONLY | O_CLOEXEC, 0)
    #expect(code { () throws(NetmapError) in
      _ = try memory.makeExternal(OwnedDescriptor(taking: readOnly), offset: 0, bytes: 1 << 20, pools: PoolsInfo(), name: "ext")
    } == .EACCES)
    #expect(memory.regions.isEmpty)
    // Too many bytes for all programs together: the file is closed nevertheless.
    let small = makeMemory { $0.mostBytes = 4096 }
    let error = #expect(throws: NetmapError.self) {
      try small.makeExternal(file.hand(), offset: 0, bytes: 1 << 20, pools: PoolsInfo(), name: "ext")
    }
    #expect(error?.code == .ENOMEM && small.regions.isEmpty)
    #expect(try open(file.file.raw) == 1, "the program's own")
    #expect(make(0, 1 << 20) == nil)
  }

  /// How many descriptors of this process are of this file.
  private func open(_ raw: Int32) throws -> Int {
    var wanted = stat()
    try #require(unsafe fstat(raw, &wanted) == 0)
    return try Files.list("/proc/self/fd").count { name in
      var status = stat()
      guard let number = Int32(name), unsafe fstat(number, &status) == 0 else { return false }
      return status.st_ino == wanted.st_ino && status.st_dev == wanted.st_dev
    }
  }
}
