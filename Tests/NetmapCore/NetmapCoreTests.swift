import CRingway
import DMAMemory
import Glibc
import Platform
import Testing

@testable import NetmapCore

/// SplitMix64: the same numbers for the same seed.
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// Small pools on normal pages: these tests are about bookkeeping, not about pages.
func makeAllocator(
  buffers: Int = 64, reachable: [any DMAMapper] = [], space: IOVAAllocator = IOVAAllocator()
) throws -> NetmapAllocator {
  try NetmapAllocator(
    sizes: PoolSizes(
      interfaces: 2, interfaceSize: 256, rings: 4, ringSize: 1024, buffers: buffers, minimumBuffers: 16,
      descriptorBytes: 16384),
    backing: .normalPages, reachable: reachable, space: space)
}

@Suite struct AllocatorTests {
  @Test func `a buffer is at the same distance from the base in memory and on the bus`() throws {
    let mapper = FakeMapper()
    let allocator = try makeAllocator(reachable: [mapper])
    try allocator.attach(mapper)
    #expect(mapper.mapped.count == 2)
    let index = try allocator.allocateBuffers(1)[0]
    #expect(index == 2, "0 and 1 are reserved")
    #expect(allocator.iova(ofBuffer: index).rawValue - allocator.bufferIOVABase.rawValue == 4096)
    #expect(unsafe allocator.pointer(ofBuffer: index) == allocator.bufferBase + 4096)
    for bad in [64, 65, UInt32.max] {
      #expect(allocator.iova(ofBuffer: bad) == allocator.bufferIOVABase)
      #expect(unsafe allocator.pointer(ofBuffer: bad) == allocator.bufferBase)
    }
    // The card reaches the last buffer's last byte, and the buffers do not end behind the mapping.
    let last = allocator.iova(ofBuffer: 63).advanced(by: 2047)
    #expect(mapper.mapped.contains { $0.key <= last && last.rawValue < $0.key.rawValue + UInt64($0.value) })
    try allocator.detach(mapper)
    #expect(mapper.mapped.isEmpty)
  }

