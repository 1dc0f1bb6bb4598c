// Router advertisements taken and given, redirects followed, listeners' reports.

import Ifnet
import Netisr
import Packet
import Routes
import Testing
import Wire

@testable import Inet6

@Suite struct RouterTests {
  let router = "fe80::1"

  func rig(_ change: (inout Inet6Configuration) -> Void = { _ in }) throws -> (Stack, Interface, FakeDriver) {
    let stack = try Stack {
      $0.settings.acceptRouterAdvertisements = true
      change(&$0)
    }
    let (interface, driver) = try stack.attach("em", ownMAC)
    stack.wait(1.5)
    _ = driver.take()
    return (stack, interface, driver)
  }

  /// An advertisement: hop limit 61, a lifetime, the router's MAC, MTU 1400 and 2001:2::/64 with lifetimes.
  func advertisement(_ lifetime: Int, valid: UInt32 = 3600, preferred: UInt32 = 1800, from: String = "fe80::1", preference: UInt8 = 0) -> [UInt8] {
    func word(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(24 - 8 * $0)) } }
    var rest: [UInt8] = [61, preference] + Make.word(lifetime) + word(0) + word(0) + [1, 1] + peerMAC.bytes
    rest += [5, 1, 0, 0] + word(1400)
    rest += [3, 4, 64, 0xc0] + word(valid) + word(preferred) + word(0) + ip("2001:2::").bytes
    return Make.packet(from, "ff02::1", 134, rest)
  }

  @Test func anAdvertisementConfigures() throws {
    let (stack, interface, driver) = try rig()
    stack.receive(advertisement(1800), on: interface)
    let all = IPv6Prefix(.any, 0)
    #expect(stack.routes.route(all)?.gateway == ip(router))
    #expect(stack.routes.route(all)?.flags == [.up, .gateway, .dynamic])
    #expect(stack.routes.route(IPv6Prefix(ip("2001:2::"), 64))?.interface == interface.index)
    stack.wait(1.5)
    let own = "2001:2::ff:fe00:a"
    let entry = try #require(interface.addresses.first { $0.address == .ipv6(ip(own)) })
    #expect(entry.ipv6Flags == .autoconf)
    #expect(stack.inet6.neighbours().first.map { ($0.mac == peerMAC, $0.isRouter) } ?? (false, false) == (true, true))
    // The router's hop limit and MTU hold for what goes out.
    _ = driver.take()
    stack.receive(Make.echo("2001:2:0:5::1", own, Array(repeating: 1, count: 1380)), on: interface)
    let sent = driver.take().filter { $0[20] == 44 }
    #expect(sent.count == 2)
    #expect(sent.allSatisfy { $0.count <= 14 + 1400 && $0[21] == 61 && Array($0.prefix(6)) == peerMAC.bytes })
    // No more questions.
    let asked = stack.inet6[.routerSolicitationOut]
    stack.wait(10)
    #expect(stack.inet6[.routerSolicitationOut] == asked)
  }

  @Test func lifetimesEnd() throws {
    let (stack, interface, _) = try rig()
    stack.receive(advertisement(60, valid: 100, preferred: 20), on: interface)
    stack.wait(3)
    let entry = try #require(interface.addresses.first { $0.address == .ipv6(ip("2001:2::ff:fe00:a")) })
    #expect(entry.ipv6Flags == .autoconf)
    stack.wait(20)
    #expect(entry.ipv6Flags == [.autoconf, .deprecated])
    stack.wait(40)
    #expect(stack.inet6.defaultRouters().isEmpty)
    #expect(stack.routes.route(IPv6Prefix(.any, 0)) == nil)
    stack.wait(40)
    #expect(!interface.addresses.contains { $0.address == .ipv6(ip("2001:2::ff:fe00:a")) })
    #expect(stack.routes.list6().isEmpty)
  }

  /// A short lifetime that nobody proves does not end an address at once (RFC 4862, section 5.5.3 e).
  @Test func theTwoHourRule() throws {
    let (stack, interface, _) = try rig()
    stack.receive(advertisement(1800, valid: 86400), on: interface)
    stack.wait(1.5)
    stack.receive(advertisement(1800, valid: 10, preferred: 5), on: interface)
    stack.wait(60)
    #expect(interface.addresses.contains { $0.address == .ipv6(ip("2001:2::ff:fe00:a")) })
  }

  @Test func theBetterRouterIsTaken() throws {
    let (stack, interface, _) = try rig()
    stack.receive(advertisement(1800), on: interface)
    stack.receive(advertisement(1800, from: "fe80::2", preference: 0x08), on: interface)
    #expect(stack.routes.route(IPv6Prefix(.any, 0))?.gateway == ip("fe80::2"))
    stack.receive(advertisement(0, from: "fe80::2"), on: interface)
    #expect(stack.routes.route(IPv6Prefix(.any, 0))?.gateway == ip("fe80::1"))
  }

  @Test func aRouteByHandStays() throws {
    let (stack, interface, _) = try rig()
    let own = Route6(IPv6Prefix(.any, 0), gateway: ip("2001:2::7"), interface: interface.index, flags: [.up, .gateway, .static])
    try stack.routes.add(own)
    stack.receive(advertisement(1800), on: interface)
    stack.receive(advertisement(0), on: interface)
    #expect(stack.routes.route(IPv6Prefix(.any, 0)) == own)
  }

  @Test func routersDoNotListen() throws {
    let (stack, interface, _) = try rig { $0.settings.forwarding = true }
    stack.receive(advertisement(1800), on: interface)
    #expect(stack.routes.list6().isEmpty)
    #expect(stack.inet6.groups(on: interface).contains(.allRouters))
  }

  @Test func onlyLinkLocalRoutersAreBelieved() throws {
    let (stack, interface, _) = try rig()
    stack.receive(advertisement(1800, from: "2001:2::1"), on: interface)
    #expect(stack.routes.list6().isEmpty)
    #expect(stack.inet6[.badRouter] == 1)
  }

  /// A router with `rtadv` answers solicitations and says farewell.
  @Test func aRouterAdvertises() throws {
    let stack = try Stack {
      $0.settings.forwarding = true
      $0.settings.sendRouterAdvertisements = true
    }
    let (interface, driver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    stack.receive(Make.packet("fe80::99", "ff02::2", 133, [0, 0, 0, 0, 1, 1] + peerMAC.bytes), on: interface)
    let sent = try #require(driver.take().first { $0[54] == 134 })
    let lifetimes: [UInt8] = [0x00, 0x27, 0x8d, 0x00, 0x00, 0x09, 0x3a, 0x80]
    let prefix: [UInt8] = [3, 4, 64, 0xc0] + lifetimes + [0, 0, 0, 0] + ip("2001:2::").bytes
    let rest: [UInt8] = [64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1] + ownMAC.bytes + [5, 1, 0, 0, 0, 0, 0x05, 0xdc] + prefix
    #expect(Array(sent[14...]) == Make.packet("fe80::ff:fe00:a", "ff02::1", 134, rest))
    try stack.netisr.sysctl.write("net.inet6.ip6.forwarding", "0")
    stack.netisr.settle()
    #expect(driver.take().contains { $0[54] == 134 && $0[60] == 0 && $0[61] == 0 })
  }

  @Test func redirectsAreFollowed() throws {
    let (stack, interface, driver) = try rig()
    stack.receive(advertisement(1800), on: interface)
    stack.wait(1.5)
    let far = "2001:2:0:9::1"
    let better = MACAddress(2, 0, 0, 0, 0, 0xee)
    let body = [0, 0, 0, 0] + ip("fe80::2").bytes + ip(far).bytes + [2, 1] + better.bytes
    // Only from the first hop that is used.
    stack.receive(Make.packet("fe80::5", "fe80::ff:fe00:a", 137, body), on: interface)
    #expect(stack.routes.route(IPv6Prefix(ip(far), 128)) == nil)
    stack.receive(Make.packet("fe80::1", "fe80::ff:fe00:a", 137, body), on: interface)
    #expect(stack.routes.route(IPv6Prefix(ip(far), 128))?.gateway == ip("fe80::2"))
    _ = driver.take()
    stack.receive(Make.echo(far, "2001:2::ff:fe00:a"), on: interface)
    #expect(driver.take().first.map { Array($0.prefix(6)) } == better.bytes)
  }
}

