// Requests: privileges, order of errors, what changes and what does not.

import Netisr
import Testing
import Wire

@testable import Ifnet

@Suite struct RequestTests {
  @Test("Case 33: unknown interface, unprivileged SIFMTU -> ENXIO")
  func unknownComesFirst() throws {
    let bench = try Bench()
    #expect(bench.refusal("em9", .setMTU(1400), by: Bench.user) == .ENXIO)
    // Making and destroying ask for privilege first.
    #expect(bench.refusal(.create(name: "nothing"), by: Bench.user) == .EPERM)
    #expect(bench.refusal(.destroy(name: "nothing"), by: Bench.user) == .EPERM)
  }

  @Test("Case 34: known, unprivileged -> EPERM")
  func privilegeComesSecond() throws {
    let bench = try Bench()
    _ = try bench.attach("em0")
    #expect(bench.refusal("em0", .setMTU(1400), by: Bench.user) == .EPERM)
    let address = SocketAddress.ipv4(IPv4Address(198, 18, 0, 1))
    let sets: [InterfaceOperation] = [
      .setFlags(.up), .changeFlags(set: .up, clear: []), .setCapabilities([]), .setMetric(1), .setMTU(71), .setTSOLength(0),
      .setPhysical(1), .rename(""), .setDescription("x"), .setMedia("x"), .setGeneric(name: "a", value: "b"),
      .setTunnel(source: address, destination: address), .deleteTunnel, .setLinkAddress([]), .addMulticast(address),
      .deleteMulticast(address), .joinGroup(""), .leaveGroup(""),
      .setAddress(address, prefixLength: nil, broadcast: nil, destination: nil),
      .addAddress(address, prefixLength: nil, broadcast: nil, destination: nil), .deleteAddress(address), .setPollCPU(0),
      .setPolling(true),
    ]
    for set in sets {
      #expect(set.needsPrivilege)
      #expect(bench.refusal("em0", set, by: Bench.user) == .EPERM)
    }
    let gets: [InterfaceOperation] = [
      .getIndex, .getFlags, .getCapabilities, .getMetric, .getMTU, .getTSOLength, .getData, .getPhysical, .describe,
      .groups(length: 0), .getPollCPU, .getStatus, .getGeneric(name: "a"), .getTunnel,
    ]
    for get in gets { #expect(bench.refusal("em0", get, by: Bench.user) == nil) }
    // uid 0, or the configured group.
    #expect(Credentials(uid: 0, gids: [], privilegedGroup: nil).isPrivileged)
    #expect(Credentials(uid: 5, gids: [9, 7], privilegedGroup: 7).isPrivileged)
    #expect(!Credentials(uid: 5, gids: [9], privilegedGroup: 7).isPrivileged)
    #expect(!Credentials(uid: 5, gids: [9], privilegedGroup: nil).isPrivileged)
  }

  @Test("Case 35: MTU 71 or 65536 EINVAL; 72 accepted by the layer")
  func mtuBounds() throws {
    let bench = try Bench()
    let driver = NotingDriver()
    let em0 = try bench.attach("em0", driver: driver)
    #expect(bench.refusal("em0", .setMTU(71)) == .EINVAL)
    #expect(bench.refusal("em0", .setMTU(65536)) == .EINVAL)
    #expect(driver.requests.isEmpty)
    _ = (bench.seen, bench.domain4.taken)
    bench.clock.sleep(nanoseconds: 5)
    try bench.ask("em0", .setMTU(72))
    #expect(em0.mtu == 72 && driver.requests == [.setMTU(72)])
    #expect(em0.lastChange == bench.clock.now())
    #expect(bench.seen == ["em0 mtu(72)"])
    // Neighbour discovery hears of it.
    #expect(bench.domain4.taken == ["em0 mtu 72"])
    // Then the driver decides.
    driver.refuse(InterfaceError(.EINVAL, "too long for this card"))
    #expect(bench.refusal("em0", .setMTU(9000)) == .EINVAL)
    #expect(em0.mtu == 72 && bench.seen == [])
    _ = try bench.attach("lo0", driver: NotingDriver(takesRequests: false))
    #expect(bench.refusal("lo0", .setMTU(71)) == .EOPNOTSUPP)
  }

  @Test("Case 36: rename \"\" EINVAL; existing EEXIST")
  func renameErrors() throws {
    let bench = try Bench()
    _ = try bench.attach("em0")
    _ = try bench.attach("em1")
    #expect(bench.refusal("em0", .rename("")) == .EINVAL)
    #expect(bench.refusal("em0", .rename("em1")) == .EEXIST)
    #expect(bench.refusal("em0", .rename("em0")) == .EEXIST)
    #expect(bench.refusal("em0", .rename("sixteencharacter")) == .ENAMETOOLONG)
  }

  @Test("Case 37: rename -> DEPARTURE then ARRIVAL, index unchanged")
  func renameOrder() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0")
    let index = em0.index
    let token = bench.table.onAttachment { interface, isAttach in bench.note("\(interface.name) handler \(isAttach)") }
    defer { token.cancel() }
    _ = bench.seen
    try bench.ask("em0", .rename("lan"))
    #expect(bench.seen == ["em0 handler false", "em0 departure", "lan renamed(from: \"em0\")", "lan handler true", "lan arrival"])
    #expect(em0.index == index && bench.table.interface(named: "lan") === em0 && bench.table.interface(named: "em0") == nil)
    _ = try bench.attach("em0")
  }

