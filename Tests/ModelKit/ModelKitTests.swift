// Frames made by hand, with every sum computed by other means than the module's.

import ModelKit
import Testing

/// `#expect` cannot see into expressions with unsafe parts.
func check(_ condition: Bool, _ comment: Comment? = nil, at location: SourceLocation = #_sourceLocation) {
  #expect(condition, comment, sourceLocation: location)
}

/// Bytes from "00 11 22 ..." with any white space.
func hex(_ text: String) -> [UInt8] {
  let digits = text.filter { !$0.isWhitespace }
  return stride(from: 0, to: digits.count, by: 2).map { at in
    let from = digits.index(digits.startIndex, offsetBy: at)
    return UInt8(digits[from...digits.index(after: from)], radix: 16)!
  }
}

/// The checksum by the letter of RFC 1071: 16 bits at a time, carry folded in at once.
func plainSum(_ bytes: [UInt8]) -> UInt16 {
  var sum: UInt32 = 0
  for at in stride(from: 0, to: bytes.count, by: 2) {
    sum += UInt32(bytes[at]) * 256 + (at + 1 < bytes.count ? UInt32(bytes[at + 1]) : 0)
    if sum > 0xffff { sum -= 0xffff }
  }
  return UInt16(sum)
}

func parse(_ frame: [UInt8]) -> ParsedHeaders { unsafe frame.withUnsafeBytes { unsafe ParsedHeaders($0) } }

enum Sample {
  static let ethernet4 = hex("02 00 00 00 00 02  02 00 00 00 00 01  08 00")
  static let ethernet6 = hex("02 00 00 00 00 02  02 00 00 00 00 01  86 dd")
  /// The textbook header: checksum 0xb861.
  static let header = hex("45 00 00 73 00 00 40 00 40 11 b8 61 c0 a8 00 01 c0 a8 00 c7")

  /// IPv4 + UDP, 198.18.0.1:1000 to 198.18.0.2:2000, data "hello": sums worked out on paper.
  /// UDP: c612+0001+c612+0002+0011+000d + 03e8+07d0+000d + 6865+6c6c+6f00 = 0x2dbdb -> dbdd -> ~ 2422
  static let udp = ethernet4 + hex("""
    45 00 00 21 12 34 00 00 40 11 00 00 c6 12 00 01 c6 12 00 02
    03 e8 07 d0 00 0d 00 00 68 65 6c 6c 6f
    """)

  static func tcp4(data: Int, id: UInt16 = 0x1234, flags: UInt8 = 0x18) -> [UInt8] {
    let total = UInt16(40 + data)
    return ethernet4
      + [0x45, 0, UInt8(total >> 8), UInt8(total & 255), UInt8(id >> 8), UInt8(id & 255), 0x40, 0, 64, 6, 0, 0]
      + [198, 18, 0, 1, 198, 18, 0, 2]
      + hex("1f 90 c0 01 ff ff ff f0 00 00 00 01") + [0x50, flags] + hex("20 00 00 00 00 00")
      + (0..<data).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 3) }
  }
  static func tcp6(data: Int, flags: UInt8 = 0x18) -> [UInt8] {
    let length = UInt16(20 + data)
    return ethernet6 + hex("60 00 00 00") + [UInt8(length >> 8), UInt8(length & 255), 6, 64]
      + hex("2001 0002 0000 0000 0000 0000 0000 0001  2001 0002 0000 0000 0000 0000 0000 0002")
      + hex("1f 90 c0 01 00 00 10 00 00 00 00 01") + [0x50, flags] + hex("20 00 00 00 00 00")
      + (0..<data).map { UInt8(truncatingIfNeeded: $0 &* 5 &+ 1) }
  }
}

@Suite struct ParserTests {
  @Test func plainIPv4() {
    let found = parse(Sample.udp)
    #expect(found.etherType == 0x800 && found.networkOffset == 14 && found.network == .ipv4)
    #expect(found.networkHeaderLength == 20 && found.transport == .udp && found.transportOffset == 34)
    #expect(found.payloadOffset == 42 && found.payloadLength == 5 && found.networkEnd == 47)
    #expect(!found.isFragment && !found.isTruncated && !found.hasExtensions && found.tagCount == 0)
  }

  @Test func paddingIsNotPayload() {
    let found = parse(Sample.udp + [UInt8](repeating: 0xee, count: 13))
    #expect(found.networkEnd == 47 && found.payloadLength == 5)
  }

