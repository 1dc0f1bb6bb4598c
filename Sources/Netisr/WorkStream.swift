// A work stream: the packets of one protocol that wait for one worker.
//
//     producers ──CAS on `tail`──> slot, slot, slot, … ──> the worker, a whole batch at a time
//     length = tail - head: what was accepted and has not been moved to a batch
//
// Invariants
// - A slot is 0, or holds a record that the stream owns, with its stack instance above the address.
// - `head` moves after the slots behind it are 0 again; a producer takes a slot only while
//   tail - head is below the limit, which is never above the number of slots.
// - Counters of the worker's have one writer; those of producers are read-modify-write.

internal import CRingway
internal import Glibc
internal import Packet
internal import Synchronization

/// A packet in a stream: address of the record below, stack instance above.
@safe struct QueuedPacket {
  let word: UInt
  private static let addressBits: UInt = 48

  init(word: UInt) { self.word = word }
  /// nil when the address is too long, which no Linux process gets without asking.
  init?(_ record: RawPacket, _ vnet: Vnet) {
    let address = UInt(bitPattern: record)
    guard address >> Self.addressBits == 0 else { return nil }
    word = address | UInt(vnet.rawValue) << Self.addressBits
  }
  // SAFETY: made of a record's address above.
  var record: RawPacket { unsafe RawPacket(bitPattern: word & (1 << Self.addressBits - 1)).unsafelyUnwrapped }
  var vnet: Vnet { Vnet(rawValue: UInt16(truncatingIfNeeded: word >> Self.addressBits)) }
}

@safe struct WorkStream: ~Copyable {
  // Producers.
  /// Packets ever accepted.
  private let tail = Atomic<UInt64>(0)
  private let full = Atomic<UInt64>(0)
  private let mark = Atomic<UInt64>(0)
  private let maximum = Atomic<UInt64>(0)
  private let padding: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
  // The worker.
  private let head = Atomic<UInt64>(0)
  private let base = Atomic<UInt64>(0)
  private let handledCount = Atomic<UInt64>(0)
  private let directCount = Atomic<UInt64>(0)
  private let hybridCount = Atomic<UInt64>(0)
  private let purgedCount = Atomic<UInt64>(0)
  private let padding2: (UInt64, UInt64) = (0, 0)
  // Both, never changed.
  private let slots: UnsafeMutablePointer<Atomic<UInt>>?
  private let mask: UInt64
  private let padding3: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0)

  /// - Parameter capacity: slots, a power of two; 0 for a stream that only counts. Memory that is
  ///   never used stays the kernel's.
  init(capacity: Int) {
    mask = capacity > 0 ? UInt64(capacity - 1) : 0
    // SAFETY: zeroed memory is an array of atomics that are 0; no memory: a stream that is always full.
    unsafe slots = capacity > 0 ? calloc(capacity, MemoryLayout<Atomic<UInt>>.stride)?
      .bindMemory(to: Atomic<UInt>.self, capacity: capacity) : nil
  }

  deinit { unsafe Glibc.free(slots) }

  // MARK: Producers

  var length: Int { Int(truncatingIfNeeded: tail.load(ordering: .acquiring) &- head.load(ordering: .acquiring)) }
  var limit: Int {
    get { Int(maximum.load(ordering: .relaxed)) }
    nonmutating set { maximum.store(UInt64(max(0, newValue)), ordering: .relaxed) }
  }

  /// Takes a packet over; false, with a drop counted, when the stream is full.
  func push(_ packet: QueuedPacket) -> Bool {
    guard let slots = unsafe slots else { return refuse() }
    let limit = min(maximum.load(ordering: .relaxed), mask &+ 1)
    var at = tail.load(ordering: .relaxed)
    var length: UInt64
    while true {
      let taken = head.load(ordering: .acquiring)
      // Others may have been here since `at` was read: then it is behind `head`, and read anew.
      length = at >= taken ? at &- taken : 0
      if at >= taken, length >= limit { return refuse() }
      let tried = tail.compareExchange(expected: at, desired: at &+ 1, ordering: .acquiringAndReleasing)
      if tried.exchanged { break }
      at = tried.original
    }
    unsafe slots[Int(at & mask)].store(packet.word, ordering: .releasing)
    if length &+ 1 > mark.load(ordering: .relaxed) { mark.max(length &+ 1, ordering: .relaxed) }
    return true
  }

  private func refuse() -> Bool {
    full.wrappingAdd(1, ordering: .relaxed)
    return false
  }

  // MARK: The worker

  /// Moves what waits to `batch`, which has room for every slot. `isWhole` is false when a producer is
  /// still about to fill its slot.
  func drain(into batch: UnsafeMutablePointer<UInt>) -> (count: Int, isWhole: Bool) {
    guard let slots = unsafe slots else { return (0, true) }
    let end = tail.load(ordering: .acquiring)
    var at = head.load(ordering: .relaxed), n = 0
    while at != end {
      let slot = unsafe slots + Int(at & mask)
      let word = unsafe slot.pointee.load(ordering: .acquiring)
      if word == 0 { break }
      unsafe slot.pointee.store(0, ordering: .relaxed)
      unsafe batch[n] = word
      n &+= 1
      at &+= 1
    }
    head.store(at, ordering: .releasing)
    return (n, at == end)
  }

  /// Takes out what `remove` names among the first `most` packets and gives it to `batch`; the rest
  /// keeps its order. Returns how many were taken out.
  func purge(into batch: UnsafeMutablePointer<UInt>, most: Int, _ remove: (QueuedPacket) -> Bool) -> Int {
    guard let slots = unsafe slots else { return 0 }
    let start = head.load(ordering: .relaxed), end = tail.load(ordering: .acquiring)
    var published = start
    while published != end, published &- start < UInt64(most), unsafe slots[Int(published & mask)].load(ordering: .acquiring) != 0 { published &+= 1 }
    // From the newest to the oldest: what stays moves up.
    var from = published, to = published, removed = 0
    while from != start {
      from &-= 1
      let word = unsafe slots[Int(from & mask)].load(ordering: .relaxed)
      if remove(QueuedPacket(word: word)) {
        unsafe batch[removed] = word
        removed &+= 1
      } else {
        to &-= 1
        if to != from { unsafe slots[Int(to & mask)].store(word, ordering: .relaxed) }
      }
    }
    while from != to {
      unsafe slots[Int(from & mask)].store(0, ordering: .relaxed)
      from &+= 1
    }
    head.store(to, ordering: .releasing)
    count(purged: removed)
    return removed
  }

  @inline(__always) private func raise(_ counter: borrowing Atomic<UInt64>, _ n: Int) {
    counter.store(counter.load(ordering: .relaxed) &+ UInt64(truncatingIfNeeded: n), ordering: .relaxed)
  }
  @inline(__always) func count(handled n: Int) { raise(handledCount, n) }
  @inline(__always) func count(direct n: Int) {
    raise(directCount, n)
    raise(handledCount, n)
  }
  @inline(__always) func countHybrid() {
    raise(hybridCount, 1)
    raise(handledCount, 1)
  }
  func count(purged n: Int) { raise(purgedCount, n) }

  /// Counts as if nothing had been queued or handled yet. On the worker, with the stream empty.
  func reset() {
    base.store(head.load(ordering: .relaxed), ordering: .relaxed)
    for counter in 0..<4 { zero(counter) }
    full.store(0, ordering: .relaxed)
    mark.store(0, ordering: .relaxed)
  }
  private func zero(_ counter: Int) {
    switch counter {
    case 0: handledCount.store(0, ordering: .relaxed)
    case 1: directCount.store(0, ordering: .relaxed)
    case 2: hybridCount.store(0, ordering: .relaxed)
    default: purgedCount.store(0, ordering: .relaxed)
    }
  }

  // MARK: Threads that are no worker

  /// Counts packets that any of several threads has handled.
  func countShared(direct n: Int) {
    directCount.wrappingAdd(UInt64(truncatingIfNeeded: n), ordering: .relaxed)
    handledCount.wrappingAdd(UInt64(truncatingIfNeeded: n), ordering: .relaxed)
  }

  // MARK: Readers

  func clearDrops() { full.store(0, ordering: .relaxed) }
  var drops: UInt64 { full.load(ordering: .relaxed) }
  var watermark: Int { Int(mark.load(ordering: .relaxed)) }
  var queued: UInt64 { tail.load(ordering: .acquiring) &- base.load(ordering: .relaxed) }
  var handled: UInt64 { handledCount.load(ordering: .relaxed) }
  var direct: UInt64 { directCount.load(ordering: .relaxed) }
  var hybrid: UInt64 { hybridCount.load(ordering: .relaxed) }
  var purged: UInt64 { purgedCount.load(ordering: .relaxed) }
}

