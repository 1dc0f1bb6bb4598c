// One queue's transmit side in netmap mode.
//
//    slot i (index, length) ── checked ──> record i ── driver.send, one tail write ──> card
//                                             ^                                          │
//       hwtail moves over what is done  <── sink: the "pool" that the driver frees to <──┘
//
// There is a record for each slot of the ring, not one for each buffer: a program may name one
// buffer in several slots, and each of them is sent and given back for itself. The slot keeps its
// buffer; nothing is copied, and the program's ledger entry stays the program's.

internal import DriverKit
internal import NetmapCore
internal import Packet

/// Used on the queue's owner alone.
@safe final class NetmapTransmit: @unchecked Sendable {
  let queue: Int
  /// nil when the program has gone, and frames are still with the card.
  private(set) var kring: Kring?
  /// Records of frames that the card has sent; its stack is emptied at each reclaim.
  let sink: PacketPool
  private let records: RawPacket
  private let count: Int
  /// Slots given back by the card, whose predecessors are not all back yet.
  private let done: UnsafeMutablePointer<UInt8>
  /// At a fixed address: a class's own variables are checked for overlapping uses at each touch.
  private let batchPlace: UnsafeMutablePointer<PacketBatch>
  // SAFETY: lives as long as this object.
  private var batch: PacketBatch {
    @inline(__always) _read { yield unsafe batchPlace.pointee }
    @inline(__always) _modify { yield unsafe &batchPlace.pointee }
  }
  /// Slots of each frame in the batch.
  private let spans: UnsafeMutablePointer<UInt32>
  private(set) var inFlight = 0
  private let base: UnsafeMutableRawPointer
  private let iova: UInt64
  private let stride: Int

  static let batchSize = 256
  /// Most slots of a frame (netmap's limit).
  static let mostFragments = 64

  init(queue: Int, allocator: NetmapAllocator, kring: Kring) {
    self.queue = queue
    self.kring = kring
    count = Int(kring.count)
    unsafe base = allocator.bufferBase
    iova = allocator.bufferIOVABase.rawValue
    stride = allocator.bufferSize
    // Buffer 0 is nobody's: each record is given its buffer when its slot is sent.
    sink = unsafe PacketPool(
      unsafe: allocator.bufferBase, stride: allocator.bufferSize, iova: allocator.bufferIOVABase,
      indices: Array(repeating: 0, count: Int(kring.count)))
    unsafe records = sink.state.pointee.stack[count - 1]
    unsafe sink.state.pointee.top = 0
    unsafe batchPlace = .allocate(capacity: 1)
    unsafe batchPlace.initialize(to: PacketBatch(capacity: Self.batchSize))
    unsafe done = .allocate(capacity: count)
    unsafe done.initialize(repeating: 0, count: count)
    unsafe spans = .allocate(capacity: Self.batchSize)
    unsafe spans.initialize(repeating: 0, count: Self.batchSize)
  }

  deinit {
    unsafe batchPlace.deinitialize(count: 1)
    unsafe batchPlace.deallocate()
    unsafe done.deallocate()
    unsafe spans.deallocate()
  }

  /// Takes the program away. What the card has goes on.
  func end() { kring = nil }

  /// The buffers that the card may still read, each once.
  var buffersInFlight: Set<UInt32> {
    guard let kring else { return [] }
    var found: Set<UInt32> = []
    var i = kring.next(kring.hwtail)
    while i != kring.hwcur {
      if unsafe done[Int(i)] == 0 { found.insert(unsafe UInt32((records[Int(i)].buffer - base) / stride)) }
      i = kring.next(i)
    }
    return found
  }

  // MARK: Sync

  /// Takes back what the card has sent. Returns whether the program got slots.
  @discardableResult func reclaim(_ driver: any NetDriver) -> Bool {
    guard inFlight > 0 else { return false }
    driver.reclaim(queue: queue)
    return collect()
  }

  /// Empties the sink.
  private func collect() -> Bool {
    let state = unsafe sink.state
    let top = unsafe state.pointee.top
    guard top > 0 else { return false }
    if let kring, collectInOrder(kring, top) { return true }
    var k = 0
    while k < top {
      // SAFETY: only this side's records have this pool.
      unsafe done[state.pointee.stack[k] - records] = 1
      k &+= 1
    }
    unsafe state.pointee.top = 0
    inFlight &-= top
    guard let kring else { return true }
    var tail = kring.hwtail, i = kring.next(tail)
    while i != kring.hwcur, unsafe done[Int(i)] != 0 {
      unsafe done[Int(i)] = 0
      tail = i
      i = kring.next(i)
    }
    guard tail != kring.hwtail else { return false }
    kring.hwtail = tail
    return true
  }

