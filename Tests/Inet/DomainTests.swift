// Addresses and their routes, options, groups.

import Ifnet
import Netisr
import Packet
import Routes
import Testing
import Wire

@testable import Inet

@Suite struct AddressTests {
  func routes(_ stack: Stack) -> [String] { stack.routes.list4().map { "\($0.prefix) \($0.flags)" } }

  @Test func anAddressBringsItsRoutesAndTakesThemAway() throws {
    let stack = try Stack()
    let (em0, driver) = try stack.attach("em", MACAddress(2, 0, 0, 0, 0, 1))
    try stack.add(IPv4Address(198, 18, 1, 1), 24, on: em0)
    #expect(routes(stack) == ["198.18.1.0/24 Uc", "198.18.1.1/32 UHl"])
    #expect(em0.addresses.first { $0.address == .ipv4(IPv4Address(198, 18, 1, 1)) }?.broadcast == .ipv4(IPv4Address(198, 18, 1, 255)))
    // Gratuitous ARP.
    #expect(driver.take().map { Array($0.bytes[38..<42]) } == [[198, 18, 1, 1]])
    try stack.control(.delete(.ipv4(IPv4Address(198, 18, 1, 1))), on: em0)
    #expect(routes(stack) == [])
    #expect(em0.addresses.allSatisfy { $0.address.family != .ipv4 })
  }

  @Test func theSecondOnTheSameNetworkTakesTheRouteOver() throws {
    let stack = try Stack()
    let (em0, _) = try stack.attach("em", MACAddress(2, 0, 0, 0, 0, 1))
    let (ix0, _) = try stack.attach("ix", MACAddress(2, 0, 0, 0, 0, 2))
    try stack.add(IPv4Address(198, 18, 1, 1), 24, on: em0)
    try stack.add(IPv4Address(198, 18, 1, 2), 24, on: ix0)
    #expect(stack.routes.list4().first { $0.prefix.length == 24 }?.interface == em0.index)
    try stack.control(.delete(.ipv4(IPv4Address(198, 18, 1, 1))), on: em0)
    #expect(stack.routes.list4().first { $0.prefix.length == 24 }?.interface == ix0.index)
  }

  @Test func setReplacesTheFirst() throws {
    let stack = try Stack()
    let (em0, _) = try stack.attach("em", MACAddress(2, 0, 0, 0, 0, 1))
    try stack.add(IPv4Address(198, 18, 1, 1), 24, on: em0)
    try stack.control(.set(.ipv4(IPv4Address(198, 19, 1, 1)), prefixLength: nil, broadcast: nil, destination: nil), on: em0)
    #expect(routes(stack) == ["198.19.1.0/24 Uc", "198.19.1.1/32 UHl"])
  }

  @Test func whatIsWrongIsRefused() throws {
    let stack = try Stack()
    let (em0, _) = try stack.attach("em", MACAddress(2, 0, 0, 0, 0, 1))
    let (ix0, _) = try stack.attach("ix", MACAddress(2, 0, 0, 0, 0, 2))
    let own = IPv4Address(198, 18, 1, 1)
    try stack.add(own, 24, on: em0)
    func code(_ request: AddressRequest, _ interface: Interface) -> InterfaceErrno? {
      do throws(InterfaceError) { try stack.control(request, on: interface) } catch { return error.code }
      return nil
    }
    func add(_ address: SocketAddress, _ length: Int? = 24, _ destination: SocketAddress? = nil) -> AddressRequest {
      .add(address, prefixLength: length, broadcast: nil, destination: destination)
    }
    #expect(code(add(.ipv4(own)), em0) == .EEXIST)
    #expect(code(add(.ipv4(own)), ix0) == .EEXIST)
    #expect(code(add(.ipv4(IPv4Address(224, 0, 0, 1))), em0) == .EINVAL)
    #expect(code(add(.ipv4(.any)), em0) == .EINVAL)
    #expect(code(add(.ipv4(.broadcast)), em0) == .EINVAL)
    #expect(code(add(.ipv4(IPv4Address(198, 18, 1, 2)), 33), em0) == .EINVAL)
    #expect(code(add(.ipv4(IPv4Address(198, 18, 1, 2)), 24, .ipv4(own)), em0) == .EINVAL)
    #expect(code(add(.ipv6(.loopback)), em0) == .EAFNOSUPPORT)
    #expect(code(.delete(.ipv4(IPv4Address(198, 18, 1, 2))), em0) == .EADDRNOTAVAIL)
    #expect(routes(stack) == ["198.18.1.0/24 Uc", "198.18.1.1/32 UHl"])
  }

