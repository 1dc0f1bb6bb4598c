// Attaching and starting: order, members, refusals, semaphores, non-volatile memory.

import DriverKit
import PCI
import Testing

@testable import Igb

@Suite struct AttachTests {
  @Test func attachingFollowsTheDatasheetsOrder() throws {
    let bench = try ScriptedBench()
    let driver = try bench.attach()
    let space = bench.card.space
    #expect(driver.macAddress.description == "52:54:00:12:34:56")
    #expect(driver.health == .stopped && driver.warnings == [])
    #expect(!bench.card.isBusMaster)
    let causes = try #require(space.position(of: 0x150c)), vectors = try #require(space.position(of: 0x1528))
    let receive = try #require(space.position(of: 0x100)), requests = try #require(space.position(of: 0, where: { $0 & 4 != 0 }))
    let reset = try #require(space.position(of: 0, where: { $0 & 1 << 26 != 0 }))
    #expect(causes < receive && vectors < receive && receive < requests && requests < reset)
    #expect(space.resets == 1)
    #expect(space.writes[reset...].contains { $0.offset == 0x1528 && $0.value == .max }, "masked again after the reset")
    #expect(space.writes.last { $0.offset == 0 }.map { $0.value & 4 } == 0, "requests to memory are allowed again")
    #expect(space[0x1508] == 0 && space[0x1524] == 0, "nothing is let through")
    #expect(space[0x5b50] & 3 == 0 && space[0x5b5c] == 0, "no semaphore is kept")
  }

  @Test func startingFollowsTheDatasheetsOrder() throws {
    let bench = try ScriptedBench { $0.queues = 2 }
    let driver = try bench.start()
    let space = bench.card.space
    let queue = try #require(space.position(of: 0xc028, where: { $0 & 1 << 25 != 0 }))
    let enable = try #require(space.position(of: 0x100, where: { $0 & 2 != 0 }))
    let tail = try #require(space.position(of: 0xc018, where: { $0 == 63 }))
    let second = try #require(space.position(of: 0xc058, where: { $0 == 63 }))
    #expect(queue < enable && enable < tail && enable < second)
    #expect(bench.card.isBusMaster && driver.health == .running)
    #expect(bench.pool.available == ScriptedBench.buffers - 128)
    // SRRCTL: 2 KiB, one advanced buffer, drops where there are several queues.
    #expect(space[0xc00c] == 0x8200_0002 && space[0xc04c] == 0x8200_0002)
    #expect(space[0xc008] == 1024 && space[0xe008] == 1024 && space[0xc088] == 0)
    #expect(space[0xc028] & 1 << 25 != 0 && space[0xc068] & 1 << 25 != 0 && space[0xc0a8] & 1 << 25 == 0)
    #expect(space[0xe028] & 1 << 25 != 0 && space[0xe028] >> 16 & 31 == 0, "write-back threshold 0")
    #expect(space[0xc000] & 127 == 0 && space[0xe000] & 127 == 0)
    #expect(space[0x18] & 1 << 28 != 0, "DRV_LOAD")
    #expect(space[0x5004] == 1522 && space[0x100] & 1 << 5 != 0)
    #expect(space[0x5818] & 7 == 2 && space[0x5c00] == 0x0100_0100 && space[0x5c80] == space[0x5ca4])
    #expect(space[0x400] & 2 != 0 && space[0x5000] & 0x2300 == 0x2300)
    driver.stop()
    #expect(!bench.card.isBusMaster && bench.card.descriptors.isEmpty)
    #expect(bench.pool.available == ScriptedBench.buffers && driver.health == .stopped)
    #expect(space[0x18] & 1 << 28 == 0)
  }

  @Test func oneQueueDoesNotDrop() throws {
    let bench = try ScriptedBench()
    let driver = try bench.start()
    #expect(bench.card.space[0xc00c] == 0x0200_0002)
    driver.stop()
  }

  @Test func membersMapCausesInTheirOwnWay() throws {
    // 82576: queues 0 and 8 share a word, 1 is in the next one. I350: neighbours share one.
    let old = try ScriptedBench { $0.queues = 9 }
    let first = try old.start()
    // 25 vectors are enough for 9 + 9 + 1.
    #expect(old.card.space[0x1700] == 0x80 | 0x89 << 8 | 0x88 << 16 | 0x91 << 24)
    #expect(old.card.space[0x1704] == 0x81 | 0x8a << 8)
    #expect(old.card.space[0x1740] == 0x92 << 8)
    #expect(old.card.descriptors.count == 19 && old.card.descriptors[9] == old.card.descriptors[0])
    first.stop()
    let new = try ScriptedBench(device: 0x1521) { $0.queues = 3 }
    let second = try new.start()
    #expect(new.card.space[0x1700] == 0x80 | 0x83 << 8 | 0x81 << 16 | 0x84 << 24)
    #expect(new.card.space[0x1704] == 0x82 | 0x85 << 8)
    second.stop()
  }

  @Test func interruptsAreModeratedAndClearThemselves() throws {
    let bench = try ScriptedBench { $0.moderationMicroseconds = 50 }
    let driver = try bench.start()
    let space = bench.card.space
    // Multiple vectors, automatic masks, pending bits, clearing by reading.
    #expect(space[0x1514] == 0xc000_0011)
    #expect(space[0x152c] == 7 && space[0x1530] == 7)
    #expect(space[0x1680] == 1 << 31 | 6 << 2 && space[0x1688] == 1 << 31, "the link's vector is not moderated")
    #expect(space[0x1508] == 4 && space[0x1524] == 4, "the link is let through, the queue is not")
    driver.stop()
  }