  /// The common case: the card has sent the slots behind `hwtail`, in order, and none before was left out.
  /// - Returns: false, with nothing changed, in any other.
  private func collectInOrder(_ kring: Kring, _ top: Int) -> Bool {
    let stack = unsafe sink.state.pointee.stack, last = kring.count &- 1, records = unsafe self.records
    var tail = kring.hwtail, k = 0
    while k < top {
      tail = tail == last ? 0 : tail &+ 1
      guard unsafe stack[k] == records + Int(tail) else { return false }
      k &+= 1
    }
    // What was skipped behind them goes the careful way.
    let behind = tail == last ? 0 : tail &+ 1
    if behind != kring.hwcur, unsafe done[Int(behind)] != 0 { return false }
    unsafe sink.state.pointee.top = 0
    inFlight &-= top
    kring.hwtail = tail
    return true
  }

  /// Sends `hwcur ..< rhead`, as much as the card takes. Frames whose last slot has not been handed
  /// over wait for it.
  func post(_ driver: any NetDriver) {
    guard let kring else { return }
    while kring.hwcur != kring.rhead {
      guard postPlain(kring, driver) else { return }
      if kring.hwcur == kring.rhead { return }
      let built = build(kring)
      if !batch.isEmpty {
        _ = driver.send(queue: queue, &batch)
        settle(kring, sent: built.frames - batch.count)
        guard batch.isEmpty else { return forget() }
      }
      if let bad = built.bad { return give(up: bad, kring) }
      guard built.frames > 0 || built.skipped > 0 else { return }
    }
  }

  /// Sends frames of one slot each, the common case, until one is different or the card is full.
  /// - Returns: false when the card took no more.
  private func postPlain(_ kring: Kring, _ driver: any NetDriver) -> Bool {
    while kring.hwcur != kring.rhead {
      let (count, bytes) = buildPlain(kring)
      guard count > 0 else { return true }
      _ = driver.send(queue: queue, &batch)
      let left = batch.count, sent = count &- left
      kring.hwcur = kring.advance(kring.hwcur, by: UInt32(truncatingIfNeeded: sent))
      inFlight &+= sent
      kring.counters.packets &+= UInt64(truncatingIfNeeded: sent)
      kring.counters.bytes &+= bytes
      guard left > 0 else { continue }
      var k = 0
      while k < left {
        unsafe kring.counters.bytes &-= UInt64(batch.fullSlots[k].pointee.length)
        k &+= 1
      }
      batch.removePrefix(left)
      return false
    }
    return true
  }

  /// Fills the batch with single slots behind `hwcur`.
  /// - Returns: frames, and their bytes; it ends before a slot of a longer frame, and before one that is wrong.
  private func buildPlain(_ kring: Kring) -> (count: Int, bytes: UInt64) {
    let holder = kring.holder, end = kring.rhead, count = kring.count, ledger = kring.ledger
    guard kring.offsetMask == 0, holder.rawValue > BufferOwner.reserved.rawValue else { return (0, 0) }
    let full = unsafe batch.freeSlots, room = batch.room, size = UInt32(truncatingIfNeeded: min(kring.bufferSize, 0xffff))
    let slots = unsafe kring.ring.base + RingOffset.slots, place = unsafe BufferPlace(base: base, iova: iova, stride: stride)
    var i = kring.hwcur, n = 0, bytes: UInt64 = 0
    while n < room, i != end {
      let run = min(Int((end > i ? end : count) &- i), room &- n)
      let built = unsafe NetmapLoops.build(
        slots + Int(i) &* RingOffset.slotSize, records + Int(i), full + n, run, place, ledger, holder, size: size)
      n &+= built.count
      bytes &+= built.bytes
      i = kring.advance(i, by: UInt32(truncatingIfNeeded: built.count))
      guard built.count == run else { break }
    }
    batch.commit(n)
    return (n, bytes)
  }

