// What the device is asked to do with a sent frame: its 12-byte header (virtio 1.2, clause 5.1.6.2).
//
// The caller has put the pseudo header's sum into the checksum field, as for any card. virtio counts
// the length in for segmentation too, where others leave it out; and it has no offload for the IPv4
// header's checksum, which is summed here: 20 bytes, at most 60.
//
// GUEST_CSUM is not asked for: a device that has it hands frames over whose checksums are not
// finished, and programs that forward or capture see wire frames.

import CRingway
import DriverKit
import Packet
import VirtioTransport
import Wire

/// The header before a sent frame: 12 bytes as two words, least significant byte first.
struct TransmitHeader {
  var low: UInt64 = 0
  var high: UInt32 = 0

  /// flags, gso_type, hdr_len, gso_size, csum_start; csum_offset, num_buffers.
  init() {}
  init(segmentType: UInt8, headers: Int, segment: Int, start: Int, offset: Int) {
    // VIRTIO_NET_HDR_F_NEEDS_CSUM.
    let kind = 1 | UInt64(segmentType) << 8 | UInt64(headers & 0xffff) << 16
    low = kind | UInt64(segment & 0xffff) << 32 | UInt64(start & 0xffff) << 48
    high = UInt32(offset & 0xffff)
  }

  var isPlain: Bool { low == 0 }
}

/// Which of the offloads were agreed on.
struct TransmitOffloads {
  var checksum = false
  var segmentation4 = false
  var segmentation6 = false

  init() {}
  init(_ features: VirtioFeatures) {
    checksum = features.contains(.checksum)
    segmentation4 = checksum && features.contains(.hostTSO4)
    segmentation6 = checksum && features.contains(.hostTSO6)
  }

  /// Flags that make a frame more than plain.
  static var flags: PacketFlags {
    // An array literal would be an allocation on the packet path.
    PacketFlags(
      rawValue: PacketFlags.ipChecksum.rawValue | PacketFlags.tcpChecksum.rawValue | PacketFlags.udpChecksum.rawValue
        | PacketFlags.segmentation.rawValue)
  }
  /// Longest frame that a device cuts: a whole datagram (65,535 bytes) and its link header.
  static var largestFrame: UInt32 { 65535 + 127 }

  /// The header for a frame, whose checksum fields are made ready.
  /// - Parameter shift: bytes that will be inserted into the link header.
  /// - Returns: nil when the frame asks for what cannot be done: an offload that was not agreed on,
  ///   headers that do not lie in its first buffer, or segments without data.
  func header(for record: RawPacket, shift: Int) -> TransmitHeader? {
    let flags = unsafe record.pointee.flags
    let lengths = unsafe record.pointee.headerLengths
    // A received frame that is passed on: its flags are what was found, not what is wanted.
    guard flags.rawValue & Self.flags.rawValue != 0, lengths != 0 else { return TransmitHeader() }
    let link = Int(lengths & 0x7f), network = Int(lengths >> 7)
    let isCut = flags.contains(.segmentation), isTCP = isCut || flags.contains(.tcpChecksum)
    // SAFETY: `Bytes` checks every offset against the first buffer's length.
    let bytes = unsafe Bytes(
      start: record.pointee.buffer + Int(record.pointee.offset), count: Int(record.pointee.length))
    let start = link + network
    guard link >= Ethernet.headerSize, network >= 20, start + (isTCP ? 20 : 0) <= bytes.count else { return nil }
    let isVersion4 = bytes[link] >> 4 == 4
    if flags.contains(.ipChecksum) {
      guard isVersion4 else { return nil }
      bytes.set16(0, link + 10)
      bytes.set16(~bytes.sum(link, network), link + 10)
    }
    guard isTCP || flags.contains(.udpChecksum) else { return TransmitHeader() }
    let offset = isTCP ? 16 : 6
    guard checksum, start + offset + 2 <= bytes.count else { return nil }
    guard isCut else {
      return TransmitHeader(segmentType: 0, headers: 0, segment: 0, start: start + shift, offset: offset)
    }
    let wish = unsafe record.pointee.hash
    let size = Int(wish & 0xffff), transport = Int(wish >> 16 & 0xff)
    let total = unsafe Int(record.pointee.frameLength)
    guard isVersion4 ? segmentation4 : segmentation6, size > 0, transport >= 20, start + transport <= total else {
      return nil
    }
    bytes.add16(UInt16(truncatingIfNeeded: total - start), start + offset)
    // VIRTIO_NET_HDR_GSO_TCPV4, TCPV6.
    return TransmitHeader(
      segmentType: isVersion4 ? 1 : 4, headers: start + transport + shift, segment: size, start: start + shift,
      offset: offset)
  }

  /// The first buffer's bytes, in network order. Outside is zero, or nothing.
  @safe private struct Bytes {
    let start: UnsafeMutableRawPointer
    let count: Int
    init(start: UnsafeMutableRawPointer, count: Int) {
      unsafe self.start = start
      self.count = count
    }
    subscript(_ at: Int) -> UInt8 { at < count ? unsafe rw_read8(start + at) : 0 }
    func get16(_ at: Int) -> UInt32 { UInt32(self[at]) << 8 | UInt32(self[at + 1]) }
    func set16(_ value: UInt16, _ at: Int) {
      guard at + 2 <= count else { return }
      unsafe rw_write8(start + at, UInt8(value >> 8))
      unsafe rw_write8(start + at + 1, UInt8(truncatingIfNeeded: value))
    }
    /// The folded ones' complement sum (RFC 1071) of `count` bytes, an even number.
    func sum(_ from: Int, _ count: Int) -> UInt16 {
      var total: UInt32 = 0
      var at = from
      while at < from + count {
        total &+= get16(at)
        at += 2
      }
      return Self.fold(total)
    }
    /// Adds to a field in ones' complement.
    func add16(_ value: UInt16, _ at: Int) { set16(Self.fold(get16(at) &+ UInt32(value)), at) }
    static func fold(_ total: UInt32) -> UInt16 {
      let once = (total & 0xffff) &+ total >> 16
      return UInt16(truncatingIfNeeded: (once & 0xffff) &+ once >> 16)
    }
  }
}
