// A card in netmap mode.
//
//     program ── NetmapPort ── krings ──┬── NetmapQueue i ── NetDriver ── card
//                                       │      (tenant of queue i, on its owner)
//                                       └── HostRing i ── Interface ── stack
//
// Design, where it is not what one would expect:
// - Krings are not the card's descriptor rings. A queue keeps its descriptors and their shadow, and
//   netmap mode changes only the pool behind them: the receive side trades buffers with the ring,
//   the transmit side posts records that stand for slots. So each descriptor operation exists once,
//   a changeover needs no reset of the card, and a reset of the card (hang, link) moves nothing in
//   the program's view: there is no offset between its ring and the card's to compute anew.
// - Every queue operation runs on the queue's owner: a program's sync is a message to it, or a call
//   when the program runs on that worker. The worker also fills receive rings by itself; what came
//   is shown at the next sync.
// - What the program wrote counts once, checked: indexes against the ledger (a buffer that is on its
//   way through a card is not the program's to name), lengths against the buffer, head and cur
//   against the kring's own numbers.
//
// Invariants
// - A buffer is held by the region's programs (in their slots), by the card's port (with the card or
//   in a slot that is the adapter's), or by nobody; the ledger says which, and closing a port with
//   nothing on its way leaves the allocator as it was.
// - Control (open, close) runs on worker 0, one at a time.

internal import DMAMemory
internal import DriverKit
internal import Ifnet
public import NetmapAPI
public import NetmapCore
public import NetmapPorts
public import Netisr
internal import Packet
internal import Synchronization

/// The netmap side of a card that is attached to the stack.
public final class NetmapCard: NetmapAdapter, @unchecked Sendable {
  /// Not used when the card has gone.
  unowned let host: any NetmapHost
  let netisr: Netisr
  public let krings: PortKrings
  /// The regions that the card's programs use. The stack's packets lie in none of them.
  public let memory: NetmapMemory
  public let settings: NetmapSettings
  /// The owner of each queue.
  let workers: [Worker]
  var queues: [NetmapQueue] = []
  /// As many as a port may have; those that nobody opened lose what the stack sends.
  let hosts: [HostRing]
  private let hostTransmit = Atomic(1), hostReceive = Atomic(1)
  /// What the card can reach beside the stack's memory, while programs or the card itself use it. Worker 0's.
  var mapping: (allocator: NetmapAllocator, mapper: (any DMAMapper)?)?
  /// Sides of queues that have let go, and that worker 0 has not heard of.
  let homecomings = Atomic(0)
  /// Has a region let go that nobody uses any more. Worker 0's.
  var recall: WorkerToken?

  /// Pairs of host rings, at most.
  public static let mostHostRings = 16

  /// - Parameter memory: the system's; its bus addresses and those of the stack's memory are from one space.
  public init(_ host: any NetmapHost, memory: NetmapMemory, settings: NetmapSettings = NetmapSettings()) throws(NetmapError) {
    self.host = host
    self.memory = memory
    self.settings = settings
    let queues = host.driver.queueCount
    netisr = host.interface.table.netisr
    workers = (0..<queues).map { host.owner(ofQueue: $0) }
    lastName = host.interface.name
    slotCounts = (host.driver.options.transmitDescriptors, host.driver.options.receiveDescriptors)
    hosts = (0..<Self.mostHostRings).map { _ in HostRing() }
    krings = try PortKrings()
    self.queues = (0..<queues).map { NetmapQueue(card: self, index: $0) }
    // Not weak: an object that has had a weak reference pays for it at every retain.
    krings.onRelease = { [unowned self] _ in unmap() }
  }

  private let lastName: String
  private let slotCounts: (transmit: Int, receive: Int)
  private let gone = Atomic(false)
  /// The card has left the stack: rings stay with their programs, and nothing moves.
  public var isGone: Bool { gone.load(ordering: .acquiring) }
  func markGone() { gone.store(true, ordering: .releasing) }

  public var name: String { isGone ? lastName : host.interface.name }
  public func slots(_ direction: RingDirection, host: Bool) -> Int {
    direction == .transmit ? slotCounts.transmit : slotCounts.receive
  }
  public var tradesBuffers: Bool { true }
  public var supportsOffsets: Bool { true }
  public func worker(of ring: RingID) -> Worker? { workers[ring.number % workers.count] }

  public var counts: RingCounts {
    RingCounts(
      transmit: queues.count, receive: queues.count, hostTransmit: hostTransmit.load(ordering: .relaxed),
      hostReceive: hostReceive.load(ordering: .relaxed))
  }

  /// How many host rings the port has from its next opening on. Only while it is closed; on worker 0.
  /// - Parameters: 0 takes 1.
  public func setHostRings(transmit: Int, receive: Int) {
    guard krings.openPorts == 0, !isGone else { return }
    hostTransmit.store(min(max(1, transmit), Self.mostHostRings), ordering: .relaxed)
    hostReceive.store(min(max(1, receive), Self.mostHostRings), ordering: .relaxed)
  }

  // MARK: Sync

  public func synchronise(_ kring: Kring) -> Bool {
    if kring.id.isHost, kring.id.direction == .receive {
      return synchroniseHost(kring)
    }
    guard holds(kring) else { return false }
    return synchroniseChecked(kring)
  }

  public func sync(_ kring: Kring, released: (from: UInt32, to: UInt32)) {
    if !kring.id.isHost { return queues[kring.id.number].sync(kring, released: released) }
    let pair = hosts[kring.id.number]
    guard pair.transmit === kring else { return }
    let interface = host.interface, queue = kring.id.number % queues.count
    pair.drain(
      kring, stack: host.stackPool(ofQueue: queue), up: { interface.input(&$0, queue: queue) },
      lost: { count(1, bytes: $0, .noBuffer, queue: queue) })
  }

  /// The worker that syncs a ring.
  func owner(of id: RingID) -> Worker { workers[id.number % workers.count] }

  /// Whether a kring is in use: on its owner.
  func holds(_ kring: Kring) -> Bool {
    kring.id.isHost ? hosts[kring.id.number].transmit === kring : queues[kring.id.number].holds(kring)
  }

  // MARK: The stack

  /// What the stack sends on a queue that is a program's.
  func sendToHost(_ batch: inout PacketBatch, queue: Int) {
    let interface = host.interface
    let pair = hosts[queue % hostReceive.load(ordering: .relaxed)]
    let wakeup = pair.take(&batch, drops: interface.table.drops, interface: interface.index, queue: queue)
    guard let wakeup else { return }
    wakeup.notify()
    krings.receiveWakeup.notify()
  }

  func count(_ packets: UInt64, bytes: Int = 0, _ reason: DropReason, queue: Int) {
    host.interface.table.drops.count(
      packets, bytes: UInt64(max(0, bytes)), reason, interface: host.interface.index, queue: UInt8(truncatingIfNeeded: queue))
  }

  func drop(_ packet: consuming Packet, _ reason: DropReason, queue: Int) {
    host.interface.table.drops.drop(
      packet, reason, interface: host.interface.index, queue: UInt8(truncatingIfNeeded: queue))
  }
}
