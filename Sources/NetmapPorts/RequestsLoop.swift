// Control blocks (CSB) and the sync loop: who may have them, and when the loop runs.
//
// The blocks lie in the program's memory, so the loop runs on the program's side: in the thread that asked for it, until
// somebody stops it. Here is kept whether it runs. Whoever runs it asks `isLoopRunning` after START (a STOP may have come
// first), looks at it in every round, and says `loopEnded` when it has ended.

public import NetmapAPI
internal import NetmapCore

/// Where a descriptor's loop is.
enum SyncLoopPhase: Equatable {
  case idle, running, stopping
  /// A stop came while none ran: the next start returns at once.
  case stopped
}

extension NetmapDescriptor {
  /// The program's control blocks; nil when head and cur are in the rings.
  public var controlBlocks: ControlBlocksOption? { state.withLock { $0.blocks } }
  /// START was answered, and neither STOP nor close has come.
  public var isLoopRunning: Bool { state.withLock { $0.loop == .running } }
  /// The loop has returned.
  public func loopEnded() { state.withLock { $0.loop = .idle } }
  /// A loop runs, or has yet to see that it should not.
  public var isLoopBusy: Bool { state.withLock { $0.loop == .running || $0.loop == .stopping } }

  /// CSB_ENABLE: EINVAL without the option, without EXCLUSIVE, or for addresses that are no multiples of 64; ENXIO before
  /// REGISTER, EBUSY while a loop runs.
  func enableBlocks(_ request: inout FlatRequest) throws(NetmapError) {
    guard request.firstOption(.controlBlocks) != nil else {
      throw NetmapError(.EINVAL, "CSB_ENABLE needs the option CSB, which says where the control blocks are.")
    }
    do throws(NetmapError) {
      let port = try registeredPort()
      guard !isLoopBusy else { throw NetmapError(.EBUSY, "\(port.adapter.name): the control blocks cannot change while a sync loop runs.") }
      let blocks = try takeBlocks(&request, port)
      if let blocks { state.withLock { $0.blocks = blocks } }
    } catch {
      request.settle(.controlBlocks, error.code)
      throw error
    }
  }

  /// The blocks of a CSB option; nil without one, and for a port without rings. The option has its status then.
  func takeBlocks(_ request: inout FlatRequest, _ port: NetmapPort) throws(NetmapError) -> ControlBlocksOption? {
    guard let blocks = try request.option(ControlBlocksOption.self) else { return nil }
    do throws(NetmapError) {
      let name = port.adapter.name
      if !port.krings.isEmpty {
        guard port.flags.contains(.exclusive) else {
          throw NetmapError(.EINVAL, "\(name): control blocks need rings that nobody else has; register with NR_EXCLUSIVE.")
        }
        let mask = UInt64(ControlBlock.size - 1)
        guard blocks.toLoop & mask == 0, blocks.toProgram & mask == 0, blocks.toLoop != 0, blocks.toProgram != 0 else {
          throw NetmapError(.EINVAL, "\(name): control blocks lie at multiples of \(ControlBlock.size) bytes.")
        }
      }
      request.settle(.controlBlocks)
      return port.krings.isEmpty ? nil : blocks
    } catch {
      request.settle(.controlBlocks, error.code)
      throw error
    }
  }

  /// SYNC_KLOOP_START: EINVAL for a sleep of more than a second, without control blocks, and for options that do not fit;
  /// ENXIO before REGISTER; EBUSY while another loop runs.
  func startLoop(_ request: inout FlatRequest) throws(NetmapError) {
    let sleep = try SyncLoopStart(decoding: request.body).sleep
    guard sleep <= SyncLoopStart.longestSleep else {
      throw NetmapError(.EINVAL, "A sync loop sleeps at most \(SyncLoopStart.longestSleep) microseconds; \(sleep) were asked for.")
    }
    let port = try registeredPort()
    guard controlBlocks != nil else {
      throw NetmapError(.EINVAL, "\(port.adapter.name): a sync loop needs control blocks; register with the option CSB.")
    }
    guard !isLoopBusy else { throw Self.loopRuns(port) }
    try takeLoopOptions(&request, rings: port.krings.count)
    try state.withLock { state throws(NetmapError) in
      switch state.loop {
      case .idle: state.loop = .running
      case .stopped: state.loop = .idle
      case .running, .stopping: throw Self.loopRuns(port)
      }
    }
  }

  private static func loopRuns(_ port: NetmapPort) -> NetmapError {
    NetmapError(.EBUSY, "\(port.adapter.name): a sync loop runs on this descriptor already.")
  }

  private func takeLoopOptions(_ request: inout FlatRequest, rings: Int) throws(NetmapError) {
    var direct = false
    if let mode = try request.option(LoopModeOption.self) {
      guard mode.mode & ~(LoopModeOption.directTransmit | LoopModeOption.directReceive) == 0 else {
        request.settle(.loopMode, .EINVAL)
        throw NetmapError(.EINVAL, "There is no loop mode 0x\(String(mode.mode, radix: 16)).")
      }
      direct = mode.mode != 0
      request.settle(.loopMode)
    }
    guard let i = request.firstOption(.loopEvents) else { return }
    guard request.options[i].bytes.count == 8 * rings, let events = try request.option(LoopEventsOption.self) else {
      request.settle(.loopEvents, .EINVAL)
      throw NetmapError(.EINVAL, "The option EVENTFDS has \(request.options[i].bytes.count) bytes for \(rings) rings; it needs 8 for each.")
    }
    guard !direct || events.rings.allSatisfy({ $0.toLoop >= 0 }) else {
      request.settle(.loopEvents, .EINVAL)
      throw NetmapError(.EINVAL, "A direct loop needs an eventfd for each of its rings.")
    }
    request.settle(.loopEvents)
  }

  /// SYNC_KLOOP_STOP: ENXIO before REGISTER. Whoever asked then waits until `isLoopBusy` is false.
  func stopLoop() throws(NetmapError) {
    _ = try registeredPort()
    state.withLock { $0.loop = $0.loop == .running || $0.loop == .stopping ? .stopping : .stopped }
  }
}
