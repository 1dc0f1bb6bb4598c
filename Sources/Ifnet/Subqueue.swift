// A send queue of an interface: one for each transmit ring.
//
//     send ──lock──> classic queue (or another discipline) ──> start interlock ──> if_start, on who holds the
//      │                                                            ▲                hardware serializer
//      └──> stage of this worker ──> rollup ────────────────────────┘
//
// Invariants
// - Queue and `started` change under the queue's lock alone: once a packet or a batch, never while the driver runs.
// - if_start runs under the hardware serializer: on the owner worker of a card's ring, under the lock of others.
// - Every packet that does not reach the driver is dropped with a reason of the way out, on this interface and queue.

internal import Netisr
public import Packet
internal import Platform
internal import Synchronization

/// What a subqueue has counted.
public struct SubqueueCounters: Equatable, Sendable {
  /// Frames, and their bytes and multicasts, that the queue took.
  public var queued: UInt64 = 0, bytes: UInt64 = 0, multicasts: UInt64 = 0
  /// Frames that were refused, pushed out or purged.
  public var drops: UInt64 = 0
  /// Frames that went to the driver, less those that it put back.
  public var sent: UInt64 = 0
  /// Calls of if_start; `sent / starts` is what staging brings.
  public var starts: UInt64 = 0
  /// Kicks sent to the owner.
  public var kicks: UInt64 = 0
  /// Packets that waited for more in a stage.
  public var staged: UInt64 = 0
  public init() {}

  func add(to sum: inout InterfaceCounters) {
    sum.opackets &+= sent
    sum.obytes &+= bytes
    sum.omcasts &+= multicasts
    sum.oqdrops &+= drops
  }
}

/// A send queue: the classic queue of the BSDs, with its start interlock, its stages and its watchdog.
@safe public final class Subqueue: @unchecked Sendable {
  public unowned let interface: Interface
  public let index: Int
  let staging: Staging
  /// One for each worker, touched by it alone.
  private let stages: SendStagePointer
  private let active = Atomic(false)
  private let ownerCell: OwnerCell
  let watchdog: Watchdog
  private(set) var kicks: [KickMessage] = []

  // Under the lock, all of them. SAFETY of the unchecked conformance.
  private let lock = Guarded<Void>(())
  private var queue: ClassicQueue
  private var discipline: (any SendQueueDiscipline)?
  private var counts = SubqueueCounters()
  /// The start interlock: somebody runs if_start, or has undertaken to.
  private var started = false
  private var isDetached = false

  /// - Parameter queueLength: packets; 0 or less takes the standard length.
  init(interface: Interface, index: Int, queueLength: Int = 0) {
    self.interface = interface
    self.index = index
    staging = interface.table.staging
    let netisr = interface.table.netisr, cell = OwnerCell()
    ownerCell = cell
    watchdog = Watchdog { netisr.workers[cell.value.load(ordering: .acquiring)] }
    queue = ClassicQueue(limits: Self.limits(queueLength, staging))
    let workers = staging.lists.count
    unsafe stages = .allocate(capacity: workers)
    for n in 0..<workers { unsafe (stages + n).initialize(to: SendStage(self)) }
    kicks = (0..<workers).map { worker in
      KickMessage { [weak interface] in interface?.subqueues[index].kicked(on: worker) }
    }
  }

  deinit {
    // SAFETY: no stage is on a list, as it would hold the interface, which holds this.
    unsafe stages.deinitialize(count: staging.lists.count)
    unsafe stages.deallocate()
  }

  // MARK: State

  /// oactive: the ring is full, `if_start` is not called.
  public var isActive: Bool {
    get { active.load(ordering: .acquiring) }
    set { active.store(newValue, ordering: .releasing) }
  }

