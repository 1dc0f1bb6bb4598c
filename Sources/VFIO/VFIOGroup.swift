// From a PCI address to an open group: sysfs first, so that a refusal can say why.

internal import CRingway
internal import Platform
internal import SystemPackage

/// Where the kernel shows its devices. Tests point these elsewhere.
public struct VFIOPaths: Sendable {
  /// sysfs.
  public var sysfs: String
  /// The directory of VFIO's device files.
  public var devices: String
  public init(sysfs: String = "/sys", devices: String = "/dev/vfio") {
    self.sysfs = sysfs
    self.devices = devices
  }

  func function(_ address: String) -> String { "\(sysfs)/bus/pci/devices/\(address)" }
  func group(_ number: Int) -> String { "\(sysfs)/kernel/iommu_groups/\(number)" }
}

/// The IOMMU group of a function.
struct VFIOGroup: ~Copyable {
  let number: Int
  let descriptor: OwnedDescriptor

  /// Checks that the function is there, is bound to a VFIO driver and has an IOMMU, then opens its
  /// group and checks that the group is viable.
  init(of address: String, system: any VFIOSystem, paths: VFIOPaths) throws(VFIOError) {
    let function = paths.function(address)
    guard VFIOGroup.isAddress(address) else { throw .invalidAddress(address) }
    guard Files.exists(function) else { throw .noSuchFunction(address: address) }
    let driver = try? Files.linkName(function + "/driver")
    guard let driver, VFIOGroup.isVFIO(driver) else { throw .notBound(address: address, driver: driver) }
    guard let number = (try? Files.linkName(function + "/iommu_group")).flatMap({ Int($0) }),
      (try? Files.line(paths.group(number) + "/name")) != "vfio-noiommu"
    else { throw .noIOMMU(address: address) }

    let group = try VFIOGroup.open(address, number, system, paths)
    // struct vfio_group_status
    var status = [UInt8](structure: 8)
    do {
      _ = try system.control(group.raw, RW_VFIO_GROUP_GET_STATUS, &status)
    } catch {
      throw .system(operation: "ask for the state of IOMMU group", subject: "\(number)", errno: error)
    }
    guard status.field(UInt32.self, at: 4)! & UInt32(VFIO_GROUP_FLAGS_VIABLE) != 0 else {
      throw .groupNotViable(address: address, group: number, members: VFIOGroup.inTheWay(of: number, paths))
    }
    self.number = number
    descriptor = group
  }

  private static func open(
    _ address: String, _ number: Int, _ system: any VFIOSystem, _ paths: VFIOPaths
  ) throws(VFIOError) -> OwnedDescriptor {
    let path = "\(paths.devices)/\(number)"
    do {
      return try system.open(path)
    } catch {
      switch error {
      case .noSuchFileOrDirectory where !Files.exists(paths.devices): throw .moduleMissing(path: paths.devices)
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

  /// A domain of four or more hexadecimal digits, bus, device and function: 0000:03:00.0.
  static func isAddress(_ text: String) -> Bool {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    let last = parts.last?.split(separator: ".", omittingEmptySubsequences: false) ?? []
    guard parts.count == 3, last.count == 2 else { return false }
    let sizes = [parts[0].count >= 4 && parts[0].count <= 8, parts[1].count == 2, last[0].count == 2, last[1].count == 1]
    return !sizes.contains(false) && (parts[0] + parts[1] + last[0] + last[1]).allSatisfy { $0.isASCII && $0.isHexDigit }
  }

  /// vfio-pci and its relatives for single families (mlx5_vfio_pci, …).
  static func isVFIO(_ driver: String) -> Bool { driver.hasSuffix("vfio-pci") || driver.hasSuffix("vfio_pci") }

  /// The group's functions that a driver of the kernel holds. Bridges and reserved functions are
  /// not in the way (vfio_dev_viable in the kernel's vfio/group.c).
  static func inTheWay(of number: Int, _ paths: VFIOPaths) -> [VFIOError.GroupMember] {
    let members = (try? Files.list(paths.group(number) + "/devices")) ?? []
    return members.compactMap { member in
      guard let driver = try? Files.linkName(paths.group(number) + "/devices/\(member)/driver"),
        !isVFIO(driver), !["pci-stub", "pcieport", "shpchp"].contains(driver)
      else { return nil }
      return VFIOError.GroupMember(address: member, driver: driver)
    }
  }
}
