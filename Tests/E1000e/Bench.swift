// What the driver's tests share: a driver on the in-process model, with a clock that tests move.

import CRingway
import DMAMemory
import DeviceIO
import DriverKit
import ModelKit
import Models
import NetmapCore
import PCI
import Packet
import Platform
import Testing
import Wire

@testable import E1000e

/// Time that passes only when somebody sleeps or a test says so.
final class TestClock: TimeSource, @unchecked Sendable {
  private var time: UInt64 = 1_000_000
  func now() -> UInt64 { time }
  func sleep(nanoseconds: UInt64) { time &+= nanoseconds }
}

/// A macro cannot look into an expression with a noncopyable value; this can.
func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }

/// A driver, its card and its memory.
final class Bench {
  let model: E1000eModel
  let wire = TestWire()
  let card: InProcessCard
  let allocator: NetmapAllocator
  let clock = TestClock()
  let pool: PacketPool
  var driver: E1000eDriver
  static let buffers = 2048

  init(
    vectors: Int = 5, device: UInt16 = 0x10d3, start: Bool = true, mode: InProcessCard.Mode = .trapped,
    _ set: (inout PortOptions) -> Void = { _ in }
  ) throws {
    model = try E1000eModel(device: device, vectors: vectors, wire: wire)
    card = InProcessCard(model, name: "model", mode: mode)
    card.recordsWrites = true
    allocator = try NetmapAllocator(
      sizes: PoolSizes(rings: 4, buffers: Bench.buffers + 18, minimumBuffers: Bench.buffers), backing: .normalPages,
      reachable: [card])
    var options = PortOptions()
    options.receiveDescriptors = 64
    options.transmitDescriptors = 64
    options.moderationMicroseconds = 0
    set(&options)
    driver = try E1000eDriver(card, allocator: allocator, options: options, clock: clock)
    pool = try PacketPool.lent(by: allocator, count: Bench.buffers)
    if start { try driver.start(pools: [pool]) }
  }

  /// Receives everything that waits.
  func receive(queue: Int = 0) -> PacketBatch {
    var batch = PacketBatch(capacity: 256)
    while driver.receive(queue: queue, into: &batch, max: 32) > 0 {}
    return batch
  }

  /// The bytes of everything that waits.
  func frames(queue: Int = 0) -> [[UInt8]] {
    let batch = receive(queue: queue)
    var list: [[UInt8]] = []
    batch.forEach { list.append($0.bytes()) }
    return list
  }

  /// A packet with these bytes, over as many buffers as they need.
  func packet(_ bytes: [UInt8]) throws -> Packet {
    func piece(_ part: ArraySlice<UInt8>) throws -> Packet {
      guard let packet = pool.allocate(), packet.fill(with: Array(part)) else { throw NoBuffer() }
      return packet
    }
    let head = try piece(bytes.prefix(2048))
    var at = 2048
    while at < bytes.count {
      head.append(try piece(bytes[at..<min(bytes.count, at + 2048)]))
      at += 2048
    }
    return head
  }
  struct NoBuffer: Error {}

  /// Sends frames; returns how many the driver took.
  @discardableResult func send(_ frames: [[UInt8]], queue: Int = 0) throws -> Int {
    var batch = PacketBatch(capacity: max(1, frames.count))
    for frame in frames {
      let packet = try packet(frame)
      if let refused = batch.append(packet) { _ = consume refused }
    }
    return driver.send(queue: queue, &batch)
  }

  /// Sends one packet as it is.
  func send(_ packet: consuming Packet) -> Int {
    var batch = PacketBatch(capacity: 1)
    if let refused = batch.append(packet) { _ = consume refused }
    return driver.send(queue: 0, &batch)
  }

  func statistic(_ name: String) -> UInt64? { driver.statistics().first { $0.name == name }?.value }
}

/// Frames to send through.
enum Frames {
  static let station = MACAddress(0x52, 0x54, 0, 0x12, 0x34, 0x56)
  static let peer = MACAddress(2, 0, 0, 0, 0, 1)

  /// A numbered frame of `count` bytes.
  static func plain(_ number: Int, count: Int = 60, to: MACAddress = station) -> [UInt8] {
    var bytes = Ethernet.header(to: to, from: peer, type: 0x88b5)
    bytes += [UInt8(truncatingIfNeeded: number >> 8), UInt8(truncatingIfNeeded: number)]
    for i in bytes.count..<max(bytes.count, count) { bytes.append(UInt8(truncatingIfNeeded: i &* 7 &+ number)) }
    return bytes
  }

  /// UDP or TCP over IPv4, checksums right.
  static func ipv4(
    tcp: Bool = false, from: UInt32 = 0xc612_0001, to: UInt32 = 0xc612_0002, ports: (UInt16, UInt16) = (1000, 2000),
    payload: Int = 20, checksums: Bool = true, vlan: UInt16? = nil
  ) -> [UInt8] {
    func be16(_ v: Int) -> [UInt8] { [UInt8(v >> 8 & 255), UInt8(v & 255)] }
    func be32(_ v: UInt32) -> [UInt8] { be16(Int(v >> 16)) + be16(Int(v & 0xffff)) }
    let length = (tcp ? 20 : 8) + payload
    let data = (0..<payload).map { UInt8(truncatingIfNeeded: $0) }
    var segment = be16(Int(ports.0)) + be16(Int(ports.1))
    segment += tcp ? be32(1) + be32(0) + [0x50, 0x10] + be16(8192) + [0, 0, 0, 0] : be16(length) + [0, 0]
    segment += data
    let pseudo = be32(from) + be32(to) + [0, tcp ? 6 : 17] + be16(length)
    let field = tcp ? 16 : 6
    // Without checksums: the pseudo header's sum, as the card expects it when it is to insert.
    let sum = checksums ? Int(InternetChecksum.of(pseudo + segment)) : Int(InternetChecksum.sum(pseudo))
    segment.replaceSubrange(field..<field + 2, with: be16(sum))
    var header: [UInt8] = [0x45, 0] + be16(20 + length) + [0, 0, 0, 0, 64, tcp ? 6 : 17, 0, 0] + be32(from) + be32(to)
    if checksums { header.replaceSubrange(10..<12, with: be16(Int(InternetChecksum.of(header)))) }
    var ethernet = Ethernet.header(to: station, from: peer, type: Ethernet.typeIPv4)
    if let vlan { ethernet.insert(contentsOf: [0x81, 0] + be16(Int(vlan)), at: 12) }
    return ethernet + header + segment
  }
}
