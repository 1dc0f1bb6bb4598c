// What can go wrong before a card is ours, in sentences.

public import SystemPackage

/// A function that could not be opened. Each case says what to do about it.
public enum VFIOError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Not a PCI address.
  case invalidAddress(String)
  case noSuchFunction(address: String)
  /// Another driver (or none) holds the function.
  case notBound(address: String, driver: String?)
  /// No IOMMU group, or one of VFIO's no-IOMMU mode.
  case noIOMMU(address: String)
  /// The IOMMU cannot keep the card from raising other interrupts than its own.
  case noInterruptRemapping(address: String)
  case moduleMissing(path: String)
  case noPermission(path: String)
  /// Other functions of the group are held by drivers of the kernel.
  case groupNotViable(address: String, group: Int, members: [GroupMember])
  /// Another process holds the group whose device file this is.
  case busy(address: String, path: String)
  /// This process has it open.
  case alreadyOpen(address: String)
  case gone(address: String)
  /// Nobody listens at a vfio-user socket.
  case noServer(path: String, errno: Errno)
  /// A vfio-user server that does not answer.
  case silent(server: String, milliseconds: Int)
  /// A kernel whose VFIO lacks something that is needed.
  case unsupported(function: String, what: String)
  /// An answer that contradicts itself.
  case malformed(function: String, what: String)
  case system(operation: String, subject: String, errno: Errno)

  /// Another function in the same IOMMU group.
  public struct GroupMember: Equatable, Sendable, CustomStringConvertible {
    public var address: String
    public var driver: String
    public init(address: String, driver: String) {
      self.address = address
      self.driver = driver
    }
    public var description: String { "\(address) (\(driver))" }
  }

  public var description: String {
    switch self {
    case .invalidAddress(let text):
      "\"\(text)\" is no PCI address. Write it as 0000:03:00.0; `ringway devices` lists them."
    case .noSuchFunction(let address):
      "there is no PCI function \(address). `ringway devices` lists those that are there."
    case .notBound(let address, .some(let driver)):
      "\(address) belongs to the kernel's driver \(driver). Hand it over with `ringway bind \(address)`."
    case .notBound(let address, nil):
      "\(address) is bound to no driver. Hand it to vfio-pci with `ringway bind \(address)`."
    case .noIOMMU(let address):
      "\(address) is behind no IOMMU, so its DMA cannot be confined. Switch the IOMMU on in the firmware (VT-d, AMD-Vi) and boot with `intel_iommu=on` on Intel; `ringway doctor` checks it."
    case .noInterruptRemapping(let address):
      "the kernel refuses \(address) because the IOMMU does not remap interrupts. Switch interrupt remapping (x2APIC) on in the firmware, or accept the risk with `modprobe vfio_iommu_type1 allow_unsafe_interrupts=1`."
    case .moduleMissing(let path):
      "\(path) is not there: VFIO is not loaded. Load it with `modprobe vfio-pci`."
    case .noPermission(let path):
      "no permission to open \(path). Let your user have it by a udev rule, which `ringway bind --user NAME` writes, or run as root."
    case .groupNotViable(_, let group, let members) where members.isEmpty:
      "IOMMU group \(group) is not viable: another function in it is held by a driver of the kernel. Run `ringway doctor`."
    case .groupNotViable(let address, let group, let members):
      "\(address) shares IOMMU group \(group) with functions that the kernel still uses: \(members.map(\.description).joined(separator: ", ")). A group is handed over as a whole: bind these to vfio-pci too, or put the card in another slot."
    case .busy(let address, let path):
      "\(address) is in use: another process holds its IOMMU group. Find it with `fuser -v \(path)`."
    case .alreadyOpen(let address):
      "\(address) is open in this program already. Name each card once; `ringway devices` lists them."
    case .gone(let address):
      "\(address) is gone: it was unplugged or has stopped answering. Check with `ringway devices`."
    case .noServer(let path, let errno):
      "no vfio-user server answers at \(path): \(errno). Start one, such as `ringway-model 82599 --socket \(path)`."
    case .silent(let server, let milliseconds):
      "\(server) did not answer within \(milliseconds) ms. It is stuck, or serves another client: a server has one at a time. Stop the other, or start the server anew."
    case .unsupported(let function, let what):
      "\(function): \(what). What is needed is a PCI card under a Linux kernel of version 4.19 or newer (`ringway doctor` checks it), or a vfio-user server of a PCI device."
    case .malformed(let function, let what):
      "\(function): VFIO gave an answer that makes no sense: \(what)"
    case .system(let operation, let subject, let errno):
      "\(operation) \(subject): \(errno). Run `ringway doctor`."
    }
  }
}
