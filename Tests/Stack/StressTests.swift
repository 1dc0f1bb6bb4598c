// Everything at once on real threads: traffic, attach, detach, rename, addresses, routes, watchdogs, captures, modes.
// Under the thread sanitizer this is where a race shows; without it, where a packet is lost without a word.

import DMAMemory
import DeviceIO
import Ether
import Ifnet
import Inet
import Inet6
import Netisr
import Packet
import Platform
import Routes
import Synchronization
import Testing
import Wire

private final class CountingTap: InterfaceTap {
  let seen = Atomic<UInt64>(0)
  func passed(_ packet: borrowing Packet, _ direction: PacketDirection, on interface: Interface) { seen.wrappingAdd(1, ordering: .relaxed) }
}
private final class CountingObserver: DropObserver {
  let seen = Atomic<UInt64>(0)
  func dropped(_ packet: borrowing Packet, reason: DropReason, interface: InterfaceIndex, queue: UInt8, proto: UInt8) { seen.wrappingAdd(1, ordering: .relaxed) }
}

/// A router with two busy cards on two workers.
private final class BusyRouter: @unchecked Sendable {
  let netisr: Netisr
  let table: InterfaceTable
  let routes: RouteTable
  let ether: EtherLayer
  let inet: Inet
  let inet6: Inet6
  let pools: WorkerPools
  var cards: [BusyCard] = []
  var interfaces: [Interface] = []
  private var tokens: [WorkerToken] = []

  init(_ dispatch: DispatchPolicy) throws {
    var configuration = NetisrConfiguration()
    configuration.maxThreads = 2
    configuration.dispatch = dispatch
    netisr = try Netisr(configuration)
    pools = WorkerPools(netisr)
    table = InterfaceTable(netisr)
    routes = RouteTable(netisr)
    ether = try EtherLayer(table)
    inet = try Inet(ether: ether, routes: routes)
    inet6 = try Inet6(ether: ether, routes: routes)
    let routes = routes
    table.removeRoutes = { routes.removeRoutes(through: $0.index) }
    try netisr.start()
    try netisr.sysctl.write("net.inet.ip.forwarding", "1")
    try netisr.sysctl.write("net.inet6.ip6.forwarding", "1")
    for n in 0..<2 { try addCard(n) }
  }

  private func addCard(_ n: Int) throws {
    let mac = MACAddress(2, 0, 0, 0, UInt8(n), 1), peer = MACAddress(2, 0, 0, 0, UInt8(n), 9)
    let own = IPv4Address(198, 18, UInt8(n), 1), host = IPv4Address(198, 18, UInt8(n), 9), far = IPv4Address(198, 18, UInt8(1 - n), 9)
    let from6 = IPv6Address(high: 0x2001_0002_0000_0000 | UInt64(n), low: 9), to6 = IPv6Address(high: 0x2001_0002_0000_0000 | UInt64(1 - n), low: 9)
    let frames = [
      Wireframes.arpReply(host, own, mac: mac, peer: peer),
      Wireframes.udp(host, far, mac: mac, peer: peer), Wireframes.udp(host, far, mac: mac, peer: peer, ttl: 1),
      Wireframes.udp(host, far, mac: mac, peer: peer), Wireframes.echo(host, own, mac: mac, peer: peer),
      Wireframes.udp(host, IPv4Address(198, 18, 77, 7), mac: mac, peer: peer), Wireframes.udp(host, own, mac: mac, peer: peer, id: 5, fragment: 0x2000),
      Wireframes.v6(from6, to6, mac: mac, peer: peer), Wireframes.udp(host, far, mac: mac, peer: peer),
      Array(Wireframes.udp(host, far, mac: mac, peer: peer).prefix(25)),
    ]
    let card = BusyCard(mac: mac, peer: peer, frames: frames, stutters: n == 1)
    var options = InterfaceOptions("ix", unit: n)
    options.linkAddress = mac
    let interface = try table.attach(options, driver: card)
    card.interface = interface
    cards.append(card)
    interfaces.append(interface)
    _ = try table.perform(.on(interface.name, .changeFlags(set: .up, clear: [])), by: .system)
    try control(.add(.ipv4(own), prefixLength: 24, broadcast: nil, destination: nil), interface)
    try control(.add(.ipv6(IPv6Address(high: from6.high, low: 1)), prefixLength: 64, broadcast: nil, destination: nil), interface)
    tokens.append(netisr.worker(n).add(card))
  }

  func control(_ request: AddressRequest, _ interface: Interface) throws(InterfaceError) {
    let domain: any ProtocolDomain
    switch request {
    case .set(.ipv6, _, _, _), .add(.ipv6, _, _, _), .delete(.ipv6): domain = inet6
    default: domain = inet
    }
    let error = netisr.worker(0).perform { () -> InterfaceError? in
      do throws(InterfaceError) { try domain.control(request, on: interface) } catch { return error }
      return nil
    }
    if let error { throw error }
  }

  func stopTraffic() {
    for card in cards { card.isRunning.store(false, ordering: .releasing) }
    for _ in 0..<20 {
      netisr.barrier()
      MonotonicClock().sleep(nanoseconds: 5_000_000)
    }
  }

