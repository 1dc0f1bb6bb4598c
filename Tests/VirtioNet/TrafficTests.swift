// Frames through the rings: order, wrapping, chains, notifications.

import DriverKit
import ModelKit
import Models
import NetmapCore
import Packet
import Testing
import Wire

@testable import VirtioNet

@Suite struct TrafficTests {
  @Test(arguments: RingFeatures.all) func `frames go out as they are`(features: RingFeatures) throws {
    let bench = try Bench(features.options)
    try bench.start()
    let frames = (0..<1000).map { frame($0, count: 60 + $0 % 1400) }
    bench.send(frames)
    #expect(bench.takeSent() == frames)
    #expect(bench.complaints.isEmpty)
    #expect(bench.statistic("tx_packets") == 1000)
    #expect(bench.statistic("tx_bytes") == UInt64(frames.reduce(0) { $0 + $1.count }))
    #expect(bench.statistic("tx_queue_0_packets") == 1000)
  }

  @Test(arguments: RingFeatures.all) func `frames come in as they are`(features: RingFeatures) throws {
    let bench = try Bench(features.options)
    try bench.start()
    let frames = (0..<1000).map { frame($0, count: 60 + $0 % 1400) }
    for frame in frames { bench.inject(frame) }
    #expect(bench.receive() == frames)
    #expect(bench.complaints.isEmpty)
    #expect(bench.statistic("rx_packets") == 1000)
    #expect(bench.statistic("rx_bytes") == UInt64(frames.reduce(0) { $0 + $1.count }))
    #expect(bench.driver.health == .running)
  }

  @Test(arguments: RingFeatures.all) func `the indexes wrap`(features: RingFeatures) throws {
    let bench = try Bench(features.options)
    try bench.start()
    var batch = PacketBatch(capacity: 32)
    var received = 0
    for round in 0..<2200 {
      for i in 0..<32 { bench.inject(frame(round * 32 + i)) }
      bench.step()
      received += bench.driver.receive(queue: 0, into: &batch, max: 32)
      // Back out again, as a bridge does.
      while !batch.isEmpty {
        _ = bench.driver.send(queue: 0, &batch)
        bench.step()
      }
      let out = bench.takeSent()
      #expect(out.count == 32 && out.first == frame(round * 32) && out.last == frame(round * 32 + 31))
    }
    #expect(received == 2200 * 32)
    #expect(bench.complaints.isEmpty)
    #expect(bench.driver.health == .running)
  }

  @Test(arguments: RingFeatures.all) func `a device that keeps no order is served all the same`(features: RingFeatures) throws {
    var options = features.options
    options.reversesCompletions = true
    let bench = try Bench(options)
    try bench.start()
    var batch = PacketBatch(capacity: 64)
    for round in 0..<100 {
      let frames = (0..<40).map { frame(round * 40 + $0, count: 60 + ($0 * 37) % 1400) }
      for frame in frames { bench.inject(frame) }
      bench.step()
      while bench.driver.receive(queue: 0, into: &batch, max: 7) > 0 {}
      #expect(batch.count == 40)
      #expect(bench.driver.send(queue: 0, &batch) == 40)
      bench.step()
      #expect(bench.takeSent() == frames)
    }
    #expect(bench.driver.health == .running)
    bench.driver.stop()
    #expect(bench.pool.available == Bench.buffers)
    #expect(bench.complaints.isEmpty)
  }

  @Test func `one notification a batch`() throws {
    let bench = try Bench()
    try bench.start()
    bench.send((0..<320).map { frame($0) })
    #expect(bench.model.notifications[1] == 10)
    #expect(bench.statistic("tx_kicks") == 10)
  }

