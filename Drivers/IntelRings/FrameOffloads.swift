// What a frame needs beyond one plain descriptor: its shape, the context that describes its headers
// to the card, and the few bytes the driver writes into frames.

import Packet

/// What a frame is made of, counted over its buffers.
struct FrameShape {
  /// Buffers that hold bytes.
  var segments = 0
  var bytes = 0
  /// Bytes of the longest of them.
  var longest = 0

  /// The shortest frame the payload field allows (82576 datasheet, 7.2.2.3), in bytes.
  static let shortest = 17

  /// nil for an empty frame.
  init?(_ frame: RawPacket) {
    var at: RawPacket? = unsafe frame
    // A chain longer than any ring is not followed to its end.
    while let record = unsafe at, segments <= 4096 {
      let length = unsafe Int(record.pointee.length)
      bytes &+= length
      if length > 0 { segments &+= 1 }
      longest = max(longest, length)
      unsafe at = record.pointee.next
    }
    if bytes == 0 { return nil }
  }
}

/// A context descriptor without its slot's number, and what the data descriptors say with it.
struct TransmitContext: BitwiseCopyable {
  var low: UInt64 = 0
  var high: UInt64 = 0

  @inline(__always) func isSame(_ other: TransmitContext) -> Bool { low == other.low && high == other.high }
}

/// How a frame is to be sent.
struct FramePlan {
  var context: TransmitContext?
  /// Bits of the data descriptors' second word: VLAN, segmentation, checksums.
  var options: UInt64 = 0
  /// Bytes for the payload field: the whole frame, or what is cut into segments.
  var payload: Int

  /// nil when the frame asks for what cannot be done: checksums or segmentation without usable
  /// headers in its first buffer, or segments longer than the port allows.
  /// - Parameters:
  ///   - insertsTag: the card inserts the VLAN tag. Otherwise the driver writes it into the frame
  ///     before the card sees it.
  init?(_ frame: RawPacket, _ shape: FrameShape, maximumFrame: Int, insertsTag: Bool) {
    let flags = unsafe frame.pointee.flags, lengths = unsafe frame.pointee.headerLengths
    let isTagged = flags.contains(.vlan), written = isTagged && !insertsTag ? 4 : 0
    let ip = flags.contains(.ipChecksum), tcp = flags.contains(.tcpChecksum), udp = flags.contains(.udpChecksum)
    let isCut = flags.contains(.segmentation)
    payload = max(shape.bytes, FrameShape.shortest) &+ written
    var link = Int(lengths & 0x7f) &+ written, network = Int(lengths >> 7)
    let transport = unsafe isCut ? Int(frame.pointee.hash >> 16 & 0xff) : tcp ? 20 : udp ? 8 : 0
    let first = unsafe Int(frame.pointee.length) &+ written
    // Headers lie in the first buffer, and no field overflows.
    let headersFit =
      lengths != 0 && link >= 14 && link < 128 && network >= 20 && link &+ network &+ transport <= first
      && (ip || tcp || udp)
    if isCut {
      let size = unsafe Int(frame.pointee.hash & 0xffff), headers = link &+ network &+ transport
      guard headersFit, tcp, !udp, transport >= 20, transport <= 60, size > 0, headers < shape.bytes &+ written,
        headers &+ size <= maximumFrame, payload &- headers <= TransmitWord.largestPayload
      else { return nil }
      payload &-= headers
    } else if shape.bytes > maximumFrame {
      return nil
    }
    let tag = unsafe isTagged && insertsTag ? UInt64(frame.pointee.vlan) << 16 : 0
    if isTagged && insertsTag { options |= TransmitWord.insertVLAN }
    // Never half of what was asked for: a checksum that is wanted and not inserted is damage.
    if lengths != 0, ip || tcp || udp, !headersFit { return nil }
    guard headersFit || options != 0 else { return }
    if !headersFit {
      link = 14
      network = 0
    }
    let header = UInt64(network) | UInt64(link) << 9 | tag
    var command = TransmitWord.extended | TransmitWord.contextType
    if headersFit {
      if ip {
        options |= TransmitWord.ipOption
        command |= TransmitWord.ipv4
      }
      if tcp || udp { options |= TransmitWord.layer4Option }
      if tcp { command |= TransmitWord.tcp }
    }
    if isCut {
      options |= TransmitWord.segment
      command |= unsafe UInt64(transport) << 40 | UInt64(frame.pointee.hash & 0xffff) << 48
    }
    context = TransmitContext(low: header, high: command)
  }
}

