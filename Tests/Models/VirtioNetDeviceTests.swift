// The virtio-net model as a device: offloads, queues, control commands.

import ModelKit
import Models
import PCI
import Testing

/// A TCP or UDP frame over IPv4 between the two ends of the published hash vectors; checksum fields
/// hold the pseudo header's sum, as a driver leaves them.
private func datagram(isTCP: Bool, payload: Int, tagged: Bool = false) -> [UInt8] {
  let source: [UInt8] = [66, 9, 149, 187], target: [UInt8] = [161, 142, 100, 80]
  let transport = isTCP ? 20 : 8
  let length = 20 + transport + payload
  var frame: [UInt8] = [0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1] + (tagged ? [0x81, 0, 0, 5] : []) + [8, 0]
  frame += [0x45, 0, UInt8(length >> 8), UInt8(length & 0xff), 0, 7, 0x40, 0, 64, isTCP ? 6 : 17, 0, 0] + source + target
  frame += [0x0a, 0xea, 0x06, 0xe6]
  var sum = (transport + payload) + (isTCP ? 6 : 17)
  for i in [0, 2] {
    sum += Int(source[i]) << 8 | Int(source[i + 1])
    sum += Int(target[i]) << 8 | Int(target[i + 1])
  }
  while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
  let field = [UInt8(sum >> 8), UInt8(sum & 0xff)]
  if isTCP {
    frame += [0, 0, 0, 100, 0, 0, 0, 1, 0x50, 0x19, 0x10, 0] + field + [0, 0]
  } else {
    frame += [UInt8((8 + payload) >> 8), UInt8((8 + payload) & 0xff)] + field
  }
  let network = frame.count - transport - 20
  unsafe frame.withUnsafeMutableBytes { unsafe _ = FrameChecksum.insertIPv4Header($0, at: network) }
  return frame + (0..<payload).map { UInt8(truncatingIfNeeded: $0 &* 7) }
}

private func checksumsAreRight(_ frame: [UInt8]) -> Bool {
  unsafe frame.withUnsafeBytes { bytes in
    let headers = unsafe ParsedHeaders(bytes)
    return unsafe FrameChecksum.ipv4HeaderIsRight(bytes, headers) == true
      && FrameChecksum.transportIsRight(bytes, headers) == true
  }
}

