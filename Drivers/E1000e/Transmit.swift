// The transmit ring: frames go out in groups of up to 32 descriptors; the last of each group asks
// the card to report (RS), and one report frees the group.
//
//          clean                              next
//           v                                  v
//    | sent | group, RS ........ | group, RS  | free | free |
//             ends[clean] names the descriptor whose report is awaited
//
// Invariants
// - `shadow[i]` is the record on descriptor i, or nil for a context descriptor. A frame of several
//   buffers has a record on each of its descriptors, unlinked, so that each is freed alone.
// - The card reports by a bit in descriptor memory. Only bits of groups that were posted are looked
//   at, in order, so a card that reports nonsense frees nothing twice.
// - One descriptor stays free: a tail that meets the head would mean "empty" (82574, 7.2.4).

import CRingway
import DeviceIO
import DriverKit
import Packet

/// One transmit queue. Lives at a fixed address; used by its owner's thread alone.
@safe struct TransmitQueue: ~Copyable {
  private let ring: DescriptorWindow
  private let shadow: UnsafeMutablePointer<RawPacket?>
  /// For the first descriptor of each group: its last one, and `mixed`.
  private let ends: UnsafeMutablePointer<UInt32>
  private let tail: Doorbell
  let count: Int
  private var pool: UnsafeMutablePointer<PoolState>?
  private(set) var next = 0
  private(set) var clean = 0
  private var maximumFrame = 0
  private var maximumSegments = 0
  /// The card inserts tags (CTRL.VME); otherwise the driver moves the bytes itself.
  private var insertsVLAN = false
  var running = false
  /// A frame found no room: the next arm asks for a transmit interrupt too.
  private(set) var waitsForRoom = false
  /// Frames in the ring that a reset lost.
  private(set) var lost: UInt64 = 0
  var counters = QueueCounters()

  /// A group with context descriptors or records of other pools.
  private static let mixed: UInt32 = 1 << 31
  private static let groupSize = 32
  /// Shortest frame the card takes, in bytes; it pads further by itself (7.2.1, TCTL.PSP).
  private static let shortest = 17

