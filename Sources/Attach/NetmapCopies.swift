// Between a program's buffers and the stack's: always a copy, because a program may write to its
// own buffers at any time.

internal import NetmapCore
internal import Packet

/// Packets of the stack with the bytes of something else.
enum StackCopy {
  /// A copy of a packet, with what the card said of it, over as many buffers as it needs.
  static func make(of packet: borrowing Packet, from pool: PacketPool) -> Packet? {
    guard let copy = empty(packet.count, from: pool) else { return nil }
    var at: RawPacket? = unsafe packet.record, offset = 0
    while let record = unsafe at {
      let length = unsafe Int(record.pointee.length)
      // SAFETY: drivers keep offset + length inside the buffer.
      unsafe write(
        UnsafeRawBufferPointer(start: record.pointee.buffer + Int(record.pointee.offset), count: length), to: copy, at: offset)
      offset += length
      unsafe at = record.pointee.next
    }
    copy.flags = packet.flags
    copy.vlan = packet.vlan
    copy.hash = packet.hash
    copy.timestamp = packet.timestamp
    return copy
  }

  /// A packet with these bytes; nil when the pool is empty.
  static func make(of bytes: UnsafeRawBufferPointer, from pool: PacketPool) -> Packet? {
    guard let copy = empty(bytes.count, from: pool) else { return nil }
    unsafe write(bytes, to: copy, at: 0)
    return copy
  }

  /// A packet of `count` bytes, contents as they are.
  private static func empty(_ count: Int, from pool: PacketPool) -> Packet? {
    guard let head = pool.allocate() else { return nil }
    // Room in front for headers, where the frame leaves it.
    let room = head.bufferCapacity, front = count + headroom <= room ? headroom : 0
    guard head.reserveHeadroom(front), head.extend(min(count, room - front)) else { return nil }
    var left = count - head.count
    while left > 0 {
      guard let next = pool.allocate(), next.extend(min(left, room)) else { return nil }
      left -= next.count
      head.append(next)
    }
    return head
  }

  private static let headroom = 64

  private static func write(_ bytes: UnsafeRawBufferPointer, to packet: borrowing Packet, at offset: Int) {
    var at: RawPacket? = unsafe packet.record, skip = offset, done = 0
    while let record = unsafe at, done < bytes.count {
      let length = unsafe Int(record.pointee.length)
      unsafe at = record.pointee.next
      guard skip < length else {
        skip -= length
        continue
      }
      let n = min(length - skip, bytes.count - done)
      if let source = bytes.baseAddress {
        // SAFETY: skip + n is inside the segment, done + n inside the bytes.
        unsafe (record.pointee.buffer + Int(record.pointee.offset) + skip).copyMemory(from: source + done, byteCount: n)
      }
      done += n
      skip = 0
    }
  }
}

/// Puts a VLAN tag that a card took out back into the frame.
enum TagInsertion {
  /// - Returns: false, with nothing changed, when the first buffer has no room for four bytes or
  ///   holds no addresses.
  static func insert(_ frame: RawPacket, bufferSize: Int) -> Bool {
    let offset = unsafe Int(frame.pointee.offset), length = unsafe Int(frame.pointee.length)
    guard length >= 12 else { return false }
    let start = unsafe frame.pointee.buffer + offset
    if offset >= 4 {
      // SAFETY: four bytes lie in front of the frame, in its buffer.
      unsafe (start - 4).copyMemory(from: start, byteCount: 12)
      unsafe frame.pointee.offset -= 4
    } else {
      guard offset + length + 4 <= bufferSize, length + 4 <= Int(UInt16.max) else { return false }
      unsafe (start + 16).copyMemory(from: start + 12, byteCount: length - 12)
    }
    let tag = unsafe frame.pointee.buffer + Int(frame.pointee.offset) + 12, vlan = unsafe frame.pointee.vlan
    unsafe tag.storeBytes(of: UInt16(0x8100).bigEndian, as: UInt16.self)
    unsafe (tag + 2).storeBytes(of: vlan.bigEndian, as: UInt16.self)
    unsafe frame.pointee.length += 4
    unsafe frame.pointee.frameLength += 4
    unsafe frame.pointee.flags.remove(.vlan)
    return true
  }
}
