// One direction of one ring pair of a pipe.

internal import CRingway
internal import NetmapCore
internal import Synchronization

/// Takes packets from a transmit ring to the peer's receive ring, whole ones only.
@safe final class PipeLink: @unchecked Sendable {
  /// Changed on worker 0, with both sides out.
  private var sender: PipeSide?
  /// Changed on worker 0, with both sides out. Read by the sender's side.
  private var queue: PipeQueue?
  /// The sender found no room, or nobody who receives: whoever makes room carries on.
  private let stalled = Atomic(false)
  /// The sender's: inside a packet of too many slots, all of which are dropped.
  private var isDropping = false
  /// The sender's: the slots of a packet, read once.
  private let words: UnsafeMutablePointer<UInt64>
  private let pointers: UnsafeMutablePointer<UInt64>
  /// Most slots of a packet (netmap's limit).
  static let mostFragments = 64

  init() {
    unsafe words = .allocate(capacity: Self.mostFragments)
    unsafe words.initialize(repeating: 0, count: Self.mostFragments)
    unsafe pointers = .allocate(capacity: Self.mostFragments)
    unsafe pointers.initialize(repeating: 0, count: Self.mostFragments)
  }

  deinit {
    unsafe words.deallocate()
    unsafe pointers.deallocate()
  }

  var isStalled: Bool { stalled.load(ordering: .relaxed) }

  // MARK: Control, on worker 0

  /// Keeps both sides out while `body` changes who they are.
  private func quiet<R>(_ body: () -> R) -> R {
    let sending = sender?.kring, receiving = queue?.side.kring
    sending?.beginWaiting()
    receiving?.beginWaiting()
    defer {
      receiving?.end()
      sending?.end()
    }
    return body()
  }

  func open(sender side: PipeSide) {
    quiet {
      sender = side
      isDropping = false
      stalled.store(false, ordering: .relaxed)
    }
  }

  func open(receiver made: PipeQueue) {
    quiet { queue = made }
  }

  /// What the sender handed over goes to a reader that is open, as far as there is room; the rest is lost with its ring.
  func closeSender() {
    queue?.getReady()
    carryOn()
    quiet {
      if let kring = sender?.kring { kring.counters.drops &+= UInt64(kring.unsent) }
      sender = nil
      stalled.store(false, ordering: .relaxed)
    }
  }

  /// - Returns: the buffers of the ring, with what it had received and nobody read.
  func closeReceiver() -> [UInt32] {
    quiet {
      let buffers = queue?.dissolve() ?? []
      queue = nil
      return buffers
    }
  }

  // MARK: The receiver's side

  func receive(_ kring: Kring, released: (from: UInt32, to: UInt32)) {
    guard let queue, queue.side.kring === kring else { return }
    let isFirst = !queue.isReady
    if isFirst { queue.getReady() }
    // The room is visible before the look at the flag: a sender that sets it after that look sees the room.
    if queue.receive(released) || isFirst { rw_fence() }
    if isStalled { carryOn(kring, queue) }
  }

  private func carryOn(_ kring: Kring, _ queue: PipeQueue) {
    carryOn()
    kring.hwtail = queue.produced
  }

  /// Goes on in the sender's place, if it has handed over more than was moved.
  private func carryOn() {
    // A sender that is just syncing looks once more when it is done (`tryAgain`).
    guard let sender, sender.kring.begin() else { return }
    let kring = sender.kring, before = kring.hwcur
    if kring.unsent > 0 {
      // Its program sees what came of it at its next sync: a tail changes at no other time.
      send(kring)
    } else {
      stalled.store(false, ordering: .relaxed)
    }
    let moved = kring.hwcur != before
    kring.end()
    if moved { sender.wake() }
  }

  // MARK: The sender's side

