// Filters, interrupts and their moderation, link, on the model.

import CRingway
import DriverKit
import ModelKit
import Models
import Packet
import Platform
import Testing
import Wire

@testable import Ixgbe

@Suite struct FilterTests {
  let group = MACAddress(1, 0, 0x5e, 0, 0, 5)
  let other = MACAddress(2, 0, 0, 0, 0, 77)

  private func numbers(_ bench: Bench) -> [UInt8] {
    bench.arrive([
      Frames.plain(0), Frames.plain(1, to: other), Frames.plain(2, to: group), Frames.plain(3, to: .broadcast),
      Frames.plain(4, to: MACAddress(1, 0, 0x5e, 0, 0, 6)),
    ])
    return bench.frames().map { $0[15] }
  }

  @Test func promiscuousTakesEverything() throws {
    #expect(numbers(try Bench()) == [0, 1, 2, 3, 4])
  }

  @Test func ownAddressAndBroadcastAlways() throws {
    #expect(numbers(try Bench { $0.promiscuous = false }) == [0, 3])
  }

  @Test func furtherAddressesAndGroups() throws {
    let bench = try Bench { $0.promiscuous = false }
    var filter = ReceiveFilter()
    // The last of the card's exact addresses.
    filter.unicast = (0..<126).map { MACAddress(2, 0, 0, 1, 0, UInt8($0)) } + [other]
    filter.multicast = [group]
    try bench.driver.setReceiveFilter(filter)
    #expect(numbers(bench) == [0, 1, 2, 3])
    filter.multicast = []
    filter.unicast = []
    filter.allMulticast = true
    try bench.driver.setReceiveFilter(filter)
    #expect(numbers(bench) == [0, 2, 3, 4])
  }

  @Test func moreAddressesThanTheCardHoldsLetAllIn() throws {
    let bench = try Bench { $0.promiscuous = false }
    var filter = ReceiveFilter()
    filter.unicast = (0..<128).map { MACAddress(2, 0, 0, 1, 0, UInt8($0)) }
    try bench.driver.setReceiveFilter(filter)
    #expect(numbers(bench) == [0, 1, 3])
  }

  @Test(arguments: [false, true]) func vlansAreFiltered(strip: Bool) throws {
    let bench = try Bench { $0.stripVLAN = strip }
    var filter = ReceiveFilter()
    filter.promiscuous = false
    filter.vlans = [5, 4094]
    try bench.driver.setReceiveFilter(filter)
    bench.arrive([5, 6, 4094, 0, 37].map { Frames.ipv4(vlan: $0) } + [Frames.ipv4()])
    let batch = bench.receive()
    var tags: [Int] = []
    batch.forEach { packet in
      let bytes = packet.bytes()
      tags.append(
        packet.flags.contains(.vlan) ? Int(packet.vlan) : bytes[12] == 0x81 ? Int(bytes[14]) << 8 | Int(bytes[15]) : -1)
    }
    #expect(tags == [5, 4094, 0, -1])
  }

  @Test func theAddressCanBeChanged() throws {
    let bench = try Bench { $0.promiscuous = false }
    try bench.driver.setMACAddress(other)
    #expect(numbers(bench) == [1, 3])
    #expect(bench.driver.macAddress == other)
    bench.driver.stop()
    try bench.driver.start(pools: [bench.pool])
    bench.card.advance(nanoseconds: 1_000_000)
    #expect(numbers(bench) == [1, 3])
  }

  @Test func nonsenseIsRefused() throws {
    let bench = try Bench()
    var filter = ReceiveFilter()
    filter.unicast = [group]
    #expect(throws: DriverError.self) { try bench.driver.setReceiveFilter(filter) }
    filter = ReceiveFilter()
    filter.multicast = [other]
    #expect(throws: DriverError.self) { try bench.driver.setReceiveFilter(filter) }
    filter = ReceiveFilter()
    filter.vlans = [4095]
    #expect(throws: DriverError.self) { try bench.driver.setReceiveFilter(filter) }
    #expect(throws: DriverError.self) { try bench.driver.setMACAddress(.broadcast) }
  }
}

@Suite struct InterruptTests {
  private func readable(_ descriptor: Int32) -> Bool { EventFD.drain(descriptor) > 0 }

