// A virtio network device in this process, for tests: the device's side of OASIS "Virtual I/O
// Device (VIRTIO) Version 1.2", clauses 2.7 (split rings), 4.1 (PCI) and 5.1 (network).
//
//   test ── inject(frame) ─┐                       ┌─> driver (registers, doorbells)
//                          ├─ VirtioNetModel ──────┤
//   test <── sent[queue] ──┘      step()           └─> rings in memory, through an IOMMU
//
// Nothing happens by itself: doorbells leave a mark, and `step` does what a device would do next.
// So a run repeats exactly. What a driver does against the standard is written to `complaints`;
// `misbehave` makes the device itself do so.
//
// Bus addresses go through a table of mappings, as behind an IOMMU: an address that is not mapped
// is a complaint, and a pointer that was given as an address fails at once.

public import DMAMemory
public import PCI
public import Wire

/// How a device model is made.
public struct VirtioNetModelOptions: Sendable {
  /// Offered feature bits.
  public var features: UInt64 = VirtioModelFeature.usual
  /// Descriptors that each queue takes.
  public var queueSize = 256
  /// max_virtqueue_pairs.
  public var pairs = 1
  /// MSI-X vectors.
  public var vectors = 3
  /// Vectors that can be connected; fewer than `vectors` makes the last ones fail.
  public var usableVectors = 64
  public var address = MACAddress(0x52, 0x54, 0x00, 0x12, 0x34, 0x56)
  public var mtu: UInt16 = 1500
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
}

/// Feature bits by the standard's numbers (clauses 5.1.3 and 6).
public enum VirtioModelFeature {
  public static let mtu: UInt64 = 1 << 3
  public static let mac: UInt64 = 1 << 5
  public static let mergeableBuffers: UInt64 = 1 << 15
  public static let status: UInt64 = 1 << 16
  public static let controlQueue: UInt64 = 1 << 17
  public static let controlReceive: UInt64 = 1 << 18
  public static let controlVLAN: UInt64 = 1 << 19
  public static let multiqueue: UInt64 = 1 << 22
  public static let controlMAC: UInt64 = 1 << 23
  public static let eventIndex: UInt64 = 1 << 29
  public static let version1: UInt64 = 1 << 32
  public static let accessPlatform: UInt64 = 1 << 33
  /// What QEMU's device offers behind an IOMMU, as far as this model knows it.
  public static let usual: UInt64 =
    mac | mergeableBuffers | status | controlQueue | controlReceive | controlVLAN | controlMAC | eventIndex | version1
    | accessPlatform
}

/// What a model does wrong, once, at the next opportunity on a queue.
public enum VirtioModelFault: Sendable {
  /// Uses a buffer under this id.
  case id(UInt32)
  /// Uses the same buffer twice.
  case duplicate
  /// Reports this length instead of the right one.
  case length(UInt32)
  /// Moves the used index this much too far.
  case indexJump(UInt16)
  /// Writes this number of buffers into a received frame's header.
  case bufferCount(UInt16)
}

/// The device.
@safe public final class VirtioNetModel: PCIFunction, DMAMapper {
  public let name: String
  public let options: VirtioNetModelOptions
  let memory = VirtioModelMemory()
  var registers = VirtioModelRegisters()
  var queues: [VirtioModelQueue]
  var filter = VirtioModelFilter()
  var backlog: [[[UInt8]]]
  var faults: [Int: [VirtioModelFault]] = [:]
  var eventfds: [Int32] = []
  /// The page of notify addresses: the driver stores into it.
  let notifyPage: UnsafeMutableRawPointer

