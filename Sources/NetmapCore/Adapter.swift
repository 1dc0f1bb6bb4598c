// The adapter protocol: what stands behind a port's krings, and whose memory they use.
//
//    program ── shared rings ── Kring ── NetmapAdapter: a card and its host rings, later a switch, a pipe
//
// A sync is prologue, adapter, epilogue. The adapter sees only checked numbers: it moves `hwcur`
// over what it took and `hwtail` over what it has for the program.

public import NetmapAPI
internal import Synchronization

/// Behind the krings of a port.
public protocol NetmapAdapter: AnyObject, Sendable {
  /// The port's name: "ix0".
  var name: String { get }
  var region: NetmapRegion { get }
  var counts: RingCounts { get }
  /// Slots of each ring of a direction.
  func slots(_ direction: RingDirection) -> Int
  /// Transmit: takes what lies in `hwcur ..< rhead` and takes back what is done. Receive: `released`
  /// are the slots that the program has given back since the last sync; then whatever came.
  func sync(_ kring: Kring, released: (from: UInt32, to: UInt32))
}

extension NetmapAdapter {
  /// One NIOCTXSYNC or NIOCRXSYNC of one ring, on the thread that owns it.
  public func synchronise(_ kring: Kring) {
    guard kring.begin() else { return kring.countSkipped() }
    defer { kring.end() }
    guard let released = kring.prologue() else { return }
    sync(kring, released: released)
    kring.finalise()
  }
}

/// Memory that programs share, and the name under which the ledger knows what is theirs.
///
/// All ports of a region have one holder: a program may put a buffer of one port's ring into another's. When
/// the last port of the region closes, whatever the programs lost on the way goes back to the allocator.
public final class NetmapRegion: Sendable {
  public let allocator: NetmapAllocator
  private struct State {
    var users = 0
    var holder: BufferOwner?
  }
  private let state = Mutex(State())

  public init(_ allocator: NetmapAllocator) { self.allocator = allocator }

  /// A port opens: whom its slots belong to.
  public func enter() throws(NetmapError) -> BufferOwner {
    // The allocator's lock is taken inside; it never takes this one.
    let holder = state.withLock { state -> BufferOwner? in
      guard let holder = state.holder ?? (try? allocator.registerOwner("netmap programs")) else { return nil }
      state.holder = holder
      state.users += 1
      return holder
    }
    guard let holder else { throw NetmapError(.ENOMEM, "No more owners of netmap buffers can be told apart; close some ports.") }
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

  /// Ports that are open.
  public var users: Int { state.withLock { $0.users } }
}
