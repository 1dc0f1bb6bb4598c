// A virtio device behind PCI (virtio 1.2, clause 4.1): modern devices, and transitional ones
// through their modern structures.

import DMAMemory
public import DeviceIO
public import PCI

/// The common configuration structure (clause 4.1.4.3): byte offsets.
enum CommonConfiguration {
  static let deviceFeatureSelect = 0
  static let deviceFeature = 4
  static let driverFeatureSelect = 8
  static let driverFeature = 12
  static let configurationVector = 16
  static let queueCount = 18
  static let deviceStatus = 20
  static let configurationGeneration = 21
  static let queueSelect = 22
  static let queueSize = 24
  static let queueVector = 26
  static let queueEnable = 28
  static let queueNotifyOffset = 30
  static let queueDescriptors = 32
  static let queueDriver = 40
  static let queueDevice = 48
  /// Bytes up to the end of the fields above.
  static let count = 56
  /// VIRTIO_MSI_NO_VECTOR: written to switch a vector off, read back when one could not be connected.
  static let noVector: UInt16 = 0xffff
}

/// The control path of a virtio device on PCI. One thread at a time.
public final class VirtioPCITransport: VirtqueueTransport {
  private let function: any PCIFunction
  private let common: any RegisterSpace
  private let notify: any RegisterSpace
  private let notifyMultiplier: Int
  public let configuration: (any RegisterSpace)?
  public var name: String { function.name }
  /// Behind an IOMMU, addresses are the platform's: a device that ignores it would reach wrong memory.
  public let requiredFeatures: VirtioFeatures = [.version1, .accessPlatform]

  /// Finds the device's structures.
  /// - Throws: `noStructure` for a device that speaks the legacy interface only, or whose
  ///   structures lie outside their BARs.
  public init(_ function: any PCIFunction) throws(VirtioError) {
    self.function = function
    let structures = function.virtioStructures()
    common = try Self.space(function, structures, .common, atLeast: CommonConfiguration.count, "common configuration").0
    let (notify, structure) = try Self.space(function, structures, .notify, atLeast: 2, "notification")
    self.notify = notify
    notifyMultiplier = structure.notifyMultiplier
    configuration = try? Self.space(function, structures, .device, atLeast: 1, "device configuration").0
  }

  /// The first usable structure of a kind.
  private static func space(
    _ function: any PCIFunction, _ structures: [VirtioPCIStructure], _ kind: VirtioPCIStructure.Kind, atLeast: Int,
    _ what: String
  ) throws(VirtioError) -> (any RegisterSpace, VirtioPCIStructure) {
    for structure in structures where structure.kind == kind && structure.count >= atLeast {
      let registers: any RegisterSpace
      do { registers = try function.registers(bar: structure.bar) } catch { continue }
      if let window = SubSpace(registers, offset: structure.offset, count: structure.count) {
        return (window, structure)
      }
    }
    if function.isGone { throw .gone(device: function.name) }
    throw .noStructure(device: function.name, structure: what)
  }

  // MARK: Status and features

  public func readOfferedFeatures() -> VirtioFeatures {
    common.write32(0, at: CommonConfiguration.deviceFeatureSelect)
    let low = common.read32(at: CommonConfiguration.deviceFeature)
    common.write32(1, at: CommonConfiguration.deviceFeatureSelect)
    let high = common.read32(at: CommonConfiguration.deviceFeature)
    return VirtioFeatures(rawValue: UInt64(high) << 32 | UInt64(low))
  }

  public func writeAcceptedFeatures(_ features: VirtioFeatures) {
    common.write32(0, at: CommonConfiguration.driverFeatureSelect)
    common.write32(UInt32(truncatingIfNeeded: features.rawValue), at: CommonConfiguration.driverFeature)
    common.write32(1, at: CommonConfiguration.driverFeatureSelect)
    common.write32(UInt32(features.rawValue >> 32), at: CommonConfiguration.driverFeature)
  }

  public func readStatus() -> VirtioStatus {
    VirtioStatus(rawValue: common.read8(at: CommonConfiguration.deviceStatus))
  }

  public func writeStatus(_ status: VirtioStatus) {
    common.write8(status.rawValue, at: CommonConfiguration.deviceStatus)
  }

