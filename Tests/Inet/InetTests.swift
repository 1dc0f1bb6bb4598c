// Addresses, input, forwarding, ICMP: byte for byte.

import Ifnet
import Netisr
import Packet
import Routes
import Testing
import Wire

@testable import Inet

@Suite struct EchoTests {
  @Test func echoIsAnsweredByteForByte() throws {
    let router = try Router()
    router.receive0(ipv4(router.host0, router.own0, icmp(8, 0, [0, 7, 0, 1], [1, 2, 3])))
    let sent = router.sent0()
    #expect(sent.count == 1)
    var expected = ipv4(router.own0, router.host0, icmp(0, 0, [0, 7, 0, 1], [1, 2, 3]))
    // The identification is the stack's own.
    if let first = sent.first, first.count == expected.count {
      expected = ipv4(router.own0, router.host0, icmp(0, 0, [0, 7, 0, 1], [1, 2, 3]), id: Int(first[4]) << 8 | Int(first[5]))
    }
    #expect(sent == [expected])
    router.stack.checkLedger()
  }

  @Test func thePaddingOfShortFramesIsCutOff() throws {
    let router = try Router()
    router.receive0(ipv4(router.host0, router.own0, icmp(8)) + [UInt8](repeating: 0xaa, count: 18))
    #expect(router.sent0().map(\.count) == [28])
  }

  @Test func theOtherInterfacesAddressAnswersToo() throws {
    let router = try Router()
    router.receive0(ipv4(router.host0, router.own1, icmp(8)))
    #expect(router.sent0().map { Array($0[12..<20]) } == [router.own1.bytes + router.host0.bytes])
  }

  @Test func buffersCutAnywhereMakeNoDifference() throws {
    let router = try Router()
    let packet = ipv4(router.host0, router.own0, icmp(8, 0, [0, 7, 0, 1], Array(0..<200)))
    for cut in 14..<60 {
      router.receive0(packet, sizes: [cut, 3, 5])
      let sent = router.sent0()
      #expect(sent.map { Array($0[20...]) } == [icmp(0, 0, [0, 7, 0, 1], Array(0..<200))], "cut at \(cut)")
    }
    router.stack.checkLedger()
  }

  @Test func broadcastsAreNotAnsweredUnlessAskedFor() throws {
    let router = try Router()
    let packet = frame(.broadcast, router.hostMAC0, 0x800, ipv4(router.host0, IPv4Address(198, 18, 1, 255), icmp(8)))
    router.stack.receive(packet, on: router.em0)
    #expect(router.sent0() == [])
    #expect(router.stack.drops(.icmpSuppressed) == 1)
    try router.stack.netisr.sysctl.write("net.inet.icmp.bmcastecho", "1")
    router.stack.receive(packet, on: router.em0)
    #expect(router.sent0().map { Array($0[12..<20]) } == [router.own0.bytes + router.host0.bytes])
  }

  @Test func theCardsJudgementIsTaken() throws {
    let router = try Router()
    var packet = ipv4(router.host0, router.own0, icmp(8))
    packet[10] ^= 0x55
    router.receive0(packet)
    #expect(router.stack.drops(.ipBadChecksum) == 1)
    router.stack.receive(frame(router.mac0, router.hostMAC0, 0x800, packet), on: router.em0, flags: .ipChecksum)
    #expect(router.sent0().count == 1)
  }

  @Test func pingToOneselfComesBackThroughTheQueue() throws {
    let router = try Router()
    let (inet, netisr, target) = (router.stack.inet, router.stack.netisr, router.own0)
    let message = icmp(8)
    netisr.worker(0).perform {
      guard let packet = Worker.current?.allocate(), packet.reserveHeadroom(64), packet.extend(message.count) else { return }
      for (i, byte) in message.enumerated() { packet.setByte(byte, at: i) }
      inet.output(packet, Inet.OutputOptions(proto: 1, target: target))
    }
    netisr.settle()
    #expect(inet.count(.icmpEchoReplies) == 1)
    #expect(inet.count(.icmpReceived) == 2)
    #expect(router.stack.buffers.pool.available == router.stack.size)
  }
}

