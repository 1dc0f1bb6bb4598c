// The one owner of DMA memory.

internal import CRingway
public import DMAMemory
public import Platform

/// Owns all memory that cards reach: the three netmap pools and the descriptor pool.
///
/// Control path: any thread may call, and calls take a lock. The packet path works on what the
/// calls returned: indices, `bufferBase`, `bufferIOVABase`.
@safe public final class NetmapAllocator: @unchecked Sendable {
  /// The sizes that were asked for, with the number of buffers that there really are.
  public let sizes: PoolSizes
  public let layout: RegionLayout
  public let backing: MemoryBacking
  public let node: Int?
  /// Set when memory was too short for all buffers: a sentence for the log.
  public let shortage: PoolShortage?

  let shared: DMARegion
  /// nil for memory that programs alone use: cards keep their descriptors elsewhere.
  let descriptors: DMARegion?
  // Everything below is protected by `lock`.
  let lock = ControlLock()
  var interfacePool: ObjectPool
  var ringPool: ObjectPool
  var bufferPool: ObjectPool
  var descriptorPool: DescriptorPool
  var attachments: [Attachment] = []
  var guardian: RegionGuard?
  var nextOwner: UInt32 = 16
  var ownerNames: [BufferOwner: String] = [:]

  /// Called once, when the allocator goes away and something was not given back.
  public var atEnd: (@Sendable (LeakReport) -> Void)? {
    get { locked { leakHandler } }
    set { locked { leakHandler = newValue } }
  }
  private var leakHandler: (@Sendable (LeakReport) -> Void)?

  /// A card, and how many times it was attached: functions in one VFIO container share a mapper.
  struct Attachment {
    let mapper: any DMAMapper
    var uses: Int
  }

  /// Makes the memory. No card is attached yet.
  /// - Parameters:
  ///   - sizes: asked for; with too little memory there may be fewer buffers, down to
  ///     `minimumBuffers`, and then `shortage` says so.
  ///   - backing: where pages come from.
  ///   - node: the NUMA node of the cards, or nil.
  ///   - reachable: the cards open at present: bus addresses are taken from what all of them reach.
  ///   - space: bus addresses in use; shared by the allocators of one process.
  public convenience init(
    sizes: PoolSizes = PoolSizes(), backing: MemoryBacking, node: Int? = nil, reachable: [any DMAMapper],
    space: IOVAAllocator = IOVAAllocator()
  ) throws(NetmapAllocatorError) {
    try self.init(sizes: sizes, reachable: reachable, space: space) { (name, bytes) throws(MemoryError) in
      try MemoryFile(name: name, bytes: bytes, backing: backing, node: node)
    }
  }

  convenience init(
    sizes: PoolSizes, descriptors: Bool = true, reachable: [any DMAMapper], space: IOVAAllocator, makeFile: FileMaker
  ) throws(NetmapAllocatorError) {
    try sizes.check()
    self.init(try Self.makeMemory(sizes, descriptors: descriptors, reachable: reachable, space: space, makeFile: makeFile))
  }

  /// In a program's own memory, without descriptors. `sizes` fit the file.
  convenience init(
    external file: consuming MemoryFile, sizes: PoolSizes, reachable: [any DMAMapper], space: IOVAAllocator
  ) throws(NetmapAllocatorError) {
    try sizes.check()
    do {
      let shared = try DMARegion(file, reachable: reachable, space: space)
      self.init(Memory(sizes: sizes, shortage: nil, shared: shared, descriptors: nil))
    } catch { throw .mapping(error) }
  }

  init(_ made: Memory) {
    self.sizes = made.sizes
    layout = made.sizes.layout
    shortage = made.shortage
    backing = made.shared.backing
    node = made.shared.node
    shared = made.shared
    descriptors = made.descriptors
    let final = made.sizes
    interfacePool = ObjectPool(name: "interface", count: final.interfaces, objectSize: final.interfaceSize)
    ringPool = ObjectPool(name: "ring", count: final.rings, objectSize: final.ringSize)
    bufferPool = ObjectPool(name: "buffer", count: final.buffers, objectSize: final.bufferSize, reserved: 2)
    descriptorPool = DescriptorPool(total: made.descriptors?.count ?? 0)
    // The regions are page-aligned and the pool offsets checked, so these lie inside.
    unsafe bufferBase = made.shared.base + made.sizes.layout.bufferOffset
    bufferIOVABase = made.shared.iova.advanced(by: made.sizes.layout.bufferOffset)
  }

  deinit {
    // Before the memory goes.
    guardian = nil
    let report = unlockedLeakReport()
    if !report.isEmpty { leakHandler?(report) }
  }

  // MARK: Buffers

  /// Bytes a buffer.
  public var bufferSize: Int { sizes.bufferSize }
  /// Buffers, the two reserved ones included: an index is below this.
  public var bufferCount: Int { sizes.buffers }
  /// Buffer i starts at `bufferBase + i * bufferSize`.
  public let bufferBase: UnsafeMutableRawPointer
  /// Buffer i starts at `bufferIOVABase + i * bufferSize` on the bus.
  public let bufferIOVABase: IOVA

  /// The bus address of a buffer. As in netmap, an index that does not exist gives buffer 0, which
  /// is nobody's.
  public func iova(ofBuffer index: UInt32) -> IOVA {
    bufferIOVABase.advanced(by: index < bufferCount ? Int(index) * bufferSize : 0)
  }

  /// The first byte of a buffer; buffer 0 for an index that does not exist.
  public func pointer(ofBuffer index: UInt32) -> UnsafeMutableRawPointer {
    unsafe bufferBase + (index < bufferCount ? Int(index) * bufferSize : 0)
  }

