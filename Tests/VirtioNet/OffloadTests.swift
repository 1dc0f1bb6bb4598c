// Checksums and segmentation that the device is asked to do.

import DriverKit
import ModelKit
import Models
import Packet
import Testing
import Wire

@testable import VirtioNet

/// Checksums and segmentation of sent frames, by the device and judged by the model's parser.
@Suite struct OffloadTests {
  /// An IPv4 or IPv6 frame; the transport checksum field holds what stacks put there: the pseudo
  /// header's sum, without the length when the frame is to be cut.
  static func datagram(isTCP: Bool, payload: Int, version6: Bool = false, isCut: Bool = false) -> [UInt8] {
    let transport = isTCP ? 20 : 8, length = transport + payload
    var frame = Ethernet.header(
      to: MACAddress(2, 0, 0, 0, 0, 9), from: MACAddress(2, 0, 0, 0, 0, 8), type: version6 ? 0x86dd : 0x0800)
    let next: UInt8 = isTCP ? 6 : 17
    var addresses: [UInt8] = [198, 18, 0, 1, 198, 18, 0, 2]
    if version6 {
      addresses = [0x20, 1, 0, 2] + [UInt8](repeating: 0, count: 11) + [1, 0x20, 1, 0, 2] + [UInt8](repeating: 0, count: 11) + [2]
      frame += [0x60, 0, 0, 0, UInt8(length >> 8), UInt8(length & 0xff), next, 64] + addresses
    } else {
      let total = length + 20
      frame += [0x45, 0, UInt8(total >> 8), UInt8(total & 0xff), 0, 1, 0x40, 0, 64, next, 0xde, 0xad] + addresses
    }
    let seed = InternetChecksum.sum(addresses, initial: UInt32(next) + UInt32(isCut ? 0 : length))
    let field = [UInt8(seed >> 8), UInt8(seed & 0xff)]
    frame += [0, 80, 1, 0]
    frame += isTCP ? [0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 0] + field + [0, 0] : [UInt8(length >> 8), UInt8(length & 0xff)] + field
    return frame + (0..<payload).map { UInt8(truncatingIfNeeded: $0 &* 13) }
  }

  static func isRight(_ frame: [UInt8]) -> Bool {
    unsafe frame.withUnsafeBytes { bytes in
      let headers = unsafe ParsedHeaders(bytes)
      return unsafe FrameChecksum.ipv4HeaderIsRight(bytes, headers) != false
        && FrameChecksum.transportIsRight(bytes, headers) == true
    }
  }

  static func ask(_ packet: borrowing Packet, isTCP: Bool, version6: Bool, tag: Bool) {
    packet.flags = isTCP ? .tcpChecksum : .udpChecksum
    if !version6 { packet.flags.insert(.ipChecksum) }
    packet.setHeaderLengths(link: 14, network: version6 ? 40 : 20)
    guard tag else { return }
    packet.flags.insert(.vlan)
    packet.vlan = 5
  }

  @Test(arguments: [true, false], [true, false])
  func `checksums are inserted, with and without a tag`(isTCP: Bool, version6: Bool) throws {
    let bench = try Bench()
    try bench.start()
    #expect(bench.driver.capabilities.contains([.transmitChecksum, .transmitSegmentation]))
    for tag in [false, true] {
      let frames = (0..<40).map { Self.datagram(isTCP: isTCP, payload: 10 + $0 * 30, version6: version6) }
      bench.send(frames) { Self.ask($0, isTCP: isTCP, version6: version6, tag: tag) }
      let sent = bench.takeSent()
      #expect(sent.count == 40)
      #expect(sent.allSatisfy(Self.isRight))
      #expect(sent.map(\.count) == frames.map { $0.count + (tag ? 4 : 0) })
    }
    #expect(bench.complaints.isEmpty)
    bench.driver.stop()
    #expect(bench.pool.available == Bench.buffers)
  }

