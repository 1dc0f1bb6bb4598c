// What a device says of itself, checked: struct vfio_device_info, vfio_region_info,
// vfio_irq_info and vfio_iommu_type1_info (linux/vfio.h).

internal import CRingway

/// struct vfio_device_info.
struct VFIODeviceInfo: Equatable {
  static let size = 20

  var canReset: Bool
  var isPCI: Bool
  var regions: Int
  var interrupts: Int

  init(_ bytes: [UInt8]) throws(VFIOMalformed) {
    guard let flags = bytes.field(UInt32.self, at: 4), let regions = bytes.field(UInt32.self, at: 8),
      let interrupts = bytes.field(UInt32.self, at: 12)
    else { throw VFIOMalformed("device information of \(bytes.count) bytes") }
    canReset = flags & UInt32(VFIO_DEVICE_FLAGS_RESET) != 0
    isPCI = flags & UInt32(VFIO_DEVICE_FLAGS_PCI) != 0
    self.regions = Int(regions)
    self.interrupts = Int(interrupts)
  }
}

/// struct vfio_region_info: a BAR, or configuration space.
struct VFIORegion: Equatable {
  static let size = 32
  /// More than any BAR: physical addresses end before.
  static let limit = 1 << 52

  var index: Int
  /// Bytes; 0 for a region that is not there.
  var count: Int
  /// Where it starts in the device's file.
  var fileOffset: UInt64
  var isReadable: Bool
  var isWritable: Bool
  /// The parts that may be mapped: ascending, apart, inside, each starting on a page.
  var areas: [Range<Int>]

  /// - Parameter index: the one that was asked for.
  init(_ bytes: [UInt8], index: Int, pageSize: Int) throws(VFIOMalformed) {
    guard let flags = bytes.field(UInt32.self, at: 4), bytes.field(UInt32.self, at: 8) == UInt32(index),
      let chain = bytes.field(UInt32.self, at: 12), let size = bytes.field(UInt64.self, at: 16),
      let offset = bytes.field(UInt64.self, at: 24)
    else { throw VFIOMalformed("information on region \(index) of \(bytes.count) bytes, or on another") }
    let end = offset.addingReportingOverflow(size)
    guard let count = Int(exactly: size), count <= VFIORegion.limit, !end.overflow, end.partialValue <= UInt64(Int64.max) else {
      throw VFIOMalformed("region \(index) of \(size) bytes at file offset \(offset)")
    }
    self.index = index
    self.count = count
    fileOffset = offset
    isReadable = flags & UInt32(VFIO_REGION_INFO_FLAG_READ) != 0
    isWritable = flags & UInt32(VFIO_REGION_INFO_FLAG_WRITE) != 0
    areas = []
    guard flags & UInt32(VFIO_REGION_INFO_FLAG_MMAP) != 0, count > 0 else { return }
    guard offset % UInt64(pageSize) == 0 else {
      throw VFIOMalformed("region \(index), which may be mapped, starts at file offset \(offset)")
    }
    areas = [0..<count]
    guard flags & UInt32(VFIO_REGION_INFO_FLAG_CAPS) != 0 else { return }
    for capability in try capabilities(in: bytes, first: chain, fixed: VFIORegion.size)
    where capability.id == VFIO_REGION_INFO_CAP_SPARSE_MMAP {
      areas = try VFIORegion.sparseAreas(bytes, at: capability.contents, count: count, pageSize: pageSize)
    }
  }

  /// struct vfio_region_info_cap_sparse_mmap: around an MSI-X table that user space may not map.
  private static func sparseAreas(_ bytes: [UInt8], at start: Int, count: Int, pageSize: Int) throws(VFIOMalformed) -> [Range<Int>] {
    guard let number = bytes.field(UInt32.self, at: start) else { throw VFIOMalformed("sparse areas cut short") }
    var areas: [Range<Int>] = []
    var at = start + 8
    // Bounded by the answer's own length: the number is not believed.
    for _ in 0..<number {
      guard let offset = bytes.field(UInt64.self, at: at), let size = bytes.field(UInt64.self, at: at + 8) else {
        throw VFIOMalformed("\(number) sparse areas in \(bytes.count) bytes")
      }
      at += 16
      if size == 0 { continue }
      guard offset <= UInt64(count), size <= UInt64(count) - offset, offset % UInt64(pageSize) == 0 else {
        throw VFIOMalformed("a sparse area of \(size) bytes at \(offset) in a region of \(count) bytes")
      }
      areas.append(Int(offset)..<Int(offset + size))
    }
    areas.sort { $0.lowerBound < $1.lowerBound }
    for (one, next) in zip(areas, areas.dropFirst()) where one.upperBound > next.lowerBound {
      throw VFIOMalformed("sparse areas overlap at byte \(next.lowerBound)")
    }
    return areas
  }
}

