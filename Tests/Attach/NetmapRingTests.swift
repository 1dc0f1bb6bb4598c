import Ifnet
import NetmapCore
import NetmapPorts
import Packet
import Testing

@testable import Attach

/// Sending and receiving through the card's rings, on every kind of card.
@Suite struct NetmapRingTests {
  @Test("What the program sends leaves the card, in order, over many rounds", arguments: NetmapModel.allCases)
  func transmit(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    let port = try lab.card.open(RingSelection(.allNIC))
    let ring = try #require(port.transmitRings.first)
    #expect(ring.space == 63, "a fresh ring: everything but one slot")
    let buffers = (0..<64).map { ring.slot($0).bufferIndex }
    var sent: [[UInt8]] = []
    for round in 0..<60 {
      for _ in 0..<(round % 64) {
        let frame = NetmapLab.frame(sent.count, count: 60 + sent.count % 1400)
        guard lab.write(frame, to: ring) else { break }
        sent.append(frame)
      }
      port.sync(.transmit)
      lab.poll(2)
      port.sync(.transmit)
    }
    lab.poll(4)
    port.sync(.transmit)
    #expect(sent.count > 1000)
    #expect(lab.wire.sent.map(\.bytes) == sent)
    #expect(ring.space == 63, "every slot is the program's again")
    #expect((0..<64).map { ring.slot($0).bufferIndex } == buffers, "a slot keeps its buffer")
    #expect(port.counters(ring.id)?.packets == UInt64(sent.count) && port.counters(ring.id)?.resets == 0)
  }

  @Test("A slot's contents stay as they are until the program gets it back", arguments: NetmapModel.allCases)
  func contents(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    let port = try lab.card.open(RingSelection(.allNIC))
    let ring = try #require(port.transmitRings.first)
    let frame = NetmapLab.frame(7, count: 200)
    // Filled once; afterwards only head moves, for several turns of the ring.
    for i in 0..<64 {
      var slot = ring.slot(UInt32(i))
      unsafe ring.withBuffer(slot.bufferIndex) { unsafe $0.copyBytes(from: frame) }
      slot.length = 200
      ring.setSlot(UInt32(i), slot)
    }
    var count = 0
    for _ in 0..<20 {
      let n = Int(ring.space)
      count += n
      for _ in 0..<n { ring.advance() }
      port.sync(.transmit)
      lab.poll(2)
      port.sync(.transmit)
    }
    lab.poll(4)
    #expect(count > 300 && lab.wire.sent.count == count && lab.wire.sent.allSatisfy { $0.bytes == frame })
  }

  @Test("What the card receives is in the ring, in order, and buffers travel", arguments: NetmapModel.allCases)
  func receive(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    let port = try lab.card.open(RingSelection(.allNIC))
    let ring = try #require(port.receiveRings.first)
    var expected = 0, got = 0
    var buffers: Set<UInt32> = []
    for round in 0..<60 {
      for _ in 0..<(round % 50) {
        lab.wire.send(NetmapLab.frame(expected, count: 60 + expected % 1400))
        expected += 1
      }
      lab.poll(2)
      port.sync(.receive)
      var i = ring.head
      while i != ring.tail {
        buffers.insert(ring.slot(i).bufferIndex)
        i = ring.next(i)
      }
      for frame in lab.read(ring) {
        #expect(frame == NetmapLab.frame(got, count: 60 + got % 1400))
        got += 1
      }
      port.sync(.receive)
    }
    #expect(expected > 1000 && got == expected)
    #expect(lab.stack.frames.isEmpty)
    #expect(buffers.count > 64, "more buffers than slots: they come from the card, not by copying")
    #expect(port.counters(ring.id)?.resets == 0 && port.counters(ring.id)?.badIndexes == 0)
  }

  @Test("A bridge between two rings moves packets by swapping indexes", arguments: NetmapModel.allCases)
  func zeroCopy(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    let before = lab.freeBuffers
    let port = try lab.card.open(RingSelection(.allNIC))
    let received = try #require(port.receiveRings.first), sent = try #require(port.transmitRings.first)
    var number = 0
    for _ in 0..<40 {
      for _ in 0..<20 {
        lab.wire.send(NetmapLab.frame(number))
        number += 1
      }
      lab.poll()
      port.sync(.receive)
      while !received.isEmpty, sent.space > 0 {
        let from = received.slot(received.head), to = sent.slot(sent.head)
        sent.setSlot(sent.head, NetmapSlot(bufferIndex: from.bufferIndex, length: from.length, flags: .bufferChanged))
        received.setSlot(received.head, NetmapSlot(bufferIndex: to.bufferIndex, length: 0, flags: .bufferChanged))
        sent.advance()
        received.advance()
      }
      port.sync(.transmit)
      port.sync(.receive)
      lab.poll()
    }
    lab.poll(4)
    port.sync(.transmit)
    #expect(lab.wire.sent.map(\.bytes) == (0..<number).map { NetmapLab.frame($0) })
    #expect(port.counters(received.id)?.resets == 0 && port.counters(sent.id)?.resets == 0)
    port.close()
    lab.driver.stop()
    lab.poll()
    #expect(lab.freeBuffers == before)
  }

