// Filters, link, interrupts, statistics.

import CRingway
import DriverKit
import ModelKit
import Models
import Packet
import Platform
import Testing
import Wire

@testable import E1000e

@Suite struct FilterTests {
  let group = MACAddress(1, 0, 0x5e, 0, 0, 5)
  let other = MACAddress(2, 0, 0, 0, 0, 77)

  private func numbers(_ bench: Bench, _ frames: [[UInt8]]) -> [UInt8] {
    for frame in frames { bench.wire.send(frame) }
    bench.card.settle()
    return bench.frames().map { $0[15] }
  }

  private var frames: [[UInt8]] {
    [
      Frames.plain(0), Frames.plain(1, to: other), Frames.plain(2, to: group), Frames.plain(3, to: .broadcast),
      Frames.plain(4, to: MACAddress(1, 0, 0x5e, 0, 0, 6)),
    ]
  }

  @Test func promiscuousTakesEverything() throws {
    let bench = try Bench()
    #expect(numbers(bench, frames) == [0, 1, 2, 3, 4])
  }

  @Test func ownAddressAndBroadcastAlways() throws {
    let bench = try Bench { $0.promiscuous = false }
    #expect(numbers(bench, frames) == [0, 3])
  }

  @Test func furtherAddressesAndGroups() throws {
    let bench = try Bench { $0.promiscuous = false }
    var filter = ReceiveFilter()
    filter.unicast = [other]
    filter.multicast = [group]
    try bench.driver.setReceiveFilter(filter)
    #expect(numbers(bench, frames) == [0, 1, 2, 3])
    filter.multicast = []
    filter.unicast = []
    filter.allMulticast = true
    try bench.driver.setReceiveFilter(filter)
    #expect(numbers(bench, frames) == [0, 2, 3, 4])
  }

  @Test func moreAddressesThanTheCardHoldsLetAllIn() throws {
    let bench = try Bench { $0.promiscuous = false }
    var filter = ReceiveFilter()
    filter.unicast = (0..<16).map { MACAddress(2, 0, 0, 1, 0, UInt8($0)) }
    try bench.driver.setReceiveFilter(filter)
    #expect(numbers(bench, frames) == [0, 1, 3])
  }

  @Test func vlansAreFiltered() throws {
    let bench = try Bench()
    var filter = ReceiveFilter()
    filter.promiscuous = true
    filter.vlans = [5, 4094]
    try bench.driver.setReceiveFilter(filter)
    for vlan: UInt16 in [5, 6, 4094, 0, 37] { bench.wire.send(Frames.ipv4(vlan: vlan)) }
    bench.wire.send(Frames.ipv4())
    bench.card.settle()
    #expect(bench.frames().map { $0[12] == 0x81 ? Int($0[14]) << 8 | Int($0[15]) : -1 } == [5, 4094, 0, -1])
  }

  @Test func theAddressCanBeChanged() throws {
    let bench = try Bench { $0.promiscuous = false }
    try bench.driver.setMACAddress(other)
    #expect(numbers(bench, frames) == [1, 3])
    #expect(bench.driver.macAddress == other)
    bench.driver.stop()
    try bench.driver.start(pools: [bench.pool])
    #expect(numbers(bench, frames) == [1, 3])
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
    bench.wire.send(Frames.plain(1))
    bench.card.settle()
    #expect(!readable(event), "queues start masked")
    #expect(bench.driver.armInterrupt(queue: 0), "a frame waits already")
    _ = bench.frames()
    let sleeps = bench.driver.armInterrupt(queue: 0)
    #expect(!sleeps)
    #expect(!readable(event), "what came while polling does not wake")
    bench.wire.send(Frames.plain(2))
    bench.card.settle()
    #expect(readable(event))
    bench.wire.send(Frames.plain(3))
    bench.card.settle()
    #expect(!readable(event), "the vector masks itself until it is armed again")
    #expect(bench.frames().count == 2)
    bench.driver.maskInterrupt(queue: 0)
    bench.wire.send(Frames.plain(4))
    bench.card.settle()
    #expect(!readable(event))
  }

  @Test func aSenderWithoutRoomIsWoken() throws {
    let bench = try Bench()
    var batch = PacketBatch(capacity: 70)
    for i in 0..<70 {
      let packet = try bench.packet(Frames.plain(i))
      if let refused = batch.append(packet) { _ = consume refused }
    }
    _ = bench.driver.send(queue: 0, &batch)
    #expect(!bench.driver.armInterrupt(queue: 0))
    bench.card.settle()
    #expect(readable(bench.driver.eventDescriptor(queue: 0)))
    let rest = bench.driver.send(queue: 0, &batch)
    #expect(rest == 7)
  }

