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
//   the ring and the card counts what it then loses.
// - What the card says of lengths and chains is held against the buffer's size and the port's
//   largest frame; whatever does not fit is counted and its buffers stay in the ring.

import CRingway
public import DeviceIO
public import DriverKit
public import Packet

/// One receive queue of advanced descriptors with one buffer each.
@safe public struct AdvancedReceiveRing: ~Copyable {
  private let ring: DescriptorWindow
  private let shadow: UnsafeMutablePointer<RawPacket>
  private let flags: ReceiveFlags
  private let tail: Doorbell
  private let family: AdvancedFamily
  /// Descriptors.
  public let count: Int
  /// Whether every descriptor holds a record of `pool`.
  public private(set) var filled = false
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
  public var running = false
  /// The queue's interrupt is let through.
  public var armed = false
  /// Frames saved from the ring before a reset; handed out first.
  private var saved: PacketBatch
  public var counters = QueueCounters()

  /// - Parameters:
  ///   - ring: `count` descriptors, aligned to 128 bytes, for as long as the queue lives.
  ///   - count: a power of two.
  ///   - tail: the queue's RDT.
  public init(unsafe ring: DescriptorWindow, count: Int, tail: Doorbell, family: AdvancedFamily) {
    unsafe self.ring = unsafe ring
    self.count = count
    self.tail = tail
    self.family = family
    unsafe shadow = .allocate(capacity: count)
    flags = ReceiveFlags()
    saved = PacketBatch(capacity: count)
    for i in 0..<count { unsafe ReceiveDescriptor(ring, i).post(0) }
  }

  deinit {
    flags.deallocate()
    unsafe shadow.deallocate()
  }

  /// Gives every descriptor a buffer.
  /// - Parameters:
  ///   - pool: has `count` records free (the caller made sure).
  ///   - bufferSize: bytes that the card may write to each, at most the buffers' own size.
  ///   - maximumFrame: bytes of the longest frame that is taken from several buffers.
  public mutating func fill(from pool: UnsafeMutablePointer<PoolState>, bufferSize: Int, maximumFrame: Int) {
    unsafe self.pool = unsafe pool
    self.bufferSize = UInt32(truncatingIfNeeded: min(bufferSize, Int(UInt16.max)))
    self.maximumFrame = maximumFrame
    unsafe PoolState.ready(pool, for: count)
    let top = unsafe pool.pointee.top
    // SAFETY: top >= count was checked; the records leave the stack and belong to the ring.
    for i in 0..<count { unsafe (shadow + i).initialize(to: pool.pointee.stack[top - 1 - i]) }
    unsafe pool.pointee.top = top - count
    filled = true
    repost()
  }

  /// Fresh buffers come from `pool` from now on. What is posted stays, and goes back to its own pool.
  public mutating func replacePool(_ pool: UnsafeMutablePointer<PoolState>) { unsafe self.pool = pool }

  /// Describes every buffer anew, from descriptor 0: after a reset of the card.
  public mutating func repost() {
    dropChain()
    skipping = false
    next = 0
    for i in 0..<count { unsafe ReceiveDescriptor(ring, i).post(shadow[i].pointee.iova) }
  }

  /// Hands all descriptors but one to the card (a full ring would look empty).
  public func open() { tail.ring(UInt32(count - 1)) }

