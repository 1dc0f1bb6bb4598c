// Receive: take what the device has used, hand it up, put fresh buffers in its place.

import CRingway
import DriverKit
import Packet
import VirtioTransport

/// One receive virtqueue. Lives at a fixed address; owned by one thread.
@safe struct ReceiveQueue: ~Copyable {
  var queue: SplitQueue
  let shadow: RingShadow
  /// Descriptors without a buffer.
  var free: DescriptorIDs
  /// The device has used every buffer in the order of posting so far: number i of `free` is i, and
  /// so is entry i of the available ring.
  var inOrder = true
  /// Where fresh buffers come from; nil while the queue is stopped.
  var pool: UnsafeMutablePointer<PoolState>?
  var mergeable = false
  /// Buffers are shown to the device this many at a time, or when nothing is to be received: the
  /// fence and the look at the device's wish cost as much as several packets.
  static var publishAt: UInt16 { 32 }
  /// Bytes in a buffer.
  var bufferSize: UInt32 = 0
  /// Longest frame that is handed up, in bytes.
  var maximumFrame: UInt32 = 0
  var counters = QueueCounters()

  init(queue: consuming SplitQueue) {
    let size = queue.layout.size
    self.queue = queue
    shadow = RingShadow(count: size)
    free = DescriptorIDs(count: size)
  }

  /// Makes the queue ready for `refill`, with nothing posted. Only while the device is quiet.
  mutating func prepare(
    pool: UnsafeMutablePointer<PoolState>, eventIndex: Bool, mergeable: Bool, maximumFrame: Int
  ) {
    releaseAll()
    queue.reset(eventIndex: eventIndex)
    free.reset()
    inOrder = true
    unsafe self.pool = pool
    self.mergeable = mergeable
    unsafe bufferSize = UInt32(truncatingIfNeeded: pool.pointee.bufferSize)
    self.maximumFrame = UInt32(truncatingIfNeeded: maximumFrame)
    // Length and flags of a descriptor never change: the whole buffer, written by the device.
    for id in 0..<UInt32(queue.layout.size) {
      queue.ring.setDescriptor(id, address: 0, length: bufferSize, flags: DescriptorFlags.write)
    }
    queue.suppressInterrupts()
  }

  /// Fresh buffers come from `pool` from now on; the device is told of as many bytes of each as before.
  mutating func replacePool(_ pool: UnsafeMutablePointer<PoolState>) { unsafe self.pool = pool }

  /// Every buffer goes back to its pool. Only while the device is quiet.
  mutating func releaseAll() {
    shadow.releaseAll()
    unsafe pool = nil
  }

