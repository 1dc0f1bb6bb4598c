// The receive ring: the card fills buffers in ring order, the driver swaps each filled buffer for a
// free one in place.
//
//         next                          tail (= next - 1)
//          v                             v
//    | done | done | posted | posted | posted |      every descriptor always holds a buffer
//
// Invariants
// - `shadow[i]` is the record whose buffer descriptor i names; the card never sees it, and nothing
//   in descriptor memory is ever turned into a pointer.
// - A frame is taken only when a free buffer replaces it. With no free buffer the frames wait in
//   the ring and the card counts what it then loses (rx_no_buffer_count, rx_missed_errors).
// - What the card says of lengths and chains is held against the buffer's size and the port's
//   largest frame; whatever does not fit is counted and its buffers stay in the ring.

import CRingway
import DeviceIO
import DriverKit
import Packet

/// One receive queue. Lives at a fixed address; used by its owner's thread alone.
@safe struct ReceiveQueue: ~Copyable {
  private let ring: DescriptorRing
  private let shadow: UnsafeMutablePointer<RawPacket>
  /// Packet flags for each combination of status and checksum error bits.
  private let flags: UnsafeMutablePointer<PacketFlags>
  private let tail: Doorbell
  let count: Int
  /// Whether every descriptor holds a record of `pool`.
  private(set) var filled = false
  private var pool: UnsafeMutablePointer<PoolState>?
  private var next = 0
  /// Buffer size as the card was told, in bytes: the bound for every length it reports.
  private var bufferSize: UInt32 = 0
  private var maximumFrame = 0
  /// The segments of a frame whose last one has not arrived yet.
  private var chain: RawPacket?
  private var chainEnd: RawPacket?
  private var chainBytes = 0
  /// Descriptors are dropped until the end of the frame.
  private var skipping = false
  /// Whether the card is on; while it is off, `receive` gives nothing.
  var running = false
  /// The queue's interrupt is let through.
  var armed = false
  /// Frames saved from the ring before a reset; handed out first.
  private var saved: PacketBatch
  var counters = QueueCounters()

  /// - Parameters:
  ///   - ring: `count` zeroed descriptors, for as long as the queue lives.
  ///   - tail: the queue's RDT.
  init(unsafe ring: DescriptorRing, count: Int, tail: Doorbell) {
    unsafe self.ring = unsafe ring
    self.count = count
    self.tail = tail
    unsafe shadow = .allocate(capacity: count)
    unsafe flags = ReceiveQueue.flagTable()
    saved = PacketBatch(capacity: count)
  }

  deinit {
    unsafe flags.deallocate()
    unsafe shadow.deallocate()
  }

  /// Status and error bits to packet flags (7.1.5.2 and 7.1.5.3), by `ReceiveWriteBack.flagIndex`.
  private static func flagTable() -> UnsafeMutablePointer<PacketFlags> {
    let table = UnsafeMutablePointer<PacketFlags>.allocate(capacity: 128)
    for i in 0..<128 {
      let ignore = i & 1 != 0, vlan = i & 2 != 0, udp = i & 4 != 0, layer4 = i & 8 != 0, ip = i & 16 != 0
      let layer4Wrong = i & 32 != 0, ipWrong = i & 64 != 0
      var flags: PacketFlags = vlan ? .vlan : []
      if !ignore {
        if ip { flags.insert(ipWrong ? .badChecksum : .ipChecksum) }
        if layer4 || udp { flags.insert(layer4Wrong ? .badChecksum : udp ? .udpChecksum : .tcpChecksum) }
      }
      unsafe (table + i).initialize(to: flags)
    }
    return unsafe table
  }

  /// Gives every descriptor a buffer. The caller made sure that `pool` has `count` free.
  mutating func fill(from pool: UnsafeMutablePointer<PoolState>, bufferSize: Int, maximumFrame: Int) {
    unsafe self.pool = unsafe pool
    self.bufferSize = UInt32(bufferSize)
    self.maximumFrame = maximumFrame
    let top = unsafe pool.pointee.top
    // SAFETY: top >= count was checked; the records leave the stack and belong to the ring.
    for i in 0..<count { unsafe (shadow + i).initialize(to: pool.pointee.stack[top - 1 - i]) }
    unsafe pool.pointee.top = top - count
    filled = true
    repost()
  }

