// Attaching and starting: order, refusals, semaphores, resets. On a card that is a list of answers.

import DriverKit
import Testing

@testable import Ixgbe

@Suite struct AttachTests {
  @Test func attachingFollowsTheDatasheetsOrder() throws {
    let bench = try ScriptedBench()
    let driver = try bench.attach()
    let space = bench.card.space
    #expect(driver.macAddress.description == "52:54:00:12:34:56")
    #expect(driver.health == .stopped)
    #expect(driver.warnings == [])
    #expect(!bench.card.isBusMaster)
    // Masked before anything; both directions off; no new requests to memory; then the reset.
    let mask = try #require(space.position(of: 0x888)), receive = try #require(space.position(of: 0x3000))
    let queue = try #require(space.position(of: 0x1028)), requests = try #require(space.position(of: 0, where: { $0 & 4 != 0 }))
    let reset = try #require(space.position(of: 0, where: { $0 & 1 << 26 != 0 }))
    #expect(space.writes[mask].value == 0x7fff_ffff)
    #expect(mask < receive && receive < queue && queue < requests && requests < reset)
    #expect(space.resets == 1)
    // Masked again after it, and requests allowed.
    #expect(space.writes[reset...].contains { $0.offset == 0x888 })
    #expect(space.writes.last { $0.offset == 0 }.map { $0.value & 4 } == 0)
    // The link was down, so it was reset too.
    #expect(space.writes[reset].value & 8 != 0)
    #expect(space[0x880] == 0, "nothing is let through")
  }

  @Test func startingFollowsTheDatasheetsOrder() throws {
    let bench = try ScriptedBench { $0.queues = 2 }
    let driver = try bench.start()
    let space = bench.card.space
    let engine = try #require(space.position(of: 0x4a80, where: { $0 & 1 != 0 }))
    let transmit = try #require(space.position(of: 0x6028, where: { $0 & 1 << 25 != 0 }))
    let receive = try #require(space.position(of: 0x1028, where: { $0 & 1 << 25 != 0 }))
    let tail = try #require(space.position(of: 0x1018, where: { $0 == 63 }))
    let secondTail = try #require(space.position(of: 0x1058, where: { $0 == 63 }))
    let pathOff = try #require(space.position(of: 0x8d00, where: { $0 & 2 != 0 }))
    let enable = try #require(space.position(of: 0x3000, where: { $0 & 1 != 0 }))
    let pathOn = try #require(space.writes.lastIndex { $0.offset == 0x8d00 && $0.value & 2 == 0 })
    #expect(engine < transmit, "DMATXCTL.TE before the first queue")
    #expect(receive < tail, "descriptors are handed over when the queue runs")
    #expect(tail < pathOff && secondTail < pathOff && pathOff < enable && enable < pathOn)
    let filters = try #require(space.position(of: 0x5080))
    #expect(filters < enable)
    #expect(bench.card.isBusMaster)
    #expect(driver.health == .running)
    #expect(bench.pool.available == ScriptedBench.buffers - 128)
    // SRRCTL: 2 KiB, one buffer, drops where there are several queues.
    #expect(space[0x1014] == 0x1200_0002)
    // Rings: 64 descriptors of 16 bytes.
    #expect(space[0x1008] == 1024 && space[0x6008] == 1024 && space[0x1048] == 1024 && space[0x1088] == 0)
    #expect(space[0x18] & 1 << 28 != 0, "DRV_LOAD")
    #expect(space[0x3c00] == 512 << 10 && space[0x3c04] == 0 && space[0xcc00] == 160 << 10)
    #expect(space[0x4268] >> 16 == 1518)
    driver.stop()
    #expect(!bench.card.isBusMaster)
    #expect(space[0x18] & 1 << 28 == 0)
    #expect(space[0x1028] & 1 << 25 == 0 && space[0x6028] & 1 << 25 == 0)
    #expect(bench.pool.available == ScriptedBench.buffers)
  }

