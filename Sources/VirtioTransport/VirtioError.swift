// What can go wrong between a driver and a virtio device.

public import PCI

public enum VirtioError: Error, Equatable, CustomStringConvertible {
  /// No usable modern structure of this kind among the PCI capabilities.
  case noStructure(device: String, structure: String)
  /// The device refuses, or lacks, what the driver cannot do without.
  case missingFeatures(device: String, names: [String])
  /// FEATURES_OK did not stay set.
  case featuresRefused(device: String, accepted: UInt64)
  /// A bounded wait ran out.
  case timeout(device: String, waitingFor: String)
  /// The device has no queue of this number, or the wanted size is impossible.
  case queue(device: String, index: Int, problem: String)
  /// The device could not connect an interrupt vector (VIRTIO_MSI_NO_VECTOR read back).
  case vector(device: String, vector: Int, what: String)
  case function(PCIFunctionError)
  case gone(device: String)

  public var description: String {
    switch self {
    case .noStructure(let device, let structure):
      "\(device) shows no usable virtio \(structure) structure: it speaks the legacy interface only. In QEMU, add `disable-legacy=on` to the device."
    case .missingFeatures(let device, let names):
      "\(device) does not offer \(names.joined(separator: " and ")), which DMA through an IOMMU needs. In QEMU, add `iommu_platform=on,disable-legacy=on` to the device."
    case .featuresRefused(let device, let accepted):
      "\(device) offered features 0x\(String(accepted, radix: 16)) but refused them when they were accepted. Try a newer hypervisor."
    case .timeout(let device, let what):
      "\(device) did not answer in time (\(what)). Unbind it and bind it anew."
    case .queue(let device, let index, let problem):
      "\(device): queue \(index) cannot be used: \(problem)."
    case .vector(let device, let vector, let what):
      "\(device) could not connect interrupt vector \(vector) to \(what). Give the device more vectors (in QEMU, `vectors=`), or use fewer queues."
    case .function(let error): error.description
    case .gone(let device): "\(device) is gone: it was unplugged or unbound. Check with `ringway devices`."
    }
  }
}