  /// After a sync that found no room: looks once more, now that the reader can carry on as well.
  func tryAgain(_ kring: Kring) {
    rw_fence()
    guard kring.begin() else { return }
    defer { kring.end() }
    guard isStalled, let queue, queue.isReady, queue.room(from: queue.produced) > 0, sender?.kring === kring, kring.unsent > 0 else { return }
    send(kring)
    kring.finalise()
  }

  /// Moves what lies in `hwcur ..< rhead`, as far as there is room.
  func send(_ kring: Kring) {
    guard kring.unsent > 0 else { return }
    guard let queue, sender?.kring === kring else { return stalled.store(true, ordering: .relaxed) }
    stalled.store(false, ordering: .relaxed)
    if !queue.isReady {
      stalled.store(true, ordering: .relaxed)
      rw_fence()
      guard queue.isReady else { return }
    }
    let start = queue.produced
    var run = Run(from: kring.hwcur, to: kring.rhead, at: start)
    move(kring, queue, &run)
    kring.hwcur = run.from
    kring.hwtail = kring.previous(run.from)
    kring.counters.packets &+= run.packets
    kring.counters.bytes &+= run.bytes
    kring.counters.drops &+= run.drops
    if run.at != start {
      queue.publish(run.at, packets: run.packets, bytes: run.bytes)
      queue.side.wake()
    }
    if let bad = run.bad { kring.lose(bad) }
  }

  /// How far a sync has come.
  private struct Run {
    /// Of the transmit ring, and where what was handed over ends.
    var from: UInt32
    let to: UInt32
    /// Of the receive ring.
    var at: UInt32
    var packets: UInt64 = 0, bytes: UInt64 = 0, drops: UInt64 = 0
    /// A slot that the program had no right to fill as it did.
    var bad: UInt32?

    init(from: UInt32, to: UInt32, at: UInt32) {
      self.from = from
      self.to = to
      self.at = at
    }
  }

  private func move(_ kring: Kring, _ queue: PipeQueue, _ run: inout Run) {
    let other = queue.side.kring, hasOffsets = kring.offsetMask != 0 || other.offsetMask != 0
    let sent = unsafe kring.ring.base + RingOffset.slots, received = unsafe other.ring.base + RingOffset.slots
    let (ledger, holder, size) = (kring.ledger, kring.holder, UInt32(truncatingIfNeeded: min(kring.bufferSize, 0xffff)))
    var room = queue.room(from: run.at)
    while run.from != run.to {
      if room == 0 {
        room = stall(queue, run.at)
        guard room > 0 else { return }
      }
      if !hasOffsets, !isDropping {
        let straight = min((run.to > run.from ? run.to : kring.count) &- run.from, other.count &- run.at, room)
        let done = unsafe PipeLoops.move(
          sent + Int(run.from) * RingOffset.slotSize, received + Int(run.at) * RingOffset.slotSize, queue.spare + Int(run.at),
          Int(straight), ledger, holder, size: size, bytes: &run.bytes)
        let n = UInt32(truncatingIfNeeded: done)
        run.packets &+= UInt64(done)
        run.from = kring.advance(run.from, by: n)
        run.at = other.advance(run.at, by: n)
        room &-= n
        if n == straight { continue }
      }
      guard moveOne(kring, queue, &run, &room) else { return }
    }
  }

  /// No room: says so, and looks again, because the reader may have made some before it could see that.
  private func stall(_ queue: PipeQueue, _ produced: UInt32) -> UInt32 {
    stalled.store(true, ordering: .relaxed)
    rw_fence()
    return queue.room(from: produced)
  }

  // MARK: One packet

