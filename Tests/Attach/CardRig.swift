// A card model, its driver, the attachment and a stack that notes what reaches it, on workers that the test runs.
//
//     far wire ── model ── driver ── CardAttachment ── interface ── Catcher (a link layer)

import DMAMemory
import DeviceIO
import DriverKit
import E1000e
import Ifnet
import Ixgbe
import ModelKit
import Models
import NetmapCore
import Netisr
import PCI
import Packet
import Platform
import Testing
import VirtioNet
import Wire

@testable import Attach

/// The model's time is everybody's; who sleeps lets the device act.
final class CardClock: TimeSource, @unchecked Sendable {
  weak var card: InProcessCard?
  func now() -> UInt64 { (card?.model.bus.now ?? 0) &+ 1_000_000_000 }
  func sleep(nanoseconds: UInt64) { card?.advance(nanoseconds: nanoseconds) }
}

/// Takes what an interface receives.
final class Catcher: LinkLayer, @unchecked Sendable {
  struct Caught: Equatable {
    var bytes: [UInt8]
    var flags: PacketFlags
    var worker: Int?
  }
  let caught = Guarded<[Caught]>([])
  /// Packets are kept instead of freed, while this is on.
  let keeps = Guarded(false)
  private let kept = Guarded<[UInt]>([])

  func input(_ batch: inout PacketBatch, on interface: Interface) {
    batch.forEach { packet in
      let one = Caught(bytes: packet.bytes(), flags: packet.flags, worker: Worker.current?.id)
      caught.withLock { $0.append(one) }
    }
    guard keeps.withLock({ $0 }) else { return batch.removeAll() }
    while let packet = batch.popLast() {
      let address = UInt(bitPattern: unsafe packet.intoRaw())
      kept.withLock { $0.append(address) }
    }
  }
  func letGo() {
    let all = kept.withLock { kept in
      defer { kept = [] }
      return kept
    }
    for address in all {
      if let raw = unsafe RawPacket(bitPattern: address) { unsafe PoolState.put(raw) }
    }
  }
  func output(_ packet: consuming Packet, to nextHop: SocketAddress, on interface: Interface) { interface.transmit(packet) }
  func resolveMulticast(_ group: SocketAddress, on interface: Interface) throws(InterfaceError) -> MACAddress? { nil }
  var frames: [[UInt8]] { caught.withLock { $0.map(\.bytes) } }
}

enum CardKind: String, CaseIterable, Sendable, CustomTestStringConvertible {
  case em, ix, vtnet
  var testDescription: String { rawValue }

  func model(_ wire: any ModelWire, queues: Int) throws -> any DeviceModel {
    switch self {
    case .em: return try E1000eModel(wire: wire)
    case .ix: return try Intel82599Model(device: 0x10f7, wire: wire)
    case .vtnet:
      var options = VirtioNetModelOptions()
      options.pairs = queues
      options.queueSize = 64
      let model = try VirtioNetModel(options)
      model.wire = wire
      return model
    }
  }
  var driver: any NetDriver.Type {
    switch self {
    case .em: E1000eDriver.self
    case .ix: IxgbeDriver.self
    case .vtnet: VirtioNetDriver.self
    }
  }
}

@safe final class CardRig: @unchecked Sendable {
  let kind: CardKind
  let wire = TestWire()
  let model: any DeviceModel
  let card: InProcessCard
  let clock = CardClock()
  let netisr: Netisr
  let table: InterfaceTable
  let catcher = Catcher()
  let memory: CardMemory
  let attachment: CardAttachment
  let source: PacketPool
  var interface: Interface { attachment.interface }

  static let buffers = 4096

