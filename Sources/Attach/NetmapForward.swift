// Transparent mode: slots that a program marks go on between card and host by themselves.
//
//    card's receive ring ── released, NS_FORWARD ──copied──> stack        the ring's own flag NR_FORWARD says
//    host receive ring   ── released, NS_FORWARD ──swapped─> card's transmit ring         that it is meant
//
// Both happen in a receive sync, before the slots are released. Up it is a copy, because the stack's packets never lie in
// memory that a program maps; down the two rings trade their buffers.

internal import Ifnet
internal import NetmapCore
internal import NetmapPorts
internal import Packet

extension NetmapCard {
  /// Slots given back by the program. Those it marked go up the stack, where the ring is transparent.
  func release(_ released: (from: UInt32, to: UInt32), of slots: ReceiveSlots, in allocator: NetmapAllocator, queue: Int) {
    if slots.kring.ring.loadFlags().contains(.forward) { forwardUp(released, slots.kring, allocator, queue: queue) }
    slots.release(released)
  }

  private func forwardUp(_ released: (from: UInt32, to: UInt32), _ kring: Kring, _ allocator: NetmapAllocator, queue: Int) {
    var batch = PacketBatch(capacity: NetmapReceive.batchSize)
    let pool = host.stackPool(ofQueue: queue), base = unsafe allocator.bufferBase, size = kring.bufferSize
    var frame: Packet?, isBroken = false
    var i = released.from
    while i != released.to, let slot = kring.checkedSlot(i) {
      i = kring.next(i)
      guard slot.flags.contains(.forward) else { continue }
      // SAFETY: index and length were checked, and are this copy's.
      let start = Int(slot.bufferIndex) * size + kring.offset(of: slot)
      let bytes = unsafe UnsafeRawBufferPointer(start: base + start, count: Int(slot.length))
      var part = unsafe isBroken ? nil : StackCopy.make(of: bytes, from: pool)
      if let behind = part.take() {
        if let head = frame.take() {
          head.append(behind)
          frame = consume head
        } else {
          frame = consume behind
        }
      } else {
        isBroken = true
      }
      guard !slot.flags.contains(.moreFragments) else { continue }
      if let whole = frame.take(), !isBroken {
        if whole.count < HostRing.shortest {
          kring.counters.drops &+= 1
        } else {
          if batch.room == 0 { host.interface.input(&batch, queue: queue) }
          if let refused = batch.append(whole) { drop(refused, .noBuffer, queue: queue) }
        }
      } else {
        count(1, bytes: bytes.count, .noBuffer, queue: queue)
      }
      isBroken = false
    }
    if !batch.isEmpty { host.interface.input(&batch, queue: queue) }
  }

  /// One sync of a host receive ring. On the ring's worker, which is also that of the card's queue of the same number.
  func synchroniseHost(_ kring: Kring) -> Bool {
    let target = kring.ring.loadFlags().contains(.forward) ? queues[kring.id.number % queues.count].transmit?.kring : nil
    guard let forwarded = hosts[kring.id.number].synchronise(receive: kring, onto: target) else { return false }
    kring.stamp()
    if forwarded > 0, let target { _ = synchroniseChecked(target) }
    return !kring.isFaulted
  }
}

/// From a host receive ring to a transmit ring of the same region.
enum ForwardDown {
  /// Trades each marked slot for the next free one of `target`, as if the program had done it. What finds no room is lost.
  /// - Returns: how many slots went over.
  static func move(_ released: (from: UInt32, to: UInt32), of kring: Kring, onto target: Kring) -> Int {
    var moved = 0
    var i = released.from
    while i != released.to, let slot = kring.checkedSlot(i) {
      let at = i
      i = kring.next(i)
      guard slot.flags.contains(.forward) else { continue }
      let head = target.ring.loadHead()
      guard head < target.count, target.distance(target.rhead, head) < target.distance(target.rhead, target.rtail),
        target.ledger.isHeld(target.ring.slot(head).bufferIndex, by: kring.holder)
      else {
        kring.counters.drops &+= 1
        continue
      }
      let free = target.ring.slot(head)
      kring.ring.setSlot(at, bufferIndex: free.bufferIndex, length: 0, flags: .bufferChanged)
      target.ring.setSlot(
        head,
        NetmapSlot(bufferIndex: slot.bufferIndex, length: slot.length, flags: .bufferChanged, pointer: target.offsetMask == 0 ? free.pointer : slot.pointer))
      let next = target.next(head)
      target.ring.storeCur(next)
      target.ring.storeHead(next)
      moved += 1
    }
    return moved
  }
}
