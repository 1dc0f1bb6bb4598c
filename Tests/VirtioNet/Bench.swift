import DMAMemory
import DeviceIO
import DriverKit
import ModelKit
import Models
import NetmapCore
import PCI
import Packet
import Testing
import VirtioTransport
import Wire

@testable import VirtioNet

/// Time that passes only by sleeping, and a device that acts while the driver sleeps.
final class BenchClock: TimeSource, @unchecked Sendable {
  var time: UInt64 = 1_000_000_000
  weak var card: InProcessCard?
  func now() -> UInt64 { time }
  func sleep(nanoseconds: UInt64) {
    time += nanoseconds
    card?.step()
  }
}

/// A driver in front of a model, with a pool.
@safe final class Bench {
  let model: VirtioNetModel
  let card: InProcessCard
  let wire = TestWire()
  let clock = BenchClock()
  let allocator: NetmapAllocator
  let driver: VirtioNetDriver
  let pool: PacketPool
  static let buffers = 2048

  init(
    _ modelOptions: VirtioNetModelOptions = VirtioNetModelOptions(), _ options: PortOptions = PortOptions(),
    bufferSize: Int = 2048
  ) throws {
    model = try VirtioNetModel(modelOptions)
    model.wire = wire
    card = InProcessCard(model)
    clock.card = card
    allocator = try NetmapAllocator(
      sizes: PoolSizes(
        interfaces: 2, interfaceSize: 256, rings: 4, ringSize: 1024, buffers: Bench.buffers + 2, bufferSize: bufferSize,
        minimumBuffers: 16, descriptorBytes: 1 << 20),
      backing: .normalPages, reachable: [card])
    driver = try VirtioNetDriver(card, allocator: allocator, options: options, clock: clock)
    pool = try PacketPool.lent(by: allocator, count: Bench.buffers)
  }

  func step() { card.step() }
  /// Lets a frame arrive from the wire.
  func inject(_ frame: [UInt8]) { wire.send(frame) }
  /// Frames that left the device since the last call.
  func takeSent() -> [[UInt8]] { wire.takeSent().map(\.bytes) }
  var complaints: [String] { model.bus.complaints }

  func start() throws { try driver.start(pools: [pool]) }

  /// Sends frames, stepping the device when the ring is full.
  func send(_ frames: [[UInt8]], queue: Int = 0, prepare: (borrowing Packet) -> Void = { _ in }) {
    var batch = PacketBatch(capacity: 32)
    var rest = frames[...]
    while !rest.isEmpty || !batch.isEmpty {
      while batch.count < batch.capacity, let frame = rest.first {
        guard let packet = pool.allocate() else { break }
        rest = rest.dropFirst()
        packet.fill(with: frame)
        prepare(packet)
        _ = batch.append(packet)
      }
      if driver.send(queue: queue, &batch) == 0 && driver.health != .running { return }
      step()
      driver.reclaim(queue: queue)
    }
  }

  /// Another station for each queue: the device delivers what it sends where a frame of the same two
  /// stations was sent last.
  static func station(_ queue: Int) -> MACAddress { MACAddress(2, 0, 0, 0, 7, UInt8(queue)) }

  /// Puts frames into a batch, from the bench's pool or another one.
  func fill(_ batch: inout PacketBatch, _ frames: [[UInt8]], from other: PacketPool? = nil) {
    for frame in frames {
      guard let packet = (other ?? pool).allocate() else {
        Issue.record("the pool is empty")
        return
      }
      packet.fill(with: frame)
      _ = batch.append(packet)
    }
  }

  /// What comes in until nothing more does.
  func receive(queue: Int = 0, max: Int = 32) -> [[UInt8]] {
    var frames: [[UInt8]] = []
    var batch = PacketBatch(capacity: 32)
    while true {
      step()
      guard driver.receive(queue: queue, into: &batch, max: max) > 0 else { return frames }
      batch.forEach { frames.append($0.bytes()) }
      batch.removeAll()
    }
  }

  func statistic(_ name: String) -> UInt64? { driver.statistics().first { $0.name == name }?.value }

  deinit {
    driver.stop()
  }
}

/// A frame to the model's own address, with a number in it.
func frame(
  _ number: Int, count: Int = 60, to: MACAddress = MACAddress(0x52, 0x54, 0x00, 0x12, 0x34, 0x56),
  from: MACAddress = MACAddress(2, 0, 0, 0, 0, 1)
) -> [UInt8] {
  var bytes = Ethernet.header(to: to, from: from, type: 0x88b5)
  for i in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: number >> (8 * i))) }
  while bytes.count < count { bytes.append(UInt8(truncatingIfNeeded: bytes.count &* 31 &+ number)) }
  return bytes
}

/// The combinations of features that change how the rings work.
struct RingFeatures: CustomTestStringConvertible, Sendable {
  let mergeable: Bool
  let eventIndex: Bool
  var testDescription: String { "\(mergeable ? "mergeable" : "single") \(eventIndex ? "event index" : "flags")" }
  static let all = [true, false].flatMap { m in [true, false].map { RingFeatures(mergeable: m, eventIndex: $0) } }

  var options: VirtioNetModelOptions {
    var options = VirtioNetModelOptions()
    if !mergeable { options.features &= ~VirtioModelFeature.mergeableBuffers }
    if !eventIndex { options.features &= ~VirtioModelFeature.eventIndex }
    return options
  }
}

/// SplitMix64: small, seeded, the same everywhere.
struct SplitMix: RandomNumberGenerator {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
    return z ^ z >> 31
  }
}
