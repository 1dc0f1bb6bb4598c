import Ifnet
import NetmapCore
import NetmapPorts
import Packet
import Testing

@testable import Attach

/// Host rings: the stack on one side, a program on the other.
@Suite struct NetmapHostTests {
  @Test("What the stack sends comes out of the host ring, not of the card", arguments: NetmapModel.allCases)
  func fromStack(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    let port = try lab.card.open(RingSelection(.nicAndSoftware))
    let ring = try #require(port.hostReceiveRings.first)
    var number = 0, got: [[UInt8]] = []
    for round in 0..<20 {
      for _ in 0..<round {
        check(lab.stackSends(NetmapLab.frame(number, count: 60 + number)))
        number += 1
      }
      lab.netisr.settle()
      port.sync(.receive)
      got += lab.read(ring)
      port.sync(.receive)
    }
    #expect(got == (0..<number).map { NetmapLab.frame($0, count: 60 + $0) } && number == 190)
    #expect(lab.wire.sent.isEmpty && lab.pools[0].available == 512 - NetmapLab.descriptors)
  }

  @Test("What the program puts on the host ring goes up the stack, in order")
  func toStack() throws {
    let lab = try NetmapLab(.ixgbe)
    let port = try lab.card.open(RingSelection(.software))
    let ring = try #require(port.hostTransmitRings.first)
    var number = 0
    for round in 0..<30 {
      for _ in 0..<(round * 3 % 63) {
        check(lab.write(NetmapLab.frame(number, count: 14 + number % 1500), to: ring))
        number += 1
      }
      port.sync(.transmit)
      #expect(ring.space == 63, "the ring always drains")
    }
    #expect(lab.stack.frames == (0..<number).map { NetmapLab.frame($0, count: 14 + $0 % 1500) } && number > 500)
    #expect(lab.interface.counters.ipackets == UInt64(number))
    #expect(lab.pools[0].available == 512 - NetmapLab.descriptors)
  }

  @Test("Slots shorter than 14 bytes or longer than a buffer are skipped and counted")
  func badLengths() throws {
    let lab = try NetmapLab(.ixgbe)
    let port = try lab.card.open(RingSelection(.software))
    let ring = try #require(port.hostTransmitRings.first)
    for length: UInt16 in [0, 13, 2049, .max, 14, 60] {
      var slot = ring.slot(ring.head)
      slot.length = length
      ring.setSlot(ring.head, slot)
      ring.advance()
    }
    port.sync(.transmit)
    #expect(lab.stack.frames.map(\.count) == [14, 60] && ring.space == 63)
    #expect(port.counters(ring.id)?.badLengths == 4 && port.counters(ring.id)?.drops == 4)
  }

  @Test("A host ring that is full drops, a frame too long for a buffer too; every packet is freed")
  func fullHost() throws {
    let lab = try NetmapLab(.ixgbe)
    let port = try lab.card.open(RingSelection(.nicAndSoftware))
    let ring = try #require(port.hostReceiveRings.first)
    for i in 0..<100 { _ = lab.stackSends(NetmapLab.frame(i)) }
    lab.netisr.settle()
    #expect(lab.drops(.hostRingFull) == 37 && port.counters(ring.id)?.drops == 37)
    port.sync(.receive)
    #expect(lab.read(ring) == (0..<63).map { NetmapLab.frame($0) })
    port.sync(.receive)
    // Over two buffers: longer than any slot.
    let long = lab.owner(ofQueue: 0).perform { () -> Bool in
      guard let head = lab.pools[0].allocate(), head.fill(with: NetmapLab.frame(1, count: 2000)),
        let rest = lab.pools[0].allocate(), rest.fill(with: NetmapLab.frame(2, count: 1000))
      else { return false }
      head.append(rest)
      return lab.interface.subqueues[0].send(head)
    }
    lab.netisr.settle()
    #expect(long && lab.drops(.tooLong) == 1)
    #expect(lab.pools[0].available == 512 - NetmapLab.descriptors)
    port.close()
    #expect(lab.drops(.modeChange) == 0)
  }

  @Test("Frames of the stack's that nobody has seen when the program goes are counted")
  func unseen() throws {
    let lab = try NetmapLab(.ixgbe)
    let port = try lab.card.open(RingSelection(.nicAndSoftware))
    for i in 0..<10 { check(lab.stackSends(NetmapLab.frame(i))) }
    lab.netisr.settle()
    port.sync(.receive)
    for i in 0..<7 { check(lab.stackSends(NetmapLab.frame(i))) }
    lab.netisr.settle()
    port.close()
    #expect(lab.drops(.modeChange) == 7)
    #expect(lab.netisr.drops.snapshot().allSatisfy { $0.interface == lab.interface.index })
  }

