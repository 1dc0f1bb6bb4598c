// What goes into registers in less usual set-ups: few vectors, statistics, filters. On a card that
// is a list of answers.

import CRingway
import DriverKit
import Platform
import Testing
import Wire

@testable import Ixgbe

@Suite struct RegisterTests {
  /// Too few vectors for one each: queues share them in turn, the rest has the last.
  @Test func fewVectorsAreShared() throws {
    let bench = try ScriptedBench(ScriptedCard(vectors: 3)) {
      $0.queues = 4
      $0.moderationMicroseconds = 40
    }
    let driver = try bench.start(), space = bench.card.space
    #expect(bench.card.vectors.count == 3)
    #expect(space[0x900] == 0x8181_8080 && space[0x904] == 0x8181_8080 && space[0xa00] == 0x8200)
    #expect(space[0x820] == 20 << 3 | 1 << 31, "the ceiling: nobody owns the interval")
    #expect(Set((0..<4).map { driver.eventDescriptor(queue: $0) }).count == 2)
    // Arming clears nothing that may be another queue's, and masking masks nothing of theirs.
    space.writes = []
    #expect(!driver.armInterrupt(queue: 0) && !driver.armInterrupt(queue: 3))
    driver.maskInterrupt(queue: 0)
    #expect(space.position(of: 0x800) == nil && space.position(of: 0x888) == nil)
    #expect(space[0x880] & 0xffff == 3)
  }

  @Test func oneVectorServesEverything() throws {
    let bench = try ScriptedBench(ScriptedCard(vectors: 1)) { $0.queues = 2 }
    let driver = try bench.start()
    #expect(bench.card.space[0x900] == 0x8080_8080 && bench.card.space[0xa00] == 0x8000)
    #expect(driver.controlDescriptor == driver.eventDescriptor(queue: 1) && driver.controlDescriptor >= 0)
  }

  @Test func withoutVectorsEverythingIsPolled() throws {
    let bench = try ScriptedBench(ScriptedCard(vectors: 0))
    let driver = try bench.start(), space = bench.card.space
    #expect(space[0x880] == 0 && space[0x898] == 0 && space[0x900] == 0 && space[0xa00] == 0)
    #expect(driver.controlDescriptor == -1 && driver.eventDescriptor(queue: 0) == -1)
    #expect(driver.armInterrupt(queue: 0), "whoever asks must not sleep")
  }

  /// The queue's own cause is cleared before it is let through, and no other's.
  @Test func armingClearsOnlyTheQueuesCause() throws {
    let bench = try ScriptedBench { $0.queues = 3 }
    let driver = try bench.start(), space = bench.card.space
    space[0x800] = 0x10_0007
    #expect(!driver.armInterrupt(queue: 1))
    #expect(space[0x800] == 0x10_0005)
    #expect(space[0x880] & 0xffff == 2)
    driver.maskInterrupt(queue: 1)
    #expect(space[0x880] & 0xffff == 0)
    // The control side leaves queues' causes alone.
    _ = driver.serviceControl()
    #expect(space[0x800] == 0x5)
  }

  @Test func countersAddUpOverReads() throws {
    let bench = try ScriptedBench()
    let driver = try bench.start(), space = bench.card.space
    func value(_ name: String) -> UInt64? { driver.statistics().first { $0.name == name }?.value }
    for _ in 0..<3 {
      space[0x4000] = 5
      space[0x3fa4] = 7
      space[0x4088] = 0xffff_fff0
      space[0x408c] = 0xf1
      // On the doorbells' page: memory that a read does not clear.
      space[0x1430] = 11
      _ = driver.tick()
    }
    #expect(value("rx_crc_errors") == 15 && value("rx_errors") == 15)
    #expect(value("rx_missed_errors") == 21)
    #expect(value("rx_bytes_nic") == 3 * 0x1_ffff_fff0, "36 bits")
    #expect(value("rx_no_dma_resources") == 33)
    // Names that users of ethtool know, each once.
    let names = driver.statistics().map(\.name)
    #expect(Set(names).count == names.count)
    for name in ["rx_pkts_nic", "tx_pkts_nic", "lsc_int", "tx_timeout_count", "rx_queue_0_packets", "tx_queue_0_bytes"] {
      #expect(names.contains(name))
    }
    driver.stop()
    #expect(value("rx_crc_errors") == 15, "counts outlive a stop")
  }

  @Test func packetMemoryErrorsLeadToAReset() throws {
    let bench = try ScriptedBench()
    let driver = try bench.start()
    let resets = bench.card.space.resets
    bench.card.space[0x800] = 1 << 28
    #expect(driver.serviceControl() == .reset)
    #expect(bench.card.space.resets == resets + 1 && driver.health == .running)
    #expect(driver.warnings.contains { $0.contains("packet memory") })
  }

  /// Addresses lie in all 128 places, with their pools, and multicast hashes where the card looks.
  @Test func filtersGoIntoTheirTables() throws {
    let bench = try ScriptedBench { $0.promiscuous = false }
    let driver = try bench.start(), space = bench.card.space
    var filter = ReceiveFilter()
    filter.unicast = (0..<127).map { MACAddress(2, 0, 0, 0, 1, UInt8($0)) }
    filter.multicast = [MACAddress(1, 0, 0x5e, 0x7f, 0xff, 0xfa)]
    filter.vlans = [1, 4094]
    try driver.setReceiveFilter(filter)
    #expect(space[0xa200 + 127 * 8] == 0x0000_0002 && space[0xa204 + 127 * 8] == 0x8000_7e01)
    #expect(space[0xa600 + 127 * 8] == 1 && space[0xa604 + 127 * 8] == 0)
    // Bits 47 to 36 of the address: faf: word 125, bit 15.
    #expect(space[0x5200 + 4 * 0x7d] == 1 << 15)
    #expect(space[0x5090] == 4)
    #expect(space[0xa000] == 3 && space[0xa000 + 4 * 127] == 1 << 30)
    #expect(space[0x5088] == 0x4000_8100)
    #expect(space[0x5080] == 1 << 10)
    filter = ReceiveFilter()
    filter.promiscuous = true
    try driver.setReceiveFilter(filter)
    #expect(space[0xa204 + 127 * 8] == 0 && space[0xa600 + 127 * 8] == 0 && space[0x5200 + 4 * 0x7d] == 0)
    #expect(space[0x5080] == 7 << 8 && space[0x5088] == 0x8100)
  }
}
