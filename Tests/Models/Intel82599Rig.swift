// A driver's side of an 82599 in miniature: rings and buffers in memory of the test, registers by the
// datasheet's numbers.

import DMAMemory
import DeviceIO
import ModelKit
import PCI
import Platform
import Testing
import Wire

@testable import Models

/// A received frame as a driver finds it.
struct Received599: Equatable {
  var bytes: [UInt8]
  var status: UInt32
  var tag: UInt16
  var hash: UInt32
  var kind: UInt32
  var pieces: Int
}

@safe final class Rig599 {
  static let start: UInt64 = 0x4000_0000
  static let size = 8 << 20

  let model: Intel82599Model
  let card: InProcessCard
  let io: any RegisterSpace
  let wire = TestWire()
  private let base: UnsafeMutableRawPointer
  private var next = 0
  private(set) var transmit: [Int: Ring] = [:]
  private(set) var receive: [Int: Ring] = [:]

  struct Ring {
    var base: UInt64
    var count: Int
    var buffers: [UInt64]
    var tail = 0
    var clean = 0
  }

  init(
    mode: InProcessCard.Mode = .trapped, device: UInt16 = 0x10fb, module: Intel82599Module = .shortRange,
    packetBuffer: Int = 512 * 1024, linkDelay: UInt64 = 0
  ) throws {
    model = try Intel82599Model(
      address: MACAddress(2, 0, 0, 0, 0, 1), device: device, wire: wire, module: module, packetBuffer: packetBuffer,
      linkDelay: linkDelay)
    card = InProcessCard(model, mode: mode)
    card.setBusMaster(true)
    io = try card.registers(bar: 0)
    // SAFETY: the rig's own memory, mapped for as long as it lives.
    unsafe base = .allocate(byteCount: Self.size, alignment: 4096)
    unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: Self.size)
    check599(unsafe model.bus.memory.map(Self.start, count: Self.size, unsafe: base))
  }
  deinit { unsafe base.deallocate() }

  func read(_ at: Int) -> UInt32 { io.read32(at: at) }
  func write(_ value: UInt32, _ at: Int) { io.write32(value, at: at) }
  func set(_ bits: UInt32, _ at: Int) { write(read(at) | bits, at) }

  // MARK: Memory

  func allocate(_ count: Int) -> UInt64 {
    defer { next += (count + 4095) & ~4095 }
    return Self.start + UInt64(next)
  }
  // SAFETY of these: addresses come from `allocate`.
  func put(_ bytes: [UInt8], at address: UInt64) {
    for (i, byte) in bytes.enumerated() { unsafe base.storeBytes(of: byte, toByteOffset: Int(address - Self.start) + i, as: UInt8.self) }
  }
  func bytes(_ address: UInt64, _ count: Int) -> [UInt8] {
    (0..<count).map { unsafe base.load(fromByteOffset: Int(address - Self.start) + $0, as: UInt8.self) }
  }
  func word(_ address: UInt64) -> UInt32 { unsafe base.loadUnaligned(fromByteOffset: Int(address - Self.start), as: UInt32.self) }
  func setWords(_ words: [UInt32], at address: UInt64) {
    for (i, word) in words.enumerated() { unsafe base.storeBytes(of: word, toByteOffset: Int(address - Self.start) + 4 * i, as: UInt32.self) }
  }

  // MARK: Rings

  static func transmitAt(_ queue: Int) -> Int { 0x6000 + queue * 0x40 }
  static func receiveAt(_ queue: Int) -> Int { queue < 64 ? 0x1000 + queue * 0x40 : 0xd000 + (queue - 64) * 0x40 }

  func startTransmit(_ queue: Int, count: Int = 64) {
    let ring = Ring(base: allocate(count * 16), count: count, buffers: [])
    let at = Self.transmitAt(queue)
    write(UInt32(truncatingIfNeeded: ring.base), at)
    write(UInt32(ring.base >> 32), at + 4)
    write(UInt32(count * 16), at + 8)
    write(0, at + 0x10)
    write(0, at + 0x18)
    write(1, 0x4a80)
    write(1 << 25, at + 0x28)
    transmit[queue] = ring
  }

  /// - Parameters:
  ///   - posted: buffers given to the card; one less than `count` at most.
  ///   - split: SRRCTL.
  func startReceive(_ queue: Int, count: Int = 64, posted: Int? = nil, split: UInt32 = 0x0200_0002, control: UInt32 = 0) {
    var ring = Ring(base: allocate(count * 16), count: count, buffers: (0..<count).map { _ in allocate(4096) })
    for (i, buffer) in ring.buffers.enumerated() { setWords([UInt32(buffer), 0, 0, 0], at: ring.base + UInt64(16 * i)) }
    let at = Self.receiveAt(queue)
    write(UInt32(truncatingIfNeeded: ring.base), at)
    write(UInt32(ring.base >> 32), at + 4)
    write(UInt32(count * 16), at + 8)
    write(0, at + 0x10)
    write(split, at + 0x14)
    write(0, at + 0x18)
    write(control | 1 << 25, at + 0x28)
    ring.tail = posted ?? count - 1
    write(UInt32(ring.tail), at + 0x18)
    receive[queue] = ring
    set(0x400, 0x5080)
    write(1, 0x3000)
  }

  /// Advanced data descriptors for a frame in pieces; the doorbell is not rung.
  func queueFrame(_ queue: Int, _ pieces: [[UInt8]], options: UInt32 = 0, status: UInt32 = 0, payload: Int? = nil) {
    guard var ring = transmit[queue] else { return }
    let total = payload ?? pieces.reduce(0) { $0 + $1.count }
    for (i, piece) in pieces.enumerated() {
      let buffer = allocate(max(1, piece.count))
      put(piece, at: buffer)
      let isLast = i == pieces.count - 1
      let command = UInt32(piece.count) | 3 << 20 | 1 << 29 | 1 << 25 | (isLast ? 1 << 24 | 1 << 27 : 0) | (i == 0 ? options : 0)
      setWords(
        [UInt32(buffer), 0, command, (i == 0 ? status : 0) | UInt32(total) << 14], at: ring.base + UInt64(16 * ring.tail))
      ring.tail = (ring.tail + 1) % ring.count
    }
    transmit[queue] = ring
  }

  func queueContext(_ queue: Int, mac: Int = 14, network: Int = 20, tag: UInt16 = 0, isIPv4: Bool = true, transport: UInt32 = 1, transportLength: Int = 20, mss: Int = 0, index: UInt32 = 0) {
    guard var ring = transmit[queue] else { return }
    setWords(
      [UInt32(network | mac << 9) | UInt32(tag) << 16, 0, 1 << 29 | 2 << 20 | transport << 11 | (isIPv4 ? 1 << 10 : 0),
       index << 4 | UInt32(transportLength) << 8 | UInt32(mss) << 16], at: ring.base + UInt64(16 * ring.tail))
    ring.tail = (ring.tail + 1) % ring.count
    transmit[queue] = ring
  }

  func setDescriptor(_ queue: Int, _ words: [UInt32]) {
    guard var ring = transmit[queue] else { return }
    setWords(words, at: ring.base + UInt64(16 * ring.tail))
    ring.tail = (ring.tail + 1) % ring.count
    transmit[queue] = ring
  }

  func ring(_ queue: Int) {
    write(UInt32(transmit[queue]?.tail ?? 0), Self.transmitAt(queue) + 0x18)
    card.settle()
  }

  func isDone(_ queue: Int, _ index: Int) -> Bool { word((transmit[queue]?.base ?? Self.start) + UInt64(16 * index + 12)) & 1 == 1 }

  /// Frames that the card has put into a queue since the last call.
  func takeReceived(_ queue: Int) -> [Received599] {
    guard var ring = receive[queue] else { return [] }
    var found: [Received599] = [], bytes: [UInt8] = [], pieces = 0
    while true {
      let at = ring.base + UInt64(16 * ring.clean)
      let status = word(at + 8)
      guard status & 1 == 1 else { break }
      let last = word(at + 12)
      bytes += self.bytes(ring.buffers[ring.clean], Int(last & 0xffff))
      pieces += 1
      let hash = word(at + 4), kind = word(at)
      setWords([UInt32(ring.buffers[ring.clean]), 0, 0, 0], at: at)
      ring.clean = (ring.clean + 1) % ring.count
      guard status & 2 != 0 else { continue }
      found.append(Received599(bytes: bytes, status: status, tag: UInt16(last >> 16), hash: hash, kind: kind, pieces: pieces))
      (bytes, pieces) = ([], 0)
    }
    receive[queue] = ring
    return found
  }

  /// Lets frames arrive and be dealt with.
  func arrive(_ frames: [[UInt8]], marks: WireMarks = []) {
    for frame in frames { wire.send(frame, marks: marks) }
    card.settle()
  }
}

