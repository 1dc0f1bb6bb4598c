// A driver on the in-process model, whose time passes when the driver waits or a test says so.

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

@testable import Ixgbe

/// The model's time, as the driver's.
final class CardClock: TimeSource, @unchecked Sendable {
  // SAFETY of the conformance: a card, its model and its driver are used by one thread.
  private let card: InProcessCard
  init(_ card: InProcessCard) { self.card = card }
  func now() -> UInt64 { card.model.bus.now }
  func sleep(nanoseconds: UInt64) { card.advance(nanoseconds: nanoseconds) }
}

/// A driver, its card and its memory.
final class Bench {
  let model: Intel82599Model
  let wire = TestWire()
  let card: InProcessCard
  let allocator: NetmapAllocator
  let clock: CardClock
  let pool: PacketPool
  var driver: IxgbeDriver
  /// Buffers in the receive rings.
  let inRings: Int
  static let buffers = 4096
  /// Nanoseconds.
  static let second: UInt64 = 1_000_000_000

  init(
    device: UInt16 = 0x10fb, module: Intel82599Module = .shortRange, start: Bool = true,
    mode: InProcessCard.Mode = .trapped, packetBuffer: Int = 512 * 1024, _ set: (inout PortOptions) -> Void = { _ in }
  ) throws {
    model = try Intel82599Model(
      address: Frames.station, device: device, wire: wire, module: module, packetBuffer: packetBuffer)
    card = InProcessCard(model, name: "model", mode: mode)
    clock = CardClock(card)
    allocator = try NetmapAllocator(
      sizes: PoolSizes(rings: 4, buffers: Bench.buffers + 18, minimumBuffers: Bench.buffers), backing: .normalPages,
      reachable: [card])
    var options = PortOptions()
    options.receiveDescriptors = 64
    options.transmitDescriptors = 64
    options.moderationMicroseconds = 0
    set(&options)
    inRings = options.queues * options.receiveDescriptors
    driver = try IxgbeDriver(card, allocator: allocator, options: options, clock: clock)
    pool = try PacketPool.lent(by: allocator, count: Bench.buffers)
    if start {
      try driver.start(pools: [pool])
      card.advance(nanoseconds: 1_000_000)
      _ = driver.serviceControl()
    }
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

  /// Lets frames arrive.
  func arrive(_ frames: [[UInt8]]) {
    for frame in frames { wire.send(frame) }
    card.settle()
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

  /// Reports are in and buffers are home: nothing is lost but what lies in the receive rings.
  func nothingIsLost(_ location: SourceLocation = #_sourceLocation) {
    card.settle()
    for queue in 0..<driver.queueCount { driver.reclaim(queue: queue) }
    check(pool.available == Bench.buffers - (driver.health == .running ? inRings : 0), location)
  }
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

  private static func be16(_ v: Int) -> [UInt8] { [UInt8(v >> 8 & 255), UInt8(v & 255)] }
  private static func be32(_ v: UInt32) -> [UInt8] { be16(Int(v >> 16)) + be16(Int(v & 0xffff)) }

  /// UDP or TCP over IPv4, checksums right.
  /// - Parameter checksums: otherwise as a card wants it that is to insert them.
  static func ipv4(
    tcp: Bool = false, from: UInt32 = 0xc612_0001, to: UInt32 = 0xc612_0002, ports: (UInt16, UInt16) = (1000, 2000),
    payload: Int = 20, checksums: Bool = true, vlan: UInt16? = nil
  ) -> [UInt8] {
    segment(
      tcp: tcp, from: from, to: to, ports: ports, data: (0..<payload).map { UInt8(truncatingIfNeeded: $0) },
      checksums: checksums, vlan: vlan)
  }

  /// One segment of a TCP stream, or a datagram.
  static func segment(
    tcp: Bool = true, from: UInt32 = 0xc612_0001, to: UInt32 = 0xc612_0002, ports: (UInt16, UInt16) = (1000, 2000),
    data: [UInt8], sequence: UInt32 = 1, flags: UInt8 = 0x10, identification: Int = 0, checksums: Bool = true,
    cut: Bool = false, vlan: UInt16? = nil
  ) -> [UInt8] {
    let length = (tcp ? 20 : 8) + data.count
    var segment = be16(Int(ports.0)) + be16(Int(ports.1))
    segment += tcp ? be32(sequence) + be32(0) + [0x50, flags] + be16(8192) + [0, 0, 0, 0] : be16(length) + [0, 0]
    segment += data
    let pseudo = be32(from) + be32(to) + [0, tcp ? 6 : 17] + be16(cut ? 0 : length)
    let field = tcp ? 16 : 6
    let sum = checksums ? Int(InternetChecksum.of(pseudo + segment)) : Int(InternetChecksum.sum(pseudo))
    segment.replaceSubrange(field..<field + 2, with: be16(sum))
    var header: [UInt8] =
      [0x45, 0] + be16(20 + length) + be16(identification) + [0, 0, 64, tcp ? 6 : 17, 0, 0] + be32(from) + be32(to)
    if checksums { header.replaceSubrange(10..<12, with: be16(Int(InternetChecksum.of(header)))) }
    var ethernet = Ethernet.header(to: station, from: peer, type: Ethernet.typeIPv4)
    if let vlan { ethernet.insert(contentsOf: [0x81, 0] + be16(Int(vlan)), at: 12) }
    return ethernet + header + segment
  }
}
