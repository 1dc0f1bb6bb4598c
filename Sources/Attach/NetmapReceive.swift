// One queue's receive side in netmap mode: the card fills buffers, the ring trades them.
//
//    card ring ── record, full buffer B ──> slot at hwtail: B to the program
//        ^                                      │ the slot's empty buffer O
//        └── pool: the same record, now of O <──┘
//
// The pool has a record for each descriptor and a batch more, not one for each buffer of the
// region: a record stands for whatever buffer it carries at present. Frames that the card had been
// given stack buffers for (before the changeover) are copied into the slot's own buffer.
//
// Back in stack mode the card still holds this pool's buffers. Frames in them are copied into
// packets of the stack, which never lie in memory that a program maps, until the last is home.

internal import DriverKit
internal import NetmapCore
internal import Packet

/// Used on the queue's owner alone.
@safe final class NetmapReceive: @unchecked Sendable {
  let queue: Int
  let allocator: NetmapAllocator
  /// Holds the buffers on their way through the card.
  let port: BufferOwner
  let pool: PacketPool
  /// nil while the queue is the stack's.
  private(set) var slots: ReceiveSlots?
  /// Frames that have left the card and found no room in the ring.
  /// At a fixed address: a class's own variables are checked for overlapping uses at each touch.
  private let batchPlace: UnsafeMutablePointer<PacketBatch>
  // SAFETY: lives as long as this object.
  private var batch: PacketBatch {
    @inline(__always) _read { yield unsafe batchPlace.pointee }
    @inline(__always) _modify { yield unsafe &batchPlace.pointee }
  }
  /// The first record; the others follow it.
  private let records: RawPacket
  /// The buffer that each record carries.
  private let bufferOf: UnsafeMutablePointer<UInt32>
  private let base: UnsafeMutableRawPointer
  private let iova: UInt64
  private let stride: Int

  static let batchSize = 64

  /// - Parameter port: takes the buffers; the caller retires it after `isHome`.
  init(driver: any NetDriver, queue: Int, allocator: NetmapAllocator, port: BufferOwner) throws(NetmapAllocatorError) {
    let count = driver.options.receiveDescriptors + 2 * Self.batchSize
    let indices = try allocator.allocateBuffers(count, owner: port)
    self.queue = queue
    self.allocator = allocator
    self.port = port
    unsafe base = allocator.bufferBase
    iova = allocator.bufferIOVABase.rawValue
    stride = allocator.bufferSize
    pool = unsafe PacketPool(
      unsafe: allocator.bufferBase, stride: allocator.bufferSize, iova: allocator.bufferIOVABase, indices: indices)
    // The pool's lowest record is on top of its stack.
    unsafe records = pool.state.pointee.stack[count - 1]
    unsafe batchPlace = .allocate(capacity: 1)
    unsafe batchPlace.initialize(to: PacketBatch(capacity: Self.batchSize))
    unsafe bufferOf = .allocate(capacity: count)
    for i in 0..<count { unsafe (bufferOf + i).initialize(to: indices[i]) }
  }

  deinit {
    batch.removeAll()
    allocator.freeBuffers((0..<pool.capacity).map { unsafe bufferOf[$0] }, owner: port)
    unsafe batchPlace.deinitialize(count: 1)
    unsafe batchPlace.deallocate()
    unsafe bufferOf.deallocate()
  }

  /// Whether every buffer has come back from the card.
  var isHome: Bool { pool.available == pool.capacity }
  /// Frames that wait for room in the ring.
  var isHoldingFrames: Bool { !batch.isEmpty }

  func begin(_ slots: ReceiveSlots) { self.slots = slots }
  func end() { slots = nil }

  // MARK: Netmap mode

  /// Moves up to `budget` frames from the card into the ring. Returns how many.
  func fill(_ driver: any NetDriver, budget: Int) -> Int {
    guard let slots else { return 0 }
    var moved = 0, isLast = false
    while moved < budget {
      if batch.isEmpty {
        let room = min(Int(slots.kring.space), batch.capacity, budget - moved)
        guard room > 0, !isLast else { break }
        let came = driver.receive(queue: queue, into: &batch, max: room)
        guard came > 0 else { break }
        // The card had no more than that: what comes meanwhile is for another time.
        isLast = came < room
      }
      let plain = placePlain(slots)
      moved += plain
      if batch.isEmpty { continue }
      moved += place(slots)
      guard batch.isEmpty else { break }
    }
    return moved
  }

  /// Frames in one buffer of this side's, as they lie there: the common case. Ends at the first frame that is different, or
  /// that has no room.
  /// - Returns: how many frames.
  private func placePlain(_ slots: ReceiveSlots) -> Int {
    let kring = slots.kring
    if _slowPath(kring.offsetMask != 0) { return 0 }
    let own = unsafe pool.state, have = min(batch.count, Int(kring.space)), full = unsafe batch.fullSlots
    let first = unsafe kring.ring.base + RingOffset.slots, place = unsafe BufferPlace(base: base, iova: iova, stride: stride)
    let count = kring.count, ledger = kring.ledger, holder = kring.holder, buffers = unsafe slots.buffers
    var tail = kring.hwtail, k = 0, bytes: UInt64 = 0
    // SAFETY: `tail` stays below the ring's slots. Each record put back was taken from the stack, so there is room for it.
    while k < have {
      let run = min(have &- k, Int(count &- tail)), top = unsafe own.pointee.top
      let filled = unsafe NetmapLoops.fill(
        full + k, first + Int(tail) &* RingOffset.slotSize, buffers + Int(tail), own.pointee.stack + top, run, own: own, records,
        bufferOf, place, ledger, holder)
      unsafe own.pointee.top = top &+ filled.count
      k &+= filled.count
      bytes &+= filled.bytes
      tail = kring.advance(tail, by: UInt32(truncatingIfNeeded: filled.count))
      guard filled.count == run else { break }
    }
    guard k > 0 else { return 0 }
    kring.hwtail = tail
    kring.counters.packets &+= UInt64(truncatingIfNeeded: k)
    kring.counters.bytes &+= bytes
    batch.removePrefix(k)
    return k
  }