  @Test func oneAndTwoTags() {
    let one = Array(Sample.udp[0..<12]) + hex("81 00 a0 05") + Array(Sample.udp[12...])
    let a = parse(one)
    #expect(a.tagCount == 1 && a.tag == 0xa005 && a.vlan == 5 && a.networkOffset == 18 && a.transport == .udp)
    let two = Array(Sample.udp[0..<12]) + hex("88 a8 00 64 81 00 a0 05") + Array(Sample.udp[12...])
    let b = parse(two)
    #expect(b.tagCount == 2 && b.tag == 100 && b.tagType == 0x88a8 && b.networkOffset == 22 && b.transportOffset == 42)
  }

  @Test func optionsAndFragments() {
    var frame = Sample.udp
    frame[14] = 0x46
    frame.insert(contentsOf: hex("94 04 00 00"), at: 34)
    frame[17] = 0x25
    let options = parse(frame)
    #expect(options.networkHeaderLength == 24 && options.hasExtensions && options.transportOffset == 38)
    #expect(options.transport == .udp)
    var first = Sample.udp
    first[20] = 0x20
    let a = parse(first)
    #expect(a.isFragment && a.isFirstFragment && a.transport == .udp)
    first[21] = 1
    let b = parse(first)
    #expect(b.isFragment && !b.isFirstFragment && b.transport == .none)
    first[20] = 0x40
    first[21] = 0
    #expect(!parse(first).isFragment, "don't fragment is no fragment")
  }

  @Test func extensionHeaders() {
    // Hop-by-hop (8 bytes), routing (16 bytes), then TCP.
    var frame = Sample.tcp6(data: 4)
    frame.insert(contentsOf: hex("2b 00 01 04 00 00 00 00") + hex("06 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00"), at: 54)
    frame[20] = 0
    frame[19] = 48
    let found = parse(frame)
    #expect(found.networkHeaderLength == 64 && found.hasExtensions && found.transport == .tcp && found.ipProtocol == 6)
    #expect(found.transportOffset == 78 && found.payloadLength == 4)
    // A later fragment: nothing behind the fragment header is looked at.
    var fragment = Sample.tcp6(data: 24)
    fragment.insert(contentsOf: hex("06 00 00 08 00 00 00 01"), at: 54)
    fragment[20] = 44
    fragment[19] = 52
    let later = parse(fragment)
    #expect(later.isFragment && !later.isFirstFragment && later.transport == .none && later.ipProtocol == 6)
    fragment[57] = 1
    fragment[56] = 0
    #expect(parse(fragment).isFirstFragment && parse(fragment).transport == .tcp)
  }

  @Test func sctpAndTCPOptions() {
    var frame = Sample.tcp4(data: 8)
    frame[46] = 0x70
    #expect(parse(frame).transportHeaderLength == 28 && parse(frame).payloadLength == 0)
    frame[23] = 132
    #expect(parse(frame).transport == .sctp && parse(frame).transportHeaderLength == 12)
  }

  /// Every prefix of every sample, and every byte of the headers changed: parsed, never trapped on,
  /// offsets inside.
  @Test func liesStayInside() {
    for sample in [Sample.udp, Sample.tcp4(data: 30), Sample.tcp6(data: 30)] {
      for cut in 0...sample.count { expectInside(Array(sample[0..<cut])) }
      for at in 12..<min(sample.count, 70) {
        for value: UInt8 in [0, 1, 0x0f, 0x2c, 0x3c, 0x4f, 0x7f, 0x80, 0xff] {
          var frame = sample
          frame[at] = value
          expectInside(frame)
        }
      }
    }
    var endless = Sample.tcp6(data: 1400)
    for at in stride(from: 54, to: endless.count - 8, by: 8) { endless.replaceSubrange(at..<at + 8, with: hex("3c 00 01 04 00 00 00 00")) }
    endless[20] = 60
    expectInside(endless)
    #expect(parse(endless).networkHeaderLength == 40 + 8 * FrameParser.extensionLimit)
  }

  private func expectInside(_ frame: [UInt8]) {
    let found = parse(frame)
    let isInside =
      found.networkEnd <= frame.count && found.transportOffset <= frame.count
      && (found.transport == .none || found.payloadOffset <= found.networkEnd)
      && found.networkOffset <= frame.count
    #expect(isInside, "\(frame.count) bytes: \(found)")
    unsafe frame.withUnsafeBytes { bytes in
      _ = unsafe FrameChecksum.transportIsRight(bytes, found)
      _ = unsafe FrameChecksum.ipv4HeaderIsRight(bytes, found)
      _ = unsafe Toeplitz(key: [UInt8](repeating: 0xa5, count: 40)).hash(bytes, found, over: .addressesAndPorts)
    }
  }
}