/// Bytes the driver writes into frames that are about to be sent.
enum FrameBytes {
  /// Zeroes behind a very short frame. False when it has several buffers.
  static func pad(_ frame: RawPacket, to length: Int) -> Bool {
    guard unsafe frame.pointee.next == nil else { return false }
    let start = unsafe Int(frame.pointee.offset), have = unsafe Int(frame.pointee.length)
    guard unsafe start + length <= frame.pointee.pool.pointee.bufferSize else { return false }
    var i = have
    while i < length {
      unsafe frame.pointee.buffer.storeBytes(of: 0, toByteOffset: start + i, as: UInt8.self)
      i &+= 1
    }
    unsafe frame.pointee.setSingle(length: UInt16(truncatingIfNeeded: length), offset: UInt16(truncatingIfNeeded: start))
    return true
  }

  /// The IPv4 header's checksum field is zero when the card computes it (82576 datasheet, 7.2.2.3).
  /// The plan made sure that the header lies in the first buffer.
  static func clearChecksum(_ frame: RawPacket) {
    let at = unsafe Int(frame.pointee.offset) &+ Int(frame.pointee.headerLengths & 0x7f) &+ 10
    // SAFETY: link + network lengths were held against the first buffer's; network is 20 or more.
    unsafe frame.pointee.buffer.storeBytes(of: 0, toByteOffset: at, as: UInt8.self)
    unsafe frame.pointee.buffer.storeBytes(of: 0, toByteOffset: at &+ 1, as: UInt8.self)
  }

  /// Writes the tag into the frame behind the two addresses, moving what follows by four bytes
  /// (or the addresses, when there is room before them). False when the buffer has no room.
  static func insertTag(_ frame: RawPacket) -> Bool {
    let start = unsafe Int(frame.pointee.offset), length = unsafe Int(frame.pointee.length)
    guard length >= 12, length + 4 <= Int(UInt16.max) else { return false }
    let bytes = unsafe frame.pointee.buffer + start
    let tag = unsafe frame.pointee.vlan
    var to = unsafe bytes
    if start >= 4 {
      unsafe to = bytes - 4
      var i = 0
      while i < 12 {
        unsafe to.storeBytes(of: bytes.load(fromByteOffset: i, as: UInt8.self), toByteOffset: i, as: UInt8.self)
        i &+= 1
      }
      unsafe frame.pointee.offset = UInt16(start - 4)
    } else {
      guard unsafe start + length + 4 <= frame.pointee.pool.pointee.bufferSize else { return false }
      var i = length &- 1
      while i >= 12 {
        unsafe bytes.storeBytes(of: bytes.load(fromByteOffset: i, as: UInt8.self), toByteOffset: i &+ 4, as: UInt8.self)
        i &-= 1
      }
    }
    unsafe (to + 12).storeBytes(of: 0x81, as: UInt8.self)
    unsafe (to + 13).storeBytes(of: 0, as: UInt8.self)
    unsafe (to + 14).storeBytes(of: UInt8(tag >> 8), as: UInt8.self)
    unsafe (to + 15).storeBytes(of: UInt8(truncatingIfNeeded: tag), as: UInt8.self)
    unsafe frame.pointee.length &+= 4
    unsafe frame.pointee.frameLength &+= 4
    unsafe frame.pointee.flags.remove(.vlan)
    return true
  }
}
