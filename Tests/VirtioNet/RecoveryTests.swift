import DriverKit
import ModelKit
import Models
import Packet
import Testing
import Wire

@testable import VirtioNet

@Suite struct RecoveryTests {
  @Test func `stop gives every buffer back, and start begins anew`() throws {
    let bench = try Bench()
    for round in 0..<20 {
      try bench.start()
      bench.inject(frame(round))
      #expect(bench.receive() == [frame(round)])
      bench.send([frame(round)])
      #expect(bench.takeSent() == [frame(round)])
      bench.model.stopsTransmitting = true
      bench.inject(frame(99))
      var batch = PacketBatch(capacity: 4)
      bench.fill(&batch, [frame(98)])
      _ = bench.driver.send(queue: 0, &batch)
      bench.step()
      bench.driver.stop()
      bench.driver.stop()
      bench.model.stopsTransmitting = false
      #expect(bench.pool.available == Bench.buffers)
      #expect(bench.driver.receive(queue: 0, into: &batch, max: 4) == 0)
      #expect(!bench.card.isBusMaster)
      #expect(bench.model.deviceStatus == 0)
    }
    #expect(bench.complaints.isEmpty)
  }

  @Test func `a pool that is too small is refused before anything happens`() throws {
    let bench = try Bench()
    var held = PacketBatch(capacity: Bench.buffers)
    while bench.pool.available > 100, let packet = bench.pool.allocate() { _ = held.append(packet) }
    #expect(throws: DriverError.pool(card: "model:virtio-net", wanted: 256, available: 100)) { try bench.start() }
    #expect(bench.pool.available == 100)
    held.removeAll()
    try bench.start()
  }

  @Test func `a reset that does not end is waited for a second, and the card is silenced`() throws {
    let bench = try Bench()
    try bench.start()
    bench.model.ignoresReset = true
    let before = bench.clock.now()
    bench.driver.stop()
    #expect(bench.clock.now() - before < 2_000_000_000)
    #expect(!bench.card.isBusMaster)
    #expect(bench.pool.available == Bench.buffers)
    #expect(throws: DriverError.self) { try bench.start() }
    #expect(bench.driver.health == .stopped)
    #expect(bench.pool.available == Bench.buffers)
    bench.model.ignoresReset = false
    try bench.start()
    bench.send([frame(1)])
    #expect(bench.takeSent() == [frame(1)])
  }

  @Test func `a device that goes back on its features, or on its commands, does not start`() throws {
    let bench = try Bench()
    bench.model.refusesFeatures = true
    #expect(throws: DriverError.self) { try bench.start() }
    bench.model.refusesFeatures = false
    bench.model.refusesCommands = true
    #expect(throws: DriverError.self) { try bench.start() }
    #expect(bench.driver.health == .stopped)
    #expect(!bench.card.isBusMaster)
    #expect(bench.pool.available == Bench.buffers)
    bench.model.refusesCommands = false
    try bench.start()
    #expect(bench.driver.health == .running)
  }

  @Test func `a recovery that fails ends in quarantine`() throws {
    let bench = try Bench()
    try bench.start()
    bench.model.needReset()
    bench.model.refusesFeatures = true
    #expect(bench.driver.serviceControl() == [.lost, .link])
    guard case .quarantined(let reason) = bench.driver.health else {
      Issue.record("\(bench.driver.health)")
      return
    }
    #expect(reason.contains("refused"))
    #expect(!bench.card.isBusMaster)
    #expect(bench.pool.available == Bench.buffers)
  }

  @Test func `a device that needs a reset gets one, with everything as it was`() throws {
    let bench = try Bench()
    try bench.start()
    var filter = ReceiveFilter()
    filter.multicast = [MACAddress(0x01, 0, 0x5e, 1, 1, 1)]
    filter.vlans = [3]
    try bench.driver.setReceiveFilter(filter)
    try bench.driver.setMACAddress(MACAddress(2, 2, 2, 2, 2, 2))
    bench.model.stopsTransmitting = true
    bench.send([frame(1), frame(2)])
    bench.model.stopsTransmitting = false
    bench.model.needReset()
    #expect(bench.driver.serviceControl() == .reset)
    #expect(bench.driver.health == .running)
    #expect(bench.model.filterAddresses == filter.multicast)
    #expect(bench.model.filterVLANs == [3])
    #expect(bench.model.address == MACAddress(2, 2, 2, 2, 2, 2))
    #expect(bench.statistic("resets") == 2)
    #expect(bench.statistic("tx_dropped") == 2)
    bench.send([frame(3)])
    #expect(bench.takeSent() == [frame(3)])
    bench.inject(frame(4, to: .broadcast))
    #expect(bench.receive() == [frame(4, to: .broadcast)])
    bench.driver.stop()
    #expect(bench.pool.available == Bench.buffers)
    #expect(bench.complaints.isEmpty)
  }

  @Test func `a device that always needs a reset is given up`() throws {
    let bench = try Bench()
    try bench.start()
    var resets = 0
    for _ in 0..<100 where bench.driver.health == .running {
      bench.model.needReset()
      if bench.driver.serviceControl() == .reset { resets += 1 }
    }
    #expect(resets == 16)
    guard case .quarantined = bench.driver.health else {
      Issue.record("\(bench.driver.health)")
      return
    }
    #expect(bench.pool.available == Bench.buffers)
  }

