// DMAMemory: memory that devices reach, and the addresses they reach it by.
//
//   hugepages.conf ─> MemoryFile (libhugetlbfs | memfd | normal pages) ─> DMARegion (one owner)
//                                                                            │ attach(mapper)
//                     IOVAAllocator (ranges that the cards report) ──────────┘
//
// Invariants
// - A bus address is an `IOVA`, never an integer and never a pointer. Only a region converts, with
//   a bounds check.
// - Every mapping has one owner. A region is unmapped from a card only after every ring that
//   names it is quiet.
// - Hugepages are reached through unlinked descriptors: a killed process leaves none behind.

/// An address as a device uses it on its bus, behind the IOMMU.
@frozen public struct IOVA: RawRepresentable, Hashable, Comparable, Sendable, BitwiseCopyable {
  public let rawValue: UInt64
  @inlinable @inline(__always) public init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable @inline(__always) public static func < (a: IOVA, b: IOVA) -> Bool { a.rawValue < b.rawValue }
  /// The address `bytes` further on.
  @inlinable @inline(__always) public func advanced(by bytes: Int) -> IOVA {
    IOVA(rawValue: rawValue &+ UInt64(truncatingIfNeeded: bytes))
  }
}

/// Memory as a mapper needs it: where it is in this process, and in which file.
@safe public struct DMASource {
  public let base: UnsafeMutableRawPointer
  /// Bytes; a multiple of the page size.
  public let count: Int
  /// The memory file, for mappers that hand it to another process; -1 when there is none.
  public let descriptor: Int32
  /// Bytes from the start of that file.
  public let fileOffset: Int

  public init(unsafe base: UnsafeMutableRawPointer, count: Int, descriptor: Int32, fileOffset: Int) {
    unsafe self.base = base
    self.count = count
    self.descriptor = descriptor
    self.fileOffset = fileOffset
  }
}

/// Whatever makes memory reachable for one card: a VFIO container, an iommufd, a vfio-user
/// socket, a device model.
public protocol DMAMapper: AnyObject {
  /// The bus addresses that may be used, inclusive, sorted (VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE).
  var iovaRanges: [ClosedRange<UInt64>] { get }
  /// Smallest page the IOMMU maps, in bytes: addresses and sizes are multiples of it.
  var iovaPageSize: Int { get }
  /// Makes `source` readable and writable for the card at `iova`.
  func map(_ source: DMASource, at iova: IOVA) throws(DMAError)
  /// Takes it away again. The card must not be using it.
  func unmap(_ iova: IOVA, count: Int) throws(DMAError)
}

/// What went wrong between memory and a card.
public enum DMAError: Error, Equatable, CustomStringConvertible {
  /// The kernel refused a mapping: errno, and how many bytes were asked for.
  case map(errno: Int32, count: Int, iova: IOVA)
  case unmap(errno: Int32, count: Int, iova: IOVA)
  /// RLIMIT_MEMLOCK is too small for the mapping.
  case memoryLockLimit(wanted: Int, limit: Int)
  /// No free range of bus addresses, or the card does not reach this one.
  case noAddressSpace(count: Int)
  case outOfRange(iova: IOVA, count: Int)
  /// The region is mapped for this card already, or is not.
  case alreadyMapped(iova: IOVA)
  case notMapped(iova: IOVA)
  /// The IOMMU's smallest page, in bytes, does not divide the region's address or size.
  case pageSize(wanted: Int, have: Int)
  /// Memory without a file cannot be handed to the process that has to reach it.
  case notShareable(count: Int)
  /// The card is gone.
  case gone

  public var description: String {
    switch self {
    case .map(let errno, let count, let iova):
      "mapping \(count) bytes for DMA at bus address 0x\(String(iova.rawValue, radix: 16)) failed: errno \(errno). Run `ringway doctor` to check the IOMMU and limits."
    case .unmap(let errno, let count, let iova):
      "unmapping \(count) bytes at bus address 0x\(String(iova.rawValue, radix: 16)) failed: errno \(errno)"
    case .memoryLockLimit(let wanted, let limit):
      "mapping \(wanted) bytes for DMA exceeds the locked-memory limit of \(limit) bytes. Raise it with `ulimit -l unlimited`, or LimitMEMLOCK=infinity in a systemd unit."
    case .noAddressSpace(let count):
      "the IOMMU has no free range of \(count) bytes that every card in use can reach. Use smaller pools."
    case .outOfRange(let iova, let count):
      "the card does not reach \(count) bytes at bus address 0x\(String(iova.rawValue, radix: 16)). Open this card first, so that an address is chosen which it reaches."
    case .alreadyMapped(let iova):
      "the region at bus address 0x\(String(iova.rawValue, radix: 16)) is mapped for this card already"
    case .notMapped(let iova):
      "the region at bus address 0x\(String(iova.rawValue, radix: 16)) is not mapped for this card"
    case .pageSize(let wanted, let have):
      "the IOMMU maps pages of at least \(wanted) bytes and the memory has pages of \(have) bytes. Use hugepages."
    case .notShareable(let count):
      "\(count) bytes of memory have no file descriptor, so a vfio-user server cannot map them. Use memory from hugepages or a memfd."
    case .gone:
      "the card is gone"
    }
  }
}
