// What arrives at one receive ring of a pipe.

internal import CRingway
internal import NetmapCore

/// A receive ring, seen from both sides. The class's main file says who touches what.
///
/// The two numbers and the sender's counts lie in cache lines of their own: the sides run on two cores.
@safe final class PipeQueue: @unchecked Sendable {
  let side: PipeSide
  /// The empty buffer in each slot that is the sender's to fill. The receiver writes an entry before it publishes
  /// `consumed`; the sender reads it after.
  let spare: UnsafeMutablePointer<UInt32>
  private let shared: UnsafeMutableRawPointer
  private enum At {
    static let produced = 0, packets = 8, bytes = 16, consumed = 64, ready = 68, size = 128
  }

  /// - Parameter side: a fresh receive ring: its slots' buffers are the sender's to fill.
  init(_ side: PipeSide) {
    self.side = side
    let count = Int(side.kring.count)
    unsafe spare = .allocate(capacity: count)
    for i in 0..<count { unsafe (spare + i).initialize(to: side.kring.ring.slot(UInt32(i)).bufferIndex) }
    unsafe shared = .allocate(byteCount: At.size, alignment: 64)
    _ = unsafe shared.initializeMemory(as: UInt8.self, repeating: 0, count: At.size)
  }

  deinit {
    unsafe spare.deallocate()
    unsafe shared.deallocate()
  }

  var count: UInt32 { side.kring.count }
  // SAFETY: of the accesses here: inside the block, which lives as long as this object.

  /// The slot behind the last one that was filled. The sender's to move.
  var produced: UInt32 { unsafe rw_load_acquire32(shared + At.produced) }
  /// The slot behind the last one that was given back. The receiver's to move.
  var consumed: UInt32 { unsafe rw_load_acquire32(shared + At.consumed) }

  /// Whether the receiver has synced once: before that its program may still be setting the ring up (offsets).
  var isReady: Bool { unsafe rw_load_acquire32(shared + At.ready) != 0 }
  /// The receiver: packets may come.
  func getReady() { unsafe rw_store_release32(shared + At.ready, 1) }

  /// Slots that the sender may fill.
  func room(from produced: UInt32) -> UInt32 { count &- 1 &- side.kring.distance(consumed, produced) }

  /// The sender: shows what it put into the slots up to `produced`.
  func publish(_ produced: UInt32, packets: UInt64, bytes: UInt64) {
    unsafe rw_store_relaxed64(shared + At.packets, rw_load_relaxed64(shared + At.packets) &+ packets)
    unsafe rw_store_relaxed64(shared + At.bytes, rw_load_relaxed64(shared + At.bytes) &+ bytes)
    unsafe rw_store_release32(shared + At.produced, produced)
  }

  /// The receiver: takes back `released`, and looks what came. The first slot that names no buffer of the program's ends
  /// it: the ring is reset, and the program has its slots again from there.
  /// - Returns: whether slots were given back.
  func receive(_ released: (from: UInt32, to: UInt32)) -> Bool {
    let kring = side.kring
    var i = released.from, bad = false
    while i != released.to, !bad {
      let run = (released.to > i ? released.to : kring.count) &- i
      let done = unsafe PipeLoops.takeBack(
        kring.ring.base + RingOffset.slots + Int(i) * RingOffset.slotSize, spare + Int(i), Int(run), kring.ledger, kring.holder)
      bad = done < Int(run)
      i = kring.advance(i, by: UInt32(truncatingIfNeeded: done))
    }
    let moved = kring.hwcur != i
    kring.hwcur = i
    if moved { unsafe rw_store_release32(shared + At.consumed, i) }
    kring.hwtail = produced
    kring.counters.packets = unsafe rw_load_relaxed64(shared + At.packets)
    kring.counters.bytes = unsafe rw_load_relaxed64(shared + At.bytes)
    if bad { kring.lose(i, head: i) }
    return moved
  }

