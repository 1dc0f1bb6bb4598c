// Neighbours' states, and duplicate address detection, step by step on a clock of the test's own.

import Ifnet
import Netisr
import Packet
import Routes
import Testing
import Wire

@testable import Inet6

@Suite struct NeighbourTests {
  let secondMAC = MACAddress(2, 0, 0, 0, 0, 0xcc)

  func rig(_ change: (inout Inet6Configuration) -> Void = { _ in }) throws -> (Stack, Interface, FakeDriver) {
    let stack = try Stack(change)
    let (interface, driver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    return (stack, interface, driver)
  }
  func state(_ stack: Stack) -> NeighbourState? { stack.inet6.neighbours().first { $0.address == ip("2001:2::99") }?.state }
  func mac(_ stack: Stack) -> MACAddress? { stack.inet6.neighbours().first { $0.address == ip("2001:2::99") }?.mac }
  func solicitations(_ driver: FakeDriver) -> [[UInt8]] { driver.take().filter { $0.count >= 78 && $0[20] == 58 && $0[54] == 135 } }
  func advertise(_ stack: Stack, _ interface: Interface, flags: UInt8, _ mac: MACAddress?) {
    stack.receive(Make.advertisement("2001:2::99", flags & 0x40 != 0 ? "2001:2::1" : "ff02::1", target: "2001:2::99", flags: flags, link: mac), on: interface)
  }

  /// STALE, used, DELAY for five seconds, three probes to the neighbour alone, gone (RFC 4861, section 7.3.3).
  @Test func reachabilityIsProbed() throws {
    let (stack, interface, driver) = try rig()
    stack.receive(Make.solicitation("2001:2::99", "ff02::1:ff00:1", target: "2001:2::1", source: peerMAC), on: interface)
    // The answer itself is the first use.
    #expect(state(stack) == .delay)
    _ = driver.take()
    stack.wait(4.9)
    #expect(solicitations(driver).isEmpty)
    stack.wait(0.2)
    #expect(state(stack) == .probe)
    let probe = try #require(solicitations(driver).first)
    #expect(Array(probe.prefix(6)) == peerMAC.bytes)
    #expect(Array(probe[14...]) == Make.solicitation("2001:2::1", "2001:2::99", target: "2001:2::99", source: ownMAC))
    stack.wait(2)
    #expect(solicitations(driver).count == 2)
    stack.wait(1)
    #expect(state(stack) == nil)
  }

  @Test func anAnswerMakesItReachableAndTimeMakesItStale() throws {
    let (stack, interface, driver) = try rig()
    stack.receive(Make.solicitation("2001:2::99", "ff02::1:ff00:1", target: "2001:2::1", source: peerMAC), on: interface)
    stack.wait(5.1)
    advertise(stack, interface, flags: 0x60, nil)
    #expect(state(stack) == .reachable)
    stack.wait(46)
    #expect(state(stack) == .stale)
    _ = driver.take()
    stack.receive(Make.echo("2001:2::99", "2001:2::1"), on: interface)
    #expect(state(stack) == .delay)
    #expect(driver.take().count == 1)
  }

  /// RFC 4861, section 7.2.5: what an advertisement may change.
  @Test func theOverrideFlag() throws {
    let (stack, interface, driver) = try rig()
    stack.receive(Make.solicitation("2001:2::99", "ff02::1:ff00:1", target: "2001:2::1", source: peerMAC), on: interface)
    advertise(stack, interface, flags: 0x60, peerMAC)
    #expect(state(stack) == .reachable)
    // Another address without override: doubt, but no change.
    advertise(stack, interface, flags: 0x40, secondMAC)
    #expect((state(stack), mac(stack)) == (.stale, peerMAC))
    // With override, unasked: the change, unproven.
    advertise(stack, interface, flags: 0x20, secondMAC)
    #expect((state(stack), mac(stack)) == (.stale, secondMAC))
    // A group's address is nobody's.
    advertise(stack, interface, flags: 0x60, MACAddress(0x33, 0x33, 0, 0, 0, 1))
    #expect(mac(stack) == secondMAC)
    // The packets follow.
    _ = driver.take()
    stack.receive(Make.echo("2001:2::99", "2001:2::1"), on: interface)
    #expect(driver.take().first.map { Array($0.prefix(6)) } == secondMAC.bytes)
  }

  @Test func unaskedNeighboursAreNotMade() throws {
    let (stack, interface, _) = try rig()
    advertise(stack, interface, flags: 0x20, peerMAC)
    #expect(stack.inet6.neighbours().isEmpty)
  }

  @Test func theQueueIsBounded() throws {
    let (stack, interface, driver) = try rig { $0.settings.neighbourQueue = 3 }
    for i in 0..<5 { stack.receive(Make.echo("2001:2::99", "2001:2::1", sequence: i), on: interface) }
    #expect(stack.drops(.neighbourQueueFull) == 2)
    _ = driver.take()
    advertise(stack, interface, flags: 0x60, peerMAC)
    // The newest three, in order.
    #expect(driver.take().map { $0[61] } == [2, 3, 4])
    expectAccount(stack)
  }

  @Test func theTableIsBounded() throws {
    let (stack, interface, _) = try rig { $0.settings.neighbourLimit = 4 }
    for i in 0..<8 {
      let other = "2001:2::1:\(i)"
      stack.receive(Make.solicitation(other, "ff02::1:ff00:1", target: "2001:2::1", source: peerMAC), on: interface)
    }
    #expect(stack.inet6.neighbours().count <= 4)
  }

  @Test func byHand() throws {
    let (stack, interface, driver) = try rig()
    stack.receive(Make.echo("2001:2::99", "2001:2::1"), on: interface)
    _ = driver.take()
    try stack.inet6.setNeighbour(ip("2001:2::99"), peerMAC, on: interface)
    stack.netisr.settle()
    #expect(driver.take().count == 1)
    advertise(stack, interface, flags: 0x60, secondMAC)
    #expect((state(stack), mac(stack)) == (.permanent, peerMAC))
    try stack.inet6.deleteNeighbour(ip("2001:2::99"), on: interface)
    #expect(stack.inet6.neighbours().isEmpty)
    #expect(throws: InterfaceError.self) { try stack.inet6.deleteNeighbour(ip("2001:2::99"), on: interface) }
    #expect(throws: InterfaceError.self) { try stack.inet6.setNeighbour(ip("ff02::1"), peerMAC, on: interface) }
  }

  struct Wrong: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var packet: [UInt8]
  }
  static let wrong: [Wrong] = {
    let good = Make.solicitation("2001:2::99", "ff02::1:ff00:1", target: "2001:2::1", source: peerMAC)
    let from = "2001:2::99", to = "ff02::1:ff00:1"
    return [
      Wrong(testDescription: "hop limit 254", packet: Array(good[0..<7]) + [254] + good[8...]),
      Wrong(testDescription: "code 1", packet: Make.packet(from, to, 135, code: 1, [0, 0, 0, 0] + ip("2001:2::1").bytes)),
      Wrong(testDescription: "no target", packet: Make.packet(from, to, 135, [0, 0, 0, 0])),
      Wrong(testDescription: "target a group", packet: Make.packet(from, to, 135, [0, 0, 0, 0] + ip("ff02::1").bytes)),
      Wrong(testDescription: "option of no length", packet: Make.packet(from, to, 135, [0, 0, 0, 0] + ip("2001:2::1").bytes + [1, 0, 0, 0, 0, 0, 0, 0])),
      Wrong(testDescription: "option too long", packet: Make.packet(from, to, 135, [0, 0, 0, 0] + ip("2001:2::1").bytes + [1, 2, 0, 0, 0, 0, 0, 0])),
      Wrong(testDescription: "from nobody to an address", packet: Make.solicitation("::", "2001:2::1", target: "2001:2::1", source: nil)),
      Wrong(testDescription: "from nobody with an address", packet: Make.solicitation("::", to, target: "2001:2::1", source: peerMAC)),
      Wrong(
        testDescription: "in a fragment",
        packet: Make.ipv6(
          from, to, next: 44, hops: 255,
          [58, 0, 0, 0, 0, 0, 0, 1] + Make.icmp(from, to, 135, [0, 0, 0, 0] + ip("2001:2::1").bytes + [1, 1] + peerMAC.bytes))),
    ]
  }()