  @Test func vectorsGoWhereIvarSays() throws {
    let bench = try ScriptedBench {
      $0.queues = 3
      $0.moderationMicroseconds = 40
    }
    let driver = try bench.start()
    let space = bench.card.space
    #expect(bench.card.vectors.count == 7)
    #expect(bench.card.vectors[3] == bench.card.vectors[0], "sent frames wake whoever waits for received ones")
    // 8.2.3.5.16: receive 2n, transmit 2n, receive 2n + 1, transmit 2n + 1, each valid.
    #expect(space[0x900] == 0x8481_8380)
    #expect(space[0x904] == 0x0000_8582)
    #expect(space[0xa00] == 0x8600)
    // Multiple vectors, other-clear-disable, pending bits, automatic mask, pins 1 and 2.
    #expect(space[0x898] == 0xc000_0036)
    #expect(space[0x810] == 0xffff && space[0x890] == 0xffff)
    #expect(space[0x880] & 0x0610_0000 == 0x0610_0000, "link and module are let through")
    #expect(space[0x880] & 0xffff == 0, "queues are not")
    // EITR counts 2 us from bit 3: queues begin at an eighth of the ceiling, control is not moderated.
    #expect(space[0x820] == 2 << 3 | 1 << 31)
    #expect(space[0x82c] == 20 << 3 | 1 << 31)
    #expect(space[0x838] == 1 << 31)
    #expect(driver.eventDescriptor(queue: 1) == bench.card.vectors[1])
    #expect(driver.controlDescriptor == bench.card.vectors[6])
  }