  /// Puts frames into the ring, until one does not fit.
  private func place(_ slots: ReceiveSlots) -> Int {
    let kring = slots.kring, full = unsafe batch.fullSlots, have = batch.count
    let most = min(64, Int(kring.count) - 1)
    var taken = 0, packets = 0, bytes = 0
    while taken < have {
      let frame = unsafe full[taken]
      let segments = unsafe Self.segments(of: frame)
      if segments > most {
        kring.counters.drops &+= 1
        unsafe PoolState.put(frame)
        taken += 1
        continue
      }
      guard segments <= Int(kring.space) else { break }
      taken += 1
      let length = unsafe Int(frame.pointee.frameLength)
      if unsafe placeFrame(frame, slots) {
        packets += 1
        bytes += length
      }
    }
    batch.removePrefix(taken)
    kring.counters.packets &+= UInt64(packets)
    kring.counters.bytes &+= UInt64(bytes)
    return packets
  }

  @inline(__always) private static func segments(of frame: RawPacket) -> Int {
    guard var at = unsafe frame.pointee.next else { return 1 }
    var n = 2
    while let next = unsafe at.pointee.next {
      unsafe at = next
      n += 1
    }
    return n
  }

  /// One frame into as many slots as it has buffers; there is room for them.
  /// - Returns: false when the frame had to be given up.
  private func placeFrame(_ frame: RawPacket, _ slots: ReceiveSlots) -> Bool {
    // Programs see frames as they were on the wire: a tag that the card took out goes back in.
    if _slowPath(unsafe frame.pointee.flags.contains(.vlan)), unsafe !TagInsertion.insert(frame, bufferSize: stride) {
      slots.kring.counters.drops &+= 1
      unsafe PoolState.put(frame)
      return false
    }
    var at: RawPacket? = unsafe frame
    while let record = unsafe at {
      unsafe at = record.pointee.next
      unsafe record.pointee.next = nil
      unsafe placeBuffer(record, slots, more: at != nil)
    }
    return true
  }

  @inline(__always)
  private func placeBuffer(_ record: RawPacket, _ slots: ReceiveSlots, more: Bool) {
    let flags: SlotFlags = more ? .moreFragments : [], length = unsafe Int(record.pointee.length)
    // SAFETY: drivers keep offset + length inside the record's buffer, and all buffers have one size.
    guard unsafe record.pointee.pool == pool.state else {
      let index = slots.buffer(slots.kring.hwtail), fits = min(length, stride), at = ReceiveOffset.place(slots.kring, length: fits)
      unsafe (base + Int(index) * stride + at).copyMemory(from: record.pointee.buffer + Int(record.pointee.offset), byteCount: fits)
      ReceiveOffset.show(at, slots.kring)
      _ = slots.fill(index, length: fits, flags: flags)
      return unsafe PoolState.putOne(record)
    }
    // A virtio device put its header in front, and the program may want the frame elsewhere.
    let at = ReceiveOffset.place(slots.kring, length: length)
    if unsafe Int(record.pointee.offset) != at {
      unsafe (record.pointee.buffer + at).copyMemory(from: record.pointee.buffer + Int(record.pointee.offset), byteCount: length)
    }
    ReceiveOffset.show(at, slots.kring)
    let number = unsafe record - records
    let empty = unsafe slots.fill(bufferOf[number], length: length, flags: flags)
    unsafe bufferOf[number] = empty
    unsafe record.pointee.buffer = base + Int(empty) &* stride
    unsafe record.pointee.iova = iova &+ UInt64(empty) &* UInt64(stride)
    unsafe PoolState.putOne(record)
  }

  // MARK: Stack mode

  /// Receives for the stack. Frames in this side's buffers are copied, all others pass as they are.
  /// - Returns: how many frames left the card; those that are in `target` now, and `lost` for want
  ///   of a packet of the stack's.
  func drain(_ driver: any NetDriver, into target: inout PacketBatch, stack: PacketPool, lost: (Int) -> Void) -> Int {
    if batch.isEmpty { _ = driver.receive(queue: queue, into: &batch, max: min(batch.capacity, target.room)) }
    let full = unsafe batch.fullSlots, have = min(batch.count, target.room)
    var k = 0
    while k < have {
      let packet = unsafe Packet(unsafe: full[k])
      k += 1
      guard isOurs(packet) else {
        if let refused = target.append(packet) { lost(refused.count) }
        continue
      }
      guard let copy = StackCopy.make(of: packet, from: stack) else {
        lost(packet.count)
        continue
      }
      if let refused = target.append(copy) { lost(refused.count) }
    }
    batch.removePrefix(k)
    return k
  }

  /// Whether any buffer of the frame is one of this side's.
  private func isOurs(_ packet: borrowing Packet) -> Bool {
    var at: RawPacket? = unsafe packet.record
    while let record = unsafe at {
      if unsafe record.pointee.pool == pool.state { return true }
      unsafe at = record.pointee.next
    }
    return false
  }
}
