// The transmit ring: frames go out in groups of up to 32 descriptors; the last of each group asks
// the card to report (RS), and one report frees the group.
//
//          clean                              next
//           v                                  v
//    | sent | group, RS ........ | group, RS  | free | free |
//             ends[clean] names the descriptor whose report is awaited
//
// A frame that wants a VLAN tag, checksums or segmentation names a context that describes it. The
// card keeps a few contexts a queue; they are posted only when none of them fits.
//
// Invariants
// - `shadow[i]` is the record on descriptor i, or nil for a context descriptor. A frame of several
//   buffers has a record on each of its descriptors, unlinked, so that each is freed alone.
// - The card reports by a bit in descriptor memory. Only bits of groups that were posted are looked
//   at, in order, so a card that reports nonsense frees nothing twice.
// - One descriptor stays free: a tail that meets the head would mean "empty".

import CRingway
public import DeviceIO
public import DriverKit
public import Packet

/// One transmit queue of advanced descriptors.
@safe public struct AdvancedTransmitRing: ~Copyable {
  private let ring: DescriptorWindow
  private let shadow: UnsafeMutablePointer<RawPacket?>
  /// For the first descriptor of each group: its last one, and `mixed`.
  private let ends: UnsafeMutablePointer<UInt32>
  private let tail: Doorbell
  private let family: AdvancedFamily
  /// Descriptors.
  public let count: Int
  /// The tail as the card knows it: the first descriptor that was not handed over.
  public private(set) var next = 0
  public private(set) var clean = 0
  private var maximumFrame = 0
  private var maximumSegments = 0
  /// The card inserts tags; otherwise the driver moves the bytes itself.
  private var insertsVLAN = false
  /// `TransmitWord.lengthAndPayload`; see `postPlain`.
  private var scale: UInt64 = 0
  /// What the card's context slots hold; all zero is none.
  private var slot0 = TransmitContext()
  private var slot1 = TransmitContext()
  /// The slot that is written next.
  private var victim = 0
  public var running = false
  /// A frame found no room: the next arm asks for a transmit interrupt too.
  public private(set) var waitsForRoom = false
  /// Frames in the ring that a reset lost.
  public private(set) var lost: UInt64 = 0
  /// Context descriptors posted.
  public private(set) var contexts: UInt64 = 0
  public var counters = QueueCounters()

  /// A group with context descriptors or records of several pools.
  private static let mixed: UInt32 = 1 << 31
  private static let groupSize = 32
  /// Shortest frame in bytes; the card pads further by itself.
  private static let shortest = FrameShape.shortest
  /// Most buffers of a frame (82599 datasheet, 7.2.1.1: 40 descriptors, a context among them).
  private static let mostSegments = 38
  /// Bytes of the longest buffer a data descriptor takes.
  private static let longestBuffer = 16 * 1024

  /// - Parameters:
  ///   - ring: `count` descriptors, aligned to 128 bytes, for as long as the queue lives.
  ///   - count: a power of two.
  ///   - tail: the queue's TDT.
  public init(unsafe ring: DescriptorWindow, count: Int, tail: Doorbell, family: AdvancedFamily) {
    unsafe self.ring = unsafe ring
    self.count = count
    self.tail = tail
    self.family = family
    unsafe shadow = .allocate(capacity: count)
    unsafe shadow.initialize(repeating: nil, count: count)
    unsafe ends = .allocate(capacity: count)
    unsafe ends.initialize(repeating: 0, count: count)
  }

  deinit {
    unsafe ends.deallocate()
    unsafe shadow.deallocate()
  }

  /// An empty ring, for a card that was reset. Whatever was in it must have been released.
  /// - Parameters:
  ///   - maximumFrame: bytes of the longest frame, or of the longest segment of one that is cut.
  ///   - insertsVLAN: the card inserts tags; otherwise they are written into the frames.
  public mutating func open(maximumFrame: Int, insertsVLAN: Bool) {
    self.maximumFrame = maximumFrame
    self.insertsVLAN = insertsVLAN
    scale = TransmitWord.lengthAndPayload
    maximumSegments = min(count / 4, Self.mostSegments)
    next = 0
    clean = 0
    waitsForRoom = false
    slot0 = TransmitContext()
    slot1 = TransmitContext()
    victim = 0
    for i in 0..<count { unsafe TransmitDescriptor(ring, i).post(0, 0) }
  }

