// Regions by number: who has which, how they end, and what they tell.

import CRingway
import DMAMemory
import Glibc
import NetmapAPI
import Platform
import Synchronization
import Testing

@testable import NetmapCore

let smallSizes = PoolSizes(interfaces: 4, interfaceSize: 256, rings: 8, ringSize: 1024, buffers: 64, minimumBuffers: 16)

func makeMemory(
  _ backing: MemoryBacking = .normalPages, space: IOVAAllocator = IOVAAllocator(), change: (inout NetmapMemoryOptions) -> Void = { _ in }
) -> NetmapMemory {
  var options = NetmapMemoryOptions(sizes: smallSizes, privateSizes: smallSizes, backing: backing)
  change(&options)
  return NetmapMemory(options, space: space) { [] }
}

@Suite struct RegionTests {
  @Test func `all ports of a region have one holder, and the last one takes back what programs lost`() throws {
    let allocator = try makeAllocator()
    let region = NetmapRegion(allocator)
    let before = allocator.statistics[2].free
    let first = try region.enter(), second = try region.enter()
    #expect(first == second && region.users == 2)
    _ = try allocator.allocateBuffers(5, owner: first)
    #expect(region.leave() == 0 && allocator.statistics[2].free == before - 5)
    #expect(region.leave() == 5 && allocator.statistics[2].free == before)
    #expect(try region.enter() != first)
  }

  @Test func `the global region is 1, is made once, and is what 0 means`() throws {
    let memory = makeMemory()
    #expect(memory.regions.isEmpty, "nothing is taken before it is needed")
    let global = try memory.global()
    #expect(global.id == 1 && global.kind == .global)
    #expect(try memory.global() === global)
    #expect(try memory.find(0) === global && memory.find(1) === global && memory.region(1) === global)
    #expect(memory.regions.map(\.id) == [1])
  }

  @Test func `the global region is one, whoever asks first`() throws {
    let memory = makeMemory()
    let seen = Mutex<Set<ObjectIdentifier>>([])
    try onThreads(4) { _ in
      if let region = try? memory.global() { seen.withLock { _ = $0.insert(ObjectIdentifier(region)) } }
    }
    #expect(seen.withLock { $0.count } == 1)
  }

  @Test func `numbers are nobody else's while they are in use, and come again late`() throws {
    let memory = makeMemory()
    var held: [NetmapRegion] = []
    for i in 0..<5 { held.append(try memory.makePrivate(smallSizes, name: "p\(i)")) }
    #expect(held.map(\.id) == [2, 3, 4, 5, 6])
    held.remove(at: 1)
    #expect(memory.region(3) == nil)
    let next = try memory.makePrivate(smallSizes, name: "next")
    #expect(next.id == 7, "3 is not used at once: somebody may still know it")
    #expect(memory.region(7) === next && memory.regions.map(\.id) == [2, 4, 5, 6, 7])
    let error = #expect(throws: NetmapError.self) { try memory.find(3) }
    #expect(error?.code == .EINVAL && error?.problem.contains("2, 4, 5, 6, 7") == true)
  }

  @Test func `a table that has been through all numbers gives out the free ones`() throws {
    let table = RegionTable()
    for _ in 2...UInt16.max { table.release(try table.reserve(bytes: 0, mostRegions: 10, mostBytes: 0)) }
    #expect(try table.reserve(bytes: 0, mostRegions: 10, mostBytes: 0) == 2)
    for _ in 3...UInt16.max { table.release(try table.reserve(bytes: 0, mostRegions: 10, mostBytes: 0)) }
    #expect(try table.reserve(bytes: 0, mostRegions: 10, mostBytes: 0) == 3, "neither 0, 1, nor 2 again")
  }

  @Test func `regions of programs are limited in number and in bytes, and what is over comes back`() throws {
    let each = smallSizes.layout.count
    let memory = makeMemory {
      $0.mostRegions = 3
      $0.mostBytes = 2 * each + 100
    }
    var held = [try memory.makePrivate(smallSizes, name: "a"), try memory.makePrivate(smallSizes, name: "b")]
    let bytes = #expect(throws: NetmapError.self) { try memory.makePrivate(smallSizes, name: "c") }
    #expect(bytes?.code == .ENOMEM && bytes?.problem.contains("100 bytes") == true)
    held.removeFirst()
    held.append(try memory.makePrivate(smallSizes, name: "c"))
    let many = makeMemory { $0.mostRegions = 1 }
    let one = try many.makePrivate(smallSizes, name: "a")
    #expect(throws: NetmapError.self) { try many.makePrivate(smallSizes, name: "b") }
    _ = try many.global()
    #expect(one.id == 2 && many.regions.count == 2, "the global region is beside the limit")
  }

  @Test func `a region that cannot be made leaves no number behind`() throws {
    let memory = makeMemory(.memfd(pageSize: 3 << 20))
    let error = #expect(throws: NetmapError.self) { try memory.makePrivate(smallSizes, name: "a") }
    #expect(error?.code == .ENOMEM)
    #expect(throws: NetmapError.self) { try memory.global() }
    #expect(memory.regions.isEmpty && memory.region(2) == nil)
    let wrong = #expect(throws: NetmapError.self) { try makeMemory().makePrivate(PoolSizes(bufferSize: 100), name: "a") }
    #expect(wrong?.code == .EINVAL && wrong?.problem.contains("bufferSize") == true)
  }

