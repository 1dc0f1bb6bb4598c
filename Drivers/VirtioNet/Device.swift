// The device as a whole: attach, and the packet path's entry.

public import DMAMemory
public import DeviceIO
public import DriverKit
public import NetmapCore
public import Packet
public import VirtioTransport
public import Wire

/// The driver of one virtio network device.
@safe public final class VirtioNetDriver: NetDriver {
  let transport: any VirtqueueTransport
  let mapper: any DMAMapper
  let clock: any TimeSource
  let allocator: NetmapAllocator
  let card: String
  let queues: QueueSet
  let interrupts: InterruptSet
  /// `queues.pairs`, where the packet path finds it with one load.
  let pairs: UnsafeMutablePointer<QueuePair>

  public internal(set) var options: PortOptions
  /// What was agreed on at attach; later resets agree on the same.
  var features: VirtioFeatures
  public let queueCount: Int
  /// The index of the control queue; nil without one.
  let controlIndex: Int?
  /// The address that the device had at attach.
  let ownAddress: MACAddress
  public internal(set) var macAddress: MACAddress
  public internal(set) var link = LinkState(status: .unknown)
  var state = PortHealth.stopped
  var pools: [PacketPool] = []
  var filter = ReceiveFilter()
  var programmed = ProgrammedFilter()
  var counters = DeviceCounters()

  public convenience init(
    _ function: CardFunction, allocator: NetmapAllocator, options: PortOptions, clock: any TimeSource
  ) throws(DriverError) {
    let transport: VirtioPCITransport
    do { transport = try VirtioPCITransport(function) } catch { throw DriverError(error) }
    try self.init(over: transport, mapper: function, allocator: allocator, options: options, clock: clock)
  }

  /// Attaches over any transport.
  /// - Parameter mapper: makes the allocator's memory reachable for the device.
  public init(
    over transport: any VirtqueueTransport, mapper: any DMAMapper, allocator: NetmapAllocator, options: PortOptions,
    clock: any TimeSource
  ) throws(DriverError) {
    let probe = try VirtioNetProbe(transport, options: options, bufferSize: allocator.bufferSize, clock: clock)
    self.transport = transport
    self.mapper = mapper
    self.clock = clock
    self.allocator = allocator
    card = transport.name
    features = probe.features
    queueCount = options.queues
    controlIndex = probe.controlIndex
    ownAddress = probe.address
    macAddress = probe.address
    filter.promiscuous = options.promiscuous
    self.options = options
    self.options.receiveDescriptors = probe.receiveSize
    self.options.transmitDescriptors = probe.transmitSize
    interrupts = try InterruptSet(queues: options.queues, vectors: transport.interruptVectors, card: transport.name)
    do { try allocator.attach(mapper) } catch { throw .allocator("\(error)") }
    do {
      queues = try QueueSet(probe, pairs: options.queues, allocator: allocator, mapper: mapper, card: transport.name)
    } catch {
      try? allocator.detach(mapper)
      throw error
    }
    unsafe pairs = queues.pairs
  }

  deinit {
    stop()
    queues.releaseMemory()
    // Fails only when the mapper is gone with its device: nothing is mapped then.
    try? allocator.detach(mapper)
  }

  public var capabilities: DriverCapabilities {
    var can: DriverCapabilities = [.vlanInsert]
    if features.contains(.controlReceive) { can.insert(.multicastFilter) }
    if features.contains(.controlQueue) { can.insert(.vlanFilter) }
    if features.contains(.controlMAC) { can.insert(.setMACAddress) }
    if features.contains(.mergeableBuffers) { can.insert(.jumboFrames) }
    if features.contains(.checksum) { can.insert(.transmitChecksum) }
    if features.contains([.hostTSO4, .hostTSO6]) { can.insert(.transmitSegmentation) }
    return can
  }

  public var maximumFrame: Int { options.mtu + Ethernet.headerSize + Ethernet.vlanTagSize }

  // MARK: Packets

  // SAFETY: of the accesses below: `queue` was checked against the count of pairs, which live as
  // long as the driver; a stopped queue has no pool and does nothing.

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public func receive(queue: Int, into batch: inout PacketBatch, max: Int) -> Int {
    guard queue >= 0, queue < queueCount else { return 0 }
    return unsafe pairs[queue].receive.receive(into: &batch, max: max)
  }

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public func send(queue: Int, _ batch: inout PacketBatch) -> Int {
    guard queue >= 0, queue < queueCount else { return 0 }
    return unsafe pairs[queue].transmit.send(&batch)
  }

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  public func reclaim(queue: Int) {
    guard queue >= 0, queue < queueCount else { return }
    unsafe pairs[queue].transmit.reclaim()
  }
}
