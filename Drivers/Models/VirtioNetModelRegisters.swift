// What the driver sees over PCI: configuration space, and the structures in BAR 4.

import CRingway
public import DeviceIO
public import PCI
import Wire

/// The device's registers as they stand.
struct VirtioModelRegisters {
  var status: UInt8 = 0
  var deviceFeatureSelect: UInt32 = 0
  var driverFeatureSelect: UInt32 = 0
  var driverFeatures: UInt64 = 0
  var configurationVector: UInt16 = 0xffff
  var queueSelect: UInt16 = 0
  var generation: UInt8 = 0
  var linkUp = true
  var address = MACAddress(rawValue: 0)
  var activePairs = 1
}

/// BAR 4: where each structure lies.
final class VirtioModelBAR: RegisterSpace {
  static let commonOffset = 0x0000
  static let interruptOffset = 0x1000
  static let deviceOffset = 0x2000
  static let notifyOffset = 0x3000
  static let notifyCount = 0x1000
  let count = 0x4000
  private unowned let model: VirtioNetModel

  init(_ model: VirtioNetModel) { self.model = model }

  func read8(at offset: Int) -> UInt8 { UInt8(truncatingIfNeeded: model.readBAR(offset, 1)) }
  func read16(at offset: Int) -> UInt16 { UInt16(truncatingIfNeeded: model.readBAR(offset, 2)) }
  func read32(at offset: Int) -> UInt32 { UInt32(truncatingIfNeeded: model.readBAR(offset, 4)) }
  func write8(_ value: UInt8, at offset: Int) { model.writeBAR(offset, 1, UInt64(value)) }
  func write16(_ value: UInt16, at offset: Int) { model.writeBAR(offset, 2, UInt64(value)) }
  func write32(_ value: UInt32, at offset: Int) { model.writeBAR(offset, 4, UInt64(value)) }
  func doorbell(at offset: Int) -> Doorbell? {
    let at = offset - Self.notifyOffset
    guard at >= 0, at <= Self.notifyCount - 4, at & 3 == 0 else { return nil }
    // SAFETY: inside the page, which lives as long as the model.
    return unsafe Doorbell(unsafe: model.notifyPage + at)
  }
}

extension VirtioNetModel {
  // MARK: PCI configuration space

  public var identity: PCIIdentity {
    PCIIdentity(vendor: 0x1af4, device: options.deviceID, subsystemVendor: 0x1af4, subsystemDevice: 0x1100, revision: 1)
  }

  /// Capabilities at 0x40 (a foreign one), 0x50 common, 0x60 interrupt, 0x70 device, 0x80 notify.
  private var configuration: [UInt8] {
    var space = [UInt8](repeating: 0, count: 256)
    func put32(_ value: Int, at offset: Int) {
      for i in 0..<4 { space[offset + i] = UInt8(truncatingIfNeeded: value >> (8 * i)) }
    }
    put32(Int(options.deviceID) << 16 | 0x1af4, at: 0)
    guard options.isModern else { return space }
    space[6] = 0x10
    space[0x34] = 0x40
    space[0x40] = 0x11
    space[0x41] = 0x50
    let structures = [
      (0x50, 0x60, 16, 1, VirtioModelBAR.commonOffset, 64), (0x60, 0x70, 16, 3, VirtioModelBAR.interruptOffset, 4),
      (0x70, 0x80, 16, 4, VirtioModelBAR.deviceOffset, 24),
      (0x80, 0x00, 20, 2, VirtioModelBAR.notifyOffset, VirtioModelBAR.notifyCount),
    ]
    for (at, next, length, kind, offset, count) in structures {
      space[at] = 9
      space[at + 1] = UInt8(next)
      space[at + 2] = UInt8(length)
      space[at + 3] = UInt8(kind)
      space[at + 4] = 4
      put32(offset, at: at + 8)
      put32(count, at: at + 12)
    }
    put32(Int(options.notifyMultiplier), at: 0x90)
    return space
  }

  private func readConfiguration(_ offset: Int, _ width: Int) -> UInt32 {
    guard !isRemoved, offset >= 0, offset + width <= 256 else { return .max }
    let space = configuration
    return (0..<width).reduce(0) { $0 | UInt32(space[offset + $1]) << UInt32(8 * $1) }
  }

