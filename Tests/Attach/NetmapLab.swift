// A card in stack mode, made of a model, its driver, an interface and a manual dispatcher, that can
// change over to netmap mode: what the changeover needs of an attachment, and no more.

import DMAMemory
import DeviceIO
import DriverKit
import E1000e
import Ifnet
import Ixgbe
import ModelKit
import Models
import NetmapCore
import NetmapPorts
import Netisr
import PCI
import Packet
import Platform
import Synchronization
import Testing
import VirtioNet
import Wire

@testable import Attach

func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }

enum NetmapModel: String, CaseIterable, Sendable { case e1000e, ixgbe, virtio }

/// The model's time.
final class LabClock: TimeSource, @unchecked Sendable {
  weak var card: InProcessCard?
  func now() -> UInt64 { card?.model.bus.now ?? 0 }
  func sleep(nanoseconds: UInt64) {
    card?.model.bus.now &+= nanoseconds
    card?.step()
  }
}

/// What reached the stack.
final class StackEnd: LinkLayer, @unchecked Sendable {
  var frames: [[UInt8]] = []
  func input(_ batch: inout PacketBatch, on interface: Interface) {
    batch.forEach { frames.append($0.bytes()) }
    batch.removeAll()
  }
  func output(_ packet: consuming Packet, to nextHop: SocketAddress, on interface: Interface) { interface.transmit(packet) }
  func resolveMulticast(_ group: SocketAddress, on interface: Interface) throws(InterfaceError) -> MACAddress? { nil }
}

final class NetmapLab: NetmapHost, InterfaceDriver, @unchecked Sendable {
  let wire = TestWire()
  let model: any DeviceModel
  let function: InProcessCard
  /// The stack's memory.
  let stackAllocator: NetmapAllocator
  /// Programs' memory.
  let memory: NetmapMemory
  let region: NetmapRegion
  var allocator: NetmapAllocator { region.allocator }
  let driver: any NetDriver
  let netisr: Netisr
  let table: InterfaceTable
  let stack = StackEnd()
  let clock = LabClock()
  private(set) var pools: [PacketPool] = []
  private var attached: Interface?
  var interface: Interface { attached! }
  var tenants: [(any QueueTenant)?]
  private(set) var card: NetmapCard!
  let queues: Int
  static let descriptors = 64
  private var sink = PacketBatch(capacity: 64)

  /// Bus addresses of the lab's memory.
  let space: IOVAAllocator

  /// - Parameter other: a lab with whose card this one shares programs' memory.
  init(
    _ kind: NetmapModel, queues: Int = 1, bufferSize: Int = 2048, mtu: Int = 1500, workers: Int = 1, strip: Bool = false,
    sharing other: NetmapLab? = nil
  ) throws {
    self.queues = queues
    space = other?.space ?? IOVAAllocator()
    switch kind {
    case .e1000e: model = try E1000eModel(wire: wire)
    case .ixgbe: model = try Intel82599Model(device: 0x10f7, wire: wire)
    case .virtio:
      var options = VirtioNetModelOptions()
      options.pairs = queues
      options.queueSize = 256
      let made = try VirtioNetModel(options)
      made.wire = wire
      model = made
    }
    function = InProcessCard(model, name: kind.rawValue)
    clock.card = function
    let sizes = PoolSizes(
      interfaces: 8, interfaceSize: 512, rings: 64, ringSize: 4352, buffers: 4096, bufferSize: bufferSize,
      minimumBuffers: 4096, descriptorBytes: 1 << 20)
    stackAllocator = try NetmapAllocator(sizes: sizes, backing: .normalPages, reachable: [function], space: space)
    memory = other?.memory ?? Self.makeMemory(sizes, [function], space)
    region = try memory.global()
    var options = PortOptions()
    options.queues = queues
    options.mtu = mtu
    options.receiveDescriptors = Self.descriptors
    options.transmitDescriptors = Self.descriptors
    options.moderationMicroseconds = 0
    options.stripVLAN = strip
    switch kind {
    case .e1000e: driver = try E1000eDriver(function, allocator: stackAllocator, options: options, clock: clock)
    case .ixgbe: driver = try IxgbeDriver(function, allocator: stackAllocator, options: options, clock: clock)
    case .virtio: driver = try VirtioNetDriver(function, allocator: stackAllocator, options: options, clock: clock)
    }
    var configuration = NetisrConfiguration()
    configuration.isManual = true
    configuration.maxThreads = workers
    netisr = try Netisr(configuration, clock: clock)
    table = InterfaceTable(netisr)
    tenants = Array(repeating: nil, count: queues)
    table.setLink(stack, for: .ethernet)
    for _ in 0..<queues { pools.append(try PacketPool.lent(by: stackAllocator, count: 512)) }
    var named = InterfaceOptions("em", unit: 0)
    named.subqueues = queues
    attached = try table.attach(named, driver: self)
    interface.setDriverFlags([.running, .up])
    try driver.start(pools: pools)
    for _ in 0..<20 where driver.link.status != .up {
      clock.sleep(nanoseconds: 1_000_000_000)
      function.settle()
      _ = driver.serviceControl()
      _ = driver.tick()
    }
    card = try NetmapCard(self, memory: memory)
  }

