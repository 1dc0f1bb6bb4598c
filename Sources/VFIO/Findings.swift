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
  /// Offsets of the power management and PCI Express capabilities; 0 when there is none.
  var power: Int
  var express: Int

  init(_ channel: any VFIOChannel) throws(VFIOError) {
    info = try channel.deviceInfo()
    let name = channel.name
    guard info.isPCI, info.regions > Int(VFIO_PCI_CONFIG_REGION_INDEX), info.interrupts > Int(VFIO_PCI_MSIX_IRQ_INDEX) else {
      throw .unsupported(function: name, what: "VFIO does not offer it as a PCI function")
    }
    let config = try channel.region(Int(VFIO_PCI_CONFIG_REGION_INDEX))
    guard config.count >= 256 else { throw .malformed(function: name, what: "\(config.count) bytes of configuration space") }
    let space = try Findings.configuration(channel)
    identity = space.identity
    power = space.offset(of: PCICapability.powerManagement) ?? 0
    express = space.offset(of: PCICapability.express) ?? 0
    let interrupt = { (kind: Int, count: Int) throws(VFIOError) -> Int in
      guard kind < count else { return 0 }
      let found = try channel.interrupt(kind)
      return found.takesEventfd ? found.count : 0
    }
    msix = try interrupt(Int(VFIO_PCI_MSIX_IRQ_INDEX), info.interrupts)
    hasErrors = try interrupt(Int(VFIO_PCI_ERR_IRQ_INDEX), info.interrupts) > 0
    hasRequests = try interrupt(Int(VFIO_PCI_REQ_IRQ_INDEX), info.interrupts) > 0
  }

  /// The first 256 bytes of configuration space.
  private static func configuration(_ channel: any VFIOChannel) throws(VFIOError) -> PCIConfig {
    var bytes = [UInt8](repeating: 0xFF, count: 256)
    for offset in stride(from: 0, to: bytes.count, by: 4) {
      guard let word = channel.read(region: Int(VFIO_PCI_CONFIG_REGION_INDEX), offset: offset, width: 4) else { break }
      bytes.set(word, at: offset)
    }
    do { return try PCIConfig(bytes: bytes) } catch { throw .gone(address: channel.name) }
  }
}
