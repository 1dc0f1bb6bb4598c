// Cards that hang, lie or vanish: nothing crashes, everything is counted, every buffer comes home.

import DriverKit
import ModelKit
import Models
import Packet
import Platform
import Testing
import Wire

@testable import Ixgbe

@Suite struct FaultTests {
  static let modes: [InProcessCard.Mode] = [.trapped, .shared]

  @Test(arguments: modes, [ModelFault.transmitHang, .neverReports])
  func aHangIsFoundAndLosesOnlyWhatWasInTheRing(mode: InProcessCard.Mode, fault: ModelFault) throws {
    let bench = try Bench(mode: mode) {
      $0.promiscuous = false
      $0.stripVLAN = true
    }
    var filter = ReceiveFilter()
    filter.vlans = [7]
    try bench.driver.setReceiveFilter(filter)
    #expect(!bench.driver.armInterrupt(queue: 0))
    try bench.send((0..<5).map { Frames.plain($0) })
    bench.card.settle()
    bench.model.inject(fault)
    try bench.send((5..<15).map { Frames.plain($0) })
    // Received before the reset, not fetched yet.
    bench.arrive((0..<3).map { Frames.plain(100 + $0) })
    #expect(bench.driver.tick() == [])
    bench.card.advance(nanoseconds: Bench.second)
    #expect(bench.driver.tick() == [], "one second is no hang yet")
    bench.card.advance(nanoseconds: Bench.second + 1)
    let resets = bench.model.resets
    EventFD.drain(bench.driver.eventDescriptor(queue: 0))
    let events = bench.driver.tick()
    #expect(events.contains(.reset) && !events.contains(.lost))
    #expect(bench.model.resets > resets)
    #expect(bench.driver.health == .running)
    bench.card.advance(nanoseconds: 10_000_000)
    _ = bench.driver.serviceControl()
    #expect(bench.driver.link.status == .up)
    // Whoever slept wakes and finds what had come in, in order.
    #expect(EventFD.drain(bench.driver.eventDescriptor(queue: 0)) > 0)
    #expect(bench.frames() == (0..<3).map { Frames.plain(100 + $0) })
    #expect(bench.statistic("tx_queue_0_lost_in_reset") == 10)
    #expect(bench.statistic("tx_timeout_count") == 1)
    // Filters, VLAN mode and interrupts are as before.
    #expect(!bench.driver.armInterrupt(queue: 0))
    bench.arrive([Frames.ipv4(vlan: 7), Frames.ipv4(vlan: 8), Frames.plain(9, to: MACAddress(2, 2, 2, 2, 2, 2))])
    #expect(EventFD.drain(bench.driver.eventDescriptor(queue: 0)) > 0)
    let batch = bench.receive()
    #expect(batch.count == 1)
    batch.forEach { check($0.flags.contains(.vlan) && $0.vlan == 7) }
    _ = bench.wire.takeSent()
    try bench.send([Frames.plain(50)])
    bench.card.settle()
    #expect(bench.wire.sent.map(\.bytes) == [Frames.plain(50)])
    #expect(bench.model.bus.memory.faults == 0)
  }

  @Test func anArmedQueueStaysArmedOverAReset() throws {
    let bench = try Bench()
    _ = bench.driver.armInterrupt(queue: 0)
    _ = bench.driver.recover()
    bench.card.advance(nanoseconds: 10_000_000)
    EventFD.drain(bench.driver.eventDescriptor(queue: 0))
    bench.arrive([Frames.plain(1)])
    #expect(EventFD.drain(bench.driver.eventDescriptor(queue: 0)) > 0)
  }

  @Test func anUnpluggedCardIsNoHang() throws {
    let bench = try Bench()
    bench.model.setLink(up: false)
    bench.card.advance(nanoseconds: 1_000_000)
    _ = bench.driver.serviceControl()
    bench.model.inject(.transmitHang)
    try bench.send([Frames.plain(1)])
    for _ in 0..<5 {
      bench.card.advance(nanoseconds: 3 * Bench.second)
      #expect(bench.driver.tick() == [], "with the link down nothing moves, and that is no hang")
    }
  }