  /// Packets that wait.
  public var count: Int { lock.withLock { _ in waiting } }
  /// Bytes that wait.
  public var bytes: Int { lock.withLock { _ in discipline.map { $0.bytes &+ queue.bytes } ?? queue.bytes } }
  public var limits: SendLimits { lock.withLock { _ in queue.limits } }
  public var counters: SubqueueCounters { lock.withLock { _ in counts } }
  /// Whether the start interlock is held.
  public var isStarted: Bool { lock.withLock { _ in started } }

  private var waiting: Int { discipline.map { $0.count &+ queue.count } ?? queue.count }

  /// The worker whose ring this is.
  public var owner: Int { ownerCell.value.load(ordering: .acquiring) }

  /// Sets the owner: the worker whose ring this is. Called on the old owner when the ring is in use: the old one
  /// cannot be in `if_start` then. Kicks that are on their way follow.
  public func setOwner(_ worker: Int) {
    let count = staging.lists.count
    let worker = max(0, worker) % max(1, count)
    interface.serializer.ownerChanged(queue: index, to: worker)
    ownerCell.value.store(worker, ordering: .releasing)
  }

  /// ifq_set_maxlen: the limit becomes `length` and one full stage for each worker.
  /// - Parameter length: packets; 0 or less takes the standard length (250).
  public func setMaxLength(_ length: Int) {
    let limits = Self.limits(length, staging)
    var refusals = SendRefusals()
    lock.withLock { _ in
      queue.limits = limits
      discipline?.handle(.limits(limits), &refusals)
      counts.drops &+= UInt64(refusals.refused.count &+ refusals.pushedOut.count)
    }
    drop(&refusals, .sendQueueFull)
  }

  private static func limits(_ length: Int, _ staging: Staging) -> SendLimits {
    let wanted = min(length <= 0 ? SendLimits.standard : length, SendLimits.longest)
    let stored = min(wanted + min(staging.queueSlack, SendLimits.longest), SendLimits.longest * 2)
    return SendLimits(length: stored, bytes: stored * 2048)
  }

  /// ifq_set_methods: puts another discipline in the classic queue's place; nil puts it back. What waits is purged.
  public func setDiscipline(_ new: (any SendQueueDiscipline)?) {
    purge()
    var refusals = SendRefusals()
    lock.withLock { _ in
      discipline?.handle(.purge, &refusals)
      discipline = new
      new?.handle(.limits(queue.limits), &refusals)
      counts.drops &+= UInt64(refusals.refused.count &+ refusals.pushedOut.count)
    }
    drop(&refusals, .sendQueuePurged)
  }

  // MARK: For if_start

  /// Moves packets into the batch until it is full or the queue is empty. Returns how many.
  @discardableResult public func dequeue(into batch: inout PacketBatch) -> Int {
    lock.withLock { _ in
      var moved = 0
      while batch.room > 0, let packet = next() {
        // The batch has room: it gives nothing back.
        _ = batch.append(packet)
        moved &+= 1
      }
      counts.sent &+= UInt64(moved)
      return moved
    }
  }

  private func next() -> Packet? {
    guard let discipline else { return queue.dequeue() }
    return queue.dequeue() ?? discipline.dequeue()
  }

  /// ifq_poll: bytes of the packet that comes next; nil when nothing waits.
  public var nextBytes: Int? { lock.withLock { _ in queue.poll() ?? discipline?.poll() } }

  /// Puts back in front what the ring did not take; the batch is empty then.
  public func prepend(_ batch: inout PacketBatch) {
    var refusals = SendRefusals()
    lock.withLock { _ in
      counts.sent &-= min(counts.sent, UInt64(batch.count))
      while let packet = batch.popLast() {
        if isDetached { refusals.refused.append(packet) } else { queue.prepend(packet) }
      }
      counts.drops &+= UInt64(refusals.refused.count)
    }
    drop(&refusals, .sendInterfaceGone)
  }

  // MARK: Sending