/// What dispatch needs of a worker, at a fixed address.
@safe struct WorkerBlock: ~Copyable {
  typealias Pointer = UnsafeMutablePointer<WorkerBlock>

  /// A bit for each protocol with packets in its stream.
  let pending = Atomic<UInt32>(0)
  /// The worker is about to sleep, or sleeps.
  let sleeping = Atomic(false)
  /// It does not look at its streams any more.
  let ended = Atomic(false)
  /// How often it was woken by a signal.
  let wakeups = Atomic<UInt64>(0)
  /// The eventfd that wakes it.
  let wake = Atomic<Int32>(-1)
  /// Which dispatcher it belongs to.
  let owner: UnsafeRawPointer
  let id: Int
  let streams: UnsafeMutablePointer<WorkStream>
  /// A batch that was taken out of a stream. The worker's own.
  let batch: UnsafeMutablePointer<UInt>
  // FreeBSD's flags of a work stream; SCHEDULED is `pending`. The worker's own.
  var isRunning = false
  var isDispatching = false

  init(owner: UnsafeRawPointer, id: Int, capacity: Int) {
    unsafe self.owner = unsafe owner
    self.id = id
    unsafe streams = .allocate(capacity: NetisrProtocol.count)
    for i in 0..<NetisrProtocol.count { unsafe (streams + i).initialize(to: WorkStream(capacity: capacity)) }
    unsafe batch = .allocate(capacity: capacity)
  }

  deinit {
    unsafe streams.deinitialize(count: NetisrProtocol.count)
    unsafe streams.deallocate()
    unsafe batch.deallocate()
  }

  /// The calling thread's block, when it is a worker of `owner`.
  @inline(__always) static func current(_ owner: UnsafeRawPointer) -> Pointer? {
    // SAFETY: set by the worker that the thread is, whose block outlives it.
    guard let block = unsafe rw_thread_block()?.assumingMemoryBound(to: WorkerBlock.self),
      unsafe block.pointee.owner == owner
    else { return nil }
    return unsafe block
  }
}