  /// received = delivered + dropped, for each interface.
  func checkLedger() {
    for interface in interfaces {
      let received = interface.counters.ipackets
      let dropped = netisr.drops.snapshot().filter { $0.interface == interface.index && !$0.reason.isOutput }.reduce(0) { $0 + $1.packets }
      let delivered = ether.deliveries(of: interface.index)
      #expect(received > 0)
      let lines = netisr.drops.snapshot().filter { $0.interface == interface.index }.map { "\($0.reason)/\($0.proto)/\($0.queue) \($0.packets)" }
      #expect(
        received == delivered + dropped,
        "\(interface.name): \(received) received, \(delivered) delivered, \(dropped) dropped: \(lines.joined(separator: ", "))")
    }
  }

  func end() {
    for token in tokens { token.cancel() }
    for interface in interfaces { table.detach(interface) }
    netisr.barrier()
    netisr.stop()
  }
}

@Suite(.serialized) struct StressTests {
  /// Changes of every kind from three threads, while two workers forward.
  @Test(arguments: [DispatchPolicy.direct, .hybrid, .deferred]) func `everything at once`(dispatch: DispatchPolicy) throws {
    let router = try BusyRouter(dispatch)
    for card in router.cards { card.isRunning.store(true, ordering: .releasing) }
    let end = MonotonicClock().now() + 1_500_000_000
    let problems = Guarded<[String]>([])
    let tap = CountingTap(), observer = CountingObserver()
    do {
      let attaching = try JoinedThread(name: "attach") {
        var round = 0
        while MonotonicClock().now() < end {
          round += 1
          do throws(InterfaceError) { try Self.attachAndLeave(router, round) } catch { problems.withLock { $0.append("attach: \(error)") } }
        }
      }
      let addressing = try JoinedThread(name: "addresses") {
        var round = 0
        while MonotonicClock().now() < end {
          round += 1
          do { try Self.changeAddresses(router, round) } catch { problems.withLock { $0.append("addresses: \(error)") } }
        }
      }
      var round = 0
      while MonotonicClock().now() < end {
        round += 1
        let interface = router.interfaces[round % 2]
        interface.add(tap)
        router.netisr.drops.add(observer)
        _ = try? router.netisr.sysctl.write("net.isr.dispatch", ["direct", "hybrid", "deferred"][round % 3])
        if round % 8 == 0 {
          _ = try router.table.perform(.on(interface.name, .changeFlags(set: [], clear: .up)), by: .system)
          _ = try router.table.perform(.on(interface.name, .changeFlags(set: .up, clear: [])), by: .system)
        }
        for queue in interface.subqueues { queue.setOwner(round % 2) }
        _ = (interface.counters, router.netisr.drops.snapshot().count, interface.addresses.count, router.routes.list4().count)
        router.netisr.barrier()
        interface.remove(tap)
        router.netisr.drops.remove(observer)
      }
      attaching.join()
      addressing.join()
    }
    router.stopTraffic()
    #expect(problems.withLock { $0 } == [])
    #expect(tap.seen.load(ordering: .relaxed) > 0)
    #expect(router.cards.allSatisfy { $0.sent.load(ordering: .relaxed) > 0 })
    // Fragments that never become whole, and packets for stations that never answer, are held for their time; with
    // their interface they go.
    router.end()
    router.checkLedger()
    #expect(router.pools.missing == 0)
  }

  private static func attachAndLeave(_ router: BusyRouter, _ round: Int) throws(InterfaceError) {
    let driver = BusyCard(mac: MACAddress(2, 0, 0, 1, 0, UInt8(round & 255)), peer: .broadcast, frames: [[0]])
    var options = InterfaceOptions("em", unit: 7)
    options.linkAddress = driver.mac
    options.subqueues = 2
    let interface = try router.table.attach(options, driver: driver)
    let name = interface.name
    _ = try router.table.perform(.on(name, .changeFlags(set: .up, clear: [])), by: .system)
    try router.control(.add(.ipv4(IPv4Address(198, 18, 9, 1)), prefixLength: 24, broadcast: nil, destination: nil), interface)
    _ = try router.table.perform(.on(name, .rename("lan")), by: .system)
    _ = try router.table.perform(.on("lan", .joinGroup("busy")), by: .system)
    _ = try router.table.perform(.on("lan", .setMTU(1400)), by: .system)
    guard router.table.interface(named: "lan") === interface, router.table.interface(interface.index) === interface else {
      throw InterfaceError(.ENXIO, "an interface that is there was not found")
    }
    router.table.detach(interface)
  }

  private static func changeAddresses(_ router: BusyRouter, _ round: Int) throws {
    let interface = router.interfaces[round % 2]
    let address = IPv4Address(198, 18, UInt8(100 + round % 50), 1)
    try router.control(.add(.ipv4(address), prefixLength: 24, broadcast: nil, destination: nil), interface)
    let prefix = IPv4Prefix(IPv4Address(198, 19, UInt8(round % 200), 0), 24)
    try router.routes.add(Route4(prefix, gateway: IPv4Address(198, 18, 0, 9), interface: router.interfaces[0].index, flags: [.up, .gateway, .static]))
    _ = try router.routes.remove(prefix)
    try router.control(.delete(.ipv4(address)), interface)
  }
}
