// Headers at the front of packets: room for them, and all of them in the first buffer.

internal import Netisr
public import Packet
internal import Wire

extension Packet {
  /// The frame's first byte; `firstCount` bytes are there.
  @inlinable @inline(__always) public var start: UnsafeMutableRawPointer {
    unsafe record.pointee.buffer + Int(record.pointee.offset)
  }

  /// Takes a VLAN tag out of a frame that has one in its first 18 bytes.
  @inlinable public func removeTag() {
    guard firstCount >= 18 else { return }
    let frame = unsafe start
    // Source first: the two overlap.
    let (target, source) = unsafe (
      frame.loadUnaligned(fromByteOffset: 0, as: UInt64.self), frame.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
    )
    unsafe frame.storeBytes(of: source, toByteOffset: 12, as: UInt32.self)
    unsafe frame.storeBytes(of: target, toByteOffset: 4, as: UInt64.self)
    removeFirst(4)
  }

  /// Sees to it that the first buffer holds `count` bytes, taking them from those behind it.
  /// - Returns: false when the frame has fewer, or the first buffer no room; the frame is as it was then.
  @inlinable @inline(__always) public func pullUp(_ count: Int) -> Bool {
    firstCount >= count || pullUpFromNext(count)
  }

  @usableFromInline @inline(never) func pullUpFromNext(_ count: Int) -> Bool {
    guard count <= self.count, count - firstCount <= tailroom, count <= Int(UInt16.max) else { return false }
    let first = unsafe record
    while firstCount < count, let next = unsafe first.pointee.next {
      let n = unsafe min(count - firstCount, Int(next.pointee.length))
      // SAFETY: tailroom was checked above; the record's lengths stay inside its buffer.
      unsafe (start + firstCount).copyMemory(from: next.pointee.buffer + Int(next.pointee.offset), byteCount: n)
      unsafe first.pointee.length += UInt16(truncatingIfNeeded: n)
      unsafe next.pointee.length -= UInt16(truncatingIfNeeded: n)
      unsafe next.pointee.offset += UInt16(truncatingIfNeeded: n)
      if unsafe next.pointee.length == 0 {
        unsafe first.pointee.next = next.pointee.next
        unsafe next.pointee.next = nil
        unsafe PoolState.put(next)
      }
    }
    return firstCount >= count
  }

  /// Puts `count` bytes in front, in a buffer of the worker's pool where the first one has no room.
  /// - Parameter contiguous: bytes behind them that must lie in the same buffer.
  /// - Returns: nil when there is no buffer; the packet is gone then.
  @inlinable @inline(__always) public consuming func withHeadroom(_ count: Int, contiguous: Int = 0) -> Packet? {
    if prepend(count) { return self }
    return withFrontBuffer(count, contiguous)
  }

  @usableFromInline @inline(never) consuming func withFrontBuffer(_ count: Int, _ contiguous: Int) -> Packet? {
    guard let front = Worker.current?.allocate(), front.reserveHeadroom(64), front.extend(count) else { return nil }
    let (new, old) = unsafe (front.record, record)
    unsafe new.pointee.flags = old.pointee.flags
    unsafe new.pointee.headerLengths = old.pointee.headerLengths
    unsafe new.pointee.hash = old.pointee.hash
    unsafe new.pointee.vlan = old.pointee.vlan
    unsafe new.pointee.interface = old.pointee.interface
    unsafe new.pointee.generation = old.pointee.generation
    unsafe new.pointee.timestamp = old.pointee.timestamp
    front.append(self)
    guard front.pullUp(count + contiguous) else { return nil }
    return front
  }

  /// The folded sum of `count` bytes from `offset` on, over all buffers, plus `initial` (RFC 1071).
  public func checksum(from offset: Int, count: Int, initial: UInt16 = 0) -> UInt16 {
    var (skip, left, odd) = (offset, count, false)
    var total = UInt64(initial)
    var at: RawPacket? = unsafe record
    while left > 0, let segment = unsafe at {
      let length = unsafe Int(segment.pointee.length)
      if skip >= length {
        skip -= length
      } else {
        let n = min(left, length - skip)
        // SAFETY: skip + n is at most the segment's length.
        let part = unsafe InternetChecksum.sum(
          unsafe: segment.pointee.buffer + Int(segment.pointee.offset) + skip, count: n)
        // A part that begins at an odd place counts with its octets swapped.
        total &+= UInt64(odd ? part.byteSwapped : part)
        if n & 1 != 0 { odd.toggle() }
        left -= n
        skip = 0
      }
      unsafe at = segment.pointee.next
    }
    return InternetChecksum.fold(total)
  }
}

extension Packet {
  /// Copies `count` bytes of the frame from `offset` on, out of all its buffers.
  /// - Returns: false when the frame has fewer; what is at `target` is not to be used then.
  public func copyBytes(from offset: Int, count: Int, to target: UnsafeMutableRawPointer) -> Bool {
    guard offset >= 0, count >= 0, offset + count <= self.count else { return false }
    var (skip, done) = (offset, 0)
    var at: RawPacket? = unsafe record
    while done < count, let segment = unsafe at {
      let length = unsafe Int(segment.pointee.length)
      if skip >= length {
        skip -= length
      } else {
        let n = min(count - done, length - skip)
        unsafe (target + done).copyMemory(from: segment.pointee.buffer + Int(segment.pointee.offset) + skip, byteCount: n)
        done += n
        skip = 0
      }
      unsafe at = segment.pointee.next
    }
    return done == count
  }
}