  @Test func anArmedQueueWakesOnceAndOnlyOnce() throws {
    let bench = try Bench()
    let event = bench.driver.eventDescriptor(queue: 0)
    bench.arrive([Frames.plain(1)])
    #expect(!readable(event), "queues start masked")
    #expect(bench.driver.armInterrupt(queue: 0), "a frame waits already")
    _ = bench.frames()
    #expect(!bench.driver.armInterrupt(queue: 0))
    #expect(!readable(event), "what came while polling does not wake")
    bench.arrive([Frames.plain(2)])
    #expect(readable(event))
    bench.arrive([Frames.plain(3)])
    #expect(!readable(event), "the vector masks itself until it is armed again")
    #expect(bench.frames().count == 2)
    #expect(!bench.driver.armInterrupt(queue: 0))
    bench.driver.maskInterrupt(queue: 0)
    bench.arrive([Frames.plain(4)])
    #expect(!readable(event))
  }

  @Test func eachQueueWakesItsOwn() throws {
    let bench = try Bench { $0.queues = 4 }
    for queue in 0..<4 { #expect(!bench.driver.armInterrupt(queue: queue)) }
    let events = (0..<4).map { bench.driver.eventDescriptor(queue: $0) }
    #expect(Set(events).count == 4 && !events.contains(bench.driver.controlDescriptor))
    for port: UInt16 in 0..<20 {
      bench.arrive([Frames.ipv4(tcp: true, from: 1, to: 2, ports: (port, 80))])
      let woken = (0..<4).filter { readable(events[$0]) }
      #expect(woken.count == 1)
      let queue = woken.first ?? 0
      #expect(bench.frames(queue: queue).count == 1)
      #expect(!bench.driver.armInterrupt(queue: queue))
    }
  }

  /// Sent frames wake nobody who does not wait for room.
  @Test func sentFramesLetSleepersSleep() throws {
    let bench = try Bench { $0.queues = 8 }
    #expect(!bench.driver.armInterrupt(queue: 7))
    try bench.send((0..<40).map { Frames.plain($0) }, queue: 7)
    bench.card.settle()
    #expect(bench.wire.sent.count == 40)
    #expect(!readable(bench.driver.eventDescriptor(queue: 7)))
  }

  /// A sender that found no room is woken when there is some.
  @Test func roomWakesABlockedSender() throws {
    let bench = try Bench()
    try bench.send((0..<63).map { Frames.plain($0) })
    #expect(try bench.send([Frames.plain(63)]) == 0)
    #expect(!bench.driver.armInterrupt(queue: 0))
    bench.card.settle()
    #expect(readable(bench.driver.eventDescriptor(queue: 0)))
    #expect(try bench.send([Frames.plain(63)]) == 1)
  }

  /// Between two interrupts lies the interval that EITR holds.
  @Test func interruptsAreModerated() throws {
    let bench = try Bench { $0.moderationMicroseconds = 80 }
    let event = bench.driver.eventDescriptor(queue: 0)
    #expect(bench.statistic("rx_queue_0_moderation_us") == 10)
    bench.card.advance(nanoseconds: 200_000)
    #expect(!bench.driver.armInterrupt(queue: 0))
    bench.arrive([Frames.plain(1)])
    #expect(readable(event))
    _ = bench.frames()
    #expect(!bench.driver.armInterrupt(queue: 0))
    bench.arrive([Frames.plain(2)])
    #expect(!readable(event), "too soon")
    bench.card.advance(nanoseconds: 20_000)
    #expect(readable(event))
  }

  /// Traffic lengthens the interval, as far as the ceiling, until an interrupt finds some thirty
  /// frames; more traffic needs less time for that; silence ends it at once.
  @Test func moderationFollowsTheTraffic() throws {
    let bench = try Bench { $0.moderationMicroseconds = 80 }
    func round(_ frames: Int, every: UInt64) -> UInt64 {
      bench.arrive((0..<frames).map { Frames.plain($0) })
      _ = bench.frames()
      bench.card.advance(nanoseconds: every)
      _ = bench.driver.armInterrupt(queue: 0)
      return bench.statistic("rx_queue_0_moderation_us") ?? 0
    }
    var last: UInt64 = 10
    for _ in 0..<40 {
      let now = round(40, every: 100_000)
      #expect(now >= last && now <= 80)
      last = now
    }
    #expect(last >= 60)
    for _ in 0..<5 { last = round(60, every: 50_000) }
    #expect(last >= 20 && last <= 30)
    #expect(round(1, every: 1_000_000) == 10)
    // Off means off.
    let off = try Bench()
    for _ in 0..<20 {
      off.arrive((0..<30).map { Frames.plain($0) })
      _ = off.frames()
      off.card.advance(nanoseconds: 50_000)
      _ = off.driver.armInterrupt(queue: 0)
    }
    #expect(off.statistic("rx_queue_0_moderation_us") == 0)
  }

  @Test func argumentsAreChecked() throws {
    let bench = try Bench()
    #expect(bench.driver.eventDescriptor(queue: 1) == -1 && bench.driver.eventDescriptor(queue: -1) == -1)
    #expect(bench.driver.armInterrupt(queue: 7))
    bench.driver.maskInterrupt(queue: -3)
    bench.driver.reclaim(queue: 99)
  }
}

@Suite struct LinkTests {
  static let modes: [InProcessCard.Mode] = [.trapped, .shared]

