// What the kernel says is plugged in (Documentation/ABI/testing/sysfs-bus-pci).

/// A card that one of our drivers serves; the caller of the scanner knows them.
public struct SupportedCard: Hashable, Sendable {
  public let vendor: UInt16
  public let device: UInt16
  public let driver: String

  public init(vendor: UInt16, device: UInt16, driver: String) {
    self.vendor = vendor
    self.device = device
    self.driver = driver
  }
}

/// A PCI function as sysfs shows it.
public struct PCIDevice: Hashable, Sendable {
  public let address: PCIAddress
  public let identity: PCIIdentity
  /// The kernel driver bound to it.
  public let driver: String?
  /// The only driver that the kernel may bind to it, when somebody said so.
  public let driverOverride: String?
  public let iommuGroup: Int?
  /// Nil on machines with one node, and when the firmware does not say.
  public let numaNode: Int?
  /// Network interfaces of this network namespace that stand on it.
  public let interfaces: [String]
  /// How many SR-IOV functions it has switched on.
  public let virtualFunctions: Int

  /// Class 02: network controllers.
  public var isNetwork: Bool { identity.classCode >> 16 == 0x02 }
  /// Class 0604: a bridge between PCI buses.
  public var isBridge: Bool { identity.classCode >> 8 == 0x0604 }
}

/// A network function with its surroundings.
public struct NetworkFunction: Hashable, Sendable {
  public let device: PCIDevice
  /// The other members of its IOMMU group.
  public let groupMembers: [PCIDevice]
  /// Which of our drivers serves it.
  public let ringwayDriver: String?
}

public enum PCIScanError: Error, Equatable, CustomStringConvertible {
  case noPCIBus(String)
  case noSuchDevice(PCIAddress)

  public var description: String {
    switch self {
    case .noPCIBus(let path): "\(path) cannot be read: this kernel shows no PCI bus. Mount sysfs at /sys."
    case .noSuchDevice(let address): "there is no PCI device \(address). `ringway devices` lists the network cards."
    }
  }
}

/// The scanner. It keeps nothing: every call looks again.
public struct SysfsPCI: Sendable {
  public let roots: SystemRoots

  public init(roots: SystemRoots = SystemRoots()) { self.roots = roots }

  /// Every network function, by address.
  public func networkFunctions(supported: [SupportedCard] = []) throws(PCIScanError) -> [NetworkFunction] {
    let folder = roots.sys + "/bus/pci/devices"
    guard SystemFiles.exists(folder) else { throw .noPCIBus(folder) }
    let devices = SystemFiles.list(folder).compactMap { name in (try? PCIAddress(name)).flatMap(read) }
    return devices.filter(\.isNetwork).sorted { $0.address < $1.address }.map { surround($0, supported: supported) }
  }

  /// The function at `address`, of whatever class.
  public func device(at address: PCIAddress) throws(PCIScanError) -> PCIDevice {
    guard let device = read(address) else { throw .noSuchDevice(address) }
    return device
  }

  /// The members of IOMMU group `group`.
  public func members(ofGroup group: Int) -> [PCIDevice] {
    SystemFiles.list("\(roots.sys)/kernel/iommu_groups/\(group)/devices")
      .compactMap { name in (try? PCIAddress(name)).flatMap(read) }.sorted { $0.address < $1.address }
  }

  /// A copy of configuration space: 64 bytes for an unprivileged caller, else all of it.
  public func configuration(of address: PCIAddress) throws(PCIConfigError) -> PCIConfig {
    try PCIConfig(bytes: SystemFiles.bytes(roots.device(address) + "/config", limit: 4096) ?? [])
  }

  func surround(_ device: PCIDevice, supported: [SupportedCard]) -> NetworkFunction {
    let members = device.iommuGroup.map(members(ofGroup:)) ?? []
    let card = supported.first { $0.vendor == device.identity.vendor && $0.device == device.identity.device }
    return NetworkFunction(
      device: device, groupMembers: members.filter { $0.address != device.address }, ringwayDriver: card?.driver)
  }

  func driver(of address: PCIAddress) -> String? { SystemFiles.linkName(roots.device(address) + "/driver") }

  func driverOverride(of address: PCIAddress) -> String? {
    guard let text = SystemFiles.text(roots.device(address) + "/driver_override") else { return nil }
    return text.isEmpty || text == "(null)" ? nil : text
  }

  private func read(_ address: PCIAddress) -> PCIDevice? {
    let path = roots.device(address)
    func number(_ name: String) -> Int? { SystemFiles.integer("\(path)/\(name)") }
    guard let vendor = number("vendor"), let device = number("device"), let classCode = number("class") else {
      return nil
    }
    let identity = PCIIdentity(
      vendor: UInt16(truncatingIfNeeded: vendor), device: UInt16(truncatingIfNeeded: device),
      subsystemVendor: UInt16(truncatingIfNeeded: number("subsystem_vendor") ?? 0),
      subsystemDevice: UInt16(truncatingIfNeeded: number("subsystem_device") ?? 0),
      revision: UInt8(truncatingIfNeeded: number("revision") ?? 0), classCode: UInt32(truncatingIfNeeded: classCode))
    return PCIDevice(
      address: address, identity: identity, driver: driver(of: address), driverOverride: driverOverride(of: address),
      iommuGroup: SystemFiles.linkName(path + "/iommu_group").flatMap { Int($0) },
      numaNode: number("numa_node").flatMap { $0 < 0 ? nil : $0 }, interfaces: interfaces(below: path),
      virtualFunctions: number("sriov_numvfs") ?? 0)
  }

  /// Interfaces hang directly below the function, or below the virtio device on it.
  private func interfaces(below path: String) -> [String] {
    let virtio = SystemFiles.list(path).filter { $0.hasPrefix("virtio") }
    return ([path] + virtio.map { "\(path)/\($0)" }).flatMap { SystemFiles.list($0 + "/net") }
  }
}
