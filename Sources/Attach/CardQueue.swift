// A queue of a card, on its owner.
//
//     poll: receive ─> interface.input; what was sent is freed; a ring that was full goes on
//     start (if_start): a batch out of the send queue, one send, one tail write; what found no room goes back
//     arm: frees, goes on, lets the interrupt through, looks again; then the worker may sleep

internal import DriverKit
internal import Ifnet
internal import Netisr
internal import Packet
internal import Synchronization

/// One queue. Everything but the counters is its owner's.
final class CardQueue: WorkerPoller, @unchecked Sendable {
  /// Packets a send, and so a tail write, at most.
  static let batchSize = 64
  /// Seconds that a full ring may stand still before the subqueue's watchdog bites.
  static let patience = 5

  let index: Int
  let worker: Worker
  let pool: PacketPool
  private unowned let card: CardAttachment
  /// Present while the card runs.
  private var driver: (any NetDriver)?
  private var tenant: (any QueueTenant)?
  private var input = PacketBatch(capacity: batchSize)
  private var output = PacketBatch(capacity: batchSize)
  /// Frames given to the card since it was last asked to free some.
  private var unreclaimed = 0
  /// What the stack does not want to know of received frames.
  private var hiddenFlags: PacketFlags = []
  private var poller: WorkerToken?
  private(set) var eventDescriptor: Int32 = -1
  /// The queue's interrupt is the card's for everything else as well.
  private var sharesControl = false
  /// Sends, each with one tail write; frames that they took; calls of if_start that found the ring full.
  private let sends = Atomic<UInt64>(0), framesSent = Atomic<UInt64>(0), fullRings = Atomic<UInt64>(0)
  /// Batches that were received, and what was in them.
  private let batches = Atomic<UInt64>(0), framesReceived = Atomic<UInt64>(0), bytesReceived = Atomic<UInt64>(0)

  init(_ card: CardAttachment, index: Int, worker: Worker, pool: PacketPool) {
    self.card = card
    self.index = index
    self.worker = worker
    self.pool = pool
  }

  var figures: QueueFigures {
    QueueFigures(
      sends: sends.load(ordering: .relaxed), frames: framesSent.load(ordering: .relaxed),
      fullRings: fullRings.load(ordering: .relaxed), batches: batches.load(ordering: .relaxed),
      received: framesReceived.load(ordering: .relaxed), receivedBytes: bytesReceived.load(ordering: .relaxed))
  }

  // MARK: On and off, while every owner stands still

  /// - Parameter hiddenFlags: taken out of what is received.
  func activate(_ driver: any NetDriver, hiding hiddenFlags: PacketFlags) {
    self.driver = driver
    self.hiddenFlags = hiddenFlags
    eventDescriptor = driver.eventDescriptor(queue: index)
    sharesControl = eventDescriptor >= 0 && eventDescriptor == driver.controlDescriptor
    poller = worker.add(self)
    tenant?.restarted()
  }

  func deactivate() {
    poller?.cancel()
    poller = nil
    driver = nil
    eventDescriptor = -1
    unreclaimed = 0
    input.removeAll()
    output.removeAll()
  }

  func hide(_ flags: PacketFlags) { hiddenFlags = flags }

  // MARK: On the owner

  func setTenant(_ tenant: (any QueueTenant)?) { self.tenant = tenant }

  /// The card was reset, or its rings have room again: goes on.
  func goOn(wasReset: Bool) {
    if wasReset { tenant?.restarted() }
    guard driver != nil, let interface = card.attached else { return }
    interface.subqueues[index].ready()
  }

  /// Frees what the card has sent: for queues that sleep with a few frames on the ring.
  func reclaim() {
    driver?.reclaim(queue: index)
    unreclaimed = 0
  }

  func poll(budget: Int) -> Int {
    guard let driver, let interface = card.attached else { return 0 }
    if let tenant { return tenant.poll(budget: budget) + tidy(driver, interface) }
    let received = driver.receive(queue: index, into: &input, max: min(budget, input.room))
    if received > 0 {
      let now = worker.netisr.clock.now(), hidden = hiddenFlags
      var bytes: UInt64 = 0
      input.forEach {
        $0.timestamp = now
        bytes &+= UInt64($0.count)
        if !hidden.isEmpty { $0.flags = $0.flags.subtracting(hidden) }
      }
      batches.store(batches.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
      framesReceived.store(framesReceived.load(ordering: .relaxed) &+ UInt64(received), ordering: .relaxed)
      bytesReceived.store(bytesReceived.load(ordering: .relaxed) &+ bytes, ordering: .relaxed)
      interface.input(&input, queue: index)
    }
    return received + tidy(driver, interface)
  }

  /// Frees what was sent, and goes on where the ring was full. Returns 1 when that moved anything.
  private func tidy(_ driver: any NetDriver, _ interface: Interface) -> Int {
    let subqueue = interface.subqueues[index]
    guard unreclaimed > 0 || subqueue.isActive else { return 0 }
    driver.reclaim(queue: index)
    unreclaimed = 0
    guard subqueue.isActive else { return 0 }
    let before = framesSent.load(ordering: .relaxed)
    subqueue.ready()
    return framesSent.load(ordering: .relaxed) == before ? 0 : 1
  }

  func arm() -> Bool {
    guard let driver, let interface = card.attached else { return false }
    if card.isPolling { return true }
    if tidy(driver, interface) > 0 { return true }
    // Frames whose end the card has not reported come back with the next interrupt or in the next second.
    return tenant.map { $0.arm() } ?? driver.armInterrupt(queue: index)
  }

  func disarm() {
    guard let driver else { return }
    if let tenant { tenant.disarm() } else { driver.maskInterrupt(queue: index) }
    if sharesControl { card.serviceSoon() }
  }

  /// if_start: on the owner, under the start interlock.
  func start(_ subqueue: Subqueue) {
    while subqueue.dequeue(into: &output) > 0 {
      guard let driver else { return subqueue.prepend(&output) }
      if let tenant, tenant.send(&output) { continue }
      let taken = driver.send(queue: index, &output)
      if taken > 0 {
        sends.store(sends.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
        framesSent.store(framesSent.load(ordering: .relaxed) &+ UInt64(taken), ordering: .relaxed)
        unreclaimed &+= taken
        subqueue.watchdogTimer = 0
      }
      guard !output.isEmpty else { continue }
      subqueue.prepend(&output)
      subqueue.isActive = true
      if subqueue.watchdogTimer == 0 { subqueue.watchdogTimer = Self.patience }
      fullRings.store(fullRings.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
      return
    }
  }
}

/// What a queue has counted.
public struct QueueFigures: Equatable, Sendable {
  /// Calls of the driver, each with one tail write.
  public var sends: UInt64
  public var frames: UInt64
  /// Times that the ring was full.
  public var fullRings: UInt64
  /// Batches that were received, their frames and bytes.
  public var batches: UInt64 = 0
  public var received: UInt64 = 0
  public var receivedBytes: UInt64 = 0
}