  @Test(arguments: wrong) func wrongMessagesAreDropped(one: Wrong) throws {
    let (stack, interface, driver) = try rig()
    stack.receive(one.packet, on: interface)
    #expect(driver.take().isEmpty)
    #expect(stack.inet6.neighbours().isEmpty)
    #expect(stack.drops(.neighbourMalformed) == 1)
    expectAccount(stack)
  }
}

@Suite struct DuplicateTests {
  func add(_ address: String, _ stack: Stack, _ interface: Interface) throws -> InterfaceAddress {
    try stack.inet6.control(.add(.ipv6(ip(address)), prefixLength: 64, broadcast: nil, destination: nil), on: interface)
    return try #require(interface.addresses.first { $0.address == .ipv6(ip(address)) })
  }

  @Test func anotherProbes() throws {
    let stack = try Stack()
    let (interface, driver) = try stack.attach("em", ownMAC)
    stack.wait(2)
    let entry = try add("2001:2::1", stack, interface)
    #expect(entry.ipv6Flags == .tentative)
    stack.netisr.settle()
    _ = driver.take()
    // A tentative address does not answer.
    stack.receive(Make.solicitation("2001:2::99", "ff02::1:ff00:1", target: "2001:2::1", source: peerMAC), on: interface)
    stack.receive(Make.echo("2001:2::99", "2001:2::1"), on: interface)
    #expect(driver.take().isEmpty)
    stack.receive(Make.solicitation("::", "ff02::1:ff00:1", target: "2001:2::1", source: nil), on: interface)
    #expect(entry.ipv6Flags == .duplicated)
    stack.wait(3)
    #expect(entry.ipv6Flags == .duplicated)
    #expect(stack.inet6[.duplicates] == 1)
    #expect(stack.routes.route(IPv6Prefix(ip("2001:2::1"), 128)) == nil)
  }