  public func readConfig8(at offset: Int) -> UInt8 { UInt8(truncatingIfNeeded: readConfiguration(offset, 1)) }
  public func readConfig16(at offset: Int) -> UInt16 { UInt16(truncatingIfNeeded: readConfiguration(offset, 2)) }
  public func readConfig32(at offset: Int) -> UInt32 { readConfiguration(offset, 4) }
  public func writeConfig16(_ value: UInt16, at offset: Int) {}
  public func writeConfig32(_ value: UInt32, at offset: Int) {}

  public func registers(bar: Int) throws(PCIFunctionError) -> any RegisterSpace {
    guard bar == 4 else { throw .noSuchBAR(function: name, bar: bar) }
    return VirtioModelBAR(self)
  }

  // MARK: Interrupts and the rest of a PCI function

  public var interruptVectors: Int { options.vectors }

  public func enableInterrupts(_ descriptors: [Int32]) throws(PCIFunctionError) {
    guard descriptors.count <= options.vectors else {
      throw .tooFewVectors(function: name, wanted: descriptors.count, available: options.vectors)
    }
    eventfds = descriptors
  }
  public func disableInterrupts() { eventfds = [] }
  public var eventDescriptor: Int32 { -1 }
  public func takeEvents() -> PCIFunctionEvents { [] }
  public func setBusMaster(_ on: Bool) { busMaster = on }
  public func reset() throws(PCIFunctionError) {
    if isRemoved { throw .gone(function: name) }
    resetDevice()
    busMaster = false
    eventfds = []
  }
  public var isGone: Bool { isRemoved }
  public func close() {
    resetDevice()
    busMaster = false
    eventfds = []
  }

  func raise(vector: UInt16) {
    guard vector != 0xffff, Int(vector) < interrupts.count, !isRemoved else { return }
    interrupts[Int(vector)] += 1
    if Int(vector) < eventfds.count { rw_signal_event(eventfds[Int(vector)]) }
  }

  // MARK: BAR 4

  func readBAR(_ offset: Int, _ width: Int) -> UInt64 {
    if isRemoved { return .max }
    switch offset {
    case VirtioModelBAR.commonOffset..<(VirtioModelBAR.commonOffset + 64): return readCommon(offset, width)
    case VirtioModelBAR.deviceOffset..<(VirtioModelBAR.deviceOffset + 24):
      let bytes = deviceConfiguration
      let at = offset - VirtioModelBAR.deviceOffset
      guard at + width <= bytes.count else { return .max }
      return (0..<width).reduce(0) { $0 | UInt64(bytes[at + $1]) << UInt64(8 * $1) }
    default: return 0
    }
  }

  /// Clause 5.1.4.
  private var deviceConfiguration: [UInt8] {
    var bytes = registers.address.bytes
    func add16(_ value: Int) { bytes += [UInt8(truncatingIfNeeded: value), UInt8(truncatingIfNeeded: value >> 8)] }
    add16(registers.linkUp ? 1 : 0)
    add16(options.pairs)
    add16(Int(options.mtu))
    bytes += [UInt8](repeating: 0, count: 24 - bytes.count)
    return bytes
  }

  private var selected: VirtioModelQueue? {
    Int(registers.queueSelect) < queues.count ? queues[Int(registers.queueSelect)] : nil
  }

  /// Clause 4.1.4.3.
  private func readCommon(_ offset: Int, _ width: Int) -> UInt64 {
    switch offset {
    case 0: return UInt64(registers.deviceFeatureSelect)
    case 4: return half(options.features, registers.deviceFeatureSelect)
    case 8: return UInt64(registers.driverFeatureSelect)
    case 12: return half(registers.driverFeatures, registers.driverFeatureSelect)
    case 16: return UInt64(registers.configurationVector)
    case 18: return UInt64(queues.count)
    case 20: return UInt64(registers.status)
    case 21: return UInt64(registers.generation)
    case 22: return UInt64(registers.queueSelect)
    case 24: return UInt64(selected?.size ?? 0)
    case 26: return UInt64(selected?.vector ?? 0xffff)
    case 28: return selected?.isEnabled == true ? 1 : 0
    case 30: return UInt64(registers.queueSelect)
    default:
      complain("read of common configuration offset \(offset)")
      return 0
    }
  }

  private func half(_ value: UInt64, _ select: UInt32) -> UInt64 {
    switch select {
    case 0: value & 0xffff_ffff
    case 1: value >> 32
    default: 0
    }
  }

