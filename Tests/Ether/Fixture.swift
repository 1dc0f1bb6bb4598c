// A stack without threads: one clock that stands still, drivers that remember what they were told to send.

import DMAMemory
import DeviceIO
import Ifnet
import Netisr
import Packet
import Platform
import Synchronization
import Testing
import Wire

@testable import Ether

/// A clock that moves when the test says so.
final class ManualClock: TimeSource {
  private let time = Atomic<UInt64>(1_000_000_000)
  func now() -> UInt64 { time.load(ordering: .relaxed) }
  func sleep(nanoseconds: UInt64) { advance(nanoseconds) }
  func advance(_ nanoseconds: UInt64) { time.wrappingAdd(nanoseconds, ordering: .relaxed) }
}

/// Buffers in ordinary memory.
@safe final class Buffers: @unchecked Sendable {
  let pool: PacketPool
  private let base: UnsafeMutableRawPointer
  init(_ count: Int) {
    unsafe base = .allocate(byteCount: count * 2048, alignment: 4096)
    unsafe pool = PacketPool(unsafe: base, stride: 2048, iova: IOVA(rawValue: 0x10_0000), indices: Array(0..<UInt32(count)))
  }
  deinit { unsafe base.deallocate() }
}

/// Remembers frames.
final class FakeDriver: InterfaceDriver {
  struct Frame: Equatable {
    var bytes: [UInt8]
    var vlan: UInt16?
  }
  private let frames = Guarded<[Frame]>([])
  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {}
  func start(_ subqueue: Subqueue) {
    var batch = PacketBatch(capacity: 64)
    while subqueue.dequeue(into: &batch) > 0 {
      var sent: [Frame] = []
      batch.forEach { sent.append(Frame(bytes: $0.bytes(), vlan: $0.flags.contains(.vlan) ? $0.vlan : nil)) }
      frames.withLock { $0 += sent }
      batch.removeAll()
    }
  }
  /// What was sent since the last call.
  func take() -> [Frame] {
    frames.withLock { frames in
      defer { frames = [] }
      return frames
    }
  }
}

func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }

final class Stack {
  let clock = ManualClock()
  let netisr: Netisr
  let table: InterfaceTable
  let ether: EtherLayer
  let buffers = Buffers(512)

  init(workers: Int = 1) throws {
    var configuration = NetisrConfiguration()
    configuration.isManual = true
    configuration.maxThreads = workers
    netisr = try Netisr(configuration, clock: clock)
    for worker in netisr.workers { worker.pool = buffers.pool }
    table = InterfaceTable(netisr)
    ether = try EtherLayer(table)
  }

  func attach(_ name: String, _ mac: MACAddress, type: InterfaceType = .ethernet) throws -> (Interface, FakeDriver) {
    var options = InterfaceOptions(name, unit: 0, type: type)
    options.linkAddress = mac
    let driver = FakeDriver()
    let interface = try table.attach(options, driver: driver)
    interface.setDriverFlags([.up, .running])
    netisr.settle()
    return (interface, driver)
  }

  /// Receives one frame, cut into buffers of `sizes` (the rest in the last).
  func receive(_ bytes: [UInt8], on interface: Interface, vlan: UInt16? = nil, sizes: [Int] = []) {
    var batch = PacketBatch(capacity: 1)
    var rest = bytes[...]
    var parts: [[UInt8]] = []
    for size in sizes {
      parts.append(Array(rest.prefix(size)))
      rest = rest.dropFirst(size)
    }
    parts.append(Array(rest))
    guard let packet = buffers.pool.allocate() else {
      Issue.record("no buffer")
      return
    }
    packet.fill(with: parts[0])
    for part in parts.dropFirst() {
      guard let more = buffers.pool.allocate() else {
      Issue.record("no buffer")
      return
    }
      more.fill(with: part)
      packet.append(more)
    }
    if let vlan {
      packet.vlan = vlan
      packet.flags.insert(.vlan)
    }
    _ = batch.append(packet)
    interface.input(&batch)
    check(batch.isEmpty)
    netisr.settle()
  }

  func drops(_ reason: DropReason) -> UInt64 { netisr.drops.snapshot().filter { $0.reason == reason }.reduce(0) { $0 + $1.packets } }
}
