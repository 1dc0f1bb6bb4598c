// Kring: the trusted half of a netmap ring.
//
//   transmit   ──sent, card has them──┬──handed over──┬──the program fills──┬──(one stays empty)
//                                   hwcur           rhead    rcur         hwtail = rtail
//   receive    ──being filled─────────┬──program reads──┬──came since──┬──free for the adapter
//                                  rhead = hwcur  rcur  rtail        hwtail
//
// The shared ring holds `head`, `cur` and `tail`; the program may write anything there at any time.
// So a sync reads head and cur once (the prologue), holds them against the private copies here, and
// only then do they count; tail is ours and is written last (the epilogue). Who owns a slot follows
// from the private numbers alone:
//
//   transmit   rhead ..< hwtail the program, hwcur ..< rhead waiting to be sent, the rest the card
//   receive    hwcur ..< rtail the program, rtail ..< hwtail filled but not shown, the rest the adapter
//
// Invariants
// - The five numbers are below the number of slots, in the order above, cyclically. One slot always
//   stays empty, so that equal numbers mean "none".
// - A violation resets this ring and nothing else: head and cur go back to the trusted values, slots
//   with impossible contents lose them, `isFaulted` says so to whoever polls. It is counted.
// - A kring's numbers belong to the thread that syncs it; `begin` lets one in at a time.

internal import CRingway
internal import Synchronization

/// Which ring of a port.
public struct RingID: Hashable, Sendable, CustomStringConvertible {
  public var direction: RingDirection
  public var number: Int
  /// A ring to the host's stack, not to the card.
  public var isHost: Bool

  public init(_ direction: RingDirection, _ number: Int, isHost: Bool = false) {
    self.direction = direction
    self.number = number
    self.isHost = isHost
  }
  public var description: String { "\(isHost ? "host " : "")\(direction == .transmit ? "tx" : "rx") \(number)" }
}

/// What a kring counts; written by whoever syncs it.
@frozen public struct KringCounters: Equatable, Sendable, BitwiseCopyable {
  /// Packets and bytes that passed: sent, or put into the ring.
  public var packets: UInt64 = 0, bytes: UInt64 = 0
  public var syncs: UInt64 = 0
  /// Violations: the ring was reset.
  public var resets: UInt64 = 0
  /// Slots that named a buffer which the program does not hold, or more bytes than a buffer has.
  public var badIndexes: UInt64 = 0, badLengths: UInt64 = 0
  /// Times the program wrote to `tail`.
  public var tailsRestored: UInt64 = 0
  /// Packets that were lost here: no room, too long, too many fragments.
  public var drops: UInt64 = 0

  public init() {}
}

/// A kring's numbers, at a fixed address: every packet touches them, and a class's own variables are checked for overlapping
/// uses at each touch.
@frozen public struct KringState: BitwiseCopyable {
  public var rhead: UInt32 = 0
  public var rcur: UInt32 = 0
  public var rtail: UInt32
  public var hwcur: UInt32 = 0
  public var hwtail: UInt32
  public var isFaulted = false
  /// Somebody monitors the ring.
  public var isTapped = false
  public var offsetMask: UInt64 = 0
  public var largestOffset = 0
  public var counters = KringCounters()

  init(tail: UInt32) {
    rtail = tail
    hwtail = tail
  }
}

/// A ring's trusted state, and the view of the shared ring.
@safe public final class Kring: @unchecked Sendable {
  public let id: RingID
  public let ring: NetmapRing
  public let memory: RingMemory
  /// Slots.
  public let count: UInt32
  /// Bytes a buffer.
  public let bufferSize: Int
  public let ledger: BufferLedger
  /// Who holds the buffers in slots that are the program's.
  public let holder: BufferOwner
  public let wakeup: KringWakeup

