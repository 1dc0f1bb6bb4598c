import Ifnet
import NetmapAPI
import NetmapCore
import NetmapPorts
import Packet
import Testing

@testable import Attach

/// Opening and closing while traffic runs; nothing hung, nothing leaked, every frame accounted for.
@Suite struct NetmapModeTests {
  @Test("A hundred changes of mode under traffic: no frame is lost, and none comes twice", arguments: NetmapModel.allCases)
  func hundred(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    let before = (lab.freeBuffers, lab.freeRings, lab.freeInterfaces)
    var number = 0, program: [[UInt8]] = [], sent: [[UInt8]] = [], fromStack = 0
    func traffic(_ n: Int) {
      for _ in 0..<n {
        lab.wire.send(NetmapLab.frame(number, count: 60 + number % 900))
        number += 1
      }
    }
    for round in 0..<100 {
      traffic(round % 23)
      lab.poll()
      // The stack sends just before; its frames are with the card when the program comes.
      for _ in 0..<(round % 5) {
        let frame = NetmapLab.frame(1_000_000 + fromStack)
        fromStack += 1
        check(lab.stackSends(frame))
        sent.append(frame)
      }
      lab.netisr.settle()
      traffic(round % 17)
      lab.function.settle()
      let port = try lab.card.open(RingSelection(.allNIC))
      let receive = try #require(port.receiveRings.first), transmit = try #require(port.transmitRings.first)
      traffic(round % 29)
      for turn in 0..<(round % 4) {
        lab.poll()
        port.sync(.receive)
        program += lab.read(receive)
        for k in 0..<(round % 11) {
          let frame = NetmapLab.frame(2_000_000 + round * 100 + turn * 20 + k, count: 60 + round)
          if lab.write(frame, to: transmit) { sent.append(frame) }
        }
        port.sync(.transmit)
      }
      traffic(round % 7)
      lab.function.settle()
      // What was shown is the program's; it reads it to the end before it goes.
      program += lab.read(receive)
      port.close()
      lab.poll(round % 3)
    }
    lab.poll(8)
    #expect(lab.drops(.modeChange) == 0 && lab.drops(.noBuffer) == 0)
    let all = program + lab.stack.frames
    #expect(number > 3000 && all.count == number, "received = delivered: \(all.count) of \(number)")
    #expect(Set(all).count == number, "none twice")
    #expect(Set(all) == Set((0..<number).map { NetmapLab.frame($0, count: 60 + $0 % 900) }), "none changed")
    #expect(!program.isEmpty && !lab.stack.frames.isEmpty)
    #expect(lab.wire.sent.map(\.bytes) == sent, "what was sent left, in order")
    // A ring's worth of traffic brings the last buffers home; no stop, no reset.
    for _ in 0..<6 {
      traffic(64)
      lab.poll(2)
    }
    lab.poll(4)
    #expect(lab.tenants[0] == nil, "the tenant has moved out")
    #expect((lab.freeBuffers, lab.freeRings, lab.freeInterfaces) == before)
    #expect(lab.pools[0].available == 512 - NetmapLab.descriptors)
    lab.driver.stop()
    #expect(lab.pools[0].available == 512)
  }

  @Test("Without traffic, a stopped card gives everything back", arguments: NetmapModel.allCases)
  func stopped(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    let before = lab.freeBuffers
    for _ in 0..<5 {
      let port = try lab.card.open(RingSelection(.nicAndSoftware))
      lab.poll()
      for i in 0..<30 { lab.wire.send(NetmapLab.frame(i)) }
      lab.poll()
      port.close()
    }
    lab.driver.stop()
    lab.poll()
    #expect(lab.freeBuffers == before && lab.pools[0].available == 512 && lab.tenants[0] == nil)
    #expect(lab.stack.frames.count == 150)
  }

  @Test("No reset and no link change in a changeover", arguments: [NetmapModel.e1000e, .ixgbe])
  func quietly(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    lab.function.recordsWrites = true
    lab.function.forgetWrites()
    let port = try lab.card.open(RingSelection(.nicAndSoftware))
    port.close()
    #expect(lab.function.writes.isEmpty, "not one register was written")
    #expect(lab.driver.link.status == .up)
  }

