// A virtio network device: the device's side of OASIS "Virtual I/O Device (VIRTIO) Version 1.2",
// clauses 2.7 (split rings), 4.1 (PCI) and 5.1 (network). Clauses are named at each use.
//
//     driver ── registers (BAR 4) ──> VirtioNetModel ── wire ──> other model, TAP, file
//        └───── rings in memory <───────┘   │
//              (bus addresses only)         └ steering: RSS, or where a flow was sent from
//
// What happens when
// - Trapped: a notification leaves a mark, and `step` does what a device would do next.
// - Shared doorbells: the page of notify addresses is the driver's memory. The device asks for no
//   notifications and looks at every available ring in `step`.
// - Frames from the wire are taken while there are buffers for them. One that needs more buffers
//   than there are waits in the device.
//
// Invariants
// - Everything in memory is the driver's word: indexes, descriptors and lengths are read once and
//   checked. What breaks the standard is complained of, and the device then wants a reset
//   (DEVICE_NEEDS_RESET) and stands still until it gets one.
// - Nothing is allocated for a frame.
// - `bus.interruptKind` says whether MSI-X vectors or the ISR register tell the driver.

public import ModelKit
public import Platform
public import Wire

/// How a device is made.
public struct VirtioNetModelOptions: Sendable {
  /// Offered feature bits; those for several queues only with several pairs.
  public var features: UInt64 = VirtioModelFeature.usual
  /// Descriptors that each queue takes: a power of two up to 32768.
  public var queueSize = 256
  /// max_virtqueue_pairs: 1 to 256.
  public var pairs = 1
  /// MSI-X vectors, at most 128; nil for one a queue and one for the configuration.
  public var vectors: Int?
  /// Vectors that can be connected; fewer than there are makes the last ones fail.
  public var usableVectors = 1024
  public var address = MACAddress(0x52, 0x54, 0x00, 0x12, 0x34, 0x56)
  /// Reported where VIRTIO_NET_F_MTU is offered; bytes.
  public var mtu: UInt16 = 1500
  /// Reported where VIRTIO_NET_F_SPEED_DUPLEX is offered; megabits a second.
  public var speed: UInt32 = 10_000
  /// Bytes between the notify addresses of two queues.
  public var notifyMultiplier: UInt32 = 4
  /// 0x1041, or 0x1000 for a transitional device.
  public var deviceID: UInt16 = 0x1041
  /// Shows its structures in PCI capabilities; without them it is a legacy device.
  public var isModern = true
  /// Buffers are not used in order: sent ones in reverse within a step, receive buffers the newest
  /// of eight first.
  public var reversesCompletions = false

  public init() {}

  var vectorCount: Int { min(max(vectors ?? 2 * pairs + 1, 0), 128) }
}

/// The device.
@safe public final class VirtioNetModel: DeviceModel {
  public static let modelName = "virtio-net"

  public let options: VirtioNetModelOptions
  public let bus: ModelBus
  public let configuration: ModelConfiguration
  public let bars: [ModelBAR]
  public let vectors: Int
  public var wire: any ModelWire = VirtioUnpluggedWire()

  let interruptTable: BARMemory
  let features: UInt64
  var registers = VirtioModelRegisters()
  let queues: [VirtioModelQueue]
  let backlogs: [VirtioModelBacklog]
  var filter = VirtioModelFilter()
  let steering: VirtioModelSteering
  var gather = VirtioModelGather()
  let scratch = ScratchFrame(capacity: VirtioNetModel.largestFrame + 32)
  let header = ScratchFrame(capacity: 64)
  let segmenter = Segmenter()
  var finished: [UInt16] = []
  /// Longest frame that is taken from a driver, with header: 64 KiB of IP datagram, and more.
  static let largestFrame = 66 * 1024

  /// The cable is plugged in, as `setLink` left it.
  var isPlugged = true
  /// What the device does wrong: by queue, and for good.
  var misdeeds: [[VirtioModelFault]]
  var habits = VirtioModelHabits()

  /// What the device did.
  public internal(set) var counters = VirtioModelCounters()
  /// Notifications seen, by queue.
  public internal(set) var notifications: [Int: Int] = [:]
  /// Commands that came over the control queue: class and command. The last 1024.
  public internal(set) var commands: [[UInt8]] = []
  /// Resets by the device status register.
  public internal(set) var resets = 0

