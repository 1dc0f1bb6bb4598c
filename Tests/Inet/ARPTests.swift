// ARP: messages byte for byte, states by the clock.

import Ifnet
import Netisr
import Packet
import Platform
import Routes
import Testing
import Wire

@testable import Inet

/// Collects events.
final class Events: Sendable {
  private let list = Guarded<[InetEvent]>([])
  init(_ inet: Inet) {
    inet.onEvent { [self] event in list.withLock { $0.append(event) } }
  }
  func take() -> [InetEvent] {
    list.withLock { list in
      defer { list = [] }
      return list
    }
  }
}

@Suite(.serialized) struct ARPTests {
  let router: Router
  var stack: Stack { router.stack }
  init() throws { router = try Router(resolved: false) }

  func request(_ target: IPv4Address, from: IPv4Address? = nil) -> [UInt8] {
    frame(.broadcast, router.hostMAC0, 0x806, arp(1, router.hostMAC0, from ?? router.host0, noStation, target))
  }
  func question(_ target: IPv4Address) -> [UInt8] {
    frame(.broadcast, router.mac0, 0x806, arp(1, router.mac0, router.own0, noStation, target))
  }
  var answer: [UInt8] { frame(router.mac0, router.hostMAC0, 0x806, arp(2, router.hostMAC0, router.host0, router.mac0, router.own0)) }

