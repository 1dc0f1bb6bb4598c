// The verification suite that Microsoft publishes with the hash ("Verifying the RSS hash calculation").

import ModelKit
import Testing

@Suite struct ToeplitzTests {
  static let key = hex("""
    6d 5a 56 da 25 5b 0e c2 41 67 25 3d 43 a3 8f b0 d0 ca 2b cb ae 7b 30 b4
    77 cb 2d a3 80 30 f2 0c 6a 42 b7 3b be ac 01 fa
    """)

  /// Source, source port, destination, destination port, hash of the addresses, hash with the ports.
  static let four: [([UInt8], UInt16, [UInt8], UInt16, UInt32, UInt32)] = [
    ([66, 9, 149, 187], 2794, [161, 142, 100, 80], 1766, 0x323e_8fc2, 0x51cc_c178),
    ([199, 92, 111, 2], 14230, [65, 69, 140, 83], 4739, 0xd718_262a, 0xc626_b0ea),
    ([24, 19, 198, 95], 12898, [12, 22, 207, 184], 38024, 0xd2d0_a5de, 0x5c2b_394a),
    ([38, 27, 205, 30], 48228, [209, 142, 163, 6], 2217, 0x8298_9176, 0xafc7_327f),
    ([153, 39, 163, 191], 44251, [202, 188, 127, 2], 1303, 0x5d18_09c5, 0x10e8_28a2),
  ]
  static let six: [([UInt8], UInt16, [UInt8], UInt16, UInt32, UInt32)] = [
    (hex("3ffe 2501 0200 1fff 0000 0000 0000 0007"), 2794, hex("3ffe 2501 0200 0003 0000 0000 0000 0001"), 1766, 0x2cc1_8cd5, 0x4020_7d3d),
    (hex("3ffe 0501 0008 0000 0260 97ff fe40 efab"), 14230, hex("ff02 0000 0000 0000 0000 0000 0000 0001"), 4739, 0x0f0c_461c, 0xdde5_1bbf),
    (hex("3ffe 1900 4545 0003 0200 f8ff fe21 67cf"), 44251, hex("fe80 0000 0000 0000 0200 f8ff fe21 67cf"), 38024, 0x4b61_e985, 0x02d1_feef),
  ]

  private func ports(_ from: UInt16, _ to: UInt16) -> [UInt8] {
    [UInt8(from >> 8), UInt8(from & 255), UInt8(to >> 8), UInt8(to & 255)]
  }

  @Test func published() {
    let hash = Toeplitz(key: Self.key)
    for (source, from, destination, to, plain, withPorts) in Self.four + Self.six {
      #expect(hash.hash(source + destination) == plain)
      #expect(hash.hash(source + destination + ports(from, to)) == withPorts)
    }
  }

  @Test func inFrames() {
    let hash = Toeplitz(key: Self.key)
    for (source, from, destination, to, plain, withPorts) in Self.four {
      var frame = Sample.tcp4(data: 3)
      frame.replaceSubrange(26..<34, with: source + destination)
      frame.replaceSubrange(34..<38, with: ports(from, to))
      expect(hash, frame, plain, withPorts)
    }
    for (source, from, destination, to, plain, withPorts) in Self.six {
      var frame = Sample.tcp6(data: 3)
      frame.replaceSubrange(22..<54, with: source + destination)
      frame.replaceSubrange(54..<58, with: ports(from, to))
      frame.insert(contentsOf: hex("81 00 00 07"), at: 12)
      expect(hash, frame, plain, withPorts)
    }
    #expect(unsafe Array(Sample.ethernet4).withUnsafeBytes { unsafe hash.hash($0, ParsedHeaders($0), over: .addresses) } == nil)
  }

  private func expect(_ hash: Toeplitz, _ frame: [UInt8], _ plain: UInt32, _ withPorts: UInt32) {
    let headers = parse(frame)
    #expect(unsafe frame.withUnsafeBytes { unsafe hash.hash($0, headers, over: .addresses) } == plain)
    #expect(unsafe frame.withUnsafeBytes { unsafe hash.hash($0, headers, over: .addressesAndPorts) } == withPorts)
  }

  /// By the definition, one bit after the other, with the long key.
  @Test func longKeys() {
    let key = (0..<52).map { UInt8(truncatingIfNeeded: $0 &* 91 &+ 17) }
    let input = (0..<48).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ 5) }
    func bit(_ at: Int) -> UInt32 { UInt32(key[at / 8] >> UInt8(7 - at % 8) & 1) }
    var expected: UInt32 = 0
    for at in 0..<input.count * 8 where input[at / 8] >> UInt8(7 - at % 8) & 1 != 0 {
      expected ^= (0..<32).reduce(UInt32(0)) { $0 << 1 | bit(at + $1) }
    }
    #expect(Toeplitz(key: key).hash(input) == expected)
    #expect(Toeplitz(key: []).hash(input) == 0 && Toeplitz(key: [1, 2, 3, 4]).hash(input) == 0)
  }
}
