// Mounts of hugetlbfs: reading the table, and the call that adds to it.

internal import CRingway
internal import Glibc
internal import Platform
internal import SystemPackage

/// A line of /proc/self/mounts (proc_mounts(5)).
struct MountEntry: Equatable {
  let path: String
  let type: String
  let options: [Substring]

  /// Bytes a page of a hugetlbfs; nil when the kernel does not say (then it is the default size).
  var pageSize: Int? {
    guard type == "hugetlbfs", let text = options.first(where: { $0.hasPrefix("pagesize=") })?.dropFirst("pagesize=".count)
    else { return nil }
    let units: [Character: Int] = ["K": 10, "M": 20, "G": 30]
    guard let unit = text.last, let shift = units[unit] else { return Int(text) }
    return Int(text.dropLast()).flatMap { $0 < 1 << 20 ? $0 << shift : nil }
  }

  /// The table, oldest first. Empty when it cannot be read.
  static func table(root: String) -> [MountEntry] {
    guard let text = try? Files.read(root + "/proc/self/mounts") else { return [] }
    return text.split(separator: "\n").compactMap { line in
      let fields = line.split(separator: " ")
      guard fields.count >= 4 else { return nil }
      return MountEntry(path: unescape(fields[1]), type: String(fields[2]), options: fields[3].split(separator: ","))
    }
  }

  /// "\040" is a blank: three octal digits after a backslash.
  private static func unescape(_ text: Substring) -> String {
    let bytes = Array(text.utf8)
    var result: [UInt8] = []
    var at = 0
    while at < bytes.count {
      if bytes[at] == UInt8(ascii: "\\"), at + 3 < bytes.count,
        let code = UInt8(String(decoding: bytes[at + 1...at + 3], as: UTF8.self), radix: 8)
      {
        result.append(code)
        at += 4
      } else {
        result.append(bytes[at])
        at += 1
      }
    }
    return String(decoding: result, as: UTF8.self)
  }
}

/// What the installer asks of mount(2); tests put their own in its place.
public protocol HugetlbMounter {
  /// Mounts a hugetlbfs. Returns 0 or an errno.
  func mount(path: String, options: String) -> Int32
}

/// The kernel's mount(2).
public struct MountCall: HugetlbMounter {
  public init() {}

  public func mount(path: String, options: String) -> Int32 {
    let flags = UInt(MS_NOSUID | MS_NODEV | MS_NOEXEC)
    // SAFETY: the strings are null-terminated for the length of the call.
    let result = unsafe options.withCString { unsafe Glibc.mount("hugetlbfs", path, "hugetlbfs", flags, $0) }
    return result == 0 ? 0 : rw_errno()
  }

  /// "pagesize=2M,mode=0770,gid=115" (Documentation/admin-guide/mm/hugetlbpage.rst).
  static func options(pageSize: Int, group: UInt32, mode: UInt32) -> String {
    "pagesize=\(size(pageSize)),mode=0\(String(mode, radix: 8)),gid=\(group)"
  }

  /// "2M": as mount options and the kernel command line want it.
  static func size(_ pageSize: Int) -> String {
    for (shift, unit) in [(30, "G"), (20, "M"), (10, "K")] where pageSize & ((1 << shift) - 1) == 0 {
      return "\(pageSize >> shift)\(unit)"
    }
    return "\(pageSize)"
  }
}
