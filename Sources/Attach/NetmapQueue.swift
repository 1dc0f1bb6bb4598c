// A hardware queue in netmap mode: the tenant in the place of the stack's poller.
//
//    stack ──install──> netmap ──uninstall──> draining ──last buffer home──> stack (tenant gone)
//                          ^──────install────────┘
//
// Draining is stack mode for everybody above: frames in buffers of the netmap pool are copied into
// packets of the stack, frames that were being sent finish. Nobody waits for it.

internal import DriverKit
internal import Ifnet
internal import NetmapAPI
internal import NetmapCore
internal import NetmapPorts
internal import Netisr
internal import Packet
internal import Synchronization

/// One queue's tenant. Everything here runs on the queue's owner.
final class NetmapQueue: QueueTenant, @unchecked Sendable {
  private unowned(unsafe) let owner: NetmapCard
  // SAFETY: the card holds its queues, and takes them out of the host's hands before it goes.
  private var card: NetmapCard { unsafe owner }
  let index: Int
  /// Present from the first install until its last buffer is home.
  private(set) var receive: NetmapReceive?
  private(set) var transmit: NetmapTransmit?
  /// Transmit sides of programs that have gone, whose frames the card still has.
  private var leaving: [NetmapTransmit] = []
  /// Closed receive rings whose buffers are with the card still; their port waits for them.
  private var draining = 0
  private var isTenant = false
  private var output = PacketBatch(capacity: NetmapReceive.batchSize)
  /// Arms in a row that waited for the card to finish sending.
  private var spins = 0
  private var retry: WorkerToken?

  init(card: NetmapCard, index: Int) {
    unsafe owner = card
    self.index = index
  }

  private var host: any NetmapHost { card.host }
  private var driver: any NetDriver { host.driver }

  // MARK: Changing over

  /// Takes rings into the queue. Nothing has changed when it throws.
  func install(transmit kring: Kring?, receive slots: ReceiveSlots?, in allocator: NetmapAllocator) throws(NetmapError) {
    let before = (receive, transmit)
    if let slots {
      if receive == nil {
        do {
          receive = try NetmapReceive(driver: driver, queue: index, allocator: allocator, port: slots.port)
        } catch { throw NetmapError(.ENOMEM, "\(card.name): \(error)") }
      }
      receive?.begin(slots)
    }
    if let kring { transmit = NetmapTransmit(queue: index, allocator: allocator, kring: kring) }
    do { try replacePools() } catch {
      if slots != nil { receive?.end() }
      (receive, transmit) = before
      throw NetmapError(.EINVAL, "\(error)")
    }
    // Buffers that were on their way home are in use again.
    if slots != nil { finishDraining() }
    if !isTenant {
      isTenant = true
      host.setTenant(self, queue: index)
    }
  }

  private func finishDraining() {
    guard draining > 0 else { return }
    card.finished(draining)
    draining = 0
  }

  /// Gives the driver the pools of the mode that the queue is in. A driver that is not running gets
  /// them when it starts (`restarted`).
  private func replacePools() throws(DriverError) {
    guard driver.health == .running else { return }
    let stack = host.stackPool(ofQueue: index)
    let pool = receive?.slots != nil ? receive?.pool : nil
    try driver.replacePool(queue: index, with: pool ?? stack, sending: transmit?.sink ?? stack)
  }

  /// What a queue gave back: buffers of the program's rings, and whether the card still sends.
  struct Remains: Sendable {
    /// Held by the port, and by the programs.
    var port: [UInt32] = [], program: [UInt32] = []
    /// Sides that still have buffers with the card.
    var stillBusy = 0
  }

  /// Takes rings out of the queue.
  func uninstall(transmit: Bool, receive: Bool) -> Remains {
    var remains = Remains()
    if transmit, let side = self.transmit { endTransmit(side, &remains) }
    if receive, let side = self.receive, let slots = side.slots { endReceive(side, slots, &remains) }
    // Fails when the card has broken: its buffers then come home when it is stopped.
    try? replacePools()
    settle()
    if receive, self.receive != nil {
      draining += 1
      remains.stillBusy += 1
    }
    return remains
  }

  private func endTransmit(_ side: NetmapTransmit, _ remains: inout Remains) {
    side.reclaim(driver)
    side.post(driver)
    if let kring = side.kring {
      let unsent = UInt64(kring.unsent)
      if unsent > 0 { card.count(unsent, .modeChange, queue: index) }
      // The ring's slots, and what the card still reads, whatever the program wrote since.
      remains.program = (0..<kring.count).map { kring.ring.slot($0).bufferIndex } + side.buffersInFlight
    }
    side.end()
    transmit = nil
    if side.inFlight > 0 {
      leaving.append(side)
      remains.stillBusy += 1
    }
  }

  /// Frames that the program was never shown go up the stack.
  private func endReceive(_ side: NetmapReceive, _ slots: ReceiveSlots, _ remains: inout Remains) {
    let base = unsafe side.allocator.bufferBase, stride = side.allocator.bufferSize, pool = host.stackPool(ofQueue: index)
    var frame: Packet?, isBroken = false
    for (buffer, offset, length, more) in slots.takeUnshown() {
      // SAFETY: the adapter's own index, and offset and length clamped to the buffer's.
      let bytes = unsafe UnsafeRawBufferPointer(start: base + Int(buffer) * stride + offset, count: length)
      var part = unsafe isBroken ? nil : StackCopy.make(of: bytes, from: pool)
      if let behind = part.take() {
        if let head = frame.take() {
          head.append(behind)
          frame = consume head
        } else {
          frame = consume behind
        }
      } else {
        isBroken = true
      }
      guard !more else { continue }
      if !isBroken, let whole = frame.take() {
        if let refused = output.append(whole) { card.drop(refused, .modeChange, queue: index) }
        if output.room == 0 { host.interface.input(&output, queue: index) }
      } else {
        card.count(1, .modeChange, queue: index)
      }
      frame = nil
      isBroken = false
    }
    let buffers = slots.dissolve()
    remains.port += buffers.port
    remains.program += buffers.program
    side.end()
    if !output.isEmpty { host.interface.input(&output, queue: index) }
  }