  @Test("A program's frames that wait when it goes are sent or counted")
  func pending() throws {
    let lab = try NetmapLab(.virtio)
    let before = lab.freeBuffers
    let port = try lab.card.open(RingSelection(.allNIC))
    let ring = try #require(port.transmitRings.first)
    // Virtio takes two descriptors for each: half of them wait in the ring.
    for i in 0..<60 { check(lab.write(NetmapLab.frame(i), to: ring)) }
    port.sync(.transmit)
    port.close()
    let lost = lab.drops(.modeChange)
    lab.poll(4)
    #expect(lost > 0 && lab.wire.sent.count == 60 - lost)
    #expect(lab.wire.sent.map(\.bytes) == (0..<60 - lost).map { NetmapLab.frame($0) })
    lab.driver.stop()
    lab.poll()
    #expect(lab.freeBuffers == before)
  }

  @Test("Buffers that the card still sends are freed when it has")
  func inFlight() throws {
    let lab = try NetmapLab(.ixgbe)
    let before = lab.freeBuffers
    let port = try lab.card.open(RingSelection(.allNIC, flags: .transmitRingsOnly))
    let ring = try #require(port.transmitRings.first)
    for i in 0..<40 { check(lab.write(NetmapLab.frame(i), to: ring)) }
    port.sync(.transmit)
    port.close()
    #expect(lab.freeBuffers < before, "the card has not moved yet")
    lab.poll(3)
    #expect(lab.wire.sent.map(\.bytes) == (0..<40).map { NetmapLab.frame($0) })
    #expect(lab.freeBuffers == before && lab.tenants[0] == nil)
  }