  static func makeMemory(_ sizes: PoolSizes, _ cards: [InProcessCard], _ space: IOVAAllocator) -> NetmapMemory {
    let reachable = Reachable(cards: cards)
    var options = NetmapMemoryOptions()
    options.sizes = sizes
    options.backing = .normalPages
    return NetmapMemory(options, space: space, reachable: { reachable.cards })
  }

  /// SAFETY of the conformance: a test's cards are used by one thread at a time.
  struct Reachable: @unchecked Sendable { let cards: [InProcessCard] }

  deinit { driver.stop() }

  // MARK: NetmapHost

  func owner(ofQueue queue: Int) -> Worker { netisr.worker(queue) }
  func stackPool(ofQueue queue: Int) -> PacketPool { pools[queue] }
  func setTenant(_ tenant: (any QueueTenant)?, queue: Int) { tenants[queue] = tenant }
  var mapper: (any DMAMapper)? { function }
  var recalls: Int { recalled }
  private var recalled = 0
  func recallBuffers() {
    recalled += 1
    driver.stop()
    try? driver.start(pools: pools)
    for tenant in tenants { tenant?.restarted() }
  }

  // MARK: InterfaceDriver

  func start(_ subqueue: Subqueue) {
    var batch = PacketBatch(capacity: 64)
    while subqueue.dequeue(into: &batch) > 0 {
      if let tenant = tenants[subqueue.index], tenant.send(&batch) { continue }
      _ = driver.send(queue: subqueue.index, &batch)
      guard !batch.isEmpty else { continue }
      subqueue.prepend(&batch)
      subqueue.isActive = true
      return
    }
  }

  // MARK: What tests do

  /// One round of the card and of every queue's poller on its owner.
  func poll() {
    function.settle()
    for queue in 0..<queues {
      owner(ofQueue: queue).perform { [self] in
        if let tenant = tenants[queue] {
          _ = tenant.poll(budget: 64)
        } else {
          driver.reclaim(queue: queue)
          if driver.receive(queue: queue, into: &sink, max: 64) > 0 { interface.input(&sink, queue: queue) }
        }
        if interface.subqueues[queue].isActive { interface.subqueues[queue].ready() }
      }
    }
    netisr.settle()
  }
  func poll(_ rounds: Int) { for _ in 0..<rounds { poll() } }

  /// The stack sends a frame, on the worker of a queue.
  func stackSends(_ bytes: [UInt8], queue: Int = 0) -> Bool {
    owner(ofQueue: queue).perform { [self] in
      guard let packet = pools[queue].allocate(), packet.fill(with: bytes) else { return false }
      return interface.subqueues[queue].send(packet)
    }
  }

  /// Takes everything that the program's ring shows. Returns the frames, parts joined.
  func read(_ ring: NetmapProgramRing, limit: Int = .max) -> [[UInt8]] {
    var frames: [[UInt8]] = [], part: [UInt8] = []
    var i = ring.head
    while i != ring.tail, frames.count < limit {
      let slot = ring.slot(i)
      part += unsafe ring.withBuffer(slot.bufferIndex) { unsafe [UInt8]($0.prefix(Int(slot.length))) }
      if !slot.flags.contains(.moreFragments) {
        frames.append(part)
        part = []
      }
      i = ring.next(i)
    }
    ring.setHead(i)
    return frames
  }

  /// Puts a frame into the program's transmit ring, over slots of `piece` bytes. False when it is full.
  @discardableResult func write(_ bytes: [UInt8], to ring: NetmapProgramRing, piece: Int = .max) -> Bool {
    let parts = stride(from: 0, to: bytes.count, by: min(piece, bytes.count)).map { Array(bytes[$0..<min(bytes.count, $0 + min(piece, bytes.count))]) }
    guard ring.space >= UInt32(parts.count) else { return false }
    var i = ring.head
    for (n, part) in parts.enumerated() {
      var slot = ring.slot(i)
      unsafe ring.withBuffer(slot.bufferIndex) { unsafe $0.copyBytes(from: part) }
      slot.length = UInt16(part.count)
      slot.flags = n == parts.count - 1 ? [] : .moreFragments
      ring.setSlot(i, slot)
      i = ring.next(i)
    }
    ring.setHead(i)
    return true
  }

  /// Buffers that nobody holds.
  var freeBuffers: Int { allocator.statistics[2].free }
  var freeRings: Int { allocator.statistics[1].free }
  var freeInterfaces: Int { allocator.statistics[0].free }
  func drops(_ reason: DropReason) -> Int {
    netisr.drops.snapshot().filter { $0.reason == reason }.reduce(0) { $0 + Int($1.packets) }
  }
  /// A frame with a number in it.
  static func frame(_ number: Int, count: Int = 60) -> [UInt8] {
    var bytes: [UInt8] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, 0x88, 0xb5]
    for shift in stride(from: 24, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: number >> shift)) }
    while bytes.count < count { bytes.append(UInt8(truncatingIfNeeded: number &* 7 &+ bytes.count)) }
    return bytes
  }
}