  /// Gives every buffer back. The card must be quiet.
  public mutating func release() {
    running = false
    saved.removeAll()
    dropChain()
    guard filled else { return }
    filled = false
    for i in 0..<count {
      unsafe ReceiveDescriptor(ring, i).post(0)
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
  public var hasWork: Bool { unsafe running && (!saved.isEmpty || ReceiveDescriptor(ring, next).status.isDone) }

  /// Before a reset: takes every finished frame out of the ring, for later `receive` calls.
  public mutating func save() {
    guard filled else { return }
    let wasRunning = running
    running = true
    // The batch is moved out for the call, because the queue cannot lend itself twice.
    var batch = PacketBatch(capacity: 1)
    swap(&batch, &saved)
    // The card is off, so this ends.
    while batch.count < batch.capacity, take(into: &batch, max: batch.capacity - batch.count) > 0 {}
    swap(&batch, &saved)
    // With no free buffer to replace them, the rest is lost.
    var i = next
    for _ in 0..<count {
      let status = unsafe ReceiveDescriptor(ring, i).status
      guard status.isDone else { break }
      if status.isLast { counters.drops &+= 1 }
      i = (i &+ 1) & (count &- 1)
    }
    running = wasRunning
  }

  /// Moves up to `limit` received frames into the batch; one tail write. Returns how many.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public mutating func receive(into batch: inout PacketBatch, max limit: Int) -> Int {
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
    guard moved > 0 else { return 0 }
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
    let slots = unsafe batch.freeSlots
    let wanted = min(limit, batch.room)
    unsafe PoolState.ready(pool, for: wanted)
    var room = unsafe min(wanted, pool.pointee.top)
    if unsafe pool.pointee.top == 0 { unsafe pool.pointee.exhausted &+= 1 }
    let start = next, mask = count &- 1
    var i = start, k = 0, seen = 0, bytes: UInt64 = 0
    // Invariant: room - k never exceeds what is free in the pool.
    while k < room, seen < count {
      if _fastPath(!inChain) {
        // Plain frames in one piece up to the end of the ring.
        let run = min(room &- k, count &- i)
        let taken = unsafe Self.takePlain(
          ring.base + (i &+ run) &* advancedDescriptorSize, UnsafeMutableRawPointer(shadow + (i &+ run)),
          pool.pointee.stack + pool.pointee.top, UnsafeMutableRawPointer(slots + (k &+ run)), run &* -8, flags, UInt64(bufferSize))
        let frames = run &+ taken.rest
        k &+= frames
        seen &+= frames
        bytes &+= taken.bytes
        unsafe pool.pointee.top &-= frames
        i = (i &+ frames) & mask
        if taken.rest == 0 { continue }
      }
      guard unsafe ReceiveDescriptor(ring, i).status.isDone else { break }
      if let frame = unsafe takeSegment(i, pool) {
        bytes &+= unsafe UInt64(frame.pointee.frameLength)
        unsafe (slots + k).initialize(to: frame)
        k &+= 1
      }
      // One turn of the ring at most, so that a card that sends nothing but damage does not keep
      // the loop busy.
      seen &+= 1
      room = unsafe min(room, k &+ pool.pointee.top)
      i = (i &+ 1) & mask
    }
    if seen > 0 {
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

  /// Takes whole, undamaged frames, and puts a free buffer into the place of each, until one is
  /// different. A function of its own, so that everything it uses stays in machine registers; one
  /// index, in bytes of pointers, serves all three arrays.
  /// - Parameters:
  ///   - descriptorsEnd, shadowEnd, slotsEnd: behind the descriptors to look at, the records on them,
  ///     and the slots to fill.
  ///   - free: behind the top of the pool's stack; taken from there downwards.
  ///   - from: minus 8 times the number of descriptors in a row.
  /// - Returns: `rest` is 0 at the end, or minus what is left.
  // SAFETY: as many records lie before each end and before `free`. The record is the ring's alone.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(never)
  private static func takePlain(
    _ descriptorsEnd: UnsafeMutableRawPointer, _ shadowEnd: UnsafeMutableRawPointer,
    _ free: UnsafeMutablePointer<RawPacket>, _ slotsEnd: UnsafeMutableRawPointer, _ from: Int, _ flags: ReceiveFlags,
    _ bufferSize: UInt64
  ) -> (rest: Int, bytes: UInt64) {
    var free = unsafe free
    var j = from, bytes: UInt64 = 0
    while j != 0 {
      let descriptor = unsafe ReceiveDescriptor(at: descriptorsEnd + j &* 2)
      let status = unsafe descriptor.status
      guard _fastPath(status.isPlain) else { break }
      rw_dma_rmb()
      let length = unsafe UInt64(descriptor.length)
      guard _fastPath(length &- 1 < bufferSize) else { break }
      let record = unsafe (shadowEnd + j).load(as: RawPacket.self)
      unsafe Self.describe(record, descriptor, flags.plain(status, descriptor.types))
      unsafe Self.setLengths(record, UInt32(truncatingIfNeeded: length))
      unsafe free -= 1
      let fresh = unsafe free.pointee
      unsafe descriptor.post(fresh.pointee.iova)
      unsafe (shadowEnd + j).storeBytes(of: fresh, as: RawPacket.self)
      unsafe (slotsEnd + j).storeBytes(of: record, as: RawPacket.self)
      bytes &+= length
      j &+= 8
    }
    return (j / 8, bytes)
  }

  /// A length of 16 bits, offset 0, and the same length for the whole frame: two stores.
  // SAFETY: length at 32, offset at 34, frame length at 36, as a test holds them.
  @inline(__always) private static func setLengths(_ record: RawPacket, _ length: UInt32) {
    unsafe UnsafeMutableRawPointer(record).storeBytes(of: length, toByteOffset: 32, as: UInt32.self)
    unsafe record.pointee.frameLength = length
  }

  /// Writes what the card said of the frame into its record: hash, VLAN tag, flags.
  // SAFETY: VLAN tag at 44, interface at 46, as a test holds them.
  @inline(__always)
  private static func describe(_ record: RawPacket, _ descriptor: ReceiveDescriptor, _ flags: UInt32) {
    unsafe record.pointee.hash = descriptor.hash
    // The tag, and no interface: one store.
    unsafe UnsafeMutableRawPointer(record).storeBytes(of: descriptor.vlanTag, toByteOffset: 44, as: UInt32.self)
    unsafe record.pointee.flags = PacketFlags(rawValue: flags)
    unsafe record.pointee.headerLengths = 0
    unsafe record.pointee.timestamp = 0
  }

  /// Everything but a plain frame in one buffer: segments, damage, wrong checksums, impossible
  /// lengths.
  /// - Returns: a whole frame when this was its last segment.
  @inline(never)
  private mutating func takeSegment(_ i: Int, _ pool: UnsafeMutablePointer<PoolState>) -> RawPacket? {
    let descriptor = unsafe ReceiveDescriptor(ring, i), record = unsafe shadow[i]
    let status = unsafe descriptor.status
    rw_dma_rmb()
    if skipping {
      skipping = !status.isLast
      unsafe descriptor.post(record.pointee.iova)
      return nil
    }
    let length = unsafe Int(descriptor.length), total = chainBytes &+ length
    // A frame in one buffer may be as long as the buffer; a chain ends at the port's largest frame.
    let fits = total <= maximumFrame || (status.isLast && chainBytes == 0)
    let isDamaged = status.isLast && status.errors & family.damaged != 0
    guard !isDamaged, length > 0, length <= Int(bufferSize), fits else {
      counters.errors &+= 1
      dropChain()
      skipping = !status.isLast
      unsafe descriptor.post(record.pointee.iova)
      return nil
    }
    unsafe record.pointee.setSingle(length: UInt16(truncatingIfNeeded: length), offset: 0)
    if let end = unsafe chainEnd { unsafe end.pointee.next = record } else { unsafe chain = record }
    unsafe chainEnd = record
    chainBytes = total
    if status.isLast, let head = unsafe chain {
      unsafe Self.describe(head, descriptor, flags.any(status, descriptor.types, family))
      unsafe head.pointee.frameLength = UInt32(truncatingIfNeeded: total)
    }
    let top = unsafe pool.pointee.top &- 1, fresh = unsafe pool.pointee.stack[top]
    unsafe pool.pointee.top = top
    unsafe descriptor.post(fresh.pointee.iova)
    unsafe shadow[i] = fresh
    guard status.isLast else { return nil }
    let frame = unsafe chain
    unsafe chain = nil
    unsafe chainEnd = nil
    chainBytes = 0
    return unsafe frame
  }
}
