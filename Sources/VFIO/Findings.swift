// What a device is asked once, when it is opened.

internal import CRingway
internal import PCI

/// Who the device is and what it has.
struct Findings {
  var info: VFIODeviceInfo
  var identity: PCIIdentity
  /// MSI-X vectors.
  var msix: Int
  /// Whether the device has the interrupt kinds for errors and for being wanted back.
  var hasErrors: Bool
  var hasRequests: Bool
  /// Offset of the power management capability; 0 when there is none.
  var power: Int

  init(_ channel: any VFIOChannel) throws(VFIOError) {
    info = try channel.deviceInfo()
    let name = channel.name
    guard info.isPCI, info.regions > Int(VFIO_PCI_CONFIG_REGION_INDEX), info.interrupts > Int(VFIO_PCI_MSIX_IRQ_INDEX) else {
      throw .unsupported(function: name, what: "VFIO does not offer it as a PCI function")
    }
    let config = try channel.region(Int(VFIO_PCI_CONFIG_REGION_INDEX))
    guard config.count >= 256 else { throw .malformed(function: name, what: "\(config.count) bytes of configuration space") }
    let read = { (offset: Int, width: Int) -> UInt32? in
      channel.read(region: Int(VFIO_PCI_CONFIG_REGION_INDEX), offset: offset, width: width)
    }
    guard let ids = read(0, 4), ids & 0xFFFF != 0xFFFF, let revision = read(8, 4), let subsystem = read(0x2C, 4) else {
      throw .gone(address: name)
    }
    identity = PCIIdentity(
      vendor: UInt16(truncatingIfNeeded: ids), device: UInt16(truncatingIfNeeded: ids >> 16),
      subsystemVendor: UInt16(truncatingIfNeeded: subsystem), subsystemDevice: UInt16(truncatingIfNeeded: subsystem >> 16),
      revision: UInt8(truncatingIfNeeded: revision), classCode: revision >> 8)
    let interrupt = { (kind: Int, count: Int) throws(VFIOError) -> Int in
      guard kind < count else { return 0 }
      let found = try channel.interrupt(kind)
      return found.takesEventfd ? found.count : 0
    }
    msix = try interrupt(Int(VFIO_PCI_MSIX_IRQ_INDEX), info.interrupts)
    hasErrors = try interrupt(Int(VFIO_PCI_ERR_IRQ_INDEX), info.interrupts) > 0
    hasRequests = try interrupt(Int(VFIO_PCI_REQ_IRQ_INDEX), info.interrupts) > 0
    power = Findings.powerManagement(read)
  }

  /// Walks the capability list of configuration space (PCI Local Bus Specification 3.0, 6.7).
  private static func powerManagement(_ read: (Int, Int) -> UInt32?) -> Int {
    guard let status = read(Int(PCI_STATUS), 2), status & UInt32(PCI_STATUS_CAP_LIST) != 0,
      var at = read(Int(PCI_CAPABILITY_LIST), 1)
    else { return 0 }
    // 48 capabilities of four bytes fill the space: a list that is longer runs in a circle.
    for _ in 0..<48 {
      at &= ~3
      guard at >= 0x40, let header = read(Int(at), 2) else { return 0 }
      if header & 0xFF == UInt32(PCI_CAP_ID_PM) { return Int(at) }
      at = header >> 8
    }
    return 0
  }
}