/// struct vfio_irq_info: one kind of interrupt.
struct VFIOInterrupt: Equatable {
  static let size = 16
  /// More than any PCI function can have (MSI-X: 2048).
  static let limit = 2048

  var index: Int
  /// How many; 0 when the device has none of this kind.
  var count: Int
  /// Whether it can be sent to an eventfd.
  var takesEventfd: Bool

  init(_ bytes: [UInt8]) throws(VFIOMalformed) {
    guard let flags = bytes.field(UInt32.self, at: 4), let index = bytes.field(UInt32.self, at: 8),
      let count = bytes.field(UInt32.self, at: 12)
    else { throw VFIOMalformed("interrupt information of \(bytes.count) bytes") }
    guard count <= VFIOInterrupt.limit else { throw VFIOMalformed("\(count) interrupts of kind \(index)") }
    self.index = Int(index)
    self.count = Int(count)
    takesEventfd = flags & UInt32(VFIO_IRQ_INFO_EVENTFD) != 0
  }
}

/// struct vfio_iommu_type1_info: which bus addresses and pages the IOMMU takes.
struct IOMMUInfo: Equatable {
  static let size = 24

  /// Inclusive, ascending, apart, never empty.
  var ranges: [ClosedRange<UInt64>]
  /// Smallest page, in bytes.
  var pageSize: Int
  /// How many more mappings the kernel allows; nil when it does not say (before Linux 5.10).
  var mappingsLeft: Int?

  /// What a kernel that names no ranges (before Linux 5.4) is taken to mean: 39 bits, the least an
  /// Intel IOMMU translates, without the window at which x86 machines take interrupts.
  static let conservative: [ClosedRange<UInt64>] = [0...0xFEDF_FFFF, 0xFEF0_0000...0x7F_FFFF_FFFF]

  init(_ bytes: [UInt8]) throws(VFIOMalformed) {
    guard let flags = bytes.field(UInt32.self, at: 4), let sizes = bytes.field(UInt64.self, at: 8) else {
      throw VFIOMalformed("IOMMU information of \(bytes.count) bytes")
    }
    ranges = IOMMUInfo.conservative
    let hasSizes = flags & UInt32(VFIO_IOMMU_INFO_PGSIZES) != 0 && sizes != 0
    guard !hasSizes || sizes.trailingZeroBitCount < 31 else { throw VFIOMalformed("IOMMU page sizes \(sizes)") }
    pageSize = hasSizes ? 1 << sizes.trailingZeroBitCount : 4096
    guard flags & UInt32(VFIO_IOMMU_INFO_CAPS) != 0, let chain = bytes.field(UInt32.self, at: 16) else { return }
    for capability in try capabilities(in: bytes, first: chain, fixed: 20) {
      switch Int32(capability.id) {
      case VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE:
        ranges = try IOMMUInfo.ranges(bytes, at: capability.contents)
      case VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL:
        guard let left = bytes.field(UInt32.self, at: capability.contents) else {
          throw VFIOMalformed("number of mappings cut short")
        }
        mappingsLeft = Int(left)
      default: break
      }
    }
  }

  /// struct vfio_iommu_type1_info_cap_iova_range.
  private static func ranges(_ bytes: [UInt8], at start: Int) throws(VFIOMalformed) -> [ClosedRange<UInt64>] {
    guard let number = bytes.field(UInt32.self, at: start) else { throw VFIOMalformed("address ranges cut short") }
    var ranges: [ClosedRange<UInt64>] = []
    var at = start + 8
    for _ in 0..<number {
      guard let first = bytes.field(UInt64.self, at: at), let last = bytes.field(UInt64.self, at: at + 8) else {
        throw VFIOMalformed("\(number) address ranges in \(bytes.count) bytes")
      }
      at += 16
      guard first <= last else { throw VFIOMalformed("address range from \(first) to \(last)") }
      ranges.append(first...last)
    }
    ranges.sort { $0.lowerBound < $1.lowerBound }
    for (one, next) in zip(ranges, ranges.dropFirst()) where one.upperBound >= next.lowerBound {
      throw VFIOMalformed("address ranges overlap at \(next.lowerBound)")
    }
    guard !ranges.isEmpty else { throw VFIOMalformed("no address ranges at all") }
    return ranges
  }
}
