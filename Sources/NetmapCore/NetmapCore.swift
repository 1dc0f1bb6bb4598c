// NetmapCore: the memory that cards, the stack and netmap programs share.
//
//   shared region, one memory file that programs may map        descriptor region, never exported
//   ┌────────────┬───────────┬──────────────────────────────┐   ┌──────────────────────────────┐
//   │ interfaces │   rings   │ buffers 0 1 │ 2 3 4 …         │   │ the cards' descriptor rings  │
//   └────────────┴───────────┴──────────────────────────────┘   └──────────────────────────────┘
//     netmap_if    256 bytes    reserved       one frame each      DescriptorMemory, zeroed
//                  + 16 a slot
//
// Who owns what: `NetmapAllocator` owns both regions. What is given out is written down in private
// memory (`ObjectPool`, `DescriptorPool`): free lists, owners, counters. Nothing that a card or a
// program can write ever decides what the allocator does.
//
// Invariants
// - Both regions are contiguous in this process and on the bus, at the same bus address for every
//   card; buffer i is at `bufferBase + i * bufferSize` and at `bufferIOVABase + i * bufferSize`.
// - Buffers 0 and 1 are never given out (netmap keeps 0 for "none" and 1 for broken slots).
// - A program that could write a descriptor could write any bus address: descriptors have a file
//   of their own, whose descriptor leaves this module only inside `DMASource`, for mappers.
// - A free that makes no sense (twice, never given out, somebody else's) changes a counter only.

/// How large the four pools are.
public struct PoolSizes: Equatable, Sendable {
  /// Objects in the interface pool: one for each open netmap port.
  public var interfaces: Int
  /// Bytes an interface object: 56 and 8 for each ring of the port; a multiple of 64.
  public var interfaceSize: Int
  /// Objects in the ring pool.
  public var rings: Int
  /// Bytes a ring object: 256 and 16 a slot; a multiple of 64.
  public var ringSize: Int
  /// Buffers, the two reserved ones included.
  public var buffers: Int
  /// Bytes a buffer: a multiple of 64, at most 65536.
  public var bufferSize: Int
  /// With fewer buffers than this the allocator fails rather than to shrink further.
  public var minimumBuffers: Int
  /// Bytes for the cards' descriptor rings.
  public var descriptorBytes: Int

  /// 32 MiB of buffers; rings of up to 2288 slots; 2 MiB of descriptors.
  public init(
    interfaces: Int = 64, interfaceSize: Int = 1024, rings: Int = 128, ringSize: Int = 36864, buffers: Int = 16384,
    bufferSize: Int = 2048, minimumBuffers: Int = 512, descriptorBytes: Int = 2 << 20
  ) {
    self.interfaces = interfaces
    self.interfaceSize = interfaceSize
    self.rings = rings
    self.ringSize = ringSize
    self.buffers = buffers
    self.bufferSize = bufferSize
    self.minimumBuffers = minimumBuffers
    self.descriptorBytes = descriptorBytes
  }

  /// Where the pools lie in the shared region.
  public var layout: RegionLayout {
    func pages(_ bytes: Int) -> Int { (bytes + 4095) & ~4095 }
    let rings = pages(interfaces * interfaceSize)
    let buffers = rings + pages(self.rings * ringSize)
    return RegionLayout(ringOffset: rings, bufferOffset: buffers, count: buffers + self.buffers * bufferSize)
  }

  /// Throws for sizes that cannot work. Every later computation relies on the limits here.
  func check() throws(NetmapAllocatorError) {
    func need(_ ok: Bool, _ field: String, _ rule: String) throws(NetmapAllocatorError) {
      if !ok { throw .badSize(field: field, rule: rule) }
    }
    try need((1...(1 << 16)).contains(interfaces), "interfaces", "is at least 1 and at most 65536")
    try need((1...(1 << 16)).contains(rings), "rings", "is at least 1 and at most 65536")
    try need(Self.fits(interfaceSize, 64...(1 << 20)), "interfaceSize", "is a multiple of 64 up to 1 MiB")
    try need(Self.fits(ringSize, 320...(1 << 22)), "ringSize", "is a multiple of 64 from 320 bytes to 4 MiB")
    try need(Self.fits(bufferSize, 64...65536), "bufferSize", "is a multiple of 64 up to 65536")
    try need((4...(1 << 28)).contains(buffers), "buffers", "is at least 4 and at most 268435456")
    try need((3...(1 << 28)).contains(minimumBuffers), "minimumBuffers", "is at least 3")
    try need((4096...(1 << 34)).contains(descriptorBytes), "descriptorBytes", "is at least 4096 and at most 16 GiB")
  }

  private static func fits(_ size: Int, _ range: ClosedRange<Int>) -> Bool { range.contains(size) && size % 64 == 0 }
}

/// Offsets in the shared region, in bytes. The interface pool starts at 0.
public struct RegionLayout: Equatable, Sendable {
  public let ringOffset: Int
  public let bufferOffset: Int
  /// Bytes of all three pools: netmap's `memsize`, before it is rounded up to whole pages.
  public let count: Int
}
