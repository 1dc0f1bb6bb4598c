// IGMP, the host's side: reports and leaves byte for byte, by the clock.

import Ifnet
import Netisr
import Testing
import Wire

@testable import Inet

@Suite struct IGMPTests {
  let router: Router
  var stack: Stack { router.stack }
  let group = IPv4Address(239, 1, 2, 3), querier = IPv4Address(198, 18, 1, 9)
  let alert: [UInt8] = [148, 4, 0, 0]

  init() throws { router = try Router() }

  func join(_ group: IPv4Address) { change { try? $0.addMulticast(.ipv4(group)) } }
  func leave(_ group: IPv4Address) { change { try? $0.deleteMulticast(.ipv4(group)) } }
  private func change(_ body: @escaping @Sendable (Interface) -> Void) {
    let em0 = router.em0
    stack.netisr.worker(0).perform { body(em0) }
    stack.netisr.settle()
  }
  func message(_ bytes: [UInt8]) -> [UInt8] {
    var message = bytes
    message.replaceSubrange(2..<4, with: [0, 0])
    message.replaceSubrange(2..<4, with: be16(Int(InternetChecksum.of(message))))
    return message
  }
  /// What was sent, without Ethernet's header and the identification.
  func sent() -> [[UInt8]] {
    router.out0.take().map { frame in
      var packet = Array(frame.bytes.dropFirst(14))
      #expect(InternetChecksum.sum(packet[..<24]) == 0xffff)
      packet.replaceSubrange(4..<6, with: [0, 1])
      packet.replaceSubrange(10..<12, with: [0, 0])
      packet.replaceSubrange(10..<12, with: be16(Int(InternetChecksum.of(packet[..<24]))))
      return packet
    }
  }
  func report(_ to: IPv4Address, _ bytes: [UInt8]) -> [UInt8] {
    ipv4(router.own0, to, proto: 2, message(bytes), ttl: 1, options: alert, tos: 0xc0)
  }
  func version3(_ type: UInt8) -> [UInt8] {
    report(IPv4Address(224, 0, 0, 22), [0x22, 0, 0, 0, 0, 0, 0, 1, type, 0, 0, 0] + group.bytes)
  }
  func query(_ bytes: [UInt8], to: IPv4Address = .allHosts, ttl: UInt8 = 1) {
    stack.receive(
      frame(MACAddress(1, 0, 0x5e, 0, 0, 1), router.hostMAC0, 0x800, ipv4(querier, to, proto: 2, message(bytes), ttl: ttl, options: alert)),
      on: router.em0)
  }

  @Test func version3TellsChangesTwiceAndAnswersInTime() {
    join(group)
    #expect(sent() == [version3(4)])
    stack.advance(seconds: 1.2)
    #expect(sent() == [version3(4)])
    stack.advance(seconds: 30)
    #expect(sent() == [])
    // A general query with ten seconds.
    query([0x11, 100, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0])
    stack.advance(seconds: 10.3)
    #expect(sent() == [version3(2)])
    // One for the group, one for another.
    query([0x11, 10, 0, 0] + group.bytes + [2, 125, 0, 0], to: group)
    query([0x11, 10, 0, 0, 239, 9, 9, 9, 2, 125, 0, 0], to: .allHosts)
    stack.advance(seconds: 1.3)
    #expect(sent() == [version3(2)])
    leave(group)
    stack.advance(seconds: 1.2)
    #expect(sent() == [version3(3), version3(3)])
    query([0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0])
    stack.advance(seconds: 2)
    #expect(sent() == [])
    stack.checkLedger()
  }

  @Test func anOlderQuerierMakesItVersion2UntilItIsGone() {
    query([0x11, 100, 0, 0, 0, 0, 0, 0])
    join(group)
    _ = sent()
    query([0x11, 100, 0, 0, 0, 0, 0, 0])
    stack.advance(seconds: 12)
    let reports = sent()
    #expect(reports.contains(report(group, [0x16, 0, 0, 0] + group.bytes)))
    leave(group)
    #expect(sent() == [report(IPv4Address(224, 0, 0, 2), [0x17, 0, 0, 0] + group.bytes)])
    stack.advance(seconds: 261, step: 5)
    join(group)
    #expect(sent() == [version3(4)])
  }

  @Test func anothersReportSilencesOurs() {
    join(group)
    stack.advance(seconds: 12)
    _ = sent()
    query([0x11, 100, 0, 0, 0, 0, 0, 0])
    stack.receive(
      frame(MACAddress(1, 0, 0x5e, 1, 2, 3), router.hostMAC0, 0x800, ipv4(querier, group, proto: 2, message([0x16, 0, 0, 0] + group.bytes), ttl: 1, options: alert)),
      on: router.em0)
    stack.advance(seconds: 12)
    #expect(sent() == [])
    #expect(stack.inet.count(.igmpOwnReports) == 1)
    // Not the last to report: no leave.
    leave(group)
    #expect(sent() == [])
  }

  @Test func allHostsIsJoinedWithTheFirstAddressAndNeverReported() throws {
    #expect(router.em0.linkMulticast == [MACAddress(1, 0, 0x5e, 0, 0, 1)])
    join(.allHosts)
    query([0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0])
    stack.advance(seconds: 3)
    #expect(sent() == [])
  }

  @Test func aGroupIsReceivedOnlyWhileJoined() {
    let packet = frame(MACAddress(1, 0, 0x5e, 1, 2, 3), router.hostMAC0, 0x800, ipv4(querier, group, icmp(8)))
    stack.receive(packet, on: router.em0)
    #expect(stack.inet.count(.ipNotMember) == 1)
    join(group)
    stack.receive(packet, on: router.em0)
    #expect(stack.inet.count(.ipNotMember) == 1 && stack.inet.count(.icmpReceived) == 1)
    leave(group)
    stack.receive(packet, on: router.em0)
    #expect(stack.inet.count(.ipNotMember) == 2)
  }

  @Test(arguments: [
    [0x11, 0, 0, 0, 0, 0, 0], [0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0], [0x11, 1, 0, 0, 10, 0, 0, 1], [0x99, 0, 0, 0, 0, 0, 0, 0],
  ] as [[UInt8]])
  func malformedMessagesAreDropped(bytes: [UInt8]) {
    query(bytes)
    #expect(stack.drops(.igmpMalformed) == 1)
    stack.checkLedger()
  }

  @Test func wrongChecksumsAndQueriesFromAfarAreDropped() {
    stack.receive(
      frame(MACAddress(1, 0, 0x5e, 0, 0, 1), router.hostMAC0, 0x800, ipv4(querier, .allHosts, proto: 2, [0x11, 1, 1, 1, 0, 0, 0, 0], ttl: 1)),
      on: router.em0)
    #expect(stack.drops(.igmpBadChecksum) == 1)
    query([0x11, 10, 0, 0, 0, 0, 0, 0], ttl: 2)
    #expect(stack.drops(.igmpMalformed) == 1)
  }
}