  /// The card has gone, its driver is stopped: every buffer that was with it is home.
  func leave() {
    for side in leaving { side.reclaim(driver) }
    if !leaving.isEmpty { card.finished(leaving.count) }
    leaving = []
    transmit?.end()
    receive?.end()
    (transmit, receive) = (nil, nil)
    finishDraining()
    retry?.cancel()
    retry = nil
    guard isTenant else { return }
    isTenant = false
    host.setTenant(nil, queue: index)
  }

  /// Ends what has come home.
  func settle() {
    guard isTenant else { return }
    for side in leaving { side.reclaim(driver) }
    let sending = leaving.count
    leaving.removeAll { $0.inFlight == 0 }
    if sending > leaving.count { card.finished(sending - leaving.count) }
    if let side = receive, side.slots == nil, side.isHome, !side.isHoldingFrames {
      receive = nil
      finishDraining()
    }
    guard receive == nil, transmit == nil, leaving.isEmpty else { return }
    isTenant = false
    retry?.cancel()
    retry = nil
    host.setTenant(nil, queue: index)
  }

  /// Whether buffers of netmap's are with the card, for a queue that is the stack's again.
  var isDraining: Bool { isTenant && transmit == nil && receive?.slots == nil }

  // MARK: Work

  /// One sync of one of this queue's rings, between its prologue and its end.
  func sync(_ kring: Kring, released: (from: UInt32, to: UInt32)) {
    if kring.id.direction == .transmit {
      guard let side = transmit, side.kring === kring else { return }
      let driver = driver
      side.reclaim(driver)
      side.post(driver)
    } else if let side = receive, let slots = side.slots, slots.kring === kring {
      card.release(released, of: slots, in: side.allocator, queue: index)
      if card.settings.noPendingInterrupt { _ = side.fill(driver, budget: Int(kring.count)) }
    }
  }

  /// Whether a kring is one of this queue's now.
  func holds(_ kring: Kring) -> Bool { transmit?.kring === kring || receive?.slots?.kring === kring }

  func poll(budget: Int) -> Int {
    if !leaving.isEmpty || isDraining { settle() }
    if let side = transmit, let kring = side.kring {
      if side.inFlight > 0, side.reclaim(driver) {
        spins = 0
        card.wake(kring)
      }
      if kring.unsent > 0 { side.post(driver) }
    }
    guard let side = receive else { return receiveForStack(budget) }
    guard let slots = side.slots else {
      let interface = host.interface, pool = host.stackPool(ofQueue: index)
      let taken = side.drain(driver, into: &output, stack: pool) { _ in card.count(1, .noBuffer, queue: index) }
      if !output.isEmpty { interface.input(&output, queue: index) }
      if side.isHome { settle() }
      return taken
    }
    let moved = side.fill(driver, budget: budget)
    if moved > 0 { card.wake(slots.kring) }
    return moved
  }

  /// Only the transmit ring is a program's: the stack receives as always.
  private func receiveForStack(_ budget: Int) -> Int {
    guard isTenant else { return 0 }
    let count = driver.receive(queue: index, into: &output, max: min(budget, output.room))
    if count > 0 { host.interface.input(&output, queue: index) }
    return count
  }

  func arm() -> Bool {
    // A writer waits: the card tells only senders that found no room, so look again a while, and
    // then from time to time.
    if let side = transmit, let kring = side.kring, side.inFlight > 0,
      kring.unsent > 0 || kring.wakeup.isArmed || card.krings.transmitWakeup.isArmed
    {
      spins += 1
      if spins < 64 { return true }
      lookLater()
    } else if !leaving.isEmpty {
      lookLater()
    }
    // A full ring: the card's frames wait until the program has made room, and its sync wakes the worker.
    // So do those behind frames that the program has been told of and has not asked for.
    if let side = receive, let slots = side.slots,
      side.isHoldingFrames || slots.kring.space == 0 || card.settings.mitigate && slots.kring.hwtail != slots.kring.rtail
    {
      return false
    }
    return driver.armInterrupt(queue: index)
  }

  private func lookLater() {
    guard retry?.isCancelled != false else { return }
    let token = WorkerToken()
    retry = token
    let worker = card.workers[index]
    // The card is held too: this may be the last to know of either.
    worker.schedule(after: 200_000) { [self, card] in
      defer { withExtendedLifetime(card) {} }
      guard !token.isCancelled else { return }
      token.cancel()
      spins = 0
      _ = poll(budget: NetmapReceive.batchSize)
    }
  }

  func disarm() { driver.maskInterrupt(queue: index) }

  func send(_ batch: inout PacketBatch) -> Bool {
    guard transmit != nil else { return false }
    card.sendToHost(&batch, queue: index)
    return true
  }

  func restarted() {
    try? replacePools()
    if let kring = transmit?.kring {
      transmit?.reclaim(driver)
      card.wake(kring)
    }
    if let kring = receive?.slots?.kring { card.wake(kring) }
    settle()
  }
}