  init(
    _ kind: CardKind, workers: Int = 1, queues: Int = 1,
    link: (InterfaceTable) throws -> (any LinkLayer)? = { _ in nil },
    options change: (inout AttachOptions) -> Void = { _ in }
  ) throws {
    self.kind = kind
    model = try kind.model(wire, queues: queues)
    card = InProcessCard(model, name: "0000:03:00.0", stepsByItself: true)
    clock.card = card
    var configuration = NetisrConfiguration()
    configuration.maxThreads = workers
    configuration.isManual = true
    netisr = try Netisr(configuration, clock: clock)
    table = InterfaceTable(netisr)
    table.setLink(try link(table) ?? catcher, for: .ethernet)
    let allocator = try NetmapAllocator(
      sizes: PoolSizes(
        interfaces: 2, interfaceSize: 256, rings: 4, ringSize: 1024, buffers: Self.buffers + 2, minimumBuffers: 16,
        descriptorBytes: 1 << 20),
      backing: .normalPages, reachable: [card])
    memory = CardMemory(allocator)
    var options = AttachOptions()
    options.port.queues = queues
    options.port.receiveDescriptors = 64
    options.port.transmitDescriptors = 64
    change(&options)
    source = try PacketPool.lent(by: allocator, count: 1024)
    attachment = try CardAttachment(
      card, driver: kind.driver, table: table, memory: memory, options: options, clock: clock)
  }

  deinit { catcher.letGo() }

  /// Up, and with a link.
  func up() throws {
    try onWorker0 { [self] () throws(InterfaceError) in
      let old = interface.flags
      try attachment.handle(.setFlags(old: old, new: old.union(.up)), on: interface)
      interface.setDriverFlags(.up)
    }
    for _ in 0..<20 where interface.linkStatus != .up { pass(1_000_000_000) }
    check(interface.linkStatus == .up)
  }

  func down() throws {
    try request(.setFlags(old: interface.flags, new: interface.flags.subtracting(.up)))
    interface.setDriverFlags([], clear: .up)
  }

  func request(_ request: DriverRequest) throws {
    try onWorker0 { [self] () throws(InterfaceError) in try attachment.handle(request, on: interface) }
  }

  func onWorker0(_ body: @escaping @Sendable () throws(InterfaceError) -> Void) throws {
    try netisr.workers[0].perform { () -> Result<Void, InterfaceError> in
      do throws(InterfaceError) { try body() } catch { return .failure(error) }
      return .success(())
    }.get()
  }

  /// Lets time pass for card and workers.
  func pass(_ nanoseconds: UInt64) {
    card.advance(nanoseconds: nanoseconds)
    netisr.settle()
    card.settle()
  }

  /// Lets everything get where it is going.
  func finish() { for _ in 0..<10 { pass(300_000) } }

  func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }

  /// A frame to everybody that carries its number.
  static func frame(_ number: Int, length: Int = 60) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xff, count: 6) + [2, 0, 0, 0, 0, 9, 0x88, 0xb5]
    bytes += [UInt8(truncatingIfNeeded: number >> 8), UInt8(truncatingIfNeeded: number)]
    return bytes + [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: max(0, length - 16))
  }

  /// Sends frames through a subqueue, on a worker.
  func send(_ numbers: Range<Int>, on worker: Int = 0, length: Int = 60) {
    netisr.workers[worker].perform { [self] in
      for number in numbers {
        guard let packet = source.allocate() else { return check(false) }
        check(packet.fill(with: Self.frame(number, length: length)))
        interface.transmit(packet)
      }
    }
  }

  /// Drops on this interface with these reasons.
  func drops(_ reasons: DropReason...) -> Int {
    netisr.drops.snapshot().filter { reasons.contains($0.reason) && $0.interface == interface.index }
      .reduce(0) { $0 + Int($1.packets) }
  }

  /// Every packet of the test's pool and of the card's is back.
  func expectNothingHeld(_ location: SourceLocation = #_sourceLocation) {
    #expect(source.available == source.capacity, sourceLocation: location)
    #expect(memory.heldByPackets == 0, sourceLocation: location)
  }
}