  @Test("One buffer in several slots is sent as often", arguments: NetmapModel.allCases)
  func fanOut(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    let port = try lab.card.open(RingSelection(.allNIC))
    let ring = try #require(port.transmitRings.first)
    let index = ring.slot(0).bufferIndex
    unsafe ring.withBuffer(index) { unsafe $0.copyBytes(from: NetmapLab.frame(1)) }
    for _ in 0..<10 {
      ring.setSlot(ring.head, NetmapSlot(bufferIndex: index, length: 60, flags: .bufferChanged))
      ring.advance()
    }
    port.sync(.transmit)
    lab.poll(3)
    port.sync(.transmit)
    #expect(lab.wire.sent.map(\.bytes) == Array(repeating: NetmapLab.frame(1), count: 10) && ring.space == 63)
  }

  @Test("Frames over several slots, both ways", arguments: [NetmapModel.e1000e, .ixgbe, .virtio])
  func fragments(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind, mtu: 9000)
    let port = try lab.card.open(RingSelection(.allNIC))
    let sent = try #require(port.transmitRings.first), received = try #require(port.receiveRings.first)
    var frames: [[UInt8]] = []
    for (i, (size, piece)) in [(300, 100), (4000, 2000), (60, 30), (1500, 1500), (9000, 2048), (700, 64)].enumerated() {
      let frame = NetmapLab.frame(i, count: size)
      #expect(lab.write(frame, to: sent, piece: piece))
      frames.append(frame)
    }
    port.sync(.transmit)
    lab.poll(4)
    port.sync(.transmit)
    #expect(lab.wire.sent.map(\.bytes) == frames && sent.space == 63)
    // The last slot of a frame comes in another sync than the first.
    var slot = sent.slot(sent.head)
    unsafe sent.withBuffer(slot.bufferIndex) { unsafe $0.copyBytes(from: frames[0].prefix(100)) }
    slot.length = 100
    slot.flags = .moreFragments
    sent.setSlot(sent.head, slot)
    sent.advance()
    port.sync(.transmit)
    lab.poll(2)
    #expect(lab.wire.takeSent().count == frames.count, "an unfinished frame waits")
    slot = sent.slot(sent.head)
    unsafe sent.withBuffer(slot.bufferIndex) { unsafe $0.copyBytes(from: frames[0].suffix(200)) }
    slot.length = 200
    slot.flags = []
    sent.setSlot(sent.head, slot)
    sent.advance()
    port.sync(.transmit)
    lab.poll(2)
    #expect(lab.wire.takeSent().map(\.bytes) == [frames[0]])
    for frame in frames { lab.wire.send(frame) }
    lab.poll(4)
    port.sync(.receive)
    #expect(lab.read(received) == frames)
  }

  @Test("A frame that never ends does not fill the ring for ever")
  func endless() throws {
    let lab = try NetmapLab(.ixgbe)
    let port = try lab.card.open(RingSelection(.allNIC))
    let ring = try #require(port.transmitRings.first)
    for _ in 0..<63 {
      var slot = ring.slot(ring.head)
      slot.length = 10
      slot.flags = .moreFragments
      ring.setSlot(ring.head, slot)
      ring.advance()
    }
    port.sync(.transmit)
    #expect(ring.space == 63 && port.counters(ring.id)?.drops == 1 && lab.wire.sent.isEmpty)
    // Slots keep their marks until the program sets them anew, as a program always does.
    #expect(lab.write(NetmapLab.frame(5), to: ring))
    port.sync(.transmit)
    lab.poll(2)
    #expect(lab.wire.sent.map(\.bytes) == [NetmapLab.frame(5)])
  }

  @Test("A tag that the card took out is back in the frame that the program sees", arguments: [NetmapModel.e1000e, .ixgbe])
  func tags(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind, strip: true)
    let port = try lab.card.open(RingSelection(.allNIC))
    let ring = try #require(port.receiveRings.first)
    let plain = NetmapLab.frame(3, count: 100)
    let tagged = Array(plain[0..<12]) + [0x81, 0x00, 0x60, 0x05] + Array(plain[12...])
    // More than the stack had posted, so that both copied and traded frames are seen.
    for round in 0..<3 {
      for _ in 0..<40 { lab.wire.send(tagged) }
      lab.poll(2)
      port.sync(.receive)
      let frames = lab.read(ring)
      #expect(frames.count == 40 && frames.allSatisfy { $0 == tagged }, "round \(round)")
      port.sync(.receive)
    }
  }

  @Test("A ring that is full leaves frames with the card, and loses none that fit later")
  func full() throws {
    let lab = try NetmapLab(.ixgbe)
    let port = try lab.card.open(RingSelection(.allNIC))
    let ring = try #require(port.receiveRings.first)
    for i in 0..<100 { lab.wire.send(NetmapLab.frame(i)) }
    lab.poll(4)
    port.sync(.receive)
    var got = lab.read(ring)
    #expect(got.count == 63)
    port.sync(.receive)
    lab.poll(2)
    port.sync(.receive)
    got += lab.read(ring)
    #expect(got == (0..<100).map { NetmapLab.frame($0) })
  }

  @Test("The receive stamp is set at a sync, unless that is switched off and nobody asks")
  func stamps() throws {
    let lab = try NetmapLab(.ixgbe)
    let port = try lab.card.open(RingSelection(.allNIC))
    let kring = try #require(port.receiveRings.first)
    func stamp() -> UInt64 { unsafe kring.ring.base.load(fromByteOffset: 40, as: UInt64.self) }
    lab.card.settings.noTimestamp = true
    port.sync(.receive)
    #expect(stamp() == 0)
    kring.ring.storeFlags(.timestamp)
    port.sync(.receive)
    #expect(stamp() > 1_600_000_000)
  }
}
