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

internal import Glibc
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
  /// Of the rings that are open; changes on worker 0 while none is.
  private(set) var allocator: NetmapAllocator
  /// The owner of each queue.
  let workers: [Worker]
  public let region: NetmapRegion
  public let counts: RingCounts
  /// Times at which the receive stamp is not set (the setting `no_timestamp`).
  public var noTimestamp: Bool {
    get { unstamped.load(ordering: .relaxed) }
    set { unstamped.store(newValue, ordering: .relaxed) }
  }
  private let unstamped = Atomic(false)
  var queues: [NetmapQueue] = []
  let hosts: [HostRing]
  /// - Parameters:
  ///   - region: the memory that this card's programs share; of `host`'s allocator.
  ///   - hostRings: pairs of host rings, 1 at least.
  public init(_ host: any NetmapHost, region: NetmapRegion, hostRings: Int = 1) throws(NetmapError) {
    self.host = host
    self.region = region
    allocator = region.allocator
    let queues = host.driver.queueCount, pairs = max(1, hostRings)
    netisr = host.interface.table.netisr
    workers = (0..<queues).map { host.owner(ofQueue: $0) }
    lastName = host.interface.name
    slotCounts = (host.driver.options.transmitDescriptors, host.driver.options.receiveDescriptors)
    counts = RingCounts(transmit: queues, receive: queues, hostTransmit: pairs, hostReceive: pairs)
    hosts = (0..<pairs).map { _ in HostRing() }
    krings = try PortKrings()
    self.queues = (0..<queues).map { NetmapQueue(card: self, index: $0) }
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
  public func worker(of ring: RingID) -> Worker? { workers[ring.number % workers.count] }
  public func defaultRegion(_ memory: NetmapMemory) throws(NetmapError) -> NetmapRegion { region }

  /// On worker 0, before the first ring is used.
  func settleMemory() {
    if let open = krings.region?.allocator, open !== allocator { allocator = open }
  }

  // MARK: Sync

  public func synchronise(_ kring: Kring) -> Bool {
    if kring.id.isHost, kring.id.direction == .receive {
      return hosts[kring.id.number].synchronise(receive: kring) && !kring.isFaulted
    }
    guard holds(kring) else { return false }
    return synchroniseChecked(kring)
  }

  public func sync(_ kring: Kring, released: (from: UInt32, to: UInt32)) {
    if !kring.id.isHost { return queues[kring.id.number].sync(kring, released: released) }
    let pair = hosts[kring.id.number]
    guard pair.transmit === kring else { return }
    let interface = host.interface, queue = kring.id.number % queues.count, base = unsafe allocator.bufferBase
    unsafe pair.drain(
      kring, stack: host.stackPool(ofQueue: queue), base: base, up: { interface.input(&$0, queue: queue) },
      lost: { count(1, bytes: $0, .noBuffer, queue: queue) })
  }

  /// The worker that syncs a ring.
  func owner(of id: RingID) -> Worker { workers[id.number % workers.count] }

  /// Whether a kring is in use: on its owner.
  func holds(_ kring: Kring) -> Bool {
    kring.id.isHost ? hosts[kring.id.number].transmit === kring : queues[kring.id.number].holds(kring)
  }

  /// Slots given back by the program. Those it marked go up the stack, where the ring is transparent.
  func release(_ released: (from: UInt32, to: UInt32), of slots: ReceiveSlots, queue: Int) {
    guard slots.kring.ring.loadFlags().contains(.forward) else { return slots.release(released) }
    var batch = PacketBatch(capacity: NetmapReceive.batchSize)
    let pool = host.stackPool(ofQueue: queue), base = unsafe allocator.bufferBase, size = slots.kring.bufferSize
    slots.release(released) { slot in
      guard slot.flags.contains(.forward), Int(slot.length) >= HostRing.shortest, Int(slot.length) <= size else { return }
      // SAFETY: the ledger has just said that the index is a buffer of the program's.
      let bytes = unsafe UnsafeRawBufferPointer(start: base + Int(slot.bufferIndex) * size, count: Int(slot.length))
      guard let packet = unsafe StackCopy.make(of: bytes, from: pool) else { return count(1, bytes: bytes.count, .noBuffer, queue: queue) }
      if batch.room == 0 { host.interface.input(&batch, queue: queue) }
      if let refused = batch.append(packet) { drop(refused, .noBuffer, queue: queue) }
    }
    if !batch.isEmpty { host.interface.input(&batch, queue: queue) }
  }

  /// The receive stamp: the time of the sync.
  func stamp(_ kring: Kring) {
    guard !noTimestamp || kring.ring.loadFlags().contains(.timestamp) else { return }
    var now = timespec()
    // SAFETY: a local variable; CLOCK_REALTIME always exists.
    _ = unsafe clock_gettime(CLOCK_REALTIME, &now)
    kring.ring.storeTimestamp(seconds: Int64(now.tv_sec), microseconds: Int64(now.tv_nsec / 1000))
  }

  // MARK: The stack

  /// What the stack sends on a queue that is a program's.
  func sendToHost(_ batch: inout PacketBatch, queue: Int) {
    let interface = host.interface
    let wakeup = unsafe hosts[queue % hosts.count].take(
      &batch, drops: interface.table.drops, interface: interface.index, queue: queue, base: allocator.bufferBase)
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
