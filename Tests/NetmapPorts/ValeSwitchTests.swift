import NetmapAPI
import NetmapCore
import NetmapPorts
import Testing

@Suite("VALE: forwarding")
struct ValeSwitchTests {
  @Test("What is not known goes to every other port; what is known to one; nothing goes back")
  func learning() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a"), b = try lab.open("vale0:b"), c = try lab.open("vale0:c")
    let first = frame(to: station(2), from: station(1))
    a.send([first])
    #expect(b.receive() == [first] && c.receive() == [first] && a.receive().isEmpty)
    let answer = frame(to: station(1), from: station(2), mark: 1)
    b.send([answer])
    #expect(a.receive() == [answer] && c.receive().isEmpty && b.receive().isEmpty)
    a.send([first])
    #expect(b.receive() == [first] && c.receive().isEmpty)
    // A frame to somebody on the port that it comes from stays there.
    a.send([frame(to: station(1), from: station(9))])
    #expect(a.receive().isEmpty && b.receive().isEmpty && c.receive().isEmpty)
  }

  @Test("A station that moves is found where it was seen last, and comes back when its old port sends again")
  func roaming() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a"), b = try lab.open("vale0:b"), c = try lab.open("vale0:c")
    let question = frame(to: station(1), from: station(7))
    for port in [a, b, a, b] {
      port.send([frame(to: everybody, from: station(1))])
      for each in [a, b, c] { _ = each.receive() }
      c.send([question])
      #expect(port.receive() == [question])
      #expect((port === a ? b : a).receive().isEmpty)
    }
  }

  @Test("A station that was silent too long is unknown; one whose port went too")
  func ageing() throws {
    var options = ValeOptions()
    options.lifetime = 10
    let lab = try ValeLab(options)
    let a = try lab.open("vale0:a"), b = try lab.open("vale0:b"), c = try lab.open("vale0:c")
    let question = frame(to: station(1), from: station(7))
    a.send([frame(to: everybody, from: station(1))])
    _ = (b.receive(), c.receive())
    lab.clock.advance(seconds: 10)
    c.send([question])
    #expect(a.receive().count == 1 && b.receive().isEmpty)
    lab.clock.advance(seconds: 1)
    c.send([question])
    #expect(a.receive().count == 1 && b.receive().count == 1)
    // Seen again, and gone with its port.
    a.send([frame(to: everybody, from: station(1))])
    _ = (b.receive(), c.receive())
    a.close()
    let d = try lab.open("vale0:d")
    c.send([question])
    #expect(b.receive().count == 1 && d.receive().count == 1)
  }

  @Test("NO_LEARN, and addresses of groups as senders, teach nothing")
  func noLearn() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a"), b = try lab.open("vale0:b"), c = try lab.open("vale0:c")
    a.send([frame(to: everybody, from: station(1))], flags: .noLearn)
    a.send([frame(to: everybody, from: [0x03, 0, 0, 0, 0, 1])])
    _ = (b.receive(), c.receive())
    c.send([frame(to: station(1), from: station(7))])
    #expect(a.receive().count == 1 && b.receive().count == 1)
    c.send([frame(to: [0x03, 0, 0, 0, 0, 1], from: station(7))])
    #expect(a.receive().count == 1 && b.receive().count == 1)
  }

  @Test("Frames of one ring stay in order, with and without those for everybody in between")
  func order() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a"), b = try lab.open("vale0:b"), c = try lab.open("vale0:c")
    b.send([frame(to: everybody, from: station(2))])
    c.send([frame(to: everybody, from: station(3))])
    _ = (a.receive(), b.receive(), c.receive())
    let to = (0..<30).map { [station(2), everybody, station(3), station(2)][$0 % 4] }
    let frames = to.enumerated().map { frame(to: $1, from: station(1), mark: UInt8($0)) }
    #expect(a.send(frames) == 30)
    #expect(b.receive() == zip(frames, to).filter { $1 != station(3) }.map(\.0))
    #expect(c.receive() == zip(frames, to).filter { $1 != station(2) }.map(\.0))
  }

  @Test("Every length arrives as it is, and not a byte more of the sender's buffer")
  func lengths() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a"), b = try lab.open("vale0:b")
    let ring = b.receiveRings[0]
    for length in Array(14...132) + [191, 192, 193, 255, 256, 257, 511, 512, 513, 1000, 1499, 1500, 1514, 2047, 2048] {
      // The receiver's buffers have a pattern of their own, the sender's another beyond the frame.
      ring.put([UInt8](repeating: 0xee, count: 2048), at: ring.tail)
      let bytes = Array(frame(to: station(2), from: station(1), length: max(15, length)).prefix(length))
      let out = a.transmitRings[0], at = out.head
      out.put([UInt8](repeating: 0x55, count: 2048), at: at)
      out.put(bytes, at: at)
      out.setHead(out.next(at))
      a.sync(out)
      b.sync(ring)
      let slot = ring.slot(ring.head)
      #expect(Int(slot.length) == length && ring.bytes(slot) == bytes)
      unsafe ring.withBuffer(slot.bufferIndex) { buffer in
        unsafe #expect(buffer[length...].allSatisfy { $0 == 0xee }, "beyond \(length)")
      }
      ring.setHead(ring.next(ring.head))
      b.sync(ring)
    }
    // Shorter than an Ethernet header: no frame.
    for length in [0, 1, 13] { a.send([[UInt8](repeating: 0xff, count: length)]) }
    #expect(b.receive().isEmpty)
    #expect(a.counters(RingID(.transmit, 0))?.drops == 3)
  }

  @Test("A full ring loses what comes, counted at its port; others lose nothing, and nobody waits")
  func full() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a", slots: 64), b = try lab.open("vale0:b", slots: 16), c = try lab.open("vale0:c", slots: 64)
    let frames = (0..<40).map { frame(to: everybody, from: station(1), mark: UInt8($0)) }
    #expect(a.send(frames) == 40)
    #expect(a.transmitRings[0].space == 63, "all are gone")
    #expect(c.receive() == frames)
    #expect(lab.ports.report.first { $0.name == "vale0:b" }?.drops == 25)
    #expect(b.receive() == Array(frames.prefix(15)))
    a.send(frames)
    #expect(b.receive() == Array(frames.prefix(15)))
    let report = try #require(lab.ports.report.first { $0.name == "vale0:b" })
    #expect(report.drops == 50 && report.packets == 30 && report.bytes == 30 * 60)
  }

  @Test("A frame over several slots comes whole or not at all, with its number of fragments")
  func fragments() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a", slots: 256), b = try lab.open("vale0:b", slots: 8), c = try lab.open("vale0:c", slots: 256)
    let whole = frame(to: everybody, from: station(1), length: 5000)
    let parts = [Array(whole[0..<2048]), Array(whole[2048..<4000]), Array(whole[4000...])]
    a.send(fragments: parts)
    for port in [b, c] {
      let slots = port.slots()
      #expect(slots.map(\.bytes) == parts)
      #expect(slots.map { $0.slot.flags.contains(.moreFragments) } == [true, true, false])
      #expect(slots.map { $0.slot.flags.high } == [3, 3, 3])
    }
    // Seven slots hold two frames of three.
    for _ in 0..<3 { a.send(fragments: parts) }
    #expect(b.receive() == parts + parts && c.receive().count == 9)
    // A frame that is not complete waits for its rest.
    let ring = a.transmitRings[0]
    ring.put(parts[0], at: ring.head, flags: .moreFragments)
    ring.advance()
    a.sync(ring)
    #expect(c.receive().isEmpty)
    a.send(fragments: [parts[1]])
    #expect(c.receive() == [parts[0], parts[1]])
    _ = b.receive()
    // 64 are the most.
    let short = (0..<64).map { $0 == 0 ? frame(to: everybody, from: station(1)) : [UInt8($0)] }
    a.send(fragments: short)
    #expect(c.receive() == short)
    a.send(fragments: short + [[64]])
    #expect(c.receive().isEmpty)
    a.send([frame(to: everybody, from: station(1))])
    #expect(c.receive().count == 1)
    #expect(lab.ports.report.first { $0.name == "vale0:b" }?.drops == 2)
  }

  @Test("A frame goes to the ring of its sender's number, modulo; one for everybody to ring 0")
  func rings() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a", rings: 4), b = try lab.open("vale0:b", rings: 2), c = try lab.open("vale0:c")
    b.send([frame(to: everybody, from: station(2))])
    c.send([frame(to: everybody, from: station(3))])
    for ring in 0..<4 { _ = a.receive(ring: ring) }
    _ = (b.receive(), b.receive(ring: 1), c.receive())
    for ring in 0..<4 {
      let one = frame(to: station(2), from: station(1), mark: UInt8(ring)), all = frame(to: everybody, from: station(1), mark: 77)
      a.send([one, all, frame(to: station(3), from: station(1))], ring: ring)
      #expect(b.receive(ring: ring % 2) == (ring % 2 == 0 ? [one, all] : [one]))
      #expect(b.receive(ring: (ring + 1) % 2) == (ring % 2 == 0 ? [] : [all]))
      #expect(c.receive().count == 2)
    }
  }

  @Test("Two switches never mix")
  func twoSwitches() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a"), b = try lab.open("vale0:b")
    let other = try lab.open("vale1:a"), far = try lab.open("vale1:b"), named = try lab.open("vale_x:a")
    a.send([frame(to: everybody, from: station(1))])
    other.send([frame(to: everybody, from: station(1), mark: 9)])
    #expect(b.receive() == [frame(to: everybody, from: station(1))])
    #expect(far.receive() == [frame(to: everybody, from: station(1), mark: 9)])
    far.send([frame(to: station(1), from: station(2))])
    #expect(other.receive().count == 1 && a.receive().isEmpty && b.receive().isEmpty && named.receive().isEmpty)
  }

  @Test("A ring that is not open for receiving takes nothing; ports that come later do")
  func partly() throws {
    let lab = try ValeLab()
    let a = try lab.open("vale0:a", .allNIC, .transmitRingsOnly)
    let b = try lab.open("vale0:b", .allNIC, .receiveRingsOnly)
    let c = try lab.open("vale0:c", .null)
    let one = frame(to: everybody, from: station(1))
    a.send([one])
    #expect(b.receive() == [one] && a.receiveRings.isEmpty && c.rings.isEmpty)
    let more = try lab.open("vale0:a")
    b.close()
    a.send([one])
    #expect(more.receive().isEmpty)
    let d = try lab.open("vale0:d")
    d.send([one])
    #expect(more.receive() == [one])
  }
}
