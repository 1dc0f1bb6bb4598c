// The kernel's hugepage pools, as sysfs shows them (Documentation/admin-guide/mm/hugetlbpage.rst).
//
//   /sys/kernel/mm/hugepages/hugepages-2048kB/{nr_hugepages,free_hugepages,resv_hugepages,…}
//   /sys/devices/system/node/node0/hugepages/hugepages-2048kB/{nr_hugepages,free_hugepages,…}

internal import Platform

/// The pool of one page size, over all nodes or on one.
public struct HugepagePool: Equatable, Sendable {
  /// Bytes a page.
  public let pageSize: Int
  /// The NUMA node, or nil for the sum of all.
  public let node: Int?
  /// Pages the kernel holds, in use or not.
  public let total: Int
  /// Pages that nobody has touched.
  public let free: Int
  /// Pages that are free but promised to a mapping. The kernel counts them for all nodes together.
  public let reserved: Int
  /// Pages beyond the reservation that the kernel may still make when asked.
  public let overcommit: Int

  /// Pages that a new mapping can have.
  public var available: Int { max(0, free - reserved + overcommit) }

  /// Reads a pool.
  /// - Parameters:
  ///   - root: put before /sys, for tests.
  /// - Returns: nil when the kernel has no pool of this size, or the node does not exist.
  public static func read(pageSize: Int, node: Int? = nil, root: String = "") -> HugepagePool? {
    let all = directory(pageSize: pageSize, node: nil, root: root)
    guard let total = readNumber(all + "/nr_hugepages"), let free = readNumber(all + "/free_hugepages") else { return nil }
    let reserved = readNumber(all + "/resv_hugepages") ?? 0
    let surplus = readNumber(all + "/surplus_hugepages") ?? 0
    let overcommit = max(0, (readNumber(all + "/nr_overcommit_hugepages") ?? 0) - surplus)
    guard let node else {
      return HugepagePool(
        pageSize: pageSize, node: nil, total: total, free: free, reserved: reserved, overcommit: overcommit)
    }
    let one = directory(pageSize: pageSize, node: node, root: root)
    guard let nodeTotal = readNumber(one + "/nr_hugepages"), let nodeFree = readNumber(one + "/free_hugepages")
    else { return nil }
    // Promised pages belong to no node yet: what other nodes cannot cover is missing here.
    let elsewhere = free - nodeFree
    return HugepagePool(
      pageSize: pageSize, node: node, total: nodeTotal, free: nodeFree, reserved: max(0, reserved - elsewhere),
      overcommit: overcommit)
  }

  /// Page sizes the kernel has pools for, in bytes, ascending.
  public static func pageSizes(root: String = "") -> [Int] {
    ((try? Files.list(root + "/sys/kernel/mm/hugepages")) ?? []).compactMap { name in
      guard name.hasPrefix("hugepages-"), name.hasSuffix("kB") else { return nil }
      return Int(name.dropFirst("hugepages-".count).dropLast(2)).map { $0 << 10 }
    }.sorted()
  }

  /// NUMA nodes that have memory. [0] on a kernel that knows no nodes.
  public static func nodes(root: String = "") -> [Int] {
    guard let text = try? Files.line(root + "/sys/devices/system/node/has_memory") else { return [0] }
    return parseList(text)
  }

  /// The directory of a pool's files.
  public static func directory(pageSize: Int, node: Int?, root: String = "") -> String {
    let name = "hugepages-\(pageSize >> 10)kB"
    guard let node else { return "\(root)/sys/kernel/mm/hugepages/\(name)" }
    return "\(root)/sys/devices/system/node/node\(node)/hugepages/\(name)"
  }

  /// The shell command that makes the kernel hold `count` pages.
  public static func command(reserving count: Int, pageSize: Int, node: Int?) -> String {
    "echo \(count) | sudo tee \(directory(pageSize: pageSize, node: node))/nr_hugepages"
  }

  /// "0-2,5" as the kernel writes lists; parts that make no sense are skipped.
  static func parseList(_ text: String) -> [Int] {
    var numbers: [Int] = []
    for part in text.split(whereSeparator: { $0 == "," || $0.isWhitespace }) {
      let ends = part.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false).map { Int($0) }
      guard let first = ends.first ?? nil, let last = ends.last ?? nil, first >= 0, first <= last, last < 4096 else { continue }
      numbers.append(contentsOf: first...last)
    }
    return numbers
  }

  /// A number alone in a file.
  private static func readNumber(_ path: String) -> Int? { (try? Files.line(path)).flatMap { Int($0) } }
}