  @Test("What a card would have finished is finished: checksums, and a VLAN tag")
  func offloads() throws {
    let lab = try NetmapLab(.ixgbe)
    let port = try lab.card.open(RingSelection(.nicAndSoftware))
    let ring = try #require(port.hostReceiveRings.first)
    var frame: [UInt8] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0]
    frame += [198, 18, 0, 1, 198, 18, 0, 2, 0x30, 0x39, 0, 80, 0, 12, 0, 0, 1, 2, 3, 4]
    // The pseudo header: both addresses, 17, the length 12.
    let pseudo: UInt32 = [0xc612, 0x0001, 0xc612, 0x0002, 17, 12].reduce(0, +)
    let seed = UInt16(truncatingIfNeeded: (pseudo & 0xffff) + pseudo >> 16)
    frame[40] = UInt8(seed >> 8)
    frame[41] = UInt8(seed & 255)
    let sent = frame
    let isSent = lab.owner(ofQueue: 0).perform { () -> Bool in
      guard let packet = lab.pools[0].allocate(), packet.fill(with: sent) else { return false }
      packet.flags = [.ipChecksum, .udpChecksum, .vlan]
      packet.vlan = 0x6005
      packet.setHeaderLengths(link: 14, network: 20)
      return lab.interface.subqueues[0].send(packet)
    }
    lab.netisr.settle()
    port.sync(.receive)
    let got = try #require(lab.read(ring).first)
    #expect(isSent && got.count == frame.count + 4)
    #expect(Array(got[12..<16]) == [0x81, 0, 0x60, 0x05])
    let plain = Array(got[0..<12]) + Array(got[16...])
    func sum(_ bytes: ArraySlice<UInt8>, _ start: UInt32 = 0) -> UInt32 {
      var total = start
      for i in stride(from: bytes.startIndex, to: bytes.endIndex, by: 2) {
        total += UInt32(bytes[i]) << 8 | UInt32(i + 1 < bytes.endIndex ? bytes[i + 1] : 0)
      }
      while total > 0xffff { total = (total & 0xffff) + total >> 16 }
      return total
    }
    #expect(sum(plain[14..<34]) == 0xffff, "the IPv4 header's sum")
    #expect(sum(plain[34...], pseudo) == 0xffff, "the UDP sum over pseudo header and datagram")
  }

  @Test("Transparent mode: marked slots of the card's ring go up the stack, others do not")
  func forward() throws {
    let lab = try NetmapLab(.ixgbe)
    let port = try lab.card.open(RingSelection(.nicAndSoftware))
    let ring = try #require(port.receiveRings.first)
    for i in 0..<10 { lab.wire.send(NetmapLab.frame(i)) }
    lab.poll(2)
    port.sync(.receive)
    for i in 0..<10 where i % 2 == 0 {
      var slot = ring.slot(UInt32(i))
      slot.flags.insert(.forward)
      ring.setSlot(UInt32(i), slot)
    }
    _ = lab.read(ring, limit: 5)
    port.sync(.receive)
    #expect(lab.stack.frames.isEmpty, "the ring's own flag is off")
    ring.ring.storeFlags(.forward)
    _ = lab.read(ring)
    port.sync(.receive)
    #expect(lab.stack.frames == [6, 8].map { NetmapLab.frame($0) })
  }

  @Test("Transparent mode downwards: marked slots of the host ring leave by the card, with their buffers", arguments: NetmapModel.allCases)
  func forwardDown(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    let before = lab.freeBuffers
    let port = try lab.card.open(RingSelection(.nicAndSoftware))
    let ring = try #require(port.hostReceiveRings.first)
    func mark(_ which: (Int) -> Bool) {
      var i = ring.head, n = 0
      while i != ring.tail {
        var slot = ring.slot(i)
        if which(n) { slot.flags.insert(.forward) }
        ring.setSlot(i, slot)
        i = ring.next(i)
        n += 1
      }
    }
    for i in 0..<10 { check(lab.stackSends(NetmapLab.frame(i))) }
    lab.netisr.settle()
    port.sync(.receive)
    mark { _ in true }
    _ = lab.read(ring, limit: 5)
    port.sync(.receive)
    lab.poll(2)
    #expect(lab.wire.sent.isEmpty, "the ring's own flag is off")
    ring.ring.storeFlags(.forward)
    mark { $0 % 2 == 0 }
    // Slots 5 to 9, of which the earlier marks still hold; the second and the fourth are unmarked here.
    for n in [1, 3] {
      var slot = ring.slot(ring.head + UInt32(n))
      slot.flags.remove(.forward)
      ring.setSlot(ring.head + UInt32(n), slot)
    }
    let indexes = (0..<5).map { ring.slot(ring.head + UInt32($0)).bufferIndex }
    _ = lab.read(ring)
    port.sync(.receive)
    let sent = try #require(port.transmitRings.first)
    #expect(sent.head == 3 && (0..<3).map { sent.slot(UInt32($0)).bufferIndex } == [indexes[0], indexes[2], indexes[4]])
    lab.poll(3)
    #expect(lab.wire.sent.map(\.bytes) == [5, 7, 9].map { NetmapLab.frame($0) })
    // More than the card's ring has room for: the rest is lost and counted, and nothing is stuck.
    for i in 0..<63 { check(lab.stackSends(NetmapLab.frame(100 + i))) }
    lab.netisr.settle()
    port.sync(.receive)
    for _ in 0..<20 { check(lab.write(NetmapLab.frame(500), to: sent)) }
    mark { _ in true }
    _ = lab.read(ring)
    port.sync(.receive)
    lab.poll(4)
    let drops = Int(port.counters(ring.id)?.drops ?? 0)
    #expect(drops > 0 && lab.wire.sent.count == 3 + 20 + 63 - drops)
    port.close()
    lab.driver.stop()
    lab.poll()
    #expect(lab.freeBuffers == before)
  }

  @Test("Transparent mode upwards joins the slots of a frame")
  func forwardFragments() throws {
    let lab = try NetmapLab(.ixgbe, mtu: 9000)
    let port = try lab.card.open(RingSelection(.nicAndSoftware))
    let ring = try #require(port.receiveRings.first)
    ring.ring.storeFlags(.forward)
    lab.wire.send(NetmapLab.frame(1, count: 5000))
    lab.wire.send(NetmapLab.frame(2, count: 60))
    lab.poll(2)
    port.sync(.receive)
    let before = lab.pools[0].available
    #expect(ring.space == 4)
    for i in 0..<4 {
      var slot = ring.slot(UInt32(i))
      slot.flags.insert(.forward)
      ring.setSlot(UInt32(i), slot)
    }
    _ = lab.read(ring)
    port.sync(.receive)
    #expect(lab.stack.frames == [NetmapLab.frame(1, count: 5000), NetmapLab.frame(2, count: 60)])
    #expect(lab.pools[0].available == before)
  }

  @Test("Several pairs of host rings on request, one again when the port has been closed")
  func pairs() throws {
    let lab = try NetmapLab(.ixgbe, queues: 2, workers: 2)
    lab.card.setHostRings(transmit: 2, receive: 3)
    #expect(lab.card.counts == RingCounts(transmit: 2, receive: 2, hostTransmit: 2, hostReceive: 3))
    let port = try lab.card.open(RingSelection(.nicAndSoftware))
    #expect(port.hostTransmitRings.count == 2 && port.hostReceiveRings.count == 3)
    lab.card.setHostRings(transmit: 9, receive: 9)
    #expect(lab.card.counts.hostReceive == 3, "not while it is open")
    // Each queue of the interface has the pair of its number.
    for queue in 0..<2 { check(lab.stackSends(NetmapLab.frame(queue), queue: queue)) }
    lab.netisr.settle()
    port.sync(.receive)
    for queue in 0..<2 { #expect(lab.read(port.hostReceiveRings[queue]) == [NetmapLab.frame(queue)]) }
    for (n, ring) in port.hostTransmitRings.enumerated() { check(lab.write(NetmapLab.frame(10 + n), to: ring)) }
    port.sync(.transmit)
    #expect(lab.stack.frames == [NetmapLab.frame(10), NetmapLab.frame(11)])
    let one = try lab.card.open(RingSelection(.oneSoftware(2)))
    #expect(one.rings.map(\.id) == [RingID(.receive, 2, isHost: true)], "there are three to receive, two to send")
    one.close()
    port.close()
    #expect(lab.card.counts.hostTransmit == 1 && lab.card.counts.hostReceive == 1)
    lab.card.setHostRings(transmit: 1000, receive: 0)
    #expect(lab.card.counts.hostTransmit == NetmapCard.mostHostRings)
  }

  @Test("Waiting: ready at once, asleep until something comes, an error for a broken ring")
  func waiting() throws {
    let lab = try NetmapLab(.ixgbe)
    let port = try lab.card.open(RingSelection(.nicAndSoftware))
    #expect(port.wait(for: .receive, milliseconds: 0) == [])
    #expect(port.wait(for: [.receive, .transmit], milliseconds: 0) == .transmit)
    lab.wire.send(NetmapLab.frame(1))
    lab.function.settle()
    #expect(port.wait(for: .receive, milliseconds: 0) == .receive, "a wait syncs by itself")
    // Every wait transmits what is pending, whatever it waits for.
    check(lab.write(NetmapLab.frame(2), to: port.transmitRings[0]))
    _ = port.wait(for: [], milliseconds: 0)
    lab.poll()
    #expect(lab.wire.sent.map(\.bytes) == [NetmapLab.frame(2)])
    port.receiveRings[0].ring.storeHead(63)
    #expect(port.wait(for: .receive, milliseconds: 0).contains(.error))
    #expect(!port.wait(for: .receive, milliseconds: 0).contains(.error), "the reset ring is good again")
    let quiet = try lab.card.open(RingSelection(.oneNIC(0), flags: .noTransmitPoll))
    check(lab.write(NetmapLab.frame(3), to: quiet.transmitRings[0]))
    _ = quiet.wait(for: .receive, milliseconds: 0)
    lab.poll()
    #expect(lab.wire.sent.count == 1, "NR_NO_TX_POLL")
  }
}
