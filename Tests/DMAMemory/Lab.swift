// Hugepages for tests. NetmapCore's tests have a link to this file.

import Glibc
import Platform
import Testing

@testable import DMAMemory

/// Real hugepages for the tests that need them.
enum Lab {
  static let isRoot = geteuid() == 0
  static let reason: Comment = "reserving and mounting hugepages needs root"
  static let size = 2 << 20

  /// Sees to it that pages enough for every test here are free, and undoes that when the process
  /// ends. `pages` are what this test is going to use.
  static func reserve(_ pages: Int) throws {
    try raise.get()
    let pool = try #require(HugepagePool.read(pageSize: size))
    try #require(pool.available >= pages, "the kernel could not find \(pages) hugepages")
  }

  /// The pages kept free for tests: those of each test module use less than half of them at a time.
  private static let floor = 128

  /// Under a lock on the kernel's file, because other test modules raise the number as well.
  private static let raise = Result {
    _ = try #require(HugepagePool.read(pageSize: size), "the kernel has no 2 MiB pages")
    unsafe original = try change { pool in max(pool.total, pool.total + floor - pool.available) }
    atexit { _ = try? Lab.change { _ in unsafe Lab.original } }
  }
  nonisolated(unsafe) private static var original = 0

  /// Sets the number of pages to what `wanted` makes of the pool. Returns what it was.
  private static func change(_ wanted: (HugepagePool) -> Int) throws -> Int {
    let path = HugepagePool.directory(pageSize: size, node: nil) + "/nr_hugepages"
    let file = try OwnedDescriptor(opening: path, flags: O_RDWR)
    let raw = file.raw
    try #require(flock(raw, LOCK_EX) == 0)
    let pool = try #require(HugepagePool.read(pageSize: size))
    let count = wanted(pool)
    if count != pool.total { try Files.write("\(count)", to: path) }
    _ = flock(raw, LOCK_UN)
    return pool.total
  }

  /// The kernel's account of a mapping: pages present on each node, from /proc/self/numa_maps.
  static func pages(at address: UnsafeRawPointer) -> (policy: String, nodes: [Int: Int], pageKB: Int)? {
    let start = String(UInt(bitPattern: address), radix: 16)
    guard let text = try? Files.read("/proc/self/numa_maps") else { return nil }
    for line in text.split(separator: "\n") {
      let fields = line.split(separator: " ")
      guard let first = fields.first, first.drop(while: { $0 == "0" }) == start else { continue }
      var nodes: [Int: Int] = [:]
      var pageKB = 0
      for field in fields.dropFirst(2) {
        let pair = field.split(separator: "=")
        guard pair.count == 2, let value = Int(pair[1]) else { continue }
        if pair[0].hasPrefix("N"), let node = Int(pair[0].dropFirst()) { nodes[node] = value }
        if pair[0] == "kernelpagesize_kB" { pageKB = value }
      }
      return (String(fields[1]), nodes, pageKB)
    }
    return nil
  }

  /// Free pages, once they are at least `wanted` or ten seconds are over: a process that was killed
  /// gives its memory back a little later, and other tests come and go.
  static func freePages(reaching wanted: Int) -> Int {
    for _ in 0..<1000 {
      if let pool = HugepagePool.read(pageSize: size), pool.free >= wanted { return pool.free }
      usleep(10_000)
    }
    return HugepagePool.read(pageSize: size)?.free ?? 0
  }
}