  /// - Throws: when there is no memory or no descriptor left for the registers.
  public init(_ options: VirtioNetModelOptions = VirtioNetModelOptions(), bus: ModelBus = ModelBus()) throws(SystemError) {
    var options = options
    options.pairs = min(max(options.pairs, 1), 256)
    self.options = options
    self.bus = bus
    features = options.pairs > 1 ? options.features : options.features & ~VirtioModelFeature.severalQueues
    vectors = options.vectorCount
    configuration = VirtioNetModel.makeConfiguration(options)
    let registerFile = try BARMemory(count: VirtioModelLayout.count, name: "virtio-net-registers")
    interruptTable = try BARMemory(count: VirtioModelLayout.interruptBARCount, name: "virtio-net-msix")
    let notify = VirtioModelLayout.notify..<VirtioModelLayout.notify + VirtioModelLayout.notifyCount
    bars = [
      ModelBAR(index: VirtioModelLayout.interruptBAR, memory: interruptTable),
      ModelBAR(index: VirtioModelLayout.bar, memory: registerFile, is64Bit: true, shared: [notify]),
    ]
    queues = (0..<(2 * options.pairs + 1)).map { VirtioModelQueue(index: $0, capacity: options.queueSize) }
    backlogs = (0..<options.pairs).map { _ in VirtioModelBacklog() }
    steering = VirtioModelSteering(pairs: options.pairs)
    misdeeds = Array(repeating: [], count: queues.count)
    registers.address = options.address
    connectAccessWindow()
  }

  // MARK: Reset

  /// Function-level reset.
  public func reset() {
    resetDevice()
    interruptTable.clear()
    registers.interruptStatus = 0
  }

  /// What a write of 0 to the device status does (clause 2.1). The cable stays as it is.
  func resetDevice() {
    let generation = registers.generation
    registers = VirtioModelRegisters()
    registers.generation = generation
    registers.address = options.address
    for queue in queues { queue.reset(capacity: options.queueSize) }
    for backlog in backlogs { backlog.removeAll() }
    filter = VirtioModelFilter()
    steering.reset()
    notifications = [:]
    habits.endAtReset()
  }

  // MARK: The test's side

  /// Features that were agreed on.
  public var acceptedFeatures: UInt64 { registers.driverFeatures }
  public var deviceStatus: UInt8 { registers.status }
  /// The filter as the driver set it.
  public var acceptsAll: Bool { filter.promiscuous }
  public var acceptsAllMulticast: Bool { filter.allMulticast }
  public var filterAddresses: [MACAddress] { filter.addresses }
  public var filterVLANs: Set<UInt16> { filter.vlans }
  /// The address as the driver set it.
  public var address: MACAddress { registers.address }
  public var activePairs: Int { steering.activePairs }
  /// Frames that were taken from the wire and wait for buffers.
  public var waitingFrames: Int { backlogs.reduce(0) { $0 + $1.count } }

  /// Plugs the cable in or out, and tells the driver.
  public func setLink(up: Bool) {
    isPlugged = up
    noticeLink(force: true)
  }

  /// Asks the driver for a reset (DEVICE_NEEDS_RESET); the rings stand still until then.
  public func needReset() {
    counters.needsReset += 1
    registers.status |= VirtioModelStatus.needsReset
    changeConfiguration()
  }

  /// Asks the driver to tell the network where it is (VIRTIO_NET_S_ANNOUNCE), as after a migration.
  public func announce() {
    guard has(VirtioModelFeature.announce) else { return }
    registers.wantsAnnouncement = true
    changeConfiguration()
  }

  func has(_ feature: UInt64) -> Bool { registers.driverFeatures & feature != 0 }
  /// DRIVER_OK, no reset wanted, and allowed to reach memory.
  var isRunning: Bool {
    registers.status & VirtioModelStatus.driverOK != 0 && registers.status & VirtioModelStatus.needsReset == 0
      && bus.memory.isBusMaster && !habits.isGone
  }
  func complain(_ text: @autoclosure () -> String) { bus.complain(text()) }

  /// Sees whether the link is what the driver was told.
  func noticeLink(force: Bool = false) {
    let up = isPlugged && wire.isUp
    guard up != registers.linkUp || force else { return }
    registers.linkUp = up
    changeConfiguration()
  }
}

/// No cable at all.
private final class VirtioUnpluggedWire: ModelWire {
  var isUp: Bool { false }
  func transmit(_ frame: UnsafeRawBufferPointer, queue: Int, at now: UInt64) {}
  func receive(at now: UInt64, _ body: (UnsafeRawBufferPointer, WireMarks) -> Void) -> Bool { false }
}

/// What a device did, from its own point of view.
public struct VirtioModelCounters: Equatable, Sendable {
  public var sentFrames = 0
  public var sentBytes = 0
  /// Frames that were cut from larger ones.
  public var segments = 0
  /// Checksums written into sent frames.
  public var checksums = 0
  /// Frames to send that were thrown away: too long, a header that makes no sense, link down.
  public var sentDropped = 0
  public var receivedFrames = 0
  public var receivedBytes = 0
  /// Kept out by the receive filter.
  public var filtered = 0
  /// Damaged on the wire.
  public var damaged = 0
  /// No buffer came in time.
  public var noBuffer = 0
  /// Longer than the buffers there are.
  public var tooLong = 0
  /// No driver was there.
  public var unattended = 0
  /// Accesses to memory that failed.
  public var memoryErrors = 0
  public var commands = 0
  public var refusedCommands = 0
  /// Times that DEVICE_NEEDS_RESET was set.
  public var needsReset = 0

  public init() {}
}
