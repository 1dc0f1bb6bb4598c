// The regions of a process, by number.
//
//   global() ── region 1 ── every port that asks for nothing else
//   makePrivate() ── region 2, 3, … ── a switch's or a pipe's port, whoever names the number
//   makeExternal() ── a program's own file ── whoever names the number
//
// Every region is an allocator of its own, apart from the stack's: what the stack receives and sends
// never lies in memory that a program maps. All of them take bus addresses from one space, so that a
// card may be given any number of regions.
//
// Invariants
// - A number belongs to one region for as long as that is there, and is used again as late as possible.
// - The table holds the global region and only looks at the others: a region ends with its last user,
//   and its pages go back to the kernel then.
// - Regions beside the global one are limited in number and in bytes, because programs ask for them.

public import DMAMemory
public import NetmapAPI
internal import Platform

/// Of what size the regions are, and how many there may be.
public struct NetmapMemoryOptions: Sendable {
  /// The global region's pools. `descriptorBytes` counts for nothing: programs have no descriptors.
  public var sizes: PoolSizes
  /// Where the sizes of private regions' objects come from, and the least they have.
  public var privateSizes: PoolSizes
  /// Where pages come from.
  public var backing: MemoryBacking
  /// The NUMA node of the pages, or nil.
  public var node: Int?
  /// Regions beside the global one, at most.
  public var mostRegions = 256
  /// Bytes of all regions beside the global one, at most.
  public var mostBytes = 4 << 30
  /// An eventfd that is signalled when a region loses memory (`NetmapRegion.isQuarantined`), or -1. Open for as long as
  /// any region.
  public var faultEvent: Int32 = -1
  /// Called when a region ends and something in it was not given back; the name is the region's.
  public var atEnd: (@Sendable (_ region: String, LeakReport) -> Void)?

  public init(
    sizes: PoolSizes = PoolSizes(),
    privateSizes: PoolSizes = PoolSizes(interfaces: 8, rings: 16, buffers: 4098, minimumBuffers: 128),
    backing: MemoryBacking = .normalPages, node: Int? = nil
  ) {
    self.sizes = sizes
    self.privateSizes = privateSizes
    self.backing = backing
    self.node = node
  }
}

/// The registry of netmap regions. Any thread.
public final class NetmapMemory: Sendable {
  public let options: NetmapMemoryOptions
  let space: IOVAAllocator
  let reachable: @Sendable () -> [any DMAMapper]
  private let table = RegionTable()
  private let kept = Guarded<NetmapRegion?>(nil)

  /// Takes no memory yet.
  /// - Parameters:
  ///   - space: bus addresses in use; shared by all allocators of the process.
  ///   - reachable: the cards open at present: new regions get bus addresses that all of them reach.
  public init(
    _ options: NetmapMemoryOptions = NetmapMemoryOptions(), space: IOVAAllocator = IOVAAllocator(),
    reachable: @escaping @Sendable () -> [any DMAMapper] = { [] }
  ) {
    self.options = options
    self.space = space
    self.reachable = reachable
  }

  /// With a global region that is there already, and that is in no other registry.
  public convenience init(global: NetmapRegion, space: IOVAAllocator = IOVAAllocator()) {
    self.init(space: space)
    table.publish(global)
    kept.withLock { $0 = global }
  }

  /// The global region: made at first use, kept from then on.
  /// - Throws: ENOMEM when its memory cannot be had, EINVAL for sizes that cannot work.
  public func global() throws(NetmapError) -> NetmapRegion {
    try kept.withLock { (kept: inout NetmapRegion?) throws(NetmapError) -> NetmapRegion in
      if let kept { return kept }
      let region = try guarded(
        try allocator(options.sizes, name: "global"), id: NetmapRegion.globalID, kind: .global, name: "global")
      kept = region
      return region
    }
  }

  /// The region of a number; nil when there is none. 1 is the global one, which is made if need be.
  public func region(_ id: UInt16) -> NetmapRegion? {
    id == NetmapRegion.globalID ? try? global() : table.region(id)
  }

  /// The region that a request names.
  /// - Parameter id: 0 means "none asked for", and gets the global region.
  /// - Throws: EINVAL for a number that nobody has, and what `global` throws.
  public func find(_ id: UInt16) throws(NetmapError) -> NetmapRegion {
    if id == 0 || id == NetmapRegion.globalID { return try global() }
    if let region = table.region(id) { return region }
    throw NetmapError(
      .EINVAL, "There is no memory region \(id). Ask with mem_id 0 for the port's own, or for one of \(table.ids).")
  }

