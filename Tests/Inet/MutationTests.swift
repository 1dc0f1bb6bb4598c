// Whatever comes in: nothing traps, and received = delivered + dropped.

import Netisr
import Packet
import Routes
import Testing
import Wire

@testable import Inet

/// A repeatable random source (splitmix64).
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

@Suite struct MutationTests {
  func seeds(_ router: Router) -> [[UInt8]] {
    let udp: [UInt8] = [0, 9, 0, 9, 0, 12, 0, 0, 1, 2, 3, 4]
    let options: [UInt8] = [7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    let packets = [
      ipv4(router.host0, router.own0, icmp(8, 0, [0, 7, 0, 1], Array(0..<60))),
      ipv4(router.host0, router.host1, proto: 17, udp), ipv4(router.host0, router.host1, proto: 17, udp, options: options),
      ipv4(router.host0, router.own0, proto: 17, udp, options: [131, 7, 4] + router.host1.bytes + [0]),
      ipv4(router.host0, router.own0, Array(0..<64), id: 5, fragment: 0x2000),
      ipv4(router.host0, router.own0, Array(0..<64), id: 5, fragment: 8),
      ipv4(router.host0, router.own0, icmp(3, 4, [0, 0, 2, 0], ipv4(router.own0, router.host0, icmp(0)))),
      ipv4(router.host0, router.own0, icmp(5, 1, router.host0.bytes, ipv4(router.own0, router.host1, icmp(0)))),
      ipv4(router.host0, router.own0, icmp(13, 0, [0, 0, 0, 0], [UInt8](repeating: 0, count: 12))),
      ipv4(router.host0, .allHosts, proto: 2, [0x11, 100, 0xee, 0x9b, 0, 0, 0, 0], ttl: 1, options: [148, 4, 0, 0]),
      ipv4(router.host0, .allHosts, proto: 2, [0x11, 100, 0xec, 0x1e, 0, 0, 0, 0, 2, 125, 0, 0], ttl: 1),
    ]
    return packets.map { frame(router.mac0, router.hostMAC0, 0x800, $0) } + [
      frame(.broadcast, router.hostMAC0, 0x806, arp(1, router.hostMAC0, router.host0, noStation, router.own0)),
      frame(router.mac0, router.hostMAC0, 0x806, arp(2, router.hostMAC0, router.host0, router.mac0, router.own0)),
      frame(router.mac0, router.hostMAC0, 0x8100, [0, 5, 8, 0, 1, 2]),
    ]
  }

  /// Puts the checksums right, so that what lies behind them is reached.
  func repaired(_ frame: [UInt8]) -> [UInt8] {
    guard frame.count >= 34, frame[12] == 8, frame[13] == 0 else { return frame }
    var frame = frame
    let length = Int(frame[14] & 15) * 4
    guard length >= 20, frame.count >= 14 + length else { return frame }
    frame.replaceSubrange(24..<26, with: [0, 0])
    frame.replaceSubrange(24..<26, with: be16(Int(InternetChecksum.of(frame[14..<14 + length]))))
    let total = Int(frame[16]) << 8 | Int(frame[17])
    guard frame[23] == 1 || frame[23] == 2, total >= length + 8, 14 + total <= frame.count else { return frame }
    frame.replaceSubrange(14 + length + 2..<14 + length + 4, with: [0, 0])
    frame.replaceSubrange(
      14 + length + 2..<14 + length + 4, with: be16(Int(InternetChecksum.of(frame[14 + length..<14 + total]))))
    return frame
  }

  @Test(arguments: [1, 2, 3, 4, 5, 6] as [UInt64])
  func changedAnywhereNothingTrapsAndNothingIsLost(seed: UInt64) throws {
    var random = Seeded(state: seed)
    let router = try Router(workers: seed % 2 == 0 ? 3 : 1, buffers: 4096)
    for name in ["net.inet.ip.sourceroute", "net.inet.ip.accept_sourceroute", "net.inet.icmp.bmcastecho", "net.inet.icmp.maskrepl"]
    where seed > 2 { try router.stack.netisr.sysctl.write(name, "1") }
    if seed > 3 { try router.stack.netisr.sysctl.write("net.inet.icmp.icmplim", "0") }
    if seed == 5 {
      try router.stack.netisr.sysctl.write("net.inet.icmp.drop_redirect", "0")
      try router.stack.netisr.sysctl.write("net.inet.ip.forwarding", "0")
    }
    let seeds = seeds(router)
    for round in 0..<4000 {
      var bytes = seeds[Int.random(in: 0..<seeds.count, using: &random)]
      for _ in 0..<Int.random(in: 0...4, using: &random) where !bytes.isEmpty {
        switch Int.random(in: 0..<5, using: &random) {
        case 0: bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
        case 1: bytes[Int.random(in: 0..<bytes.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 2: bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random))
        case 3: bytes += [UInt8](repeating: UInt8.random(in: 0...255, using: &random), count: Int.random(in: 0..<80, using: &random))
        default:
          let at = Int.random(in: 0..<bytes.count, using: &random)
          bytes.insert(UInt8.random(in: 0...255, using: &random), at: at)
        }
      }
      if Bool.random(using: &random) { bytes = repaired(bytes) }
      var sizes: [Int] = []
      if Int.random(in: 0..<4, using: &random) == 0 { sizes = (0..<3).map { _ in Int.random(in: 1..<40, using: &random) } }
      router.stack.receive(bytes, on: router.em0, sizes: sizes)
      if round % 50 == 0 {
        router.stack.advance(seconds: 1)
        _ = router.out0.take()
        _ = router.out1.take()
      }
    }
    // What waits is given up in the end: fragments, unresolved neighbours.
    router.stack.advance(seconds: 40, step: 0.5)
    _ = router.out0.take()
    _ = router.out1.take()
    router.stack.advance(seconds: 20, step: 1)
    router.stack.checkLedger()
    #expect(router.stack.inet.count(.ipTotal) > 1000)
    #expect(router.stack.inet.count(.ipForwarded) > 0 || seed == 5)
  }
}
