// What the driver sees in the BARs: common configuration (clause 4.1.4.3), interrupt status
// (4.1.4.5), the network device's configuration (5.1.4), and notifications (4.1.5.2).

import ModelKit

extension VirtioNetModel {
  public func read(bar: Int, offset: Int, width: Int) -> UInt32 {
    if habits.isGone { return .max }
    if bar == VirtioModelLayout.interruptBAR { return interruptTable.read(offset, width) }
    guard bar == VirtioModelLayout.bar else { return .max }
    switch offset {
    case VirtioModelLayout.common..<VirtioModelLayout.common + VirtioModelLayout.commonCount:
      return readCommon(offset - VirtioModelLayout.common)
    case VirtioModelLayout.interruptStatus:
      // Reading takes the causes, and the line falls.
      defer { registers.interruptStatus = 0 }
      return UInt32(registers.interruptStatus)
    case VirtioModelLayout.device..<VirtioModelLayout.device + VirtioModelLayout.deviceCount:
      return readDevice(offset - VirtioModelLayout.device, width)
    default: return 0
    }
  }

  public func write(_ value: UInt32, bar: Int, offset: Int, width: Int) {
    if habits.isGone { return }
    if bar == VirtioModelLayout.interruptBAR { return interruptTable.write(value, offset, width) }
    guard bar == VirtioModelLayout.bar else { return }
    if offset >= VirtioModelLayout.notify { return notify(UInt16(truncatingIfNeeded: value), at: offset) }
    let low = UInt16(truncatingIfNeeded: value)
    switch offset {
    case 0: registers.deviceFeatureSelect = value
    case 8: registers.driverFeatureSelect = value
    case 12: acceptFeatures(value)
    case 16: registers.configurationVector = connectable(low)
    case 20: writeStatus(UInt8(truncatingIfNeeded: value))
    case 22: registers.queueSelect = low
    case 24...55, 58: writeQueue(offset, low, value)
    default: complain("write to BAR offset 0x\(String(offset, radix: 16))")
    }
  }

  // MARK: Reading

  private var selected: VirtioModelQueue? {
    Int(registers.queueSelect) < queues.count ? queues[Int(registers.queueSelect)] : nil
  }

  private func readCommon(_ offset: Int) -> UInt32 {
    switch offset {
    case 0: return registers.deviceFeatureSelect
    case 4: return half(features, registers.deviceFeatureSelect)
    case 8: return registers.driverFeatureSelect
    case 12: return half(registers.driverFeatures, registers.driverFeatureSelect)
    case 16: return UInt32(registers.configurationVector)
    case 18: return UInt32(queues.count)
    case 20: return habits.random.map { _ in habits.nextRandom() & 0x0f } ?? UInt32(registers.status)
    case 21: return habits.random.map { _ in habits.nextRandom() } ?? UInt32(registers.generation)
    case 22: return UInt32(registers.queueSelect)
    case 24: return UInt32(selected?.size ?? 0)
    case 26: return UInt32(selected?.vector ?? 0xffff)
    case 28: return selected?.isEnabled == true ? 1 : 0
    case 30: return UInt32(registers.queueSelect)
    case 32...55: return readAddress(offset)
    case 56: return UInt32(registers.queueSelect)
    case 58: return 0
    default:
      complain("read of common configuration offset \(offset)")
      return 0
    }
  }

  private func readAddress(_ offset: Int) -> UInt32 {
    guard let queue = selected else { return 0 }
    let address = offset < 40 ? queue.descriptors : offset < 48 ? queue.driver : queue.device
    return half(address, offset & 4 == 0 ? 0 : 1)
  }

  private func half(_ value: UInt64, _ select: UInt32) -> UInt32 {
    switch select {
    case 0: UInt32(truncatingIfNeeded: value)
    case 1: UInt32(value >> 32)
    default: 0
    }
  }

  private func readDevice(_ offset: Int, _ width: Int) -> UInt32 {
    guard offset + width <= VirtioModelLayout.deviceCount else { return .max }
    if habits.random != nil { return habits.nextRandom() }
    return (0..<width).reduce(0) { $0 | UInt32(deviceByte(offset + $1)) << UInt32(8 * $1) }
  }

  /// Clause 5.1.4, a byte at a time.
  private func deviceByte(_ at: Int) -> UInt8 {
    func part(_ value: UInt32, _ start: Int) -> UInt8 { UInt8(truncatingIfNeeded: value >> UInt32(8 * (at - start))) }
    switch at {
    case 0..<6: return registers.address[at]
    case 6, 7: return part((registers.linkUp ? 1 : 0) | (registers.wantsAnnouncement ? 2 : 0), 6)
    case 8, 9: return part(UInt32(options.pairs), 8)
    case 10, 11: return part(UInt32(options.mtu), 10)
    case 12..<16: return part(options.speed, 12)
    case 16: return 1
    case 17: return UInt8(VirtioModelSteering.keyLimit)
    case 18, 19: return part(UInt32(VirtioModelSteering.tableLimit), 18)
    case 20..<24: return part(VirtioModelSteering.supportedTypes, 20)
    default: return 0
    }
  }

  // MARK: Writing

  private func acceptFeatures(_ value: UInt32) {
    if registers.status & VirtioModelStatus.driver == 0 || registers.status & VirtioModelStatus.featuresOK != 0 {
      complain("features written outside of the negotiation")
    }
    switch registers.driverFeatureSelect {
    case 0: registers.driverFeatures = registers.driverFeatures & ~0xffff_ffff | UInt64(value)
    case 1: registers.driverFeatures = registers.driverFeatures & 0xffff_ffff | UInt64(value) << 32
    default: break
    }
  }