@Suite struct InputCheckTests {
  /// An echo request with one octet changed, or its end missing.
  static func changed(_ at: Int, _ value: UInt8, count: Int = 28) -> [UInt8] {
    var packet = ipv4(IPv4Address(198, 18, 1, 9), IPv4Address(198, 18, 1, 1), icmp(8))
    packet[at] = value
    return Array(packet.prefix(count))
  }
  static let host = IPv4Address(198, 18, 1, 9), own = IPv4Address(198, 18, 1, 1)
  static let wrong: [([UInt8], DropReason, InetCounter)] = [
    (changed(0, 0x65), .ipMalformed, .ipBadVersion), (changed(0, 0x44), .ipMalformed, .ipBadHeaderLength),
    (changed(0, 0x4f), .ipMalformed, .ipBadHeaderLength), (changed(11, 0xee), .ipBadChecksum, .ipBadChecksum),
    (changed(0, 0x45, count: 19), .ipMalformed, .ipTooSmall), (changed(0, 0x45, count: 27), .ipMalformed, .ipTooShort),
    (ipv4(IPv4Address(224, 0, 0, 1), own, icmp(8)), .ipBadAddress, .ipBadAddress),
    (ipv4(.broadcast, own, icmp(8)), .ipBadAddress, .ipBadAddress),
    (ipv4(IPv4Address(127, 0, 0, 1), own, icmp(8)), .ipBadAddress, .ipBadAddress),
    (ipv4(host, IPv4Address(127, 0, 0, 1), icmp(8)), .ipBadAddress, .ipBadAddress),
    (ipv4(host, .any, icmp(8)), .ipBadAddress, .ipBadAddress),
    (ipv4(host, IPv4Address(224, 1, 1, 1), icmp(8)), .ipNotForUs, .ipNotMember),
    (ipv4(host, own, [8, 0, 0, 0]), .icmpMalformed, .icmpTooShort),
    (ipv4(host, own, [8, 0, 1, 1, 0, 0, 0, 0]), .icmpBadChecksum, .icmpBadChecksum),
  ]

  @Test(arguments: wrong.indices)
  func whatIsWrongIsDroppedAndCounted(index: Int) throws {
    let router = try Router()
    let (packet, reason, counter) = Self.wrong[index]
    router.receive0(packet)
    #expect(router.sent0() == [] && router.sent1() == [])
    #expect(router.stack.netisr.drops.snapshot().map(\.reason) == [reason])
    #expect(router.stack.inet.count(counter) == 1)
    router.stack.checkLedger()
  }

  @Test func totalLengthBelowTheHeadersIsRefused() throws {
    let router = try Router()
    var packet = ipv4(router.host0, router.own0, icmp(8))
    packet.replaceSubrange(2..<4, with: be16(19))
    packet.replaceSubrange(10..<12, with: [0, 0])
    packet.replaceSubrange(10..<12, with: be16(Int(InternetChecksum.of(packet[..<20]))))
    router.receive0(packet)
    #expect(router.stack.inet.count(.ipBadLength) == 1)
  }

  @Test func portsAndProtocolsThatNobodyHasAreUnreachable() throws {
    let router = try Router()
    let udp: [UInt8] = [0, 9, 0, 9, 0, 12, 0, 0, 1, 2, 3, 4]
    let packet = ipv4(router.host0, router.own0, proto: 17, udp)
    router.receive0(packet)
    let sent = router.sent0()
    #expect(sent.map { Array($0[20...]) } == [icmp(3, 3, [0, 0, 0, 0], packet)])
    #expect(sent.map { Array($0[12..<20]) } == [router.own0.bytes + router.host0.bytes])
    #expect(sent.map { $0[1] } == [0xc0])
    router.receive0(ipv4(router.host0, router.own0, proto: 132, udp))
    #expect(router.sent0().map { Array($0[20..<22]) } == [[3, 2]])
    #expect(router.stack.drops(.ipUnknownProtocol) == 2)
    router.stack.checkLedger()
  }

