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
  /// Where fresh buffers come from; nil while the queue is stopped.
  var pool: UnsafeMutablePointer<PoolState>?
  var mergeable = false
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

  /// Every buffer goes back to its pool. Only while the device is quiet.
  mutating func releaseAll() {
    shadow.releaseAll()
    unsafe pool = nil
  }

  /// Takes up to `max` frames into the batch. Returns how many.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  mutating func receive(into batch: inout PacketBatch, max: Int) -> Int {
    guard queue.fault == .none, unsafe pool != nil else { return 0 }
    let waiting = queue.look()
    guard waiting != 0 else { return refillIdle() }
    let ring = queue.ring
    let slots = unsafe shadow.slots
    let ids = unsafe free.ids
    let merges = mergeable
    // Frames in one buffer: the usual limit. Whatever is beyond it goes the careful way.
    let limit = min(bufferSize &- UInt32(NetHeader.size), maximumFrame)
    var at = queue.taken
    let end = at &+ UInt16(truncatingIfNeeded: waiting)
    var idle = free.tail
    var bytes: UInt64 = 0
    let target = unsafe batch.freeSlots
    let room = min(max, batch.room)
    var got = 0
    while got < room && at != end {
      let element = ring.usedElement(at)
      let id = UInt32(truncatingIfNeeded: element)
      let length = UInt32(truncatingIfNeeded: element >> 32) &- UInt32(NetHeader.size)
      guard id <= ring.mask, let record = unsafe slots[Int(id)] else {
        queue.fault = id <= ring.mask ? .notPosted : .idOutOfRange
        break
      }
      let buffers = unsafe merges ? rw_read16(record.pointee.buffer + NetHeader.bufferCountOffset) : 1
      if length &- 1 >= limit || buffers != 1 {
        // SAFETY: as in the loop; the indexes go through the queue and come back.
        queue.taken = at
        free.tail = idle
        let frame = unsafe takeCarefully(buffers: Int(buffers), available: Int(end &- at))
        let moved = queue.taken != at
        at = queue.taken
        idle = free.tail
        if let frame = unsafe frame {
          unsafe bytes &+= UInt64(frame.pointee.frameLength)
          unsafe (target + got).initialize(to: frame)
          got &+= 1
        } else if !moved {
          break
        }
        continue
      }
      unsafe slots[Int(id)] = nil
      unsafe ids[Int(UInt32(idle) & ring.mask)] = UInt16(truncatingIfNeeded: id)
      idle &+= 1
      at &+= 1
      unsafe record.pointee.setSingle(
        length: UInt16(truncatingIfNeeded: length), offset: UInt16(NetHeader.size))
      unsafe record.pointee.flags = PacketFlags(rawValue: 0)
      bytes &+= UInt64(length)
      unsafe (target + got).initialize(to: record)
      got &+= 1
    }
    queue.taken = at
    free.tail = idle
    batch.commit(got)
    counters.packets &+= UInt64(got)
    counters.bytes &+= bytes
    refill()
    return got
  }

  /// Takes one frame that is too long, empty, or spread over several buffers.
  /// - Returns: nil when the frame was dropped (`taken` moved on), is not complete yet, or the
  ///   device lied (`fault`).
  @inline(never)
  private mutating func takeCarefully(buffers: Int, available: Int) -> RawPacket? {
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
    guard id <= queue.ring.mask, let record = unsafe shadow.slots[Int(id)] else {
      queue.fault = id <= queue.ring.mask ? .notPosted : .idOutOfRange
      return nil
    }
    guard length >= headerSize, length <= bufferSize else {
      queue.fault = .length
      return nil
    }
    unsafe shadow.slots[Int(id)] = nil
    free.put(id)
    queue.taken &+= 1
    return unsafe (record, length &- headerSize)
  }

  /// When nothing was received: buffers may have become free since the pool ran out.
  @inline(never)
  private mutating func refillIdle() -> Int {
    if queue.fault == .none && free.count != 0 { refill() }
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