  private func connectable(_ vector: UInt16) -> UInt16 {
    Int(vector) < min(vectors, options.usableVectors) ? vector : 0xffff
  }

  private func writeQueue(_ offset: Int, _ low: UInt16, _ value: UInt32) {
    guard let queue = selected else { return complain("write to queue \(registers.queueSelect), which does not exist") }
    // Taking a vector away is what a driver also does after a reset.
    if !(offset == 26 && low == 0xffff) {
      if registers.status & VirtioModelStatus.featuresOK == 0 { complain("queue set up before FEATURES_OK") }
      if queue.isEnabled && offset != 58 { complain("queue \(queue.index) changed while enabled") }
    }
    switch offset {
    case 24: queue.size = Int(low)
    case 26: queue.vector = connectable(low)
    case 28: enable(queue, low)
    case 32, 36: queue.descriptors = merge(queue.descriptors, value, high: offset == 36)
    case 40, 44: queue.driver = merge(queue.driver, value, high: offset == 44)
    case 48, 52: queue.device = merge(queue.device, value, high: offset == 52)
    case 58: resetQueue(queue, low)
    default: complain("write to common configuration offset \(offset)")
    }
  }

  private func merge(_ address: UInt64, _ value: UInt32, high: Bool) -> UInt64 {
    high ? address & 0xffff_ffff | UInt64(value) << 32 : address & ~0xffff_ffff | UInt64(value)
  }

  /// Clause 2.7: a power of two; alignment 16, 2 and 4.
  private func enable(_ queue: VirtioModelQueue, _ value: UInt16) {
    if value != 1 { complain("queue_enable written with \(value)") }
    let size = queue.size
    guard size > 0, size & (size - 1) == 0, size <= options.queueSize else {
      return complain("queue \(queue.index) of \(size) descriptors")
    }
    guard queue.descriptors & 15 == 0, queue.driver & 1 == 0, queue.device & 3 == 0 else {
      return complain("queue \(queue.index) is not aligned")
    }
    queue.isEnabled = value & 1 != 0
  }

  /// Clause 2.6.1.
  private func resetQueue(_ queue: VirtioModelQueue, _ value: UInt16) {
    guard has(VirtioModelFeature.ringReset), value == 1 else { return complain("queue_reset written with \(value)") }
    queue.reset(capacity: options.queueSize)
    if queue.index & 1 == 0, queue.index / 2 < backlogs.count { backlogs[queue.index / 2].removeAll() }
  }

  /// Clauses 2.1 and 3.1.
  private func writeStatus(_ value: UInt8) {
    if value == 0 {
      resets += 1
      if !habits.ignoresReset { resetDevice() }
      return
    }
    let kept = registers.status & VirtioModelStatus.needsReset
    if registers.status & ~VirtioModelStatus.needsReset & ~value != 0 && value != VirtioModelStatus.failed {
      complain("status bit cleared without a reset")
    }
    var now = value & ~VirtioModelStatus.needsReset | kept
    if value & VirtioModelStatus.featuresOK != 0 && registers.status & VirtioModelStatus.featuresOK == 0 {
      let accepted = registers.driverFeatures
      let isAllowed = accepted & ~features == 0 && accepted & VirtioModelFeature.version1 != 0
      if accepted & ~features != 0 { complain("features accepted that were not offered") }
      if !isAllowed || habits.refusesFeatures { now &= ~VirtioModelStatus.featuresOK }
    }
    if value & VirtioModelStatus.driverOK != 0 {
      if registers.status & VirtioModelStatus.featuresOK == 0 { complain("DRIVER_OK without FEATURES_OK") }
      if !bus.memory.isBusMaster { complain("DRIVER_OK without bus mastering") }
    }
    registers.status = now
  }

  // MARK: Notifications and interrupts

  /// The value is the queue's number; the address says the same unless all queues share one.
  private func notify(_ value: UInt16, at offset: Int) {
    let distance = Int(options.notifyMultiplier)
    let index = distance == 0 ? Int(value) : (offset - VirtioModelLayout.notify) / distance
    guard index < queues.count else { return complain("notification of queue \(index), which does not exist") }
    if Int(value) != index { complain("queue \(index) notified with \(value)") }
    notifications[index, default: 0] += 1
    guard registers.status & VirtioModelStatus.driverOK != 0 else {
      return complain("queue \(index) notified before DRIVER_OK")
    }
    queues[index].isNotified = true
  }

  /// Configuration change notification (clause 4.1.5.4).
  func changeConfiguration() {
    registers.generation &+= 1
    guard registers.status & VirtioModelStatus.driverOK != 0 else { return }
    raise(vector: registers.configurationVector, cause: 2)
  }

  /// Tells the driver, by the vector or by the line (clauses 4.1.5.3 and 4.1.5.4).
  func raise(vector: UInt16, cause: UInt8) {
    guard !habits.isGone, !habits.noInterrupts else { return }
    if bus.interruptKind == .intx || bus.interruptKind == .msi {
      registers.interruptStatus |= cause
      // Command register, bit 10: no interrupts on the line.
      if configuration.command & 0x400 == 0 { bus.interrupt(0) }
    } else if vector != 0xffff, Int(vector) < vectors {
      bus.interrupt(Int(vector))
    }
  }
}