  /// - Parameters:
  ///   - ring: `count` zeroed descriptors, for as long as the queue lives.
  ///   - tail: the queue's TDT.
  init(unsafe ring: DescriptorWindow, count: Int, tail: Doorbell) {
    unsafe self.ring = unsafe ring
    self.count = count
    self.tail = tail
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
  mutating func open(pool: UnsafeMutablePointer<PoolState>, maximumFrame: Int, insertsVLAN: Bool) {
    unsafe self.pool = unsafe pool
    self.maximumFrame = maximumFrame
    self.insertsVLAN = insertsVLAN
    maximumSegments = min(count / 4, 64)
    next = 0
    clean = 0
    waitsForRoom = false
    for i in 0..<count { unsafe TransmitDescriptor(ring, i).post(0, 0) }
  }

  /// Most frames are of `pool` from now on. Those in the ring are of another, and freed one by one.
  mutating func replacePool(_ pool: UnsafeMutablePointer<PoolState>) {
    unsafe self.pool = pool
    var c = clean
    while c != next {
      let last = unsafe ends[c] & ~Self.mixed
      unsafe ends[c] = last | Self.mixed
      c = (Int(last) &+ 1) & (count &- 1)
    }
  }

  /// Descriptors the card has not reported yet.
  var pending: Int { (next &- clean) & (count &- 1) }

  /// True when a sender that found no room could go on now.
  var hasWork: Bool {
    guard running, waitsForRoom, clean != next else { return false }
    return unsafe TransmitDescriptor(ring, Int(ends[clean] & ~Self.mixed)).isReported
  }

  /// Frees whatever is in the ring, sent or not. The card must be quiet.
  mutating func release() {
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
  @inline(__always)
  mutating func collect() {
    guard let pool = unsafe pool else { return }
    // Packets of another worker's pool go back to it one by one.
    let end = next, mask = count &- 1, own = unsafe PoolState.isOwn(pool)
    var c = clean
    while c != end {
      let group = unsafe ends[c], last = Int(group & ~Self.mixed)
      guard unsafe TransmitDescriptor(ring, last).isReported else { break }
      if _fastPath(group & Self.mixed == 0 && own) {
        // SAFETY: the group's records are of this pool and on no stack, so the stack has room.
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

  /// Sends a prefix of the batch; one tail write.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  mutating func send(_ batch: inout PacketBatch) -> Int {
    guard running, let pool = unsafe pool else { return 0 }
    collect()
    let mask = count &- 1, start = next, slots = unsafe batch.fullSlots, have = batch.count
    let ceiling = UInt32(truncatingIfNeeded: maximumFrame &- Self.shortest)
    var t = start, s = 0, bytes: UInt64 = 0, packets = 0
    waitsForRoom = false
    while s < have {
      // A group lies in one piece: it ends where the ring does.
      let room = min(min(have &- s, Self.groupSize), min((clean &- t &- 1) & mask, count &- t))
      let posted = unsafe Self.postPlain(
        slots + (s &+ room), TransmitDescriptor(ring, t), shadow + (t &+ room), -room, pool, ceiling)
      let frames = room &+ posted.rest
      if frames > 0 {
        let last = t &+ frames &- 1
        unsafe TransmitDescriptor(ring, last).add(TransmitCommand.reportStatus)
        unsafe ends[t] = UInt32(truncatingIfNeeded: last) | (posted.foreign == 0 ? 0 : Self.mixed)
        packets &+= frames
        bytes &+= posted.bytes
        s &+= frames
        t = (last &+ 1) & mask
      }
      if posted.rest < 0 || room == 0 {
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

  /// Posts plain frames, one descriptor each, until one is different. A function of its own, so
  /// that everything it uses stays in machine registers.
  /// - Parameters:
  ///   - slotsEnd, shadowEnd: behind the frames to post, and behind their places in the ring.
  ///   - from: minus the number of frames: the index, from the ends.
  /// - Returns: `rest` is the index where it stopped: 0 at the end, or minus what is left.
  ///   `foreign` is not 0 when a record belongs to another pool.
  // SAFETY: -from slots and descriptors in a row are free; the caller counted them.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(never)
  private static func postPlain(
    _ slotsEnd: UnsafeMutablePointer<RawPacket>, _ first: TransmitDescriptor,
    _ shadowEnd: UnsafeMutablePointer<RawPacket?>, _ from: Int, _ pool: UnsafeMutablePointer<PoolState>, _ ceiling: UInt32
  ) -> (rest: Int, bytes: UInt64, foreign: UInt) {
    var descriptor = unsafe first
    var j = from, bytes: UInt64 = 0, foreign: UInt = 0
    while j < 0 {
      let record = unsafe slotsEnd[j]
      guard _fastPath(unsafe Self.asksNothing(record)) else { break }
      guard _fastPath(unsafe record.pointee.next == nil) else { break }
      let length = unsafe UInt32(record.pointee.length)
      guard _fastPath(length &- UInt32(Self.shortest) <= ceiling) else { break }
      unsafe descriptor.post(
        record.pointee.iova &+ UInt64(record.pointee.offset), TransmitCommand.single | UInt64(length))
      unsafe descriptor.advance()
      unsafe shadowEnd[j] = record
      foreign |= unsafe UInt(bitPattern: record.pointee.pool) ^ UInt(bitPattern: pool)
      bytes &+= UInt64(length)
      j &+= 1
    }
    return (j, bytes, foreign)
  }

  /// No tag to insert, no checksum to insert.
  // SAFETY: flags at 48, header lengths at 52 (held by a test): one load looks at both.
  @inline(__always)
  private static func asksNothing(_ record: RawPacket) -> Bool {
    let asked = unsafe UnsafeRawPointer(record).load(fromByteOffset: 48, as: UInt64.self)
    return asked & 0x0000_ffff_0000_0001 == 0
  }

  // Outcomes of `postAnything` that are no descriptor index.
  private static let refused = -1
  private static let noRoom = -2

  /// A frame of any shape, from descriptor `t` on: context descriptor, several buffers, a tag.
  /// Refused frames (empty, longer than the port allows, too many buffers) are freed and counted.
  /// - Returns: the next free descriptor, `refused` or `noRoom`.
  @inline(never)
  private mutating func postAnything(_ frame: RawPacket, at t: Int) -> Int {
    let mask = count &- 1, space = (clean &- t &- 1) & mask
    guard let shape = unsafe FrameShape(frame), shape.bytes <= maximumFrame, shape.segments <= maximumSegments else {
      unsafe PoolState.put(frame)
      counters.drops &+= 1
      return Self.refused
    }
    let isTagged = unsafe frame.pointee.flags.contains(.vlan), writesTag = isTagged && !insertsVLAN
    let context = unsafe shape.checksumContext(frame, inserted: writesTag ? 4 : 0)
    guard shape.segments &+ (context == nil ? 0 : 1) <= space else { return Self.noRoom }
    let padded = unsafe shape.bytes >= Self.shortest || FrameShape.pad(frame, to: Self.shortest)
    guard unsafe padded && (!writesTag || FrameShape.insertTag(frame)) else {
      unsafe PoolState.put(frame)
      counters.drops &+= 1
      return Self.refused
    }
    var extra: UInt64 = 0
    if isTagged && insertsVLAN { extra |= unsafe TransmitCommand.insertVLAN | UInt64(frame.pointee.vlan) << 48 }
    var i = t
    if let context {
      unsafe TransmitDescriptor(ring, i).post(context.low, context.high)
      unsafe shadow[i] = nil
      extra |= context.options
      i = (i &+ 1) & mask
    }
    let last = unsafe postSegments(frame, from: i, extra)
    unsafe ends[t] = UInt32(truncatingIfNeeded: last) | Self.mixed
    return (last &+ 1) & mask
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
        record.pointee.iova &+ UInt64(record.pointee.offset), TransmitCommand.data | extra | length)
      unsafe shadow[i] = record
      last = i
      i = (i &+ 1) & (count &- 1)
    }
    unsafe TransmitDescriptor(ring, last).add(TransmitCommand.endOfPacket | TransmitCommand.reportStatus)
    return last
  }
}