  /// Written by whoever is inside `begin` and `end`; adapters move `hwcur` and `hwtail`.
  @usableFromInline let state: UnsafeMutablePointer<KringState>
  /// Option OFFSETS: the bits of a slot's `ptr` in which a frame's start is; 0: frames start with their buffers.
  @inlinable @inline(__always) public var offsetMask: UInt64 { unsafe state.pointee.offsetMask }
  /// Bytes: no offset is larger.
  @inlinable @inline(__always) public var largestOffset: Int { unsafe state.pointee.largestOffset }
  /// Bytes that stay free behind a received frame.
  public private(set) var smallestGap = 0
  /// Sees what passes; nil when nobody monitors this ring. Changes between `begin` and `end`.
  public var tap: (any KringTap)? { didSet { unsafe state.pointee.isTapped = tap != nil } }
  /// Whether `tap` is there: a look that costs nothing.
  @inlinable @inline(__always) public var isTapped: Bool { unsafe state.pointee.isTapped }
  /// Whatever the adapter keeps for a ring, so that a sync finds it without a look-up. Set when the ring is made.
  public weak var reader: AnyObject?
  /// When receive syncs are stamped; nil: always.
  public let settings: KringSettings?
  private let busy = Atomic(Kring.idle)
  private static let idle: UInt8 = 0, busy: UInt8 = 1, retired: UInt8 = 2

  /// - Parameters:
  ///   - memory: a fresh ring, its slots filled with buffers that `holder` holds (or will).
  ///   - holder: whoever the slots belong to when they are the program's.
  public init(
    _ id: RingID, _ memory: RingMemory, ledger: BufferLedger, bufferSize: Int, holder: BufferOwner, wakeup: KringWakeup,
    settings: KringSettings? = nil
  ) {
    self.id = id
    self.memory = memory
    ring = memory.ring
    count = memory.ring.slotCount
    self.bufferSize = bufferSize
    self.ledger = ledger
    self.holder = holder
    self.wakeup = wakeup
    self.settings = settings
    unsafe state = .allocate(capacity: 1)
    unsafe state.initialize(to: KringState(tail: id.direction == .transmit ? memory.ring.slotCount - 1 : 0))
  }

  deinit { unsafe state.deallocate() }

  // MARK: Numbers

  // SAFETY of the accesses here: the state lives as long as the kring.
  public internal(set) var rhead: UInt32 {
    @inlinable @inline(__always) get { unsafe state.pointee.rhead }
    set { unsafe state.pointee.rhead = newValue }
  }
  public internal(set) var rcur: UInt32 {
    @inlinable @inline(__always) get { unsafe state.pointee.rcur }
    set { unsafe state.pointee.rcur = newValue }
  }
  public internal(set) var rtail: UInt32 {
    @inlinable @inline(__always) get { unsafe state.pointee.rtail }
    set { unsafe state.pointee.rtail = newValue }
  }
  /// The last sync met a violation: poll answers POLLERR until a sync is clean.
  public internal(set) var isFaulted: Bool {
    @inlinable @inline(__always) get { unsafe state.pointee.isFaulted }
    set { unsafe state.pointee.isFaulted = newValue }
  }
  @inlinable @inline(__always) public var hwcur: UInt32 {
    get { unsafe state.pointee.hwcur }
    set { unsafe state.pointee.hwcur = newValue }
  }
  @inlinable @inline(__always) public var hwtail: UInt32 {
    get { unsafe state.pointee.hwtail }
    set { unsafe state.pointee.hwtail = newValue }
  }
  @inlinable @inline(__always) public var counters: KringCounters {
    get { unsafe state.pointee.counters }
    _modify { yield unsafe &state.pointee.counters }
  }

  // MARK: Offsets

  /// Lets frames start at offsets, from now on. Before a program sees the ring.
  public func setOffsets(mask: UInt64, largest: Int, gap: Int) {
    // SAFETY: as above; nobody syncs the ring yet.
    unsafe state.pointee.offsetMask = mask
    unsafe state.pointee.largestOffset = min(max(0, largest), bufferSize)
    smallestGap = min(max(0, gap), bufferSize)
    ring.storeOffsetMask(mask)
  }

  // MARK: Sync