  @Test(arguments: modes) func linkChangesInterrupt(mode: InProcessCard.Mode) throws {
    let bench = try Bench(mode: mode)
    #expect(bench.driver.link == LinkState(status: .up, speed: 10000))
    EventFD.drain(bench.driver.controlDescriptor)
    for round in 0..<4 {
      bench.model.setLink(up: round % 2 == 1)
      bench.card.advance(nanoseconds: 10_000_000)
      #expect(EventFD.drain(bench.driver.controlDescriptor) > 0)
      #expect(bench.driver.serviceControl() == .link)
      #expect(bench.driver.link.status == (round % 2 == 1 ? .up : .down))
    }
    bench.arrive([Frames.plain(1)])
    #expect(bench.frames() == [Frames.plain(1)])
  }

  @Test func linkChangesAreSeenByPollToo() throws {
    let bench = try Bench()
    bench.model.setLink(up: false)
    bench.card.advance(nanoseconds: 1_000_000)
    #expect(bench.driver.tick() == .link)
    #expect(bench.driver.tick() == [])
    bench.model.setLink(up: true)
    bench.card.advance(nanoseconds: 1_000_000)
    #expect(bench.driver.tick() == .link)
    #expect(bench.driver.link.status == .up)
  }

  @Test(arguments: [
    (Intel82599Module.shortRange, 10000), (.longRange, 10000), (.passiveCable, 10000), (.dualSpeed, 10000),
    (.gigabitCopper, 1000),
  ])
  func modulesComeUp(module: Intel82599Module, speed: Int) throws {
    let bench = try Bench(module: module)
    #expect(bench.driver.link == LinkState(status: .up, speed: speed))
    #expect(bench.driver.warnings == [])
    bench.arrive([Frames.plain(1)])
    #expect(bench.frames() == [Frames.plain(1)])
  }

  @Test func unsupportedModulesAreRefusedUnlessAllowed() throws {
    #expect(throws: DriverError.self) { try Bench(module: .otherVendor) }
    #expect(throws: DriverError.self) { try Bench(module: .unknown) { $0.allowUnsupportedSFP = true } }
    let bench = try Bench(module: .otherVendor) { $0.allowUnsupportedSFP = true }
    #expect(bench.driver.link == LinkState(status: .up, speed: 10000))
    #expect(bench.driver.warnings.count == 1)
  }

  @Test func aModulePluggedInLaterIsFound() throws {
    let bench = try Bench(module: .absent)
    #expect(bench.driver.health == .running && bench.driver.link.status == .down && bench.driver.module == nil)
    bench.model.setModule(.shortRange)
    bench.card.advance(nanoseconds: 10_000_000)
    #expect(EventFD.drain(bench.driver.controlDescriptor) > 0)
    _ = bench.driver.serviceControl()
    bench.card.advance(nanoseconds: 10_000_000)
    _ = bench.driver.serviceControl()
    #expect(bench.driver.link == LinkState(status: .up, speed: 10000))
    bench.model.setModule(.absent)
    bench.card.advance(nanoseconds: 10_000_000)
    _ = bench.driver.serviceControl()
    #expect(bench.driver.link.status == .down && bench.driver.module == nil)
    #expect(bench.driver.health == .running)
  }

  @Test func backplaneCardsComeUp() throws {
    let bench = try Bench(device: 0x10f7)
    #expect(bench.driver.link.status == .up && bench.driver.link.speed == 10000)
    bench.arrive([Frames.plain(1)])
    #expect(bench.frames() == [Frames.plain(1)])
    try bench.send([Frames.plain(2)])
    bench.card.settle()
    #expect(bench.wire.sent.map(\.bytes) == [Frames.plain(2)])
  }
}