  @Test func `buffers go back to the device in numbers, whatever the batch`() throws {
    let bench = try Bench()
    try bench.start()
    for i in 0..<40 { bench.inject(frame(i)) }
    bench.step()
    var batch = PacketBatch(capacity: 512)
    for _ in 0..<40 { #expect(bench.driver.receive(queue: 0, into: &batch, max: 1) == 1) }
    // 32 of the 40 have gone back: 248 of 256 buffers are the device's.
    for i in 40..<296 { bench.inject(frame(i)) }
    bench.step()
    #expect(bench.wire.waiting == 8)
    while bench.driver.receive(queue: 0, into: &batch, max: 64) > 0 { bench.step() }
    #expect(batch.count == 296)
    batch.removeAll()
    // Nothing came in any more, so all the rest went back too.
    for i in 0..<256 { bench.inject(frame(i)) }
    bench.step()
    #expect(bench.wire.waiting == 0)
    #expect(bench.receive() == (0..<256).map { frame($0) })
  }

  @Test func `received frames are sent on one descriptor, others with a header of their own`() throws {
    var options = PortOptions()
    options.transmitDescriptors = 64
    let bench = try Bench(VirtioNetModelOptions(), options)
    try bench.start()
    var batch = PacketBatch(capacity: 128)
    for i in 0..<100 { bench.inject(frame(i)) }
    bench.step()
    _ = bench.driver.receive(queue: 0, into: &batch, max: 100)
    #expect(bench.driver.send(queue: 0, &batch) == 64)
    bench.step()
    #expect(bench.driver.send(queue: 0, &batch) == 36)
    bench.step()
    bench.driver.reclaim(queue: 0)
    bench.fill(&batch, (0..<100).map { frame($0) })
    #expect(bench.driver.send(queue: 0, &batch) == 32)
    bench.step()
    #expect(bench.takeSent() == (0..<100).map { frame($0) } + (0..<32).map { frame($0) })
    #expect(bench.complaints.isEmpty)
  }

  @Test(arguments: [false, true]) func `frames over several buffers go out and come in`(reversed: Bool) throws {
    var modelOptions = VirtioNetModelOptions()
    modelOptions.reversesCompletions = reversed
    var options = PortOptions()
    options.mtu = 9000
    let bench = try Bench(modelOptions, options)
    try bench.start()
    var batch = PacketBatch(capacity: 32)
    var random = SplitMix(7)
    for round in 0..<200 {
      let frames = (0..<8).map { frame(round * 8 + $0, count: 60 + Int(random.next() % 8900)) }
      for frame in frames { bench.inject(frame) }
      bench.step()
      #expect(bench.driver.receive(queue: 0, into: &batch, max: 32) == 8)
      var seen: [[UInt8]] = []
      batch.forEach { packet in
        seen.append(packet.bytes())
        #expect(packet.segmentCount == (packet.count + 12 + 2047) / 2048)
      }
      #expect(seen == frames)
      #expect(bench.driver.send(queue: 0, &batch) == 8)
      bench.step()
      #expect(bench.takeSent() == frames)
    }
    bench.driver.stop()
    #expect(bench.pool.available == Bench.buffers)
    #expect(bench.complaints.isEmpty)
  }

  @Test func `a tag is put in where a frame asks for one`() throws {
    let bench = try Bench()
    try bench.start()
    func tagged(_ bytes: [UInt8]) -> [UInt8] { Array(bytes[..<12]) + [0x81, 0x00, 0x6a, 0xbc] + Array(bytes[12...]) }
    func ask(_ packet: borrowing Packet) {
      packet.flags = .vlan
      packet.vlan = 0x6abc
    }
    let frames = (0..<300).map { frame($0, count: 60 + $0 * 4) }
    bench.send(frames, prepare: ask)
    #expect(bench.takeSent() == frames.map(tagged))
    // A received frame has headroom, and a frame of two buffers a second one.
    for frame in frames.prefix(3) { bench.inject(frame) }
    var batch = PacketBatch(capacity: 8)
    bench.step()
    #expect(bench.driver.receive(queue: 0, into: &batch, max: 3) == 3)
    batch.forEach(ask)
    #expect(bench.driver.send(queue: 0, &batch) == 3)
    bench.fill(&batch, [frame(1), [1, 2, 3], frame(2, count: 1515), Array(frame(3).prefix(12))])
    batch.forEach(ask)
    if let tail = batch.popLast(), let large = batch.popLast(), let short = batch.popLast(), let head = batch.popLast() {
      head.append(short)
      _ = batch.append(head)
      _ = batch.append(large)
      _ = batch.append(tail)
    }
    #expect(bench.driver.send(queue: 0, &batch) == 3)
    bench.step()
    #expect(bench.takeSent() == frames.prefix(3).map(tagged) + [tagged(frame(1) + [1, 2, 3])])
    #expect(bench.statistic("tx_dropped") == 2)
    bench.driver.stop()
    #expect(bench.pool.available == Bench.buffers)
    #expect(bench.complaints.isEmpty)
  }

  @Test func `frames that cannot be sent are counted and freed`() throws {
    let bench = try Bench()
    try bench.start()
    let before = bench.pool.available
    bench.send([frame(1, count: 1519), frame(2), [], Array(frame(3).prefix(13))])
    #expect(bench.takeSent() == [frame(2)])
    #expect(bench.statistic("tx_dropped") == 3)
    bench.driver.reclaim(queue: 0)
    #expect(bench.pool.available == before)
  }

  @Test func `frames that are too long or empty are dropped`() throws {
    let bench = try Bench()
    try bench.start()
    for bytes in [frame(1, count: 1519), frame(2, count: 4000), frame(3), [], frame(4, count: 1518)] {
      bench.inject(bytes)
    }
    bench.model.misbehave(.length(12), queue: 0)
    #expect(bench.receive() == [frame(3), frame(4, count: 1518)])
    #expect(bench.statistic("rx_errors") == 3)
    #expect(bench.driver.health == .running)
  }

  @Test func `a pool that runs dry stalls the ring, and does not lose it`() throws {
    let bench = try Bench()
    try bench.start()
    var held = PacketBatch(capacity: Bench.buffers)
    while let packet = bench.pool.allocate() { _ = held.append(packet) }
    let frames = (0..<600).map { frame($0) }
    for frame in frames { bench.inject(frame) }
    var batch = PacketBatch(capacity: 600)
    for _ in 0..<20 {
      bench.step()
      _ = bench.driver.receive(queue: 0, into: &batch, max: 32)
    }
    #expect(batch.count == 256)
    held.removeAll()
    for _ in 0..<20 {
      bench.step()
      _ = bench.driver.receive(queue: 0, into: &batch, max: 32)
    }
    #expect(batch.count == 600)
    #expect((bench.statistic("rx_buffers_exhausted") ?? 0) > 0)
    #expect(bench.driver.health == .running)
  }

  @Test func `frames of another pool go back there`() throws {
    let bench = try Bench()
    try bench.start()
    var batch = PacketBatch(capacity: 8)
    // Buffers 0 and 1 are never given out by the allocator: a second pool may lie on them.
    let second = unsafe PacketPool(
      unsafe: bench.allocator.bufferBase, stride: 2048, iova: bench.allocator.bufferIOVABase, indices: [0, 1])
    bench.fill(&batch, (0..<2).map { frame($0) }, from: second)
    #expect(bench.driver.send(queue: 0, &batch) == 2)
    #expect(second.available == 0)
    bench.step()
    bench.driver.reclaim(queue: 0)
    #expect(second.available == 2)
    #expect(bench.takeSent() == [frame(0), frame(1)])
  }

  @Test func `several queues are separate`() throws {
    var modelOptions = VirtioNetModelOptions()
    modelOptions.features |= VirtioModelFeature.multiqueue
    modelOptions.pairs = 4
    modelOptions.vectors = 9
    var options = PortOptions()
    options.queues = 3
    let bench = try Bench(modelOptions, options)
    try bench.start()
    #expect(bench.model.activePairs == 3)
    for queue in 0..<3 {
      let out = frame(queue, from: Bench.station(queue))
      let back = frame(queue + 10, from: Bench.station(queue))
      bench.send([out], queue: queue)
      bench.inject(back)
      #expect(bench.wire.takeSent() == [TestWire.Sent(bytes: out, queue: queue)])
      #expect(bench.receive(queue: queue) == [back])
    }
    var batch = PacketBatch(capacity: 4)
    #expect(bench.driver.receive(queue: 3, into: &batch, max: 4) == 0)
    #expect(bench.driver.receive(queue: -1, into: &batch, max: 4) == 0)
    #expect(bench.complaints.isEmpty)
  }

  @Test func `random traffic both ways loses nothing`() throws {
    for seed in [11, 12, 13] as [UInt64] {
      var random = SplitMix(seed)
      var modelOptions = RingFeatures.all[Int(seed % 4)].options
      modelOptions.features |= VirtioModelFeature.mergeableBuffers
      modelOptions.reversesCompletions = seed & 1 == 0
      var options = PortOptions()
      options.mtu = 4000
      options.receiveDescriptors = 64
      options.transmitDescriptors = 64
      let bench = try Bench(modelOptions, options)
      try bench.start()
      var batch = PacketBatch(capacity: 64)
      var wanted: [[UInt8]] = []
      var got: [[UInt8]] = []
      for i in 0..<3000 {
        switch random.next() % 4 {
        case 0, 1:
          let bytes = frame(i, count: 60 + Int(random.next() % 3900))
          wanted.append(bytes)
          bench.inject(bytes)
        case 2: bench.step()
        default:
          _ = bench.driver.receive(queue: 0, into: &batch, max: Int(random.next() % 20))
          _ = bench.driver.send(queue: 0, &batch)
        }
        got += bench.takeSent()
      }
      for _ in 0..<3000 where got.count < wanted.count {
        bench.step()
        _ = bench.driver.receive(queue: 0, into: &batch, max: 32)
        _ = bench.driver.send(queue: 0, &batch)
        got += bench.takeSent()
      }
      #expect(got == wanted)
      #expect(bench.complaints.isEmpty)
      batch.removeAll()
      bench.driver.stop()
      #expect(bench.pool.available == Bench.buffers)
    }
  }
}
