// Requests: what an open /dev/netmap is, and what its ioctls do.
//
//     program ── FlatRequest, nmreq ──> NetmapDescriptor ──┬── register ──> NetmapSystem ──> NetmapPort, until close
//        (in process, or by a session of the daemon)       ├── info, pools ──> adapters, regions
//                                                          └── switches ──> NetmapSwitchControl
//
//     fresh ── REGISTER ──> registered ── CSB ──> control blocks ── START ──> loop runs ── STOP ──> control blocks
//       └───────────────────── close (the last holder's) ────────────────────────┴──> closed
//
// - A descriptor registers once; a registration that fails leaves it fresh. Only close gives the rings back.
// - Options get their statuses on errors too: a request that throws has been changed all the same.
// - Requests of several threads may meet here. State is looked at and changed under one lock, which is never held while
//   worker 0 or a card is waited for.

public import NetmapAPI
public import NetmapCore
internal import Platform

/// Makes a region of the memory that came with an EXTMEM option.
public typealias ExternalRegion = (ExternalMemoryOption) throws(NetmapError) -> NetmapRegion

/// What a program has when it has opened /dev/netmap. Whoever shares it (fork, passing) shares this object.
public final class NetmapDescriptor: Sendable {
  public let system: NetmapSystem
  let state = Guarded(State())

  struct State {
    enum Phase {
      case fresh, registering, closed
      case registered(NetmapPort)
    }
    var phase = Phase.fresh
    var blocks: ControlBlocksOption?
    var loop = SyncLoopPhase.idle
  }

  public init(_ system: NetmapSystem) { self.system = system }

  deinit { close() }

  /// The port, once REGISTER has been answered.
  public var port: NetmapPort? {
    state.withLock { if case .registered(let port) = $0.phase { port } else { nil } }
  }

  func registeredPort() throws(NetmapError) -> NetmapPort {
    guard let port else { throw NetmapError(.ENXIO, "No port is registered on this descriptor; REGISTER comes first.") }
    return port
  }

  /// Gives the port back, and makes a loop end. Idempotent. From worker 0 or from a thread that is no worker.
  public func close() {
    let port = state.withLock { state -> NetmapPort? in
      defer {
        state.phase = .closed
        if state.loop == .running { state.loop = .stopping }
      }
      if case .registered(let port) = state.phase { return port }
      return nil
    }
    port?.close()
  }

  // MARK: Control requests

  /// NIOCCTRL. The answer is in `request`, also when this throws: every option has its status. REGISTER may wait for
  /// about a second for a port that is being torn down. From worker 0 or from a thread that is no worker.
  /// - Parameter external: for an EXTMEM option; nil: the option is not supported here.
  public func handle(_ request: inout FlatRequest, external: ExternalRegion? = nil) throws(NetmapError) {
    try request.admit()
    guard let kind = request.kind else { throw NetmapError(.EINVAL, "There is no control request \(request.type).") }
    switch kind {
    case .register: try register(&request, external)
    case .portInfo: try portInfo(&request)
    case .poolsInfo: try poolsInfo(&request)
    case .portHeaderSet: try setHeader(request)
    case .portHeaderGet: try header(&request)
    case .valeAttach: try attach(&request)
    case .valeDetach: try detach(&request)
    case .valeList: try list(&request)
    case .valeNewInterface: try newInterface(&request)
    case .valeDeleteInterface: try deleteInterface(request)
    case .valePollingEnable, .valePollingDisable: try poll(request, enable: kind == .valePollingEnable)
    case .csbEnable: try enableBlocks(&request)
    case .syncLoopStart: try startLoop(&request)
    case .syncLoopStop: try stopLoop()
    }
  }

  // MARK: Sync, poll, mmap

  /// NIOCTXSYNC, NIOCRXSYNC: ENXIO before REGISTER, EBUSY with control blocks. A ring that the program broke is reset and
  /// is no error here: poll says so.
  public func sync(_ direction: RingDirection) throws(NetmapError) {
    let port = try registeredPort()
    guard controlBlocks == nil else {
      throw NetmapError(.EBUSY, "\(port.adapter.name): with control blocks a sync loop syncs; start one.")
    }
    try port.region.checkWhole()
    port.sync(direction)
  }

  /// poll(2): POLLERR before REGISTER and with control blocks.
  public func wait(for events: NetmapEvents, milliseconds: Int) -> NetmapEvents {
    guard let port, controlBlocks == nil else { return .error }
    return port.wait(for: events, milliseconds: milliseconds)
  }

  /// mmap(2): EINVAL before REGISTER, beyond the region, for code, and for an offset that is not a whole page.
  /// - Returns: the region that may be mapped.
  public func mappable(offset: UInt64, length: UInt64, executable: Bool) throws(NetmapError) -> NetmapRegion {
    guard let port else { throw NetmapError(.EINVAL, "No port is registered on this descriptor; its memory cannot be mapped yet.") }
    guard !executable else { throw NetmapError(.EINVAL, "netmap's memory cannot be mapped for execution; leave PROT_EXEC out.") }
    let size = UInt64(port.region.allocator.sharedBytes)
    guard length > 0, length <= size, offset <= size - length, offset % 4096 == 0 else {
      throw NetmapError(.EINVAL, "\(length) bytes from \(offset) are not in the region, which has \(size).")
    }
    return port.region
  }
}
