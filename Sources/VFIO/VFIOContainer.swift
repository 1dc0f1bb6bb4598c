// The IOMMU domain of a card: a type 1 container (Documentation/driver-api/vfio.rst).

internal import CRingway
internal import DMAMemory
internal import Platform
internal import Synchronization
internal import SystemPackage

/// A container of /dev/vfio/vfio with one group in it.
final class VFIOContainer: Sendable {
  let info: IOMMUInfo
  private let system: any VFIOSystem
  private let held: Mutex<Held>

  /// What is open, and what is mapped where.
  private struct Held: ~Copyable {
    var container: OwnedDescriptor?
    var mappings: [UInt64: Mapping] = [:]
  }

  /// Cards of one group that map the same memory at the same place share the mapping.
  private struct Mapping {
    var base: UInt64
    var count: Int
    var cards = 1
  }

  /// Opens the container, puts the group into it and switches type 1 translation on.
  /// - Parameters:
  ///   - address: of the card, for messages.
  ///   - group: the group's device file and descriptor.
  init(_ system: any VFIOSystem, path: String, address: String, group: (path: String, descriptor: Int32)) throws(VFIOError) {
    self.system = system
    let container = try VFIOContainer.openContainer(system, path: path, address: address)
    try VFIOContainer.join(system, container.raw, address: address, group: group)
    info = try VFIOContainer.info(system, container.raw, address)
    held = Mutex(Held(container: consume container))
  }

  /// /dev/vfio/vfio, of the one version there is and with the translation that is needed.
  private static func openContainer(_ system: any VFIOSystem, path: String, address: String) throws(VFIOError) -> OwnedDescriptor {
    let container: OwnedDescriptor
    do {
      container = try system.open(path)
    } catch {
      switch error {
      // The node can be there with no module behind it, which opening would load if it could.
      case .noSuchFileOrDirectory, .noDevice, .noSuchAddressOrDevice: throw .moduleMissing(path: path)
      case .permissionDenied, .notPermitted: throw .noPermission(path: path)
      default: throw .system(operation: "open", subject: path, errno: error)
      }
    }
    let version: Int32
    let hasTypeOne: Int32
    do throws(Errno) {
      version = try system.control(container.raw, RW_VFIO_GET_API_VERSION, value: 0)
      hasTypeOne = try system.control(container.raw, RW_VFIO_CHECK_EXTENSION, value: UInt(VFIO_TYPE1v2_IOMMU))
    } catch {
      throw .system(operation: "ask", subject: path, errno: error)
    }
    guard version == VFIO_API_VERSION else {
      throw .unsupported(function: address, what: "VFIO speaks version \(version) of its interface, not 0")
    }
    guard hasTypeOne == 1 else { throw .noIOMMU(address: address) }
    return container
  }

  private static func join(
    _ system: any VFIOSystem, _ container: Int32, address: String, group: (path: String, descriptor: Int32)
  ) throws(VFIOError) {
    var argument = [UInt8](repeating: 0, count: 4)
    argument.set(container, at: 0)
    do {
      _ = try system.control(group.descriptor, RW_VFIO_GROUP_SET_CONTAINER, &argument)
    } catch {
      throw error == .resourceBusy
        ? .busy(address: address, path: group.path)
        : .system(operation: "put into a container the group \(group.path) of", subject: address, errno: error)
    }
    do {
      _ = try system.control(container, RW_VFIO_SET_IOMMU, value: UInt(VFIO_TYPE1v2_IOMMU))
    } catch {
      switch error {
      case .notPermitted: throw .noInterruptRemapping(address: address)
      case .noDevice: throw .noIOMMU(address: address)
      default: throw .system(operation: "switch on DMA translation for", subject: address, errno: error)
      }
    }
  }

  private static func info(_ system: any VFIOSystem, _ container: Int32, _ address: String) throws(VFIOError) -> IOMMUInfo {
    let bytes: [UInt8]
    do {
      bytes = try system.information(container, RW_VFIO_IOMMU_GET_INFO, fixed: IOMMUInfo.size)
    } catch {
      throw .system(operation: "ask the IOMMU of", subject: address, errno: error)
    }
    do { return try IOMMUInfo(bytes) } catch { throw .malformed(function: address, what: error.what) }
  }

  /// Whether one of the ranges holds all of it.
  private func reaches(_ iova: IOVA, _ count: Int) -> Bool {
    let last = iova.rawValue.addingReportingOverflow(UInt64(count) - 1)
    return !last.overflow && info.ranges.contains { $0.contains(iova.rawValue) && $0.contains(last.partialValue) }
  }

  /// Maps `count` bytes at the address `base` of this process.
  func map(_ base: UInt64, _ count: Int, at iova: IOVA) throws(DMAError) {
    guard count > 0, reaches(iova, count) else { throw .outOfRange(iova: iova, count: count) }
    try held.withLock { (held: inout Held) throws(DMAError) in
      guard let raw = held.container?.raw else { throw .gone }
      if let there = held.mappings[iova.rawValue], there.base == base, there.count == count {
        held.mappings[iova.rawValue]?.cards += 1
        return
      }
      // struct vfio_iommu_type1_dma_map
      var request = [UInt8](structure: 32)
      request.set(UInt32(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE), at: 4)
      request.set(base, at: 8)
      request.set(iova.rawValue, at: 16)
      request.set(UInt64(count), at: 24)
      do throws(Errno) {
        _ = try system.control(raw, RW_VFIO_IOMMU_MAP_DMA, &request)
      } catch {
        let locked = held.mappings.values.reduce(0) { $0 + $1.count }
        if error == .noMemory, let limit = system.memoryLockLimit, limit < count + locked {
          throw .memoryLockLimit(wanted: count, limit: limit)
        }
        throw .map(errno: error.rawValue, count: count, iova: iova)
      }
      held.mappings[iova.rawValue] = Mapping(base: base, count: count)
    }
  }

  /// Takes a mapping away when no other card shares it.
  func unmap(_ count: Int, at iova: IOVA) throws(DMAError) {
    try held.withLock { (held: inout Held) throws(DMAError) in
      guard let raw = held.container?.raw else { throw .gone }
      guard let mapping = held.mappings[iova.rawValue] else { throw .unmap(errno: ENOENT, count: count, iova: iova) }
      guard mapping.cards == 1 else {
        held.mappings[iova.rawValue]?.cards -= 1
        return
      }
      // struct vfio_iommu_type1_dma_unmap
      var request = [UInt8](structure: 24)
      request.set(iova.rawValue, at: 8)
      request.set(UInt64(count), at: 16)
      do throws(Errno) {
        _ = try system.control(raw, RW_VFIO_IOMMU_UNMAP_DMA, &request)
        // The kernel says how many bytes it took away.
        if request.field(UInt64.self, at: 16) != UInt64(count) { throw .invalidArgument }
      } catch {
        throw .unmap(errno: error.rawValue, count: count, iova: iova)
      }
      held.mappings[iova.rawValue] = nil
    }
  }

  func close() { held.withLock { $0.container = nil } }
}
