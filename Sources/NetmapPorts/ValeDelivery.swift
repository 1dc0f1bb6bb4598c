// From lists to queues: one lease a destination and batch, copies without a lock.

internal import CRingway
internal import NetmapCore

/// Where a list of frames goes.
struct ValeRoute {
  let queue: ValeQueue
  /// Bytes of the virtio-net header that the destination has before each frame.
  let header: Int
  var bufferSize: Int { queue.bufferSize }
}

extension ValeSource {
  /// Copies the frames of two lists, in the order in which they came, into a destination's ring. What finds no room is
  /// dropped.
  /// - Parameters:
  ///   - header: bytes of the virtio-net header before each frame here.
  func deliver(_ only: FrameList, _ everybody: FrameList, header: Int, to route: ValeRoute) {
    let queue = route.queue
    let isPlain = header == route.header && route.bufferSize >= bufferSize
    let wanted = isPlain ? only.slots &+ everybody.slots : slots(only, everybody, within: .max, header: header, route)
    let lease = queue.reserve(wanted) { space in
      slots(only, everybody, within: space, header: isPlain ? nil : header, route)
    }
    var (one, all) = (only.head, everybody.head), counted = ValeCounters()
    if lease.count > 0 {
      if isPlain {
        fill(lease, &one, &all, queue, ValeOffsets(queue.kring), &counted)
      } else {
        convert(lease, &one, &all, header: header, route, &counted)
      }
    }
    while let _ = pick(&one, &all) { counted.drops &+= 1 }
    if queue.complete(lease, counted) || lease.count < wanted { queue.notify() }
  }

  /// The next frame of two lists: notes are numbered as the frames came.
  @inline(__always) private func pick(_ one: inout UInt16, _ all: inout UInt16) -> Int? {
    guard min(one, all) != Self.none else { return nil }
    // SAFETY: lists hold numbers of notes.
    if one < all {
      defer { unsafe one = notes[Int(one)].next }
      return Int(one)
    }
    defer { unsafe all = notes[Int(all)].next }
    return Int(all)
  }

  /// Slots of the frames that fit into `limit`, in order, up to the first that does not.
  /// - Parameter header: nil when frames take as many slots as here.
  private func slots(
    _ only: FrameList, _ everybody: FrameList, within limit: UInt32, header: Int?, _ route: ValeRoute
  ) -> UInt32 {
    var (one, all) = (only.head, everybody.head), total: UInt32 = 0
    while let k = pick(&one, &all) {
      let needed = unsafe UInt32(header.map { slotsNeeded(k, header: $0, route) } ?? Int(notes[k].fragments))
      guard total &+ needed <= limit else { break }
      total &+= needed
    }
    return total
  }

