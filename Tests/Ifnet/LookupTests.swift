// Finding addresses: by equality, by destination, by network, by interface.

import Netisr
import Synchronization
import Testing
import Wire

@testable import Ifnet

@Suite struct LookupTests {
  private func v4(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) -> SocketAddress { .ipv4(IPv4Address(a, b, c, d)) }

  @discardableResult
  private func add(
    _ address: SocketAddress, _ length: Int, to interface: Interface, broadcast: SocketAddress? = nil, destination: SocketAddress? = nil,
    atHead: Bool = false, claims: (@Sendable (SocketAddress) -> Bool)? = nil
  ) -> InterfaceAddress {
    let entry = InterfaceAddress(
      address, on: interface, prefixLength: length, broadcast: broadcast, destination: destination, claims: claims)
    interface.add(entry, atHead: atHead)
    return entry
  }

  @Test("Case 60: 10.0.0.0/8 and 10.1.0.0/16, lookup 10.1.2.3 -> the /16")
  func mostSpecific() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0"), em1 = try bench.attach("em1"), em2 = try bench.attach("em2")
    let wide = add(v4(10, 0, 0, 1), 8, to: em0)
    let narrow = add(v4(10, 1, 0, 1), 16, to: em1)
    add(v4(10, 1, 9, 1), 16, to: em2)
    #expect(bench.table.address(onNetworkOf: v4(10, 1, 2, 3)) === narrow)
    #expect(bench.table.address(onNetworkOf: v4(10, 2, 2, 3)) === wide)
    #expect(bench.table.address(onNetworkOf: v4(11, 1, 2, 3)) == nil)
    // Of equal masks the first.
    em1.remove(narrow)
    #expect(bench.table.address(onNetworkOf: v4(10, 1, 2, 3))?.interface.value === em2)
    #expect(bench.table.address(onNetworkOf: .other(family: 99, bytes: [1])) == nil)
  }

  @Test func networksOfLinks() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0"), em1 = try bench.attach("em1")
    _ = try bench.attach("em2")
    #expect(bench.table.address(onNetworkOf: .link(index: 2, bytes: [])) === em1.addresses.first)
    bench.table.detach(em1)
    #expect(bench.table.address(onNetworkOf: .link(index: 2, bytes: [])) == nil)
    #expect(bench.table.address(onNetworkOf: .link(index: 60000, bytes: [])) == nil)
    #expect(bench.table.address(onNetworkOf: .link(index: 0, bytes: [])) == nil)
    #expect(em0.addresses.first?.address == .link(1, try #require(em0.linkAddress)))
  }

  @Test func pointToPointAndClaims() throws {
    let bench = try Bench()
    let tun = try bench.attach("tun0", type: .tunnel) { $0.flags = [.pointToPoint, .multicast] }
    let end = add(v4(10, 9, 0, 1), 8, to: tun, destination: v4(10, 9, 0, 2))
    // The mask says nothing on a point-to-point interface.
    #expect(bench.table.address(onNetworkOf: v4(10, 9, 0, 3)) == nil)
    #expect(bench.table.address(onNetworkOf: v4(10, 9, 0, 2)) === end)
    #expect(bench.table.address(withDestination: v4(10, 9, 0, 2)) === end)
    let em0 = try bench.attach("em0")
    add(v4(10, 8, 0, 1), 24, to: em0, destination: v4(10, 8, 0, 9))
    #expect(bench.table.address(withDestination: v4(10, 8, 0, 9)) == nil)
    // A claim beats the mask, both ways.
    let claimed = add(v4(198, 18, 0, 1), 24, to: em0) { $0 == .ipv4(IPv4Address(203, 0, 113, 5)) }
    #expect(bench.table.address(onNetworkOf: v4(203, 0, 113, 5)) === claimed)
    #expect(bench.table.address(onNetworkOf: v4(198, 18, 0, 7)) == nil)
  }

  @Test func equalOrBroadcast() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0")
    let entry = add(v4(198, 18, 0, 1), 24, to: em0, broadcast: v4(198, 18, 0, 255))
    #expect(bench.table.address(equal: v4(198, 18, 0, 1)) === entry)
    #expect(bench.table.address(equal: v4(198, 18, 0, 255)) === entry)
    #expect(bench.table.address(equal: v4(198, 18, 0, 2)) == nil)
    let tun = try bench.attach("tun0", type: .tunnel) { $0.flags = [.pointToPoint] }
    add(v4(198, 18, 1, 1), 24, to: tun, broadcast: v4(198, 18, 1, 255))
    #expect(bench.table.address(equal: v4(198, 18, 1, 255)) == nil)
    // Another stack instance has addresses of its own.
    let foreign = try bench.attach("em9") { $0.vnet = Vnet(rawValue: 5) }
    let other = add(v4(198, 18, 0, 1), 24, to: foreign)
    #expect(bench.table.address(equal: v4(198, 18, 0, 1), vnet: Vnet(rawValue: 5)) === other)
    #expect(bench.table.localAddress(IPv4Address(198, 18, 0, 1), vnet: Vnet(rawValue: 5)) === other)
    #expect(bench.table.localAddress(IPv4Address(198, 18, 0, 1)) === entry)
  }

  @Test func suitingAddresses() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0")
    let first = add(v4(198, 18, 0, 1), 24, to: em0)
    let second = add(v4(198, 18, 1, 1), 24, to: em0)
    #expect(em0.address(suiting: v4(198, 18, 1, 77)) === second)
    #expect(em0.address(suiting: v4(203, 0, 113, 1)) === first)
    #expect(em0.address(suiting: .ipv6(.loopback)) == nil)
    #expect(em0.address(suiting: .other(family: 99, bytes: [])) == nil)
    #expect(em0.address(suiting: .link(index: 77, bytes: [])) === em0.addresses.first)
    let tun = try bench.attach("tun0", type: .tunnel) { $0.flags = [.pointToPoint] }
    let one = add(v4(10, 0, 0, 1), 8, to: tun, destination: v4(10, 0, 0, 2))
    let two = add(v4(10, 0, 1, 1), 8, to: tun, destination: v4(10, 0, 1, 2))
    #expect(tun.address(suiting: v4(10, 0, 1, 2)) === two)
    #expect(tun.address(suiting: v4(10, 0, 7, 7)) === one)
  }

  @Test func routesToTheLinkAreRepointed() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0")
    #expect(em0.repointRoute(to: v4(198, 18, 0, 9)) == nil)
    let calls = EventLog()
    let real = InterfaceAddress(v4(198, 18, 0, 1), on: em0, prefixLength: 24, routeRequest: { calls.add("\($0)") })
    em0.add(real)
    #expect(em0.repointRoute(to: v4(198, 18, 0, 9)) === real)
    #expect(calls.take() == ["198.18.0.9"])
  }

  @Test func anyEthernetAddress() throws {
    let bench = try Bench()
    #expect(errno { try bench.table.anyEthernetAddress() } == .ENOENT)
    _ = try bench.attach("lo0", type: .loopback)
    _ = try bench.attach("em0") { $0.linkAddress = nil }
    #expect(errno { try bench.table.anyEthernetAddress() } == .ENOENT)
    _ = try bench.attach("em1")
    #expect(try bench.table.anyEthernetAddress() == MACAddress(0x52, 0x54, 0, 0, 0, 49))
  }

  @Test func everyWorkerHasItsList() throws {
    let bench = try Bench(workers: 3)
    let em0 = try bench.attach("em0")
    _ = bench.seen
    let tail = add(v4(198, 18, 0, 1), 24, to: em0)
    let head = add(v4(198, 18, 0, 2), 24, to: em0, atHead: true)
    #expect(bench.seen == ["em0 addressAdded(\(String(reflecting: tail.address)))", "em0 addressAdded(\(String(reflecting: head.address)))"])
    for worker in bench.netisr.workers {
      // The link-level address is the first in every list.
      #expect(worker.perform { em0.addresses.map(\.address.family) } == [.link, .ipv4, .ipv4])
      #expect(worker.perform { em0.addresses[1] === head && em0.addresses[2] === tail })
      #expect(worker.perform { bench.table.localAddress(IPv4Address(198, 18, 0, 1)) === tail })
      #expect(worker.perform { bench.table.isLocal(IPv4Address(198, 18, 0, 3)) } == false)
    }
    // From another worker by message, in order.
    bench.netisr.workers[2].perform {
      em0.remove(tail)
      em0.remove(tail)
    }
    bench.netisr.settle()
    #expect(bench.seen == ["em0 addressRemoved(\(String(reflecting: tail.address)))"])
    for worker in bench.netisr.workers { #expect(worker.perform { bench.table.isLocal(IPv4Address(198, 18, 0, 1)) } == false) }
  }

  @Test func linkLocalAddressesBelongToTheirInterface() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0"), em1 = try bench.attach("em1")
    let linkLocal = try #require(IPv6Address("fe80::1")), global = try #require(IPv6Address("2001:2::1"))
    let one = add(.ipv6(linkLocal), 64, to: em0), two = add(.ipv6(linkLocal), 64, to: em1)
    let three = add(.ipv6(global), 64, to: em1)
    #expect(bench.table.localAddress(linkLocal, on: em0) === one)
    #expect(bench.table.localAddress(linkLocal, on: em1) === two)
    #expect(bench.table.localAddress(global, on: em0) === three)
    em1.remove(two)
    #expect(bench.table.isLocal(linkLocal, on: em0) && !bench.table.isLocal(linkLocal, on: em1))
  }

  @Test func manyAddressesAreAllFound() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0")
    var entries: [InterfaceAddress] = []
    for n in 0..<300 {
      entries.append(add(.ipv4(IPv4Address(rawValue: 0xc612_0000 + UInt32(n) * 257)), 32, to: em0))
      entries.append(add(.ipv6(IPv6Address(high: 0x2001_0002_0000_0000, low: UInt64(n) << 32)), 128, to: em0))
    }
    for entry in entries {
      switch entry.address {
      case .ipv4(let address): #expect(bench.table.localAddress(address) === entry)
      case .ipv6(let address): #expect(bench.table.localAddress(address, on: em0) === entry)
      default: Issue.record("an address of a family that was not added")
      }
    }
    #expect(!bench.table.isLocal(IPv4Address(rawValue: 0xc612_0001)))
  }
}