  /// Takes `count` buffers, or none.
  public func allocateBuffers(_ count: Int, owner: BufferOwner = .stack) throws(NetmapAllocatorError) -> [UInt32] {
    try locked { () throws(NetmapAllocatorError) in try bufferPool.allocate(count, owner: owner) }
  }

  /// Gives buffers back. What makes no sense is refused and counted.
  /// - Parameter owner: when given, only this owner's buffers are taken back.
  /// - Returns: how many were given back.
  @discardableResult public func freeBuffers(_ indices: some Sequence<UInt32>, owner: BufferOwner? = nil) -> Int {
    locked {
      var freed = 0
      for index in indices where bufferPool.release(index, owner: owner) == .freed { freed += 1 }
      return freed
    }
  }

  // MARK: Cards

  /// Makes both regions reachable for a card. A second call for the same card is counted, so that
  /// functions which share an IOMMU container need not know of each other.
  public func attach(_ mapper: any DMAMapper) throws(NetmapAllocatorError) {
    lock.lock()
    defer { lock.unlock() }
    if let index = attachments.firstIndex(where: { $0.mapper === mapper }) {
      attachments[index].uses += 1
      return
    }
    do { try shared.attach(mapper) } catch { throw .mapping(error) }
    do { try descriptors?.attach(mapper) } catch {
      try? shared.detach(mapper)
      throw .mapping(error)
    }
    attachments.append(Attachment(mapper: mapper, uses: 1))
  }

  /// Undoes one `attach`; the last one unmaps. The card's rings must be quiet and its descriptor
  /// memory released.
  public func detach(_ mapper: any DMAMapper) throws(NetmapAllocatorError) {
    lock.lock()
    defer { lock.unlock() }
    guard let index = attachments.firstIndex(where: { $0.mapper === mapper }) else { throw .notAttached }
    if attachments[index].uses > 1 {
      attachments[index].uses -= 1
      return
    }
    let held = descriptorPool.bytes(of: ObjectIdentifier(mapper))
    guard held == 0 else { throw .stillInUse(bytes: held) }
    // A half-done detach can be tried again: a region that is no longer attached is passed over.
    for case let region? in [descriptors, shared] where region.isAttached(mapper) {
      do { try region.detach(mapper) } catch { throw .mapping(error) }
    }
    attachments.remove(at: index)
  }

  /// Takes zeroed descriptor memory for a card that is attached.
  /// - Parameters:
  ///   - bytes: rounded up to cache lines.
  ///   - alignment: bytes, a power of two up to the page size; holds for the pointer and on the bus.
  ///   - owner: the card whose rings it is for.
  public func allocateDescriptors(bytes: Int, alignment: Int, owner: any DMAMapper) throws(NetmapAllocatorError)
    -> DescriptorMemory
  {
    guard let descriptors else { throw .noDescriptorSpace(wanted: bytes, alignment: alignment, free: 0) }
    guard alignment > 0, alignment & (alignment - 1) == 0, alignment <= descriptors.backing.pageSize else {
      throw .badAlignment(alignment)
    }
    lock.lock()
    defer { lock.unlock() }
    guard attachments.contains(where: { $0.mapper === owner }) else { throw .notAttached }
    guard
      let taken = descriptorPool.allocate(bytes: bytes, alignment: alignment, owner: ObjectIdentifier(owner)),
      let pointer = unsafe descriptors.pointer(at: taken.offset, length: taken.count),
      let iova = descriptors.iova(at: taken.offset, length: taken.count)
    else { throw .noDescriptorSpace(wanted: bytes, alignment: alignment, free: descriptorPool.free) }
    // SAFETY: `taken.count` bytes at `pointer` lie inside the region, and nobody else holds them.
    _ = unsafe pointer.initializeMemory(as: UInt8.self, repeating: 0, count: taken.count)
    return unsafe DescriptorMemory(
      self, offset: taken.offset, pointer: pointer, iova: iova, count: taken.count)
  }

  func releaseDescriptors(at offset: Int) {
    _ = locked { descriptorPool.release(offset) }
  }

  // MARK: Sharing

  /// Another descriptor for the shared region: interfaces, rings and buffers, never descriptors.
  public func exportDescriptor() throws(NetmapAllocatorError) -> OwnedDescriptor {
    let copy = rw_fcntl(shared.descriptor, F_DUPFD_CLOEXEC, 0)
    guard copy >= 0 else { throw .export(errno: rw_errno()) }
    return OwnedDescriptor(taking: copy)
  }

  /// Bytes of the shared region, whole pages: netmap's `memsize`.
  public var sharedBytes: Int { shared.count }
  /// First byte of the shared region in this process.
  public var sharedBase: UnsafeMutableRawPointer { unsafe shared.base }
}

/// A piece of descriptor memory. Goes back to the pool with `release` or with the last reference.
@safe public final class DescriptorMemory {
  public let pointer: UnsafeMutableRawPointer
  public let iova: IOVA
  /// Bytes.
  public let count: Int
  private let offset: Int
  private var allocator: NetmapAllocator?

  @unsafe init(_ allocator: NetmapAllocator, offset: Int, pointer: UnsafeMutableRawPointer, iova: IOVA, count: Int) {
    self.allocator = allocator
    self.offset = offset
    unsafe self.pointer = pointer
    self.iova = iova
    self.count = count
  }

  /// Gives the memory back; the card must not be using it any more. Further calls do nothing.
  public func release() {
    allocator?.releaseDescriptors(at: offset)
    allocator = nil
  }

  deinit { release() }
}
