// Packets between two links, and what senders are told of those that do not get through.

import Ifnet
import Packet
import Routes
import Testing
import Wire

@testable import Inet6

/// A router between 2001:2::/64 and 2001:2:0:1::/64, with a neighbour known on each.
struct Router {
  let stack: Stack
  let left: Interface, right: Interface
  let leftDriver: FakeDriver, rightDriver: FakeDriver

  init(workers: Int = 1, rightMTU: Int = 1500, _ change: (inout Inet6Configuration) -> Void = { _ in }) throws {
    stack = try Stack(workers: workers) {
      $0.settings.forwarding = true
      change(&$0)
    }
    (left, leftDriver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    (right, rightDriver) = try stack.attach("igb", otherMAC, address: "2001:2:0:1::1", mtu: rightMTU)
    try stack.inet6.setNeighbour(ip("2001:2::99"), peerMAC, on: left)
    try stack.inet6.setNeighbour(ip("2001:2:0:1::99"), MACAddress(2, 0, 0, 0, 0, 0xcc), on: right)
    stack.netisr.settle()
    _ = leftDriver.take()
    _ = rightDriver.take()
  }

  /// What the left side is told: ICMPv6 type, code, value, and the quoted packet.
  func told() -> (type: UInt8, code: UInt8, value: UInt32, quoted: [UInt8])? {
    guard let frame = leftDriver.take().first, frame.count >= 62, frame[20] == 58 else { return nil }
    let packet = Array(frame[14...])
    // Its checksum is right, and it says how long it is.
    #expect(Make.checksum(address(packet, 8), address(packet, 24), next: 58, Array(packet[40...])) == 0)
    #expect(Int(packet[4]) << 8 | Int(packet[5]) == packet.count - 40)
    let value = packet[44..<48].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    return (packet[40], packet[41], value, Array(packet[48...]))
  }
  private func address(_ packet: [UInt8], _ at: Int) -> String { IPv6Address(bytes: packet[at..<at + 16])?.description ?? "" }
}

@Suite struct ForwardTests {
  @Test(arguments: [1, 3]) func aPacketGoesOn(workers: Int) throws {
    let router = try Router(workers: workers)
    let packet = Make.echo("2001:2::99", "2001:2:0:1::99", hops: 9)
    router.stack.receive(packet, on: router.left)
    var expected = packet
    expected[7] = 8
    #expect(router.rightDriver.take() == [[2, 0, 0, 0, 0, 0xcc] + otherMAC.bytes + [0x86, 0xdd] + expected])
    #expect(router.stack.inet6[.forwarded] == 1)
    #expect(router.leftDriver.take().isEmpty)
  }

  @Test func theHopLimitEnds() throws {
    let router = try Router()
    let packet = Make.packet("2001:2::99", "2001:2:0:1::99", 128, hops: 1, [0x12, 0x34, 0, 1] + Array(0..<8))
    router.stack.receive(packet, on: router.left)
    let expected =
      "0200000000bb" + "02000000000a" + "86dd" + "60000000" + "0040" + "3a40" + "20010002000000000000000000000001"
      + "20010002000000000000000000000099" + "0300221e00000000" + "6000000000103a01" + "20010002000000000000000000000099"
      + "20010002000000010000000000000099" + "80002037123400010001020304050607"
    #expect(router.leftDriver.take().map(text) == [expected])
    #expect(router.stack.drops(.ipTimeToLive) == 1)
  }

  @Test func noRoute() throws {
    let router = try Router()
    let packet = Make.echo("2001:2::99", "2001:2:0:77::1")
    router.stack.receive(packet, on: router.left)
    let told = try #require(router.told())
    #expect((told.type, told.code) == (1, 0))
    #expect(told.quoted == packet)
  }

  @Test func tooBigCarriesTheMTU() throws {
    let router = try Router(rightMTU: 1400)
    let packet = Make.echo("2001:2::99", "2001:2:0:1::99", Array(repeating: 5, count: 1400))
    router.stack.receive(packet, on: router.left)
    let told = try #require(router.told())
    #expect((told.type, told.code, told.value) == (2, 0, 1400))
    // No more than every link carries (RFC 4443, section 2.4 c).
    #expect(told.quoted == Array(packet.prefix(1280 - 48)))
    #expect(router.rightDriver.take().isEmpty)
  }

  @Test func linkLocalStaysOnItsLink() throws {
    let router = try Router()
    router.stack.receive(Make.echo("2001:2::99", "fe80::1234"), on: router.left)
    #expect(router.rightDriver.take().isEmpty && router.leftDriver.take().isEmpty)
    try router.stack.inet6.setNeighbour(ip("fe80::99"), peerMAC, on: router.left)
    router.stack.receive(Make.echo("fe80::99", "2001:2:0:1::99"), on: router.left)
    let told = try #require(router.told())
    #expect((told.type, told.code) == (1, 2))
    #expect(router.rightDriver.take().isEmpty)
  }