  @Test("Case 38: promisc on while down ENETDOWN")
  func promiscuousWhileDown() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0")
    #expect(errno { try em0.setPromiscuous(true) } == .ENETDOWN)
    #expect(em0.promiscuousCount == 0)
    // allmulti may.
    try em0.setAllMulticast(true)
    #expect(em0.flags.contains(.allMulti))
  }

  @Test("Case 39: on twice, off once -> still on; one driver call")
  func promiscuousIsCounted() throws {
    let bench = try Bench()
    let driver = NotingDriver()
    let em0 = try bench.attach("em0", driver: driver)
    try em0.bringUp()
    driver.refuse(nil)
    try em0.setPromiscuous(true)
    try em0.setPromiscuous(true)
    try em0.setPromiscuous(false)
    #expect(em0.flags.contains(.promisc) && driver.requests.count == 1)
    try em0.setPromiscuous(false)
    #expect(!em0.flags.contains(.promisc) && driver.requests.count == 2)
    #expect(errno { try em0.setPromiscuous(false) } == .EINVAL)
    #expect(errno { try em0.setAllMulticast(false) } == .EINVAL)
    #expect(em0.promiscuousCount == 0 && em0.allMulticastCount == 0)
    // A driver that refuses: flags and count as before.
    driver.refuse(InterfaceError(.EIO, "no"))
    #expect(errno { try em0.setPromiscuous(true) } == .EIO)
    #expect(errno { try em0.setAllMulticast(true) } == .EIO)
    #expect(!em0.flags.contains(.promisc) && !em0.flags.contains(.allMulti))
    #expect(em0.promiscuousCount == 0 && em0.allMulticastCount == 0)
    driver.refuse(nil)
    // Promiscuous by name: only the count moves, and PROMISC stays with either.
    try bench.ask("em0", .changeFlags(set: .permanentPromisc, clear: []))
    #expect(em0.flags.contains(.promisc))
    driver.refuse(nil)
    try em0.setPromiscuous(true)
    #expect(driver.requests.isEmpty && em0.promiscuousCount == 1)
    try bench.ask("em0", .changeFlags(set: [], clear: .permanentPromisc))
    #expect(em0.flags.contains(.promisc))
    try em0.setPromiscuous(false)
    #expect(!em0.flags.contains(.promisc))
  }

  @Test("Case 40: ADDMULTI without MULTICAST EOPNOTSUPP; wrong family EINVAL")
  func multicastRequests() throws {
    let bench = try Bench()
    _ = try bench.attach("em0", { $0.flags = [.broadcast] })
    _ = try bench.attach("em1")
    let group = SocketAddress.link(0, MACAddress(0x01, 0, 0x5e, 1, 1, 1))
    #expect(bench.refusal("em0", .addMulticast(group)) == .EOPNOTSUPP)
    #expect(bench.refusal("em0", .deleteMulticast(group)) == .EOPNOTSUPP)
    #expect(bench.refusal("em1", .addMulticast(.ipv4(IPv4Address(224, 1, 1, 1)))) == .EINVAL)
    try bench.ask("em1", .addMulticast(group))
    #expect(bench.table.interface(named: "em1")?.linkMulticast == [MACAddress(0x01, 0, 0x5e, 1, 1, 1)])
    try bench.ask("em1", .deleteMulticast(group))
    #expect(bench.refusal("em1", .deleteMulticast(group)) == .ENOENT)
  }

  @Test("Case 41: two groups to one MAC, delete one -> link entry stays, no DELMULTI")
  func pairedGroups() throws {
    let bench = try Bench()
    let driver = NotingDriver()
    let em0 = try bench.attach("em0", driver: driver)
    let one = SocketAddress.ipv4(IPv4Address(224, 1, 1, 1)), two = SocketAddress.ipv4(IPv4Address(225, 1, 1, 1))
    let mac = MACAddress(0x01, 0, 0x5e, 1, 1, 1)
    _ = bench.seen
    try em0.addMulticast(one)
    try em0.addMulticast(two)
    try em0.addMulticast(two)
    #expect(driver.requests == [.addMulticast(mac)])
    #expect(bench.seen == ["em0 multicastAdded(\(String(reflecting: one)))", "em0 multicastAdded(\(String(reflecting: two)))"])
    #expect(em0.membership(of: two)?.references == 2 && em0.membership(of: two)?.link == mac)
    #expect(bench.table.isMember(of: IPv4Address(224, 1, 1, 1), on: em0))
    try em0.deleteMulticast(one)
    #expect(em0.linkMulticast == [mac] && driver.requests == [.addMulticast(mac)])
    #expect(!bench.table.isMember(of: IPv4Address(224, 1, 1, 1), on: em0))
    try em0.deleteMulticast(two)
    #expect(em0.membership(of: two)?.references == 1)
    try em0.deleteMulticast(two)
    #expect(em0.linkMulticast == [] && driver.requests == [.addMulticast(mac), .deleteMulticast(mac)])
    #expect(errno { try em0.deleteMulticast(two) } == .ENOENT)
    // The link layer may refuse a group, and a driver may.
    #expect(errno { try em0.addMulticast(.ipv4(IPv4Address(198, 18, 0, 1))) } == .EADDRNOTAVAIL)
    driver.refuse(InterfaceError(.ENOSPC, "the filter is full"))
    #expect(errno { try em0.addMulticast(one) } == .ENOSPC)
    #expect(em0.multicastGroups.isEmpty && em0.linkMulticast.isEmpty)
  }

  @Test("Case 42: lladdr wrong length EINVAL; not Ethernet ENODEV")
  func linkAddressErrors() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0")
    _ = try bench.attach("tun0", type: .tunnel) { $0.linkAddress = MACAddress(0x52, 0x54, 0, 0, 0, 1) }
    _ = try bench.attach("lo0", type: .loopback)
    #expect(bench.refusal("em0", .setLinkAddress([2, 0, 0, 0, 0])) == .EINVAL)
    #expect(bench.refusal("em0", .setLinkAddress([2, 0, 0, 0, 0, 1, 1])) == .EINVAL)
    #expect(bench.refusal("lo0", .setLinkAddress([2, 0, 0, 0, 0, 1])) == .EINVAL)
    #expect(bench.refusal("tun0", .setLinkAddress([2, 0, 0, 0, 0, 1])) == .ENODEV)
    #expect(bench.refusal("em0", .setLinkAddress([1, 0, 0, 0, 0, 1])) == .EINVAL)
    #expect(bench.refusal("em0", .setLinkAddress([0, 0, 0, 0, 0, 0])) == .EINVAL)
    #expect(em0.linkAddress == MACAddress(0x52, 0x54, 0, 0, 0, 48))
  }

  @Test func linkAddressIsSet() throws {
    let bench = try Bench(workers: 2)
    let driver = NotingDriver()
    let em0 = try bench.attach("em0", driver: driver)
    let wanted = MACAddress(2, 0, 0, 0, 0, 1)
    _ = (bench.seen, bench.domain4.taken)
    // Down: nobody goes down and up, nothing is announced on the wire.
    try bench.ask("em0", .setLinkAddress(wanted.bytes))
    #expect(driver.requests == [.setLinkAddress(wanted)] && bench.domain4.taken == [])
    #expect(bench.seen == ["em0 linkAddress(\(String(reflecting: wanted)))"])
    #expect(em0.linkAddress == wanted)
    #expect(bench.netisr.workers[1].perform { em0.addresses.first?.address } == .link(1, wanted))
    try em0.bringUp()
    driver.refuse(nil)
    _ = (bench.seen, bench.domain4.taken)
    let next = MACAddress(2, 0, 0, 0, 0, 2)
    try bench.ask("em0", .setLinkAddress(next.bytes))
    #expect(driver.requests.count == 3)
    guard case .setFlags(_, let down) = driver.requests[1], case .setFlags(_, let up) = driver.requests[2] else {
      Issue.record("the driver was not taken down and up")
      return
    }
    #expect(!down.contains(.up) && up.contains(.up))
    #expect(bench.domain4.taken == ["em0 lladdr"])
    // The event fires on success alone.
    driver.refuse(InterfaceError(.EIO, "no"))
    _ = bench.seen
    #expect(bench.refusal("em0", .setLinkAddress(wanted.bytes)) == .EIO)
    #expect(em0.linkAddress == next && em0.addresses.first?.address == .link(1, next))
    #expect(em0.flags.contains(.up) && bench.seen == [])
  }

  @Test("Case 43: unsupported capability EINVAL")
  func capabilities() throws {
    let bench = try Bench()
    let driver = NotingDriver()
    let em0 = try bench.attach("em0", driver: driver) { $0.capabilities = [.rxcsum, .txcsum] }
    #expect(bench.refusal("em0", .setCapabilities([.tso4])) == .EINVAL)
    #expect(driver.requests.isEmpty)
    try bench.ask("em0", .setCapabilities([.rxcsum]))
    #expect(em0.enabledCapabilities == .rxcsum && driver.requests == [.setCapabilities(.rxcsum)])
    #expect(try bench.ask("em0", .getCapabilities) == .capabilities(available: [.rxcsum, .txcsum], enabled: .rxcsum))
    driver.refuse(InterfaceError(.EIO, "no"))
    #expect(bench.refusal("em0", .setCapabilities([])) == .EIO)
    #expect(em0.enabledCapabilities == .rxcsum)
  }

  @Test("Case 44: TSOLEN 0 EINVAL")
  func tsoLength() throws {
    let bench = try Bench()
    _ = try bench.attach("em0")
    #expect(bench.refusal("em0", .setTSOLength(0)) == .EINVAL)
    #expect(bench.refusal("em0", .setTSOLength(-1)) == .EINVAL)
    try bench.ask("em0", .setTSOLength(32000))
    #expect(try bench.ask("em0", .getTSOLength) == .number(32000))
  }

  @Test("Case 45: GIFCONF with room for exactly one entry returns it")
  func configurationFits() throws {
    let bench = try Bench()
    _ = try bench.attach("lo0", type: .loopback)
    let lo1 = try bench.attach("lo1", type: .loopback)
    let hidden = try bench.attach("lo2", type: .loopback) { $0.vnet = Vnet(rawValue: 3) }
    lo1.add(InterfaceAddress(.ipv4(IPv4Address(198, 18, 0, 1)), on: lo1, prefixLength: 32))
    lo1.add(InterfaceAddress(.ipv6(.loopback), on: lo1, prefixLength: 128))
    let first = ConfigurationEntry(name: "lo0", address: nil)
    #expect(try bench.table.perform(.configuration(room: 32), by: Bench.user) == .configuration([first], bytes: 32))
    #expect(try bench.table.perform(.configuration(room: 31), by: Bench.user) == .configuration([], bytes: 0))
    let second = ConfigurationEntry(name: "lo1", address: .ipv4(IPv4Address(198, 18, 0, 1)))
    let third = ConfigurationEntry(name: "lo1", address: .ipv6(.loopback))
    #expect(try bench.table.perform(.configuration(room: 107), by: Bench.user) == .configuration([first, second], bytes: 64))
    #expect(try bench.table.perform(.configuration(room: 108), by: Bench.user) == .configuration([first, second, third], bytes: 108))
    #expect(bench.refusal(.configuration(room: -1)) == .EINVAL)
    // Another stack instance sees its own.
    let other = Credentials(uid: 0, gids: [], isPrivileged: true, vnet: Vnet(rawValue: 3))
    #expect(try bench.table.perform(.configuration(room: 1000), by: other) == .configuration([ConfigurationEntry(name: "lo2", address: nil)], bytes: 32))
    #expect(bench.refusal("lo2", .getMTU) == .ENXIO && bench.refusal("lo2", .getMTU, by: other) == nil)
    #expect(bench.refusal("lo1", .getMTU, by: other) == .ENXIO)
    #expect(hidden.vnet == Vnet(rawValue: 3))
  }
}
