// What the tests of netisr share: a clock that stands, packets, and a dispatcher without threads.

import DMAMemory
import DeviceIO
import Packet
import Platform
import Synchronization
import Testing

@testable import Netisr

/// A macro cannot look into an expression with a noncopyable value; this can.
func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }

/// Time passes when the test says so.
final class ManualClock: TimeSource {
  private let time = Atomic<UInt64>(1_000_000_000)
  func now() -> UInt64 { time.load(ordering: .relaxed) }
  func sleep(nanoseconds: UInt64) { time.wrappingAdd(nanoseconds, ordering: .relaxed) }
}

/// What handlers saw, in order.
final class Log: Sendable {
  private let entries = Guarded<[Int]>([])
  func add(_ entry: Int) { entries.withLock { $0.append(entry) } }
  var all: [Int] { entries.withLock { $0 } }
}

/// A counter that any thread may raise.
final class Tally: Sendable {
  private let count = Atomic<Int>(0)
  func add(_ n: Int = 1) { count.wrappingAdd(n, ordering: .relaxed) }
  var value: Int { count.load(ordering: .sequentiallyConsistent) }
}

/// Packets in ordinary memory.
@safe final class Memory: @unchecked Sendable {
  static let size = 256
  private let base: UnsafeMutableRawPointer
  let pool: PacketPool
  init(_ count: Int = 64) {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: count * Memory.size, alignment: 4096)
    unsafe base = memory
    unsafe pool = PacketPool(
      unsafe: memory, stride: Memory.size, iova: IOVA(rawValue: 0x10_0000), indices: Array(0..<UInt32(count)),
      onDissolve: { unsafe memory.deallocate() })
  }

  /// A packet with one byte that tells it apart.
  func packet(_ mark: Int = 0, interface: UInt16 = 0, hash: UInt32? = nil) -> Packet {
    guard let packet = pool.allocate() else { preconditionFailure("the test's pool is too small") }
    packet.fill(with: [UInt8(truncatingIfNeeded: mark)])
    if interface != 0 { packet.interface = InterfaceIndex(interface, generation: 1) }
    if let hash {
      packet.hash = hash
      packet.flags = .hashed
    }
    return packet
  }
}

/// Waits for something that other threads do.
func eventually(_ what: String, _ holds: () -> Bool, _ location: SourceLocation = #_sourceLocation) {
  let clock = MonotonicClock(), end = clock.now() + 20_000_000_000
  while !holds() {
    if clock.now() > end {
      Issue.record("waited in vain: \(what)", sourceLocation: location)
      return
    }
    clock.sleep(nanoseconds: 200_000)
  }
}
