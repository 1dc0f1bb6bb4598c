// The transmit side of the 82599 model: descriptors, offloads, what reaches the wire.

import ModelKit
import Testing

@testable import Models

/// Rings, offloads, reports, loopback and errors of the sending half.
@Suite struct Intel82599TransmitTests {
  let a: [UInt8] = [198, 18, 0, 1], b: [UInt8] = [198, 18, 0, 2]

  @Test func framesLeaveAndAreReported() throws {
    let rig = try Rig599()
    rig.startTransmit(3)
    let frames = [60, 200, 1514].map { Frame599.plain($0) }
    for frame in frames { rig.queueFrame(3, [frame]) }
    rig.queueFrame(3, [Array(frames[1][0..<50]), Array(frames[1][50..<60]), Array(frames[1][60...])])
    #expect(rig.wire.sent.isEmpty)
    rig.ring(3)
    #expect(rig.wire.takeSent() == (frames + [frames[1]]).map { TestWire.Sent(bytes: $0, queue: 3) })
    #expect((0..<6).map { rig.isDone(3, $0) } == [true, true, true, false, false, true])
    #expect(rig.read(0x60d0) == 6 && rig.read(0x4080) == 4 && rig.model.bus.complaints.isEmpty)
    #expect(rig.read(0x6030) == 4 && rig.read(0x8680) == 0, "both names of one counter")
    #expect(rig.read(0x8700) == UInt32(frames.reduce(0) { $0 + $1.count } + 200))
  }

  /// A buffer that two mappings hold together is one to the card.
  @Test func buffersMaySpanMappings() throws {
    let rig = try Rig599()
    rig.startTransmit(0)
    let edge = Rig599.start + UInt64(Rig599.size)
    let more = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    unsafe more.initializeMemory(as: UInt8.self, repeating: 7, count: 4096)
    defer { unsafe more.deallocate() }
    check599(unsafe rig.model.bus.memory.map(edge, count: 4096, unsafe: more))
    rig.put(Frame599.plain(50), at: edge - 50)
    rig.setDescriptor(0, [UInt32(edge - 50), 0, 100 | 0x2b << 24 | 3 << 20, 100 << 14])
    rig.ring(0)
    #expect(rig.wire.takeSent().map(\.bytes) == [Frame599.plain(50) + [UInt8](repeating: 7, count: 50)])
    #expect(rig.model.bus.memory.faults == 0 && rig.model.dmaErrors == 0)
  }

  @Test func ringsWrap() throws {
    let rig = try Rig599()
    rig.startTransmit(0, count: 8)
    for round in 0..<20 {
      for i in 0..<5 { rig.queueFrame(0, [Frame599.plain(64, seed: UInt8(round * 5 + i))]) }
      rig.ring(0)
    }
    #expect(rig.wire.sent.map { $0.bytes[14] } == (0..<100).map { UInt8($0) })
  }

  @Test func shortFramesArePadded() throws {
    let rig = try Rig599()
    rig.startTransmit(0)
    rig.queueFrame(0, [Frame599.plain(30)])
    rig.ring(0)
    #expect(rig.wire.takeSent().map(\.bytes) == [Frame599.plain(30) + [UInt8](repeating: 0, count: 30)])
    rig.write(rig.read(0x4240) & ~0x400, 0x4240)
    rig.queueFrame(0, [Frame599.plain(30)])
    rig.ring(0)
    #expect(rig.wire.takeSent().map(\.bytes.count) == [30])
  }

  @Test func nothingLeavesWithoutEnables() throws {
    let rig = try Rig599()
    rig.startTransmit(0)
    rig.write(0, 0x4a80)
    rig.queueFrame(0, [Frame599.plain(60)])
    rig.ring(0)
    #expect(rig.wire.sent.isEmpty)
    rig.write(1, 0x4a80)
    rig.model.setLink(up: false)
    rig.card.settle()
    #expect(rig.wire.sent.isEmpty)
    rig.model.setLink(up: true)
    rig.card.settle()
    #expect(rig.wire.sent.count == 1)
  }

  @Test func headIsWrittenBack() throws {
    let rig = try Rig599()
    let place = rig.allocate(64)
    rig.write(UInt32(place) | 1, 0x6038)
    rig.startTransmit(0)
    for _ in 0..<3 { rig.queueFrame(0, [Frame599.plain(60)]) }
    rig.ring(0)
    #expect(rig.word(place) == 3 && !rig.isDone(0, 2))
    rig.model.inject(.wrongCompletion(5000, count: 1))
    rig.queueFrame(0, [Frame599.plain(60)])
    rig.ring(0)
    #expect(rig.word(place) == 5000)
  }