@Suite struct VirtioNetOffloadTests {
  static let plain = VirtioModelFeature.version1 | VirtioModelFeature.accessPlatform | VirtioModelFeature.mac
  static let key: [UInt8] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa,
  ]

  /// Header and frame on one descriptor.
  private func send(_ driver: HandDriver, header: [UInt8], _ frame: [UInt8]) {
    driver.fill(header + frame, at: 0x8000)
    driver.describe(1, 0, 0x8000, UInt32(header.count + frame.count), flags: 0)
    driver.offer(1, 0)
    driver.notify(1)
    driver.card.settle()
  }

  @Test(arguments: [true, false]) func `a checksum is finished where the header says`(isTCP: Bool) throws {
    let driver = try HandDriver()
    driver.start(Self.plain | VirtioModelFeature.checksum)
    let frame = datagram(isTCP: isTCP, payload: 33)
    #expect(!checksumsAreRight(frame))
    send(driver, header: [1, 0, 0, 0, 0, 0, 34, 0, isTCP ? 16 : 6, 0, 0, 0], frame)
    let sent = driver.wire.takeSent()
    #expect(sent.count == 1 && sent[0].bytes.count == frame.count && checksumsAreRight(sent[0].bytes))
    #expect(driver.model.counters.checksums == 1)
    #expect(driver.model.bus.complaints.isEmpty)
  }

  @Test func `an offload that was not agreed on, or lies outside the frame, is complained of`() throws {
    for (features, header) in [
      (Self.plain, [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0] as [UInt8]),
      (Self.plain | VirtioModelFeature.checksum, [1, 0, 0, 0, 0, 0, 0xff, 0xff, 16, 0, 0, 0]),
      (Self.plain | VirtioModelFeature.checksum, [1, 1, 0, 0, 100, 0, 34, 0, 16, 0, 0, 0]),
    ] {
      let driver = try HandDriver()
      driver.start(features)
      send(driver, header: header, datagram(isTCP: true, payload: 200))
      #expect(driver.model.bus.complaintCount == 1)
      #expect(driver.wire.takeSent().count == 1)
      #expect(driver.used(1) == 1, "the device goes on")
    }
  }

  @Test(arguments: [false, true]) func `a large frame is cut, each segment with headers of its own`(tagged: Bool) throws {
    let driver = try HandDriver()
    driver.start(Self.plain | VirtioModelFeature.checksum | VirtioModelFeature.hostTSO4)
    let frame = datagram(isTCP: true, payload: 2500, tagged: tagged)
    let link: UInt8 = tagged ? 18 : 14
    send(driver, header: [1, 1, link + 40, 0, 0xe8, 3, link + 20, 0, 16, 0, 0, 0], frame)
    let sent = driver.wire.takeSent().map(\.bytes)
    #expect(sent.map(\.count) == [1000, 1000, 500].map { $0 + 40 + Int(link) })
    #expect(sent.allSatisfy(checksumsAreRight))
    let start = Int(link) + 40
    #expect(sent.flatMap { $0[start...] } == Array(frame[start...]))
    // Sequence numbers; FIN and PSH on the last segment alone.
    let sequence = Int(link) + 24
    #expect(sent.map { Int($0[sequence + 2]) << 8 | Int($0[sequence + 3]) } == [100, 1100, 2100])
    #expect(sent.map { $0[sequence + 9] } == [0x10, 0x10, 0x19])
    #expect(driver.model.counters.segments == 3)
    #expect(driver.model.bus.complaints.isEmpty)
  }

  @Test func `segments of nothing, or of what is not TCP, are not sent`() throws {
    for (size, isTCP) in [(0, true), (100, false)] {
      let driver = try HandDriver()
      driver.start(Self.plain | VirtioModelFeature.checksum | VirtioModelFeature.hostTSO4)
      send(
        driver, header: [1, 1, 54, 0, UInt8(size), 0, 34, 0, 16, 0, 0, 0], datagram(isTCP: isTCP, payload: 500))
      #expect(driver.wire.takeSent().isEmpty)
      #expect(driver.model.counters.sentDropped == 1)
      #expect(driver.used(1) == 1)
    }
  }

  @Test func `a right checksum is said to be so`() throws {
    let driver = try HandDriver()
    driver.start(Self.plain | VirtioModelFeature.guestChecksum)
    var right = datagram(isTCP: true, payload: 10)
    unsafe right.withUnsafeMutableBytes { bytes in
      let headers = unsafe ParsedHeaders(UnsafeRawBufferPointer(bytes))
      unsafe _ = FrameChecksum.insertTransport(bytes, headers)
    }
    for (i, frame) in [right, datagram(isTCP: true, payload: 10)].enumerated() {
      driver.describe(0, i, 0x8000 + i * 0x1000, 2048, flags: 2)
      driver.offer(0, UInt16(i))
      driver.wire.send(frame)
    }
    driver.card.settle()
    #expect(driver.used(0) == 2)
    #expect(driver.get(0x8000, UInt8.self) == 2)
    #expect(driver.get(0x9000, UInt8.self) == 0)
  }

  @Test func `the hash is the published one, is reported, and chooses the queue`() throws {
    var options = VirtioNetModelOptions()
    options.pairs = 2
    let driver = try HandDriver(options)
    let wanted =
      Self.plain | VirtioModelFeature.controlQueue | VirtioModelFeature.receiveScaling | VirtioModelFeature.hashReport
    driver.negotiate(wanted)
    for queue in [0, 2, 4] as [UInt16] { driver.enable(queue) }
    driver.card.setBusMaster(true)
    driver.status(15)
    // Types IPv4 and TCPv4; the table: entry 0x78 & 1 = 0 -> queue 1.
    let configuration: [UInt8] = [4, 1, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 40] + Self.key
    #expect(driver.command(4, configuration) == 0)
    driver.describe(2, 3, 0xb000, 2048, flags: 2)
    driver.offer(2, 3)
    driver.describe(0, 3, 0xc000, 2048, flags: 2)
    driver.offer(0, 3)
    driver.wire.send(datagram(isTCP: true, payload: 4))
    driver.card.settle()
    #expect(driver.used(2) == 1)
    #expect(driver.get(0xb000 + 12, UInt32.self) == 0x51cc_c178)
    #expect(driver.get(0xb000 + 16, UInt16.self) == 2, "TCPv4")
    // UDP was not asked for: the addresses alone, 0x323e8fc2, entry 0 as well.
    driver.describe(2, 4, 0xb000, 2048, flags: 2)
    driver.offer(2, 4)
    driver.wire.send(datagram(isTCP: false, payload: 4))
    driver.card.settle()
    #expect(driver.get(0xb000 + 12, UInt32.self) == 0x323e_8fc2)
    #expect(driver.get(0xb000 + 16, UInt16.self) == 1, "IPv4")
    // Without addresses: the queue for what has no hash.
    driver.wire.send([UInt8](repeating: 0xff, count: 60))
    driver.card.settle()
    #expect(driver.used(0) == 1)
    #expect(driver.get(0xc000 + 16, UInt16.self) == 0)
    #expect(driver.model.bus.complaints.isEmpty)
    // Tables that make no sense are refused.
    var bad = configuration
    bad[6] = 2
    #expect(driver.command(4, bad) == 1, "a mask that is none")
    bad = configuration
    bad[10] = 9
    #expect(driver.command(4, bad) == 1, "a queue that does not exist")
    #expect(driver.command(4, Array(configuration.dropLast())) == 1)
  }

  @Test func `a frame comes back over the queue that its flow was sent on`() throws {
    var options = VirtioNetModelOptions()
    options.pairs = 2
    let driver = try HandDriver(options)
    driver.negotiate(Self.plain | VirtioModelFeature.controlQueue | VirtioModelFeature.multiqueue)
    for queue in [0, 1, 2, 3, 4] as [UInt16] { driver.enable(queue) }
    driver.card.setBusMaster(true)
    driver.status(15)
    #expect(driver.command(4, [4, 0, 2, 0]) == 0)
    #expect(driver.command(4, [4, 0, 3, 0]) == 1)
    #expect(driver.model.activePairs == 2)
    let frame = datagram(isTCP: false, payload: 40)
    for (sender, receiver) in [(1, 0), (3, 2)] {
      driver.fill([UInt8](repeating: 0, count: 12) + frame, at: 0xb000)
      driver.describe(sender, 5, 0xb000, UInt32(12 + frame.count), flags: 0)
      driver.offer(sender, 5)
      driver.notify(UInt16(sender))
      for queue in [0, 2] {
        driver.describe(queue, 6 + sender, 0xc000, 2048, flags: 2)
        driver.offer(queue, UInt16(6 + sender))
      }
      driver.card.settle()
      #expect(driver.wire.takeSent() == [TestWire.Sent(bytes: frame, queue: sender / 2)])
      // The answer: addresses and ports the other way round.
      var answer = frame
      answer.replaceSubrange(26..<34, with: Array(frame[30..<34] + frame[26..<30]))
      answer.replaceSubrange(34..<38, with: Array(frame[36..<38] + frame[34..<36]))
      let before = driver.used(receiver)
      driver.wire.send(answer)
      driver.card.settle()
      #expect(driver.used(receiver) == before + 1)
    }
  }
}
