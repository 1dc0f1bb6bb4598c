// The first steps of a link: what goes out, byte for byte, and what answers come.
//
// Bytes written out as text were computed apart from this code, checksums included.

import Ifnet
import Netisr
import Packet
import Testing
import Wire

@testable import Inet6

@Suite struct Inet6Tests {
  @Test func aLinkComesUp() throws {
    let stack = try Stack { $0.settings.acceptRouterAdvertisements = true }
    let (interface, driver) = try stack.attach("em", ownMAC)
    // The solicited-node group is reported by nobody, with a router alert and the hop limit 1 (RFC 3810).
    let report =
      "333300000016" + "02000000000a" + "86dd" + "60000000" + "0024" + "0001" + "00000000000000000000000000000000"
      + "ff020000000000000000000000000016" + "3a00050200000100" + "8f006f800000000104000000" + "ff0200000000000000000001ff00000a"
    // The probe: a solicitation from nobody for fe80::ff:fe00:a (RFC 4862, section 5.4.2).
    let probe =
      "3333ff00000a" + "02000000000a" + "86dd" + "60000000" + "0018" + "3aff" + "00000000000000000000000000000000"
      + "ff0200000000000000000001ff00000a" + "87007d1300000000" + "fe80000000000000000000fffe00000a"
    #expect(driver.take().map(text) == [report, probe])
    let address = try #require(interface.addresses.first { $0.address.family == .ipv6 })
    #expect(address.address == .ipv6(ip("fe80::ff:fe00:a")))
    #expect(address.ipv6Flags == .tentative)
    stack.wait(1.1)
    #expect(address.ipv6Flags == [])
    // Proven: the group is reported by the address itself (as repeated, and again for routers that did not hear it from
    // nobody), and routers are asked.
    let solicitation =
      "333300000002" + "02000000000a" + "86dd" + "60000000" + "0010" + "3aff" + "fe80000000000000000000fffe00000a"
      + "ff020000000000000000000000000002" + "85007b1a00000000" + "010102000000000a"
    let again =
      "333300000016" + "02000000000a" + "86dd" + "60000000" + "0024" + "0001" + "fe80000000000000000000fffe00000a"
      + "ff020000000000000000000000000016" + "3a00050200000100" + "8f0071f50000000104000000" + "ff0200000000000000000001ff00000a"
    let after = driver.take().map(text)
    #expect(after.contains(solicitation))
    #expect(after.contains(again))
    stack.wait(10)
    #expect(stack.inet6[.routerSolicitationOut] == 3)
  }

  @Test func aSolicitationIsAnsweredAndPingReturns() throws {
    let stack = try Stack()
    let (interface, driver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    stack.receive(Make.solicitation("2001:2::99", "ff02::1:ff00:1", target: "2001:2::1", source: peerMAC), on: interface)
    let advertisement =
      "0200000000bb" + "02000000000a" + "86dd" + "60000000" + "0020" + "3aff" + "20010002000000000000000000000001"
      + "20010002000000000000000000000099" + "8800b2f560000000" + "20010002000000000000000000000001" + "020102000000000a"
    #expect(driver.take().map(text) == [advertisement])
    stack.receive(Make.echo("2001:2::99", "2001:2::1", id: 0x1234, Array(0..<8)), on: interface)
    let reply =
      "0200000000bb" + "02000000000a" + "86dd" + "60000000" + "0010" + "3a40" + "20010002000000000000000000000001"
      + "20010002000000000000000000000099" + "81001fd012340001" + "0001020304050607"
    #expect(driver.take().map(text) == [reply])
    #expect(stack.inet6[.echoIn] == 1)
    #expect(stack.inet6[.delivered] == 2)
    let neighbour = try #require(stack.inet6.neighbours().first)
    #expect(neighbour.mac == peerMAC)
    #expect(neighbour.state == .delay)
  }

  /// The neighbour is not known: the reply waits, the question goes out, the answer lets it go.
  @Test func aReplyWaitsForItsNeighbour() throws {
    let stack = try Stack()
    let (interface, driver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    stack.receive(Make.echo("2001:2::99", "2001:2::1"), on: interface)
    let question =
      "3333ff000099" + "02000000000a" + "86dd" + "60000000" + "0020" + "3aff" + "20010002000000000000000000000001"
      + "ff0200000000000000000001ff000099" + "8700365c00000000" + "20010002000000000000000000000099" + "010102000000000a"
    #expect(driver.take().map(text) == [question])
    #expect(stack.inet6.neighbours().first?.state == .incomplete)
    #expect(stack.inet6.neighbours().first?.held == 1)
    stack.receive(Make.advertisement("2001:2::99", "2001:2::1", target: "2001:2::99", flags: 0x60, link: peerMAC), on: interface)
    let sent = driver.take()
    #expect(sent.count == 1)
    #expect(sent.first.map { $0[54] } == 129)
    #expect(stack.inet6.neighbours().first?.state == .reachable)
  }

  @Test func echoToAGroupIsAnsweredFromAnAddress() throws {
    let stack = try Stack()
    let (interface, driver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    try stack.inet6.setNeighbour(ip("fe80::99"), peerMAC, on: interface)
    stack.receive(Make.echo("fe80::99", "ff02::1"), on: interface)
    let sent = try #require(driver.take().first)
    #expect(Array(sent[22..<38]) == ip("fe80::ff:fe00:a").bytes)
    #expect(Array(sent[14...]) == Make.packet("fe80::ff:fe00:a", "fe80::99", 129, hops: 64, [0, 1, 0, 1] + Array(0..<56)))
  }

  @Test(arguments: [
    ("version", 0, 0x50, DropReason.ipMalformed), ("length", 4, 0xff, .ipMalformed), ("source group", 8, 0xff, .ipBadAddress),
    ("checksum", 42, 0x77, .icmpBadChecksum),
  ] as [(String, Int, UInt8, DropReason)])
  func wrongFieldsAreDropped(name: String, at: Int, value: UInt8, reason: DropReason) throws {
    let stack = try Stack()
    let (interface, driver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    var packet = Make.echo("2001:2::99", "2001:2::1")
    packet[at] = value
    stack.receive(packet, on: interface)
    #expect(stack.drops(reason) == 1)
    #expect(driver.take().isEmpty)
  }

  /// A card that has looked is believed; padding behind a short packet is cut off.
  @Test func paddingIsCutOff() throws {
    let stack = try Stack()
    let (interface, driver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    try stack.inet6.setNeighbour(ip("2001:2::99"), peerMAC, on: interface)
    stack.receive(Make.echo("2001:2::99", "2001:2::1", [7]) + [0xaa, 0xbb, 0xcc], on: interface)
    #expect(driver.take().first.map { Array($0[14...]) } == Make.packet("2001:2::1", "2001:2::99", 129, hops: 64, [0, 1, 0, 1, 7]))
  }
}