  /// The end of the ring, with both sides out: every buffer in it, as far as the program's slots are true.
  func dissolve() -> [UInt32] {
    let kring = side.kring
    var buffers: [UInt32] = []
    let filled = kring.distance(consumed, produced)
    for n in 0..<count {
      let i = kring.advance(consumed, by: n)
      buffers.append(n < filled ? kring.ring.slot(i).bufferIndex : unsafe spare[Int(i)])
    }
    return buffers
  }
}

/// The loops over slots: a run never wraps, and nothing here is called once a slot.
enum PipeLoops {
  /// What stays of a slot that is sent, besides index and length: the program's own flags. Not the ones that would send
  /// the reader to somebody's memory or tell it what is not so.
  @inline(__always) static var kept: UInt64 {
    0xffff_ffff | 0xffff << 32 | UInt64(0xff00 | SlotFlags.moreFragments.rawValue | SlotFlags.forward.rawValue | SlotFlags.noLearn.rawValue) << 48
  }
  @inline(__always) static var changed: UInt64 { UInt64(SlotFlags.bufferChanged.rawValue) << 48 }
  @inline(__always) static var more: UInt64 { UInt64(SlotFlags.moreFragments.rawValue) << 48 }

  /// Notes the buffers of slots that a reader gives back.
  /// - Returns: how many; fewer than `count` when a slot names what is not the program's.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  static func takeBack(
    _ slots: UnsafeMutableRawPointer, _ spare: UnsafeMutablePointer<UInt32>, _ count: Int, _ ledger: BufferLedger, _ holder: BufferOwner
  ) -> Int {
    var i = 0
    while i < count {
      // SAFETY: the caller's run lies in the ring and in `spare`.
      let index = unsafe rw_read32(slots + i &* RingOffset.slotSize)
      guard ledger.isHeld(index, by: holder) else { break }
      unsafe spare[i] = index
      i &+= 1
    }
    return i
  }

  /// Moves packets of one slot each: one load and two stores a slot.
  /// - Parameters:
  ///   - size: bytes a buffer, at most 65536.
  ///   - bytes: grows by what was moved.
  /// - Returns: how many; fewer than `count` when the next slot is part of a longer packet, or is not right.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(never) static func move(
    _ sent: UnsafeMutableRawPointer, _ received: UnsafeMutableRawPointer, _ spare: UnsafeMutablePointer<UInt32>, _ count: Int,
    _ ledger: BufferLedger, _ holder: BufferOwner, size: UInt32, bytes: inout UInt64
  ) -> Int {
    guard holder.rawValue > BufferOwner.reserved.rawValue else { return 0 }
    let sentEnd = unsafe sent + count &* RingOffset.slotSize, receivedEnd = unsafe received + count &* RingOffset.slotSize
    let spareEnd = unsafe UnsafeRawPointer(spare + count), buffers = ledger.count
    // One index, in bytes of `spare` below the ends, serves all three.
    var j = count &* -4, sum: UInt64 = 0
    while j != 0 {
      // SAFETY: the caller's runs lie in the rings and in `spare`.
      let word = unsafe rw_read64(sentEnd + j &* 4), index = UInt32(truncatingIfNeeded: word)
      // Too long, or more fragments: bit 21 of what is compared.
      let odd = UInt32(truncatingIfNeeded: word >> 32) & 0x20_ffff
      guard odd <= size, index < buffers, ledger.owner(of: index) == holder else { break }
      unsafe rw_write64(receivedEnd + j &* 4, word & kept | changed)
      unsafe rw_write64(
        sentEnd + j &* 4, UInt64(odd &+ UInt32(SlotFlags.bufferChanged.rawValue) << 16) << 32 | UInt64((spareEnd + j).load(as: UInt32.self)))
      sum &+= UInt64(odd)
      j &+= 4
    }
    bytes &+= sum
    return count &+ j / 4
  }
}
