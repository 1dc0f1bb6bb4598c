// Send: put frames on descriptors, take back what the device has sent.

import CRingway
import DriverKit
import Packet
import VirtioTransport
import Wire

/// One transmit virtqueue. Lives at a fixed address; owned by one thread.
@safe struct TransmitQueue: ~Copyable {
  var queue: SplitQueue
  /// The frame (whole chain of records) on the first descriptor of each chain that the device holds.
  let shadow: RingShadow
  var free: DescriptorIDs
  /// Descriptors have come back in the order of posting so far: number i of `free` is i.
  var inOrder = true
  /// The next descriptor of the same chain, or `endOfChain`. Private: the device's copy is never read.
  let links: UnsafeMutablePointer<UInt16>
  static var endOfChain: UInt16 { 0xffff }
  /// Headers in descriptor memory, `headerStride` bytes each: one for each descriptor, for frames
  /// that get a VLAN tag, and behind them the constant one, 12 zeros.
  let headers: UnsafeMutableRawPointer
  /// Bus address of `headers`.
  let headerBase: UInt64
  static var headerStride: Int { 32 }
  /// Where most frames come from: those go back in bulk.
  var pool: UnsafeMutablePointer<PoolState>?
  /// Longest frame that is sent, in bytes.
  var maximumFrame: UInt32 = 0
  /// Chains with the device that take more than a push on `pool`: several descriptors, several
  /// buffers, or of another pool.
  var careful = 0
  var offloads = TransmitOffloads()
  /// No tag to insert, and no header lengths: what the flags say of checksums is then what some card
  /// found when it received the frame, and asks for nothing.
  // SAFETY: flags at 48, header lengths at 52 (held by a test): one load looks at both.
  @inline(__always) static func asksNothing(_ record: RawPacket) -> Bool {
    let asked = unsafe UnsafeRawPointer(record).load(fromByteOffset: 48, as: UInt64.self)
    return asked & 0x0000_ffff_0000_0001 == 0
  }
  var counters = QueueCounters()
  /// Watchdog: what `taken` was at the last tick, and since which tick it has stood still with
  /// frames on the ring.
  var watchedIndex: UInt16 = 0
  var stoodStillSince: UInt64?

  /// Bytes of header memory that a ring of `size` descriptors needs.
  static func headerCount(size: Int) -> Int { (size + 1) * headerStride }

  /// - Parameters:
  ///   - headers: `headerCount` zero bytes that the device can read; they outlive the queue.
  ///   - headerBase: their bus address.
  init(queue: consuming SplitQueue, unsafe headers: UnsafeMutableRawPointer, headerBase: UInt64) {
    let size = queue.layout.size
    self.queue = queue
    shadow = RingShadow(count: size)
    free = DescriptorIDs(count: size)
    unsafe links = .allocate(capacity: size)
    unsafe links.initialize(repeating: Self.endOfChain, count: size)
    unsafe self.headers = headers
    self.headerBase = headerBase
  }

  deinit { unsafe links.deallocate() }

  /// Makes the queue ready, with nothing posted. Only while the device is quiet.
  mutating func prepare(
    pool: UnsafeMutablePointer<PoolState>, eventIndex: Bool, maximumFrame: Int, offloads: TransmitOffloads
  ) {
    releaseAll()
    queue.reset(eventIndex: eventIndex)
    free.reset()
    inOrder = true
    unsafe links.update(repeating: Self.endOfChain, count: queue.layout.size)
    careful = 0
    watchedIndex = 0
    stoodStillSince = nil
    unsafe self.pool = pool
    self.maximumFrame = UInt32(truncatingIfNeeded: maximumFrame)
    self.offloads = offloads
    queue.suppressInterrupts()
  }

  /// Most frames are of `pool` from now on; those with the device are counted anew.
  mutating func replacePool(_ pool: UnsafeMutablePointer<PoolState>) {
    unsafe self.pool = pool
    careful = 0
    for id in 0..<queue.layout.size {
      guard let record = unsafe shadow.slots[id] else { continue }
      if unsafe links[id] != Self.endOfChain || record.pointee.next != nil || record.pointee.pool != pool { careful += 1 }
    }
  }

  /// Every buffer goes back to its pool. Only while the device is quiet.
  mutating func releaseAll() {
    shadow.releaseAll()
    unsafe pool = nil
  }

