// Up and down, link state, flags, address requests, what the driver answers, events, watchdogs, counters.

import Netisr
import Packet
import Synchronization
import Testing
import Wire

@testable import Ifnet

@Suite struct StateTests {
  @Test func upAndDown() throws {
    let bench = try Bench(workers: 2)
    let domain6 = NotingDomain(.ipv6)
    bench.table.register(domain6)
    let driver = NotingDriver()
    let em0 = try bench.attach("em0", driver: driver)
    _ = (bench.seen, bench.domain4.taken, domain6.taken)
    bench.clock.sleep(nanoseconds: 7)
    try bench.ask("em0", .changeFlags(set: .up, clear: []))
    #expect(em0.flags.contains(.up) && em0.lastChange == bench.clock.now())
    #expect(bench.seen.first == "em0 up")
    #expect(bench.domain4.taken == ["em0 up"] && domain6.taken == ["em0 up"])
    guard case .setFlags(let old, let new)? = driver.requests.first else { throw InterfaceError(.EIO, "no request") }
    #expect(!old.contains(.up) && new.contains(.up))
    try em0.takeDown()
    #expect(!em0.flags.contains(.up) && bench.seen.first == "em0 down")
    #expect(bench.domain4.taken == ["em0 down"] && domain6.taken == ["em0 down"])
    // Nothing changes: nobody is told.
    try em0.takeDown()
    #expect(bench.seen == [] && bench.domain4.taken == [])
  }

  @Test func refusedFlagsAreRestored() throws {
    let bench = try Bench()
    let driver = NotingDriver()
    let em0 = try bench.attach("em0", driver: driver)
    let before = em0.flags
    driver.refuse(InterfaceError(.EIO, "the card is gone"))
    _ = (bench.seen, bench.domain4.taken)
    #expect(bench.refusal("em0", .setFlags([.up, .debug])) == .EIO)
    #expect(em0.flags == before && bench.seen == [] && bench.domain4.taken == [])
  }