  /// ifq_dispatch: queues a frame and sees to it that `if_start` runs, now, when more have come, or in the rollup.
  /// - Returns: false when it was dropped (ENOBUFS; counted).
  @discardableResult public func send(_ packet: consuming Packet, priority: Bool = false) -> Bool {
    var gather = Gather(self, count: 1, bytes: packet.count)
    var refusals = SendRefusals()
    var lent = Optional(packet)
    let isAccepted = lock.withLock { _ in
      var isAccepted = false
      if let packet = lent.take() { isAccepted = enqueue(packet, priority: priority, &refusals) }
      settle(&gather, isComplete: isAccepted)
      return isAccepted
    }
    finish(gather, &refusals)
    return isAccepted
  }

  /// The same for a batch, with one lock: it is empty afterwards.
  /// - Returns: how many frames were taken.
  @discardableResult public func send(batch: inout PacketBatch, priority: Bool = false) -> Int {
    guard !batch.isEmpty else { return 0 }
    var bytes = 0
    batch.forEach { bytes &+= $0.count }
    var gather = Gather(self, count: batch.count, bytes: bytes)
    var refusals = SendRefusals()
    let accepted = lock.withLock { _ in
      let total = batch.count
      var accepted = 0, i = 0
      let slots = unsafe batch.fullSlots
      while i < total {
        // SAFETY: each of the batch's records is moved out once; `removePrefix` forgets them below.
        if unsafe enqueue(Packet(unsafe: slots[i]), priority: priority, &refusals) { accepted &+= 1 }
        i &+= 1
      }
      batch.removePrefix(total)
      settle(&gather, isComplete: accepted == total)
      return accepted
    }
    finish(gather, &refusals)
    return accepted
  }

  /// Under the lock.
  private func enqueue(_ packet: consuming Packet, priority: Bool, _ refusals: inout SendRefusals) -> Bool {
    let bytes = UInt64(packet.count)
    let isMulticast = (packet.byte(at: 0) ?? 0) & 1 == 1
    let pushed = refusals.pushedOut.count
    let isAccepted: Bool
    if isDetached {
      refusals.refused.append(packet)
      isAccepted = false
    } else if let discipline {
      isAccepted = discipline.enqueue(packet, priority: priority, limits: queue.limits, &refusals)
    } else {
      isAccepted = queue.enqueue(packet, priority: priority, &refusals)
    }
    counts.drops &+= UInt64(refusals.pushedOut.count &- pushed)
    guard isAccepted else {
      counts.drops &+= 1
      return false
    }
    counts.queued &+= 1
    counts.bytes &+= bytes
    if isMulticast { counts.multicasts &+= 1 }
    return true
  }

  /// What a send has found out about its stage and the interlock.
  @safe private struct Gather: ~Copyable {
    enum Outcome {
      /// The only packet was refused and nothing waits.
      case nothing
      /// It waits for more in the stage.
      case gathers
      /// This call took the interlock.
      case starts
      /// Somebody has the interlock, and will send it or has left a kick.
      case held
    }
    let list: StageList?
    let stage: SendStagePointer?
    /// Whether the stage is to gather more.
    var waits = false
    var outcome = Outcome.nothing

    init(_ subqueue: Subqueue, count: Int, bytes: Int) {
      guard let (list, worker) = subqueue.staging.currentList() else {
        list = nil
        unsafe stage = nil
        return
      }
      self.list = list
      // SAFETY: the calling worker's own stage.
      let own = unsafe subqueue.stages + worker
      unsafe own.pointee.count &+= count
      unsafe own.pointee.bytes &+= bytes
      unsafe stage = own
      waits = unsafe own.pointee.count < subqueue.staging.countMaximum
        && own.pointee.bytes < subqueue.staging.byteLimit(mtu: subqueue.interface.mtu)
    }
  }

  /// Under the lock: takes the interlock when the ring is to be started. What waits behind a refused packet is
  /// started: that makes room.
  private func settle(_ gather: inout Gather, isComplete: Bool) {
    if !isComplete {
      guard waiting > 0 else { return }
      gather.waits = false
    }
    if started {
      gather.outcome = .held
    } else if gather.waits {
      counts.staged &+= 1
      gather.outcome = .gathers
    } else {
      started = true
      gather.outcome = .starts
    }
  }

