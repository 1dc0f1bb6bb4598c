// What the installer of hugepages.conf does, one thing at a time: planned first, so that a person
// can read it (`--dry-run`), then done, in the same words.

internal import Platform
internal import SystemPackage

/// One thing that the installer does, or finds done already.
public enum HugepagesStep: Equatable, Sendable, CustomStringConvertible {
  /// Nothing to do; the sentence says why.
  case keep(String)
  /// Raise a pool from `present` to `count` pages. `file` is its nr_hugepages.
  case reserve(file: String, count: Int, present: Int, pageSize: Int, node: Int?)
  case makeDirectory(String)
  case mount(path: String, pageSize: Int, group: UInt32, mode: UInt32)
  /// Group and mode of a mount that exists.
  case permit(path: String, group: UInt32, mode: UInt32)
  case write(path: String, text: String)
  case link(path: String, target: String)
  case remove(String)

  public var description: String {
    switch self {
    case .keep(let reason): return "nothing to do: \(reason)"
    case .reserve(let file, let count, let present, let pageSize, let node):
      let place = node.map { " on node \($0)" } ?? ""
      return "reserve \(count) pages of \(ByteCount(pageSize))\(place) (now \(present)): write \(count) to \(file)"
    case .makeDirectory(let path): return "make directory \(path)"
    case .mount(let path, let pageSize, let group, let mode):
      return "mount hugetlbfs on \(path): \(MountCall.options(pageSize: pageSize, group: group, mode: mode))"
    case .permit(let path, let group, let mode):
      return "set group \(group) and mode 0\(String(mode, radix: 8)) on \(path)"
    case .write(let path, let text): return "write \(path) (\(text.utf8.count) bytes)"
    case .link(let path, let target): return "link \(path) to \(target)"
    case .remove(let path): return "remove \(path)"
    }
  }
}

/// A step, and how it went.
public struct HugepagesReport: Sendable {
  public let step: HugepagesStep
  /// nil when it was done.
  public let failure: HugepagesFailure?

  public init(step: HugepagesStep, failure: HugepagesFailure?) {
    self.step = step
    self.failure = failure
  }
}

/// Why hugepages.conf cannot be applied.
public enum HugepagesFailure: Error, Equatable, Sendable, CustomStringConvertible {
  case memory(MemoryError)
  case noSuchGroup(String, line: Int)
  /// Something else is mounted there.
  case otherMount(path: String, what: String, line: Int)
  /// The kernel found fewer pages than it was told to reserve.
  case pagesNotFound(wanted: Int, got: Int, pageSize: Int, node: Int?)
  /// A file of that name was not written by this installer.
  case notOurs(String)
  /// `--persist` knows systemd only.
  case noSystemd
  case system(operation: String, path: String, errno: Int32)

  public var description: String {
    switch self {
    case .memory(let error): return "\(error)"
    case .noSuchGroup(let group, let line):
      return "line \(line): there is no group `\(group)`. Create it with `groupadd --system \(group)`."
    case .otherMount(let path, let what, let line):
      return "line \(line): \(what) is mounted on \(path). Unmount it with `umount \(path)`, or choose another path."
    case .pagesNotFound(let wanted, let got, let pageSize, let node):
      let place = node.map { " on node \($0)" } ?? ""
      let option = node.map { "hugepages=\($0):\(wanted)" } ?? "hugepages=\(wanted)"
      return
        "\(wanted) hugepages of \(ByteCount(pageSize)) wanted\(place), \(got) could be reserved: free memory is too small or too scattered. Reserve them at boot with `hugepagesz=\(MountCall.size(pageSize)) \(option)` on the kernel command line, or stop other programs and apply again."
    case .notOurs(let path):
      return "\(path) exists and was not written by `ringway hugepages`. Move it away, or choose another mount path."
    case .noSystemd:
      return "this machine has no /etc/systemd/system to write to. Let its init run `ringway hugepages apply` at each start instead."
    case .system(let operation, let path, let errno):
      return "\(operation) \(path): \(Errno(rawValue: errno)). \(errno == 1 || errno == 13 ? "Run the command as root." : "Correct what the kernel objects to and apply again.")"
    }
  }

  /// Whether more rights would have helped.
  public var isPermission: Bool {
    if case .system(_, _, let errno) = self { return errno == 1 || errno == 13 || errno == 30 }
    return false
  }

  init(_ error: SystemError) {
    self = .system(operation: error.operation, path: error.subject, errno: error.errno.rawValue)
  }
}
