// A socket file that one daemon listens at.

internal import CRingway
public import Control
internal import Glibc
internal import Platform

/// What packets a listening socket's connections carry.
public enum LocalSocketKind: Sendable {
  /// SOCK_STREAM
  case stream
  /// SOCK_SEQPACKET
  case packets

  var number: Int32 { Int32(self == .stream ? SOCK_STREAM.rawValue : SOCK_SEQPACKET.rawValue) }
}

/// A listening socket with its file, and the lock beside it that keeps a second daemon away.
public final class ListeningPath {
  public let path: String
  private let owned: OwnedDescriptor
  private let lock: OwnedDescriptor
  /// Whether the file at `path` is ours to remove.
  private var isBound = false
  public var descriptor: Int32 { owned.raw }

  /// EADDRINUSE when another process holds the lock. A socket that nobody listens at any more is removed.
  /// - Parameters:
  ///   - mode: of the socket's file, and `group` whose it is.
  ///   - backlog: connections that may wait to be accepted.
  ///   - key: what the configuration calls the path, for the sentences of errors.
  public init(
    _ path: String, kind: LocalSocketKind = .stream, mode: UInt32, group: UInt32?, backlog: Int32 = 16, key: String = "control.socket"
  ) throws(ControlError) {
    self.path = path
    if let slash = path.lastIndex(of: "/"), slash != path.startIndex {
      // The directory above is made when it is missing: /run/ringway.
      let directory = String(path[..<slash])
      // SAFETY: a null-terminated string for the length of the call.
      if !Files.exists(directory), unsafe mkdir(directory, 0o755) != 0 { throw LocalSocket.error("\(directory) cannot be made") }
    }
    do { lock = try OwnedDescriptor(opening: path + ".lock", flags: O_RDWR | O_CREAT, mode: 0o600) } catch {
      throw ControlError("EACCES", "the lock \(path).lock cannot be opened: \(error). Is this user allowed to run the daemon?")
    }
    guard flock(lock.raw, LOCK_EX | LOCK_NB) == 0 else {
      throw ControlError("EADDRINUSE", "another ringwayd listens at \(path)\(Self.holder(path)). Stop it, or choose another \(key).")
    }
    try? Files.write("\(getpid())\n", to: path + ".lock", create: true)
    let made = socket(AF_UNIX, kind.number | Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard made >= 0 else { throw LocalSocket.error("a socket cannot be made") }
    owned = OwnedDescriptor(taking: made)
    try Self.removeStale(path, key)
    // Nobody but the owner may connect until the file has its group and its mode.
    let old = umask(0o177)
    let bound = unsafe try LocalSocket.withAddress(path) { unsafe bind(made, $0, $1) }
    _ = umask(old)
    guard bound == 0 else { throw LocalSocket.error("\(path) cannot be bound") }
    isBound = true
    if let group {
      // SAFETY: a null-terminated string for the length of the call.
      guard unsafe chown(path, uid_t.max, group) == 0 else { throw LocalSocket.error("\(path) cannot be given to group \(group)") }
    }
    // SAFETY: as above.
    guard unsafe chmod(path, mode & 0o777) == 0 else { throw LocalSocket.error("the mode of \(path) cannot be set") }
    guard listen(made, backlog) == 0 else { throw LocalSocket.error("\(path) cannot be listened at") }
  }

  private static func holder(_ path: String) -> String {
    guard let pid = (try? Files.line(path + ".lock")).flatMap({ Int32($0) }) else { return "" }
    return " (process \(pid))"
  }

  /// Only a socket is ever removed; nobody holds the lock, so nobody serves it.
  private static func removeStale(_ path: String, _ key: String) throws(ControlError) {
    var found = stat()
    // SAFETY: a local structure, and a null-terminated string for the length of the call.
    guard unsafe lstat(path, &found) == 0 else { return }
    guard found.st_mode & 0o170000 == 0o140000 else { throw ControlError("EEXIST", "\(path) is there and is no socket. Remove it, or choose another \(key).") }
    // SAFETY: as above.
    guard unsafe unlink(path) == 0 else { throw LocalSocket.error("the stale socket \(path) cannot be removed") }
  }

  deinit {
    // The socket first: while the lock is held nobody else makes one.
    // The lock's file stays: a new one under the same name would be another lock.
    // SAFETY: a null-terminated string for the length of the call.
    if isBound { _ = unsafe unlink(path) }
  }
}
