// Link, filters, interrupts, statistics, hangs and lies of a running card.

import DriverKit
import Packet
import Testing
import Wire

@testable import Igb

@Suite struct ControlTests {
  @Test func anIdlePHYIsSetGoing() throws {
    let bench = try ScriptedBench()
    let driver = try bench.start()
    // Control: negotiate, restart; everything up to a gigabit, no pause.
    #expect(bench.card.space.phy[0] == 0x1340 && bench.card.space.phy[4] == 0x01e1 && bench.card.space.phy[9] == 0x0200)
    #expect(driver.link.status == .down)
    bench.card.space[0x8] |= 3
    #expect(driver.serviceControl() == .link)
    #expect(driver.link == LinkState(status: .up, speed: 1000, fullDuplex: true))
    #expect(driver.serviceControl() == [])
    driver.stop()
    // A link that is up is left alone.
    let up = try ScriptedBench()
    up.card.space.phy = [0: 0x1140, 1: 0x7969]
    let other = try up.start()
    #expect(up.card.space.phy[0] == 0x1140)
    other.stop()
  }

  @Test func serDesNegotiatesInThePCS() throws {
    let bench = try ScriptedBench(device: 0x10e7)
    bench.card.space.linkMode = 3
    let driver = try bench.start()
    let space = bench.card.space
    #expect(space[0x4208] == 0x3000c && space[0x24] == 0x400 && space[0] & 3 << 18 == 3 << 18)
    #expect(driver.link.status == .down)
    space[0x420c] = 0x1d
    #expect(driver.link == LinkState(status: .up, speed: 1000, fullDuplex: true))
    driver.stop()
    // A backplane is forced.
    let backplane = try ScriptedBench(device: 0x1523)
    backplane.card.space.linkMode = 1
    let other = try backplane.start()
    #expect(backplane.card.space[0x4208] == 0x1c)
    other.stop()
  }

  @Test func filtersAreTables() throws {
    let bench = try ScriptedBench { $0.promiscuous = false }
    let driver = try bench.start()
    let space = bench.card.space
    #expect(space[0x100] & 0x18 == 0 && space[0x5400] == 0x1200_5452 && space[0x5404] == 0x8000_5634)
    var filter = ReceiveFilter()
    filter.unicast = (0..<20).map { MACAddress(2, 0, 0, 0, 0, UInt8($0)) }
    filter.multicast = [MACAddress(0x01, 0, 0x5e, 0, 0x12, 0x34)]
    filter.vlans = [1, 42, 4094]
    try driver.setReceiveFilter(filter)
    #expect(space[0x5408] == 2 && space[0x540c] == 1 << 31)
    // Entry 16 lies in the second table.
    #expect(space[0x54e0] == 2 && space[0x54e4] == 1 << 31 | 0x0f00, "the sixteenth further address")
    // Bits 47 to 36: 0x341.
    #expect(space[0x5200 + 4 * (0x341 >> 5)] == 1 << (0x341 & 31))
    #expect(space[0x5600] == 3 && space[0x5604] == 1 << 10 && space[0x57fc] == 1 << 30)
    #expect(space[0x100] & (1 << 18) != 0 && space[0x100] & 0x18 == 0)
    filter.unicast = (0..<24).map { MACAddress(2, 0, 0, 0, 0, UInt8($0)) }
    filter.vlans = nil
    filter.allMulticast = true
    try driver.setReceiveFilter(filter)
    #expect(space[0x100] & 0x18 == 0x18 && space[0x100] & (1 << 18) == 0, "more addresses than the card holds")
    filter.vlans = [0]
    #expect(throws: DriverError.self) { try driver.setReceiveFilter(filter) }
    try driver.setMACAddress(MACAddress(2, 1, 2, 3, 4, 5))
    #expect(space[0x5400] == 0x0302_0102 && space[0x5404] == 1 << 31 | 0x0504)
    #expect(throws: DriverError.self) { try driver.setMACAddress(MACAddress(3, 1, 2, 3, 4, 5)) }
    driver.stop()
  }

  @Test func theI350sVLANTableIsWrittenOftener() throws {
    let bench = try ScriptedBench(device: 0x1521)
    let driver = try bench.start()
    #expect(bench.card.space.writes.count { $0.offset == 0x5600 } == 10)
    driver.stop()
  }

  @Test func armingLetsOneVectorThroughAndLooksAgain() throws {
    let bench = try ScriptedBench { $0.queues = 2 }
    let driver = try bench.start()
    let space = bench.card.space
    space.writes = []
    #expect(!driver.armInterrupt(queue: 1))
    let clear = try #require(space.position(of: 0x1580)), set = try #require(space.position(of: 0x1524))
    #expect(clear < set && space.writes[set].value == 2)
    driver.maskInterrupt(queue: 1)
    #expect(space[0x1524] == 1 << 4, "only the link's vector is open")
    // A frame that is there already: no sleep.
    bench.complete(queue: 1, length: 60)
    #expect(driver.armInterrupt(queue: 1))
    #expect(driver.statistics().first { $0.name == "rx_queue_1_arms" }?.value == 2)
    driver.stop()
    #expect(driver.armInterrupt(queue: 1), "whoever waits on a stopped card must not sleep")
  }

  @Test func sharedVectorsStayOpenForOthers() throws {
    let bench = try ScriptedBench { $0.queues = 4 }
    bench.card.interruptVectors = 3
    let driver = try bench.start()
    _ = driver.armInterrupt(queue: 0)
    _ = driver.armInterrupt(queue: 2)
    driver.maskInterrupt(queue: 0)
    #expect(bench.card.space[0x1524] & 1 == 1, "queue 2 waits on it")
    driver.maskInterrupt(queue: 2)
    #expect(bench.card.space[0x1524] == 4)
    driver.stop()
  }