  @Test func `descriptor memory is zeroed, aligned and keeps its card attached`() throws {
    let mapper = FakeMapper()
    let allocator = try makeAllocator(reachable: [mapper])
    #expect(throws: NetmapAllocatorError.notAttached) {
      try allocator.allocateDescriptors(bytes: 64, alignment: 64, owner: mapper)
    }
    try allocator.attach(mapper)
    for bad in [0, -64, 48, 8192] {
      #expect(throws: NetmapAllocatorError.badAlignment(bad)) {
        try allocator.allocateDescriptors(bytes: 64, alignment: bad, owner: mapper)
      }
    }
    let memory = try allocator.allocateDescriptors(bytes: 4096, alignment: 4096, owner: mapper)
    #expect(memory.iova.rawValue % 4096 == 0)
    #expect(unsafe UInt(bitPattern: memory.pointer) % 4096 == 0)
    unsafe memory.pointer.storeBytes(of: 0xdead_beef, as: UInt32.self)
    #expect(throws: NetmapAllocatorError.stillInUse(bytes: 4096)) { try allocator.detach(mapper) }
    memory.release()
    memory.release()
    #expect(allocator.statistics[3].doubleFrees == 0, "a second release does nothing")
    let again = try allocator.allocateDescriptors(bytes: 4096, alignment: 4096, owner: mapper)
    #expect(again.iova == memory.iova)
    #expect(unsafe again.pointer.load(as: UInt32.self) == 0)
    #expect(throws: NetmapAllocatorError.noDescriptorSpace(wanted: 16384, alignment: 64, free: 12288)) {
      try allocator.allocateDescriptors(bytes: 16384, alignment: 64, owner: mapper)
    }
    again.release()
    try allocator.detach(mapper)
  }

  @Test func `descriptor memory that nobody refers to any more goes back by itself`() throws {
    let mapper = FakeMapper()
    let allocator = try makeAllocator(reachable: [mapper])
    try allocator.attach(mapper)
    do { _ = try allocator.allocateDescriptors(bytes: 100, alignment: 16, owner: mapper) }
    #expect(allocator.statistics[3].free == 16384)
    try allocator.detach(mapper)
  }

  @Test func `two functions behind one IOMMU map once and unmap once`() throws {
    let mapper = FakeMapper()
    let allocator = try makeAllocator(reachable: [mapper])
    try allocator.attach(mapper)
    try allocator.attach(mapper)
    #expect(mapper.mapCalls == 2, "one call for each region")
    try allocator.detach(mapper)
    #expect(mapper.mapped.count == 2)
    try allocator.detach(mapper)
    #expect(mapper.mapped.isEmpty)
    #expect(throws: NetmapAllocatorError.notAttached) { try allocator.detach(mapper) }
  }

  @Test func `a half-done attach is undone, a half-done detach can be tried again`() throws {
    let mapper = FakeMapper()
    let allocator = try makeAllocator(reachable: [mapper])
    mapper.failAfter = 1
    #expect(throws: NetmapAllocatorError.self) { try allocator.attach(mapper) }
    #expect(mapper.mapped.isEmpty)
    mapper.failAfter = nil
    try allocator.attach(mapper)
    mapper.unmapsBeforeRefusal = 1
    #expect(throws: NetmapAllocatorError.self) { try allocator.detach(mapper) }
    #expect(mapper.mapped.count == 1)
    mapper.unmapsBeforeRefusal = nil
    try allocator.detach(mapper)
    #expect(mapper.mapped.isEmpty)
  }

  @Test func `two allocators of one process never share a bus address`() throws {
    let space = IOVAAllocator()
    let mapper = FakeMapper()
    let one = try makeAllocator(reachable: [mapper], space: space)
    let two = try makeAllocator(reachable: [mapper], space: space)
    try one.attach(mapper)
    try two.attach(mapper)
    #expect(mapper.mapped.count == 4)
    let ranges = mapper.mapped.map { $0.key.rawValue..<$0.key.rawValue + UInt64($0.value) }.sorted { $0.lowerBound < $1.lowerBound }
    for (a, b) in zip(ranges, ranges.dropFirst()) { #expect(a.upperBound <= b.lowerBound) }
  }

  @Test func `what is exported holds the three pools and not the descriptors`() throws {
    let mapper = FakeMapper()
    let allocator = try makeAllocator(reachable: [mapper])
    try allocator.attach(mapper)
    let descriptors = try allocator.allocateDescriptors(bytes: 4096, alignment: 4096, owner: mapper)
    unsafe descriptors.pointer.storeBytes(of: 0x5ec2_e700_5ec2_e700, as: UInt64.self)
    let buffer = try allocator.allocateBuffers(1)[0]
    unsafe allocator.pointer(ofBuffer: buffer).storeBytes(of: 0x1122_3344, as: UInt32.self)

    let exported = try allocator.exportDescriptor()
    let raw = exported.raw
    #expect(lseek(raw, 0, SEEK_END) == allocator.sharedBytes)
    var bytes = [UInt8](repeating: 0, count: allocator.sharedBytes)
    let got = unsafe bytes.withUnsafeMutableBytes { unsafe pread(raw, $0.baseAddress, $0.count, 0) }
    #expect(got == allocator.sharedBytes)
    let words = unsafe bytes.withUnsafeBytes { unsafe Array($0.bindMemory(to: UInt64.self)) }
    #expect(!words.contains(0x5ec2_e700_5ec2_e700))
    let at = allocator.layout.bufferOffset + Int(buffer) * 2048
    #expect(Array(bytes[at..<at + 4]) == [0x44, 0x33, 0x22, 0x11])
    #expect(ftruncate(raw, 0) == -1, "a program cannot cut the region")
    descriptors.release()
  }

  @Test(arguments: [
    ("buffers", PoolSizes(buffers: 3)), ("bufferSize", PoolSizes(bufferSize: 2000)), ("bufferSize", PoolSizes(bufferSize: 0)),
    ("bufferSize", PoolSizes(bufferSize: 1 << 17)), ("rings", PoolSizes(rings: 0)), ("ringSize", PoolSizes(ringSize: 256)),
    ("interfaces", PoolSizes(interfaces: -1)), ("interfaceSize", PoolSizes(interfaceSize: Int.max)),
    ("buffers", PoolSizes(buffers: Int.max)), ("descriptorBytes", PoolSizes(descriptorBytes: 0)),
    ("minimumBuffers", PoolSizes(minimumBuffers: 0)),
  ])
  func `sizes that cannot work are refused by name`(field: String, sizes: PoolSizes) {
    let error = #expect(throws: NetmapAllocatorError.self) {
      try NetmapAllocator(sizes: sizes, backing: .normalPages, reachable: [])
    }
    guard case .badSize(field, _) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }
}