/// `#expect` cannot see into expressions with unsafe parts.
func check599(_ condition: Bool, _ comment: Comment? = nil, at location: SourceLocation = #_sourceLocation) {
  #expect(condition, comment, sourceLocation: location)
}

/// Frames made by hand; sums by the letter of RFC 1071.
enum Frame599 {
  static let own: [UInt8] = [2, 0, 0, 0, 0, 1]
  static let peer: [UInt8] = [2, 0, 0, 0, 0, 9]

  static func sum(_ bytes: [UInt8]) -> UInt16 {
    var total: UInt32 = 0
    for at in stride(from: 0, to: bytes.count, by: 2) {
      total += UInt32(bytes[at]) << 8 | (at + 1 < bytes.count ? UInt32(bytes[at + 1]) : 0)
      if total > 0xffff { total -= 0xffff }
    }
    return UInt16(total)
  }
  static func pair(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }

  static func plain(_ count: Int, to target: [UInt8] = own, seed: UInt8 = 0) -> [UInt8] {
    target + peer + [0x88, 0xb5] + (0..<max(0, count - 14)).map { UInt8(truncatingIfNeeded: $0) &+ seed }
  }

  /// IPv4 with TCP (6) or UDP (17) and right checksums.
  static func ip4(_ source: [UInt8], _ target: [UInt8], ports: (Int, Int), transport: UInt8 = 6, data: Int = 20, right: Bool = true) -> [UInt8] {
    let size = transport == 6 ? 20 : 8
    var header: [UInt8] = [0x45, 0] + pair(20 + size + data) + [0, 1, 0, 0, 64, transport, 0, 0] + source + target
    header.replaceSubrange(10..<12, with: pair(Int(~sum(header))))
    var segment = pair(ports.0) + pair(ports.1)
    segment += transport == 6 ? [0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0x20, 0, 0, 0, 0, 0] : pair(8 + data) + [0, 0]
    segment += (0..<data).map { UInt8(truncatingIfNeeded: $0) }
    let value = ~sum(source + target + [0, transport] + pair(segment.count) + segment)
    let field = transport == 6 ? 16 : 6
    segment.replaceSubrange(field..<field + 2, with: pair(Int(right ? value : value ^ 0x55)))
    return own + peer + [8, 0] + header + segment
  }

  static func tagged(_ frame: [UInt8], _ tag: Int) -> [UInt8] { Array(frame[0..<12]) + [0x81, 0] + pair(tag) + Array(frame[12...]) }
}