  /// Fills the slots of a lease with frames as they are. The lease is exactly the slots of the frames that fit.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  private func fill(
    _ lease: ValeQueue.Lease, _ one: inout UInt16, _ all: inout UInt16, _ queue: ValeQueue, _ offsets: ValeOffsets,
    _ counted: inout ValeCounters
  ) {
    let slots = unsafe queue.slots, base = unsafe queue.base, size = queue.bufferSize, count = queue.count
    let ledger = queue.ledger, holder = queue.holder, notes = unsafe self.notes
    var j = lease.start, left = Int(lease.count), packets: UInt64 = 0, bytes: UInt64 = 0, bad: UInt64 = 0
    if !offsets.isUsed, max(one, all) == Self.none {
      let done = one == Self.none ? fillSingles(lease, &all, queue, &bytes) : fillSingles(lease, &one, queue, &bytes)
      left &-= Int(done)
      packets &+= UInt64(done)
      j = done < count &- j ? j &+ done : j &+ done &- count
    }
    // SAFETY: `j` is below the count of slots; notes as in `pick`; a fragment's length is held against the
    // buffer's size; an index that is held is below the count of buffers.
    while left > 0, let k = pick(&one, &all) {
      let fragments = unsafe Int(notes[k].fragments)
      var f = 0
      repeat {
        let note = unsafe notes[k &+ f], slot = unsafe slots + Int(j) &* RingOffset.slotSize
        let index = unsafe rw_read32(slot)
        f &+= 1
        let more = f < fragments ? UInt64(SlotFlags.moreFragments.rawValue) &<< 48 : 0
        var word = more | UInt64(truncatingIfNeeded: fragments) &<< 56
        let offset = unsafe offsets.isUsed ? offsets.offset(rw_read64(slot + 8)) : 0
        if ledger.isHeld(index, by: holder), Int(note.length) <= size &- offset,
          let from = unsafe UnsafeRawPointer(bitPattern: note.address)
        {
          unsafe copyFrame(from, to: base + (Int(index) &* size &+ offset), Int(note.length))
          word |= UInt64(index) | UInt64(note.length) &<< 32
          bytes &+= UInt64(note.length)
        } else {
          bad &+= 1
        }
        unsafe rw_write64(slot, word)
        j = j &+ 1 == count ? 0 : j &+ 1
      } while f < fragments
      left &-= fragments
      packets &+= 1
    }
    counted.packets &+= packets
    counted.bytes &+= bytes
    counted.badIndexes &+= bad
  }

  /// As `fill`, for the frames at the front of one list that have a slot each and meet nothing unusual: nearly all, nearly
  /// always. Apart from it, so that its few variables stay in registers.
  /// - Returns: slots filled.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(never) private func fillSingles(
    _ lease: ValeQueue.Lease, _ head: inout UInt16, _ queue: ValeQueue, _ bytes: inout UInt64
  ) -> UInt32 {
    let slots = unsafe queue.slots, base = unsafe queue.base, size = queue.bufferSize, count = queue.count
    let ledger = queue.ledger, holder = queue.holder, notes = unsafe self.notes
    var k = head, j = lease.start, left = lease.count, total: UInt64 = 0
    // SAFETY: as in `fill`.
    while left > 0, k != Self.none {
      let note = unsafe notes[Int(k)], slot = unsafe slots + Int(j) &* RingOffset.slotSize
      let index = unsafe rw_read32(slot), length = Int(note.length)
      guard note.fragments == 1, ledger.isHeld(index, by: holder), length <= size,
        let from = unsafe UnsafeRawPointer(bitPattern: note.address)
      else { break }
      let to = unsafe base + Int(index) &* size
      if length &- 32 <= 32, length >= 32 {
        unsafe rw_copy(to, from, 32)
        unsafe rw_copy(to + (length &- 32), from + (length &- 32), 32)
      } else {
        unsafe copyOther(from, to: to, length)
      }
      unsafe rw_write64(slot, UInt64(index) | UInt64(note.length) &<< 32 | 1 &<< 56)
      total &+= UInt64(note.length)
      k = note.next
      j = j &+ 1 == count ? 0 : j &+ 1
      left &-= 1
    }
    head = k
    bytes &+= total
    return lease.count &- left
  }

  // MARK: Between ports that differ

  /// Fills the slots of a lease with frames whose header changes its size, or whose buffers are smaller there.
  private func convert(
    _ lease: ValeQueue.Lease, _ one: inout UInt16, _ all: inout UInt16, header: Int, _ route: ValeRoute,
    _ counted: inout ValeCounters
  ) {
    var j = lease.start, left = Int(lease.count)
    while left > 0, let k = pick(&one, &all) {
      let needed = slotsNeeded(k, header: header, route)
      guard needed > 0 else {
        counted.drops &+= 1
        continue
      }
      convert(frame: k, slots: needed, &j, header: header, route, &counted)
      left -= needed
      counted.packets &+= 1
    }
  }

  private func convert(
    frame k: Int, slots needed: Int, _ j: inout UInt32, header: Int, _ route: ValeRoute, _ counted: inout ValeCounters
  ) {
    let queue = route.queue, head = unsafe notes[k], fragments = Int(head.fragments), skipped = fragments - needed
    var parts: [UnsafeMutableRawBufferPointer] = unsafe []
    for f in skipped..<fragments {
      let note = unsafe notes[k + f], slot = unsafe queue.slots + Int(j) * RingOffset.slotSize
      let index = unsafe rw_read32(slot)
      let more = f + 1 < fragments ? UInt64(SlotFlags.moreFragments.rawValue) &<< 48 : 0
      var word = more | UInt64(needed) &<< 56
      let offset = unsafe ValeOffsets(queue.kring).offset(rw_read64(slot + 8))
      let (cut, put) = f == 0 ? (header, route.header) : (0, 0), body = Int(note.length) - cut
      // A header is written with 12 bytes, whatever its length.
      if queue.ledger.isHeld(index, by: queue.holder), max(body + put, put > 0 ? 12 : 0) <= queue.bufferSize - offset,
        let from = unsafe UnsafeRawPointer(bitPattern: note.address)
      {
        // SAFETY: the index is of a buffer; the length has just been held against the buffer's size.
        let to = unsafe queue.base + (Int(index) * queue.bufferSize + offset)
        if f == 0 { unsafe writeHeader(note, header: header, route, to: to) }
        unsafe copyFrame(from + cut, to: to + put, body)
        unsafe parts.append(UnsafeMutableRawBufferPointer(start: to + put, count: body))
        word |= UInt64(index) | UInt64(body + put) &<< 32
        counted.bytes &+= UInt64(body + put)
      } else {
        counted.badIndexes &+= 1
      }
      unsafe rw_write64(slot, word)
      j = queue.kring.next(j)
    }
    if route.header == 0, header > 0, head.marks & ValeNote.wantsChecksum != 0, unsafe parts.count == needed {
      unsafe fillChecksum(head, header: header, parts: parts)
    }
  }
}

/// Copies exactly `n` bytes: nothing of the sender's buffer but the frame leaves its region.
@inline(__always) func copyFrame(_ from: UnsafeRawPointer, to: UnsafeMutableRawPointer, _ n: Int) {
  // SAFETY: of the copies here: all lie in the first `n` bytes; the last ones overlap what was copied before.
  if n > 256 { return unsafe rw_copy(to, from, n) }
  if n >= 64 {
    var at = 0
    while at &+ 64 <= n {
      unsafe rw_copy(to + at, from + at, 64)
      at &+= 64
    }
    if at < n { unsafe rw_copy(to + (n &- 64), from + (n &- 64), 64) }
  } else if n >= 32 {
    unsafe rw_copy(to, from, 32)
    unsafe rw_copy(to + (n &- 32), from + (n &- 32), 32)
  } else {
    unsafe rw_copy(to, from, n)
  }
}

/// The same, out of line.
@inline(never) private func copyOther(_ from: UnsafeRawPointer, to: UnsafeMutableRawPointer, _ n: Int) {
  unsafe copyFrame(from, to: to, n)
}