  /// Takes up to `max` frames into the batch. Returns how many.
  ///
  /// While the device uses buffers in the order in which they were posted, and no descriptor is
  /// without a buffer, descriptor and ring position have the same number: one pass takes a frame
  /// and puts a fresh buffer in its place. Everything else goes through `takeRest`.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  mutating func receive(into batch: inout PacketBatch, max: Int) -> Int {
    guard queue.fault == .none, let pool = unsafe pool else { return 0 }
    let waiting = queue.look()
    guard waiting != 0 else { return refillIdle() }
    let target = unsafe batch.freeSlots
    let room = min(max, batch.room)
    var got = 0
    unsafe PoolState.ready(pool, for: room)
    if inOrder && free.count == 0 {
      got = unsafe takeInOrder(pool, target, count: min(room, waiting))
    }
    if got < room && got != waiting {
      got = unsafe takeRest(target, got, room: room, end: queue.taken &+ UInt16(truncatingIfNeeded: waiting &- got))
    }
    batch.commit(got)
    counters.packets &+= UInt64(truncatingIfNeeded: got)
    if free.count != 0 {
      refill()
    } else if queue.next &- queue.published >= Self.publishAt {
      queue.publish()
    }
    return got
  }

  /// Takes frames in ring order, each in one buffer, and replaces the buffers from the pool. Stops
  /// at the first that is anything else.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always)
  private mutating func takeInOrder(
    _ pool: UnsafeMutablePointer<PoolState>, _ target: UnsafeMutablePointer<RawPacket>, count: Int
  ) -> Int {
    var got = 0
    // At most two runs: up to the ring's end, and from its start on.
    while got < count {
      let slot = Int(UInt32(queue.taken) & queue.ring.mask)
      let run = unsafe min(min(count &- got, queue.ring.size &- slot), pool.pointee.top)
      let taken = unsafe takeRun(pool, target + got, slot: slot, count: run)
      let moved = UInt16(truncatingIfNeeded: taken)
      queue.taken &+= moved
      // The available ring's entries are those that stand there: position and number are the same.
      queue.next &+= moved
      free.head &+= moved
      free.tail &+= moved
      got &+= taken
      if taken == 0 || taken != run { break }
    }
    return got
  }

  /// Takes up to `count` frames from neighbouring descriptors; `slot + count` is inside the ring, and
  /// the pool has as many buffers.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always)
  private mutating func takeRun(
    _ pool: UnsafeMutablePointer<PoolState>, _ target: UnsafeMutablePointer<RawPacket>, slot first: Int, count: Int
  ) -> Int {
    let ring = queue.ring
    let slots = unsafe shadow.slots
    let limit = usualLimit
    let top = unsafe pool.pointee.stack + pool.pointee.top
    var fresh = unsafe top
    var target = unsafe target
    var slot = first
    let end = first &+ count
    var bytes: UInt64 = 0
    while slot != end {
      let element = ring.usedElement(slot: slot)
      let length = UInt32(truncatingIfNeeded: element >> 32) &- UInt32(NetHeader.size)
      // Without mergeable buffers a device says 1 all the same (clause 5.1.6.4.1); if not, the frame
      // goes the other way.
      guard UInt32(truncatingIfNeeded: element) == UInt32(truncatingIfNeeded: slot), length &- 1 < limit,
        let record = unsafe slots[slot],
        unsafe rw_read16(record.pointee.buffer + NetHeader.bufferCountOffset) == 1
      else { break }
      unsafe fresh -= 1
      let next = unsafe fresh.pointee
      unsafe slots[slot] = next
      unsafe ring.setAddress(slot: slot, next.pointee.iova)
      unsafe record.pointee.setSingle(length: UInt16(truncatingIfNeeded: length), offset: UInt16(NetHeader.size))
      unsafe record.pointee.flags = PacketFlags(rawValue: 0)
      unsafe record.pointee.headerLengths = 0
      bytes &+= UInt64(length)
      unsafe target.initialize(to: record)
      unsafe target += 1
      slot &+= 1
    }
    let taken = slot &- first
    unsafe pool.pointee.top &-= taken
    counters.bytes &+= bytes
    return taken
  }

  /// Longest frame that lies in one buffer and is short enough, in bytes.
  @inline(__always) private var usualLimit: UInt32 { min(bufferSize &- UInt32(NetHeader.size), maximumFrame) }

  /// Takes frames of any kind, used in any order, without replacing their buffers.
  /// - Returns: how many packets there are in `target` now; `got` were there before.
  @inline(never)
  private mutating func takeRest(
    _ target: UnsafeMutablePointer<RawPacket>, _ before: Int, room: Int, end: UInt16
  ) -> Int {
    var got = before
    while got < room && queue.taken != end {
      let id = UInt32(truncatingIfNeeded: queue.ring.usedElement(queue.taken))
      guard let record = unsafe posted(id) else { break }
      let buffers = unsafe mergeable ? Int(rw_read16(record.pointee.buffer + NetHeader.bufferCountOffset)) : 1
      let at = queue.taken
      if let frame = unsafe takeFrame(buffers: buffers, available: Int(end &- at)) {
        unsafe counters.bytes &+= UInt64(frame.pointee.frameLength)
        unsafe (target + got).initialize(to: frame)
        got &+= 1
      } else if queue.taken == at || queue.fault != .none {
        break
      }
    }
    return got
  }

  /// The record on a descriptor that the device holds; anything else is a fault.
  @inline(__always)
  private mutating func posted(_ id: UInt32) -> RawPacket? {
    guard id <= queue.ring.mask else {
      queue.fault = .idOutOfRange
      return nil
    }
    // Buffers that `takeInOrder` has just put in place are not the device's yet: their numbers are
    // the ring positions from `published` on.
    let unpublished = UInt32(queue.next &- queue.published)
    guard (id &- UInt32(queue.published)) & queue.ring.mask >= unpublished, let record = unsafe shadow.slots[Int(id)]
    else {
      queue.fault = .notPosted
      return nil
    }
    return unsafe record
  }

  /// Takes one frame, of one buffer or several.
  /// - Returns: nil when the frame was dropped (`taken` moved on), is not complete yet, or the
  ///   device lied (`fault`).
  private mutating func takeFrame(buffers: Int, available: Int) -> RawPacket? {
    guard buffers >= 1, buffers <= queue.layout.size else {
      queue.fault = .bufferCount
      return nil
    }
    guard buffers <= available else {
      // The rest may still be on its way, unless the device holds too few buffers for it.
      if buffers > queue.outstanding { queue.fault = .bufferCount }
      return nil
    }
    var head: RawPacket?
    var last: RawPacket?
    var total: UInt32 = 0
    for i in 0..<buffers {
      let offset = i == 0 ? UInt32(NetHeader.size) : 0
      guard let (record, length) = unsafe takeOne(headerSize: offset) else { break }
      unsafe record.pointee.setSingle(length: UInt16(truncatingIfNeeded: length), offset: UInt16(offset))
      unsafe record.pointee.flags = PacketFlags(rawValue: 0)
      unsafe record.pointee.headerLengths = 0
      total &+= length
      if let before = unsafe last { unsafe before.pointee.next = record } else { unsafe head = record }
      unsafe last = record
    }
    guard let frame = unsafe head else { return nil }
    guard queue.fault == .none, total != 0, total <= maximumFrame else {
      if queue.fault == .none { counters.errors &+= 1 }
      unsafe PoolState.put(frame)
      return nil
    }
    unsafe frame.pointee.frameLength = total
    return unsafe frame
  }

  /// Takes one used element off the ring, checked.
  private mutating func takeOne(headerSize: UInt32) -> (RawPacket, UInt32)? {
    let element = queue.ring.usedElement(queue.taken)
    let id = UInt32(truncatingIfNeeded: element)
    let length = UInt32(truncatingIfNeeded: element >> 32)
    guard let record = unsafe posted(id) else { return nil }
    guard length >= headerSize, length <= bufferSize else {
      queue.fault = .length
      return nil
    }
    unsafe shadow.slots[Int(id)] = nil
    if id != UInt32(free.tail) & queue.ring.mask { inOrder = false }
    free.put(id)
    queue.taken &+= 1
    return unsafe (record, length &- headerSize)
  }

  /// When nothing was received: buffers may have become free since the pool ran out, and a few may
  /// not have been published.
  @inline(never)
  private mutating func refillIdle() -> Int {
    guard queue.fault == .none else { return 0 }
    if free.count != 0 { refill() } else { queue.publish() }
    return 0
  }

  /// Posts a fresh buffer on every free descriptor, as far as the pool reaches, and publishes once.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  mutating func refill() {
    guard queue.fault == .none, let pool = unsafe pool else { return }
    let ring = queue.ring
    let slots = unsafe shadow.slots
    let ids = unsafe free.ids
    let stack = unsafe pool.pointee.stack
    unsafe PoolState.ready(pool, for: free.count)
    var top = unsafe pool.pointee.top
    var head = free.head
    var next = queue.next
    let wanted = free.count
    let end = head &+ UInt16(truncatingIfNeeded: min(wanted, top))
    if wanted > top { unsafe pool.pointee.exhausted &+= 1 }
    while head != end {
      let id = unsafe UInt32(ids[Int(UInt32(head) & ring.mask)])
      top &-= 1
      let fresh = unsafe stack[top]
      unsafe slots[Int(id)] = fresh
      unsafe ring.setAddress(id, fresh.pointee.iova)
      ring.setAvailable(next, id: id)
      head &+= 1
      next &+= 1
    }
    unsafe pool.pointee.top = top
    free.head = head
    queue.next = next
    queue.publish()
  }
}
