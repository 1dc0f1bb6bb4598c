import DMAMemory
import DeviceIO
import DriverKit
import NetmapCore
import PCI
import Packet
import Platform
import Wire

@testable import Ringway

/// A cable between two fake cards. It may do to each frame what it likes.
final class FakeWire {
  var ends: [FakeDriver] = []
  /// Called with the number of the frame and its bytes; what it returns arrives.
  var fault: (Int, [UInt8]) -> [[UInt8]] = { _, bytes in [bytes] }
  private var sent = 0

  func carry(_ bytes: [UInt8], from end: FakeDriver, queue: Int) {
    let arriving = fault(sent, bytes)
    sent += 1
    for other in ends where other !== end { for frame in arriving { other.arrive(frame, queue: queue) } }
  }
}

/// A driver without a card: rings are arrays, and frames are copied between pools as a wire does.
final class FakeDriver: NetDriver {
  static var driverName: String { "fake" }
  static var interfacePrefix: String { "fk" }
  static var matches: [PCIMatch] { [PCIMatch(vendor: 0xfa4e, device: 1, model: "Fake")] }

  let options: PortOptions
  let capabilities: DriverCapabilities = []
  var macAddress = MACAddress(2, 0, 0, 0, 0, 1)
  var queueCount: Int { options.queues }
  var link = LinkState(status: .up, speed: 1000)
  var health = PortHealth.stopped
  var maximumFrame: Int { options.mtu + 14 }

  let wire: FakeWire
  let clock: any TimeSource
  private(set) var pools: [PacketPool] = []
  /// Frames that have arrived and nobody fetched, by queue.
  private var arrived: [[[UInt8]]]
  /// Frames the card has taken and not yet freed, by queue.
  private var sending: [[Sending]]
  private var isArmed: [Bool]
  private let queueEvents: [EventFDBox]
  private let controlEvent = EventFDBox()
  /// How many frames a transmit ring takes before it is full; `reclaim` empties it unless stalled.
  var transmitRoom: Int
  var isStalled = false
  var missed: UInt64 = 0
  var stops = 0
  var startFailure: DriverError?
  var pendingEvents: DriverEvents = []
  var ticks = 0
  var armings = 0

  /// A raw record in an array.
  @safe struct Sending { let record: RawPacket }
  final class EventFDBox {
    let event: EventFD
    init() { event = try! EventFD() }
  }

  init(_ wire: FakeWire, options: PortOptions = PortOptions(), clock: any TimeSource = MonotonicClock()) {
    self.wire = wire
    self.options = options
    self.clock = clock
    arrived = Array(repeating: [], count: options.queues)
    sending = Array(repeating: [], count: options.queues)
    isArmed = Array(repeating: false, count: options.queues)
    queueEvents = (0..<options.queues).map { _ in EventFDBox() }
    transmitRoom = options.transmitDescriptors - 1
    wire.ends.append(self)
  }

  convenience init(
    _ function: CardFunction, allocator: NetmapAllocator, options: PortOptions, clock: any TimeSource
  ) throws(DriverError) { self.init(FakeWire(), options: options, clock: clock) }

  func start(pools: [PacketPool]) throws(DriverError) {
    if let startFailure { throw startFailure }
    self.pools = pools
    health = .running
  }

  func stop() {
    stops += 1
    health = .stopped
    for queue in 0..<queueCount { free(queue) }
    arrived = Array(repeating: [], count: queueCount)
  }

  func arrive(_ frame: [UInt8], queue: Int) {
    guard health == .running, link.status == .up else { return }
    guard arrived[queue].count < options.receiveDescriptors else {
      missed += 1
      return
    }
    arrived[queue].append(frame)
    if isArmed[queue] { queueEvents[queue].event.signal() }
  }

  func receive(queue: Int, into batch: inout PacketBatch, max: Int) -> Int {
    var n = 0
    while n < max, batch.count < batch.capacity, !arrived[queue].isEmpty, let packet = pools[queue].allocate() {
      let frame = arrived[queue].removeFirst()
      let size = packet.bufferCapacity
      _ = packet.fill(with: Array(frame.prefix(size)))
      for at in stride(from: size, to: frame.count, by: size) {
        guard let more = pools[queue].allocate() else { break }
        _ = more.fill(with: Array(frame[at..<min(frame.count, at + size)]))
        packet.append(more)
      }
      _ = batch.append(packet)
      n += 1
    }
    return n
  }