  @Test(arguments: [(0x10c9, 16), (0x1521, 8), (0x1533, 4), (0x1539, 2)] as [(UInt16, Int)])
  func queuesAreTheMembers(_ device: UInt16, _ queues: Int) throws {
    let bench = try ScriptedBench(device: device) { $0.queues = queues }
    let driver = try bench.start()
    #expect(driver.queueCount == queues)
    driver.stop()
    let more = try ScriptedBench(device: device) { $0.queues = queues + 1 }
    #expect(throws: DriverError.option(card: "0000:05:00.0", name: "the number of queues", value: "\(queues + 1)", allowed: "1 to \(queues)")) {
      _ = try more.attach()
    }
  }

  @Test func impossibleOptionsAreRefused() throws {
    for set: (inout PortOptions) -> Void in [
      { $0.mtu = 9217 }, { $0.mtu = 67 }, { $0.receiveDescriptors = 100 }, { $0.transmitDescriptors = 8192 },
      { $0.moderationMicroseconds = 8192 }, { $0.queues = 0 },
    ] {
      let bench = try ScriptedBench(set)
      #expect(throws: DriverError.self) { _ = try bench.attach() }
      #expect(bench.card.space.writes.isEmpty, "a refusal touches nothing")
    }
    let other = try ScriptedBench(device: 0x10d3)
    #expect(throws: DriverError.self) { _ = try other.attach() }
  }

  @Test func aFirmwareThatKeepsItsPartsIsSaid() throws {
    let bench = try ScriptedBench()
    bench.card.space.heldByFirmware = 0xffff << 16
    let driver = try bench.start()
    #expect(driver.warnings.contains { $0.contains("does not let go") })
    #expect(driver.warnings.contains { $0.contains("keeps the PHY") })
    #expect(driver.health == .running)
    driver.stop()
  }

  @Test func theSecondPortHasPartsOfItsOwn() throws {
    let bench = try ScriptedBench(device: 0x1521)
    bench.card.space.nvm[0x80] = 0x5452
    bench.card.space.nvm[0x81] = 0x9900
    bench.card.space.nvm[0x82] = 0x5634
    bench.card.space.seal(from: 0x80)
    bench.card.space.port = 1
    let driver = try bench.start()
    #expect(driver.warnings == [] && driver.port == 1)
    // Its PHY is bit 2 of SW_FW_SYNC.
    #expect(bench.card.space.writes.contains { $0.offset == 0x5b5c && $0.value == 4 })
    driver.stop()
  }

  @Test func aWrongChecksumIsSaid() throws {
    let bench = try ScriptedBench()
    bench.card.space.nvm[5] = 1
    let driver = try bench.attach()
    #expect(driver.warnings.contains { $0.contains("checksum of its non-volatile memory is wrong") })
    // Nothing to check where the configuration is fused in: an I211, and an I210 without a flash chip.
    for device: UInt16 in [0x1539, 0x157b] {
      let fused = try ScriptedBench(device: device)
      fused.card.space.nvm[5] = 1
      #expect(try fused.attach().warnings == [])
    }
  }

  @Test func anAddressThatWasNotLoadedIsRead() throws {
    let bench = try ScriptedBench()
    bench.card.space.addressIsLoaded = false
    let driver = try bench.attach()
    #expect(driver.macAddress.description == "52:54:00:12:34:56")
    #expect(driver.warnings.contains { $0.contains("was read from the non-volatile memory") })
    bench.card.space.nvm[0] = 0xffff
    #expect(throws: DriverError.self) { _ = try bench.attach() }
  }

  @Test func whatNeverEndsIsATimeout() throws {
    let bench = try ScriptedBench()
    bench.card.space.resetNeverEnds = true
    #expect(throws: DriverError.timeout(card: "0000:05:00.0", waitingFor: "the end of a reset, CTRL.RST")) { _ = try bench.attach() }
    let queues = try ScriptedBench()
    let driver = try queues.attach()
    queues.card.space.queuesNeverStart = true
    #expect(throws: DriverError.timeout(card: "0000:05:00.0", waitingFor: "receive queue 0 to switch on")) {
      try driver.start(pools: [queues.pool])
    }
    #expect(!queues.card.isBusMaster && queues.pool.available == ScriptedBench.buffers)
    queues.card.space.queuesNeverStart = false
    try driver.start(pools: [queues.pool])
    #expect(driver.health == .running)
    driver.stop()
    let gone = try ScriptedBench()
    gone.card.space.isGone = true
    #expect(throws: DriverError.gone(card: "0000:05:00.0")) { _ = try gone.attach() }
  }

  @Test func poolsAreChecked() throws {
    let bench = try ScriptedBench { $0.receiveDescriptors = 2048 }
    let driver = try bench.attach()
    #expect(throws: DriverError.pool(card: "0000:05:00.0", wanted: 2048, available: ScriptedBench.buffers)) {
      try driver.start(pools: [bench.pool])
    }
    #expect(throws: DriverError.self) { try driver.start(pools: []) }
  }
}