  /// Moves or drops the packet at `run.from`, of any number of slots.
  /// - Returns: false when it must wait, or the program broke the ring.
  private func moveOne(_ kring: Kring, _ queue: PipeQueue, _ run: inout Run, _ room: inout UInt32) -> Bool {
    if isDropping { return skip(kring, &run) }
    let limit = min(Self.mostFragments, Int(kring.count) - 1)
    var n = 0, i = run.from, ends = false
    while i != run.to, n < limit, !ends {
      guard let slot = kring.checkedSlot(i) else {
        giveUp(i, kring, &run)
        return false
      }
      unsafe words[n] = UInt64(slot.bufferIndex) | UInt64(slot.length) << 32 | UInt64(slot.flags.rawValue) << 48
      unsafe pointers[n] = slot.pointer
      ends = !slot.flags.contains(.moreFragments)
      n += 1
      i = kring.next(i)
    }
    guard ends else {
      // Not complete yet; or too many fragments, which no slot to come will mend.
      guard n == limit else { return false }
      isDropping = true
      run.drops &+= 1
      return skip(kring, &run)
    }
    if n > Int(queue.count) - 1 {
      run.drops &+= 1
      run.from = i
      return true
    }
    while n > Int(room) {
      let now = stall(queue, run.at)
      guard now > room else { return false }
      room = now
    }
    for k in 0..<n { place(k, isLast: k == n - 1, kring, queue, &run) }
    room &-= UInt32(truncatingIfNeeded: n)
    run.packets &+= 1
    return true
  }

  /// The rest of a packet that is dropped, as far as it was handed over.
  private func skip(_ kring: Kring, _ run: inout Run) -> Bool {
    while run.from != run.to, isDropping {
      isDropping = kring.ring.slot(run.from).flags.contains(.moreFragments)
      run.from = kring.next(run.from)
    }
    return true
  }

  /// A slot names what is not the program's: what was handed over with it is lost and counted.
  private func giveUp(_ bad: UInt32, _ kring: Kring, _ run: inout Run) {
    run.drops &+= UInt64(kring.distance(run.from, run.to))
    run.from = run.to
    run.bad = bad
  }

  /// Slot `k` of the packet that was read, into the next slot of the receive ring.
  private func place(_ k: Int, isLast: Bool, _ kring: Kring, _ queue: PipeQueue, _ run: inout Run) {
    let other = queue.side.kring
    var word = unsafe words[k] & PipeLoops.kept & ~PipeLoops.more | PipeLoops.changed
    if !isLast { word |= PipeLoops.more }
    // SAFETY: `at` and `from` are slots of their rings; the spare entry is the sender's to use.
    let empty = unsafe queue.spare[Int(run.at)]
    var slot = NetmapSlot(
      bufferIndex: UInt32(truncatingIfNeeded: word), length: UInt16(truncatingIfNeeded: word >> 32),
      flags: SlotFlags(rawValue: UInt16(truncatingIfNeeded: word >> 48)))
    slot.pointer = unsafe offset(pointers[k], slot, kring, other, at: run.at)
    other.ring.setSlot(run.at, slot)
    kring.ring.setSlot(run.from, bufferIndex: empty, length: slot.length, flags: .bufferChanged)
    run.bytes &+= UInt64(slot.length)
    run.at = other.next(run.at)
    run.from = kring.next(run.from)
  }

  /// The receive slot's `ptr`. A reader that knows of no offsets, or of smaller ones, gets the packet at the buffer's start.
  private func offset(_ pointer: UInt64, _ slot: NetmapSlot, _ kring: Kring, _ other: Kring, at i: UInt32) -> UInt64 {
    let old = other.ring.slot(i).pointer
    let begins = kring.offset(of: NetmapSlot(bufferIndex: slot.bufferIndex, length: slot.length, pointer: pointer))
    guard begins > 0 else { return other.pointer(offset: 0, old: old) }
    if other.offsetMask != 0, begins <= other.largestOffset { return other.pointer(offset: begins, old: old) }
    if let base = unsafe queue?.side.bufferBase {
      // SAFETY: the ledger says that the index is a buffer, and offset and length were held against its size.
      let buffer = unsafe base + Int(slot.bufferIndex) &* other.bufferSize
      unsafe buffer.copyMemory(from: buffer + begins, byteCount: Int(slot.length))
    }
    return other.pointer(offset: 0, old: old)
  }
}
