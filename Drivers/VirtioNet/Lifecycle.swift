// Start, stop, and getting a device back that has lost its way.

import DeviceIO
public import DriverKit
public import Packet
import VirtioTransport

extension VirtioNetDriver {
  public func start(pools: [PacketPool]) throws(DriverError) {
    guard state == .stopped else {
      if state == .running { return }
      throw state == .gone ? .gone(card: card) : .device(card: card, problem: "\(state)")
    }
    guard pools.count == 1 || pools.count == queueCount else {
      throw .option(
        card: card, name: "pools", value: "\(pools.count)", allowed: "one for all queues, or one for each of \(queueCount)")
    }
    try checkPools(pools)
    self.pools = pools
    do {
      try bringUp()
    } catch {
      makeQuiet()
      self.pools = []
      state = transport.isGone ? .gone : .stopped
      throw error
    }
    state = .running
  }

  /// Each pool must fill the receive rings that it serves, or they would never be full.
  private func checkPools(_ pools: [PacketPool]) throws(DriverError) {
    let wanted = options.receiveDescriptors * (pools.count == 1 ? queueCount : 1)
    for pool in pools {
      guard pool.available >= wanted else {
        throw .pool(card: card, wanted: wanted, available: pool.available)
      }
      let size = unsafe pool.state.pointee.bufferSize
      guard size >= 1526 else {
        // Clause 5.1.6.3.1: what a receive buffer must hold at least.
        throw .option(card: card, name: "buffer size", value: "\(size)", allowed: "1526 bytes or more")
      }
    }
  }

  public func stop() {
    guard state != .stopped else { return }
    if state == .running { countLostFrames() }
    makeQuiet()
    pools = []
    if state == .running { state = .stopped }
  }

  public func replacePool(queue: Int, with pool: PacketPool, sending: PacketPool) throws(DriverError) {
    pools = try replacing(queue: queue, with: pool, among: pools, card: card)
    unsafe pairs[queue].receive.replacePool(pool.state)
    unsafe pairs[queue].transmit.replacePool(sending.state)
  }

  /// No DMA, no interrupts, every buffer back in its pool.
  func makeQuiet() {
    try? transport.reset(clock: clock)
    transport.allowDMA(false)
    transport.disconnectInterrupts()
    queues.releaseBuffers()
  }

  /// From whatever state to a running device (clause 3.1.1). The pools are set.
  func bringUp() throws(DriverError) {
    do {
      var wanted = features
      if filter.vlans != nil { wanted.insert(.controlVLAN) }
      let agreed = try transport.negotiate(wanted: wanted, required: [.version1], clock: clock)
      guard agreed.isSuperset(of: features) else {
        throw DriverError.device(card: card, problem: "it offers fewer features after a reset than before")
      }
      programmed = ProgrammedFilter()
      programmed.filtersVLANs = agreed.contains(.controlVLAN) && controlIndex != nil
      try connectInterrupts()
      transport.allowDMA(true)
      try prepareQueues()
      transport.setDriverOK()
    } catch let error as VirtioError {
      throw DriverError(error)
    } catch let error as DriverError { throw error } catch {
      throw .device(card: card, problem: "\(error)")
    }
    for i in 0..<queueCount { unsafe pairs[i].receive.refill() }
    if queueCount > 1 { try run(.queuePairs(queueCount)) }
    if macAddress != ownAddress { try run(.setAddress(macAddress)) }
    try programFilter()
    link = readLink()
  }

  private func connectInterrupts() throws(VirtioError) {
    if !interrupts.descriptors.isEmpty { try transport.connectInterrupts(interrupts.descriptors) }
    try transport.setConfigurationVector(interrupts.controlVector)
  }

  /// Gives every queue to the device, with receive buffers ready but not yet announced.
  private func prepareQueues() throws(VirtioError) {
    let eventIndex = features.contains(.eventIndex)
    for i in 0..<queueCount {
      let pool = unsafe pools[pools.count == 1 ? 0 : i].state
      let vector = interrupts.vector(queue: i)
      unsafe pairs[i].receive.prepare(
        pool: pool, eventIndex: eventIndex, mergeable: features.contains(.mergeableBuffers), maximumFrame: maximumFrame)
      unsafe pairs[i].transmit.prepare(
        pool: pool, eventIndex: eventIndex, maximumFrame: maximumFrame, offloads: TransmitOffloads(features))
      unsafe pairs[i].receive.queue.notifier = try transport.configure(
        queue: 2 * i, size: options.receiveDescriptors, at: queues.addresses(pair: i, transmit: false), vector: vector)
      unsafe pairs[i].transmit.queue.notifier = try transport.configure(
        queue: 2 * i + 1, size: options.transmitDescriptors, at: queues.addresses(pair: i, transmit: true),
        vector: vector)
    }
    if let control = unsafe queues.control, let index = controlIndex {
      unsafe control.pointee.prepare(eventIndex: eventIndex)
      // Commands are waited for by looking: no interrupt.
      unsafe control.pointee.attach(
        try transport.configure(
          queue: index, size: QueueSet.controlSize, at: queues.controlAddresses, vector: nil))
    }
  }

  /// Resets the device and sets everything up as it was. What lay in the rings is lost, and counted
  /// where it is known: frames to be sent.
  func recover() -> DriverEvents {
    counters.resets += 1
    let now = clock.now()
    guard counters.budget.spend(at: now) else {
      return quarantine("it needed \(ResetBudget.most) resets within a minute")
    }
    countLostFrames()
    do {
      try transport.reset(clock: clock)
      transport.disconnectInterrupts()
      queues.releaseBuffers()
      try bringUp()
      return .reset
    } catch let error {
      if transport.isGone { return lose() }
      return quarantine("it did not come back from a reset: \(error)")
    }
  }

  /// What the device has not sent when it is stopped or reset is lost.
  private func countLostFrames() {
    for i in 0..<queueCount { counters.lostFrames += UInt64(unsafe pairs[i].transmit.shadow.held) }
  }

  /// Gives the device up: it is silenced, and the process goes on.
  func quarantine(_ reason: String) -> DriverEvents {
    makeQuiet()
    transport.writeStatus(.failed)
    pools = []
    state = .quarantined(reason: reason)
    link.status = .down
    return [.lost, .link]
  }

  /// The device is no longer there.
  func lose() -> DriverEvents {
    makeQuiet()
    pools = []
    state = .gone
    link.status = .down
    return [.lost, .link]
  }
}

/// Bounds how often a device may ask for resets: a device that always does would keep a port busy
/// for ever.
struct ResetBudget {
  static let most = 16
  private var windowStart: UInt64 = 0
  private var spent = 0

  /// Whether another reset may be made at `now` (nanoseconds).
  mutating func spend(at now: UInt64) -> Bool {
    if now &- windowStart > 60_000_000_000 {
      windowStart = now
      spent = 0
    }
    spent += 1
    return spent <= Self.most
  }
}