  /// Makes a region that ends with its last user.
  /// - Parameters:
  ///   - sizes: `options.privateSizes.holding(…)` for a port's rings.
  ///   - name: the port that it is for.
  /// - Throws: ENOMEM when there are too many regions or too little memory, EINVAL for sizes that cannot work.
  public func makePrivate(_ sizes: PoolSizes, name: String) throws(NetmapError) -> NetmapRegion {
    try make(.privateMemory, bytes: sizes.checked().layout.count, name: name) { () throws(NetmapError) in
      try allocator(sizes, name: name)
    }
  }

  /// All regions, by number.
  public var regions: [NetmapRegion] { table.regions }

  /// A region under a fresh number, within the limits.
  func make(
    _ kind: NetmapRegionKind, bytes: Int, name: String, _ makeAllocator: () throws(NetmapError) -> NetmapAllocator
  ) throws(NetmapError) -> NetmapRegion {
    let id = try table.reserve(bytes: bytes, mostRegions: options.mostRegions, mostBytes: options.mostBytes)
    do throws(NetmapError) {
      return try guarded(try makeAllocator(), id: id, kind: kind, name: name)
    } catch {
      table.release(id)
      throw error
    }
  }

  private func guarded(
    _ allocator: NetmapAllocator, id: UInt16, kind: NetmapRegionKind, name: String
  ) throws(NetmapError) -> NetmapRegion {
    let fault = try allocator.guardShared(event: options.faultEvent)
    let region = NetmapRegion(allocator, id: id, kind: kind, name: name, table: table, fault: fault)
    table.publish(region)
    return region
  }

  private func allocator(_ sizes: PoolSizes, name: String) throws(NetmapError) -> NetmapAllocator {
    let backing = options.backing, node = options.node
    do {
      return watched(
        try NetmapAllocator(sizes: sizes, descriptors: false, reachable: reachable(), space: space) {
          (label, bytes) throws(MemoryError) in
          try MemoryFile(name: label, bytes: bytes, backing: backing, node: node)
        }, name: name)
    } catch { throw error.netmapError }
  }

  func watched(_ allocator: NetmapAllocator, name: String) -> NetmapAllocator {
    if let atEnd = options.atEnd { allocator.atEnd = { report in atEnd(name, report) } }
    return allocator
  }
}

/// Who has which number. Apart from `NetmapMemory`, because regions hold it and may outlive that.
final class RegionTable: Sendable {
  private struct Entry {
    /// nil while the region is being made.
    weak var region: NetmapRegion?
    let bytes: Int
  }
  private struct State {
    var entries: [UInt16: Entry] = [:]
    var bytes = 0
    /// Where the search for a free number starts.
    var next: UInt16 = 2
    mutating func advance() { next = next == .max ? 2 : next + 1 }
  }
  private let state = Guarded(State())

  /// Takes a number beside 0 and 1.
  func reserve(bytes: Int, mostRegions: Int, mostBytes: Int) throws(NetmapError) -> UInt16 {
    try state.withLock { (state: inout State) throws(NetmapError) -> UInt16 in
      // Never all numbers: the search below ends.
      guard state.entries.count < min(mostRegions, 60000) else {
        throw NetmapError(
          .ENOMEM, "There are \(state.entries.count) memory regions beside the global one, and no more are allowed. Close ports, or raise `mostRegions`.")
      }
      guard bytes <= mostBytes - state.bytes else {
        throw NetmapError(
          .ENOMEM,
          "A memory region of \(ByteCount(bytes)) is asked for; \(ByteCount(max(0, mostBytes - state.bytes))) of \(ByteCount(mostBytes)) are left for regions of programs. Ask for less, close ports, or raise `mostBytes`.")
      }
      while state.entries[state.next] != nil { state.advance() }
      let id = state.next
      state.advance()
      state.entries[id] = Entry(region: nil, bytes: bytes)
      state.bytes += bytes
      return id
    }
  }

  /// The region can be found from now on.
  func publish(_ region: NetmapRegion) {
    state.withLock { state in
      let bytes = state.entries[region.id]?.bytes ?? 0
      state.entries[region.id] = Entry(region: region, bytes: bytes)
    }
  }

  /// The number is free again.
  func release(_ id: UInt16) {
    state.withLock { state in
      guard let entry = state.entries.removeValue(forKey: id) else { return }
      state.bytes -= entry.bytes
    }
  }

  func region(_ id: UInt16) -> NetmapRegion? { state.withLock { $0.entries[id]?.region } }

  var regions: [NetmapRegion] {
    state.withLock { $0.entries.values.compactMap(\.region) }.sorted { $0.id < $1.id }
  }
  var ids: String { regions.map { "\($0.id)" }.joined(separator: ", ") }
}
