// From a PCI address to an open group: sysfs first, so that a refusal can say why.

internal import CRingway
internal import PCI
internal import Platform
internal import SystemPackage

/// The IOMMU group of a function.
struct VFIOGroup: ~Copyable {
  let number: Int
  let descriptor: OwnedDescriptor

  /// Checks that the function is there, has an IOMMU and is bound to a driver of VFIO, then opens its
  /// group and checks that the group is viable.
  init(of address: PCIAddress, system: any VFIOSystem, roots: SystemRoots) throws(VFIOError) {
    let name = address.description
    guard let device = try? SysfsPCI(roots: roots).device(at: address) else { throw .noSuchFunction(address: name) }
    // First, because without an IOMMU no driver of VFIO takes the card either.
    guard let number = device.iommuGroup,
      (try? Files.line("\(roots.sys)/kernel/iommu_groups/\(number)/name")) != "vfio-noiommu"
    else { throw .noIOMMU(address: name) }
    guard let driver = device.driver, VFIOGroup.isVFIO(driver) else {
      throw .notBound(address: name, driver: device.driver)
    }

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
    self.number = number
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
      case .permissionDenied, .notPermitted: throw .noPermission(path: path, group: number)
      case .resourceBusy: throw .busy(address: address, group: number)
      default: throw .system(operation: "open", subject: path, errno: error)
      }
    }
  }

  /// The device itself.
  func device(_ address: String, system: any VFIOSystem) throws(VFIOError) -> OwnedDescriptor {
    var name = Array(address.utf8) + [0]
    do {
      return OwnedDescriptor(taking: try system.control(descriptor.raw, RW_VFIO_GROUP_GET_DEVICE_FD, &name))
    } catch {
      switch error {
      case .noDevice: throw .gone(address: address)
      case .resourceBusy: throw .busy(address: address, group: number)
      case .permissionDenied, .notPermitted:
        throw .noPermission(path: "\(address) in /dev/vfio/\(number)", group: number)
      default: throw .system(operation: "open", subject: address, errno: error)
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