  @Test func aRegisteredProtocolGetsItsPackets() throws {
    let router = try Router()
    let (inet, ether) = (router.stack.inet, router.stack.ether)
    inet.register(proto: 200) { [unowned ether] packet, length in
      check(packet.byte(at: length) == 0x77)
      ether.deliver(packet)
    }
    router.receive0(ipv4(router.host0, router.own0, proto: 200, [0x77]))
    #expect(router.sent0() == [] && inet.count(.ipDelivered) == 1)
    inet.register(proto: 200, nil)
    router.receive0(ipv4(router.host0, router.own0, proto: 200, [0x77]))
    #expect(router.sent0().count == 1)
  }
}

@Suite struct ForwardingTests {
  @Test func aPacketGoesThroughWithAHopLess() throws {
    let router = try Router()
    let packet = ipv4(router.host0, router.host1, proto: 17, Array(0..<50), ttl: 64, id: 99)
    router.receive0(packet)
    #expect(router.sent1() == [ipv4(router.host0, router.host1, proto: 17, Array(0..<50), ttl: 63, id: 99)])
    #expect(router.stack.inet.count(.ipForwarded) == 1)
    router.stack.checkLedger()
  }

  @Test func everyTimeToLiveKeepsItsChecksum() throws {
    let router = try Router()
    for ttl in 2...255 {
      router.receive0(ipv4(router.host0, router.host1, proto: 17, [1], ttl: UInt8(ttl), id: 0xfff0 + ttl & 0xffff))
      #expect(router.sent1() == [ipv4(router.host0, router.host1, proto: 17, [1], ttl: UInt8(ttl - 1), id: 0xfff0 + ttl & 0xffff)])
    }
  }

  @Test(arguments: [0, 1] as [UInt8])
  func theLastHopIsToldTimeExceeded(ttl: UInt8) throws {
    let router = try Router()
    let packet = ipv4(router.host0, router.host1, proto: 17, Array(0..<20), ttl: ttl)
    router.receive0(packet)
    #expect(router.sent1() == [])
    #expect(router.sent0().map { Array($0[20...]) } == [icmp(11, 0, [0, 0, 0, 0], packet)])
    #expect(router.stack.drops(.ipTimeToLive) == 1)
    router.stack.checkLedger()
  }

  @Test func withoutForwardingNothingGoesOn() throws {
    let router = try Router()
    try router.stack.netisr.sysctl.write("net.inet.ip.forwarding", "0")
    router.receive0(ipv4(router.host0, router.host1, icmp(8)))
    #expect(router.sent1() == [] && router.stack.drops(.ipForwardingOff) == 1)
  }

  @Test func noRouteRejectAndBlackhole() throws {
    let router = try Router()
    let far = IPv4Address(198, 19, 0, 1)
    router.receive0(ipv4(router.host0, far, proto: 17, [1]))
    #expect(router.sent0().map { Array($0[20..<22]) } == [[3, 1]])
    #expect(router.stack.drops(.ipNoRoute) == 1)
    try router.stack.routes.add(Route4(IPv4Prefix(far, 32), interface: router.em1.index, flags: [.up, .reject]))
    router.stack.netisr.settle()
    router.receive0(ipv4(router.host0, far, proto: 17, [1]))
    #expect(router.sent0().map { Array($0[20..<22]) } == [[3, 1]])
    try router.stack.routes.add(Route4(IPv4Prefix(far, 32), interface: router.em1.index, flags: [.up, .blackhole]), replacing: true)
    router.stack.netisr.settle()
    router.receive0(ipv4(router.host0, far, proto: 17, [1]))
    #expect(router.sent0() == [])
    #expect(router.stack.drops(.ipProhibited) == 2)
    router.stack.checkLedger()
  }

