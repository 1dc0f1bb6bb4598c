// Processors, as lists of them.

internal import CRingway
internal import SystemPackage

/// A list of processors as the kernel writes it ("0-3,8"), and as people do.
public struct CPUList: Equatable, Sendable, CustomStringConvertible {
  /// Processor numbers, ascending, each once.
  public let cpus: [Int]

  /// Highest processor number that a list may name.
  public static let highest = 4095

  public init(_ cpus: some Sequence<Int>) { self.cpus = Set(cpus).sorted() }

  /// Reads the kernel's list format (Documentation/admin-guide/cputopology.rst): numbers and
  /// ranges with commas in between, a newline at the end allowed. nil when it is anything else.
  public init?(parsing text: String) {
    let text = text.hasSuffix("\n") ? text.dropLast() : text[...]
    var cpus: Set<Int> = []
    if text.isEmpty {
      self.cpus = []
      return
    }
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { CPUList.number($0) }
      guard (1...2).contains(ends.count), let first = ends[0], let last = ends[ends.count - 1], first <= last,
        last <= CPUList.highest
      else { return nil }
      cpus.formUnion(first...last)
    }
    self.cpus = cpus.sorted()
  }

  /// Plain decimal digits alone: no signs.
  private static func number(_ text: Substring) -> Int? {
    text.allSatisfy { $0.isASCII && $0.isNumber } ? Int(text) : nil
  }

  /// The kernel's format: "0-3,8".
  public var description: String {
    var parts: [String] = []
    var index = 0
    while index < cpus.count {
      var end = index
      while end + 1 < cpus.count, cpus[end + 1] == cpus[end] + 1 { end += 1 }
      parts.append(end == index ? "\(cpus[index])" : "\(cpus[index])-\(cpus[end])")
      index = end + 1
    }
    return parts.joined(separator: ",")
  }

  /// The processors that the calling thread may run on (sched_getaffinity(2)).
  public static func allowed() throws(SystemError) -> CPUList {
    var mask = [UInt64](repeating: 0, count: (highest + 1) / 64)
    // SAFETY: the kernel fills at most the array's bytes and says how many.
    let bytes = try call("read", "thread's processors") {
      unsafe mask.withUnsafeMutableBytes { unsafe syscall_getaffinity($0.baseAddress!, $0.count) }
    }
    return CPUList((0..<bytes * 8).filter { mask[$0 / 64] >> UInt64($0 % 64) & 1 == 1 })
  }

  /// The processors that are switched on.
  public static func online(sysfs: String = "/sys") throws(SystemError) -> CPUList {
    let path = sysfs + "/devices/system/cpu/online"
    guard let list = CPUList(parsing: try Files.read(path)) else { throw SystemError("parse", path, .invalidArgument) }
    return list
  }
}

/// SAFETY: `mask` must hold `count` bytes, and `count` be a multiple of 8.
@unsafe private func syscall_getaffinity(_ mask: UnsafeMutableRawPointer, _ count: Int) -> Int {
  unsafe Int(rw_thread_cpus(mask, UInt(count)))
}