  @Test func queuesSpreadBySymmetricHash() throws {
    let bench = try ScriptedBench { $0.queues = 16 }
    _ = try bench.start()
    let space = bench.card.space
    var counts = [UInt32: Int]()
    for word in 0..<32 { for byte in 0..<4 { counts[space[0x5c00 + 4 * word] >> UInt32(8 * byte) & 0xff, default: 0] += 1 } }
    #expect(counts.count == 16 && counts.values.allSatisfy { $0 == 8 })
    // A key that repeats every 16 bits.
    for i in 0..<10 { #expect(space[0x5c80 + 4 * i] >> 16 == space[0x5c80] & 0xffff && space[0x5c80 + 4 * i] == space[0x5c80]) }
    #expect(space[0x5818] == 0x0033_0001)
  }

  @Test func aDamagedEEPROMIsRefused() throws {
    let bench = try ScriptedBench()
    bench.card.space.nvm[0x10] ^= 1
    guard case .device(_, let problem)? = bench.refusal() else {
      Issue.record("the card was taken")
      return
    }
    #expect(problem.contains("checksum") && problem.contains("0x"))
    #expect(bench.card.mapped.isEmpty, "nothing stays mapped")
  }

  /// Sections that words 3 to Eh point to are covered; on the X540 all but two.
  @Test(arguments: [UInt16(0x10fb), 0x1528]) func sectionsBelongToTheChecksum(device: UInt16) throws {
    let bench = try ScriptedBench(ScriptedCard(device: device))
    let space = bench.card.space
    space.nvm[6] = 0x80
    space.nvm.replaceSubrange(0x80..<0x84, with: [3, 0x1111, 0x2222, 0x3333])
    space.nvm[4] = 0x90
    space.nvm.replaceSubrange(0x90..<0x92, with: [1, 0x4444])
    space.seal()
    #expect(bench.refusal() == nil)
    space.nvm[0x91] ^= 0x10
    #expect((bench.refusal() == nil) == (device == 0x1528))
    space.nvm[0x83] ^= 0x20
    #expect(bench.refusal() != nil)
  }

  @Test func aCardThatKeepsRequestsOpenIsResetTwice() throws {
    let bench = try ScriptedBench()
    bench.card.space.resetsUntilQuiet = 1
    let driver = try bench.attach()
    #expect(bench.card.space.resets == 2)
    #expect(driver.warnings.count == 1 && driver.warnings[0].contains("reset twice"))
    // The buffers towards the bus were emptied in between.
    #expect(bench.card.space.position(of: 0x11050, where: { $0 & 1 << 30 != 0 }) != nil)
    #expect(bench.card.space[0x11050] & 1 << 30 == 0)
  }

  @Test func resetsThatNeverEndAndMissingCardsAreSaid() throws {
    let bench = try ScriptedBench()
    bench.card.space.resetNeverEnds = true
    #expect(bench.refusal() == .timeout(card: "scripted", waitingFor: "the end of a reset, CTRL.RST"))
    let gone = try ScriptedBench()
    gone.card.space.isGone = true
    #expect(gone.refusal() == .gone(card: "scripted"))
    let slow = try ScriptedBench()
    slow.clock.onSleep = { [space = slow.card.space] in space[0x10010] = 0 }
    #expect(slow.refusal() == .timeout(card: "scripted", waitingFor: "its configuration to be read, EEC.AUTO_RD"))
    let vanishing = try ScriptedBench()
    vanishing.clock.onSleep = { [space = vanishing.card.space] in space.isGone = true }
    #expect(vanishing.refusal() == .gone(card: "scripted"))
  }

  @Test func optionsTheCardCannotDoAreRefused() throws {
    let sets: [(inout PortOptions) -> Void] = [
      { $0.queues = 17 }, { $0.queues = 0 }, { $0.receiveDescriptors = 100 }, { $0.transmitDescriptors = 8192 },
      { $0.mtu = 15851 }, { $0.mtu = 67 }, { $0.moderationMicroseconds = 1023 },
    ]
    for set in sets {
      guard case .option? = try ScriptedBench(ScriptedCard(), set).refusal() else {
        Issue.record("an impossible option was taken")
        continue
      }
    }
    guard case .unsupported? = try ScriptedBench(ScriptedCard(device: 0x10d3)).refusal() else {
      Issue.record("another family's card was taken")
      return
    }
  }

  /// Firmware that never lets go of the EEPROM: after a second the driver goes on, and says so.
  @Test(arguments: [UInt16(0x10fb), 0x1528]) func semaphoresOfTheDeadAreTaken(device: UInt16) throws {
    let bench = try ScriptedBench(ScriptedCard(device: device))
    let space = bench.card.space
    space.heldByFirmware = 0x20
    space.driverBitIsStuck = true
    let before = bench.clock.now()
    let driver = try bench.attach()
    #expect(driver.warnings.contains { $0.contains("semaphore") })
    #expect(bench.clock.now() - before > 1_000_000_000)
    // Everything was given back.
    #expect(space[0x10160] & 0x8000_000f == 0 && space[0x10140] & 3 == 0)
  }

  @Test func semaphoresAreTakenInOrder() throws {
    let bench = try ScriptedBench()
    _ = try bench.attach()
    let space = bench.card.space
    let firmware = try #require(space.position(of: 0x10140, where: { $0 & 2 != 0 }))
    let flag = try #require(space.position(of: 0x10160, where: { $0 & 1 != 0 }))
    let first = try #require(space.position(of: 0x10014))
    #expect(firmware < flag && flag < first, "SWSM, then SW_FW_SYNC, then the EEPROM")
    // Between taking the flag and reading, SWSM is given back.
    #expect(space.writes[flag..<first].contains { $0.offset == 0x10140 && $0.value & 3 == 0 })
  }

  @Test func aBadAddressIsRefused() throws {
    let bench = try ScriptedBench()
    bench.clock.onSleep = { [space = bench.card.space] in space[0xa204] = 0 }
    guard case .device(_, let problem)? = bench.refusal() else {
      Issue.record("a card without an address was taken")
      return
    }
    #expect(problem.contains("address"))
  }
}
