// From a PCI address to an open group: sysfs first, so that a refusal can say why.

internal import CRingway
internal import PCI
internal import Platform
internal import SystemPackage

/// A group that has just been opened and found viable.
struct VFIOGroup: ~Copyable {
  let descriptor: OwnedDescriptor

  /// Checks that the function is there, has an IOMMU and is bound to a driver of VFIO.
  /// - Returns: the number of its group.
  static func number(of address: PCIAddress, roots: SystemRoots) throws(VFIOError) -> Int {
    let name = address.description
    guard let device = try? SysfsPCI(roots: roots).device(at: address) else { throw .noSuchFunction(address: name) }
    // First, because without an IOMMU no driver of VFIO takes the card either.
    guard let number = device.iommuGroup,
      (try? Files.line("\(roots.sys)/kernel/iommu_groups/\(number)/name")) != "vfio-noiommu"
    else { throw .noIOMMU(address: name) }
    guard let driver = device.driver, isVFIO(driver) else { throw .notBound(address: name, driver: device.driver) }
    return number
  }

  /// Opens the group and checks that it is viable.
  init(_ number: Int, of name: String, system: any VFIOSystem, roots: SystemRoots) throws(VFIOError) {
    let group = try VFIOGroup.open(name, number, system, roots)
    // struct vfio_group_status
    var status = [UInt8](structure: 8)
    do {
      _ = try system.control(group.raw, RW_VFIO_GROUP_GET_STATUS, &status)
    } catch {
      throw .system(operation: "ask for the state of IOMMU group", subject: "\(number)", errno: error)
    }
    guard status.field(UInt32.self, at: 4)! & UInt32(VFIO_GROUP_FLAGS_VIABLE) != 0 else {
      throw .groupNotViable(address: name, group: number, members: VFIOGroup.inTheWay(of: number, roots))
    }
    descriptor = group
  }

  private static func open(
    _ address: String, _ number: Int, _ system: any VFIOSystem, _ roots: SystemRoots
  ) throws(VFIOError) -> OwnedDescriptor {
    let devices = roots.dev + "/vfio"
    let path = "\(devices)/\(number)"
    do {
      return try system.open(path)
    } catch {
      switch error {
      case .noSuchFileOrDirectory where !Files.exists(devices): throw .moduleMissing(path: devices)
      // Bound, and yet without a file: the driver let go of it meanwhile.
      case .noSuchFileOrDirectory, .noDevice: throw .gone(address: address)
      case .permissionDenied, .notPermitted: throw .noPermission(path: path)
      case .resourceBusy: throw .busy(address: address, path: path)
      default: throw .system(operation: "open", subject: path, errno: error)
      }
    }
  }

  /// vfio-pci and its relatives for single families (mlx5_vfio_pci, …).
  static func isVFIO(_ driver: String) -> Bool { driver.hasSuffix("vfio-pci") || driver.hasSuffix("vfio_pci") }

  /// The group's functions that a driver of the kernel holds. Bridges and reserved functions are
  /// not in the way (vfio_dev_viable in the kernel's vfio/group.c).
  static func inTheWay(of number: Int, _ roots: SystemRoots) -> [VFIOError.GroupMember] {
    SysfsPCI(roots: roots).members(ofGroup: number).compactMap { member in
      guard let driver = member.driver, !isVFIO(driver), !["pci-stub", "pcieport", "shpchp"].contains(driver) else {
        return nil
      }
      return VFIOError.GroupMember(address: member.address.description, driver: driver)
    }
  }
}
