// What memory is made of, and what can go wrong while it is made.

internal import Glibc
internal import SystemPackage

/// Where pages come from.
public enum MemoryBacking: Hashable, Sendable, CustomStringConvertible {
  /// Hugepages through memfd_create(2): needs no mount, and can be sealed. `pageSize` in bytes.
  case memfd(pageSize: Int)
  /// Hugepages through libhugetlbfs: an unlinked file in a mounted hugetlbfs. `pageSize` in bytes.
  case hugetlbfs(pageSize: Int)
  /// Pages of the base size, for machines without hugepages: only when a person asked for them.
  case normalPages

  /// Bytes a page.
  public var pageSize: Int {
    switch self {
    case .memfd(let size), .hugetlbfs(let size): size
    case .normalPages: basePageSize
    }
  }

  /// Whether the pages come from the kernel's hugepage pools.
  public var isHuge: Bool { self != .normalPages }

  public var description: String {
    switch self {
    case .memfd(let size): "memfd, \(ByteCount(size)) pages"
    case .hugetlbfs(let size): "hugetlbfs, \(ByteCount(size)) pages"
    case .normalPages: "normal pages"
    }
  }
}

/// Bytes in a page of the base size: 4096 on x86-64, up to 65536 on arm64.
public let basePageSize = Int(sysconf(Int32(_SC_PAGESIZE)))

/// A size for people: "2 MiB", "64 KiB", "100 bytes".
public struct ByteCount: CustomStringConvertible, Sendable {
  public let bytes: Int
  public init(_ bytes: Int) { self.bytes = bytes }

  public var description: String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] where bytes != 0 && bytes & ((1 << shift) - 1) == 0 {
      return "\(bytes >> shift) \(unit)"
    }
    return "\(bytes) bytes"
  }
}

/// Why memory could not be made. Each sentence says what to do next.
public enum MemoryError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Fewer hugepages are free than wanted. `total` is what the kernel holds at present, free or not.
  case tooFewHugepages(wanted: Int, available: Int, pageSize: Int, node: Int?, total: Int)
  /// The kernel has no pool of this page size.
  case noSuchPageSize(pageSize: Int, available: [Int])
  /// libhugetlbfs found no mounted hugetlbfs of this page size.
  case noMount(pageSize: Int)
  /// This machine has no such NUMA node, or it has no memory.
  case noSuchNode(node: Int)
  /// Sizes must be above zero and fit the address space.
  case badSize(bytes: Int)
  /// Not enough memory for normal pages.
  case outOfMemory(bytes: Int)
  /// A file that a program handed over cannot be used.
  case external(ExternalMemoryProblem)
  /// A system call failed.
  case system(operation: String, errno: Int32, bytes: Int)

  public var description: String {
    switch self {
    case .tooFewHugepages(let wanted, let available, let pageSize, let node, let total):
      let place = node.map { " on node \($0)" } ?? ""
      return
        "\(wanted) hugepages of \(ByteCount(pageSize)) wanted\(place), \(available) available. Run `\(HugepagePool.command(reserving: total + wanted - available, pageSize: pageSize, node: node))`, or use --no-huge."
    case .noSuchPageSize(let pageSize, let available):
      let list = available.isEmpty ? "none" : available.map { "\(ByteCount($0))" }.joined(separator: ", ")
      return
        "this kernel has no hugepages of \(ByteCount(pageSize)); it has \(list). Set `size` in hugepages.conf to one of them, or use --no-huge."
    case .noMount(let pageSize):
      return
        "no hugetlbfs with pages of \(ByteCount(pageSize)) is mounted where this process may write. Run `ringway hugepages apply`, then start again."
    case .noSuchNode(let node):
      return "NUMA node \(node) does not exist or has no memory. See /sys/devices/system/node/has_memory for those that have."
    case .badSize(let bytes):
      return "a memory file of \(bytes) bytes cannot be made. Use a size above zero that fits the address space."
    case .outOfMemory(let bytes):
      return "\(bytes) bytes of memory are not available. Use smaller pools or stop other programs."
    case .external(let problem): return "\(problem)"
    case .system(let operation, let errno, let bytes):
      return "\(operation) for \(ByteCount(bytes)) of memory failed: \(Errno(rawValue: errno)) (errno \(errno)). Run `ringway doctor` to check limits and permissions."
    }
  }
}

extension MemoryError {
  /// What a failed mapping or prefault means.
  static func shortage(errno code: Int32, operation: String, count: Int, backing: MemoryBacking, node: Int?) -> MemoryError {
    guard code == ENOMEM || code == EFAULT else { return .system(operation: operation, errno: code, bytes: count) }
    guard backing.isHuge, let pool = HugepagePool.read(pageSize: backing.pageSize, node: node) else {
      return .outOfMemory(bytes: count)
    }
    let wanted = count / backing.pageSize
    return .tooFewHugepages(
      wanted: wanted, available: min(pool.available, wanted - 1), pageSize: backing.pageSize, node: node, total: pool.total)
  }
}
