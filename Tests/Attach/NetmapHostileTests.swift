import ModelKit
import NetmapCore
import NetmapPorts
import Packet
import Testing

@testable import Attach

/// Programs that write what they like.
@Suite struct NetmapHostileTests {
  @Test("Indexes that are not the program's are never sent, and cost it the ring's contents alone", arguments: NetmapModel.allCases)
  func indexes(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    let port = try lab.card.open(RingSelection(.allNIC))
    let ring = try #require(port.transmitRings.first)
    let strangers = try lab.allocator.allocateBuffers(1)[0]
    for bad in [0, 1, UInt32(lab.allocator.bufferCount), .max, strangers] {
      check(lab.write(NetmapLab.frame(1), to: ring))
      let at = ring.head, own = ring.slot(at).bufferIndex
      ring.setSlot(at, NetmapSlot(bufferIndex: bad, length: 60, flags: .bufferChanged))
      ring.advance()
      check(lab.write(NetmapLab.frame(2), to: ring))
      port.sync(.transmit)
      lab.poll(2)
      #expect(lab.wire.takeSent().map(\.bytes) == [NetmapLab.frame(1)], "what came before goes, the rest is lost")
      #expect(ring.slot(at).bufferIndex == 0)
      port.sync(.transmit)
      #expect(ring.space == 63)
      // A program that puts its buffer back is as good as new.
      ring.setSlot(at, NetmapSlot(bufferIndex: own, length: 60, flags: .bufferChanged))
    }
    #expect(port.counters(ring.id)?.resets == 5)
  }

  @Test("A length beyond the buffer is never sent; the slot keeps its buffer")
  func lengths() throws {
    let lab = try NetmapLab(.ixgbe)
    let port = try lab.card.open(RingSelection(.allNIC))
    let ring = try #require(port.transmitRings.first)
    let index = ring.slot(0).bufferIndex
    ring.setSlot(0, NetmapSlot(bufferIndex: index, length: 2049))
    ring.advance()
    port.sync(.transmit)
    lab.poll(2)
    #expect(lab.wire.sent.isEmpty && ring.slot(0) == NetmapSlot(bufferIndex: index, length: 0))
    #expect(port.counters(ring.id)?.badLengths == 1 && port.counters(ring.id)?.resets == 1)
    // Nothing, too short, and longer than the port allows: refused by the driver, and the slots come back.
    for length: UInt16 in [0, 5, 2048] {
      var slot = ring.slot(ring.head)
      slot.length = length
      ring.setSlot(ring.head, slot)
      ring.advance()
    }
    port.sync(.transmit)
    lab.poll(2)
    port.sync(.transmit)
    #expect(ring.space == 63 && lab.wire.sent.allSatisfy { $0.bytes.count <= 1518 })
  }

  @Test("Anything in any slot, head and cur: nobody else notices, and nothing leaks", arguments: NetmapModel.allCases, [1, 2, 3] as [UInt64])
  func fuzz(kind: NetmapModel, seed: UInt64) throws {
    let lab = try NetmapLab(kind)
    let before = lab.freeBuffers
    let strangers = try lab.allocator.allocateBuffers(16)
    for index in strangers { _ = unsafe lab.allocator.pointer(ofBuffer: index).initializeMemory(as: UInt8.self, repeating: 0x77, count: 2048) }
    var random = SeededGenerator(seed: seed), sent = 0
    for round in 0..<6 {
      let port = try lab.card.open(RingSelection(.nicAndSoftware))
      let rings = port.rings
      for _ in 0..<150 {
        let ring = rings[Int(random.next() % UInt64(rings.count))]
        switch random.next() % 8 {
        case 0: ring.ring.storeHead(UInt32(random.next() % 70))
        case 1: ring.ring.storeCur(UInt32(truncatingIfNeeded: random.next()))
        case 2: ring.ring.storeTail(UInt32(random.next() % 70))
        case 3, 4:
          let choice = random.next() % 4
          let index = choice == 0 ? UInt32(truncatingIfNeeded: random.next()) : choice == 1
            ? strangers[Int(random.next() % 16)] : UInt32(random.next() % UInt64(lab.allocator.bufferCount))
          ring.setSlot(
            UInt32(random.next() % 64),
            NetmapSlot(
              bufferIndex: index, length: UInt16(truncatingIfNeeded: random.next()),
              flags: SlotFlags(rawValue: UInt16(truncatingIfNeeded: random.next()))))
        case 5:
          lab.wire.send(NetmapLab.frame(sent))
          _ = lab.stackSends(NetmapLab.frame(sent))
          sent += 1
        default:
          for _ in 0..<(random.next() % 8) where !ring.isEmpty { ring.advance() }
        }
        port.sync(random.next() % 2 == 0 ? .transmit : .receive)
        lab.poll()
      }
      if round % 2 == 0 { lab.poll(3) }
      port.close()
    }
    lab.driver.stop()
    lab.poll()
    for index in strangers {
      let bytes = unsafe UnsafeRawBufferPointer(start: lab.allocator.pointer(ofBuffer: index), count: 2048)
      #expect(unsafe bytes.allSatisfy { $0 == 0x77 }, "a stranger's buffer was written")
    }
    #expect(lab.wire.sent.allSatisfy { frame in !frame.bytes.starts(with: [0x77, 0x77, 0x77]) }, "a stranger's bytes were sent")
    lab.allocator.freeBuffers(strangers)
    #expect(lab.freeBuffers == before && lab.tenants[0] == nil && lab.pools[0].available == 512)
  }
}
