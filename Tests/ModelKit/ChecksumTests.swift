// Checksums and cyclic checks against published values and a plain sum.

import ModelKit
import Testing

private func headerIsRight(_ frame: [UInt8]) -> Bool? {
  unsafe frame.withUnsafeBytes { unsafe FrameChecksum.ipv4HeaderIsRight($0, ParsedHeaders($0)) }
}
private func transportIsRight(_ frame: [UInt8]) -> Bool? {
  unsafe frame.withUnsafeBytes { unsafe FrameChecksum.transportIsRight($0, ParsedHeaders($0)) }
}
private func insertTransport(_ frame: inout [UInt8]) -> Bool {
  let headers = parse(frame)
  return unsafe frame.withUnsafeMutableBytes { unsafe FrameChecksum.insertTransport($0, headers) }
}

@Suite struct ChecksumTests {
  @Test func theTextbookHeader() {
    let frame = Sample.ethernet4 + Sample.header + [UInt8](repeating: 0, count: 95)
    #expect(headerIsRight(frame) == true)
    var wrong = frame
    wrong[25] ^= 1
    #expect(headerIsRight(wrong) == false)
    wrong[24] = 0
    wrong[25] = 0
    check(unsafe wrong.withUnsafeMutableBytes { unsafe FrameChecksum.insertIPv4Header($0, at: 14) })
    #expect(wrong[24] == 0xb8 && wrong[25] == 0x61)
    #expect(headerIsRight(Sample.tcp6(data: 0)) == nil)
  }

