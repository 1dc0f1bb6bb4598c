// Cards that hang, lie or vanish.

import DriverKit
import ModelKit
import Models
import Packet
import Platform
import Testing
import Wire

@testable import E1000e

@Suite struct FaultTests {
  @Test func aHangIsFoundAndLosesOnlyWhatWasInTheRing() throws {
    let bench = try Bench {
      $0.promiscuous = false
      $0.stripVLAN = true
    }
    var filter = ReceiveFilter()
    filter.vlans = [7]
    try bench.driver.setReceiveFilter(filter)
    #expect(!bench.driver.armInterrupt(queue: 0))
    try bench.send((0..<5).map { Frames.plain($0) })
    bench.card.settle()
    bench.model.faults.transmitHang = true
    try bench.send((5..<15).map { Frames.plain($0) })
    // Received before the reset, not fetched yet.
    for i in 0..<3 { bench.wire.send(Frames.plain(100 + i)) }
    bench.card.settle()
    #expect(bench.driver.tick() == [])
    bench.clock.sleep(nanoseconds: 1_000_000_000)
    #expect(bench.driver.tick() == [], "one second is no hang yet")
    bench.clock.sleep(nanoseconds: 1_000_000_000)
    let resets = bench.model.resets
    EventFD.drain(bench.driver.eventDescriptor(queue: 0))
    #expect(bench.driver.tick() == .reset)
    #expect(bench.model.resets == resets + 1)
    #expect(bench.driver.health == .running)
    bench.model.faults.transmitHang = false
    // Whoever slept wakes and finds what had come in, in order.
    #expect(EventFD.drain(bench.driver.eventDescriptor(queue: 0)) > 0)
    #expect(bench.frames() == (0..<3).map { Frames.plain(100 + $0) })
    #expect(bench.statistic("tx_queue_0_lost_in_reset") == 10)
    #expect(bench.statistic("tx_timeout_count") == 1)
    #expect(bench.pool.available == Bench.buffers - 64)
    // Filters, VLAN mode and interrupts are as before.
    #expect(!bench.driver.armInterrupt(queue: 0))
    bench.wire.send(Frames.ipv4(vlan: 7))
    bench.wire.send(Frames.ipv4(vlan: 8))
    bench.wire.send(Frames.plain(9, to: MACAddress(2, 2, 2, 2, 2, 2)))
    bench.card.settle()
    #expect(EventFD.drain(bench.driver.eventDescriptor(queue: 0)) > 0)
    let batch = bench.receive()
    let count = batch.count
    #expect(count == 1)
    batch.forEach { check($0.flags.contains(.vlan) && $0.vlan == 7) }
    let before = bench.wire.sent.count
    try bench.send([Frames.plain(50)])
    bench.card.settle()
    #expect(bench.wire.sent.dropFirst(before).map(\.bytes) == [Frames.plain(50)])
    bench.model.setLink(up: false)
    #expect(bench.driver.serviceControl() == .link)
    #expect(bench.model.bus.memory.faults == 0)
  }

  /// A queue that was armed before the reset is armed after it, without anybody doing it again.
  @Test func anArmedQueueStaysArmedOverAReset() throws {
    let bench = try Bench()
    _ = bench.driver.armInterrupt(queue: 0)
    _ = bench.driver.recover()
    EventFD.drain(bench.driver.eventDescriptor(queue: 0))
    bench.wire.send(Frames.plain(1))
    bench.card.settle()
    #expect(EventFD.drain(bench.driver.eventDescriptor(queue: 0)) > 0)
  }

  @Test func aSlowOrUnpluggedCardIsNoHang() throws {
    let bench = try Bench()
    bench.model.setLink(up: false)
    _ = bench.driver.serviceControl()
    bench.model.faults.transmitHang = true
    try bench.send([Frames.plain(1)])
    for _ in 0..<5 {
      bench.clock.sleep(nanoseconds: 3_000_000_000)
      #expect(bench.driver.tick() == [], "with the link down nothing moves, and that is no hang")
    }
    bench.model.setLink(up: true)
    _ = bench.driver.serviceControl()
    bench.model.faults.transmitHang = false
    for i in 0..<5 {
      bench.card.settle()
      try bench.send([Frames.plain(i)])
      bench.clock.sleep(nanoseconds: 3_000_000_000)
      #expect(bench.driver.tick() == [])
    }
  }

  @Test func framesThatAreNeverReportedAreAHang() throws {
    let bench = try Bench()
    bench.model.faults.neverReports = true
    try bench.send((0..<40).map { Frames.plain($0) })
    bench.card.settle()
    _ = bench.driver.tick()
    bench.clock.sleep(nanoseconds: 2_000_000_000)
    #expect(bench.driver.tick() == .reset)
    #expect(bench.pool.available == Bench.buffers - 64)
  }

  @Test func aStuckPHYIsReset() throws {
    let bench = try Bench()
    #expect(bench.driver.tick() == [])
    bench.model.setPHY(21, 0xffff)
    #expect(bench.driver.tick() == [], "one counter at its end is a bad cable")
    bench.model.setPHY(10, 0x38ff)
    #expect(bench.driver.tick() == .reset)
    #expect(bench.driver.tick() == [])
    bench.wire.send(Frames.plain(1))
    bench.card.settle()
    #expect(bench.frames() == [Frames.plain(1)])
  }

