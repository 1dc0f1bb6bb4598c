// What must hold after traffic, whatever the cell.

import DriverKit
import ModelKit
import Packet

extension Rig {
  /// A frame that reached the card, as the driver should show it.
  private func presented(_ frame: [UInt8]) -> (bytes: [UInt8], vlan: UInt16?) {
    guard cell.strips, frame.count >= 18, frame[12] == 0x81, frame[13] == 0 else { return (frame, nil) }
    return (Array(frame[0..<12] + frame[16...]), UInt16(frame[14]) << 8 | UInt16(frame[15]))
  }

  /// Received frames against what reached the card: contents, order on each queue, marks, flows.
  /// - Parameter wanted: frames that must be there; nil: any may be kept out, if the counters say so.
  func judgeReceived(_ wanted: (([UInt8]) -> Bool)? = { _ in true }) {
    var next = Array(repeating: 0, count: cell.queues)
    var missing = 0
    var flows: [[UInt8]: Int] = [:]
    for frame in ledger.arrived {
      let (bytes, vlan) = presented(frame)
      guard let queue = (0..<cell.queues).first(where: { next[$0] < got[$0].count && got[$0][next[$0]].bytes == bytes }) else {
        missing += 1
        if let wanted, wanted(frame) { expect(false, "a frame of \(frame.count) bytes did not arrive in its place") }
        continue
      }
      let found = got[queue][next[queue]]
      next[queue] += 1
      expect(found.flags.contains(.vlan) == (vlan != nil), "a tag's mark is wrong: \(found.flags)")
      if let vlan { expect(found.vlan == vlan, "tag \(found.vlan), not \(vlan)") }
      judgeMarks(found, frame)
      let headers = Frames.parse(frame)
      // Without scaling, virtio devices send a flow where the driver last sent one of it.
      guard driver.capabilities.contains(.receiveScaling) || ledger.left.isEmpty || cell.scenario == .forward else { continue }
      guard headers.transport != .none, Frames.isRight(frame).transport == true, Frames.isRight(frame).network != false else { continue }
      let addresses = headers.isIPv4 ? frame[headers.networkOffset + 12..<headers.networkOffset + 20] : frame[headers.networkOffset + 8..<headers.networkOffset + 40]
      let key = addresses + frame[headers.transportOffset..<headers.transportOffset + 4] + [headers.ipProtocol]
      expect(flows[Array(key), default: queue] == queue, "a flow is on two queues")
      flows[Array(key)] = queue
    }
    for queue in 0..<cell.queues {
      expect(next[queue] == got[queue].count, "queue \(queue): \(got[queue].count - next[queue]) frames that never reached the card, or out of order")
    }
    if cell.queues > 1, flows.count >= 40, driver.capabilities.contains(.receiveScaling) {
      expect(Set(flows.values).count > cell.queues / 2, "\(flows.count) flows on queues \(Set(flows.values))")
    }
    judgeCounters(missing: missing)
  }

  /// Checksum marks: right ones are never called wrong, and wrong ones never right.
  private func judgeMarks(_ found: Got, _ frame: [UInt8]) {
    let right = Frames.isRight(frame)
    if found.flags.contains(.badChecksum) {
      expect(right.network == false || right.transport == false, "right checksums are called wrong: \(found.flags)")
    }
    if found.flags.contains(.ipChecksum), !found.flags.contains(.badChecksum) {
      expect(right.network != false, "a wrong IPv4 checksum is called right")
    }
    if !found.flags.isDisjoint(with: [.tcpChecksum, .udpChecksum]), !found.flags.contains(.badChecksum) {
      expect(right.transport != false, "a wrong transport checksum is called right")
    }
  }

  /// What reached the card is what the driver gave and what the counters say was lost.
  func judgeCounters(missing: Int) {
    let account = account(counters()), all = ledger.arrived.count + ledger.damaged
    expect(account.received == all, "\(all) frames reached the card: \(account)")
    expect(account.damaged == ledger.damaged, "\(ledger.damaged) damaged frames: \(account)")
    expect(account.delivered == got.reduce(0) { $0 + $1.count }, "\(got.map(\.count)) frames were given: \(account)")
    expect(account.missed + account.filtered + account.refused == missing, "\(missing) frames are missing: \(account)")
    let bytes = got.reduce(0) { $0 + $1.reduce(0) { $0 + $1.bytes.count } }
    expect(account.deliveredBytes == bytes, "\(bytes) bytes were given, \(account.deliveredBytes) counted")
    let wire = faulty.arrivingCounts
    expect(Int(wire.delivered) == all, "the wire gave \(wire.delivered), \(all) reached the card")
    let harmed = wire.passed + wire.dropped + wire.duplicated + wire.reordered + wire.delayed + wire.corrupted + wire.corruptedSilently
    expect(wire.seen == harmed, "the wire's own account: \(wire)")
  }

  /// Sent frames: each queue's in order, unchanged, and counted by everybody.
  func judgeSent() {
    for queue in 0..<cell.queues {
      let left = ledger.left.filter { $0.queue == queue }.map(\.bytes)
      expect(left == given[queue], "queue \(queue): \(given[queue].count) frames were sent, \(left.count) left; first difference at \(zip(left, given[queue]).enumerated().first { $1.0 != $1.1 }?.offset ?? -1)")
    }
    let account = account(counters()), count = ledger.left.count
    expect(account.sentByCard == count && account.sentByDriver == given.reduce(0) { $0 + $1.count }, "\(count) frames left: \(account)")
    expect(Int(faulty.leavingCounts.seen) == count, "the wire saw \(faulty.leavingCounts.seen) of \(count)")
    expect(Int(faulty.leavingCounts.delivered) == far.sent.count, "the far end got \(far.sent.count): \(faulty.leavingCounts)")
  }

  /// Nothing odd happened: no DMA error, no complaint of the model, a running port.
  func judgeHealth() {
    expect(model.bus.memory.faults == 0, "\(model.bus.memory.faults) DMA errors, the last at \(String(model.bus.memory.lastFault, radix: 16))")
    expect(model.bus.complaints.isEmpty, "the model complains: \(model.bus.complaints.first ?? "")")
    expect(driver.health == .running, "\(driver.health)")
  }

  /// After `stop`, every buffer is in its pool.
  func judgeStop() {
    driver.stop()
    expect(pool.available == pool.capacity, "\(pool.capacity - pool.available) buffers are lost")
    expect(!card.isBusMaster, "bus mastering is on after stop")
  }
}