@Suite struct ShortageTests {
  /// Memory with so many hugepages, and no more.
  private func allocator(pages: Int, minimum: Int) throws -> NetmapAllocator {
    var left = pages
    let huge = 2 << 20
    // A descriptor page, and eleven for the pools.
    return try NetmapAllocator(
      sizes: PoolSizes(buffers: 8192, minimumBuffers: minimum), reachable: [], space: IOVAAllocator()
    ) { (name, bytes) throws(MemoryError) in
      let wanted = (bytes + huge - 1) / huge
      guard wanted <= left else {
        throw .tooFewHugepages(wanted: wanted, available: left, pageSize: huge, node: nil, total: pages)
      }
      left -= wanted
      return try MemoryFile(name: name, bytes: wanted * huge, backing: .normalPages)
    }
  }

  @Test func `with enough memory nothing is said`() throws {
    let allocator = try allocator(pages: 32, minimum: 512)
    #expect(allocator.shortage == nil && allocator.bufferCount == 8192)
  }

  @Test func `with too little there are as many buffers as fit, and that is said`() throws {
    let allocator = try allocator(pages: 10, minimum: 512)
    #expect(allocator.layout.count <= 9 << 21)
    #expect(allocator.layout.count > 8 << 21, "no page is left unused")
    let shortage = try #require(allocator.shortage)
    #expect(shortage.wantedBuffers == 8192 && shortage.buffers == allocator.bufferCount)
    #expect(shortage.description.hasPrefix("\(allocator.bufferCount) buffers instead of 8192: 12 hugepages of 2 MiB wanted, 10 available."))
    let all = try allocator.allocateBuffers(allocator.bufferCount - 2)
    #expect(throws: NetmapAllocatorError.exhausted(pool: "buffer", wanted: 1, free: 0)) { try allocator.allocateBuffers(1) }
    #expect(allocator.freeBuffers(all) == all.count)
  }

  @Test func `below the floor the first error is told`() {
    #expect(throws: NetmapAllocatorError.memory(
      .tooFewHugepages(wanted: 12, available: 10, pageSize: 2 << 20, node: nil, total: 10))
    ) { try allocator(pages: 10, minimum: 8000) }
    #expect(throws: NetmapAllocatorError.memory(
      .tooFewHugepages(wanted: 12, available: 0, pageSize: 2 << 20, node: nil, total: 0))
    ) { try allocator(pages: 0, minimum: 512) }
  }

  @Test(.enabled(if: Lab.isRoot, Lab.reason)) func `on real hugepages, bound to a node`() throws {
    try Lab.reserve(8)
    let mapper = FakeMapper()
    let allocator = try NetmapAllocator(
      sizes: PoolSizes(buffers: 2048), backing: .memfd(pageSize: 2 << 20), node: 0, reachable: [mapper])
    try allocator.attach(mapper)
    #expect(allocator.shortage == nil)
    #expect(allocator.sharedBytes % (2 << 20) == 0)
    #expect(mapper.mapped.keys.allSatisfy { $0.rawValue % (2 << 20) == 0 }, "so that the IOMMU can use large pages")
    try allocator.detach(mapper)
  }
}