  @Test func sumsOfAllLengths() {
    for count in 0..<70 {
      let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 113 &+ 201) }
      for seed: UInt32 in [0, 1, 0xffff, 0x1_2345] {
        let expected = plainSum([UInt8(seed >> 24), UInt8(seed >> 16 & 255), UInt8(seed >> 8 & 255), UInt8(seed & 255)] + bytes)
        let got = unsafe bytes.withUnsafeBytes { unsafe FrameChecksum.sum($0, initial: seed) }
        #expect(got == expected || (got % 0xffff == expected % 0xffff && seed != 0), "\(count) bytes, seed \(seed)")
      }
    }
  }

  @Test func udpOverIPv4() {
    var frame = Sample.udp
    #expect(transportIsRight(frame) == nil, "a zero checksum says that there is none")
    check(insertTransport(&frame))
    #expect(frame[40] == 0x24 && frame[41] == 0x22)
    #expect(transportIsRight(frame) == true)
    frame[46] ^= 0x20
    #expect(transportIsRight(frame) == false)
  }

  @Test func tcpOverBoth() {
    for make in [Sample.tcp4(data: 31), Sample.tcp6(data: 31)] {
      var frame = make
      #expect(transportIsRight(frame) == false)
      check(insertTransport(&frame))
      #expect(transportIsRight(frame) == true)
      let headers = parse(frame)
      let at = headers.transportOffset
      let addresses = headers.isIPv4 ? Array(frame[26..<34]) : Array(frame[22..<54])
      #expect(plainSum(addresses + [0, 6, 0, UInt8(frame.count - at)] + Array(frame[at...])) == 0xffff)
      for at in headers.transportOffset..<frame.count {
        var wrong = frame
        wrong[at] ^= 4
        #expect(transportIsRight(wrong) == false)
      }
      // Padding is outside of the datagram.
      #expect(transportIsRight(frame + [1, 2, 3]) == true)
      #expect(transportIsRight(Array(frame.dropLast())) == nil, "cut off")
    }
  }

  @Test func udpThatMakesZero() {
    // The last two bytes are chosen so that the sum is 0xffff: the checksum would be 0, and 0xffff goes out.
    var frame = Sample.udp + [0, 0, 0]
    frame[17] = 36
    frame[39] = 16
    var sum: UInt32 = 0
    let pseudo = Array(frame[26..<34]) + [0, 17, 0, 16]
    sum = UInt32(plainSum(pseudo + Array(frame[34..<48])))
    let rest = UInt16(0xffff - sum)
    frame[48] = UInt8(rest >> 8)
    frame[49] = UInt8(rest & 255)
    check(insertTransport(&frame))
    #expect(frame[40] == 0xff && frame[41] == 0xff)
    #expect(transportIsRight(frame) == true)
  }

  @Test func udpOverIPv6NeedsAChecksum() {
    var frame = Sample.tcp6(data: 0)
    frame[20] = 17
    frame[58] = 0
    frame[59] = 20
    frame[60] = 0
    frame[61] = 0
    #expect(transportIsRight(frame) == false)
    check(insertTransport(&frame))
    #expect(transportIsRight(frame) == true)
  }

  @Test func lengthsThatLie() {
    var frame = Sample.udp
    frame[39] = 14
    frame[40] = 1
    #expect(transportIsRight(frame) == false, "the UDP length exceeds the datagram")
    frame[39] = 7
    #expect(transportIsRight(frame) == false)
    frame[20] = 0x20
    #expect(transportIsRight(frame) == nil, "fragments are not checked")
  }

  @Test func offsetsOfAContext() {
    var frame = Sample.tcp4(data: 11)
    let wanted: [UInt8] = {
      var right = frame
      _ = insertTransport(&right)
      return right
    }()
    let pseudo = plainSum(Array(frame[26..<34]) + [0, 6, 0, 31])
    frame[50] = UInt8(pseudo >> 8)
    frame[51] = UInt8(pseudo & 255)
    func insert(_ start: Int, _ field: Int, _ end: Int) -> Bool {
      unsafe frame.withUnsafeMutableBytes { unsafe FrameChecksum.insert($0, start: start, field: field, end: end) }
    }
    let before = frame
    for (start, field, end) in [(frame.count, 50, 0), (34, frame.count - 1, 0), (34, 50, 20), (34, 50, frame.count), (-1, 50, 0)] {
      check(!insert(start, field, end))
    }
    #expect(frame == before)
    check(insert(34, 50, 0))
    #expect(frame == wanted)
    // An inclusive end: the IPv4 header alone.
    check(insert(14, 24, 33))
    #expect(headerIsRight(frame) == true)
  }

  @Test func cyclicChecks() {
    // The check values of the catalogue of CRC algorithms: "123456789".
    let digits = Array("123456789".utf8)
    #expect(unsafe digits.withUnsafeBytes { unsafe EthernetCRC.of($0) } == 0xcbf4_3926)
    // A frame followed by its sequence leaves the residue 0x2144df1c (complemented).
    let frame = Sample.udp
    let value = unsafe frame.withUnsafeBytes { unsafe EthernetCRC.of($0) }
    let whole = frame + (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    #expect(unsafe whole.withUnsafeBytes { unsafe EthernetCRC.of($0) } == 0x2144_df1c)
  }

  @Test func sctpChecksum() {
    // The checksum counts as zero, so it does not matter what stands there; CRC-32C computed bit by bit.
    var packet = (0..<44).map { UInt8($0 * 3) }
    func crc32c(_ bytes: [UInt8]) -> UInt32 {
      var value = UInt32.max
      for byte in bytes {
        for bit in 0..<8 {
          let feedback = (value ^ UInt32(byte) >> UInt32(bit)) & 1
          value = value >> 1 ^ (feedback == 1 ? 0x82f6_3b78 : 0)
        }
      }
      return ~value
    }
    #expect(crc32c(Array("123456789".utf8)) == 0xe306_9283)
    var zeroed = packet
    zeroed.replaceSubrange(8..<12, with: [0, 0, 0, 0])
    let expected = crc32c(zeroed)
    #expect(unsafe packet.withUnsafeBytes { unsafe EthernetCRC.sctp($0) } == expected)
    packet.replaceSubrange(8..<12, with: (0..<4).map { UInt8(truncatingIfNeeded: expected >> (8 * $0)) })
    var frame = Sample.ethernet4 + hex("45 00 00 40 00 00 00 00 40 84 00 00 c6 12 00 01 c6 12 00 02") + packet
    #expect(transportIsRight(frame) == true)
    frame[60] ^= 1
    #expect(transportIsRight(frame) == false)
    check(insertTransport(&frame))
    #expect(transportIsRight(frame) == true)
  }

  /// Both datasheets' order of bits: byte 5 is the high one.
  @Test func multicastHash() {
    func hash(_ address: [UInt8], _ offset: Int) -> Int { unsafe address.withUnsafeBytes { unsafe FilterHash.multicast($0, offset: offset) } }
    // 12:34:56:78:9a:bc is the datasheets' own example (82574, 10.2.5.1): 0xbc9, 0x793... by offset.
    let address = hex("12 34 56 78 9a bc")
    #expect(hash(address, 0) == 0xbc9)
    #expect(hash(address, 1) == 0x793)
    #expect(hash(address, 2) == 0xf26)
    #expect(hash(address, 3) == 0xc9a)
    var words = [UInt32](repeating: 0, count: 128)
    words[0xbc9 >> 5] = 1 << (0xbc9 & 31)
    #expect(FilterHash.contains(0xbc9) { words[$0] })
    #expect(!FilterHash.contains(0xbc8) { words[$0] })
  }
}