  /// Lets one sync in at a time.
  /// - Returns: false when another is under way: then this one is skipped, and counts as done.
  public func begin() -> Bool { busy.compareExchange(expected: Self.idle, desired: Self.busy, ordering: .acquiring).exchanged }
  public func end() { _ = busy.compareExchange(expected: Self.busy, desired: Self.idle, ordering: .releasing) }
  /// Waits until no sync is under way, and keeps syncs out until `end`. For the control path: a sync takes microseconds.
  /// A ring that is retired has none, and stays so.
  public func beginWaiting() {
    while !begin() {
      if busy.load(ordering: .acquiring) == Self.retired { return }
      rw_pause()
    }
  }
  /// Waits until no sync is under way, and keeps syncs out for ever: the ring is about to go. Any number of times.
  public func retire() {
    while !busy.compareExchange(expected: Self.idle, desired: Self.retired, ordering: .acquiringAndReleasing).exchanged {
      if busy.load(ordering: .acquiring) == Self.retired { return }
      rw_pause()
    }
  }
  private let skips = Atomic<UInt64>(0)
  public func countSkipped() { skips.wrappingAdd(1, ordering: .relaxed) }
  /// Syncs that found another one under way, and did nothing.
  public var skipped: UInt64 { skips.load(ordering: .relaxed) }

  /// Reads head and cur, once, and checks them.
  /// - Returns: the slots handed over since the last sync: from the old head up to the new one; nil
  ///   after a violation, when the ring has been reset.
  public func prologue() -> (from: UInt32, to: UInt32)? {
    let head = ring.loadHead(), cur = ring.loadCur()
    counters.syncs &+= 1
    let from = rhead
    // Transmit: rhead <= head <= cur <= rtail. Receive: the same, and rhead is hwcur there.
    guard head < count, cur < count else { return reset() }
    let limit = distance(from, rtail), forward = distance(from, head), wish = distance(from, cur)
    guard forward <= wish, wish <= limit else { return reset() }
    if ring.loadTail() != rtail {
      counters.tailsRestored &+= 1
      ring.storeTail(rtail)
    }
    rhead = head
    rcur = cur
    isFaulted = false
    return (from, head)
  }

  /// Shows the program what the adapter did.
  public func finalise() {
    rtail = hwtail
    ring.storeTail(rtail)
  }

  /// A slot of the program's, read once: its index is of a buffer that the program holds, its length
  /// fits, behind the packet's offset. nil for any other; the caller then calls `lose`.
  @inline(__always) public func checkedSlot(_ i: UInt32) -> NetmapSlot? {
    let slot = ring.slot(i)
    guard ledger.isHeld(slot.bufferIndex, by: holder), fits(slot) else { return nil }
    return slot
  }

  /// Takes what is wrong out of a slot, counts it, and resets the ring.
  /// - Parameter head: receive rings: the program gets its slots back from here on.
  public func lose(_ i: UInt32, head: UInt32? = nil) {
    let slot = ring.slot(i)
    if !ledger.isHeld(slot.bufferIndex, by: holder) {
      counters.badIndexes &+= 1
      ring.setSlot(i, bufferIndex: 0, length: 0, flags: slot.flags)
    }
    if let head {
      rhead = head
      rcur = head
    }
    _ = reset()
  }

  /// Gives head, cur and tail their trusted values, and empties slots with impossible contents: a
  /// slot whose index is none loses index and length, one that is too long loses its length alone.
  /// Of receive rings only the program's slots are looked at: the others are the adapter's to write,
  /// perhaps on another thread, and whatever stands in them means nothing.
  @discardableResult public func reset() -> (from: UInt32, to: UInt32)? {
    counters.resets &+= 1
    isFaulted = true
    ring.storeHead(rhead)
    ring.storeCur(rcur)
    ring.storeTail(rtail)
    let isSent = id.direction == .transmit
    var i = isSent ? 0 : rhead, left = isSent ? count : distance(rhead, rtail)
    while left > 0 {
      sanitise(i)
      i = next(i)
      left &-= 1
    }
    return nil
  }

  private func sanitise(_ i: UInt32) {
    let slot = ring.slot(i)
    if slot.bufferIndex < 2 || slot.bufferIndex >= ledger.count {
      if slot.bufferIndex != 0 { counters.badIndexes &+= 1 }
      ring.setSlot(i, bufferIndex: 0, length: 0, flags: slot.flags)
    } else if !fits(slot) {
      counters.badLengths &+= 1
      ring.setSlot(i, bufferIndex: slot.bufferIndex, length: 0, flags: slot.flags)
    }
  }
}