  @Test func queuesHaveVectorsOfTheirOwnWhenThereAreEnough() throws {
    let bench = try Bench { $0.queues = 2 }
    let first = bench.driver.eventDescriptor(queue: 0), second = bench.driver.eventDescriptor(queue: 1)
    #expect(Set([first, second, bench.driver.controlDescriptor]).count == 3)
    #expect(bench.driver.eventDescriptor(queue: 2) == -1)
    for queue in 0..<2 { #expect(!bench.driver.armInterrupt(queue: queue)) }
    // Which queue the hash picks is the card's business; the right one of the two wakes.
    for port: UInt16 in 0..<16 { bench.wire.send(Frames.ipv4(tcp: true, ports: (port, 99))) }
    bench.card.settle()
    #expect(readable(first))
    #expect(readable(second))
    #expect(!readable(bench.driver.controlDescriptor))
  }

  @Test(arguments: [0, 1, 2])
  func fewerVectorsAreShared(vectors: Int) throws {
    let bench = try Bench(vectors: vectors) { $0.queues = 2 }
    let events = (0..<2).map { bench.driver.eventDescriptor(queue: $0) } + [bench.driver.controlDescriptor]
    #expect(Set(events).count == max(1, vectors))
    if vectors == 0 {
      #expect(events == [-1, -1, -1])
      #expect(bench.driver.armInterrupt(queue: 0), "without interrupts nobody may sleep")
      return
    }
    for queue in 0..<2 { #expect(!bench.driver.armInterrupt(queue: queue)) }
    for port: UInt16 in 0..<16 { bench.wire.send(Frames.ipv4(tcp: true, ports: (port, 99))) }
    bench.card.settle()
    #expect(readable(events[0]))
    bench.model.setLink(up: false)
    #expect(readable(bench.driver.controlDescriptor))
    #expect(bench.driver.serviceControl() == .link)
  }

  @Test func moderationSpacesInterrupts() throws {
    let bench = try Bench { $0.moderationMicroseconds = 100 }
    let event = bench.driver.eventDescriptor(queue: 0)
    for (wait, wakes) in [(0, true), (10_000, false), (80_000, false), (10_000, true)] as [(UInt64, Bool)] {
      _ = bench.frames()
      _ = bench.driver.armInterrupt(queue: 0)
      bench.card.advance(nanoseconds: wait)
      bench.wire.send(Frames.plain(1))
      bench.card.settle()
      #expect(readable(event) == wakes)
    }
  }

  @Test func linkChangesInterruptEveryTime() throws {
    let bench = try Bench()
    #expect(bench.driver.link == LinkState(status: .up, speed: 1000, fullDuplex: true))
    for round in 0..<100 {
      bench.model.setLink(up: round % 2 == 1)
      #expect(readable(bench.driver.controlDescriptor))
      #expect(bench.driver.serviceControl() == .link)
      #expect(bench.driver.link.status == (round % 2 == 1 ? .up : .down))
      #expect(bench.driver.serviceControl() == [])
    }
  }

  @Test func linkChangesAreSeenByPollingToo() throws {
    let bench = try Bench(vectors: 0)
    #expect(bench.driver.tick() == [])
    bench.model.setLink(up: false)
    #expect(bench.driver.tick() == .link)
    #expect(bench.driver.tick() == [])
  }

  /// Reading the cause register clears queue causes as well; the driver sets them again.
  @Test func serviceControlDoesNotSwallowAQueuesInterrupt() throws {
    let bench = try Bench { $0.moderationMicroseconds = 100 }
    let event = bench.driver.eventDescriptor(queue: 0)
    _ = bench.driver.armInterrupt(queue: 0)
    bench.wire.send(Frames.plain(1))
    bench.card.settle()
    #expect(readable(event))
    _ = bench.frames()
    #expect(!bench.driver.armInterrupt(queue: 0))
    // Held back by moderation while the link changes.
    bench.wire.send(Frames.plain(2))
    bench.card.settle()
    #expect(!readable(event))
    bench.model.setLink(up: false)
    #expect(bench.driver.serviceControl() == .link)
    bench.card.advance(nanoseconds: 100_000)
    #expect(readable(event))
  }

  @Test func statisticsHaveTheNamesPeopleKnow() throws {
    let bench = try Bench()
    bench.wire.send(Frames.plain(1, to: .broadcast))
    bench.wire.send(Frames.plain(2, count: 100, to: MACAddress(1, 0, 0, 0, 0, 1)))
    bench.card.settle()
    try bench.send([Frames.plain(3)])
    bench.card.settle()
    let names = Set(bench.driver.statistics().map(\.name))
    for name in ["rx_packets", "tx_packets", "rx_crc_errors", "rx_missed_errors", "tx_timeout_count", "rx_queue_0_packets"] {
      #expect(names.contains(name))
    }
    #expect(names.count == bench.driver.statistics().count, "each name once")
    // Read twice more: counters that clear on reading are added up.
    #expect(bench.statistic("rx_packets") == 2)
    #expect(bench.statistic("rx_bytes") == 168)
    #expect(bench.statistic("rx_broadcast") == 1)
    #expect(bench.statistic("rx_multicast") == 1)
    #expect(bench.statistic("tx_bytes") == 64)
  }
}
