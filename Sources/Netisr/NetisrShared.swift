// What the workers and producers need of their dispatcher, for as long as any of them lives.

internal import CRingway
internal import DeviceIO
internal import Packet
internal import Platform
internal import Synchronization

@safe final class NetisrShared: @unchecked Sendable {
  let configuration: NetisrConfiguration
  let clock: any TimeSource
  let drops: DropLedger
  /// Workers.
  let count: Int
  /// The largest limit of a queue, and what a limit of 0 becomes.
  let maxQueueLimit: Int
  let defaultQueueLimit: Int
  /// The global dispatch policy; never `default`.
  let policy: Atomic<UInt8>
  /// Held by a thread that makes itself a worker whose thread does not run.
  let dormant = RecursiveLock()
  /// Workers that are asked to end and still have something to do.
  let draining = Atomic<Int>(0)
  let slots: UnsafeMutablePointer<HandlerSlot>
  let blocks: UnsafeMutablePointer<WorkerBlock.Pointer>
  /// Counts what threads that are no worker dispatch directly.
  let foreign: UnsafeMutablePointer<WorkStream>
  let readers = ForeignReaders()
  let registry = Guarded(Registry())

  struct Registry {
    var entries: [HandlerEntry?] = Array(repeating: nil, count: NetisrProtocol.count)
    /// Entries that somebody may still be reading.
    var retired: [HandlerEntry] = []
  }

  init(_ configuration: NetisrConfiguration, _ clock: any TimeSource, _ drops: DropLedger, workers: Int) {
    self.configuration = configuration
    self.clock = clock
    self.drops = drops
    count = workers
    maxQueueLimit = min(max(1, configuration.maxQueueLimit), 1 << 20)
    defaultQueueLimit = min(max(1, configuration.defaultQueueLimit), maxQueueLimit)
    policy = Atomic((configuration.dispatch == .default ? .direct : configuration.dispatch).rawValue)
    var capacity = 1
    while capacity < maxQueueLimit { capacity *= 2 }
    unsafe slots = .allocate(capacity: NetisrProtocol.count)
    unsafe foreign = .allocate(capacity: NetisrProtocol.count)
    for i in 0..<NetisrProtocol.count {
      unsafe (slots + i).initialize(to: HandlerSlot())
      unsafe (foreign + i).initialize(to: WorkStream(capacity: 0))
    }
    unsafe blocks = .allocate(capacity: workers)
    for i in 0..<workers {
      let block = WorkerBlock.Pointer.allocate(capacity: 1)
      unsafe block.initialize(to: WorkerBlock(owner: UnsafeRawPointer(blocks), id: i, capacity: capacity))
      unsafe (blocks + i).initialize(to: block)
    }
  }

  deinit {
    for i in 0..<count {
      unsafe blocks[i].deinitialize(count: 1)
      unsafe blocks[i].deallocate()
    }
    unsafe blocks.deallocate()
    unsafe slots.deinitialize(count: NetisrProtocol.count)
    unsafe slots.deallocate()
    unsafe foreign.deinitialize(count: NetisrProtocol.count)
    unsafe foreign.deallocate()
  }

  /// The calling thread's block when it is one of this dispatcher's workers.
  @inline(__always) var current: WorkerBlock.Pointer? { unsafe WorkerBlock.current(UnsafeRawPointer(blocks)) }

  /// Puts a packet into a worker's stream, without waking the worker.
  /// - Returns: false when the packet was refused and dropped.
  @inline(__always)
  func push(_ proto: Int, _ record: RawPacket, _ vnet: Vnet, to block: WorkerBlock.Pointer) -> Bool {
    if unsafe _slowPath(block.pointee.ended.load(ordering: .relaxed)) { return unsafe refuse(record, proto, .netisrPurged) }
    guard let packet = unsafe QueuedPacket(record, vnet), unsafe block.pointee.streams[proto].push(packet) else {
      return unsafe refuse(record, proto, .netisrQueueFull)
    }
    return true
  }

  @inline(never) private func refuse(_ record: RawPacket, _ proto: Int, _ reason: DropReason) -> Bool {
    unsafe drop(record, proto, reason)
    return false
  }

  /// Tells a worker of packets in its streams: marks the protocol, and wakes the worker if it sleeps.
  @inline(__always)
  func announce(_ proto: Int, to block: WorkerBlock.Pointer, from current: WorkerBlock.Pointer?) {
    let bit = UInt32(1) << UInt32(proto), isOwn = unsafe block == current
    // Against the worker's exchange of the marks: one of the two sees the other.
    if !isOwn { atomicMemoryFence(ordering: .sequentiallyConsistent) }
    if unsafe block.pointee.pending.load(ordering: .relaxed) & bit == 0 {
      unsafe block.pointee.pending.bitwiseOr(bit, ordering: .sequentiallyConsistent)
    }
    if !isOwn { unsafe wake(block) }
  }

  /// Wakes a worker that sleeps. After a fence.
  @inline(__always)
  func wake(_ block: WorkerBlock.Pointer) {
    if unsafe block.pointee.sleeping.load(ordering: .sequentiallyConsistent) { unsafe signal(block) }
  }

  @inline(never) private func signal(_ block: WorkerBlock.Pointer) {
    guard unsafe block.pointee.sleeping.exchange(false, ordering: .sequentiallyConsistent) else { return }
    unsafe block.pointee.wakeups.wrappingAdd(1, ordering: .relaxed)
    unsafe EventFD.signal(block.pointee.wake.load(ordering: .relaxed))
  }

  @inline(never) func drop(_ record: RawPacket, _ proto: Int, _ reason: DropReason) {
    let packet = unsafe Packet(unsafe: record)
    drops.drop(packet, reason, proto: UInt8(truncatingIfNeeded: proto))
  }
}