  @Test func `a private region ends with its last user, in the order that everybody leaves`() throws {
    let memory = makeMemory()
    var first: NetmapRegion? = try memory.makePrivate(smallSizes, name: "p")
    let id = try #require(first).id
    var second = memory.region(id)
    #expect(second === first)
    first = nil
    #expect(memory.region(id) != nil)
    second = nil
    #expect(memory.region(id) == nil && memory.regions.isEmpty)
  }

  @Test(.enabled(if: Lab.isRoot, Lab.reason)) func `a private region gives its hugepages back`() throws {
    try Lab.reserve(16)
    let memory = makeMemory(.memfd(pageSize: Lab.size))
    var region: NetmapRegion? = try memory.makePrivate(PoolSizes(buffers: 4096, minimumBuffers: 4096), name: "p")
    let inode = try inode(of: try #require(region).allocator.exportDescriptor())
    #expect(try files(withInode: inode) == 1, "the region itself")
    region = nil
    #expect(memory.regions.isEmpty)
    #expect(try files(withInode: inode) == 0, "without a descriptor or a mapping the kernel has its pages back")
    let maps = try Files.read("/proc/self/maps")
    #expect(!maps.split(separator: "\n").contains { $0.contains("ringway-netmap") && $0.contains(" \(inode) ") })
  }

  private func inode(of file: consuming OwnedDescriptor) throws -> UInt64 {
    var status = stat()
    let raw = file.raw
    try #require(unsafe fstat(raw, &status) == 0)
    return UInt64(status.st_ino)
  }

  /// Open descriptors of this process that are a memory file with this inode.
  private func files(withInode inode: UInt64) throws -> Int {
    var count = 0
    for name in try Files.list("/proc/self/fd") {
      guard let raw = Int32(name), let target = try? Files.linkTarget("/proc/self/fd/\(name)"), target.contains("ringway-netmap") else { continue }
      var status = stat()
      if unsafe fstat(raw, &status) == 0, UInt64(status.st_ino) == inode { count += 1 }
    }
    return count
  }

  @Test func `regions lie beside each other on the bus and have no descriptors`() throws {
    let space = IOVAAllocator(), mapper = FakeMapper()
    let memory = makeMemory(space: space)
    let stack = try makeAllocator(space: space)
    let regions = [try memory.global(), try memory.makePrivate(smallSizes, name: "a"), try memory.makePrivate(smallSizes, name: "b")]
    try stack.attach(mapper)
    for region in regions { try region.attach(mapper) }
    #expect(mapper.mapped.count == 2 + 3, "the stack's memory has descriptors, a region has none")
    let ranges = mapper.mapped.map { $0.key.rawValue..<$0.key.rawValue + UInt64($0.value) }.sorted { $0.lowerBound < $1.lowerBound }
    for (a, b) in zip(ranges, ranges.dropFirst()) { #expect(a.upperBound <= b.lowerBound) }
    #expect(throws: NetmapAllocatorError.noDescriptorSpace(wanted: 64, alignment: 64, free: 0)) {
      try regions[0].allocator.allocateDescriptors(bytes: 64, alignment: 64, owner: mapper)
    }
    for region in regions { try region.detach(mapper, port: nil) }
    #expect(mapper.mapped.count == 2)
    try stack.detach(mapper)
  }

  @Test func `a card keeps a region for as long as it was attached, and while buffers are on their way`() throws {
    let mapper = FakeMapper()
    let region = try makeMemory().global()
    let port = try region.allocator.registerOwner("card")
    try region.attach(mapper)
    try region.attach(mapper)
    #expect(mapper.mapCalls == 1)
    let buffers = try region.allocator.allocateBuffers(3, owner: port)
    let busy = #expect(throws: NetmapError.self) { try region.detach(mapper, port: port) }
    #expect(busy?.code == .EBUSY && busy?.problem.contains("3 buffers") == true)
    region.allocator.freeBuffers(buffers, owner: port)
    try region.detach(mapper, port: port)
    #expect(mapper.mapped.count == 1, "attached twice")
    try region.detach(mapper, port: port)
    #expect(mapper.mapped.isEmpty)
    #expect(throws: NetmapError.self) { try region.detach(mapper, port: port) }
    mapper.failAfter = 0
    #expect(throws: NetmapError.self) { try region.attach(mapper) }
  }

  @Test func `statistics and leaks say which region it is`() throws {
    let said = Mutex<[String]>([])
    let memory = makeMemory { $0.atEnd = { name, report in said.withLock { $0.append("\(name): \(report)") } } }
    var lost: NetmapRegion? = try memory.makePrivate(smallSizes, name: "vale0:a")
    let global = try memory.global()
    _ = try lost?.allocator.allocateBuffers(3, owner: .stack)
    #expect(memory.leakReport().map(\.region) == ["2 (vale0:a)"])
    let figures = memory.statistics
    #expect(figures.map(\.id) == [1, 2] && figures.map(\.name) == ["global", "vale0:a"])
    #expect(figures[1].totalBuffers == 62 && figures[1].freeBuffers == 59 && figures[1].bufferSize == 2048)
    #expect(figures[1].pools.map(\.name) == ["interface", "ring", "buffer"] && figures[0].freeBuffers == 62)
    lost = nil
    #expect(said.withLock { $0 } == ["vale0:a: not given back: 3 of pool buffer by the stack"])
    _ = global
  }
}

@Suite struct RegionSizesTests {
  @Test func `POOLS_INFO tells offsets, objects and sizes of all three pools`() throws {
    let region = try makeMemory().makePrivate(smallSizes, name: "p")
    let pools = region.pools
    #expect(pools.memoryID == 2 && pools.memorySize == UInt64(region.allocator.sharedBytes))
    #expect(pools.interfaces == .init(offset: 0, objects: 4, objectSize: 256))
    #expect(pools.rings == .init(offset: 4096, objects: 8, objectSize: 1024))
    #expect(pools.buffers == .init(offset: 4096 + 8192, objects: 64, objectSize: 2048))
    // The same as the objects' own words.
    let ring = try region.allocator.allocateRing(slots: 8, id: 0, direction: .transmit)
    #expect(UInt64(ring.offset) == pools.rings.offset)
    let buffers = ring.offset + Int(unsafe rw_read64(ring.ring.base))
    #expect(UInt64(buffers) == pools.buffers.offset)
    region.allocator.freeRing(ring.index)
  }

