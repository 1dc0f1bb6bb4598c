// Where a switch puts frames: the free slots of one ring.
//
//            published           write              limit
//   ── ready ────┤── leased, being filled ──┤── free ───┤── the owner's
//
// Several senders fill one ring at a time. Each takes slots under the lock, fills them without it, and reports under the
// lock; the owner sees them in order, as soon as all before them are filled. So a sender never waits for another one's
// copies, and takes the lock twice a batch.
//
// The buffers. The ring's program can write to any slot at any time, so an index that was checked once proves nothing later.
// A sender therefore reads each slot once, when it fills it, and believes the index of that one load only if the ledger says
// that the region's programs hold the buffer. What a hostile program gains by writing in between is that a frame lands in
// another buffer that it may write to anyway: all memory that the ledger lets through here is mapped by the very program.
// A buffer of a card, of the stack or of nobody is refused, and the region's end is never passed. A private list of indexes
// (`ReceiveSlots`) would cost two atomic exchanges a packet and guard nothing more.

internal import CRingway
internal import NetmapCore
internal import Platform
internal import Synchronization

/// What a queue counts.
struct ValeCounters: Equatable, Sendable {
  /// Frames and bytes that were put into the ring.
  var packets: UInt64 = 0, bytes: UInt64 = 0
  /// Frames that found no room, or did not fit.
  var drops: UInt64 = 0
  /// Slots without a buffer of the program's.
  var badIndexes: UInt64 = 0
}

/// A ring that a switch fills: a program's receive ring, or a card's transmit ring.
@safe final class ValeQueue: @unchecked Sendable {
  let kring: Kring
  /// The first slot.
  let slots: UnsafeMutableRawPointer
  let base: UnsafeMutableRawPointer
  let count: UInt32
  let bufferSize: Int
  let ledger: BufferLedger
  let holder: BufferOwner
  /// Tells the owner that there is something, or that there is no room. Quick, from any thread.
  let wake: @Sendable () -> Void
  /// The first slot that must not be filled. The owner's to move.
  private let limit: Atomic<UInt32>
  /// The first slot that is not filled.
  private let published: Atomic<UInt32>
  private let state: Guarded<Leases>

  /// Slots that one sender fills.
  struct Lease {
    var number: UInt32
    var start: UInt32
    var count: UInt32
    var generation: UInt32
  }

  /// Under the lock. `ends` has one entry for each slot: there are never more leases.
  @safe struct Leases: ~Copyable, @unchecked Sendable {
    let ends: UnsafeMutablePointer<UInt32>
    var first: UInt32 = 0, next: UInt32 = 0
    var write: UInt32
    var generation: UInt32 = 0
    var counters = ValeCounters()
    static let pending = UInt32.max

    init(count: Int, write: UInt32) {
      unsafe ends = .allocate(capacity: count)
      unsafe ends.initialize(repeating: Self.pending, count: count)
      self.write = write
    }
    deinit { unsafe ends.deallocate() }
  }

  /// - Parameters:
  ///   - base: the region's buffer 0.
  ///   - write: the first slot to fill; `limit`: the first one that must not be.
  init(_ kring: Kring, base: UnsafeMutableRawPointer, write: UInt32, limit: UInt32, wake: @escaping @Sendable () -> Void) {
    self.kring = kring
    unsafe slots = kring.ring.base + RingOffset.slots
    unsafe self.base = unsafe base
    count = kring.count
    bufferSize = kring.bufferSize
    ledger = kring.ledger
    holder = kring.holder
    self.wake = wake
    self.limit = Atomic(limit)
    published = Atomic(write)
    state = Guarded(Leases(count: Int(kring.count), write: write))
  }

  // MARK: Senders

  /// Takes slots.
  /// - Parameter fitting: how many slots the frames take that fit into so many; asked when there is too little room.
  func reserve(_ wanted: UInt32, fitting: (UInt32) -> UInt32) -> Lease {
    state.withLock { leases in
      let space = kring.distance(leases.write, limit.load(ordering: .acquiring))
      let granted = wanted <= space ? wanted : min(space, fitting(space))
      let lease = Lease(number: leases.next, start: leases.write, count: granted, generation: leases.generation)
      guard granted > 0 else { return lease }
      // SAFETY: `next` is below the count of slots.
      unsafe leases.ends[Int(leases.next)] = Leases.pending
      leases.next = kring.next(leases.next)
      leases.write = kring.advance(leases.write, by: granted)
      return lease
    }
  }

  /// The slots are filled.
  /// - Returns: whether the owner sees more than before.
  func complete(_ lease: Lease, _ counted: ValeCounters) -> Bool {
    state.withLock { leases in
      leases.counters.packets &+= counted.packets
      leases.counters.bytes &+= counted.bytes
      leases.counters.drops &+= counted.drops
      leases.counters.badIndexes &+= counted.badIndexes
      guard lease.count > 0, lease.generation == leases.generation else { return false }
      // SAFETY: numbers of leases are below the count of slots.
      unsafe leases.ends[Int(lease.number)] = kring.advance(lease.start, by: lease.count)
      var moved = false
      while leases.first != leases.next, unsafe leases.ends[Int(leases.first)] != Leases.pending {
        unsafe published.store(leases.ends[Int(leases.first)], ordering: .releasing)
        leases.first = kring.next(leases.first)
        moved = true
      }
      return moved
    }
  }

  /// After the last lease of a batch. The fence orders what was published before the look at who sleeps.
  func notify() {
    atomicMemoryFence(ordering: .sequentiallyConsistent)
    wake()
  }

  // MARK: The owner

  /// Slots before this one are filled.
  var ready: UInt32 { published.load(ordering: .acquiring) }
  /// Slots before this one may be filled.
  func setLimit(_ slot: UInt32) { limit.store(slot, ordering: .releasing) }
  var counters: ValeCounters { state.withLock { $0.counters } }

  /// The ring was set back under the switch's feet: filling starts anew at `slot`, and slots that are being filled count
  /// for nothing.
  func restart(at slot: UInt32, limit end: UInt32) {
    state.withLock { leases in
      leases.generation &+= 1
      leases.first = 0
      leases.next = 0
      leases.write = slot
      published.store(slot, ordering: .releasing)
      limit.store(end, ordering: .releasing)
    }
  }
}