  @Test(arguments: modes) func aCardThatVanishesInTraffic(mode: InProcessCard.Mode) throws {
    let bench = try Bench(mode: mode) { $0.queues = 2 }
    try bench.send([Frames.plain(1)])
    bench.model.inject(.gone)
    #expect(bench.driver.tick() == .lost)
    #expect(bench.driver.health == .gone)
    #expect(bench.driver.tick() == .lost && bench.driver.serviceControl() == .lost)
    #expect(bench.frames() == [])
    #expect(try bench.send([Frames.plain(2)]) == 0)
    #expect(bench.driver.armInterrupt(queue: 0))
    bench.driver.stop()
    #expect(bench.pool.available == Bench.buffers)
    #expect(bench.driver.health == .gone)
    #expect(throws: DriverError.gone(card: "model")) { try bench.driver.start(pools: [bench.pool]) }
    #expect(throws: DriverError.gone(card: "model")) { try bench.driver.setReceiveFilter(ReceiveFilter()) }
  }

  @Test func aCardPulledOutWhileItStarts() throws {
    let bench = try Bench(start: false)
    bench.card.isRemoved = true
    #expect(throws: DriverError.gone(card: "model")) { try bench.driver.start(pools: [bench.pool]) }
    #expect(bench.pool.available == Bench.buffers)
  }

  @Test(arguments: [0, 2049, 16384, 65535] as [UInt32])
  func impossibleLengthsAreDroppedAndCounted(length: UInt32) throws {
    let bench = try Bench()
    bench.model.inject(.receiveLength(length, count: 10))
    bench.arrive((0..<10).map { Frames.plain($0) })
    #expect(bench.frames() == [])
    #expect(bench.statistic("rx_queue_0_errors") == 10)
    bench.arrive([Frames.plain(11)])
    #expect(bench.frames() == [Frames.plain(11)])
    bench.nothingIsLost()
  }

  @Test func damagedFramesAreDroppedAndCounted() throws {
    let bench = try Bench { $0.mtu = 9000 }
    bench.model.inject(.receiveError(count: 2))
    bench.arrive([Frames.plain(1), Frames.plain(2, count: 9000)])
    #expect(bench.frames() == [])
    #expect(bench.statistic("rx_queue_0_errors") == 2)
    bench.arrive([Frames.plain(3, count: 5000)])
    #expect(bench.frames() == [Frames.plain(3, count: 5000)])
    bench.nothingIsLost()
  }

  @Test func wrongCheckSequencesAreTheCardsToDrop() throws {
    let bench = try Bench()
    bench.wire.send(Frames.plain(1), marks: .badCheckSequence)
    bench.arrive([Frames.plain(2)])
    #expect(bench.frames() == [Frames.plain(2)])
    #expect(bench.statistic("rx_crc_errors") == 1)
  }

  /// Frames without an end would chain buffers for ever; the chain ends at the largest frame.
  @Test func framesWithoutAnEndAreBounded() throws {
    let bench = try Bench()
    bench.model.inject(.missingEnd(count: 200))
    var received = 0
    for i in 0..<201 {
      bench.arrive([Frames.plain(i, count: 1000)])
      received += bench.frames().count
      #expect(bench.pool.available >= Bench.buffers - 64 - 1)
    }
    #expect(received == 0)
    #expect(bench.statistic("rx_queue_0_errors") ?? 0 > 0)
    bench.arrive([Frames.plain(500)])
    #expect(bench.frames() == [Frames.plain(500)])
    bench.nothingIsLost()
  }

  @Test(arguments: [64, 5000, UInt32.max - 1], [0x1010, 0x6010, 0x1050, 0x6050])
  func impossibleHeadsAreQuarantined(head: UInt32, register: Int) throws {
    let bench = try ScriptedBench { $0.queues = 2 }
    let driver = try bench.start()
    #expect(driver.tick() == [])
    bench.card.space[register] = head
    #expect(driver.tick() == .lost)
    guard case .quarantined(let reason) = driver.health else {
      Issue.record("not quarantined: \(driver.health)")
      return
    }
    #expect(reason.contains("head is \(head)"))
    #expect(!bench.card.isBusMaster, "no more DMA")
    #expect(driver.tick() == .lost && driver.serviceControl() == .lost)
    driver.stop()
    #expect(bench.pool.available == ScriptedBench.buffers)
    #expect(throws: DriverError.self) { try driver.start(pools: [bench.pool]) }
  }

  /// Reports at other descriptors than the awaited one free nothing; the watchdog sees a hang.
  @Test(arguments: [7, 9999] as [UInt32]) func reportsInTheWrongPlaceFreeNothing(place: UInt32) throws {
    let bench = try Bench()
    bench.model.inject(.wrongCompletion(place, count: 1))
    try bench.send([Frames.plain(1), Frames.plain(2)])
    bench.card.settle()
    bench.driver.reclaim(queue: 0)
    #expect(bench.pool.available == Bench.buffers - 64 - 2)
    _ = bench.driver.tick()
    bench.card.advance(nanoseconds: 2 * Bench.second)
    #expect(bench.driver.tick().contains(.reset))
    bench.nothingIsLost()
    #expect(bench.statistic("tx_queue_0_lost_in_reset") == 2)
  }

