import Glibc
import Platform
import Testing

@testable import DMAMemory

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers for the same seed, everywhere.
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// A directory that looks like the root of a machine.
final class FakeRoot {
  let path: String

  init() throws {
    var template = Array("/tmp/ringway-test-XXXXXX".utf8CString)
    // SAFETY: mkdtemp changes the array in place, and its result points into it.
    path = try #require(unsafe template.withUnsafeMutableBufferPointer { area in
      unsafe mkdtemp(area.baseAddress!).map { unsafe String(cString: $0) }
    })
  }

  func file(_ name: String, _ text: String) throws {
    var partial = path
    let parts = name.split(separator: "/")
    for part in parts.dropLast() {
      partial += "/\(part)"
      _ = unsafe mkdir(partial, 0o755)
    }
    try Files.write(text, to: "\(partial)/\(parts.last!)", create: true)
  }

  func directory(_ name: String) throws {
    try file(name + "/.keep", "")
  }

  func read(_ name: String) -> String? { try? Files.read(path + name) }
  /// The same without white space around it.
  func line(_ name: String) -> String? { try? Files.line(path + name) }

  /// A machine with these pools: pages of 2 MiB on each node.
  func pools(nodes: [(total: Int, free: Int)], reserved: Int = 0) throws {
    let all = "/sys/kernel/mm/hugepages/hugepages-2048kB"
    try file("\(all)/nr_hugepages", "\(nodes.reduce(0) { $0 + $1.total })\n")
    try file("\(all)/free_hugepages", "\(nodes.reduce(0) { $0 + $1.free })\n")
    try file("\(all)/resv_hugepages", "\(reserved)\n")
    try file("\(all)/surplus_hugepages", "0\n")
    try file("\(all)/nr_overcommit_hugepages", "0\n")
    try file("/sys/devices/system/node/has_memory", nodes.count > 1 ? "0-\(nodes.count - 1)\n" : "0\n")
    for (node, pool) in nodes.enumerated() {
      let one = "/sys/devices/system/node/node\(node)/hugepages/hugepages-2048kB"
      try file("\(one)/nr_hugepages", "\(pool.total)\n")
      try file("\(one)/free_hugepages", "\(pool.free)\n")
    }
  }

  deinit { remove(path) }

  private func remove(_ path: String) {
    var status = stat()
    if unsafe lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR {
      for name in (try? Files.list(path)) ?? [] { remove(path + "/" + name) }
      _ = unsafe rmdir(path)
    } else {
      _ = unsafe unlink(path)
    }
  }
}