  @Test func `a transmit queue that hangs is notified, then reset`() throws {
    let bench = try Bench()
    try bench.start()
    bench.model.stopsTransmitting = true
    bench.send([frame(1)])
    #expect(bench.driver.tick() == [])
    var events: DriverEvents = []
    var ticks = 0
    while events.isEmpty && ticks < 20 {
      bench.clock.time += 1_000_000_000
      events = bench.driver.tick()
      ticks += 1
    }
    #expect(events == .reset)
    #expect(ticks == 6)
    #expect(bench.statistic("tx_timeouts") == 1)
    bench.model.stopsTransmitting = false
    bench.send([frame(2)])
    #expect(bench.takeSent() == [frame(2)])
    for _ in 0..<20 {
      bench.clock.time += 1_000_000_000
      #expect(bench.driver.tick() == [])
    }
  }

  @Test func `with the link down a full transmit ring is no hang`() throws {
    let bench = try Bench()
    try bench.start()
    bench.model.stopsTransmitting = true
    bench.send([frame(1)])
    bench.model.setLink(up: false)
    #expect(bench.driver.tick() == .link)
    for _ in 0..<20 {
      bench.clock.time += 1_000_000_000
      #expect(bench.driver.tick() == [])
    }
  }

  @Test func `a device that is pulled out is gone, and the process goes on`() throws {
    let bench = try Bench()
    try bench.start()
    bench.inject(frame(1))
    bench.step()
    bench.card.isRemoved = true
    var batch = PacketBatch(capacity: 8)
    // What was received before is still there.
    #expect(bench.driver.receive(queue: 0, into: &batch, max: 8) == 1)
    batch.removeAll()
    #expect(bench.driver.serviceControl() == [.lost, .link])
    #expect(bench.driver.health == .gone)
    #expect(bench.driver.receive(queue: 0, into: &batch, max: 8) == 0)
    #expect(bench.pool.available == Bench.buffers)
    #expect(!bench.driver.armInterrupt(queue: 0))
    #expect(throws: DriverError.gone(card: "model:virtio-net")) { try bench.start() }
    bench.driver.stop()
  }
}

@Suite struct LiarTests {
  static let receiveLies: [VirtioModelFault] = [
    .id(256), .id(0xffff_ffff), .duplicate, .length(11), .length(2049), .length(0), .length(0xffff_ffff), .indexJump(300),
    .bufferCount(0), .bufferCount(257), .bufferCount(0xffff),
  ]
  static let transmitLies: [VirtioModelFault] = [.id(256), .id(7), .id(0x8000_0000), .duplicate, .indexJump(200)]

  /// After a lie: nothing more moves, `health` says why, every buffer comes back, and the device
  /// is switched off at the next tick.
  private func expectQuarantine(_ bench: Bench) {
    guard case .quarantined = bench.driver.health else {
      Issue.record("\(bench.driver.health)")
      return
    }
    var batch = PacketBatch(capacity: 32)
    #expect(bench.driver.receive(queue: 0, into: &batch, max: 32) == 0 || batch.count == 0)
    #expect(bench.driver.tick().contains(.lost))
    #expect(!bench.card.isBusMaster)
    #expect(bench.pool.available == Bench.buffers)
    #expect(bench.statistic("device_faults") == 1)
    #expect(bench.driver.tick() == [])
  }

  @Test(arguments: receiveLies.indices, [true, false])
  func `a lie about a received frame ends the device's use`(lie: Int, eventIndex: Bool) throws {
    let bench = try Bench(RingFeatures(mergeable: true, eventIndex: eventIndex).options)
    try bench.start()
    for i in 0..<10 { bench.inject(frame(i)) }
    #expect(bench.receive().count == 10)
    bench.model.misbehave(Self.receiveLies[lie], queue: 0)
    for i in 0..<10 { bench.inject(frame(i)) }
    let good = bench.receive()
    #expect(good.count < 10)
    expectQuarantine(bench)
  }

  @Test(arguments: transmitLies.indices) func `a lie about a sent frame ends the device's use`(lie: Int) throws {
    let bench = try Bench()
    try bench.start()
    bench.send((0..<10).map { frame($0) })
    bench.model.misbehave(Self.transmitLies[lie], queue: 1)
    bench.send([frame(11)])
    bench.driver.reclaim(queue: 0)
    expectQuarantine(bench)
  }

  @Test func `a lie on the control queue is an error`() throws {
    let bench = try Bench()
    try bench.start()
    bench.model.misbehave(.id(3), queue: 2)
    let error = try #require(throws: DriverError.self) { try bench.driver.setReceiveFilter(ReceiveFilter()) }
    guard case .device = error else {
      Issue.record("\(error)")
      return
    }
  }

  @Test func `a device that lies at random never traps, and loses no buffer`() throws {
    for seed in 0..<24 as Range<UInt64> {
      var random = SplitMix(seed)
      let bench = try Bench(RingFeatures.all[Int(seed % 4)].options)
      try bench.start()
      var batch = PacketBatch(capacity: 64)
      for i in 0..<300 {
        switch random.next() % 8 {
        case 0...2: bench.inject(frame(i, count: 60 + Int(random.next() % 3000)))
        case 3...4: bench.step()
        case 5:
          if random.next() % 4 == 0 {
            let wild = UInt32(truncatingIfNeeded: random.next() % 600)
            let faults: [VirtioModelFault] = [
              .id(wild), .duplicate, .length(wild * 8), .indexJump(UInt16(wild)), .bufferCount(UInt16(wild % 8)),
            ]
            bench.model.misbehave(faults[Int(random.next() % 5)], queue: Int(random.next() % 2))
          }
        default:
          _ = bench.driver.receive(queue: 0, into: &batch, max: Int(random.next() % 20))
          _ = bench.driver.send(queue: 0, &batch)
          if random.next() % 10 == 0 { _ = bench.driver.tick() }
        }
      }
      batch.removeAll()
      bench.driver.stop()
      #expect(bench.pool.available == Bench.buffers)
    }
  }
}