  @Test func aResetThatFailsEndsInQuarantine() throws {
    let bench = try Bench()
    bench.model.inject(.transmitHang)
    try bench.send([Frames.plain(1)])
    _ = bench.driver.tick()
    bench.card.advance(nanoseconds: 2 * Bench.second)
    bench.model.inject(.stuckReset)
    #expect(bench.driver.tick() == [.reset, .lost])
    #expect(!bench.card.isBusMaster)
    bench.driver.stop()
    #expect(bench.pool.available == Bench.buffers)
  }

  /// An address that nothing is mapped at stops the queue; the watchdog brings it back.
  @Test func aQueueThatDMAErrorsStoppedComesBack() throws {
    let bench = try Bench()
    bench.model.inject(.wrongAddress(count: 1))
    try bench.send([Frames.plain(1)])
    bench.card.settle()
    try bench.send([Frames.plain(2)])
    var events: DriverEvents = []
    for _ in 0..<5 {
      bench.card.advance(nanoseconds: Bench.second)
      events.formUnion(bench.driver.tick())
    }
    #expect(!events.contains(.lost))
    bench.card.advance(nanoseconds: 10_000_000)
    _ = bench.driver.serviceControl()
    _ = bench.wire.takeSent()
    try bench.send([Frames.plain(3)])
    bench.card.settle()
    #expect(bench.wire.sent.map(\.bytes) == [Frames.plain(3)])
    bench.nothingIsLost()
  }

  static let everything: [ModelFault] = [
    .gone, .transmitHang, .neverReports, .neverDelivers, .receiveLength(0, count: 50), .receiveLength(.max, count: 50),
    .missingEnd(count: 70), .receiveError(count: 50), .wrongCompletion(9999, count: 50), .duplicateCompletion(count: 50),
    .indexJump(1000, count: 50), .interruptStorm, .noInterrupts, .stuckReset, .wrongAddress(count: 20),
    .randomRegisters(seed: 1), .randomRegisters(seed: 77),
  ]

  /// Whatever the card does while everything runs: the process goes on, and every buffer comes home.
  @Test(arguments: modes, everything) func nothingCrashes(mode: InProcessCard.Mode, fault: ModelFault) throws {
    let bench = try Bench(mode: mode) {
      $0.queues = 2
      $0.mtu = 4000
    }
    for round in 0..<30 {
      if round == 5 { bench.model.inject(fault) }
      if round == 25 { bench.model.inject(.none) }
      bench.arrive((0..<20).map { Frames.ipv4(tcp: true, ports: (UInt16($0), 80), payload: 40 + $0 * 150) })
      for queue in 0..<2 {
        var batch = bench.receive(queue: queue)
        _ = bench.driver.send(queue: queue, &batch)
        _ = bench.driver.armInterrupt(queue: queue)
        bench.driver.reclaim(queue: queue)
      }
      bench.card.settle()
      _ = bench.driver.serviceControl()
      if round % 3 == 0 {
        bench.card.advance(nanoseconds: Bench.second)
        _ = bench.driver.tick()
        _ = bench.driver.statistics()
      }
    }
    bench.driver.stop()
    #expect(bench.pool.available == Bench.buffers)
    #expect(!bench.card.isBusMaster)
    guard bench.driver.health == .stopped else { return }
    try bench.driver.start(pools: [bench.pool])
    bench.card.advance(nanoseconds: 10_000_000)
    _ = bench.driver.serviceControl()
    bench.arrive([Frames.plain(1, count: 3000)])
    #expect(bench.frames(queue: 0) + bench.frames(queue: 1) == [Frames.plain(1, count: 3000)])
  }

  /// The same faults while attaching and starting: an error or a running port, never a crash.
  @Test(arguments: everything) func startingOnABrokenCard(fault: ModelFault) throws {
    let bench = try Bench(start: false)
    bench.model.inject(fault)
    do { try bench.driver.start(pools: [bench.pool]) } catch {
      #expect(!"\(error)".isEmpty)
      #expect(bench.pool.available == Bench.buffers)
      #expect(!bench.card.isBusMaster)
    }
    bench.driver.stop()
    #expect(bench.pool.available == Bench.buffers)
  }
}
