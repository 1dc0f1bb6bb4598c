import DMAMemory
import Testing

@testable import NetmapCore

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
    #expect(index == 2)
    #expect(allocator.iova(ofBuffer: index).rawValue - allocator.bufferIOVABase.rawValue == 4096)
    #expect(allocator.iova(ofBuffer: 64) == allocator.bufferIOVABase)
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
    let memory = try allocator.allocateDescriptors(bytes: 4096, alignment: 4096, owner: mapper)
    #expect(memory.iova.rawValue % 4096 == 0)
    #expect(unsafe UInt(bitPattern: memory.pointer) % 4096 == 0)
    unsafe memory.pointer.storeBytes(of: 0xdead_beef, as: UInt32.self)
    #expect(throws: NetmapAllocatorError.stillInUse(bytes: 4096)) { try allocator.detach(mapper) }
    memory.release()
    let again = try allocator.allocateDescriptors(bytes: 4096, alignment: 4096, owner: mapper)
    #expect(again.iova == memory.iova)
    #expect(unsafe again.pointer.load(as: UInt32.self) == 0)
    again.release()
    try allocator.detach(mapper)
  }
}