  func writeBAR(_ offset: Int, _ width: Int, _ value: UInt64) {
    if isRemoved { return }
    let low = UInt16(truncatingIfNeeded: value)
    switch offset {
    case 0: registers.deviceFeatureSelect = UInt32(truncatingIfNeeded: value)
    case 8: registers.driverFeatureSelect = UInt32(truncatingIfNeeded: value)
    case 12: acceptFeatures(value)
    case 16: registers.configurationVector = connectable(low)
    case 20: writeStatus(UInt8(truncatingIfNeeded: value))
    case 22: registers.queueSelect = low
    case 24...55: writeQueue(offset, low, value)
    default: complain("write to BAR offset 0x\(String(offset, radix: 16))")
    }
  }

  private func acceptFeatures(_ value: UInt64) {
    if registers.status & 2 == 0 || registers.status & 8 != 0 {
      complain("features written outside of the negotiation")
    }
    switch registers.driverFeatureSelect {
    case 0: registers.driverFeatures = registers.driverFeatures & ~0xffff_ffff | value
    case 1: registers.driverFeatures = registers.driverFeatures & 0xffff_ffff | value << 32
    default: break
    }
  }

  private func connectable(_ vector: UInt16) -> UInt16 {
    Int(vector) < min(options.vectors, options.usableVectors) ? vector : 0xffff
  }

  private func writeQueue(_ offset: Int, _ low: UInt16, _ value: UInt64) {
    guard let queue = selected else { return complain("write to queue \(registers.queueSelect), which does not exist") }
    if registers.status & 8 == 0 { complain("queue set up before FEATURES_OK") }
    if queue.isEnabled { complain("queue \(registers.queueSelect) changed while enabled") }
    switch offset {
    case 24: queue.size = Int(low)
    case 26: queue.vector = connectable(low)
    case 28: enable(queue, low)
    case 32, 36: queue.descriptors = merge(queue.descriptors, value, high: offset == 36)
    case 40, 44: queue.driver = merge(queue.driver, value, high: offset == 44)
    case 48, 52: queue.device = merge(queue.device, value, high: offset == 52)
    default: complain("write to common configuration offset \(offset)")
    }
  }

  private func merge(_ address: UInt64, _ value: UInt64, high: Bool) -> UInt64 {
    high ? address & 0xffff_ffff | value << 32 : address & ~0xffff_ffff | value
  }

  /// Clause 2.7: alignment 16, 2 and 4; all memory reachable.
  private func enable(_ queue: VirtioModelQueue, _ value: UInt16) {
    if value != 1 { complain("queue_enable written with \(value)") }
    let size = queue.size
    if size == 0 || size & (size - 1) != 0 || size > options.queueSize { complain("queue of \(size) descriptors") }
    if queue.descriptors & 15 != 0 || queue.driver & 1 != 0 || queue.device & 3 != 0 { complain("queue not aligned") }
    if unsafe memory.pointer(queue.descriptors, size * 16) == nil || memory.pointer(queue.driver, 6 + size * 2) == nil
      || memory.pointer(queue.device, 6 + size * 8) == nil
    {
      complain("queue \(registers.queueSelect) lies in memory that is not mapped")
    }
    queue.isEnabled = true
  }

  /// Clauses 2.1 and 3.1.
  private func writeStatus(_ value: UInt8) {
    if value == 0 {
      resets += 1
      if !ignoresReset { resetDevice() }
      return
    }
    if registers.status & ~0x40 & ~value != 0 && value != 0x80 { complain("status bit cleared without a reset") }
    var now = value | registers.status & 0x40
    if value & 8 != 0 && registers.status & 8 == 0 {
      let accepted = registers.driverFeatures
      let allowed = accepted & ~options.features == 0 && accepted & VirtioModelFeature.version1 != 0
      if accepted & ~options.features != 0 { complain("features accepted that were not offered") }
      if !allowed || refusesFeatures { now &= ~8 }
    }
    if value & 4 != 0 && registers.status & 8 == 0 { complain("DRIVER_OK without FEATURES_OK") }
    if value & 4 != 0 && !busMaster { complain("DRIVER_OK without bus mastering") }
    registers.status = now
  }

  func resetDevice() {
    let keep = (registers.linkUp, registers.generation)
    registers = VirtioModelRegisters()
    (registers.linkUp, registers.generation) = keep
    registers.address = options.address
    queues = queues.map { _ in VirtioModelQueue(capacity: options.queueSize) }
    filter = VirtioModelFilter()
    clearNotifications()
  }

  /// No doorbell rung: all ones is no queue's number.
  func clearNotifications() {
    // SAFETY: inside the page.
    for i in 0..<(VirtioModelBAR.notifyCount / 4) { unsafe rw_write32(notifyPage + i * 4, .max) }
  }
}
