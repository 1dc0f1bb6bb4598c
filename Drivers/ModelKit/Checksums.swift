// The Internet checksum as cards compute it (RFC 1071): verified on received frames, inserted in sent
// ones, from headers that were parsed or from the three offsets of a context descriptor.

/// Sums over frames. Sums are ones' complement sums of 16-bit words, most significant byte first.
public enum FrameChecksum {
  /// The folded sum of `bytes` (an odd length is padded with a zero) plus `initial`.
  public static func sum(_ bytes: UnsafeRawBufferPointer, initial: UInt32 = 0) -> UInt16 {
    // The sum of native words, swapped at the end, is the sum of swapped words (RFC 1071, 2 (B)).
    var total: UInt64 = 0
    var at = 0
    let count = bytes.count
    // SAFETY: `at` stays below the count less the width.
    while at + 4 <= count {
      total &+= UInt64(unsafe bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self))
      at += 4
    }
    if at + 2 <= count {
      total &+= UInt64(unsafe bytes.loadUnaligned(fromByteOffset: at, as: UInt16.self))
      at += 2
    }
    if at < count { total &+= UInt64(UInt16(bigEndian: UInt16(unsafe bytes.byte(at)) << 8)) }
    return fold(UInt64(UInt16(bigEndian: fold(total))) &+ UInt64(initial))
  }

  @inline(__always) static func fold(_ total: UInt64) -> UInt16 {
    var sum = total
    while sum > 0xffff { sum = (sum & 0xffff) &+ (sum >> 16) }
    return UInt16(truncatingIfNeeded: sum)
  }

  /// The pseudo header's sum (RFC 9293 section 3.1, RFC 8200 section 8.1).
  /// - Parameter length: of the transport header and its data; bytes.
  public static func pseudoHeader(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders, length: Int) -> UInt32 {
    let at = headers.networkOffset
    let addresses =
      headers.isIPv4 ? unsafe sum(frame.piece(at + 12, 8)) : unsafe sum(frame.piece(at + 8, 32))
    return UInt32(addresses) + UInt32(headers.ipProtocol) + UInt32(truncatingIfNeeded: length & 0xffff)
      + UInt32(truncatingIfNeeded: length >> 16)
  }

  /// Whether the IPv4 header adds up; nil when there is none.
  public static func ipv4HeaderIsRight(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders) -> Bool? {
    guard headers.isIPv4 else { return nil }
    return unsafe sum(frame.piece(headers.networkOffset, headers.networkHeaderLength)) == 0xffff
  }

  /// Whether TCP's, UDP's or SCTP's checksum is right; nil when there is nothing to check: no such
  /// header, a fragment, a datagram that the frame cuts off, or UDP over IPv4 without a checksum.
  /// A zero checksum of UDP over IPv6 is wrong (RFC 8200 section 8.1).
  public static func transportIsRight(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders) -> Bool? {
    guard headers.transport != .none, !headers.isFragment, !headers.isTruncated else { return nil }
    let at = headers.transportOffset
    var length = headers.networkEnd - at
    switch headers.transport {
    case .none: return nil
    case .sctp:
      return unsafe EthernetCRC.sctp(frame.piece(at, length)) == frame.big32(at + 8).byteSwapped
    case .udp:
      if unsafe frame.big16(at + 6) == 0 { return headers.isIPv4 ? nil : false }
      let stated = Int(unsafe frame.big16(at + 4))
      guard stated >= 8, stated <= length else { return false }
      length = stated
    case .tcp: break
    }
    let seed = unsafe pseudoHeader(frame, headers, length: length)
    return unsafe sum(frame.piece(at, length), initial: seed) == 0xffff
  }

  /// Sums `start...end` and writes the complement at `field`, as a context descriptor's CSS, CSO and
  /// CSE ask (82574 datasheet, 7.2.8): what stands in the field (the pseudo header's sum) is part of it.
  /// - Parameters:
  ///   - end: the last byte to be summed, itself included; 0: the frame's last.
  ///   - zeroBecomesOnes: write 0xffff instead of 0, as UDP wants (RFC 768).
  /// - Returns: false, with nothing changed, when the offsets do not fit into the frame.
  @discardableResult public static func insert(
    _ frame: UnsafeMutableRawBufferPointer, start: Int, field: Int, end: Int = 0, zeroBecomesOnes: Bool = false
  ) -> Bool {
    let last = end == 0 ? frame.count - 1 : end
    guard start >= 0, field >= 0, last < frame.count, last >= start, field + 2 <= frame.count else { return false }
    var value = ~(unsafe sum(UnsafeRawBufferPointer(frame).piece(start, last + 1 - start)))
    if zeroBecomesOnes, value == 0 { value = 0xffff }
    unsafe frame.setBig16(value, field)
    return true
  }

  /// Writes the checksum of an IPv4 header, whatever stood there.
  /// - Returns: false when no such header lies at the offset.
  @discardableResult public static func insertIPv4Header(_ frame: UnsafeMutableRawBufferPointer, at offset: Int) -> Bool {
    let view = UnsafeRawBufferPointer(frame)
    let size = Int(unsafe view.byte(offset) & 15) * 4
    guard offset >= 0, size >= 20, offset + size <= frame.count else { return false }
    unsafe frame.setBig16(0, offset + 10)
    unsafe frame.setBig16(~sum(view.piece(offset, size)), offset + 10)
    return true
  }

  /// Writes the checksum of the TCP, UDP or SCTP header, pseudo header and all, whatever stood there.
  /// - Returns: false when there is no such header, or the frame is a fragment or cut off.
  @discardableResult public static func insertTransport(
    _ frame: UnsafeMutableRawBufferPointer, _ headers: ParsedHeaders
  ) -> Bool {
    guard headers.transport != .none, !headers.isFragment, !headers.isTruncated else { return false }
    let view = UnsafeRawBufferPointer(frame), at = headers.transportOffset, length = headers.networkEnd - at
    if headers.transport == .sctp {
      unsafe frame.setBig32(0, at + 8)
      unsafe frame.setBig32(EthernetCRC.sctp(view.piece(at, length)).byteSwapped, at + 8)
      return true
    }
    let field = at + (headers.isTCP ? 16 : 6)
    unsafe frame.setBig16(0, field)
    let seed = unsafe pseudoHeader(view, headers, length: length)
    let value = ~(unsafe sum(view.piece(at, length), initial: seed))
    unsafe frame.setBig16(headers.isUDP && value == 0 ? 0xffff : value, field)
    return true
  }
}