  @Test func whatCannotChangeStays() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0")
    em0.setDriverFlags([.running])
    try bench.ask("em0", .setFlags([.up, .loopback, .pointToPoint, .oactive, .promisc, .allMulti]))
    #expect(em0.flags == [.up, .loopback, .broadcast, .simplex, .multicast, .running])
    try bench.ask("em0", .setFlags([]))
    #expect(em0.flags == [.broadcast, .simplex, .multicast, .running])
  }

  @Test func smartInterfacesManageThemselves() throws {
    let bench = try Bench()
    let driver = NotingDriver()
    let sl0 = try bench.attach("sl0", driver: driver) { $0.flags = [.smart] }
    _ = (bench.seen, bench.domain4.taken)
    try bench.ask("sl0", .setFlags([.smart, .up]))
    #expect(sl0.flags.contains(.up) && driver.requests.count == 1)
    #expect(bench.domain4.taken == [] && !bench.seen.contains("sl0 up"))
  }

  @Test func linkStateIsAnnouncedOnce() throws {
    let bench = try Bench(workers: 2)
    let em0 = try bench.attach("em0")
    _ = bench.seen
    #expect(em0.linkStatus == .unknown)
    em0.setLink(.unknown)
    em0.setLink(.up, baudRate: 1_000_000_000)
    em0.setLink(.up, baudRate: 1_000_000_000)
    bench.netisr.workers[1].perform { em0.setLink(.down) }
    bench.netisr.settle()
    em0.setLink(.unknown)
    #expect(bench.seen == ["em0 link(up)", "em0 link(down)", "em0 link(unknown)"])
    #expect(em0.baudRate == 0)
  }

  @Test func addressRequestsGoToTheirFamily() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0")
    let one = SocketAddress.ipv4(IPv4Address(198, 18, 0, 1)), two = SocketAddress.ipv4(IPv4Address(198, 18, 0, 2))
    let broadcast = SocketAddress.ipv4(IPv4Address(198, 18, 0, 255))
    let domain6 = NotingDomain(.ipv6)
    bench.table.register(domain6)
    _ = domain6.taken
    try bench.ask("em0", .setAddress(one, prefixLength: 24, broadcast: broadcast, destination: nil))
    // It comes up with its address, and IPv6 with it.
    #expect(em0.flags.contains(.up) && domain6.taken == ["em0 up"])
    #expect(try bench.ask("em0", .getAddress(family: 2)) == .address(one))
    #expect(try bench.ask("em0", .getNetmask(family: 2)) == .address(.ipv4(.mask(24))))
    #expect(try bench.ask("em0", .getBroadcast(family: 2)) == .address(broadcast))
    #expect(bench.refusal("em0", .getDestination(family: 2)) == .EINVAL)
    try bench.ask("em0", .addAddress(two, prefixLength: 32, broadcast: nil, destination: nil))
    #expect(try bench.ask("em0", .getAddress(family: 2)) == .address(one))
    #expect(try bench.ask("em0", .getNetmask(family: 2, of: two)) == .address(.ipv4(.mask(32))))
    try bench.ask("em0", .deleteAddress(one))
    #expect(bench.refusal("em0", .deleteAddress(one)) == .EADDRNOTAVAIL)
    #expect(try bench.ask("em0", .getAddress(family: 2)) == .address(two))
    #expect(bench.refusal("em0", .getAddress(family: 28)) == .EADDRNOTAVAIL)
    let strange = SocketAddress.other(family: 99, bytes: [1, 2])
    #expect(bench.refusal("em0", .addAddress(strange, prefixLength: nil, broadcast: nil, destination: nil)) == .EOPNOTSUPP)
    #expect(bench.refusal("em0", .deleteAddress(.link(index: 1, bytes: []))) == .EOPNOTSUPP)
    #expect(bench.refusal("em0", .getAddress(family: 99)) == .EOPNOTSUPP)
    #expect(try bench.ask("em0", .getAddress(family: 18)) == .address(.link(1, try #require(em0.linkAddress))))
  }

  @Test func driversAnswer() throws {
    let bench = try Bench()
    let driver = NotingDriver(
      media: MediaStatus(configured: "Ethernet autoselect", active: "1000baseT <full-duplex>", status: "active", baudRate: 1_000_000_000))
    let em0 = try bench.attach("em0", driver: driver)
    _ = try bench.attach("lo0", driver: NotingDriver(takesRequests: false), type: .loopback)
    let end = SocketAddress.ipv4(IPv4Address(198, 18, 0, 1))
    let sets: [InterfaceOperation] = [
      .setPhysical(3), .setMedia("100baseTX"), .setGeneric(name: "a", value: "b"), .setTunnel(source: end, destination: end), .deleteTunnel,
    ]
    for set in sets {
      bench.clock.sleep(nanoseconds: 3)
      #expect(bench.refusal("em0", set) == nil)
      #expect(em0.lastChange == bench.clock.now())
      #expect(bench.refusal("lo0", set) == .EOPNOTSUPP)
    }
    #expect(driver.requests.count == 5)
    #expect(try bench.ask("em0", .getPhysical) == .number(3))
    #expect(try bench.ask("em0", .getStatus) == .text("all is well"))
    #expect(try bench.ask("em0", .getGeneric(name: "x")) == .text("value of x"))
    guard case .media(let media) = try bench.ask("em0", .getMedia) else { throw InterfaceError(.EIO, "no media") }
    #expect(media.status == "active")
    guard case .tunnel = try bench.ask("em0", .getTunnel) else { throw InterfaceError(.EIO, "no tunnel") }
    for get in [InterfaceOperation.getStatus, .getMedia, .getGeneric(name: "x"), .getTunnel] {
      #expect(bench.refusal("lo0", get) == .EOPNOTSUPP)
    }
    driver.refuse(InterfaceError(.EINVAL, "no"))
    for set in sets { #expect(bench.refusal("em0", set) == .EINVAL) }
    #expect(try bench.ask("em0", .getPhysical) == .number(3))
  }

  @Test func smallRequests() throws {
    let bench = try Bench()
    let driver = NotingDriver()
    let em0 = try bench.attach("em0", driver: driver)
    #expect(try bench.ask("em0", .getIndex) == .index(em0.index))
    #expect(try bench.ask("em0", .getMTU) == .number(1500))
    bench.clock.sleep(nanoseconds: 9)
    try bench.ask("em0", .setMetric(4))
    #expect(try bench.ask("em0", .getMetric) == .number(4))
    #expect(em0.lastChange == bench.clock.now())
    // Poll CPU: -1; accepted and ignored.
    #expect(try bench.ask("em0", .getPollCPU) == .number(-1))
    #expect(try bench.ask("em0", .setPollCPU(3)) == .done)
    #expect(try bench.ask("em0", .getPollCPU) == .number(-1))
    // NPOLLING: by its own request, and by the flag.
    try bench.ask("em0", .setPolling(true))
    #expect(em0.flags.contains(.polling) && driver.requests == [.polling(true)])
    try bench.ask("em0", .changeFlags(set: [], clear: .polling))
    #expect(!em0.flags.contains(.polling) && driver.requests.contains(.polling(false)))
    driver.refuse(InterfaceError(.EOPNOTSUPP, "no"))
    #expect(bench.refusal("em0", .setPolling(true)) == .EOPNOTSUPP)
    #expect(!em0.flags.contains(.polling))
    try bench.ask("em0", .setDescription("the way out"))
    #expect(bench.refusal("em0", .setDescription(String(repeating: "x", count: 2000))) == .ENAMETOOLONG)
    guard case .description(let all) = try bench.ask("em0", .describe, by: Bench.user) else { throw InterfaceError(.EIO, "none") }
    #expect(all.name == "em0" && all.description == "the way out" && all.groups == ["all"] && all.data.metric == 4)
    guard case .data(let data) = try bench.ask("em0", .getData) else { throw InterfaceError(.EIO, "none") }
    #expect(data.mtu == 1500 && data.type == .ethernet && data.linkStatus == .unknown)
  }

  // MARK: Watchdogs

  @Test("Case 58: if_timer 2 -> fires on the 2nd tick; lock busy -> 3rd")
  func watchdogFires() throws {
    let bench = try Bench(workers: 2)
    let lock = LockSerializer()
    let driver = NotingDriver(serializer: lock)
    let em0 = try bench.attach("em0", driver: driver)
    em0.watchdog.timer = 2
    bench.tick()
    #expect(driver.watchdogs == [])
    bench.tick()
    #expect(driver.watchdogs == [0])
    bench.tick()
    #expect(driver.watchdogs == [0] && em0.watchdog.timer == 0)
    em0.watchdog.timer = 2
    bench.tick()
    #expect(lock.tryEnter(.all))
    bench.tick()
    #expect(driver.watchdogs == [0])
    lock.leave(.all)
    bench.tick()
    #expect(driver.watchdogs == [0, 0])
  }

  @Test func watchdogFollowsItsOwner() throws {
    let bench = try Bench(workers: 2)
    let owner = Atomic(0), expired = EventLog()
    let netisr = bench.netisr
    let dog = Watchdog { netisr.workers[owner.load(ordering: .relaxed)] }
    dog.onExpiry {
      expired.add("worker \(Worker.current?.id ?? -1)")
      return true
    }
    dog.start()
    dog.timer = 3
    bench.tick()
    #expect(dog.timer == 2)
    owner.store(1, ordering: .relaxed)
    for _ in 0..<4 { bench.tick() }
    #expect(expired.take() == ["worker 1"])
    dog.timer = 1
    dog.stop()
    #expect(dog.timer == 0 && !dog.isRunning)
    dog.timer = 1
    bench.tick()
    bench.tick()
    #expect(expired.take() == [])
    // Started again it has one look a second, not two.
    dog.start()
    dog.start()
    #expect(dog.timer == 0)
    dog.timer = 2
    bench.tick()
    #expect(dog.timer == 1)
  }

  @Test("A stop that races a running callback never arms the watchdog again")
  func stopWithinExpiry() throws {
    let bench = try Bench()
    let netisr = bench.netisr
    let dog = Watchdog { netisr.workers[0] }
    let runs = Atomic(0)
    dog.onExpiry { [unowned dog] in
      runs.wrappingAdd(1, ordering: .relaxed)
      dog.stop()
      // "Busy" would mean another try.
      return false
    }
    dog.start()
    dog.timer = 1
    for _ in 0..<5 { bench.tick() }
    #expect(runs.load(ordering: .relaxed) == 1 && dog.timer == 0 && !dog.isRunning)
  }

  // MARK: Events

  @Test func eventsOfEventsComeLater() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0")
    let order = EventLog()
    let first = bench.table.subscribe { event, interface in
      if event == .link(.up) { interface.setLink(.down) }
      order.add("first \(event)")
    }
    let second = bench.table.subscribe { event, _ in order.add("second \(event)") }
    em0.setLink(.up)
    #expect(order.take() == ["first link(up)", "second link(up)", "first link(down)", "second link(down)"])
    first.cancel()
    em0.setLink(.up)
    #expect(order.take() == ["second link(up)"])
    second.cancel()
  }

  @Test func slowReadersLoseTheOldest() throws {
    let bench = try Bench()
    let em0 = try bench.attach("em0")
    let wakes = Atomic(0)
    let (stream, token) = bench.table.eventStream(capacity: 2) { wakes.wrappingAdd(1, ordering: .relaxed) }
    em0.setLink(.up)
    em0.setLink(.down)
    em0.setLink(.unknown)
    let (records, lost) = stream.take()
    #expect(records.map(\.event) == [.link(.down), .link(.unknown)] && lost == 1)
    #expect(records.first?.name == "em0" && records.first?.index == em0.index && records.first?.time == bench.clock.now())
    #expect(wakes.load(ordering: .relaxed) == 1)
    #expect(stream.take().records.isEmpty)
    em0.setLink(.up)
    #expect(wakes.load(ordering: .relaxed) == 2)
    token.cancel()
    em0.setLink(.down)
    #expect(stream.take().records.count == 1)
  }

  // MARK: Counters and traffic

  @Test func countersAreSummedOverWorkers() throws {
    let bench = try Bench(workers: 2)
    let em0 = try bench.attach("em0")
    for worker in bench.netisr.workers { worker.perform { em0.count(.collisions, 2) } }
    em0.count(.collisions)
    #expect(em0.counters.collisions == 5)
    // net.link.stats_compat: as of the last second.
    #expect(em0.compatibleCounters.collisions == 0)
    try bench.netisr.sysctl.write("net.link.stats_compat", "1")
    #expect(try bench.netisr.sysctl.read("net.link.stats_compat") == .integer(1))
    #expect(em0.compatibleCounters.collisions == 5)
    em0.count(.collisions)
    guard case .data(let still) = try bench.ask("em0", .getData) else { throw InterfaceError(.EIO, "none") }
    #expect(still.counters.collisions == 5)
    bench.tick()
    #expect(em0.compatibleCounters.collisions == 6)
    try bench.netisr.sysctl.write("net.link.stats_compat", "0")
    #expect(throws: SysctlError.self) { try bench.netisr.sysctl.write("net.link.stats_compat", "yes") }
    guard case .data(let live) = try bench.ask("em0", .getData) else { throw InterfaceError(.EIO, "none") }
    #expect(live.counters.collisions == 6)
  }

  final class Tap: InterfaceTap {
    let log = EventLog()
    func passed(_ packet: borrowing Packet, _ direction: PacketDirection, on interface: Interface) {
      log.add("\(interface.name) \(direction) \(packet.count)")
    }
  }

  @Test func framesAreCountedAndSeen() throws {
    let rig = try SendRig()
    let interface = rig.interface
    let tap = Tap()
    var batch = PacketBatch(capacity: 8)
    check(batch.append(rig.packet(1)) == nil)
    check(batch.append(rig.packet(2, length: 100, isMulticast: true)) == nil)
    interface.add(tap)
    interface.link = PairingLink()
    interface.input(&batch)
    check(batch.isEmpty)
    #expect(interface.counters.ipackets == 2 && interface.counters.ibytes == 160 && interface.counters.imcasts == 1)
    #expect(Set(tap.log.take()) == ["\(interface.name) input 60", "\(interface.name) input 100"])
    interface.transmit(rig.packet(3))
    #expect(tap.log.take() == ["\(interface.name) output 60"])
    interface.remove(tap)
    interface.transmit(rig.packet(4))
    #expect(tap.log.take() == [])
    rig.netisr.settle()
    #expect(interface.counters.opackets == 2)
    // Gone: nothing goes up or down, everything is accounted for.
    rig.table.detach(interface)
    check(batch.append(rig.packet(5)) == nil)
    interface.input(&batch)
    check(!interface.transmit(rig.packet(6)))
    // One was received, the other was to be sent.
    #expect(rig.drops(.interfaceGone) == 1 && rig.drops(.sendInterfaceGone) == 1)
  }
}