  @Test func aCardThatVanishesInTraffic() throws {
    let bench = try Bench()
    try bench.send([Frames.plain(1)])
    bench.model.faults.gone = true
    #expect(bench.driver.tick() == .lost)
    #expect(bench.driver.health == .gone)
    #expect(bench.driver.link.status == .unknown)
    #expect(bench.driver.tick() == .lost)
    #expect(bench.driver.serviceControl() == .lost)
    #expect(bench.frames() == [])
    let taken = try bench.send([Frames.plain(2)])
    #expect(taken == 0)
    #expect(bench.driver.armInterrupt(queue: 0))
    bench.driver.stop()
    #expect(bench.pool.available == Bench.buffers)
    #expect(bench.driver.health == .gone)
    #expect(throws: DriverError.gone(card: "model")) { try bench.driver.start(pools: [bench.pool]) }
    #expect(throws: DriverError.gone(card: "model")) { try bench.driver.setReceiveFilter(ReceiveFilter()) }
  }

  @Test func serviceControlSeesACardVanish() throws {
    let bench = try Bench()
    bench.model.faults.gone = true
    #expect(bench.driver.serviceControl() == .lost)
    #expect(bench.driver.health == .gone)
  }

  @Test(arguments: [0, 2049, 65535] as [UInt16])
  func impossibleLengthsAreDroppedAndCounted(length: UInt16) throws {
    let bench = try Bench()
    bench.model.faults.receiveLength = length
    for i in 0..<10 { bench.wire.send(Frames.plain(i)) }
    bench.card.settle()
    #expect(bench.frames() == [])
    #expect(bench.statistic("rx_queue_0_errors") == 10)
    bench.model.faults.receiveLength = nil
    bench.wire.send(Frames.plain(11))
    bench.card.settle()
    #expect(bench.frames() == [Frames.plain(11)])
    #expect(bench.pool.available == Bench.buffers - 64)
  }

  @Test func damagedFramesAreDroppedAndCounted() throws {
    let bench = try Bench { $0.mtu = 9000 }
    bench.model.faults.receiveErrors = 1 << 24
    bench.wire.send(Frames.plain(1))
    bench.wire.send(Frames.plain(2, count: 9000))
    bench.card.settle()
    #expect(bench.frames() == [])
    #expect(bench.statistic("rx_queue_0_errors") == 2)
    bench.model.faults.receiveErrors = 0
    bench.wire.send(Frames.plain(3, count: 5000))
    bench.card.settle()
    #expect(bench.frames() == [Frames.plain(3, count: 5000)])
    #expect(bench.pool.available == Bench.buffers - 64)
  }

  /// Frames without an end would chain buffers for ever; the chain ends at the largest frame.
  @Test func framesWithoutAnEndAreBounded() throws {
    let bench = try Bench()
    bench.model.faults.missingEnds = 200
    var received = 0
    for i in 0..<201 {
      bench.wire.send(Frames.plain(i, count: 1000))
      bench.card.settle()
      received += bench.frames().count
      #expect(bench.pool.available >= Bench.buffers - 64 - 1)
    }
    // The 201st ends what never began properly; the next one is whole again.
    #expect(received == 0)
    #expect(bench.statistic("rx_queue_0_errors") == 1)
    bench.wire.send(Frames.plain(500))
    bench.card.settle()
    #expect(bench.frames() == [Frames.plain(500)])
    #expect(bench.pool.available == Bench.buffers - 64)
  }

  @Test(arguments: [64, 5000, UInt32.max - 1])
  func impossibleHeadsAreQuarantined(head: UInt32) throws {
    for transmit in [true, false] {
      let bench = try Bench()
      try bench.send([Frames.plain(1)])
      if transmit { bench.model.faults.transmitHead = head } else { bench.model.faults.receiveHead = head }
      #expect(bench.driver.tick() == .lost)
      guard case .quarantined(let reason) = bench.driver.health else {
        Issue.record("not quarantined: \(bench.driver.health)")
        return
      }
      #expect(reason.contains("head"))
      #expect(!bench.card.isBusMaster, "no more DMA")
      let taken = try bench.send([Frames.plain(2)])
      #expect(taken == 0)
      bench.driver.stop()
      #expect(bench.pool.available == Bench.buffers)
      #expect(throws: DriverError.self) { try bench.driver.start(pools: [bench.pool]) }
    }
  }

  @Test func aTransmitHeadBeyondTheTailIsQuarantined() throws {
    let bench = try Bench()
    try bench.send((0..<10).map { Frames.plain($0) })
    bench.model.faults.transmitHead = 20
    #expect(bench.driver.tick() == .lost)
  }

  @Test func aResetThatFailsEndsInQuarantine() throws {
    let bench = try Bench()
    bench.model.faults.transmitHang = true
    try bench.send([Frames.plain(1)])
    _ = bench.driver.tick()
    bench.clock.sleep(nanoseconds: 2_000_000_000)
    bench.model.faults.stuckReset = true
    #expect(bench.driver.tick() == [.reset, .lost])
    #expect(!bench.card.isBusMaster)
    bench.driver.stop()
    #expect(bench.pool.available == Bench.buffers)
  }
}
