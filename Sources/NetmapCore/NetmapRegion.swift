// A region: memory that programs share, under a number that they can ask for.

public import DMAMemory
public import NetmapAPI
public import Platform

/// Whose memory a region is.
public enum NetmapRegionKind: String, Equatable, Sendable {
  /// The one that ports use when nothing else is asked for.
  case global
  /// Made for a port; gone when its last user is.
  case privateMemory = "private"
  /// A file that a program handed over (option EXTMEM).
  case external
}

/// Memory that programs share, and the name under which the ledger knows what is theirs.
///
/// All ports of a region have one holder: a program may put a buffer of one port's ring into another's. When
/// the last port of the region closes, whatever the programs lost on the way goes back to the allocator.
public final class NetmapRegion: Sendable {
  /// The global region's number.
  public static let globalID: UInt16 = 1

  public let allocator: NetmapAllocator
  /// What programs call `mem_id`: unique while the region is there, never 0.
  public let id: UInt16
  public let kind: NetmapRegionKind
  /// For reports: "global", or the port that the region was made for.
  public let name: String
  private struct State {
    var users = 0
    var holder: BufferOwner?
  }
  private let state = Guarded(State())
  /// Where the number goes back to; nil for a region outside of any registry.
  private let table: RegionTable?
  /// Up while memory is missing (RegionGuard.swift); nil for memory that is not guarded.
  @usableFromInline let fault: FaultFlag?

  /// The only region of its allocator, as the global one.
  public convenience init(_ allocator: NetmapAllocator) {
    self.init(
      allocator, id: Self.globalID, kind: .global, name: "global", table: nil, fault: try? allocator.guardShared(event: -1))
  }

  init(
    _ allocator: NetmapAllocator, id: UInt16, kind: NetmapRegionKind, name: String, table: RegionTable?, fault: FaultFlag?
  ) {
    self.allocator = allocator
    self.id = id
    self.kind = kind
    self.name = name
    self.table = table
    self.fault = fault
  }

  deinit { table?.release(id) }

  // MARK: Ports

  /// A port opens: whom its slots belong to.
  /// - Throws: EIO while the region has lost memory; without users it is mended first, if it can be.
  public func enter() throws(NetmapError) -> BufferOwner {
    // The allocator's lock is taken inside; it never takes this one.
    let holder = state.withLock { state -> BufferOwner? in
      if isQuarantined, state.users > 0 || !allocator.mend() { return .nobody }
      guard let holder = state.holder ?? (try? allocator.registerOwner("netmap programs")) else { return nil }
      state.holder = holder
      state.users += 1
      return holder
    }
    if holder == .nobody { try checkWhole() }
    guard let holder, holder != .nobody else { throw NetmapError(.ENOMEM, "No more owners of netmap buffers can be told apart; close some ports.") }
    return holder
  }

  /// A port has closed, and given its buffers back. The last one takes back what the programs lost.
  /// - Returns: how many buffers that were.
  @discardableResult public func leave() -> Int {
    let last = state.withLock { state -> BufferOwner? in
      state.users -= 1
      guard state.users == 0 else { return nil }
      defer { state.holder = nil }
      return state.holder
    }
    guard let last else { return 0 }
    return allocator.retireOwner(last).buffers
  }

  /// One port's own memory (`NI_PRIV_MEM`), not the global one.
  public var isPrivate: Bool { kind != .global }

  /// Ports that are open.
  public var users: Int { state.withLock { $0.users } }

  // MARK: Cards

  /// Makes the region reachable for a card that is going to use a ring of it. Counted: undone by as many `detach`.
  /// - Throws: EIO when the card's IOMMU refuses.
  public func attach(_ mapper: any DMAMapper) throws(NetmapError) {
    do { try allocator.attach(mapper) } catch { throw error.netmapError }
  }

  /// Undoes one `attach`; the last one unmaps. The card's rings over this region must be quiet.
  /// - Parameter port: under whom the ledger has the buffers on their way through the card. While there are any,
  ///   the region stays mapped: EBUSY.
  public func detach(_ mapper: any DMAMapper, port: BufferOwner?) throws(NetmapError) {
    if let port {
      let held = allocator.held(by: port)
      guard held == 0 else {
        throw NetmapError(
          .EBUSY, "\(held) buffers of region \(id) (\(name)) are still on their way through the card. Stop its rings, then try again.")
      }
    }
    do { try allocator.detach(mapper) } catch { throw error.netmapError }
  }
}
