// What the 82574L model's tests share: the model behind its function, memory that it may reach, and
// rings laid out by hand.

import CRingway
import DMAMemory
import DeviceIO
import ModelKit
import Models
import PCI
import Testing
import Wire

/// A card with one window of memory, two receive and two transmit rings, and a wire in the test's hands.
@safe final class Card82574 {
  let model: E1000eModel
  let card: InProcessCard
  let wire = TestWire()
  let registers: any RegisterSpace
  static let size = 4 << 20
  let base = UnsafeMutableRawPointer.allocate(byteCount: Card82574.size, alignment: 4096)
  let iova: UInt64 = 0x40_0000
  static let station = MACAddress(0x52, 0x54, 0, 0x12, 0x34, 0x56)
  /// Descriptors of a ring.
  static let ringCount = 64
  private var heads = [0, 0]
  private var tails = [0, 0]

  init(
    mode: InProcessCard.Mode = .trapped, stepsByItself: Bool = false, negotiationTime: UInt64 = 0, vectors: Int = 5
  ) throws {
    unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: Card82574.size)
    model = try E1000eModel(
      address: Card82574.station, vectors: vectors, wire: wire, negotiationTime: negotiationTime)
    card = InProcessCard(model, mode: mode, stepsByItself: stepsByItself)
    registers = try card.registers(bar: 0)
    let source = unsafe DMASource(unsafe: base, count: Card82574.size, descriptor: -1, fileOffset: 0)
    try card.map(source, at: IOVA(rawValue: iova))
    card.setBusMaster(true)
  }
  deinit { unsafe base.deallocate() }

  /// A register.
  subscript(_ offset: Int) -> UInt32 {
    get { registers.read32(at: offset) }
    set { registers.write32(newValue, at: offset) }
  }

  /// 64 bits of memory.
  func word(_ place: Int) -> UInt64 { unsafe base.load(fromByteOffset: place, as: UInt64.self) }
  func setWord(_ place: Int, _ value: UInt64) { unsafe base.storeBytes(of: value, toByteOffset: place, as: UInt64.self) }
  func put(_ bytes: [UInt8], at place: Int) {
    for (i, byte) in bytes.enumerated() { unsafe base.storeBytes(of: byte, toByteOffset: place + i, as: UInt8.self) }
  }
  func bytes(_ place: Int, _ count: Int) -> [UInt8] {
    (0..<count).map { unsafe base.load(fromByteOffset: place + $0, as: UInt8.self) }
  }

  // Memory: rings at 0 (4 KiB each: receive 0 and 1, transmit 0 and 1), receive buffers at 1 MiB
  // (16 KiB each, by queue), transmit data at 3 MiB.
  func receiveRing(_ queue: Int) -> Int { queue * 4096 }
  func transmitRing(_ queue: Int) -> Int { 8192 + queue * 4096 }
  func receiveBuffer(_ queue: Int, _ index: Int) -> Int { 1 << 20 | queue << 19 | index << 13 }

  /// Link, both directions on, promiscuous, check sequence stripped, extended descriptors.
  func start(control: UInt32 = 0, receiveFilter: UInt32 = 1 << 15, free: Int = Card82574.ringCount - 1) {
    self[0] = self[0] | 1 << 6
    self[0x5008] = receiveFilter
    for queue in 0..<2 {
      let bank = queue * 0x100
      for index in 0..<Card82574.ringCount { describe(queue, index) }
      self[0x2800 + bank] = UInt32(iova) + UInt32(receiveRing(queue))
      self[0x2808 + bank] = UInt32(Card82574.ringCount * 16)
      self[0x3800 + bank] = UInt32(iova) + UInt32(transmitRing(queue))
      self[0x3808 + bank] = UInt32(Card82574.ringCount * 16)
    }
    self[0x100] = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 15 | 1 << 26 | control
    self[0x400] = 1 << 1 | 1 << 3
    for queue in 0..<2 { self[0x2818 + queue * 0x100] = UInt32(free) }
  }

  /// Gives descriptor `index` its buffer.
  func describe(_ queue: Int, _ index: Int) {
    setWord(receiveRing(queue) + index * 16, iova + UInt64(receiveBuffer(queue, index)))
    setWord(receiveRing(queue) + index * 16 + 8, 0)
  }

  /// A received frame: its bytes, and the two words of its last descriptor.
  struct Received: Equatable {
    var bytes: [UInt8] = []
    var low: UInt64 = 0
    var high: UInt64 = 0
    var status: UInt32 { UInt32(truncatingIfNeeded: high) }
    var hash: UInt32 { UInt32(low >> 32) }
    var tag: UInt16 { UInt16(high >> 48) }
  }

  /// Extended descriptors that are done, given back at once.
  func received(_ queue: Int = 0) -> [Received] {
    var frames: [Received] = [], frame = Received()
    while word(receiveRing(queue) + heads[queue] * 16 + 8) & 1 != 0 {
      let index = heads[queue], at = receiveRing(queue) + index * 16
      (frame.low, frame.high) = (word(at), word(at + 8))
      frame.bytes += bytes(receiveBuffer(queue, index), Int(frame.high >> 32 & 0xffff))
      if frame.high & 2 != 0 {
        frames.append(frame)
        frame = Received()
      }
      describe(queue, index)
      heads[queue] = (index + 1) % Card82574.ringCount
      self[0x2818 + queue * 0x100] = UInt32(index)
    }
    return frames
  }

  /// Adds a transmit descriptor as it is.
  func post(_ queue: Int = 0, _ low: UInt64, _ high: UInt64) {
    let at = transmitRing(queue) + tails[queue] * 16
    setWord(at, low)
    setWord(at + 8, high)
    tails[queue] = (tails[queue] + 1) % Card82574.ringCount
  }

  /// Puts data at a place of its own, and gives its bus address.
  func lend(_ data: [UInt8], slot: Int = 0) -> UInt64 {
    put(data, at: 3 << 20 | slot << 17)
    return iova + UInt64(3 << 20 | slot << 17)
  }

  /// Rings the doorbell of a transmit queue and lets the card work.
  func go(_ queue: Int = 0) {
    self[0x3818 + queue * 0x100] = UInt32(tails[queue])
    card.settle()
  }

  /// Sends a frame with one legacy descriptor: end, check sequence, report.
  func sendPlain(_ data: [UInt8], queue: Int = 0) {
    post(queue, lend(data), UInt64(data.count) | 0x0b << 24)
    go(queue)
  }

  func arrive(_ frame: [UInt8], marks: WireMarks = []) {
    wire.send(frame, marks: marks)
    card.settle()
  }
}

/// Frames of the tests: Ethernet and nothing else, numbered.
func plainFrame(_ number: Int, count: Int = 60, to: MACAddress = Card82574.station) -> [UInt8] {
  var bytes = Ethernet.header(to: to, from: MACAddress(2, 0, 0, 0, 0, 1), type: 0x88b5)
  for i in 0..<count - 14 { bytes.append(UInt8(truncatingIfNeeded: i &* 7 &+ number)) }
  return bytes
}
