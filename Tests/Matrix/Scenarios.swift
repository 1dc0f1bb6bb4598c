// What cells do when the device keeps its word.

import DriverKit
import ModelKit
import Packet
import Platform
import Wire

extension Rig {
  /// Runs the cell; what did not hold is in `failures`.
  func run() throws {
    try start()
    switch cell.scenario {
    case .receive: receives()
    case .send: sends()
    case .forward: forwards()
    case .overrun: overruns()
    case .checksums: inserts()
    case .segmentation: segments()
    case .filter: try filters()
    case .interrupts: interrupts()
    case .restart: try restarts()
    case .link: flaps()
    case .lies: return try survives()
    }
    judgeHealth()
    judgeStop()
  }

  /// Bursts that the rings can hold, each taken before the next one.
  func traffic(_ total: Int) {
    var sent = 0
    // Chains of a jumbo frame take several descriptors; copies by the wire take more.
    let most = cell.receiveRing / (cell.mtu > 1500 ? 12 : 4)
    while sent < total {
      let burst = min(total - sent, 1 + below(min(24, most)))
      for _ in 0..<burst { far.send(frame()) }
      sent += burst
      pass(UInt64(below(3000)))
      card.settle()
      drain()
    }
    finish()
  }

  /// A wire that stood still brings more at once than a short ring holds.
  private var floods: Bool { cell.wireFault.hasPrefix("stall") }

  private func receives() {
    traffic(100)
    judgeReceived(floods ? nil : { _ in true })
  }

  private func sends() {
    for _ in 0..<12 {
      let queue = below(cell.queues)
      for _ in 0..<1 + below(12) { send(frame(), queue: queue, pieces: 1 + below(3) * below(2)) }
      expect(flush(queue), "the ring stayed full")
      pass(UInt64(below(3000)))
    }
    finish()
    pass(1_100_000)
    finish()
    judgeSent()
  }

  private func forwards() {
    var batch = PacketBatch(capacity: 64)
    for round in 0..<12 {
      for _ in 0..<(round < 10 ? 1 + below(12) : 0) { far.send(frame()) }
      pass(round < 10 ? UInt64(below(3000)) : 1_100_000)
      for queue in 0..<cell.queues {
        var idle = 0
        while idle < 8 {
          idle = driver.receive(queue: queue, into: &batch, max: cell.batch) > 0 ? 0 : idle + 1
          batch.forEach { packet in
            got[queue].append(Got(bytes: packet.bytes(), flags: packet.flags, vlan: packet.vlan, hash: packet.hash))
            // Out again as it came in: with its tag, when that was taken out.
            var bytes = packet.bytes()
            if packet.flags.contains(.vlan) { bytes.insert(contentsOf: [0x81, 0, UInt8(packet.vlan >> 8), UInt8(packet.vlan & 255)], at: 12) }
            given[queue].append(bytes)
            packet.flags = packet.flags.intersection(.vlan)
          }
          for _ in 0..<100 where !batch.isEmpty {
            _ = driver.send(queue: queue, &batch)
            card.settle()
          }
          expect(batch.isEmpty, "the ring stayed full")
          batch.removeAll()
        }
      }
    }
    finish()
    judgeReceived(floods ? nil : { _ in true })
    judgeSent()
  }

  private func overruns() {
    for _ in 0..<2 {
      for _ in 0..<cell.queues * cell.receiveRing * 2 { far.send(Frames.make(nextNumber(), shape(tags: false, longest: 260))) }
      for _ in 0..<20 { card.settle() }
      drain()
      finish()
    }
    judgeReceived(nil)
    // And everything is as before.
    traffic(20)
    judgeReceived(nil)
    expect(far.waiting == 0, "\(far.waiting) frames still wait on the wire")
  }

  private func inserts() {
    guard driver.capabilities.contains(.transmitChecksum) else { return traffic(40) }
    let canTag = driver.capabilities.contains(.vlanInsert)
    for _ in 0..<60 {
      let shape = shape(tags: false), queue = below(cell.queues), right = Frames.make(nextNumber(), shape)
      let tag: UInt16? = canTag && below(3) == 0 ? UInt16(1 + below(4000)) : nil
      var onWire = right
      if let tag { onWire.insert(contentsOf: [0x81, 0, UInt8(tag >> 8), UInt8(tag & 255)], at: 12) }
      let headers = Frames.parse(right)
      send(Frames.seeded(right, withLength: true), queue: queue, pieces: 1 + below(2), head: 94, onWire: onWire) { packet in
        packet.flags = [headers.isTCP ? .tcpChecksum : .udpChecksum]
        if headers.isIPv4 { packet.flags.insert(.ipChecksum) }
        packet.setHeaderLengths(link: 14, network: headers.networkHeaderLength)
        if let tag {
          packet.flags.insert(.vlan)
          packet.vlan = tag
        }
      }
      expect(flush(queue), "the ring stayed full")
    }
    finish()
    judgeSent()
    traffic(40)
    judgeReceived()
  }

