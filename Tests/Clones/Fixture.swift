// A stack without threads, with all cloners; cards that remember what they were told.

import CRingway
import DMAMemory
import DeviceIO
import Ether
import Glibc
import Ifnet
import Netisr
import Packet
import Platform
import Synchronization
import Testing
import Wire

@testable import Clones

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

/// Remembers frames and requests.
final class FakeCard: InterfaceDriver {
  private let frames = Guarded<[[UInt8]]>([])
  private let tags = Guarded<[UInt16?]>([])
  let requests = Guarded<[DriverRequest]>([])
  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {
    requests.withLock { $0.append(request) }
    if case .setFlags(_, let new) = request { interface.setDriverFlags(new.contains(.up) ? .running : []) }
  }
  func start(_ subqueue: Subqueue) {
    var batch = PacketBatch(capacity: 64)
    while subqueue.dequeue(into: &batch) > 0 {
      batch.forEach { packet in
        let (bytes, tag) = (packet.bytes(), packet.flags.contains(.vlan) ? packet.vlan : nil)
        frames.withLock { $0.append(bytes) }
        tags.withLock { $0.append(tag) }
      }
      batch.removeAll()
    }
  }
  /// What was sent since the last call.
  func take() -> [[UInt8]] {
    frames.withLock { frames in
      defer { frames = [] }
      return frames
    }
  }
  func takeTags() -> [UInt16?] {
    tags.withLock { tags in
      defer { tags = [] }
      return tags
    }
  }
}

func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }

/// The errno with which something is refused; nil when it is not.
func refusal<T>(_ body: () throws(InterfaceError) -> T) -> InterfaceErrno? {
  do throws(InterfaceError) {
    _ = try body()
    return nil
  } catch { return error.code }
}

func frame(to target: MACAddress, from source: MACAddress, type: UInt16 = 0x0800, _ payload: [UInt8] = [], count: Int = 46) -> [UInt8] {
  Ethernet.header(to: target, from: source, type: type) + payload + [UInt8](repeating: 7, count: max(0, count - payload.count))
}

final class Stack: @unchecked Sendable {
  let clock = ManualClock()
  let netisr: Netisr
  let table: InterfaceTable
  let ether: EtherLayer
  let loopback: LoopbackLayer
  let buffers: Buffers
  /// What protocols got: the interface's index, the worker, the packet's bytes.
  struct Arrival: Equatable {
    var proto: NetisrProtocol
    var interface: UInt16
    var worker: Int
    var bytes: [UInt8]
  }
  private let arrivals = Guarded<[Arrival]>([])

  init(workers: Int = 1, opener: any TapOpener = LinuxTapOpener(), queueLimit: Int = 256) throws {
    var configuration = NetisrConfiguration()
    configuration.isManual = true
    configuration.maxThreads = workers
    configuration.defaultQueueLimit = queueLimit
    netisr = try Netisr(configuration, clock: clock)
    buffers = Buffers(2048)
    for worker in netisr.workers { worker.pool = buffers.pool }
    table = InterfaceTable(netisr)
    ether = try EtherLayer(table)
    loopback = LoopbackLayer(table)
    for (type, proto) in [(0x0800, NetisrProtocol.ip), (0x86dd, .ipv6), (0x0806, .arp)] {
      ether.register(type: UInt16(type), proto: proto)
      try netisr.register(
        NetisrHandler(name: "sink\(proto)", proto: proto, workersOnly: true) { [unowned self] packet in
          let arrival = Arrival(proto: proto, interface: packet.interface.index, worker: Worker.current?.id ?? -1, bytes: packet.bytes())
          arrivals.withLock { $0.append(arrival) }
          ether.deliver(packet)
        })
    }
    try Clones.register(in: table, ether: ether, opener: opener)
    netisr.settle()
  }

  /// What arrived since the last call.
  func take() -> [Arrival] {
    netisr.settle()
    return arrivals.withLock { arrivals in
      defer { arrivals = [] }
      return arrivals
    }
  }

  func attach(_ name: String, _ mac: MACAddress, up: Bool = true, mtu: Int = 1500, _ capabilities: InterfaceCapabilities = .vlanMTU) throws -> (Interface, FakeCard) {
    var options = InterfaceOptions(name, unit: 0)
    options.linkAddress = mac
    options.mtu = mtu
    options.capabilities = capabilities
    options.queueLength = 64
    let card = FakeCard()
    let interface = try table.attach(options, driver: card)
    interface.setLink(.up)
    if up { try interface.bringUp() }
    netisr.settle()
    return (interface, card)
  }

  func make(_ name: String, _ parameters: [String: String] = [:], up: Bool = true) throws(InterfaceError) -> Interface {
    let interface = try table.create(name, parameters: parameters)
    if up { try interface.bringUp() }
    netisr.settle()
    return interface
  }

  func packet(_ bytes: [UInt8]) -> Packet? {
    guard let packet = buffers.pool.allocate() else { return nil }
    packet.reserveHeadroom(64)
    packet.extend(bytes.count)
    unsafe packet.withBytes { target in unsafe bytes.withUnsafeBytes { unsafe target.copyMemory(from: $0) } }
    return packet
  }

  /// A card receives a frame, on worker 0.
  func receive(_ bytes: [UInt8], on interface: Interface, vlan: UInt16? = nil) {
    netisr.worker(0).perform { [self] () -> Void in
      var batch = PacketBatch(capacity: 1)
      guard let packet = packet(bytes) else {
        Issue.record("no buffer")
        return
      }
      if let vlan {
        packet.vlan = vlan
        packet.flags.insert(.vlan)
      }
      _ = batch.append(packet)
      interface.input(&batch)
    }
    netisr.settle()
  }

  /// The stack sends a finished frame, on worker 0.
  func send(_ bytes: [UInt8], on interface: Interface) {
    netisr.worker(0).perform { [self] () -> Void in
      guard let packet = packet(bytes) else {
        Issue.record("no buffer")
        return
      }
      interface.transmit(packet)
    }
    netisr.settle()
  }

  func drops(_ reason: DropReason, _ interface: Interface? = nil) -> UInt64 {
    netisr.drops.snapshot().filter { $0.reason == reason && (interface == nil || $0.interface == interface?.index) }.reduce(0) { $0 + $1.packets }
  }

  /// received = delivered + dropped, for an interface.
  func isConserved(_ interface: Interface) -> Bool {
    let dropped = netisr.drops.snapshot().filter { $0.interface == interface.index }.reduce(0) { $0 + $1.packets }
    return interface.counters.ipackets == ether.deliveries(of: interface.index) + dropped
  }
}
