import Testing

@testable import ringway

@Suite struct PacketDecoderTests {
  static let addresses: [UInt8] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]
  static let ipv4: [UInt8] = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2]

  static func ipv6(_ proto: UInt8, _ rest: [UInt8], from: [UInt8] = [0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]) -> [UInt8] {
    [0x60, 0, 0, 0, 0, 8, proto, 64] + from + [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2] + rest
  }

  static let cases: [([UInt8], String)] = [
    (addresses + [8, 0] + ipv4 + [0, 53, 4, 0, 0, 8, 0, 0], "IPv4 198.18.0.1.53 > 198.18.0.2.1024 UDP"),
    (addresses + [0x81, 0, 0x20, 42, 8, 0] + ipv4 + [0, 53, 4, 0], "vlan 42 IPv4 198.18.0.1.53 > 198.18.0.2.1024 UDP"),
    (
      addresses + [8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2, 0, 80, 0, 81, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x12],
      "IPv4 198.18.0.1.80 > 198.18.0.2.81 TCP SYN,ACK"
    ),
    (
      addresses + [8, 0, 0x46, 0, 0, 40, 0, 0, 0, 0, 64, 1, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2, 0, 0, 0, 0, 8, 0],
      "IPv4 198.18.0.1 > 198.18.0.2 ICMP echo request"
    ),
    (
      addresses + [8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0xb9, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2, 1, 2, 3, 4],
      "IPv4 198.18.0.1 > 198.18.0.2 fragment at 1480"
    ),
    (addresses + [0x86, 0xdd] + ipv6(58, [135]), "IPv6 2001:2::1 > fe80::1:0:2 ICMPv6 neighbour solicitation"),
    (addresses + [0x86, 0xdd] + ipv6(17, [0, 1, 0, 2], from: [UInt8](repeating: 0, count: 16)), "IPv6 ::.1 > fe80::1:0:2.2 UDP"),
    (addresses + [0x86, 0xdd] + ipv6(47, []), "IPv6 2001:2::1 > fe80::1:0:2 protocol 47"),
    (
      addresses + [8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 198, 18, 0, 1, 0, 0, 0, 0, 0, 0, 198, 18, 0, 2],
      "ARP who has 198.18.0.2, tell 198.18.0.1"
    ),
    (
      addresses + [8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 2, 198, 18, 0, 1, 0, 0, 0, 0, 0, 0, 198, 18, 0, 2],
      "ARP 198.18.0.1 is at 02:00:00:00:00:02"
    ),
    (addresses + [0x88, 0xcc], "type 0x88cc"), (addresses + [0, 38], "802.3"),
  ]

  @Test(arguments: cases.indices) func says(index: Int) {
    let (bytes, text) = Self.cases[index]
    #expect(PacketDecoder(bytes).description == "02:00:00:00:00:02 > 02:00:00:00:00:01 \(text)")
  }

  /// A frame may end anywhere.
  @Test(arguments: cases.indices) func cutAnywhere(index: Int) {
    let bytes = Self.cases[index].0
    for count in 0..<bytes.count {
      let text = PacketDecoder(Array(bytes[..<count])).description
      #expect(count >= 14 || text == "short frame")
      #expect(!text.isEmpty)
    }
  }

  /// Any bytes at all give one line.
  @Test func anyBytes() {
    var state: UInt64 = 1
    func next() -> UInt8 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return UInt8(truncatingIfNeeded: state >> 33)
    }
    for round in 0..<20_000 {
      var bytes = (0..<Int(next()) % 100).map { _ in next() }
      let types: [[UInt8]] = [[8, 0], [8, 6], [0x86, 0xdd], [0x81, 0]]
      if bytes.count > 14 { bytes.replaceSubrange(12..<14, with: types[round % 4]) }
      #expect(!PacketDecoder(bytes).description.contains("\n"))
    }
  }

  @Test func timeOfDay() {
    #expect(PacketLines.clock(1_700_000_000_123_456_789) == "22:13:20.123456789")
    #expect(PacketLines.clock(0) == "00:00:00.000000000")
  }
}