  public func reset(clock: any TimeSource) throws(VirtioError) {
    writeStatus([])
    // The reset is done when the status reads 0 (clause 4.1.4.3.2).
    let done = clock.poll(within: 1_000_000, every: 100) {
      let status = self.readStatus()
      return status.rawValue == 0 || status.isGone
    }
    if isGone { throw .gone(device: name) }
    guard done else { throw .timeout(device: name, waitingFor: "the device status to read 0 after a reset") }
  }

  public var isGone: Bool { function.isGone || readStatus().isGone }

  // MARK: Queues

  public func queueCount() -> Int {
    let count = common.read16(at: CommonConfiguration.queueCount)
    return count == 0xffff ? 0 : Int(count)
  }

  public func queueCapacity(_ index: Int) -> Int {
    guard index >= 0, index < queueCount() else { return 0 }
    common.write16(UInt16(index), at: CommonConfiguration.queueSelect)
    // 32768 is the longest ring there is (clause 2.7).
    let size = Int(common.read16(at: CommonConfiguration.queueSize))
    return size <= 32768 ? size : 0
  }

  public func configure(queue index: Int, size: Int, at addresses: QueueAddresses, vector: Int?) throws(VirtioError)
    -> VirtioNotifier
  {
    let capacity = queueCapacity(index)
    guard size > 0, size <= capacity, size & (size - 1) == 0 else {
      if isGone { throw .gone(device: name) }
      throw .queue(device: name, index: index, problem: "\(size) descriptors were asked for, it takes up to \(capacity)")
    }
    common.write16(UInt16(size), at: CommonConfiguration.queueSize)
    write64(addresses.descriptors, at: CommonConfiguration.queueDescriptors)
    write64(addresses.driver, at: CommonConfiguration.queueDriver)
    write64(addresses.device, at: CommonConfiguration.queueDevice)
    try connect(vector, at: CommonConfiguration.queueVector, what: "queue \(index)")
    let notifier = try notifier(queue: index)
    common.write16(1, at: CommonConfiguration.queueEnable)
    return notifier
  }

  /// Address: notify offset times multiplier, inside the structure (clause 4.1.4.4).
  private func notifier(queue index: Int) throws(VirtioError) -> VirtioNotifier {
    let offset = Int(common.read16(at: CommonConfiguration.queueNotifyOffset)) * notifyMultiplier
    guard offset <= notify.count - 2, let doorbell = notify.doorbell(at: offset) else {
      throw .queue(device: name, index: index, problem: "its notify address at \(offset) lies outside the card's memory")
    }
    return VirtioNotifier(doorbell: doorbell, queue: UInt16(index))
  }

  private func write64(_ address: IOVA, at offset: Int) {
    common.write32(UInt32(truncatingIfNeeded: address.rawValue), at: offset)
    common.write32(UInt32(address.rawValue >> 32), at: offset + 4)
  }

  // MARK: Interrupts and DMA

  public var interruptVectors: Int { function.interruptVectors }

  public func connectInterrupts(_ descriptors: [Int32]) throws(VirtioError) {
    do { try function.enableInterrupts(descriptors) } catch { throw .function(error) }
  }

  public func disconnectInterrupts() { function.disableInterrupts() }

  public func setConfigurationVector(_ vector: Int?) throws(VirtioError) {
    try connect(vector, at: CommonConfiguration.configurationVector, what: "configuration changes")
  }

  /// Writes a vector and reads it back: NO_VECTOR says that it could not be had (clause 4.1.5.1.2).
  private func connect(_ vector: Int?, at offset: Int, what: String) throws(VirtioError) {
    let value = vector.map { UInt16(truncatingIfNeeded: $0) } ?? CommonConfiguration.noVector
    common.write16(value, at: offset)
    guard let vector, common.read16(at: offset) != value else { return }
    throw isGone ? .gone(device: name) : .vector(device: name, vector: vector, what: what)
  }

  public func allowDMA(_ allowed: Bool) { function.setBusMaster(allowed) }

  public func configurationGeneration() -> UInt8 { common.read8(at: CommonConfiguration.configurationGeneration) }
}
