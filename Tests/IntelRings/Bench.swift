// Rings over ordinary memory, a tail that is a word of memory, and a hand that writes back what a card
// would.

import CRingway
import DMAMemory
import DeviceIO
import DriverKit
import Packet
import Testing

@testable import IntelRings

/// A macro cannot look into an expression with a noncopyable value; this can.
func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }

/// Buffers at bus addresses that are not pointers.
@safe final class Buffers {
  static let size = 2048
  let base: UnsafeMutableRawPointer
  let count: Int
  let address: UInt64
  init(_ count: Int, at address: UInt64 = 0x40_0000) {
    self.count = count
    self.address = address
    unsafe base = .allocate(byteCount: count * Self.size, alignment: 4096)
    unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: count * Self.size)
  }
  deinit { unsafe base.deallocate() }
  func pool() -> PacketPool {
    unsafe PacketPool(unsafe: base, stride: Self.size, iova: IOVA(rawValue: address), indices: (0..<UInt32(count)).map { $0 })
  }
  /// Writes into the buffer at a bus address, as a card does.
  func write(_ bytes: [UInt8], to iova: UInt64) {
    for (i, byte) in bytes.enumerated() {
      unsafe base.storeBytes(of: byte, toByteOffset: Int(iova - address) + i, as: UInt8.self)
    }
  }
  func read(_ count: Int, at iova: UInt64) -> [UInt8] {
    (0..<count).map { unsafe base.load(fromByteOffset: Int(iova - address) + $0, as: UInt8.self) }
  }
}

/// Descriptors and a tail.
@safe final class RingMemory {
  let base: UnsafeMutableRawPointer
  let tailWord: UnsafeMutablePointer<UInt32>
  let count: Int
  init(_ count: Int) {
    self.count = count
    unsafe base = .allocate(byteCount: count * 16, alignment: 4096)
    unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: count * 16)
    unsafe tailWord = .allocate(capacity: 1)
    unsafe tailWord.initialize(to: .max)
  }
  deinit {
    unsafe base.deallocate()
    unsafe tailWord.deallocate()
  }
  var window: DescriptorWindow { unsafe DescriptorWindow(unsafe: base) }
  var doorbell: Doorbell { unsafe Doorbell(unsafe: tailWord) }
  var tail: Int { unsafe Int(rw_read32(tailWord)) }
  subscript(_ descriptor: Int, _ word: Int) -> UInt64 {
    get { unsafe base.load(fromByteOffset: descriptor * 16 + word * 8, as: UInt64.self) }
    set { unsafe base.storeBytes(of: newValue, toByteOffset: descriptor * 16 + word * 8, as: UInt64.self) }
  }
}

/// A receive ring with a pool, and the card's side of it.
final class ReceiveBench {
  let buffers: Buffers
  let pool: PacketPool
  let memory: RingMemory
  var ring: AdvancedReceiveRing
  /// The next descriptor the card fills.
  var head = 0

  init(count: Int = 64, buffers: Int = 256, family: AdvancedFamily = .igb, maximumFrame: Int = 9018) {
    self.buffers = Buffers(buffers)
    pool = self.buffers.pool()
    memory = RingMemory(count)
    ring = unsafe AdvancedReceiveRing(unsafe: memory.window, count: count, tail: memory.doorbell, family: family)
    unsafe ring.fill(from: pool.state, bufferSize: Buffers.size, maximumFrame: maximumFrame)
    ring.running = true
    ring.open()
  }
  deinit { ring.release() }

  /// Writes a frame into the next descriptors, as the card does: `last` is what it says of the end.
  func arrive(_ bytes: [UInt8], status: UInt32 = 0, hash: UInt32 = 0, types: UInt32 = 0, vlan: UInt16 = 0) {
    var at = 0
    repeat {
      let n = min(Buffers.size, bytes.count - at)
      buffers.write(Array(bytes[at..<(at + n)]), to: memory[head, 0])
      at += n
      let isLast = at == bytes.count
      report(length: n, status: isLast ? status | 3 : 1, hash: isLast ? hash : 0, types: isLast ? types : 0, vlan: isLast ? vlan : 0)
    } while at < bytes.count
  }

  /// A bare write-back.
  func report(length: Int, status: UInt32, hash: UInt32 = 0, types: UInt32 = 0, vlan: UInt16 = 0) {
    memory[head, 0] = UInt64(hash) << 32 | UInt64(types)
    memory[head, 1] = UInt64(vlan) << 48 | UInt64(length & 0xffff) << 32 | UInt64(status)
    head = (head + 1) % memory.count
  }

  /// Everything that waits.
  func frames(max: Int = 1000) -> [(bytes: [UInt8], flags: PacketFlags, hash: UInt32, vlan: UInt16, segments: Int)] {
    var batch = PacketBatch(capacity: 1000)
    _ = ring.receive(into: &batch, max: max)
    var found: [(bytes: [UInt8], flags: PacketFlags, hash: UInt32, vlan: UInt16, segments: Int)] = []
    batch.forEach { found.append(($0.bytes(), $0.flags, $0.hash, $0.vlan, $0.segmentCount)) }
    return found
  }
}

func pattern(_ count: Int, _ seed: Int = 0) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ seed) } }