  @Test(arguments: [false, true]) func `a frame of several buffers is cut into segments`(version6: Bool) throws {
    let bench = try Bench()
    try bench.start()
    let frame = Self.datagram(isTCP: true, payload: 30_000, version6: version6, isCut: true)
    let network = version6 ? 40 : 20
    var batch = PacketBatch(capacity: 32)
    for start in stride(from: 0, to: frame.count, by: 2000).reversed() {
      bench.fill(&batch, [Array(frame[start..<min(start + 2000, frame.count)])])
      guard batch.count > 1, let head = batch.popLast(), let tail = batch.popLast() else { continue }
      head.append(tail)
      _ = batch.append(head)
    }
    #expect(batch.count == 1)
    batch.forEach { packet in
      if !version6 { packet.flags.insert(.ipChecksum) }
      packet.setHeaderLengths(link: 14, network: network)
      packet.setSegmentation(size: 1448, transport: 20)
    }
    #expect(bench.driver.send(queue: 0, &batch) == 1)
    bench.step()
    let sent = bench.takeSent()
    let header = 14 + network + 20
    #expect(sent.count == (30_000 + 1447) / 1448)
    #expect(sent.allSatisfy(Self.isRight))
    #expect(sent.flatMap { $0[header...] } == Array(frame[header...]))
    #expect(bench.complaints.isEmpty)
    bench.driver.stop()
    #expect(bench.pool.available == Bench.buffers)
  }

  @Test func `received frames, which have headroom, carry their header in front`() throws {
    let bench = try Bench()
    try bench.start()
    bench.inject(Self.datagram(isTCP: true, payload: 100))
    bench.step()
    var batch = PacketBatch(capacity: 4)
    #expect(bench.driver.receive(queue: 0, into: &batch, max: 4) == 1)
    batch.forEach { Self.ask($0, isTCP: true, version6: false, tag: false) }
    #expect(bench.driver.send(queue: 0, &batch) == 1)
    bench.step()
    #expect(bench.takeSent().allSatisfy(Self.isRight))
    // The same buffer as a plain frame: no wish is left over.
    bench.inject(frame(1))
    bench.step()
    #expect(bench.driver.receive(queue: 0, into: &batch, max: 4) == 1)
    #expect(bench.driver.send(queue: 0, &batch) == 1)
    bench.step()
    #expect(bench.takeSent() == [frame(1)])
    #expect(bench.complaints.isEmpty)
  }

  @Test func `what another card found in a frame asks for nothing when the frame is passed on`() throws {
    let bench = try Bench()
    try bench.start()
    // Wrong on purpose: a checksum that was inserted would show.
    let found = Array(Self.datagram(isTCP: true, payload: 100).dropLast()) + [0xa5]
    bench.send([found]) { $0.flags = [.ipChecksum, .tcpChecksum] }
    bench.send([found]) { $0.flags = [.ipChecksum, .udpChecksum, .hashed] }
    #expect(bench.takeSent() == [found, found])
    #expect(bench.statistic("tx_dropped") == 0)
  }

  @Test func `what cannot be done is counted and freed`() throws {
    let good = Self.datagram(isTCP: true, payload: 3000, isCut: true).prefix(1400)
    let wishes: [(borrowing Packet) -> Void] = [
      { packet in
        packet.flags = .tcpChecksum
        packet.setHeaderLengths(link: 14, network: 8)
      },
      { packet in
        packet.flags = [.tcpChecksum, .ipChecksum]
        packet.setHeaderLengths(link: 16, network: 20)
      },
      { packet in
        packet.setHeaderLengths(link: 14, network: 20)
        packet.setSegmentation(size: 0, transport: 20)
      },
      { packet in
        packet.setHeaderLengths(link: 14, network: 20)
        packet.setSegmentation(size: 500, transport: 4)
      },
    ]
    let bench = try Bench()
    try bench.start()
    for wish in wishes { bench.send([Array(good)], prepare: wish) }
    #expect(bench.takeSent().isEmpty)
    #expect(bench.statistic("tx_dropped") == UInt64(wishes.count))
    var options = VirtioNetModelOptions()
    options.features &= ~VirtioModelFeature.checksum
    let plain = try Bench(options)
    try plain.start()
    #expect(!plain.driver.capabilities.contains(.transmitChecksum))
    #expect(!plain.driver.capabilities.contains(.transmitSegmentation))
    plain.send([Array(good)]) { Self.ask($0, isTCP: true, version6: false, tag: false) }
    #expect(plain.takeSent().isEmpty)
    #expect(plain.statistic("tx_dropped") == 1)
    plain.driver.stop()
    #expect(plain.pool.available == Bench.buffers)
  }
}