  /// Frames that the driver has sent, for each queue pair.
  public internal(set) var sent: [[[UInt8]]]
  /// What the driver did against the standard.
  public internal(set) var complaints: [String] = []
  /// Interrupts raised, by vector.
  public internal(set) var interrupts: [Int]
  /// Notifications seen, by queue.
  public internal(set) var notifications: [Int: Int] = [:]
  /// Commands that came over the control queue: class and command.
  public internal(set) var commands: [[UInt8]] = []
  /// Frames that the receive filter kept out.
  public internal(set) var filtered = 0
  public internal(set) var busMaster = false
  /// Resets by the device status register.
  public internal(set) var resets = 0
  /// The device was pulled out: all ones everywhere.
  public var isRemoved = false
  /// The control queue does not answer.
  public var ignoresCommands = false
  /// The control queue refuses every command.
  public var refusesCommands = false
  /// The device status never reads 0 after a reset.
  public var ignoresReset = false
  /// FEATURES_OK is never accepted.
  public var refusesFeatures = false
  /// Sent frames stay on the ring.
  public var stopsTransmitting = false

  public init(name: String = "model:virtio-net", _ options: VirtioNetModelOptions = VirtioNetModelOptions()) {
    self.name = name
    self.options = options
    queues = (0..<(2 * options.pairs + 1)).map { _ in VirtioModelQueue(capacity: options.queueSize) }
    backlog = Array(repeating: [], count: options.pairs)
    sent = Array(repeating: [], count: options.pairs)
    interrupts = Array(repeating: 0, count: options.vectors)
    unsafe notifyPage = .allocate(byteCount: VirtioModelBAR.notifyCount, alignment: 4096)
    registers.linkUp = true
    registers.address = options.address
    clearNotifications()
  }

  deinit { unsafe notifyPage.deallocate() }

  // MARK: The test's side

  /// Puts a frame on the wire towards the driver. It is delivered by `step`, when buffers are there.
  public func inject(_ frame: [UInt8], queue: Int = 0) { backlog[queue].append(frame) }

  /// Frames that wait for buffers.
  public func waiting(queue: Int = 0) -> Int { backlog[queue].count }

  public func misbehave(_ fault: VirtioModelFault, queue: Int) { faults[queue, default: []].append(fault) }

  /// Frames sent since the last call.
  public func takeSent(queue: Int = 0) -> [[UInt8]] {
    defer { sent[queue] = [] }
    return sent[queue]
  }

  /// Changes the link and tells the driver.
  public func setLink(up: Bool) {
    registers.linkUp = up
    changeConfiguration()
  }

  /// Asks the driver for a reset (DEVICE_NEEDS_RESET); the rings stand still until then.
  public func needReset() {
    registers.status |= 0x40
    changeConfiguration()
  }

  func changeConfiguration() {
    registers.generation &+= 1
    if registers.status & 4 != 0 { raise(vector: registers.configurationVector) }
  }

  /// The filter as the driver set it.
  public var acceptsAll: Bool { filter.promiscuous }
  public var acceptsAllMulticast: Bool { filter.allMulticast }
  public var filterAddresses: [MACAddress] { filter.addresses }
  public var filterVLANs: Set<UInt16> { filter.vlans }
  /// The address as the driver set it.
  public var address: MACAddress { registers.address }
  public var activePairs: Int { registers.activePairs }
  /// Features that were agreed on.
  public var acceptedFeatures: UInt64 { registers.driverFeatures }
  public var deviceStatus: UInt8 { registers.status }
  /// Bytes mapped for DMA.
  public var mappedBytes: Int { memory.bytes }

  func has(_ feature: UInt64) -> Bool { registers.driverFeatures & feature != 0 }

  func complain(_ text: String) { complaints.append(text) }

  // MARK: Memory (DMAMapper)

  public var iovaRanges: [ClosedRange<UInt64>] { [0x10_0000...0x7f_ffff_ffff] }
  public var iovaPageSize: Int { 4096 }
  public func map(_ source: DMASource, at iova: IOVA) throws(DMAError) { try memory.map(source, at: iova) }
  public func unmap(_ iova: IOVA, count: Int) throws(DMAError) {
    if registers.status & 4 != 0 && busMaster { complain("memory unmapped while the device runs") }
    try memory.unmap(iova, count: count)
  }
}