  /// Describes every buffer anew, from descriptor 0: after a reset of the card.
  mutating func repost() {
    dropChain()
    skipping = false
    next = 0
    for i in 0..<count { unsafe ring.set(i, shadow[i].pointee.iova, 0) }
  }

  /// Hands all descriptors but one to the card (a full ring would look empty).
  func open() { tail.ring(UInt32(count - 1)) }

  /// Gives every buffer back. The card must be quiet.
  mutating func release() {
    running = false
    saved.removeAll()
    dropChain()
    guard filled else { return }
    filled = false
    for i in 0..<count {
      unsafe ring.set(i, 0, 0)
      unsafe PoolState.putOne(shadow[i])
    }
  }

  private mutating func dropChain() {
    if let record = unsafe chain { unsafe PoolState.put(record) }
    unsafe chain = nil
    unsafe chainEnd = nil
    chainBytes = 0
  }

  /// True when the next descriptor has been written back, or saved frames wait.
  var hasWork: Bool { unsafe running && (!saved.isEmpty || ReceiveWriteBack(ring.high(next)).isDone) }

  /// Before a reset: takes every finished frame out of the ring, for later `receive` calls.
  mutating func save() {
    let wasRunning = running
    running = true
    // The batch is moved out for the call, because the queue cannot lend itself twice.
    var batch = PacketBatch(capacity: 1)
    swap(&batch, &saved)
    // Each pass takes up to the room in the ring's worth of frames; the card is off, so it ends.
    while batch.count < batch.capacity, take(into: &batch, max: batch.capacity - batch.count) > 0 {}
    swap(&batch, &saved)
    // With no free buffer to replace them, the rest is lost.
    var i = next
    for _ in 0..<count {
      let done = unsafe ReceiveWriteBack(ring.high(i))
      guard done.isDone else { break }
      if done.isLast { counters.drops &+= 1 }
      i = (i &+ 1) & (count &- 1)
    }
    running = wasRunning
  }