  @Test func theNetworkGoesDownAndUpWithItsInterface() throws {
    let stack = try Stack()
    let (em0, driver) = try stack.attach("em", MACAddress(2, 0, 0, 0, 0, 1))
    try stack.add(IPv4Address(198, 18, 1, 1), 24, on: em0)
    _ = driver.take()
    let inet = stack.inet
    stack.netisr.worker(0).perform { inet.changed(em0, isUp: false) }
    #expect(routes(stack) == ["198.18.1.1/32 UHl"])
    stack.netisr.worker(0).perform { inet.changed(em0, isUp: true) }
    #expect(routes(stack) == ["198.18.1.0/24 Uc", "198.18.1.1/32 UHl"])
    stack.netisr.settle()
    #expect(driver.take().count == 1)
    stack.netisr.worker(0).perform { inet.linkAddressChanged(em0) }
    stack.netisr.settle()
    #expect(driver.take().count == 1)
  }

  @Test func settingsSayWhatTheyTake() throws {
    let stack = try Stack()
    #expect(try stack.netisr.sysctl.read("net.inet.ip.forwarding") == .integer(0))
    #expect(throws: SysctlError.self) { try stack.netisr.sysctl.write("net.inet.ip.forwarding", "2") }
    #expect(throws: SysctlError.self) { try stack.netisr.sysctl.write("net.inet.ip.ttl", "0") }
    try stack.netisr.sysctl.write("net.inet.ip.ttl", "33")
    #expect(try stack.netisr.sysctl.read("net.inet.ip.ttl") == .integer(33))
  }
}

@Suite struct OptionTests {
  @Test func aRouteIsRecordedHereAndOnTheWay() throws {
    let router = try Router()
    let empty: [UInt8] = [7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    router.receive0(ipv4(router.host0, router.host1, proto: 17, [1], options: empty))
    let sent = router.sent1()
    #expect(sent.map { Array($0[20..<32]) } == [[7, 11, 8] + router.own1.bytes + [0, 0, 0, 0, 0]])
    #expect(sent.allSatisfy { InternetChecksum.sum($0[..<32]) == 0xffff && $0[8] == 63 })
    // Full: nothing is written.
    router.receive0(ipv4(router.host0, router.host1, proto: 17, [1], options: [7, 7, 8, 1, 2, 3, 4, 0]))
    #expect(router.sent1().map { Array($0[20..<28]) } == [[7, 7, 8, 1, 2, 3, 4, 0]])
  }

  @Test func timestampsCountWhoHadNoRoom() throws {
    let router = try Router()
    router.receive0(ipv4(router.host0, router.host1, proto: 17, [1], options: [68, 8, 9, 0x20, 0, 0, 0, 0]))
    #expect(router.sent1().map { $0[23] } == [0x30])
    router.receive0(ipv4(router.host0, router.host1, proto: 17, [1], options: [68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0]))
    #expect(router.sent1().map { Array($0[22..<28]) } == [[13, 1] + router.own1.bytes])
  }

  @Test(arguments: [
    ([7, 2, 4, 0], 21), ([7, 12, 4, 0], 21), ([7, 4, 3, 0], 22), ([68, 4, 4, 0], 22), ([68, 4, 5, 0xf0], 23), ([148, 1, 0, 0], 21),
    ([1, 1, 1, 7], 23),
  ] as [([UInt8], UInt8)])
  func malformedOptionsAreToldWithTheirPlace(options: [UInt8], pointer: UInt8) throws {
    let router = try Router()
    router.receive0(ipv4(router.host0, router.host1, proto: 17, [1], options: options))
    #expect(router.sent1() == [])
    #expect(router.sent0().map { Array($0[20..<22] + $0[24..<28]) } == [[12, 0, pointer, 0, 0, 0]])
    #expect(router.stack.drops(.ipOptions) == 1)
    router.stack.checkLedger()
  }

  @Test func sourceRoutesAreRefusedUnlessAllowed() throws {
    let router = try Router()
    let options = [131, 7, 4] + router.host1.bytes + [0]
    let packet = ipv4(router.host0, router.own0, proto: 17, [1], options: options)
    router.receive0(packet)
    #expect(router.sent1() == [])
    #expect(router.sent0().map { Array($0[20..<22]) } == [[3, 5]])
    try router.stack.netisr.sysctl.write("net.inet.ip.sourceroute", "1")
    router.receive0(packet)
    #expect(router.sent1().map { Array($0[16..<28]) } == [router.host1.bytes + [131, 7, 8] + router.own1.bytes + [0]])
    router.stack.checkLedger()
  }

  @Test func optionsCanBeIgnoredOrForbidden() throws {
    let router = try Router()
    let packet = ipv4(router.host0, router.host1, proto: 17, [1], options: [7, 7, 4, 0, 0, 0, 0, 0])
    try router.stack.netisr.sysctl.write("net.inet.ip.process_options", "0")
    router.receive0(packet)
    #expect(router.sent1().map { Array($0[20..<28]) } == [[7, 7, 4, 0, 0, 0, 0, 0]])
    try router.stack.netisr.sysctl.write("net.inet.ip.process_options", "2")
    router.receive0(packet)
    #expect(router.sent1() == [] && router.stack.drops(.ipOptions) == 1)
  }
}