  /// With the lock open again.
  private func finish(_ gather: consuming Gather, _ refusals: inout SendRefusals) {
    if !refusals.refused.isEmpty || !refusals.pushedOut.isEmpty {
      drop(&refusals, lock.withLock { _ in isDetached } ? .sendInterfaceGone : .sendQueueFull)
    }
    if let list = gather.list, let stage = unsafe gather.stage {
      switch gather.outcome {
      case .nothing: return
      case .gathers: return unsafe list.insert(stage)
      case .held where unsafe stage.pointee.isScheduled:
        // A kick was left here: a full stage sends it off, one that gathers keeps it.
        guard !gather.waits else { return }
        unsafe list.remove(stage)
        return scheduleStart(force: true)
      case .held, .starts: unsafe list.remove(stage)
      }
    }
    if gather.outcome == .starts { tryStart(forceSchedule: false) }
  }

  // MARK: The end

  /// Drops everything that waits.
  public func purge(_ reason: DropReason = .sendQueuePurged) {
    var refusals = SendRefusals()
    lock.withLock { _ in
      queue.purge(&refusals)
      discipline?.handle(.purge, &refusals)
      counts.drops &+= UInt64(refusals.refused.count &+ refusals.pushedOut.count)
    }
    drop(&refusals, reason)
  }

  private func drop(_ refusals: inout SendRefusals, _ reason: DropReason) {
    let drops = interface.table.drops
    while let packet = refusals.refused.popFirst() {
      drops.drop(packet, reason, interface: interface.index, queue: UInt8(truncatingIfNeeded: index))
    }
    while let packet = refusals.pushedOut.popFirst() {
      drops.drop(packet, .sendQueuePushedOut, interface: interface.index, queue: UInt8(truncatingIfNeeded: index))
    }
  }

  /// Detach: no watchdog, no stage, no packet, and none will be taken any more.
  func detach() {
    stopWatchdog()
    lock.withLock { _ in isDetached = true }
    for worker in staging.netisr.workers {
      worker.perform { [self] in unsafe staging.lists[worker.id].remove(stages + worker.id) }
    }
    purge(.sendInterfaceGone)
  }

  // MARK: The start interlock's state

  /// Takes the interlock; false when somebody has it, when the interface has gone, or (where `wantsData`) when
  /// nothing waits.
  func takeInterlock(wantsData: Bool) -> Bool {
    lock.withLock { _ in
      guard !started, !isDetached, !wantsData || waiting > 0 else { return false }
      started = true
      return true
    }
  }

  /// After if_start: keeps the interlock when the ring goes on and data waits; otherwise releases it.
  /// - Returns: whether it was kept: whoever asked has to see to another start.
  func keepInterlock(isRunning: Bool) -> Bool {
    lock.withLock { _ in
      started = isRunning && waiting > 0 && !isDetached
      return started
    }
  }

  /// if_start is about to be called; false when the interface has gone, and then it is not.
  func noteStart() -> Bool {
    lock.withLock { _ in
      if !isDetached { counts.starts &+= 1 }
      return !isDetached
    }
  }
  func noteKick() { lock.withLock { _ in counts.kicks &+= 1 } }

  /// The calling worker's stage, emptied and put on its list with the kick left on it; false on other threads and
  /// when staging is off.
  func leaveKick() -> Bool {
    guard staging.countMaximum > 0, let (list, worker) = staging.currentList() else { return false }
    // SAFETY: the calling worker's own stage.
    unsafe (stages + worker).pointee.count = 0
    unsafe (stages + worker).pointee.bytes = 0
    unsafe list.insert(stages + worker)
    unsafe (stages + worker).pointee.isScheduled = true
    return true
  }
}