  @Test("One queue is a program's, the other the stack's", arguments: [NetmapModel.ixgbe, .e1000e, .virtio])
  func oneQueue(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind, queues: 2, workers: 2)
    let port = try lab.card.open(RingSelection(.oneNIC(1)))
    #expect(port.rings.map(\.id) == [RingID(.transmit, 1), RingID(.receive, 1)])
    #expect(lab.tenants[0] == nil && lab.tenants[1] != nil)
    check(lab.stackSends(NetmapLab.frame(1), queue: 0))
    check(lab.stackSends(NetmapLab.frame(2), queue: 1))
    lab.netisr.settle()
    lab.poll(3)
    #expect(lab.wire.sent.map(\.bytes) == [NetmapLab.frame(1)] && lab.wire.sent.first?.queue == 0)
    #expect(lab.drops(.hostRingClosed) == 1, "queue 1 goes to the host ring, which nobody holds")
    let ring = try #require(port.transmitRings.first)
    check(lab.write(NetmapLab.frame(3), to: ring))
    port.sync(.transmit)
    lab.poll(2)
    #expect(lab.wire.sent.last?.bytes == NetmapLab.frame(3) && lab.wire.sent.last?.queue == 1)
    port.close()
    check(lab.stackSends(NetmapLab.frame(4), queue: 1))
    lab.netisr.settle()
    lab.poll(2)
    #expect(lab.wire.sent.last?.bytes == NetmapLab.frame(4))
  }

  @Test("Rings are shared, unless somebody wants them alone; what does not exist is EINVAL")
  func sharing() throws {
    let lab = try NetmapLab(.ixgbe, queues: 2, workers: 2)
    let before = lab.freeBuffers
    func code(_ mode: RegisterMode, _ flags: RegisterFlags = []) -> NetmapError.Code? {
      do throws(NetmapError) { try lab.card.open(RingSelection(mode, flags: flags)).close() } catch { return error.code }
      return nil
    }
    let first = try lab.card.open(RingSelection(.oneNIC(0)))
    #expect(code(.oneNIC(0), .exclusive) == .EBUSY && code(.allNIC, .exclusive) == .EBUSY)
    #expect(code(.oneNIC(1), .exclusive) == nil && code(.software) == nil && code(.null) == nil)
    #expect(code(.oneNIC(2)) == .EINVAL && code(.oneSoftware(1)) == .EINVAL && code(.oneNIC(-1)) == .EINVAL)
    let second = try lab.card.open(RingSelection(.allNIC))
    #expect(lab.card.krings.openPorts == 2)
    // Both see the same ring; it goes with the last of them.
    check(lab.write(NetmapLab.frame(1), to: first.transmitRings[0]))
    #expect(second.transmitRings[0].head == 1)
    first.close()
    first.close()
    #expect(lab.tenants[0] != nil && first.wait(for: .transmit, milliseconds: 0) == .error)
    second.sync(.transmit)
    lab.poll(2)
    #expect(lab.wire.sent.count == 1)
    second.close()
    let alone = try lab.card.open(RingSelection(.oneNIC(0), flags: .exclusive))
    #expect(code(.oneNIC(0)) == .EBUSY)
    alone.close()
    lab.driver.stop()
    lab.poll()
    #expect(lab.freeBuffers == before && lab.card.krings.openPorts == 0)
  }

  @Test("With too little memory, opening fails and changes nothing")
  func noMemory() throws {
    let lab = try NetmapLab(.ixgbe)
    let hoard = try lab.allocator.allocateBuffers(lab.freeBuffers - 150)
    let before = (lab.freeBuffers, lab.freeRings, lab.freeInterfaces)
    #expect(throws: NetmapError.self) { try lab.card.open(RingSelection(.nicAndSoftware)) }
    #expect((lab.freeBuffers, lab.freeRings, lab.freeInterfaces) == before && lab.tenants[0] == nil)
    lab.allocator.freeBuffers(hoard)
    let port = try lab.card.open(RingSelection(.nicAndSoftware))
    lab.wire.send(NetmapLab.frame(9))
    lab.poll()
    port.sync(.receive)
    #expect(lab.read(port.receiveRings[0]) == [NetmapLab.frame(9)])
  }

  @Test("A reset of the card under a program keeps its view, and wakes it", arguments: [NetmapModel.ixgbe, .e1000e])
  func reset(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    let port = try lab.card.open(RingSelection(.allNIC))
    let received = try #require(port.receiveRings.first), sent = try #require(port.transmitRings.first)
    for i in 0..<100 { lab.wire.send(NetmapLab.frame(i)) }
    lab.poll(3)
    port.sync(.receive)
    #expect(lab.read(received, limit: 20) == (0..<20).map { NetmapLab.frame($0) })
    port.sync(.receive)
    // Interface down and up: the driver stops and starts with the stack's pools.
    for i in 0..<5 { check(lab.write(NetmapLab.frame(500 + i), to: sent)) }
    port.sync(.transmit)
    lab.driver.stop()
    #expect(lab.pools[0].available == 512)
    try lab.driver.start(pools: lab.pools)
    for _ in 0..<10 where lab.driver.link.status != .up {
      lab.clock.sleep(nanoseconds: 1_000_000_000)
      _ = lab.driver.serviceControl()
      _ = lab.driver.tick()
    }
    let wakeups = lab.card.krings.transmitWakeup.count
    lab.card.krings.transmitWakeup.arm()
    lab.tenants[0]?.restarted()
    lab.card.krings.transmitWakeup.disarm()
    #expect(lab.card.krings.transmitWakeup.count == wakeups + 1, "sleepers are woken")
    // Its unread frames are where they were, and the ring goes on behind them.
    #expect(lab.read(received).prefix(3) == [NetmapLab.frame(20), NetmapLab.frame(21), NetmapLab.frame(22)])
    port.sync(.receive)
    _ = lab.read(received)
    port.sync(.receive)
    lab.wire.send(NetmapLab.frame(777))
    lab.poll(3)
    port.sync(.receive)
    #expect(lab.read(received).last == NetmapLab.frame(777))
    port.sync(.transmit)
    #expect(sent.space == 63, "what was with the card counts as sent")
    check(lab.write(NetmapLab.frame(888), to: sent))
    port.sync(.transmit)
    lab.poll(2)
    #expect(lab.wire.sent.last?.bytes == NetmapLab.frame(888))
    #expect(port.counters(received.id)?.resets == 0 && port.counters(sent.id)?.resets == 0)
  }

  @Test("A card that leaves wakes its programs with an error; their memory stays until they close")
  func gone() throws {
    let lab = try NetmapLab(.ixgbe)
    let before = (lab.freeBuffers, lab.freeRings)
    let port = try lab.card.open(RingSelection(.nicAndSoftware))
    for i in 0..<20 { lab.wire.send(NetmapLab.frame(i)) }
    lab.poll(2)
    port.sync(.receive)
    lab.driver.stop()
    lab.card.leave()
    #expect(lab.tenants[0] == nil && lab.card.isGone)
    #expect(port.wait(for: .receive, milliseconds: 0).contains(.error))
    #expect(lab.read(port.receiveRings[0]).count == 20, "what was shown can still be read")
    #expect(lab.freeRings < before.1)
    #expect(throws: NetmapError.self) { try lab.card.open(RingSelection(.allNIC)) }
    port.close()
    #expect((lab.freeBuffers, lab.freeRings) == before)
  }
}
