// Changed packets by the thousand, from a seed: nothing traps, and nothing is lost in the account.

import Ifnet
import Packet
import Testing
import Wire

@testable import Inet6

@Suite struct MutationTests {
  static let seeds: [[UInt8]] = {
    let echo = Make.echo("2001:2::99", "2001:2::1", Array(0..<120))
    let query = Make.icmp("fe80::1", "ff02::1", 130, [0, 9, 0, 0] + ip("::").bytes + [2, 125, 0, 0])
    let advertisement: [UInt8] =
      [61, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1] + peerMAC.bytes + [5, 1, 0, 0, 0, 0, 5, 0xdc]
      + [3, 4, 64, 0xc0, 0, 0, 9, 9, 0, 0, 8, 8, 0, 0, 0, 0] + ip("2001:2:0:7::").bytes
    return [
      echo, Make.echo("2001:2::99", "2001:2:0:1::99"), Make.echo("2001:2::99", "ff02::1"), Make.echo("2001:2::99", "2001:2:0:55::1"),
      Make.solicitation("2001:2::99", "ff02::1:ff00:1", target: "2001:2::1", source: peerMAC),
      Make.solicitation("::", "ff02::1:ff00:1", target: "2001:2::1", source: nil),
      Make.advertisement("2001:2::99", "2001:2::1", target: "2001:2::99", flags: 0x60, link: peerMAC),
      Make.packet("fe80::1", "ff02::1", 134, advertisement), Make.packet("fe80::9", "ff02::2", 133, [0, 0, 0, 0, 1, 1] + peerMAC.bytes),
      Make.packet("fe80::1", "2001:2::1", 137, [0, 0, 0, 0] + ip("fe80::2").bytes + ip("2001:2::77").bytes),
      Make.packet("2001:2::50", "2001:2::1", 2, [0, 0, 5, 0] + echo), Make.packet("2001:2::50", "2001:2::1", 1, [0, 0, 0, 0] + echo),
      Make.ipv6("fe80::1", "ff02::1", next: 0, hops: 1, [58, 0, 5, 2, 0, 0, 1, 0] + query),
      Make.ipv6("2001:2::99", "2001:2::1", next: 60, [43, 0, 1, 4, 0, 0, 0, 0, 58, 0, 0, 0, 0, 0, 0, 0] + echo[40...]),
    ] + Make.fragments(echo, id: 5, [(0, 64), (64, 64)])
  }()

  /// Recomputes the ICMPv6 checksum of a packet without extension headers, so that changes reach what is behind it.
  static func mend(_ packet: inout [UInt8]) {
    guard packet.count >= 44, packet[6] == 58 else { return }
    packet[42] = 0
    packet[43] = 0
    let from = IPv6Address(bytes: packet[8..<24])?.description ?? "", to = IPv6Address(bytes: packet[24..<40])?.description ?? ""
    packet.replaceSubrange(42..<44, with: Make.word(Make.checksum(from, to, next: 58, Array(packet[40...]))))
  }

  @Test(arguments: [1, 2, 3] as [UInt64], [true, false]) func nothingTraps(seed: UInt64, forwarding: Bool) throws {
    let router = try Router(workers: seed == 3 ? 3 : 1) {
      $0.settings.forwarding = forwarding
      $0.settings.acceptRouterAdvertisements = !forwarding
      $0.settings.errorsPerSecond = 0
    }
    let stack = router.stack
    var random = SplitMix(state: seed)
    let before = stack.buffers.pool.available
    for round in 0..<4000 {
      var packet = Self.seeds[Int.random(in: 0..<Self.seeds.count, using: &random)]
      for _ in 0..<Int.random(in: 0...4, using: &random) {
        let at = Int.random(in: 0..<packet.count, using: &random)
        switch Int.random(in: 0..<5, using: &random) {
        case 0: packet[at] = UInt8.random(in: 0...255, using: &random)
        case 1: packet[at] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 2: packet[at] = [0, 1, 0xff, 0x80, 43, 44, 58, 60][Int.random(in: 0..<8, using: &random)]
        case 3: packet = Array(packet.prefix(max(1, at)))
        default: packet.insert(contentsOf: packet[at..<min(packet.count, at + 8)], at: at)
        }
      }
      if packet.count >= 40, Bool.random(using: &random) { packet.replaceSubrange(4..<6, with: Make.word(packet.count - 40)) }
      if Bool.random(using: &random) { Self.mend(&packet) }
      stack.receive(packet, on: Bool.random(using: &random) ? router.left : router.right, to: round % 5 == 0 ? ownMAC : nil)
      if round % 50 == 0 { stack.wait(0.5) }
      if round % 200 == 0 {
        _ = router.leftDriver.take()
        _ = router.rightDriver.take()
      }
    }
    // Fragments come to their ends, and then what is said of them: a router may have said that neighbours take a minute
    // to answer each question.
    stack.wait(300)
    expectAccount(stack)
    _ = router.leftDriver.take()
    _ = router.rightDriver.take()
    #expect(stack.inet6.neighbours().filter { $0.held > 0 } == [])
    #expect(stack.buffers.pool.available == before)
    #expect(stack.inet6[.delivered] > 100)
  }
}
