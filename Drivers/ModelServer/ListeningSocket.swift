// The socket that clients connect to.

internal import CRingway
internal import Platform
internal import SystemPackage

/// A listening socket in the file system. Its file goes with it.
final class ListeningSocket {
  let path: String
  private let owned: OwnedDescriptor
  /// Which file is ours: somebody may have put another in its place.
  private let file: (device: UInt64, inode: UInt64)?
  var descriptor: Int32 { owned.raw }

  /// Bytes of the longest path: the kernel takes 107, and four are for the name it is made under.
  static let longestPath = 103

  /// Makes the socket. A socket file that nobody listens on any more is replaced.
  init(path: String) throws(ModelServerError) {
    guard !path.isEmpty, path.utf8.count <= ListeningSocket.longestPath else { throw .pathTooLong(path) }
    let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard raw >= 0 else { throw .socket(path, "make", Errno(rawValue: rw_errno())) }
    owned = OwnedDescriptor(taking: raw)
    self.path = path
    if let kind = ListeningSocket.kind(path) {
      guard kind == UInt32(S_IFSOCK) else { throw .notASocket(path) }
      if ListeningSocket.isAlive(path) { throw .inUse(path) }
    }
    // Whoever sees the file can connect: it gets its name once somebody listens.
    let unnamed = path + ".new"
    // SAFETY: null-terminated strings for the length of the calls.
    _ = unsafe unlink(unnamed)
    let bound = unsafe ListeningSocket.withAddress(unnamed) { unsafe bind(raw, $0, $1) }
    guard bound == 0 else { throw .socket(path, "make", Errno(rawValue: rw_errno())) }
    defer { _ = unsafe unlink(unnamed) }
    guard listen(raw, 16) == 0 else { throw .socket(path, "listen on", Errno(rawValue: rw_errno())) }
    // A dead server's file goes now.
    _ = unsafe unlink(path)
    guard unsafe link(unnamed, path) == 0 else { throw .socket(path, "name", Errno(rawValue: rw_errno())) }
    file = ListeningSocket.identity(path)
  }

  deinit {
    if let file, let now = ListeningSocket.identity(path), now == file {
      // SAFETY: a null-terminated string for the length of the call.
      _ = unsafe unlink(path)
    }
  }

  private static func status(_ path: String) -> stat? {
    var status = stat()
    // SAFETY: the kernel fills the local variable.
    return unsafe lstat(path, &status) == 0 ? status : nil
  }
  private static func kind(_ path: String) -> UInt32? { status(path).map { $0.st_mode & UInt32(S_IFMT) } }
  private static func identity(_ path: String) -> (device: UInt64, inode: UInt64)? {
    status(path).map { (UInt64($0.st_dev), UInt64($0.st_ino)) }
  }

  private static func withAddress(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { place in
      for (index, byte) in path.utf8.enumerated() where index < place.count - 1 { unsafe place[index] = byte }
    }
    return unsafe withUnsafePointer(to: &address) { pointer in
      // SAFETY: a sockaddr_un is read as its common head; the length says how much there is.
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }

  /// Whether somebody accepts connections there.
  private static func isAlive(_ path: String) -> Bool {
    let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard raw >= 0 else { return true }
    let probe = OwnedDescriptor(taking: raw)
    let answer = unsafe withAddress(path) { unsafe connect(probe.raw, $0, $1) }
    // A full queue (EAGAIN) is somebody's, too.
    return answer == 0 || Errno(rawValue: rw_errno()) != .connectionRefused
  }

  /// The next client, or nil.
  func accept() -> ClientSocket? {
    let flags = Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
    let raw = rw_accept(owned.raw, flags)
    return raw < 0 ? nil : ClientSocket(taking: OwnedDescriptor(taking: raw))
  }
}
