// Regions by their ids.

public import DMAMemory
public import NetmapAPI
internal import Platform

/// How regions are made.
public struct NetmapMemoryOptions: Sendable {
  /// Of the global region.
  public var sizes = PoolSizes()
  public var backing = MemoryBacking.normalPages
  public var node: Int?
  /// Private regions that there may be at a time.
  public var mostRegions = 64

  public init() {}
}

/// All regions of a netmap system.
public final class NetmapMemory: Sendable {
  public let options: NetmapMemoryOptions
  private let space: IOVAAllocator
  private let reachable: @Sendable () -> [any DMAMapper]
  private let state = Guarded(State())

  private struct State {
    var global: NetmapRegion?
    var others: [UInt16: Weak] = [:]
    var next: UInt16 = 2
  }
  private struct Weak: Sendable { weak var region: NetmapRegion? }

  /// - Parameters:
  ///   - space: bus addresses in use; shared by all memory of the process.
  ///   - reachable: the cards open at present, which new regions must be reachable for.
  public init(
    _ options: NetmapMemoryOptions = NetmapMemoryOptions(), space: IOVAAllocator = IOVAAllocator(),
    reachable: @escaping @Sendable () -> [any DMAMapper] = { [] }
  ) {
    self.options = options
    self.space = space
    self.reachable = reachable
  }

  /// A system whose global region is there already.
  public convenience init(global: NetmapRegion, space: IOVAAllocator = IOVAAllocator()) {
    self.init(space: space)
    state.withLock { $0.global = global }
  }

  /// The global region; made when it is first asked for.
  public func global() throws(NetmapError) -> NetmapRegion {
    if let found = state.withLock({ $0.global }) { return found }
    let made = NetmapRegion(try allocate(options.sizes))
    return state.withLock { state in
      if let found = state.global { return found }
      state.global = made
      return made
    }
  }

  /// A region that is in use.
  public func region(_ id: UInt16) -> NetmapRegion? {
    state.withLock { id == NetmapRegion.globalID ? $0.global : $0.others[id]?.region }
  }

  /// A region of its own for a port. Goes away with its last user.
  public func makePrivate(_ sizes: PoolSizes, name: String) throws(NetmapError) -> NetmapRegion {
    let id = state.withLock { state -> UInt16? in
      state.others = state.others.filter { $0.value.region != nil }
      guard state.others.count < options.mostRegions else { return nil }
      while state.next < 2 || state.others[state.next] != nil { state.next &+= 1 }
      defer { state.next &+= 1 }
      return state.next
    }
    guard let id else { throw NetmapError(.ENOMEM, "\(name): there are \(options.mostRegions) private memory regions already") }
    let made = NetmapRegion(try allocate(sizes), id: id, kind: .privateMemory, name: name)
    state.withLock { $0.others[id] = Weak(region: made) }
    return made
  }

  private func allocate(_ sizes: PoolSizes) throws(NetmapError) -> NetmapAllocator {
    do { return try NetmapAllocator(sizes: sizes, backing: options.backing, node: options.node, reachable: reachable(), space: space) } catch {
      throw NetmapError(.ENOMEM, "\(error)")
    }
  }
}

extension NetmapAllocator {
  /// Takes buffers beside the rings, as many of `count` as there are, linked through their first four bytes; 0 ends the list.
  public func allocateExtra(_ count: Int, holder: BufferOwner) -> (head: UInt32, count: Int) {
    var wanted = min(count, statistics[2].free)
    while wanted > 0 {
      if let taken = try? allocateBuffers(wanted, owner: holder) {
        var next: UInt32 = 0
        for index in taken.reversed() {
          // SAFETY: the first four bytes of a buffer that was just given out.
          unsafe pointer(ofBuffer: index).storeBytes(of: next, as: UInt32.self)
          next = index
        }
        return (next, wanted)
      }
      wanted /= 2
    }
    return (0, 0)
  }

  /// Takes a list of extra buffers back, as far as it leads and the ledger agrees. The list is the program's: it may be
  /// looped, or lead anywhere.
  @discardableResult public func freeExtra(from head: UInt32, holder: BufferOwner) -> Int {
    var at = head, freed = 0
    while at >= 2, at < bufferCount {
      // SAFETY: the index is of a buffer.
      let next = unsafe pointer(ofBuffer: at).load(as: UInt32.self)
      // A buffer that was freed a moment ago ends a loop.
      guard freeBuffers([at], owner: holder) == 1 else { break }
      freed += 1
      at = next
    }
    return freed
  }
}
