import NetmapAPI
import Testing

@Suite("Messages")
struct MessageTests {
  @Test("The head of a request, byte by byte")
  func requestHead() throws {
    let head = NetmapRequestHead(.attach, number: 0x1122_3344_5566_7788, payloadLength: 0x0102_0304, extra: 0xaabb_ccdd_eeff_0011)
    let bytes = head.encoded()
    #expect(
      bytes == [
        0x51, 0x4e, 0x57, 0x52, 2, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 4, 3, 2, 1, 0, 0, 0, 0, 0x11, 0, 0xff, 0xee,
        0xdd, 0xcc, 0xbb, 0xaa,
      ])
    #expect(try NetmapRequestHead(decoding: bytes) == head)
    for offset in [0, 4, 6, 20] {
      var wrong = bytes
      wrong[offset] ^= 0x10
      #expect(code { _ = try NetmapRequestHead(decoding: wrong) } == .EINVAL)
    }
  }

  @Test("The head of an answer, byte by byte")
  func replyHead() throws {
    let head = NetmapReplyHead(errno: 22, payloadLength: 0x0102_0304, textLength: 5, descriptors: 3)
    let bytes = head.encoded()
    #expect(
      bytes == [
        0x41, 0x4e, 0x57, 0x52, 22, 0, 0, 0, 4, 3, 2, 1, 5, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
      ])
    #expect(try NetmapReplyHead(decoding: bytes) == head)
    for offset in [0, 18, 20, 31] {
      var wrong = bytes
      wrong[offset] ^= 0x10
      #expect(code { _ = try NetmapReplyHead(decoding: wrong) } == .EINVAL)
    }
  }

  @Test("A packet is its head and exactly what the head promises")
  func packets() throws {
    let request = NetmapRequestHead(.ioctl, number: NetmapIoctl.control).packet([1, 2, 3])
    let read = try NetmapRequestHead.read(packet: request)
    #expect(read.payload == [1, 2, 3])
    #expect(read.head.number == NetmapIoctl.control)
    for count in 0..<request.count { #expect(code { _ = try NetmapRequestHead.read(packet: Array(request.prefix(count))) } == .EINVAL) }
    #expect(code { _ = try NetmapRequestHead.read(packet: request + [0]) } == .EINVAL)

    let reply = NetmapReplyHead.packet(errno: 6, payload: [9, 8], text: "ix7 does not exist. Ärger", descriptors: 2)
    let answer = try NetmapReplyHead.read(packet: reply)
    #expect(answer.payload == [9, 8])
    #expect(answer.text == "ix7 does not exist. Ärger")
    #expect(answer.head == NetmapReplyHead(errno: 6, payloadLength: 2, textLength: answer.text.utf8.count, descriptors: 2))
    for count in 0..<reply.count { #expect(code { _ = try NetmapReplyHead.read(packet: Array(reply.prefix(count))) } == .EINVAL) }
    #expect(code { _ = try NetmapReplyHead.read(packet: reply + [0]) } == .EINVAL)
  }

  @Test("A text that does not fit is cut at a character")
  func longText() throws {
    let text = String(repeating: "ä", count: 40_000)
    let packet = NetmapReplyHead.packet(payload: [7], text: text)
    #expect(packet.count == NetmapMessageLimit.bytes - 1)
    let read = try NetmapReplyHead.read(packet: packet)
    #expect(read.text == String(repeating: "ä", count: (NetmapMessageLimit.bytes - 33) / 2))
  }

  static func attach() -> NetmapAttachReply {
    var reply = NetmapAttachReply()
    reply.regionBytes = 0x0102_0304_0506_0708
    reply.interfaceOffset = 0x1112_1314
    reply.flags = [.exclusive, .noTransmitPoll]
    reply.pageBytes = 4096
    reply.doorbells = 2
    reply.regionID = 0x2122
    reply.mode = 4
    reply.portFlags = 0x3132_3334
    reply.regionStart = 0x3536_3738
    reply.rings = [
      .init(offset: 0x4142_4344_4546, slots: 512, doorbell: 1, isReceive: false, isHost: false, number: 3),
      .init(offset: 64, slots: 1024, doorbell: 0, isReceive: true, isHost: true, number: 0x5152),
    ]
    return reply
  }

  @Test("The answer to an attach, byte by byte")
  func attachReply() throws {
    let bytes = Self.attach().encoded()
    #expect(bytes.count == 48 + 2 * 32)
    #expect(Array(bytes[0..<16]) == [8, 7, 6, 5, 4, 3, 2, 1, 0x14, 0x13, 0x12, 0x11, 0, 0, 0, 0])
    #expect(Array(bytes[16..<32]) == [0, 8, 2, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 2, 0, 0, 0])
    #expect(Array(bytes[32..<48]) == [2, 0, 0, 0, 0x22, 0x21, 4, 0, 0x34, 0x33, 0x32, 0x31, 0x38, 0x37, 0x36, 0x35])
    #expect(Array(bytes[48..<72]) == [0x46, 0x45, 0x44, 0x43, 0x42, 0x41, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0])
    #expect(Array(bytes[80..<102]) == [64, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0x52, 0x51])
    #expect(try NetmapAttachReply(decoding: bytes) == Self.attach())
    for count in 0..<bytes.count { #expect(code { _ = try NetmapAttachReply(decoding: Array(bytes.prefix(count))) } == .EINVAL) }
    #expect(code { _ = try NetmapAttachReply(decoding: bytes + [0]) } == .EINVAL)
    // More doorbells than can be, a doorbell beyond them, a direction and a host flag beyond 1, fields that are zero.
    for (offset, value) in [(32, 29), (60, 2), (64, 2), (66, 2), (70, 1), (79, 1)] {
      var wrong = bytes
      wrong[offset] = UInt8(value)
      #expect(code { _ = try NetmapAttachReply(decoding: wrong) } == .EINVAL, "offset \(offset)")
    }
    // A count of rings so large that its bytes overflow 32 bits.
    var huge = bytes
    for i in 28..<32 { huge[i] = 0xff }
    #expect(code { _ = try NetmapAttachReply(decoding: huge) } == .EINVAL)
  }

  @Test("A query and its answer, byte by byte")
  func query() throws {
    let query = PortQuery(name: "ix0").encoded()
    #expect(query == [0x69, 0x78, 0x30] + [UInt8](repeating: 0, count: 61))
    #expect(try PortQuery(decoding: query).name == "ix0")
    for wrong in [[], Array(query.dropLast()), query + [0], [UInt8](repeating: 0, count: 64), [UInt8](repeating: 97, count: 64), [0xff] + query.dropLast()] {
      #expect(code { _ = try PortQuery(decoding: wrong) } == .EINVAL)
    }
    var reply = PortQueryReply(address: [2, 0, 0, 0, 0, 9], mtu: 1500, flags: 0x1043)
    reply.transmitRings = 1
    reply.receiveRings = 2
    reply.hostTransmitRings = 3
    reply.hostReceiveRings = 4
    reply.transmitSlots = 512
    reply.receiveSlots = 1024
    reply.memoryID = 7
    let bytes = reply.encoded()
    #expect(
      bytes == [
        2, 0, 0, 0, 0, 9, 0, 0, 0xdc, 5, 0, 0, 0x43, 0x10, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 0, 2, 0, 0, 0, 4, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0,
      ])
    #expect(try PortQueryReply(decoding: bytes) == reply)
    for count in 0..<40 { #expect(code { _ = try PortQueryReply(decoding: Array(bytes.prefix(count))) } == .EINVAL) }
    #expect(PortQueryReply(address: [1], mtu: 0, flags: 0).address == [1, 0, 0, 0, 0, 0])
  }

  @Test("Whatever a message is turned into is read or refused")
  func mutations() {
    var random = TestRandom(seed: 5)
    let samples = [
      NetmapRequestHead(.ioctl, number: 7).packet(Array(0..<40)), NetmapReplyHead.packet(errno: 5, payload: [1, 2, 3], text: "sentence"),
      Self.attach().encoded(), PortQuery(name: "em0").encoded(), PortQueryReply(address: [2, 2, 2, 2, 2, 2], mtu: 9000, flags: 1).encoded(),
    ]
    var refused = 0
    for _ in 0..<20_000 {
      let bytes = random.mutate(samples[random.below(samples.count)])
      let attempts: [() throws -> Void] = [
        { _ = try NetmapRequestHead.read(packet: bytes) },
        { _ = try NetmapReplyHead.read(packet: bytes) },
        { _ = try NetmapAttachReply(decoding: bytes) },
        { _ = try PortQuery(decoding: bytes) },
        { _ = try PortQueryReply(decoding: bytes) },
      ]
      for attempt in attempts where code(attempt) != nil { refused += 1 }
    }
    #expect(refused > 60_000 && refused < 100_000)
  }
}

/// The errno with which `body` is refused; nil when it is not.
func code(_ body: () throws -> Void) -> NetmapError.Code? {
  do { try body() } catch {
    guard let error = error as? NetmapError, !error.problem.isEmpty else {
      Issue.record("not an error of netmap's with a sentence: \(error)")
      return nil
    }
    return error.code
  }
  return nil
}

/// Numbers that are the same in every run.
struct TestRandom {
  private var state: UInt64
  init(seed: UInt64) { state = seed &* 0x9e37_79b9_7f4a_7c15 | 1 }
  mutating func next() -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return state
  }
  mutating func below(_ limit: Int) -> Int { Int(next() >> 1) % max(1, limit) }
  /// The bytes with some changed, cut, or added.
  mutating func mutate(_ bytes: [UInt8]) -> [UInt8] {
    var bytes = bytes
    for _ in 0...below(4) {
      switch below(8) {
      case 0: bytes = Array(bytes.prefix(below(bytes.count + 1)))
      case 1: bytes += (0..<below(40)).map { _ in UInt8(truncatingIfNeeded: next()) }
      case 2 where !bytes.isEmpty: bytes[below(bytes.count)] = 0xff
      case 3 where !bytes.isEmpty: bytes[below(bytes.count)] = 0
      default: if !bytes.isEmpty { bytes[below(bytes.count)] ^= 1 << UInt8(below(8)) }
      }
    }
    return bytes
  }
}
