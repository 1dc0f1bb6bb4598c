// A receive ring's slots as the adapter knows them, whatever the program writes.
//
// A slot's buffer changes hands twice a round. Released by the program: the ledger moves it to the
// port, and its index is noted here; from then on the program cannot name it anywhere, and what it
// writes into the slot means nothing. Filled: the ledger moves the buffer to the program, and the
// slot says which one it is: often another than before, because a card's full buffer was traded for
// the slot's empty one.

internal import CRingway

/// Which buffer lies in each slot of a receive ring. Belongs to whoever syncs the ring.
@safe public final class ReceiveSlots: @unchecked Sendable {
  public let kring: Kring
  /// Who holds the buffers of slots that are the adapter's.
  public let port: BufferOwner
  /// The adapter's own list: the buffer in each slot, as it last was the adapter's.
  public let buffers: UnsafeMutablePointer<UInt32>

  /// Fills a fresh ring: every slot is the adapter's.
  /// - Parameter indices: a buffer for each slot, held by `port`.
  public init(_ kring: Kring, indices: [UInt32], port: BufferOwner) {
    self.kring = kring
    self.port = port
    let count = Int(kring.count)
    unsafe buffers = .allocate(capacity: count)
    for i in 0..<count {
      let index = i < indices.count ? indices[i] : 0
      unsafe (buffers + i).initialize(to: index)
      kring.ring.setSlot(
        UInt32(i), NetmapSlot(bufferIndex: index, length: UInt16(truncatingIfNeeded: min(kring.bufferSize, Int(UInt16.max)))))
    }
  }

  deinit { unsafe buffers.deallocate() }

  /// The empty buffer in slot `i`, which is the adapter's.
  // SAFETY: of the accesses here: kring's numbers are below its count of slots.
  @inline(__always) public func buffer(_ i: UInt32) -> UInt32 { unsafe buffers[Int(i < kring.count ? i : 0)] }

  /// Takes back the slots `from ..< to`, and moves `hwcur` over them. The first one whose buffer is
  /// not the program's ends it: the ring is reset, and the program has its slots again from there.
  public func release(_ released: (from: UInt32, to: UInt32)) {
    let ledger = kring.ledger, holder = kring.holder, buffers = unsafe self.buffers, port = self.port
    let slots = unsafe kring.ring.base + RingOffset.slots
    var i = released.from
    // SAFETY: the prologue held both numbers against the ring's slots, and a run never wraps.
    while i != released.to {
      let run = Int((released.to > i ? released.to : kring.count) &- i)
      let slot = unsafe slots + Int(i) &* RingOffset.slotSize, buffer = unsafe buffers + Int(i)
      var k = 0
      while k < run {
        let index = unsafe rw_read32(slot + k &* RingOffset.slotSize)
        guard ledger.transfer(index, from: holder, to: port) else { break }
        unsafe buffer[k] = index
        k &+= 1
      }
      i = kring.advance(i, by: UInt32(truncatingIfNeeded: k))
      guard k == run else {
        kring.hwcur = i
        return kring.lose(i, head: i)
      }
    }
    kring.hwcur = i
  }

  /// The same, with a look at each slot.
  /// - Parameter each: sees a slot before its buffer changes hands.
  public func release(_ released: (from: UInt32, to: UInt32), each: (NetmapSlot) -> Void) {
    var i = released.from
    while i != released.to {
      let slot = kring.ring.slot(i)
      guard kring.ledger.isHeld(slot.bufferIndex, by: kring.holder) else { return kring.lose(i, head: i) }
      each(slot)
      guard kring.ledger.transfer(slot.bufferIndex, from: kring.holder, to: port) else { return kring.lose(i, head: i) }
      unsafe buffers[Int(i)] = slot.bufferIndex
      i = kring.next(i)
      kring.hwcur = i
    }
  }

  /// Puts a filled buffer, held by the port, into the next free slot and hands it to the program.
  /// - Returns: the empty buffer that the slot had before, still the port's; `index` itself when
  ///   that was filled in place.
  @inline(__always)
  public func fill(_ index: UInt32, length: Int, flags: SlotFlags) -> UInt32 {
    let i = kring.hwtail, before = unsafe buffers[Int(i)]
    if !kring.ledger.transfer(index, from: port, to: kring.holder) { kring.counters.badIndexes &+= 1 }
    kring.ring.setSlot(
      i, bufferIndex: index, length: UInt16(truncatingIfNeeded: length),
      flags: index == before ? flags : flags.union(.bufferChanged))
    unsafe buffers[Int(i)] = index
    kring.hwtail = kring.next(i)
    return before
  }

  /// Slots that were filled and never shown to the program: their buffers, as the adapter knows
  /// them, with offset and length that stand in the slot, clamped. The program gets them no more.
  public func takeUnshown() -> [(buffer: UInt32, offset: Int, length: Int, more: Bool)] {
    var unshown: [(buffer: UInt32, offset: Int, length: Int, more: Bool)] = []
    var i = kring.rtail
    while i != kring.hwtail {
      let slot = kring.ring.slot(i)
      let offset = kring.offset(of: slot)
      unshown.append(
        (buffer(i), offset, min(Int(slot.length), kring.bufferSize - offset), slot.flags.contains(.moreFragments)))
      i = kring.next(i)
    }
    return unshown
  }

  /// Slots that the program was shown and has not given back.
  public var unread: Int { Int(kring.distance(kring.hwcur, kring.rtail)) }

  /// The end of the ring: every buffer in it, by who holds it. Those of the program are what its
  /// slots say, as far as that is true.
  public func dissolve() -> (port: [UInt32], program: [UInt32]) {
    var ports: [UInt32] = [], programs: [UInt32] = []
    var i = kring.hwcur
    while i != kring.hwtail {
      let isShown = kring.distance(kring.hwcur, i) < kring.distance(kring.hwcur, kring.rtail)
      programs.append(isShown ? kring.ring.slot(i).bufferIndex : buffer(i))
      i = kring.next(i)
    }
    // The rest, with the slot that always stays empty.
    repeat {
      ports.append(buffer(i))
      i = kring.next(i)
    } while i != kring.hwcur
    return (ports, programs)
  }
}