  /// The pseudo header's sum, without length when `length` is nil.
  private func seed(_ transport: UInt8, length: Int?) -> [UInt8] {
    Frame599.pair(Int(Frame599.sum(a + b + [0, transport] + Frame599.pair(length ?? 0))))
  }

  @Test func checksumsAreInserted() throws {
    for (transport, kind, size, field) in [(6, 1, 20, 16), (17, 0, 8, 6)] as [(UInt8, UInt32, Int, Int)] {
      let rig = try Rig599()
      rig.startTransmit(0)
      let right = Frame599.ip4(a, b, ports: (7, 8), transport: transport, data: 33)
      var frame = right
      frame.replaceSubrange(24..<26, with: [0, 0])
      frame.replaceSubrange(34 + field..<36 + field, with: seed(transport, length: size + 33))
      rig.queueContext(0, transport: kind, transportLength: size, index: 1)
      rig.queueFrame(0, [frame], status: 3 << 8 | 1 << 4)
      rig.ring(0)
      #expect(rig.wire.takeSent().map(\.bytes) == [right] && rig.model.bus.complaints.isEmpty)
      #expect(!rig.isDone(0, 0) && rig.isDone(0, 1))
    }
  }

  @Test func controlTransmissionChecksum() throws {
    let rig = try Rig599()
    rig.startTransmit(0)
    let packet: [UInt8] = [0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0] + (0..<20).map { UInt8($0) }
    let header: [UInt8] = [0x45, 0] + Frame599.pair(52) + [0, 1, 0, 0, 64, 132, 0, 0] + a + b
    let frame = Frame599.own + Frame599.peer + [8, 0] + header + packet
    rig.queueContext(0, transport: 2, transportLength: 12)
    rig.queueFrame(0, [frame], status: 2 << 8)
    rig.ring(0)
    var crc = UInt32.max
    for byte in packet {
      crc ^= UInt32(byte)
      for _ in 0..<8 { crc = crc & 1 != 0 ? crc >> 1 ^ 0x82f6_3b78 : crc >> 1 }
    }
    let value = ~crc
    let wanted = (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
    #expect(rig.wire.takeSent().map { Array($0.bytes[42..<46]) } == [wanted])
  }

  @Test func tagsAreInserted() throws {
    let rig = try Rig599()
    rig.startTransmit(0)
    rig.queueContext(0, tag: 0xa123)
    rig.queueFrame(0, [Frame599.plain(100)], options: 1 << 30)
    rig.queueFrame(0, [Frame599.plain(100)])
    rig.ring(0)
    #expect(rig.wire.takeSent().map(\.bytes) == [Frame599.tagged(Frame599.plain(100), 0xa123), Frame599.plain(100)])
  }

  @Test func largeFramesAreCut() throws {
    let rig = try Rig599()
    rig.startTransmit(0)
    let data = 3000, mss = 1460
    var frame = Frame599.ip4(a, b, ports: (7, 8), data: data)
    frame.replaceSubrange(50..<52, with: seed(6, length: nil))
    rig.queueContext(0, tag: 5, mss: mss)
    rig.queueFrame(0, [Array(frame[0..<54]), Array(frame[54...])], options: 1 << 31 | 1 << 30, status: 3 << 8, payload: data)
    rig.ring(0)
    let sent = rig.wire.takeSent().map(\.bytes)
    #expect(sent.map(\.count) == [1518, 1518, 138] && rig.model.bus.complaints.isEmpty)
    for (i, bytes) in sent.enumerated() {
      #expect(Array(bytes[12..<16]) == [0x81, 0, 0, 5])
      let ip = Array(bytes[18...])
      #expect(Frame599.sum(Array(ip[0..<20])) == 0xffff)
      #expect(Int(ip[2]) << 8 | Int(ip[3]) == ip.count)
      let segment = Array(ip[20...])
      #expect(Frame599.sum(a + b + [0, 6] + Frame599.pair(segment.count) + segment) == 0xffff)
      let sequence = Int(segment[6]) << 8 | Int(segment[7])
      #expect(sequence == (1 + i * mss) & 0xffff)
      // PSH only on the last.
      #expect(segment[13] == (i == 2 ? 0x18 : 0x10))
    }
    #expect(sent.flatMap { Array($0[58...]) } == Array(frame[54...]))
  }

  @Test func legacyDescriptors() throws {
    let rig = try Rig599()
    rig.startTransmit(0)
    let buffer = rig.allocate(100)
    var frame = Frame599.ip4(a, b, ports: (7, 8), transport: 17, data: 40)
    let right = frame
    frame.replaceSubrange(40..<42, with: seed(17, length: 48))
    rig.put(frame, at: buffer)
    // Length, CSO 40, end, FCS, checksum, report, tag; CSS 34, tag 9.
    rig.setDescriptor(0, [UInt32(buffer), 0, UInt32(frame.count) | 40 << 16 | 0x4f << 24, 34 << 8 | 9 << 16])
    rig.ring(0)
    #expect(rig.wire.takeSent().map(\.bytes) == [Frame599.tagged(right, 9)] && rig.isDone(0, 0))
  }

  @Test func loopbackComesBack() throws {
    let rig = try Rig599()
    rig.startTransmit(0)
    rig.startReceive(0)
    rig.model.setLink(up: false)
    rig.set(1 << 15, 0x4240)
    for i in 0..<64 { rig.queueFrame(0, [Frame599.plain(1024, seed: UInt8(i))]); if i == 31 { rig.ring(0) } }
    rig.ring(0)
    rig.arrive([Frame599.plain(1024, seed: 200)])
    #expect(rig.wire.sent.isEmpty && rig.takeReceived(0).map { $0.bytes[14] } == (0..<63).map { UInt8($0) })
  }

  @Test func mistakesAreNamed() throws {
    let rig = try Rig599()
    rig.startTransmit(0)
    rig.queueFrame(0, [Frame599.plain(100)], payload: 99)
    rig.queueFrame(0, [Frame599.plain(100)], status: 2 << 8)
    rig.queueContext(0, mss: 0)
    rig.queueFrame(0, [Frame599.ip4(a, b, ports: (1, 2))], options: 1 << 31, payload: 20)
    rig.queueFrame(0, [[1, 2, 3]])
    rig.ring(0)
    let said = rig.model.bus.complaints.joined(separator: "\n")
    #expect(said.contains("PAYLEN is 99") && said.contains("MSS 0") && said.contains("3 bytes cannot be sent"))
    #expect((0..<2).allSatisfy { rig.isDone(0, $0) })
  }

  @Test func memoryErrorsStopOneQueue() throws {
    let rig = try Rig599()
    for queue in 0..<2 { rig.startTransmit(queue) }
    rig.setDescriptor(0, [0x10, 0, 60 | 0x3b << 24 | 3 << 20, 60 << 14])
    rig.queueFrame(0, [Frame599.plain(60)])
    rig.queueFrame(1, [Frame599.plain(60)])
    rig.ring(0)
    rig.ring(1)
    #expect(rig.wire.sent.map(\.queue) == [1] && rig.model.dmaErrors == 1)
    #expect(rig.model.bus.complaints.contains { $0.contains("transmit queue 0") })
    rig.write(0, 0x6028)
    rig.card.settle()
    rig.startTransmit(0)
    rig.queueFrame(0, [Frame599.plain(60)])
    rig.ring(0)
    #expect(rig.wire.sent.map(\.queue) == [1, 0])
  }

  @Test func faultsOfTheTransmitter() throws {
    let rig = try Rig599()
    rig.startTransmit(0)
    rig.model.inject(.neverReports)
    rig.queueFrame(0, [Frame599.plain(60)])
    rig.ring(0)
    #expect(rig.wire.takeSent().count == 1 && !rig.isDone(0, 0))
    rig.model.inject(.none)
    rig.model.inject(.transmitHang)
    rig.queueFrame(0, [Frame599.plain(60)])
    rig.ring(0)
    #expect(rig.wire.sent.isEmpty && rig.read(0x6010) == 1)
    rig.write(1 << 26, 0)
    rig.startTransmit(0)
    rig.model.inject(.wrongCompletion(7, count: 1))
    rig.model.inject(.wrongAddress(count: 1))
    rig.queueFrame(0, [Frame599.plain(60)])
    rig.ring(0)
    #expect(rig.wire.sent.isEmpty && rig.isDone(0, 7) && !rig.isDone(0, 0) && rig.model.bus.memory.faults == 1)
  }
}