  @Test func aRequestForUsIsAnsweredAndTeaches() throws {
    stack.receive(request(router.own0) + [UInt8](repeating: 0, count: 18), on: router.em0)
    #expect(
      router.out0.take().map(\.bytes) == [
        frame(router.hostMAC0, router.mac0, 0x806, arp(2, router.mac0, router.own0, router.hostMAC0, router.host0))
      ])
    #expect(stack.inet.arpEntries().map(\.station) == [router.hostMAC0])
    #expect(stack.inet.arpEntries().first?.expires == 1200)
    stack.checkLedger()
  }

  @Test func whatIsNotForUsTeachesNothing() throws {
    stack.receive(request(IPv4Address(198, 18, 1, 50)), on: router.em0)
    #expect(router.out0.take() == [] && stack.inet.arpEntries() == [])
    #expect(stack.drops(.arpNotForUs) == 1)
    // The other interface's address is not this link's.
    stack.receive(request(router.own1), on: router.em0)
    #expect(router.out0.take() == [] && stack.drops(.arpNotForUs) == 2)
    // Somebody of another network.
    stack.receive(request(router.own0, from: IPv4Address(10, 1, 1, 1)), on: router.em0)
    #expect(stack.inet.arpEntries() == [])
    stack.checkLedger()
  }

  @Test(arguments: [(1, 7), (3, 6), (4, 8), (5, 16), (6, 9), (7, 9), (8, 0xff), (14, 224)] as [(Int, UInt8)])
  func malformedOnesAreDropped(at: Int, value: UInt8) throws {
    var message = request(router.own0)
    message[14 + at] = value
    stack.receive(message, on: router.em0)
    stack.receive(Array(request(router.own0).prefix(41)), on: router.em0)
    #expect(router.out0.take() == [])
    #expect(stack.drops(.arpMalformed) == 2)
  }

  @Test func packetsWaitForTheAnswerInOrder() throws {
    for n in 1...3 { router.receive1(ipv4(router.host1, router.host0, proto: 17, [UInt8(n)])) }
    #expect(router.out0.take().map(\.bytes) == [question(router.host0)])
    #expect(stack.buffers.pool.available == stack.size - 3)
    stack.receive(answer, on: router.em0)
    #expect(router.sent0().map { $0[20] } == [1, 2, 3])
    router.receive1(ipv4(router.host1, router.host0, proto: 17, [4]))
    #expect(router.sent0().map { $0[20] } == [4])
    stack.checkLedger()
  }

  @Test func theHoldQueueIsBoundedAndTheOldestGoes() throws {
    try stack.netisr.sysctl.write("net.link.ether.inet.maxhold", "2")
    for n in 1...5 { router.receive1(ipv4(router.host1, router.host0, proto: 17, [UInt8(n)])) }
    _ = router.out0.take()
    #expect(stack.drops(.arpQueueFull) == 3)
    stack.receive(answer, on: router.em0)
    #expect(router.sent0().map { $0[20] } == [4, 5])
  }

  @Test func noAnswerMeansHostUnreachableAndSilenceForAWhile() throws {
    let events = Events(stack.inet)
    stack.receive(frame(router.mac1, router.hostMAC1, 0x806, arp(2, router.hostMAC1, router.host1, router.mac1, router.own1)), on: router.em1)
    router.receive1(ipv4(router.host1, router.host0, proto: 17, [1]))
    stack.advance(seconds: 4.5)
    #expect(router.out0.take().map(\.bytes) == Array(repeating: question(router.host0), count: router.stack.inet.settings.arpMaxTries.value))
    stack.advance(seconds: 4)
    #expect(router.out0.take() == [])
    #expect(router.sent1().map { Array($0[20..<22]) } == [[3, 1]])
    #expect(stack.drops(.arpUnresolved) == 1)
    #expect(events.take().contains(.unresolved(router.host0, interface: router.em0.index)))
    // Down: refused without a question, until the wait is over.
    router.receive1(ipv4(router.host1, router.host0, proto: 17, [1]))
    #expect(router.out0.take() == [] && stack.drops(.arpUnresolved) == 2)
    stack.advance(seconds: 25)
    router.receive1(ipv4(router.host1, router.host0, proto: 17, [1]))
    #expect(router.out0.take().map(\.bytes) == [question(router.host0)])
  }

  @Test func anEntryInUseIsAskedForAgainAndAnUnusedOneGoes() throws {
    try stack.netisr.sysctl.write("net.link.ether.inet.max_age", "60")
    stack.receive(answer, on: router.em0)
    stack.advance(seconds: 52, step: 1)
    router.receive1(ipv4(router.host1, router.host0, proto: 17, [1]))
    let sent = router.out0.take().map(\.bytes)
    #expect(sent.contains(frame(router.hostMAC0, router.mac0, 0x806, arp(1, router.mac0, router.own0, noStation, router.host0))))
    stack.receive(answer, on: router.em0)
    #expect(stack.inet.arpEntries().first?.expires == 60)
    let events = Events(stack.inet)
    stack.advance(seconds: 61, step: 1)
    #expect(stack.inet.arpEntries() == [])
    #expect(events.take() == [.expired(router.host0, interface: router.em0.index)])
  }

  @Test func aMovedStationIsFollowed() throws {
    stack.receive(answer, on: router.em0)
    let events = Events(stack.inet)
    let new = MACAddress(2, 0, 0, 0, 0, 0x55)
    stack.receive(frame(.broadcast, new, 0x806, arp(1, new, router.host0, noStation, router.host0)), on: router.em0)
    router.receive1(ipv4(router.host1, router.host0, proto: 17, [1]))
    #expect(router.out0.take().map { Array($0.bytes.prefix(6)) } == [new.bytes])
    #expect(events.take() == [.moved(router.host0, from: router.hostMAC0, to: new, interface: router.em0.index)])
  }

  @Test func aConflictIsToldAndTheAddressDefendedOnceInTenSeconds() throws {
    let events = Events(stack.inet)
    let thief = frame(.broadcast, router.hostMAC0, 0x806, arp(1, router.hostMAC0, router.own0, noStation, router.own0))
    let defence = frame(.broadcast, router.mac0, 0x806, arp(1, router.mac0, router.own0, noStation, router.own0))
    stack.receive(thief, on: router.em0)
    stack.receive(thief, on: router.em0)
    #expect(router.out0.take().map(\.bytes) == [defence])
    #expect(events.take() == Array(repeating: .conflict(router.own0, station: router.hostMAC0, interface: router.em0.index), count: 2))
    #expect(stack.drops(.arpConflict) == 2 && stack.inet.count(.arpConflicts) == 2)
    stack.advance(seconds: 11, step: 1)
    stack.receive(thief, on: router.em0)
    #expect(router.out0.take().map(\.bytes) == [defence])
    // A probe is no conflict: it is answered.
    stack.receive(request(router.own0, from: .any), on: router.em0)
    #expect(router.out0.take().map { Array($0.bytes[20..<22]) } == [[0, 2]])
    stack.checkLedger()
  }

  @Test func permanentPublishedAndDeletedEntries() throws {
    let proxied = IPv4Address(198, 18, 1, 200), mac = MACAddress(2, 0, 0, 0, 0, 0xee)
    try stack.inet.setARP(proxied, mac, published: true)
    stack.netisr.settle()
    #expect(stack.inet.arpEntries().map(\.expires) == [nil])
    stack.receive(request(proxied), on: router.em0)
    #expect(
      router.out0.take().map(\.bytes) == [
        frame(router.hostMAC0, router.mac0, 0x806, arp(2, mac, proxied, router.hostMAC0, router.host0))
      ])
    // The network does not change it.
    stack.receive(frame(.broadcast, router.hostMAC0, 0x806, arp(1, router.hostMAC0, proxied, noStation, router.own0)), on: router.em0)
    #expect(stack.inet.arpEntries().first { $0.address == proxied }?.station == mac)
    try stack.inet.deleteARP(proxied)
    #expect(throws: InterfaceError.self) { try stack.inet.deleteARP(proxied) }
    #expect(throws: InterfaceError.self) { try stack.inet.setARP(IPv4Address(10, 9, 9, 9), mac) }
    #expect(throws: InterfaceError.self) { try stack.inet.setARP(proxied, .broadcast) }
    stack.receive(answer, on: router.em0)
    #expect(stack.inet.flushARP() > 0 && stack.inet.arpEntries() == [])
  }

  @Test func proxyForWhatIsRoutedElsewhere() throws {
    stack.receive(request(router.host1), on: router.em0)
    #expect(router.out0.take() == [])
    try stack.netisr.sysctl.write("net.link.ether.inet.proxyall", "1")
    stack.receive(request(router.host1), on: router.em0)
    #expect(router.out0.take().map { Array($0.bytes[20..<32]) } == [[0, 2] + router.mac0.bytes + router.host1.bytes])
  }

  @Test func flagsOfTheInterface() throws {
    router.em0.setDriverFlags(.noARP)
    stack.receive(request(router.own0), on: router.em0)
    #expect(router.out0.take() == [] && stack.drops(.arpNotForUs) == 1)
    router.em0.setDriverFlags(.staticARP, clear: .noARP)
    stack.receive(request(router.own0), on: router.em0)
    #expect(router.out0.take().count == 1 && stack.inet.arpEntries() == [])
  }

  @Test func newAddressesAreAnnouncedAndProbedFirstWhenAsked() throws {
    try stack.netisr.sysctl.write("net.link.ether.inet.garp_rexmit_count", "1")
    let second = IPv4Address(198, 18, 1, 2)
    let announcement = frame(.broadcast, router.mac0, 0x806, arp(1, router.mac0, second, noStation, second))
    try stack.add(second, 24, on: router.em0)
    #expect(router.out0.take().map(\.bytes) == [announcement])
    stack.advance(seconds: 5)
    #expect(router.out0.take().map(\.bytes) == [announcement])

    try stack.netisr.sysctl.write("net.link.ether.inet.probe", "1")
    let third = IPv4Address(198, 18, 1, 3)
    let probe = frame(.broadcast, router.mac0, 0x806, arp(1, router.mac0, .any, noStation, third))
    try stack.add(third, 24, on: router.em0)
    stack.receive(request(third), on: router.em0)
    #expect(router.out0.take().map(\.bytes) == [probe])
    stack.advance(seconds: 3.5)
    #expect(
      router.out0.take().map(\.bytes) == [
        probe, probe, frame(.broadcast, router.mac0, 0x806, arp(1, router.mac0, third, noStation, third)),
      ])
    stack.receive(request(third), on: router.em0)
    #expect(router.out0.take().count == 1)

    let fourth = IPv4Address(198, 18, 1, 4)
    let events = Events(stack.inet)
    try stack.add(fourth, 24, on: router.em0)
    stack.receive(frame(.broadcast, router.hostMAC0, 0x806, arp(2, router.hostMAC0, fourth, noStation, fourth)), on: router.em0)
    stack.advance(seconds: 5)
    #expect(events.take().contains(.conflict(fourth, station: router.hostMAC0, interface: router.em0.index)))
    _ = router.out0.take()
    stack.receive(request(fourth), on: router.em0)
    #expect(router.out0.take() == [])
  }

  @Test func anInterfaceThatGoesTakesItsNeighboursAndPacketsAlong() throws {
    stack.receive(answer, on: router.em0)
    router.receive1(ipv4(router.host1, IPv4Address(198, 18, 1, 33), proto: 17, [1]))
    #expect(stack.buffers.pool.available == stack.size - 1)
    let table = stack.table, em0 = router.em0
    stack.netisr.worker(0).perform { table.detach(em0) }
    stack.netisr.settle()
    #expect(stack.inet.arpEntries() == [])
    #expect(stack.buffers.pool.available == stack.size)
    #expect(stack.routes.list4().allSatisfy { $0.interface != em0.index })
  }
}

@Suite struct NeighbourTableTests {
  @Test func behavesAsADictionary() {
    var table = NeighbourTable()
    defer { table.deallocate() }
    var model: [UInt64: UInt64] = [:]
    var random: UInt64 = 42
    for step in 0..<20000 {
      random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      let key = (random >> 40) % 300 + 1
      if (random >> 33) % 3 == 0 {
        table.remove(key)
        model[key] = nil
      } else {
        table.set(Neighbour(key: key, station: UInt64(step), until: 0, isAsked: false))
        model[key] = UInt64(step)
      }
      if step % 500 == 0 {
        #expect(table.count == model.count)
        for key in 1...300 as ClosedRange<UInt64> { #expect(unsafe table.find(key)?.pointee.station == model[key]) }
      }
    }
  }
}