  @Test func aGatewayIsTheNextHop() throws {
    let router = try Router()
    try router.stack.routes.add(
      Route4(IPv4Prefix(IPv4Address(198, 19, 0, 0), 16), gateway: router.host1, interface: router.em1.index, flags: [.up, .gateway]))
    router.stack.netisr.settle()
    router.receive0(ipv4(router.host0, IPv4Address(198, 19, 4, 4), proto: 17, [1]))
    #expect(router.sent1().map { Array($0[16..<20]) } == [[198, 19, 4, 4]])
  }

  @Test func aPacketThatLeavesWhereItCameInMakesARedirect() throws {
    let router = try Router()
    let other = IPv4Address(198, 18, 1, 77), mac = MACAddress(2, 0, 0, 0, 0, 77)
    router.stack.receive(frame(router.mac0, mac, 0x806, arp(2, mac, other, router.mac0, router.own0)), on: router.em0)
    try router.stack.routes.add(
      Route4(IPv4Prefix(IPv4Address(198, 19, 0, 0), 16), gateway: other, interface: router.em0.index, flags: [.up, .gateway]))
    router.stack.netisr.settle()
    let packet = ipv4(router.host0, IPv4Address(198, 19, 4, 4), proto: 17, [1])
    router.receive0(packet)
    let sent = router.out0.take().map(\.bytes)
    #expect(sent.count == 2)
    let redirect = sent.first { $0.starts(with: router.hostMAC0.bytes) }
    #expect(redirect.map { Array($0[34...]) } == icmp(5, 1, other.bytes, packet))
    #expect(sent.contains { $0.starts(with: mac.bytes) })
    try router.stack.netisr.sysctl.write("net.inet.ip.redirect", "0")
    router.receive0(packet)
    #expect(router.out0.take().count == 1)
  }

  @Test(arguments: [
    (MACAddress.broadcast, IPv4Address(198, 18, 2, 9), DropReason.ipNotForUs),
    (MACAddress(2, 0, 0, 0, 0, 1), IPv4Address(198, 18, 2, 255), .ipBadAddress),
    (MACAddress(2, 0, 0, 0, 0, 1), IPv4Address(169, 254, 1, 1), .ipNotForUs),
    (MACAddress(2, 0, 0, 0, 0, 1), IPv4Address(0, 1, 2, 3), .ipNotForUs),
    (MACAddress(2, 0, 0, 0, 0, 1), IPv4Address(240, 0, 0, 1), .ipBadAddress),
  ])
  func whatMustNotBeForwardedIsNot(target: MACAddress, address: IPv4Address, reason: DropReason) throws {
    let router = try Router()
    router.stack.receive(frame(target, router.hostMAC0, 0x800, ipv4(router.host0, address, proto: 17, [1])), on: router.em0)
    #expect(router.out0.take() == [] && router.out1.take() == [])
    #expect(router.stack.drops(reason) == 1)
    router.stack.checkLedger()
  }

  @Test func errorsAreLimited() throws {
    let router = try Router()
    try router.stack.netisr.sysctl.write("net.inet.icmp.icmplim", "3")
    for _ in 0..<5 { router.receive0(ipv4(router.host0, router.host1, proto: 17, [1], ttl: 1)) }
    #expect(router.sent0().count == 3)
    #expect(router.stack.inet.count(.icmpLimited) == 2)
    router.stack.advance(seconds: 1)
    router.receive0(ipv4(router.host0, router.host1, proto: 17, [1], ttl: 1))
    #expect(router.sent0().count == 1)
  }

  @Test func noErrorsAboutErrorsFragmentsAndGroups() throws {
    let router = try Router()
    router.receive0(ipv4(router.host0, router.host1, icmp(3, 1, [0, 0, 0, 0], Array(0..<28)), ttl: 1))
    router.receive0(ipv4(router.host0, router.host1, proto: 17, [1, 2, 3, 4, 5, 6, 7, 8], ttl: 1, fragment: 5))
    router.receive0(ipv4(.any, router.host1, proto: 17, [1], ttl: 1))
    #expect(router.sent0() == [])
    router.receive0(ipv4(router.host0, router.host1, icmp(8), ttl: 1))
    #expect(router.sent0().count == 1)
  }
}