  /// Moves up to `limit` received frames into the batch.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  mutating func receive(into batch: inout PacketBatch, max limit: Int) -> Int {
    guard running else { return 0 }
    if !saved.isEmpty { return takeSaved(into: &batch, max: limit) }
    return take(into: &batch, max: limit)
  }

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(never)
  private mutating func takeSaved(into batch: inout PacketBatch, max limit: Int) -> Int {
    let moved = min(limit, min(batch.room, saved.count))
    let from = unsafe saved.fullSlots, to = unsafe batch.freeSlots
    var i = 0
    while i < moved {
      unsafe (to + i).initialize(to: from[i])
      i &+= 1
    }
    saved.removePrefix(i)
    batch.commit(i)
    return i
  }

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always)
  private mutating func take(into batch: inout PacketBatch, max limit: Int) -> Int {
    guard let pool = unsafe pool else { return 0 }
    let ring = unsafe ring, shadow = unsafe shadow, flags = unsafe flags
    let stack = unsafe pool.pointee.stack, bufferSize = bufferSize, mask = count &- 1
    let start = next
    var i = start, bytes: UInt64 = 0
    var top = unsafe pool.pointee.top
    if top == 0 { unsafe pool.pointee.exhausted &+= 1 }
    let slots = unsafe batch.freeSlots
    var k = 0, room = min(limit, min(top, batch.room))
    // Invariant: room - k never exceeds top, so a free buffer is there for each frame.
    while k < room {
      let done = unsafe ReceiveWriteBack(ring.high(i)), length = done.length
      guard done.isDone else { break }
      rw_dma_rmb()
      if _fastPath(done.isSingle && length &- 1 < bufferSize && !inChain) {
        let low = unsafe ring.low(i), record = unsafe shadow[i]
        top &-= 1
        let fresh = unsafe stack[top]
        unsafe ring.set(i, fresh.pointee.iova, 0)
        unsafe shadow[i] = fresh
        unsafe Self.describe(record, done, low, flags)
        unsafe record.pointee.setSingle(length: UInt16(truncatingIfNeeded: length), offset: 0)
        unsafe (slots + k).initialize(to: record)
        bytes &+= UInt64(length)
        k &+= 1
      } else {
        unsafe pool.pointee.top = top
        if let frame = unsafe takeSegment(i, done, pool) {
          bytes &+= unsafe UInt64(frame.pointee.frameLength)
          unsafe (slots + k).initialize(to: frame)
          k &+= 1
        } else {
          // So that a card that sends nothing but damage does not keep the loop busy.
          room &-= 1
        }
        unsafe top = pool.pointee.top
        room = min(room, k &+ top)
      }
      i = (i &+ 1) & mask
    }
    if i != start {
      unsafe pool.pointee.top = top
      next = i
      counters.packets &+= UInt64(truncatingIfNeeded: k)
      counters.bytes &+= bytes
      counters.doorbells &+= 1
      tail.ring(UInt32(truncatingIfNeeded: (i &- 1) & mask))
    }
    batch.commit(k)
    return k
  }

  @inline(__always) private var inChain: Bool { unsafe chain != nil || skipping }

  /// Writes what the card said of the frame into its record: hash, VLAN tag, checksums.
  // SAFETY: the record is the ring's alone. Its layout (hash at 40, VLAN at 44, interface at 46,
  // flags at 48) is held by a test.
  @inline(__always)
  private static func describe(
    _ record: RawPacket, _ done: ReceiveWriteBack, _ low: UInt64, _ flags: UnsafeMutablePointer<PacketFlags>
  ) {
    let tagAndHash = low >> 32 | (done.word >> 16 & 0xffff_0000_0000)
    unsafe UnsafeMutableRawPointer(record).storeBytes(of: tagAndHash, toByteOffset: 40, as: UInt64.self)
    let hashed: UInt32 = low & 0xf != 0 ? 2 : 0
    unsafe record.pointee.flags = PacketFlags(rawValue: flags[done.flagIndex].rawValue | hashed)
    unsafe record.pointee.headerLengths = 0
    unsafe record.pointee.generation &+= 1
    unsafe record.pointee.timestamp = 0
  }

  /// Everything but an undamaged frame in one buffer: segments, damage, impossible lengths.
  /// - Returns: a whole frame when this was its last segment.
  @inline(never)
  private mutating func takeSegment(
    _ i: Int, _ done: ReceiveWriteBack, _ pool: UnsafeMutablePointer<PoolState>
  ) -> RawPacket? {
    let record = unsafe shadow[i], length = Int(done.length)
    if skipping {
      skipping = !done.isLast
      unsafe ring.set(i, record.pointee.iova, 0)
      return nil
    }
    let total = chainBytes &+ length
    guard !done.isDamaged, length > 0, length <= Int(bufferSize), total <= maximumFrame || (done.isLast && chainBytes == 0)
    else {
      counters.errors &+= 1
      dropChain()
      skipping = !done.isLast
      unsafe ring.set(i, record.pointee.iova, 0)
      return nil
    }
    let low = unsafe ring.low(i), top = unsafe pool.pointee.top &- 1
    let fresh = unsafe pool.pointee.stack[top]
    unsafe pool.pointee.top = top
    unsafe ring.set(i, fresh.pointee.iova, 0)
    unsafe shadow[i] = fresh
    unsafe record.pointee.setSingle(length: UInt16(truncatingIfNeeded: length), offset: 0)
    if let end = unsafe chainEnd { unsafe end.pointee.next = record } else { unsafe chain = record }
    unsafe chainEnd = record
    chainBytes = total
    guard done.isLast, let frame = unsafe chain else { return nil }
    unsafe Self.describe(frame, done, low, flags)
    unsafe frame.pointee.frameLength = UInt32(truncatingIfNeeded: total)
    unsafe chain = nil
    unsafe chainEnd = nil
    chainBytes = 0
    return unsafe frame
  }
}
