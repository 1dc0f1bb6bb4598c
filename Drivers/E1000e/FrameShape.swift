// What a frame needs beyond one plain descriptor, and the few bytes the driver writes into frames.

import Packet

/// What a frame is made of, counted over its buffers.
struct FrameShape {
  /// Buffers that hold bytes.
  var segments = 0
  var bytes = 0

  /// nil for an empty frame.
  init?(_ frame: RawPacket) {
    var at: RawPacket? = unsafe frame
    // A chain longer than any ring is not followed to its end.
    while let record = unsafe at, segments <= 4096 {
      let length = unsafe Int(record.pointee.length)
      bytes &+= length
      if length > 0 { segments &+= 1 }
      unsafe at = record.pointee.next
    }
    if bytes == 0 { return nil }
  }

  /// The context descriptor a frame needs, when it asks for checksums and says where its headers are.
  /// - Parameter inserted: bytes that go into the link header before the card sees the frame.
  func checksumContext(_ frame: RawPacket, inserted: Int) -> (low: UInt64, high: UInt64, options: UInt64)? {
    let lengths = unsafe frame.pointee.headerLengths, flags = unsafe frame.pointee.flags
    let ip = flags.contains(.ipChecksum), tcp = flags.contains(.tcpChecksum), udp = flags.contains(.udpChecksum)
    guard lengths != 0, ip || tcp || udp else { return nil }
    let link = Int(lengths & 0x7f) &+ inserted, network = Int(lengths >> 7)
    // The card's offset fields are a byte each, and a header beyond the frame would be nonsense.
    let end = link &+ network &+ (tcp ? 18 : udp ? 8 : 0)
    guard network >= 20, end <= 255, end <= bytes &+ inserted else { return nil }
    let words = TransmitCommand.context(link: link, network: network, ip: ip, tcp: tcp)
    let options = (ip ? TransmitCommand.ipOption : 0) | (tcp || udp ? TransmitCommand.layer4Option : 0)
    return (words.0, words.1, options)
  }

  /// Zeroes behind a very short frame. False when it has several buffers.
  static func pad(_ frame: RawPacket, to length: Int) -> Bool {
    guard unsafe frame.pointee.next == nil else { return false }
    let start = unsafe Int(frame.pointee.offset), have = unsafe Int(frame.pointee.length)
    guard unsafe start + length <= frame.pointee.pool.pointee.bufferSize else { return false }
    for i in have..<length { unsafe frame.pointee.buffer.storeBytes(of: 0, toByteOffset: start + i, as: UInt8.self) }
    unsafe frame.pointee.setSingle(length: UInt16(length), offset: UInt16(start))
    return true
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
    unsafe frame.pointee.length += 4
    unsafe frame.pointee.frameLength += 4
    unsafe frame.pointee.flags.remove(.vlan)
    return true
  }
}
