// A device of the kernel's VFIO: requests on a device descriptor.

internal import CRingway
internal import Platform
internal import Synchronization
internal import SystemPackage

/// A device descriptor, from a group or (with iommufd) from /dev/vfio/devices.
final class KernelChannel: VFIOChannel {
  let name: String
  private let system: any VFIOSystem
  /// What is open. The lock is held during each call, so that a descriptor is never used closed.
  private let open: Mutex<Held>

  /// The device, and where its regions lie in the device's file.
  private struct Held: ~Copyable {
    var device: OwnedDescriptor?
    var regions: [Int: VFIORegion] = [:]
  }

  init(name: String, system: any VFIOSystem, device: consuming OwnedDescriptor) {
    self.name = name
    self.system = system
    open = Mutex(Held(device: consume device))
  }

  /// Runs `body` with the device's descriptor; ENODEV when it is closed.
  private func device<Result: Sendable>(_ body: (Int32) throws(Errno) -> Result) throws(Errno) -> Result {
    try open.withLock { (held: inout Held) throws(Errno) -> Result in
      guard let raw = held.device?.raw else { throw .noDevice }
      return try body(raw)
    }
  }

  private func information(_ request: UInt, fixed: Int, index: Int? = nil, _ what: String) throws(VFIOError) -> [UInt8] {
    do {
      return try device { raw throws(Errno) in try system.information(raw, request, fixed: fixed, index: index) }
    } catch .noDevice {
      throw .gone(address: name)
    } catch {
      throw .system(operation: "ask for \(what) of", subject: name, errno: error)
    }
  }

  func deviceInfo() throws(VFIOError) -> VFIODeviceInfo {
    let bytes = try information(RW_VFIO_DEVICE_GET_INFO, fixed: VFIODeviceInfo.size, "device information")
    do { return try VFIODeviceInfo(bytes) } catch { throw .malformed(function: name, what: error.what) }
  }

  func region(_ index: Int) throws(VFIOError) -> VFIORegion {
    let bytes = try information(RW_VFIO_DEVICE_GET_REGION_INFO, fixed: VFIORegion.size, index: index, "region \(index)")
    do {
      let region = try VFIORegion(bytes, index: index, pageSize: BARWindow.pageSize)
      open.withLock { $0.regions[index] = region }
      return region
    } catch {
      throw .malformed(function: name, what: error.what)
    }
  }

  func interrupt(_ index: Int) throws(VFIOError) -> VFIOInterrupt {
    let bytes = try information(RW_VFIO_DEVICE_GET_IRQ_INFO, fixed: VFIOInterrupt.size, index: index, "interrupts \(index)")
    do { return try VFIOInterrupt(bytes) } catch { throw .malformed(function: name, what: error.what) }
  }

  /// struct vfio_irq_set.
  private func interruptSet(_ flags: Int32, kind: Int, start: Int, count: Int, _ descriptors: [Int32] = []) -> [UInt8] {
    var set = [UInt8](structure: 20 + descriptors.count * 4)
    set.set(UInt32(bitPattern: flags), at: 4)
    set.set(UInt32(kind), at: 8)
    set.set(UInt32(start), at: 12)
    set.set(UInt32(count), at: 16)
    for (index, descriptor) in descriptors.enumerated() { set.set(descriptor, at: 20 + index * 4) }
    return set
  }

  func setInterrupts(_ kind: Int, to descriptors: [Int32]) throws(Errno) -> Int {
    let data = descriptors.isEmpty ? VFIO_IRQ_SET_DATA_NONE : VFIO_IRQ_SET_DATA_EVENTFD
    var set = interruptSet(
      data | VFIO_IRQ_SET_ACTION_TRIGGER, kind: kind, start: 0, count: descriptors.count, descriptors)
    return Int(try device { raw throws(Errno) in try system.control(raw, RW_VFIO_DEVICE_SET_IRQS, &set) })
  }

  func trigger(_ kind: Int, vector: Int) throws(Errno) {
    var set = interruptSet(VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, kind: kind, start: vector, count: 1)
    _ = try device { raw throws(Errno) in try system.control(raw, RW_VFIO_DEVICE_SET_IRQS, &set) }
  }

  /// Where `width` bytes at `offset` of a region lie in the device's file; nil outside of it.
  private static func position(_ held: borrowing Held, _ region: Int, _ offset: Int, _ width: Int) -> off_t? {
    guard let region = held.regions[region], offset >= 0, offset <= region.count - width else { return nil }
    return off_t(region.fileOffset) + off_t(offset)
  }

  func read(region: Int, offset: Int, width: Int) -> UInt32? {
    open.withLock { held -> UInt32? in
      guard let raw = held.device?.raw, let at = KernelChannel.position(held, region, offset, width) else { return nil }
      var value: UInt32 = 0
      // SAFETY: at most the variable's four bytes.
      guard width <= 4, unsafe pread(raw, &value, width, at) == width else { return nil }
      return UInt32(littleEndian: value)
    }
  }

  func write(_ value: UInt32, region: Int, offset: Int, width: Int) {
    open.withLock { held in
      guard let raw = held.device?.raw, let at = KernelChannel.position(held, region, offset, width) else { return }
      var value = value.littleEndian
      // SAFETY: at most the variable's four bytes. A device that is gone takes no writes.
      if width <= 4 { _ = unsafe pwrite(raw, &value, width, at) }
    }
  }

  func map(_ region: VFIORegion, _ area: Range<Int>, event: Int32) throws(Errno) -> BARWindow {
    try device { raw throws(Errno) in
      try BARWindow(
        descriptor: raw, fileOffset: region.fileOffset + UInt64(area.lowerBound), count: area.count, event: event)
    }
  }

  func remap(_ window: BARWindow) throws(Errno) {
    try device { raw throws(Errno) in try window.remap(descriptor: raw) }
  }

  func reset() throws(Errno) {
    _ = try device { raw throws(Errno) in try system.control(raw, RW_VFIO_DEVICE_RESET, value: 0) }
  }

  func close() {
    open.withLock { $0.device = nil }
  }
}