  @Test func aSenderThatWaitsForRoomOpensItsSecondVector() throws {
    let bench = try ScriptedBench()
    let driver = try bench.start()
    var batch = PacketBatch(capacity: 70)
    for _ in 0..<70 { if let packet = bench.packet() { _ = batch.append(packet) } }
    check(driver.send(queue: 0, &batch) == 63)
    bench.card.space.writes = []
    #expect(!driver.armInterrupt(queue: 0))
    #expect(bench.card.space.writes.last { $0.offset == 0x1524 }?.value == 3)
    batch.removeAll()
    driver.stop()
    #expect(bench.pool.available == ScriptedBench.buffers)
  }

  @Test func countersAddUp() throws {
    let bench = try ScriptedBench { $0.queues = 2 }
    let driver = try bench.start()
    let space = bench.card.space
    func value(_ name: String) -> UInt64? { driver.statistics().first { $0.name == name }?.value }
    for _ in 0..<3 {
      space[0x4074] = 7
      space[0x4088] = 0xffff_fffe
      space[0x408c] = 1
      space[0x4010] = 5
      space[0xc070] = 2
      #expect(driver.tick() == [])
    }
    space[0xc070] = 0
    #expect(value("rx_packets") == 21)
    #expect(value("rx_bytes") == 3 * 0x1_ffff_fffe)
    #expect(value("rx_missed_errors") == 15)
    #expect(value("rx_queue_1_missed") == 6 && value("rx_queue_0_missed") == 0)
    #expect(Set(driver.statistics().map(\.name)).count == driver.statistics().count)
    driver.stop()
  }

  @Test func aTransmitHangIsRecovered() throws {
    let bench = try ScriptedBench()
    let driver = try bench.start()
    let space = bench.card.space
    space[0x8] |= 3
    #expect(driver.tick() == .link)
    var batch = PacketBatch(capacity: 4)
    for _ in 0..<4 { if let packet = bench.packet() { _ = batch.append(packet) } }
    check(driver.send(queue: 0, &batch) == 4)
    bench.complete(queue: 0, length: 77)
    #expect(driver.tick() == [])
    bench.clock.time += 1_900_000_000
    #expect(driver.tick() == [])
    bench.clock.time += 200_000_000
    let resets = space.resets
    // The reset took the link away.
    #expect(driver.tick() == [.reset, .link])
    #expect(space.resets == resets + 1 && driver.health == .running)
    #expect(space[0xe018] == 0 && space[0xc018] == 63 && space[0x100] & 2 != 0)
    func value(_ name: String) -> UInt64? { driver.statistics().first { $0.name == name }?.value }
    #expect(value("tx_timeout_count") == 1 && value("tx_queue_0_lost_in_reset") == 4)
    // What had arrived is handed out first.
    var received = PacketBatch(capacity: 4)
    check(driver.receive(queue: 0, into: &received, max: 4) == 1)
    received.forEach { check($0.count == 77) }
    received.removeAll()
    driver.stop()
    #expect(bench.pool.available == ScriptedBench.buffers)
  }

  @Test func impossibleHeadsQuarantineThePort() throws {
    for (offset, value) in [(0xc010, 64), (0xc010, UInt32.max), (0xe010, 5), (0xe010, 4096)] as [(Int, UInt32)] {
      let bench = try ScriptedBench()
      let driver = try bench.start()
      if let packet = bench.packet() {
        var batch = PacketBatch(capacity: 1)
        _ = batch.append(packet)
        _ = driver.send(queue: 0, &batch)
      }
      bench.card.space[offset] = value
      #expect(driver.tick() == .lost, "\(offset): \(value)")
      guard case .quarantined(let reason) = driver.health else {
        Issue.record("\(driver.health)")
        continue
      }
      #expect(reason.contains("head is \(value)"))
      #expect(!bench.card.isBusMaster && bench.card.space[0x1524] == 0)
      var batch = PacketBatch(capacity: 4)
      check(driver.receive(queue: 0, into: &batch, max: 4) == 0)
      #expect(driver.tick() == .lost)
      driver.stop()
      #expect(bench.pool.available == ScriptedBench.buffers)
      #expect(throws: DriverError.self) { try driver.start(pools: [bench.pool]) }
    }
  }

  @Test func aCardThatIsGoneIsNoticed() throws {
    for notice: (IgbDriver) -> DriverEvents in [{ $0.tick() }, { $0.serviceControl() }] {
      let bench = try ScriptedBench()
      let driver = try bench.start()
      bench.card.space.isGone = true
      #expect(driver.armInterrupt(queue: 0))
      #expect(notice(driver) == .lost && driver.health == .gone)
      #expect(driver.link.status == .unknown)
      driver.stop()
      #expect(bench.pool.available == ScriptedBench.buffers)
      #expect(throws: DriverError.gone(card: "0000:05:00.0")) { try driver.start(pools: [bench.pool]) }
    }
  }

  @Test func queuesThatAreNotThereAreHarmless() throws {
    let bench = try ScriptedBench()
    let driver = try bench.start()
    var batch = PacketBatch(capacity: 1)
    for queue in [-1, 1, 16] {
      check(driver.receive(queue: queue, into: &batch, max: 1) == 0 && driver.send(queue: queue, &batch) == 0)
      driver.reclaim(queue: queue)
      driver.maskInterrupt(queue: queue)
      #expect(driver.eventDescriptor(queue: queue) == -1 && driver.armInterrupt(queue: queue))
    }
    driver.stop()
  }
}