  /// Fills the batch from the slots behind `hwcur`.
  /// - Returns: frames built; `bad`: a slot that the program had no right to name; `skipped`: slots
  ///   at `hwcur` that hold no frame that could be sent.
  private func build(_ kring: Kring) -> (frames: Int, skipped: Int, bad: UInt32?) {
    var i = kring.hwcur, frames = 0
    while frames < Self.batchSize, i != kring.rhead {
      var head: RawPacket?, last: RawPacket?
      var span: UInt32 = 0, total = 0, at = i, ends = false
      while at != kring.rhead, span < mostSlots {
        guard let slot = kring.checkedSlot(at) else { return (frames, 0, at) }
        let record = unsafe records + Int(at)
        unsafe set(record, slot)
        if let last = unsafe last { unsafe last.pointee.next = record } else { unsafe head = record }
        unsafe last = record
        total &+= Int(slot.length)
        span &+= 1
        at = kring.next(at)
        if !slot.flags.contains(.moreFragments) {
          ends = true
          break
        }
      }
      guard ends, let head = unsafe head else {
        unsafe unlink(head)
        // Not complete yet; or too many fragments, which no slot to come will mend.
        guard span == mostSlots, frames == 0 else { break }
        return (0, skipFrame(kring), nil)
      }
      unsafe head.pointee.frameLength = UInt32(truncatingIfNeeded: total)
      unsafe spans[frames] = span
      if let refused = unsafe batch.append(Packet(unsafe: head)) {
        unsafe unlink(refused.intoRaw())
        break
      }
      frames += 1
      i = at
    }
    return (frames, 0, nil)
  }

  @inline(__always) private func set(_ record: RawPacket, _ slot: NetmapSlot) {
    // SAFETY: the index is below the count of buffers: the ledger said so.
    let start = Int(slot.bufferIndex) &* stride &+ (kring?.offset(of: slot) ?? 0)
    unsafe record.pointee.buffer = base + start
    unsafe record.pointee.iova = iova &+ UInt64(truncatingIfNeeded: start)
    unsafe record.pointee.setSingle(length: slot.length, offset: 0)
    unsafe record.pointee.next = nil
    unsafe record.pointee.flags = []
    unsafe record.pointee.headerLengths = 0
  }

  /// The first `sent` frames are the driver's: their slots are the card's.
  private func settle(_ kring: Kring, sent: Int) {
    var k = 0, bytes: UInt64 = 0
    while k < sent {
      var n = unsafe spans[k]
      inFlight &+= Int(n)
      while n > 0 {
        let i = kring.hwcur, slot = kring.ring.slot(i)
        unsafe bytes &+= UInt64(records[Int(i)].length)
        // As netmap does: what was asked for has been done.
        let flags = slot.flags.subtracting([.report, .bufferChanged, .moreFragments])
        if flags != slot.flags { kring.ring.setSlot(i, bufferIndex: slot.bufferIndex, length: slot.length, flags: flags) }
        kring.hwcur = kring.next(i)
        n &-= 1
      }
      k &+= 1
    }
    kring.counters.packets &+= UInt64(truncatingIfNeeded: sent)
    kring.counters.bytes &+= bytes
  }

  /// The batch's rest stays in its slots, for another time.
  private func forget() {
    _ = unsafe batch.drain { full, n in
      for k in 0..<n { unsafe unlink(full[k]) }
      return n
    }
  }

  private func unlink(_ head: RawPacket?) {
    var at = unsafe head
    while let record = unsafe at {
      unsafe at = record.pointee.next
      unsafe record.pointee.next = nil
    }
  }

  /// Slots of a frame; one that never ends must not fill the ring for ever.
  private var mostSlots: UInt32 { UInt32(min(Self.mostFragments, count - 1)) }

  /// The slots of a frame at `hwcur` that cannot be sent count as done. Returns how many.
  private func skipFrame(_ kring: Kring) -> Int {
    var n = 0, more = true
    while more, kring.hwcur != kring.rhead {
      more = kring.ring.slot(kring.hwcur).flags.contains(.moreFragments)
      unsafe done[Int(kring.hwcur)] = 1
      kring.hwcur = kring.next(kring.hwcur)
      n += 1
    }
    kring.counters.drops &+= 1
    advanceTail(kring)
    return n
  }

  private func advanceTail(_ kring: Kring) {
    var i = kring.next(kring.hwtail)
    while i != kring.hwcur, unsafe done[Int(i)] != 0 {
      unsafe done[Int(i)] = 0
      kring.hwtail = i
      i = kring.next(i)
    }
  }

  /// A slot names what is not the program's: what was handed over with it is lost and counted, the
  /// ring is reset, and goes on.
  private func give(up bad: UInt32, _ kring: Kring) {
    while kring.hwcur != kring.rhead {
      unsafe done[Int(kring.hwcur)] = 1
      kring.hwcur = kring.next(kring.hwcur)
      kring.counters.drops &+= 1
    }
    advanceTail(kring)
    kring.lose(bad)
  }
}