  @Test func `a port's private region holds its rings, its extra buffers and no less than the template`() throws {
    let counts = RingCounts(transmit: 4, receive: 2, hostTransmit: 1, hostReceive: 1)
    let sizes = try smallSizes.holding(counts, transmitSlots: 1024, receiveSlots: 512, extraBuffers: 100, ports: 2)
    #expect(sizes.ringSize == 256 + 16 * 1024 && sizes.rings == 16 && sizes.interfaces == 4 && sizes.interfaceSize == 256)
    #expect(sizes.buffers == 2 * (4 * 1024 + 2 * 512 + 2 * 1024 + 100) + 2)
    let region = try makeMemory().makePrivate(sizes, name: "p")
    let holder = try region.enter()
    for _ in 0..<2 {
      for direction in [RingDirection.transmit, .receive] {
        for i in 0..<(direction == .transmit ? 5 : 3) {
          let slots = i == (direction == .transmit ? 4 : 2) ? 1024 : direction == .transmit ? 1024 : 512
          _ = try region.allocator.allocateRing(slots: slots, id: UInt16(i), direction: direction, owner: holder)
          _ = try region.allocator.allocateBuffers(slots, owner: holder)
        }
      }
      #expect(region.allocator.allocateExtra(100, holder: holder).count == 100)
      _ = try region.allocator.allocateInterface(name: "p", counts: counts, owner: holder)
    }
    #expect(region.leave() == sizes.buffers - 2)
    #expect(try smallSizes.holding(RingCounts(transmit: 1, receive: 1), transmitSlots: 2, receiveSlots: 2) == {
      var same = smallSizes
      same.minimumBuffers = 16
      return same
    }())
  }

  @Test(arguments: [
    (70000, 8, 8, 0), (-1, 8, 8, 0), (1, Int.max, 8, 0), (1, 8, -8, 0), (1, 8, 8, Int.max), (65536, 1 << 20, 8, 0), (1, 1 << 20, 8, 0),
  ])
  func `numbers that no region holds are EINVAL, not traps`(rings: Int, transmit: Int, receive: Int, extra: Int) {
    let counts = RingCounts(transmit: rings, receive: 1)
    let error = #expect(throws: NetmapError.self) {
      try smallSizes.holding(counts, transmitSlots: transmit, receiveSlots: receive, extraBuffers: extra)
    }
    #expect(error?.code == .EINVAL)
  }

  @Test func `a request that is too large says which pool, how much is there and what to change`() throws {
    let region = try makeMemory().global()
    func text(_ body: () throws(NetmapAllocatorError) -> Void) -> NetmapError? {
      do throws(NetmapAllocatorError) { try body() } catch { return error.netmapError }
      return nil
    }
    let ring = text { () throws(NetmapAllocatorError) in _ = try region.allocator.allocateRing(slots: 1000, id: 0, direction: .transmit) }
    #expect(ring?.code == .ENOMEM)
    #expect(ring?.problem == "16256 bytes do not fit an object of the ring pool, which has 1024. Ask for fewer slots, or raise the pool size `ringSize` in the configuration.")
    let buffers = text { () throws(NetmapAllocatorError) in _ = try region.allocator.allocateBuffers(63) }
    #expect(buffers?.problem == "the buffer pool has 62 free and 63 were wanted. Raise the pool size `buffers` in the configuration, close ports that are not used, or ask for fewer slots or extra buffers.")
  }
}