  /// Descriptors the card has not reported yet.
  public var pending: Int { (next &- clean) & (count &- 1) }

  /// True when a sender that found no room could go on now.
  public var hasWork: Bool {
    guard running, waitsForRoom, clean != next else { return false }
    return unsafe TransmitDescriptor(ring, Int(ends[clean] & ~Self.mixed)).isReported
  }

  /// Frees whatever is in the ring, sent or not. The card must be quiet.
  public mutating func release() {
    running = false
    collect()
    var c = clean
    while c != next {
      if unsafe shadow[c] != nil, unsafe TransmitDescriptor(ring, c).isLast { lost &+= 1 }
      c = (c &+ 1) & (count &- 1)
    }
    unsafe Self.freeEach(shadow, clean, next, count &- 1)
    clean = next
  }

  /// Frees the groups that the card has reported.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public mutating func reclaim() { collect() }

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always)
  private mutating func collect() {
    let end = next, mask = count &- 1
    var c = clean
    while c != end {
      let group = unsafe ends[c], last = Int(group & ~Self.mixed)
      guard unsafe TransmitDescriptor(ring, last).isReported else { break }
      // Packets of another worker's pool go back to it one by one.
      if _fastPath(group & Self.mixed == 0), let first = unsafe shadow[c], unsafe PoolState.isOwn(first.pointee.pool) {
        // SAFETY: the group's records are all of one pool and on no stack, so the stack has room.
        let pool = unsafe first.pointee.pool
        let n = last &+ 1 &- c, top = unsafe pool.pointee.top
        unsafe Self.copy(from: shadow + c, to: pool.pointee.stack + top, n)
        unsafe pool.pointee.top = top &+ n
      } else {
        unsafe Self.freeEach(shadow, c, (last &+ 1) & mask, mask)
      }
      c = (last &+ 1) & mask
    }
    clean = c
  }

  /// Copies `n` pointers, eight at a time.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always)
  private static func copy(from: UnsafeMutablePointer<RawPacket?>, to: UnsafeMutablePointer<RawPacket>, _ n: Int) {
    let source = UnsafeRawPointer(from), target = UnsafeMutableRawPointer(to)
    var i = 0
    while i &+ 64 <= n &* 8 {
      let eight = unsafe source.loadUnaligned(fromByteOffset: i, as: SIMD8<UInt64>.self)
      unsafe target.storeBytes(of: eight, toByteOffset: i, as: SIMD8<UInt64>.self)
      i &+= 64
    }
    while i < n &* 8 {
      unsafe target.storeBytes(of: source.load(fromByteOffset: i, as: UInt64.self), toByteOffset: i, as: UInt64.self)
      i &+= 8
    }
  }

  /// Frees the records from descriptor `first` up to, not including, `end`, each to its own pool.
  @inline(never)
  private static func freeEach(_ shadow: UnsafeMutablePointer<RawPacket?>, _ first: Int, _ end: Int, _ mask: Int) {
    var c = first
    while c != end {
      if let record = unsafe shadow[c] { unsafe PoolState.putOne(record) }
      c = (c &+ 1) & mask
    }
  }

  /// Sends a prefix of the batch; one tail write. Returns how many frames were taken.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public mutating func send(_ batch: inout PacketBatch) -> Int {
    guard running else { return 0 }
    collect()
    let mask = count &- 1, start = next, slots = unsafe batch.fullSlots, have = batch.count
    let ceiling = UInt32(truncatingIfNeeded: maximumFrame &- Self.shortest)
    var t = start, s = 0, bytes: UInt64 = 0, packets = 0
    waitsForRoom = false
    while s < have {
      // A group lies in one piece, and its records are of one pool: it ends where the ring does, or
      // where another pool's begin.
      let room = min(min(have &- s, Self.groupSize), min((clean &- t &- 1) & mask, count &- t))
      let posted = unsafe Self.postPlain(
        UnsafeMutableRawPointer(slots + (s &+ room)), ring.base + (t &+ room) &* advancedDescriptorSize,
        UnsafeMutableRawPointer(shadow + (t &+ room)), room &* -8, slots[s].pointee.pool, ceiling, scale)
      let frames = room &+ posted.rest
      if frames > 0 {
        let last = t &+ frames &- 1
        unsafe TransmitDescriptor(ring, last).add(TransmitWord.reportStatus)
        unsafe ends[t] = UInt32(truncatingIfNeeded: last)
        packets &+= frames
        bytes &+= posted.bytes
        s &+= frames
        t = (last &+ 1) & mask
      }
      if frames == 0 {
        // What needs more than one descriptor, or is refused; or a full ring.
        let record = unsafe slots[s], frameBytes = unsafe UInt64(record.pointee.frameLength)
        let outcome = unsafe postAnything(record, at: t)
        if outcome == Self.noRoom {
          waitsForRoom = true
          break
        }
        if outcome != Self.refused {
          t = outcome
          packets &+= 1
          bytes &+= frameBytes
        }
        s &+= 1
      }
    }
    if t != start {
      next = t
      counters.packets &+= UInt64(truncatingIfNeeded: packets)
      counters.bytes &+= bytes
      counters.doorbells &+= 1
      tail.ring(UInt32(truncatingIfNeeded: t))
    }
    batch.removePrefix(s)
    return s
  }

  /// Posts plain frames of one pool, one descriptor each, until one is different. A function of its
  /// own, so that everything it uses stays in machine registers; one index, in bytes of pointers,
  /// serves all three arrays.
  /// - Parameters:
  ///   - slotsEnd, descriptorsEnd, shadowEnd: behind the frames to post and their places in the ring.
  ///   - from: minus 8 times the number of frames.
  ///   - scale: `TransmitWord.lengthAndPayload`, handed in so that it stays one multiplication.
  /// - Returns: `rest` is 0 at the end, or minus what is left.
  // SAFETY: as many slots and descriptors in a row are free; the caller counted them.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(never)
  private static func postPlain(
    _ slotsEnd: UnsafeMutableRawPointer, _ descriptorsEnd: UnsafeMutableRawPointer, _ shadowEnd: UnsafeMutableRawPointer,
    _ from: Int, _ pool: UnsafeMutablePointer<PoolState>, _ ceiling: UInt32, _ scale: UInt64
  ) -> (rest: Int, bytes: UInt64) {
    var j = from, bytes: UInt64 = 0
    while j != 0 {
      let record = unsafe (slotsEnd + j).load(as: RawPacket.self)
      guard _fastPath(unsafe Self.asksNothing(record)) else { break }
      guard _fastPath(unsafe record.pointee.next == nil) else { break }
      guard _fastPath(unsafe record.pointee.pool == pool) else { break }
      let length = unsafe UInt32(record.pointee.length)
      guard _fastPath(length &- UInt32(Self.shortest) <= ceiling) else { break }
      bytes &+= UInt64(length)
      unsafe TransmitDescriptor(at: descriptorsEnd + j &* 2).post(
        record.pointee.iova &+ UInt64(record.pointee.offset), UInt64(length) &* scale &+ TransmitWord.single)
      unsafe (shadowEnd + j).storeBytes(of: record, as: RawPacket.self)
      j &+= 8
    }
    return (j / 8, bytes)
  }

  /// No tag to insert, no checksum to insert, nothing to cut.
  // SAFETY: flags at 48, header lengths at 52 (held by a test): one load looks at both.
  @inline(__always)
  private static func asksNothing(_ record: RawPacket) -> Bool {
    let asked = unsafe UnsafeRawPointer(record).load(fromByteOffset: 48, as: UInt64.self)
    return asked & 0x0000_ffff_0000_0041 == 0
  }

  // Outcomes of `postAnything` that are no descriptor index.
  private static let refused = -1
  private static let noRoom = -2

  /// A frame of any shape, from descriptor `t` on: context descriptor, several buffers, a tag.
  /// Refused frames (empty, longer than the port allows, too many buffers, segmentation without
  /// usable headers) are freed and counted.
  /// - Returns: the next free descriptor, `refused` or `noRoom`.
  @inline(never)
  private mutating func postAnything(_ frame: RawPacket, at t: Int) -> Int {
    let mask = count &- 1, space = (clean &- t &- 1) & mask
    guard let shape = unsafe FrameShape(frame), shape.segments <= maximumSegments, shape.longest <= Self.longestBuffer,
      let plan = unsafe FramePlan(frame, shape, maximumFrame: maximumFrame, insertsTag: insertsVLAN)
    else { return unsafe refuse(frame) }
    let kept = slot(of: plan.context)
    guard shape.segments &+ (kept < 0 ? 1 : 0) <= space else { return Self.noRoom }
    let writesTag = unsafe frame.pointee.flags.contains(.vlan) && !insertsVLAN
    let padded = unsafe shape.bytes >= Self.shortest || FrameBytes.pad(frame, to: Self.shortest)
    if plan.options & TransmitWord.ipOption != 0 { unsafe FrameBytes.clearChecksum(frame) }
    guard unsafe padded && (!writesTag || FrameBytes.insertTag(frame)) else { return unsafe refuse(frame) }
    var extra = plan.options | UInt64(plan.payload) << TransmitWord.payloadShift
    var i = t
    if let context = plan.context {
      if kept < 0 { i = postContext(context, at: i) }
      let slot = kept < 0 ? slot(of: context) : kept
      extra |= UInt64(slot) << TransmitWord.slotShift | family.usesContext
    }
    let last = unsafe postSegments(frame, from: i, extra)
    unsafe ends[t] = UInt32(truncatingIfNeeded: last) | Self.mixed
    return (last &+ 1) & mask
  }

  private mutating func refuse(_ frame: RawPacket) -> Int {
    unsafe PoolState.put(frame)
    counters.drops &+= 1
    return Self.refused
  }

  /// The slot that holds `context`, or -1; 0 also when none is needed.
  private func slot(of context: TransmitContext?) -> Int {
    guard let context, !context.isSame(slot0) else { return 0 }
    return context.isSame(slot1) ? 1 : -1
  }

  /// Replaces the older of the card's contexts. Returns the next descriptor.
  private mutating func postContext(_ context: TransmitContext, at i: Int) -> Int {
    let slot = victim
    unsafe TransmitDescriptor(ring, i).post(context.low, context.high | UInt64(slot) << TransmitWord.slotShift)
    unsafe shadow[i] = nil
    contexts &+= 1
    if slot == 0 { slot0 = context } else { slot1 = context }
    victim = family.contextSlots > 1 ? 1 &- slot : 0
    return (i &+ 1) & (count &- 1)
  }

  /// Each buffer on its own descriptor and its record unlinked. Returns the last descriptor.
  private func postSegments(_ frame: RawPacket, from start: Int, _ extra: UInt64) -> Int {
    var at: RawPacket? = unsafe frame
    var i = start, last = start
    while let record = unsafe at {
      unsafe at = record.pointee.next
      unsafe record.pointee.next = nil
      let length = unsafe UInt64(record.pointee.length)
      if length == 0 {
        unsafe PoolState.putOne(record)
        continue
      }
      unsafe TransmitDescriptor(ring, i).post(
        record.pointee.iova &+ UInt64(record.pointee.offset), TransmitWord.data | extra | length)
      unsafe shadow[i] = record
      last = i
      i = (i &+ 1) & (count &- 1)
    }
    unsafe TransmitDescriptor(ring, last).add(TransmitWord.endOfPacket | TransmitWord.reportStatus)
    return last
  }
}