  func send(queue: Int, _ batch: inout PacketBatch) -> Int {
    if sending[queue].count >= transmitRoom { reclaim(queue: queue) }
    let room = Swift.max(0, transmitRoom - sending[queue].count)
    return unsafe batch.drain { slots, count in
      let n = min(room, count)
      for i in 0..<n {
        let record = unsafe slots[i]
        unsafe sending[queue].append(Sending(record: record))
        let packet = unsafe Packet(unsafe: record)
        let bytes = packet.bytes()
        _ = unsafe packet.intoRaw()
        if link.status == .up { wire.carry(bytes, from: self, queue: queue) }
      }
      return n
    }
  }

  func reclaim(queue: Int) { if !isStalled { free(queue) } }

  private func free(_ queue: Int) {
    for sent in sending[queue] { unsafe PoolState.put(sent.record) }
    sending[queue] = []
  }

  func eventDescriptor(queue: Int) -> Int32 { queueEvents[queue].event.descriptor }
  var controlDescriptor: Int32 { controlEvent.event.descriptor }

  func armInterrupt(queue: Int) -> Bool {
    armings += 1
    isArmed[queue] = true
    return !arrived[queue].isEmpty
  }
  func maskInterrupt(queue: Int) { isArmed[queue] = false }

  /// Something beside packets happened.
  func raise(_ events: DriverEvents) {
    pendingEvents.formUnion(events)
    controlEvent.event.signal()
  }

  func serviceControl() -> DriverEvents {
    defer { pendingEvents = [] }
    return pendingEvents
  }

  func tick() -> DriverEvents {
    ticks += 1
    return []
  }

  func setReceiveFilter(_ filter: ReceiveFilter) throws(DriverError) {}
  func setMACAddress(_ address: MACAddress) throws(DriverError) { throw .unsupported(card: "fake", what: "another MAC address") }
  func statistics() -> [Statistic] { [Statistic("rx_missed_errors", missed)] }
}

/// A function that does nothing but tell what is done to it.
final class FakeFunction: PCIFunction, DMAMapper {
  let name: String
  var identity = PCIIdentity(vendor: 0xfa4e, device: 1)
  var events: PCIFunctionEvents = []
  var isGone = false
  var closes = 0
  let event = FakeDriver.EventFDBox()

  init(_ name: String) { self.name = name }

  func readConfig8(at offset: Int) -> UInt8 { .max }
  func readConfig16(at offset: Int) -> UInt16 { .max }
  func readConfig32(at offset: Int) -> UInt32 { .max }
  func writeConfig16(_ value: UInt16, at offset: Int) {}
  func writeConfig32(_ value: UInt32, at offset: Int) {}
  func registers(bar: Int) throws(PCIFunctionError) -> any RegisterSpace { throw .noSuchBAR(function: name, bar: bar) }
  let interruptVectors = 0
  func enableInterrupts(_ descriptors: [Int32]) throws(PCIFunctionError) {}
  func disableInterrupts() {}
  var eventDescriptor: Int32 { event.event.descriptor }
  func takeEvents() -> PCIFunctionEvents {
    event.event.drain()
    defer { events = [] }
    return events
  }
  func setBusMaster(_ on: Bool) {}
  func reset() throws(PCIFunctionError) {}
  func close() { closes += 1 }

  let iovaRanges: [ClosedRange<UInt64>] = [0...(1 << 39 - 1)]
  let iovaPageSize = 4096
  func map(_ source: DMASource, at iova: IOVA) throws(DMAError) {}
  func unmap(_ iova: IOVA, count: Int) throws(DMAError) {}

  /// As the kernel does before it takes a card away.
  func pull() {
    events = .removalRequested
    event.event.signal()
  }
}

/// Two ports at the ends of one wire, over one memory of normal pages.
final class FakePair {
  let wire = FakeWire()
  let memory: PortMemory
  let drivers: [FakeDriver]
  let functions: [FakeFunction]
  let ports: [Port]

  init(_ options: PortOptions = PortOptions(), separateWires: Bool = false) throws {
    memory = try Self.memory()
    let wires = separateWires ? [wire, FakeWire()] : [wire, wire]
    drivers = wires.map { FakeDriver($0, options: options) }
    functions = drivers.indices.map { FakeFunction("fake-\(UInt32.random(in: 0 ... .max))-\($0)") }
    var ports: [Port] = []
    for (driver, function) in zip(drivers, functions) {
      ports.append(
        try Port(driver, function: function, claim: CardClaim(function.name), memory: memory, clock: MonotonicClock()))
    }
    self.ports = ports
  }

  static func memory() throws -> PortMemory {
    var options = MemoryOptions()
    options.kind = .normal
    options.buffers = 12288
    return try PortMemory(options)
  }

  func stream(run: UInt16 = 7) -> TestStream {
    TestStream(destination: ports[1].macAddress, source: ports[0].macAddress, run: run)
  }
}