  private func segments() {
    guard driver.capabilities.contains(.transmitSegmentation) else { return }
    var expected: [[UInt8]] = []
    for round in 0..<12 {
      var shape = shape(flows: 4, tags: false)
      shape.isTCP = true
      let header = shape.isIPv6 ? 74 : 54, size = [536, 1000, 1440][below(3)]
      shape.size = header + 1 + below(12_000)
      let frame = Frames.make(round, shape), data = Array(frame[header...])
      var from = 0
      while from < data.count {
        expected.append(Array(data[from..<min(data.count, from + size)]))
        from += size
      }
      send(Frames.seeded(frame, withLength: false), queue: 0, pieces: 1 + below(4), head: 94) { packet in
        packet.setHeaderLengths(link: 14, network: shape.isIPv6 ? 40 : 20)
        packet.setSegmentation(size: size, transport: 20)
        if !shape.isIPv6 { packet.flags.insert(.ipChecksum) }
      }
      expect(flush(0), "the ring stayed full")
    }
    finish()
    let left = ledger.left.map(\.bytes)
    expect(left.count == expected.count, "\(left.count) segments, not \(expected.count)")
    for (frame, data) in zip(left, expected) {
      let headers = Frames.parse(frame), right = Frames.isRight(frame)
      // A short segment of 60 bytes has padding.
      expect(Array(frame[headers.payloadOffset..<headers.networkEnd]) == data, "a segment's data is wrong")
      expect(right.transport == true && right.network != false, "a segment's checksums: \(right)")
    }
  }

  private func filters() throws {
    var filter = ReceiveFilter()
    let listed = [MACAddress(0x01, 0, 0x5e, 1, 2, UInt8(below(256))), MACAddress(0x33, 0x33, 0, 0, 0, UInt8(below(256)))]
    filter.multicast = listed
    let allowed: [UInt16] = [7, 8, 4094]
    if driver.capabilities.contains(.vlanFilter) { filter.vlans = allowed }
    try driver.setReceiveFilter(filter)
    let strangers = [MACAddress(2, 9, 9, 9, 9, 9), MACAddress(0x01, 0, 0x5e, 9, 9, 9)]
    for _ in 0..<60 {
      var shape = shape(tags: false)
      shape.destination = ([driver.macAddress, .broadcast] + listed + strangers)[below(6)]
      shape.vlan = below(2) == 0 ? [7, 8, 4094, 9, 100][below(5)] : nil
      far.send(Frames.make(nextNumber(), shape))
      if below(8) == 0 {
        card.settle()
        drain()
      }
    }
    finish()
    let own = [driver.macAddress, .broadcast] + listed
    func isAllowed(_ frame: [UInt8]) -> Bool {
      let headers = Frames.parse(frame)
      return headers.tagCount == 0 || filter.vlans == nil || allowed.contains(headers.vlan)
    }
    judgeReceived { frame in own.contains(MACAddress(bytes: frame)!) && isAllowed(frame) }
    for frame in got.joined() {
      let address = MACAddress(bytes: frame.bytes)!
      // Multicast filters may be coarse; station addresses never are.
      expect(address.isMulticast || address == driver.macAddress, "a frame to \(address) was let through")
      let tag = cell.strips ? (frame.flags.contains(.vlan) ? frame.vlan & 0xfff : nil) : Frames.parse(frame.bytes).tagCount > 0 ? Frames.parse(frame.bytes).vlan : nil
      if let tag, filter.vlans != nil { expect(allowed.contains(tag), "VLAN \(tag) was let through") }
    }
  }

  /// A sleeper on each queue: armed, asleep, woken by the first frame, and never left asleep beside one.
  private func interrupts() {
    for queue in 0..<cell.queues { EventFD.drain(driver.eventDescriptor(queue: queue)) }
    for _ in 0..<20 {
      for queue in 0..<cell.queues {
        while driver.armInterrupt(queue: queue) {
          drain()
          card.settle()
        }
      }
      let before = got.map(\.count)
      for _ in 0..<1 + below(4) { far.send(frame()) }
      card.settle()
      // Moderation may hold the interrupt back for its time, and no longer.
      pass(UInt64(cell.moderation) * 1000 + 200_000)
      let woken = (0..<cell.queues).filter { EventFD.drain(driver.eventDescriptor(queue: $0)) > 0 }
      for queue in 0..<cell.queues { driver.maskInterrupt(queue: queue) }
      drain()
      for queue in 0..<cell.queues where got[queue].count > before[queue] {
        let isShared = (0..<cell.queues).contains { $0 != queue && driver.eventDescriptor(queue: $0) == driver.eventDescriptor(queue: queue) }
        expect(woken.contains(queue) || isShared, "queue \(queue) slept beside \(got[queue].count - before[queue]) frames")
      }
    }
    finish()
    judgeReceived()
  }

  private func restarts() throws {
    for round in 0..<3 {
      traffic(20)
      for queue in 0..<cell.queues {
        for _ in 0..<6 { send(frame(), queue: queue) }
        flush(queue)
      }
      finish()
      for _ in 0..<round { far.send(frame()) }
      if round == 2 { card.settle() }
      driver.stop()
      expect(driver.health == .stopped, "\(driver.health)")
      expect(pool.available == pool.capacity, "\(pool.capacity - pool.available) buffers are lost in round \(round)")
      expect(!card.isBusMaster, "bus mastering is on after stop")
      try start()
    }
    let before = got.reduce(0) { $0 + $1.count }
    traffic(20)
    expect(got.reduce(0) { $0 + $1.count } > before + 10, "nothing arrives after a restart")
  }

  private func flaps() {
    for _ in 0..<3 {
      model.setLink(up: false)
      for _ in 0..<3 {
        pass(1_000_000_000)
        _ = driver.serviceControl()
        _ = driver.tick()
      }
      expect(driver.link.status != .up, "the link is up without a cable")
      expect(driver.health == .running, "\(driver.health)")
      model.setLink(up: true)
      for _ in 0..<20 where driver.link.status != .up {
        pass(1_000_000_000)
        _ = driver.serviceControl()
        _ = driver.tick()
      }
      expect(driver.link.status == .up, "no link after the cable came back")
      traffic(15)
      send(frame(), queue: 0)
      flush(0)
      finish()
    }
    judgeReceived()
    judgeSent()
  }
}