@Suite struct ListenerTests {
  func query(_ group: String = "::", version: Int = 2, milliseconds: Int = 1000, hops: UInt8 = 1, alert: Bool = true) -> [UInt8] {
    let to = group == "::" ? "ff02::1" : group
    let tail: [UInt8] = version == 2 ? [2, 125, 0, 0] : []
    let message = Make.icmp("fe80::1", to, 130, Make.word(milliseconds) + [0, 0] + ip(group).bytes + tail)
    return alert
      ? Make.ipv6("fe80::1", to, next: 0, hops: hops, [58, 0, 5, 2, 0, 0, 1, 0] + message)
      : Make.ipv6("fe80::1", to, next: 58, hops: hops, message)
  }

  func rig() throws -> (Stack, Interface, FakeDriver) {
    let stack = try Stack()
    let (interface, driver) = try stack.attach("em", ownMAC, address: "2001:2::1")
    return (stack, interface, driver)
  }

  @Test func generalQuery() throws {
    let (stack, interface, driver) = try rig()
    stack.receive(query(), on: interface)
    stack.wait(1.1)
    let records = [2, 0, 0, 0] + ip("ff02::1:ff00:1").bytes + [2, 0, 0, 0] + ip("ff02::1:ff00:a").bytes
    let message = Make.icmp("fe80::ff:fe00:a", "ff02::16", 143, [0, 0, 0, 2] + records)
    #expect(
      driver.take().map { Array($0[14...]) }
        == [Make.ipv6("fe80::ff:fe00:a", "ff02::16", next: 0, hops: 1, [58, 0, 5, 2, 0, 0, 1, 0] + message)])
  }

  @Test func queryForOneGroup() throws {
    let (stack, interface, driver) = try rig()
    stack.receive(query("ff02::1:ff00:1"), on: interface)
    stack.wait(1.1)
    #expect(driver.take().map(\.count) == [14 + 40 + 8 + 28])
    stack.receive(query("ff02::5"), on: interface)
    stack.wait(1.1)
    #expect(driver.take().isEmpty)
  }

  /// A version 1 querier gets version 1 reports; another listener's report spares ours; leaving is said if ours was last.
  @Test func versionOne() throws {
    let (stack, interface, driver) = try rig()
    stack.receive(query(version: 1), on: interface)
    let other = Make.icmp("fe80::99", "ff02::1:ff00:1", 131, [0, 0, 0, 0] + ip("ff02::1:ff00:1").bytes)
    stack.receive(Make.ipv6("fe80::99", "ff02::1:ff00:1", next: 0, hops: 1, [58, 0, 5, 2, 0, 0, 1, 0] + other), on: interface)
    stack.wait(1.1)
    let report = Make.icmp("fe80::ff:fe00:a", "ff02::1:ff00:a", 131, [0, 0, 0, 0] + ip("ff02::1:ff00:a").bytes)
    #expect(
      driver.take().map { Array($0[14...]) }
        == [Make.ipv6("fe80::ff:fe00:a", "ff02::1:ff00:a", next: 0, hops: 1, [58, 0, 5, 2, 0, 0, 1, 0] + report)])
    try stack.inet6.control(.delete(.ipv6(ip("2001:2::1"))), on: interface)
    stack.netisr.settle()
    #expect(driver.take().isEmpty)
    stack.wait(261)
    stack.receive(query(), on: interface)
    stack.wait(1.1)
    #expect(driver.take().contains { $0[62] == 143 })
  }

  @Test func unsoundQueries() throws {
    let (stack, interface, driver) = try rig()
    stack.receive(query(hops: 2), on: interface)
    stack.receive(query(alert: false), on: interface)
    stack.wait(2)
    #expect(driver.take().isEmpty)
    #expect(stack.drops(.mldMalformed) == 2)
    expectAccount(stack)
  }

  /// Groups that others join on the interface are heard and reported, and left when they leave.
  @Test func othersJoin() throws {
    let (stack, interface, driver) = try rig()
    let group = ip("ff05::123")
    try interface.addMulticast(.ipv6(group))
    stack.netisr.settle()
    #expect(stack.inet6.groups(on: interface).contains(group))
    #expect(driver.take().contains { $0.count == 14 + 40 + 8 + 28 && $0[70] == 4 && Array($0[74..<90]) == group.bytes })
    try interface.deleteMulticast(.ipv6(group))
    stack.netisr.settle()
    #expect(!stack.inet6.groups(on: interface).contains(group))
    #expect(driver.take().contains { $0.count == 14 + 40 + 8 + 28 && $0[70] == 3 && Array($0[74..<90]) == group.bytes })
    // Each address's group is in the card's filter.
    #expect(interface.linkMulticast.contains(MACAddress(0x33, 0x33, 0xff, 0, 0, 0x0a)))
  }
}