  /// Sends a prefix of the batch with at most one notification. Returns how many were taken.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  mutating func send(_ batch: inout PacketBatch) -> Int {
    guard queue.fault == .none, let pool = unsafe pool else { return 0 }
    // Half a ring at a time: the index line is fetched from the device's core seldom.
    if free.count <= queue.ring.size >> 1 { reclaim() }
    let source = unsafe batch.fullSlots
    let have = batch.count
    var sent = 0
    while true {
      sent = unsafe postSimple(pool, source, sent, have)
      if sent < have { sent = unsafe postBare(source, sent, have) }
      // What stopped it: the end of the batch, a full ring, or a frame that takes more thought.
      guard sent < have, free.count != 0, unsafe postCarefully(source[sent]) else { break }
      sent &+= 1
    }
    batch.removePrefix(sent)
    queue.publish()
    return sent
  }

  /// Posts frames of one buffer of `pool`, from `first` on, until one is anything else or the ring
  /// is full. Returns the index of the first frame that was not posted.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always)
  private mutating func postSimple(
    _ pool: UnsafeMutablePointer<PoolState>, _ source: UnsafeMutablePointer<RawPacket>, _ first: Int, _ have: Int
  ) -> Int {
    var at = first
    // At most three runs: the list of free descriptors and the available ring end at some point.
    while at < have {
      let ids = Int(UInt32(free.head) & queue.ring.mask)
      let slot = Int(UInt32(queue.next) & queue.ring.mask)
      let run = min(min(have &- at, free.count), queue.ring.size &- max(ids, slot))
      let posted = unsafe postRun(pool, source + at, count: run, ids: free.ids + ids, slot: slot)
      free.head &+= UInt16(truncatingIfNeeded: posted)
      queue.next &+= UInt16(truncatingIfNeeded: posted)
      at &+= posted
      if posted == 0 || posted != run { break }
    }
    counters.packets &+= UInt64(truncatingIfNeeded: at &- first)
    return at
  }

  /// Posts up to `count` frames on the descriptors in `ids`, and on the available ring from `slot` on;
  /// `count` entries of both are there.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always)
  private mutating func postRun(
    _ pool: UnsafeMutablePointer<PoolState>, _ source: UnsafeMutablePointer<RawPacket>, count: Int,
    ids: UnsafeMutablePointer<UInt16>, slot: Int
  ) -> Int {
    let ring = queue.ring
    let slots = unsafe shadow.slots
    let most = maximumFrame &- UInt32(Ethernet.headerSize)
    var bytes: UInt64 = 0
    var k = 0
    while k < count {
      let record = unsafe source[k]
      let length = unsafe UInt32(record.pointee.length)
      let offset = unsafe Int(record.pointee.offset)
      guard unsafe record.pointee.next == nil, unsafe record.pointee.pool == pool, offset >= NetHeader.size,
        length &- UInt32(Ethernet.headerSize) <= most, unsafe Self.asksNothing(record)
      else { break }
      let id = unsafe UInt32(ids[k])
      // SAFETY: `offset` says that these 12 bytes of the buffer lie before the frame.
      let header = unsafe record.pointee.buffer + (offset &- NetHeader.size)
      unsafe rw_write64(header, 0)
      unsafe rw_write32(header + 8, 0)
      unsafe ring.setDescriptor(
        slot: Int(id), address: record.pointee.iova &+ UInt64(truncatingIfNeeded: offset &- NetHeader.size),
        length: length &+ UInt32(NetHeader.size))
      unsafe slots[Int(id)] = record
      ring.setAvailable(slot: slot &+ k, id: id)
      bytes &+= UInt64(length)
      k &+= 1
    }
    counters.bytes &+= bytes
    return k
  }

  /// Frees what the device has sent.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  mutating func reclaim() {
    guard queue.fault == .none, let pool = unsafe pool else { return }
    let waiting = queue.look()
    guard waiting != 0 else { return }
    // Packets of another worker's pool go back to it one by one.
    let isOwn = unsafe PoolState.isOwn(pool)
    var done = unsafe careful == 0 && inOrder && isOwn ? reclaimInOrder(pool, waiting) : 0
    if done != waiting, careful != 0, isOwn { unsafe done &+= reclaimBare(pool, waiting &- done) }
    if done != waiting { reclaimCarefully(waiting &- done) }
  }

  /// Frees frames of one descriptor and of `pool`, for as long as they come back in ring order.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always)
  private mutating func reclaimInOrder(_ pool: UnsafeMutablePointer<PoolState>, _ waiting: Int) -> Int {
    let ring = queue.ring
    var done = 0
    while done < waiting {
      let slot = Int(UInt32(free.tail) & ring.mask)
      let used = Int(UInt32(queue.taken) & ring.mask)
      let run = min(waiting &- done, ring.size &- max(slot, used))
      let freed = unsafe reclaimRun(pool, slot: slot, used: used, count: run)
      queue.taken &+= UInt16(truncatingIfNeeded: freed)
      // The numbers that go back are those that stand there.
      free.tail &+= UInt16(truncatingIfNeeded: freed)
      done &+= freed
      if freed != run { break }
    }
    return done
  }

  /// Frees up to `count` frames on neighbouring descriptors from `slot` on, for as long as the used
  /// ring names just these from `used` on.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always)
  private mutating func reclaimRun(_ pool: UnsafeMutablePointer<PoolState>, slot: Int, used: Int, count: Int) -> Int {
    let ring = queue.ring
    let slots = unsafe shadow.slots + slot
    let stack = unsafe pool.pointee.stack + pool.pointee.top
    var k = 0
    while k < count {
      guard UInt32(truncatingIfNeeded: ring.usedElement(slot: used &+ k)) == UInt32(truncatingIfNeeded: slot &+ k),
        let record = unsafe slots[k]
      else { break }
      unsafe slots[k] = nil
      unsafe stack[k] = record
      k &+= 1
    }
    unsafe pool.pointee.top &+= k
    return k
  }

  /// Frees frames of one buffer of `pool` behind a header of its own, the next ones that were sent, until one is different.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(never)
  private mutating func reclaimBare(_ pool: UnsafeMutablePointer<PoolState>, _ waiting: Int) -> Int {
    let ring = queue.ring, slots = unsafe shadow.slots, links = unsafe self.links, ids = unsafe free.ids, mask = ring.mask
    let stack = unsafe pool.pointee.stack + pool.pointee.top
    var taken = queue.taken, tail = free.tail, ordered = inOrder, done = 0
    // SAFETY: numbers are held against the ring's size; links are this queue's own. Records are on the stack or owned.
    while done < waiting {
      let id = UInt32(truncatingIfNeeded: ring.usedElement(taken))
      guard id <= mask, let record = unsafe slots[Int(id)] else { break }
      let link = unsafe links[Int(id)]
      guard link != Self.endOfChain, unsafe links[Int(link)] == Self.endOfChain, unsafe record.pointee.next == nil,
        unsafe record.pointee.pool == pool
      else { break }
      unsafe slots[Int(id)] = nil
      unsafe links[Int(id)] = Self.endOfChain
      ordered = ordered && id == UInt32(tail) & mask && UInt32(link) == UInt32(tail &+ 1) & mask
      unsafe ids[Int(UInt32(tail) & mask)] = UInt16(truncatingIfNeeded: id)
      unsafe ids[Int(UInt32(tail &+ 1) & mask)] = link
      unsafe (stack + done).initialize(to: record)
      tail &+= 2
      taken &+= 1
      done &+= 1
    }
    unsafe pool.pointee.top &+= done
    queue.taken = taken
    free.tail = tail
    inOrder = ordered
    careful &-= done
    return done
  }

  /// Frees frames of any shape, sent in any order.
  @inline(never)
  private mutating func reclaimCarefully(_ waiting: Int) {
    for _ in 0..<waiting {
      var id = UInt32(truncatingIfNeeded: queue.ring.usedElement(queue.taken))
      guard id <= queue.ring.mask, let record = unsafe shadow.slots[Int(id)] else {
        queue.fault = id <= queue.ring.mask ? .notPosted : .idOutOfRange
        return
      }
      unsafe shadow.slots[Int(id)] = nil
      queue.taken &+= 1
      var link = unsafe links[Int(id)]
      if unsafe link != Self.endOfChain || record.pointee.next != nil || record.pointee.pool != pool { careful -= 1 }
      putBack(id)
      while link != Self.endOfChain {
        unsafe links[Int(id)] = Self.endOfChain
        id = UInt32(link)
        link = unsafe links[Int(id)]
        putBack(id)
      }
      unsafe PoolState.put(record)
    }
  }

  @inline(__always)
  private mutating func putBack(_ id: UInt32) {
    if id != UInt32(free.tail) & queue.ring.mask { inOrder = false }
    free.put(id)
  }
}