  @Test func routesThatRefuse() throws {
    let router = try Router()
    try router.stack.routes.add(Route6(IPv6Prefix(ip("2001:2:0:8::"), 64), interface: router.right.index, flags: [.up, .reject]))
    try router.stack.routes.add(Route6(IPv6Prefix(ip("2001:2:0:9::"), 64), interface: router.right.index, flags: [.up, .blackhole]))
    router.stack.netisr.settle()
    router.stack.receive(Make.echo("2001:2::99", "2001:2:0:8::1"), on: router.left)
    #expect(router.told()?.type == 1)
    router.stack.receive(Make.echo("2001:2::99", "2001:2:0:9::1"), on: router.left)
    #expect(router.leftDriver.take().isEmpty)
    #expect(router.stack.drops(.ipProhibited) == 2)
  }

  /// Nobody answers for the destination: after three questions the sender hears of it.
  @Test func anUnreachableNeighbour() throws {
    let router = try Router()
    router.stack.receive(Make.echo("2001:2::99", "2001:2:0:1::77"), on: router.left)
    router.stack.wait(2.5)
    #expect(router.leftDriver.take().isEmpty)
    router.stack.wait(1)
    let questions = router.rightDriver.take().filter { $0[54] == 135 && $0[20] == 58 }
    #expect(questions.count == 3)
    let told = try #require(router.told())
    #expect((told.type, told.code) == (1, 3))
    #expect(router.stack.drops(.neighbourUnresolved) == 1)
    #expect(router.stack.inet6.neighbours().allSatisfy { $0.address != ip("2001:2:0:1::77") })
  }

  @Test func aHostDoesNotForward() throws {
    let router = try Router { $0.settings.forwarding = false }
    router.stack.receive(Make.echo("2001:2::99", "2001:2:0:1::99"), on: router.left)
    #expect(router.rightDriver.take().isEmpty)
    #expect(router.stack.drops(.ipForwardingOff) == 1)
  }

  @Test func errorsHaveALimitASecond() throws {
    let router = try Router { $0.settings.errorsPerSecond = 3 }
    for _ in 0..<5 { router.stack.receive(Make.echo("2001:2::99", "2001:2:0:77::1"), on: router.left) }
    #expect(router.leftDriver.take().count == 3)
    #expect(router.stack.inet6[.rateLimited] == 2)
    router.stack.wait(1)
    router.stack.receive(Make.echo("2001:2::99", "2001:2:0:77::1"), on: router.left)
    #expect(router.leftDriver.take().count == 1)
  }

  @Test func noErrorsAboutErrors() throws {
    let router = try Router()
    let quoted = Make.echo("2001:2:0:77::1", "2001:2::99")
    router.stack.receive(Make.packet("2001:2::99", "2001:2:0:77::1", 1, hops: 64, [0, 0, 0, 0] + quoted), on: router.left)
    router.stack.receive(Make.echo("::", "2001:2:0:77::1"), on: router.left)
    var frame = [0x33, 0x33, 0, 0, 0, 1] + peerMAC.bytes + [0x86, 0xdd]
    frame += Make.echo("2001:2::99", "2001:2:0:77::1")
    router.stack.receive(frame: frame, on: router.left)
    #expect(router.leftDriver.take().isEmpty)
  }

  /// The next hop is on the sender's own link: the packet goes on, and the sender is told (RFC 4861, section 8.2).
  @Test func redirect() throws {
    let router = try Router()
    let target = MACAddress(2, 0, 0, 0, 0, 0xdd)
    try router.stack.inet6.setNeighbour(ip("2001:2::98"), target, on: router.left)
    router.stack.receive(Make.echo("2001:2::99", "2001:2::98", Array(0..<8)), on: router.left)
    let sent = router.leftDriver.take()
    #expect(sent.count == 2)
    let packet = try #require(sent.first { $0[54] == 137 }).dropFirst(14)
    let quoted = Make.echo("2001:2::99", "2001:2::98", Array(0..<8))
    let option = [4, UInt8(1 + quoted.count / 8), 0, 0, 0, 0, 0, 0] + quoted
    #expect(
      Array(packet)
        == Make.packet(
          "fe80::ff:fe00:a", "2001:2::99", 137, [0, 0, 0, 0] + ip("2001:2::98").bytes + ip("2001:2::98").bytes + [2, 1] + target.bytes + option))
    #expect(sent.contains { $0[54] == 128 && Array($0.prefix(6)) == target.bytes })
  }
}