  @Test func anotherHasIt() throws {
    let stack = try Stack()
    let (interface, _) = try stack.attach("em", ownMAC)
    stack.wait(2)
    let events = Events()
    stack.inet6.onEvent { events.note($0) }
    let entry = try add("2001:2::1", stack, interface)
    stack.receive(Make.advertisement("2001:2::1", "ff02::1", target: "2001:2::1", flags: 0x20, link: peerMAC), on: interface)
    #expect(entry.ipv6Flags == .duplicated)
    #expect(events.all == [.duplicated(ip("2001:2::1"), interface: interface.index)])
  }

  /// The card's own link-local address is taken: no IPv6 on this link (RFC 4862, section 5.4.5).
  @Test func theLinkLocalAddressIsTaken() throws {
    let stack = try Stack()
    let (interface, driver) = try stack.attach("em", ownMAC)
    stack.receive(Make.advertisement("fe80::ff:fe00:a", "ff02::1", target: "fe80::ff:fe00:a", flags: 0x20, link: peerMAC), on: interface)
    stack.wait(3)
    _ = driver.take()
    stack.receive(Make.echo("fe80::99", "ff02::1"), on: interface)
    stack.wait(2)
    #expect(driver.take().isEmpty)
    #expect(stack.drops(.interfaceDown) == 1)
  }

  @Test func addressesComeAndGo() throws {
    let stack = try Stack()
    let (interface, driver) = try stack.attach("em", ownMAC)
    stack.wait(2)
    _ = try add("2001:2::1", stack, interface)
    #expect(stack.routes.route(IPv6Prefix(ip("2001:2::"), 64))?.flags == [.up, .connected])
    #expect(stack.routes.route(IPv6Prefix(ip("2001:2::1"), 128))?.flags == [.up, .host, .local])
    #expect(throws: InterfaceError.self) { _ = try add("2001:2::1", stack, interface) }
    #expect(throws: InterfaceError.self) { _ = try add("ff02::5", stack, interface) }
    #expect(throws: InterfaceError.self) { _ = try add("::1", stack, interface) }
    #expect(stack.inet6.groups(on: interface) == [ip("ff02::1"), ip("ff02::1:ff00:1"), ip("ff02::1:ff00:a")])
    try stack.inet6.control(.delete(.ipv6(ip("2001:2::1"))), on: interface)
    #expect(stack.inet6.groups(on: interface) == [ip("ff02::1"), ip("ff02::1:ff00:a")])
    #expect(stack.routes.list6().isEmpty)
    #expect(throws: InterfaceError.self) { try stack.inet6.control(.delete(.ipv6(ip("2001:2::1"))), on: interface) }
    // Leaving was said (MLDv2, change to include).
    stack.netisr.settle()
    #expect(driver.take().contains { $0.count == 14 + 40 + 8 + 28 && $0[62] == 143 && $0[70] == 3 })
  }

  @Test func anInterfaceGoes() throws {
    let stack = try Stack()
    let (interface, driver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    stack.receive(Make.echo("2001:2::99", "2001:2::1"), on: interface)
    stack.receive(Make.fragments(Make.echo("2001:2::99", "2001:2::1"), id: 3, [(0, 32)])[0], on: interface)
    #expect(stack.inet6.neighbours().count == 1)
    let free = stack.buffers.pool.available
    stack.inet6.detach(interface)
    stack.netisr.settle()
    #expect(stack.inet6.neighbours().isEmpty)
    #expect(stack.routes.list6().isEmpty)
    #expect(stack.buffers.pool.available == free + 2)
    #expect(interface.addresses.allSatisfy { $0.address.family != .ipv6 })
    _ = driver
    expectAccount(stack)
  }

  /// Down forgets, up proves again.
  @Test func downAndUp() throws {
    let stack = try Stack()
    let (interface, driver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    stack.inet6.changed(interface, isUp: false)
    #expect(stack.routes.list6().isEmpty)
    stack.receive(Make.echo("2001:2::99", "2001:2::1"), on: interface)
    #expect(driver.take().isEmpty)
    stack.inet6.changed(interface, isUp: true)
    stack.netisr.settle()
    let probes = driver.take().filter { $0[20] == 58 && $0[54] == 135 }
    #expect(probes.count == 2)
    stack.wait(1.1)
    #expect(interface.addresses.filter { $0.address.family == .ipv6 }.allSatisfy { $0.ipv6Flags == [] })
    #expect(stack.routes.list6().count == 2)
  }

  /// A new link address is told to all neighbours (RFC 4861, section 7.2.6).
  @Test func aNewLinkAddressIsAnnounced() throws {
    let stack = try Stack()
    let (interface, driver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    stack.inet6.linkAddressChanged(interface)
    stack.netisr.settle()
    let sent = driver.take().map { Array($0[14...]) }
    #expect(sent.contains(Make.advertisement("2001:2::1", "ff02::1", target: "2001:2::1", flags: 0x20, link: ownMAC)))
    #expect(sent.count == 2)
  }
}

final class Events: @unchecked Sendable {
  private(set) var all: [Inet6Event] = []
  func note(_ event: Inet6Event) { all.append(event) }
}
