// VirtioTransport: virtqueues, and the ways to reach a device that serves them.
//
//     driver ──> VirtqueueTransport ──> VirtioPCITransport ──> PCIFunction (VFIO, model)
//       │            (handshake, queues, configuration)   a vhost-user front end comes in beside it
//       └─────> SplitQueue ──> descriptor memory <── device (DMA)
//                  └─────────> VirtioNotifier (doorbell or eventfd)
//
// The control path goes through the transport protocol. The packet path holds a `SplitQueue` and
// its `VirtioNotifier`, and never touches the transport.
//
// Invariants
// - Addresses given to a device are `IOVA`s: VIRTIO_F_ACCESS_PLATFORM is required wherever an
//   IOMMU translates.
// - Whatever the device can write is read once and checked against a private copy: used indexes
//   here, descriptor ids and lengths in the driver that owns the queue.
// - Every wait has a bound; a device that answers all ones is gone.
//
// The source is "Virtual I/O Device (VIRTIO) Version 1.2" of OASIS; clauses are named at each use.

public import DMAMemory
public import DeviceIO

/// Feature bits that belong to no device type (virtio 1.2, clause 6). Device types add their own.
public struct VirtioFeatures: OptionSet, Hashable, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  /// VIRTIO_F_INDIRECT_DESC: a descriptor may point to a table of descriptors.
  public static let indirectDescriptors = VirtioFeatures(rawValue: 1 << 28)
  /// VIRTIO_F_EVENT_IDX: each side says at which index it wants to hear again.
  public static let eventIndex = VirtioFeatures(rawValue: 1 << 29)
  /// VIRTIO_F_VERSION_1: the device follows the standard, not its legacy drafts.
  public static let version1 = VirtioFeatures(rawValue: 1 << 32)
  /// VIRTIO_F_ACCESS_PLATFORM: the device's addresses go through the platform's IOMMU.
  public static let accessPlatform = VirtioFeatures(rawValue: 1 << 33)
  /// VIRTIO_F_RING_PACKED.
  public static let packedRing = VirtioFeatures(rawValue: 1 << 34)
  /// VIRTIO_F_IN_ORDER: buffers are used in the order in which they were made available.
  public static let inOrder = VirtioFeatures(rawValue: 1 << 35)
  /// VIRTIO_F_ORDER_PLATFORM: the device needs the barriers of real hardware.
  public static let orderPlatform = VirtioFeatures(rawValue: 1 << 36)

  /// The standard's names of the transport's bits that are set, for messages.
  public var names: [String] {
    let known: [(VirtioFeatures, String)] = [
      (.indirectDescriptors, "VIRTIO_F_INDIRECT_DESC"), (.eventIndex, "VIRTIO_F_EVENT_IDX"),
      (.version1, "VIRTIO_F_VERSION_1"), (.accessPlatform, "VIRTIO_F_ACCESS_PLATFORM"),
      (.packedRing, "VIRTIO_F_RING_PACKED"), (.inOrder, "VIRTIO_F_IN_ORDER"),
      (.orderPlatform, "VIRTIO_F_ORDER_PLATFORM"),
    ]
    return known.filter { contains($0.0) }.map(\.1)
  }
}

/// The device status field (virtio 1.2, clause 2.1).
public struct VirtioStatus: OptionSet, Hashable, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  public static let acknowledge = VirtioStatus(rawValue: 1)
  public static let driver = VirtioStatus(rawValue: 2)
  public static let driverOK = VirtioStatus(rawValue: 4)
  public static let featuresOK = VirtioStatus(rawValue: 8)
  /// DEVICE_NEEDS_RESET: the device met an error that only a reset mends.
  public static let needsReset = VirtioStatus(rawValue: 64)
  /// The driver has given up on the device.
  public static let failed = VirtioStatus(rawValue: 128)
  /// All ones: nothing answers any more.
  public var isGone: Bool { rawValue == 0xff }
}

/// Where the three parts of a split ring lie on the device's bus (virtio 1.2, clause 2.7).
public struct QueueAddresses: Hashable, Sendable {
  public var descriptors: IOVA
  /// The available ring, written by the driver.
  public var driver: IOVA
  /// The used ring, written by the device.
  public var device: IOVA

  public init(descriptors: IOVA, driver: IOVA, device: IOVA) {
    self.descriptors = descriptors
    self.driver = driver
    self.device = device
  }
}

/// A virtio device as its driver reaches it: PCI, or a vhost-user back end.
///
/// The order of calls is the standard's (clause 3.1.1): `reset`, `negotiate`, interrupts, queues,
/// `writeStatus` with DRIVER_OK. After a reset everything is set up anew.
public protocol VirtqueueTransport: AnyObject {
  /// What to call the device in messages.
  var name: String { get }
  /// Without these the transport cannot work at all.
  var requiredFeatures: VirtioFeatures { get }
  /// What the device offers now.
  func readOfferedFeatures() -> VirtioFeatures
  func writeAcceptedFeatures(_ features: VirtioFeatures)
  func readStatus() -> VirtioStatus
  func writeStatus(_ status: VirtioStatus)
  /// Puts the device into its first state and waits, at most a second, until it is there.
  func reset(clock: any TimeSource) throws(VirtioError)

  /// How many queues the device has.
  func queueCount() -> Int
  /// The longest ring that queue `index` takes, in descriptors; 0 when there is no such queue.
  func queueCapacity(_ index: Int) -> Int
  /// Tells the device where queue `index` lies, and switches the queue on.
  /// - Parameters:
  ///   - size: descriptors; a power of two, at most `queueCapacity`.
  ///   - vector: which interrupt it raises; nil for none.
  /// - Returns: how the device is told of new buffers.
  func configure(queue index: Int, size: Int, at addresses: QueueAddresses, vector: Int?) throws(VirtioError)
    -> VirtioNotifier

  /// How many interrupts can be told apart; 0 when there are none.
  var interruptVectors: Int { get }
  /// Sends vector i to the eventfd `descriptors[i]`.
  func connectInterrupts(_ descriptors: [Int32]) throws(VirtioError)
  func disconnectInterrupts()
  /// Which vector reports configuration changes; nil for none.
  func setConfigurationVector(_ vector: Int?) throws(VirtioError)
  /// Lets the device reach memory, or keeps it away from memory.
  func allowDMA(_ allowed: Bool)

  /// The device's own configuration structure; nil when it has none.
  var configuration: (any RegisterSpace)? { get }
  /// Changes whenever the configuration structure does (clause 2.5).
  func configurationGeneration() -> UInt8
  /// True once the device was removed or answers all ones.
  var isGone: Bool { get }
}
