// What cells do when the device breaks its word: nothing crashes, nothing is lost for ever.

import DriverKit
import ModelKit
import Packet

extension Rig {
  /// Traffic in both directions before, under and after a fault; then a stop, and, where the port can
  /// still be used, a start and traffic that must get through.
  func survives() throws {
    guard let fault = cell.modelFault else { return }
    traffic(10)
    judgeReceived()
    let harmless = fault == .interruptStorm || fault == .noInterrupts
    model.inject(fault)
    for round in 0..<12 {
      exchange(round)
      if round % 3 == 2 {
        clock.sleep(nanoseconds: 1_100_000_000)
        _ = driver.serviceControl()
        _ = driver.tick()
        _ = driver.statistics()
      }
    }
    if harmless {
      finish()
      judgeReceived()
      expect(driver.health == .running, "\(driver.health)")
    }
    for frame in got.joined() {
      expect(frame.bytes.count <= driver.maximumFrame, "a frame of \(frame.bytes.count) bytes came up")
    }
    model.inject(.none)
    for _ in 0..<4 {
      clock.sleep(nanoseconds: 1_100_000_000)
      _ = driver.serviceControl()
      _ = driver.tick()
      exchange(99)
    }
    let health = driver.health
    driver.stop()
    expect(pool.available == pool.capacity, "\(pool.capacity - pool.available) buffers are lost; \(health)")
    expect(!card.isBusMaster, "bus mastering is on after stop")
    try comesBack(health)
  }

  private func comesBack(_ health: PortHealth) throws {
    if driver.health == .stopped {
      try start()
      got = Array(repeating: [], count: cell.queues)
      ledger.arrived = []
      far.sent = []
      // What waited on the wire, or in the device, comes first.
      finish()
      got = Array(repeating: [], count: cell.queues)
      ledger.arrived = []
      for _ in 0..<10 { far.send(frame()) }
      finish()
      expect(got.reduce(0) { $0 + $1.count } == 10, "\(got.map(\.count)) of 10 frames arrive after a new start; it was \(health)")
      let before = ledger.left.count
      for _ in 0..<10 { send(frame(), queue: cell.queues - 1) }
      flush(cell.queues - 1)
      finish()
      expect(ledger.left.count == before + 10, "\(ledger.left.count - before) of 10 frames leave after a new start; it was \(health)")
    } else {
      // Quarantined or gone: it stays so, and says so.
      var refused = false
      do { try driver.start(pools: [pool]) } catch { refused = true }
      expect(refused, "a port that is \(driver.health) started")
      var batch = PacketBatch(capacity: 4)
      expect(driver.receive(queue: 0, into: &batch, max: 4) == 0, "a port that is \(driver.health) receives")
    }
  }

  /// Some frames each way, on every queue.
  private func exchange(_ round: Int) {
    for _ in 0..<6 { far.send(frame()) }
    var batch = PacketBatch(capacity: 8)
    for queue in 0..<cell.queues {
      for _ in 0..<5 {
        guard let packet = packet(frame(), pieces: 1) else { break }
        if let refused = batch.append(packet) { _ = consume refused }
      }
      _ = driver.send(queue: queue, &batch)
      batch.removeAll()
    }
    card.settle(rounds: 8)
    drainSome()
    for queue in 0..<cell.queues {
      driver.reclaim(queue: queue)
      if round & 1 == 0 { _ = driver.armInterrupt(queue: queue) } else { driver.maskInterrupt(queue: queue) }
    }
  }

  /// At most so many rounds: a device that lies may have frames without end.
  private func drainSome() {
    var batch = PacketBatch(capacity: 64)
    var idle = 0
    for _ in 0..<64 {
      var moved = 0
      for queue in 0..<cell.queues {
        moved += driver.receive(queue: queue, into: &batch, max: cell.batch)
        batch.forEach { packet in
          got[queue].append(Got(bytes: packet.bytes(), flags: packet.flags, vlan: packet.vlan, hash: packet.hash))
        }
        batch.removeAll()
      }
      // Nothing may mean a part of a jumbo frame (see `drain`).
      idle = moved == 0 ? idle + 1 : 0
      if idle == 8 { return }
    }
  }
}
