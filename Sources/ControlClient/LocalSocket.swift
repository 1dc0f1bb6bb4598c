// A stream socket of this machine (unix(7)), with a deadline on everything.

public import Control
public import CRingway
public import Platform
internal import SystemPackage

/// A connected stream socket. Never blocks longer than a deadline, in nanoseconds of the monotonic clock.
public final class LocalSocket {
  private let owned: OwnedDescriptor
  public var descriptor: Int32 { owned.raw }

  /// Takes over a connected socket and makes it non-blocking.
  public init(taking descriptor: consuming OwnedDescriptor) {
    owned = descriptor
    _ = rw_fcntl(owned.raw, F_SETFL, O_NONBLOCK)
  }

  /// Connects to a socket file: ENOENT, ECONNREFUSED (nobody listens), EACCES, EAGAIN (too many wait already).
  public convenience init(connecting path: String) throws(ControlError) {
    let made = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard made >= 0 else { throw Self.error("a socket cannot be made") }
    let owned = OwnedDescriptor(taking: made)
    let result = unsafe try Self.withAddress(path) { unsafe connect(made, $0, $1) }
    guard result == 0 else {
      throw switch rw_errno() {
      case ENOENT, ECONNREFUSED:
        ControlError(Self.name(rw_errno()), "\(path): no daemon listens here. Start it: `ringwayd`, or `systemctl start ringwayd`.")
      case EACCES, EPERM:
        ControlError("EACCES", "\(path): this user may not talk to the daemon. The key control.group names who may.")
      default: Self.error("\(path) cannot be connected to")
      }
    }
    self.init(taking: owned)
  }

  /// Lends a path as a socket address. EINVAL for "" and zero bytes, ENAMETOOLONG beyond 107 bytes.
  public static func withAddress<T>(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> T) throws(ControlError) -> T {
    let name = Array(path.utf8)
    var address = sockaddr_un()
    guard !name.isEmpty, !name.contains(0) else { throw ControlError("EINVAL", "\"\(path)\" is no path for a socket.") }
    guard name.count < MemoryLayout.size(ofValue: address.sun_path) else {
      throw ControlError("ENAMETOOLONG", "\(path): a socket's path has at most 107 bytes.")
    }
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { field in
      for (index, byte) in name.enumerated() { unsafe field[index] = byte }
    }
    // SAFETY: a local structure, read as its common head; its size says how much there is.
    return unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
  }

  /// Sends all of it. ETIMEDOUT, ECONNRESET.
  public func send(_ bytes: [UInt8], deadline: UInt64) throws(ControlError) {
    var at = 0
    while at < bytes.count {
      // SAFETY: the kernel reads the array's own bytes.
      let sent = unsafe bytes.withUnsafeBytes {
        unsafe CRingway.send(owned.raw, $0.baseAddress! + at, $0.count - at, Int32(MSG_NOSIGNAL))
      }
      if sent >= 0 {
        at += sent
        continue
      }
      switch rw_errno() {
      case EINTR: continue
      case EAGAIN:
        guard try wait(Int16(POLLOUT), deadline) else { throw ControlError("ETIMEDOUT", "the daemon takes no bytes.") }
      default: throw Self.error("the connection to the daemon broke")
      }
    }
  }

  /// Some bytes; nil when none came in time. ECONNRESET when the other side has closed.
  public func receive(deadline: UInt64) throws(ControlError) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      // SAFETY: the kernel writes at most the array's bytes and says how many.
      let count = unsafe bytes.withUnsafeMutableBytes { unsafe recv(owned.raw, $0.baseAddress!, $0.count, 0) }
      if count > 0 { return Array(bytes[..<count]) }
      if count == 0 { throw ControlError("ECONNRESET", "the daemon has closed the connection.") }
      switch rw_errno() {
      case EINTR: continue
      case EAGAIN: guard try wait(Int16(POLLIN), deadline) else { return nil }
      default: throw Self.error("the connection to the daemon broke")
      }
    }
  }

  private func wait(_ events: Int16, _ deadline: UInt64) throws(ControlError) -> Bool {
    while true {
      let now = MonotonicClock().now()
      guard deadline > now else { return false }
      var watched = pollfd(fd: owned.raw, events: events, revents: 0)
      // SAFETY: one local structure.
      let ready = unsafe rw_poll(&watched, 1, min(deadline - now, 3_600_000_000_000))
      if ready > 0 { return true }
      if ready < 0, rw_errno() != EINTR { throw Self.error("the connection to the daemon cannot be watched") }
    }
  }

  /// With the calling thread's errno.
  public static func error(_ what: String) -> ControlError {
    let errno = rw_errno()
    return ControlError(name(errno), "\(what): \(Errno(rawValue: errno)).")
  }

  /// An errno's name; "E<number>" for the rare ones.
  public static func name(_ errno: Int32) -> String {
    let names: [Int32: String] = [
      EPERM: "EPERM", ENOENT: "ENOENT", EINTR: "EINTR", EIO: "EIO", EAGAIN: "EAGAIN", ENOMEM: "ENOMEM", EACCES: "EACCES",
      EEXIST: "EEXIST", ENOTDIR: "ENOTDIR", EISDIR: "EISDIR", EINVAL: "EINVAL", EMFILE: "EMFILE", ENFILE: "ENFILE", EPIPE: "EPIPE",
      ENAMETOOLONG: "ENAMETOOLONG", ECONNREFUSED: "ECONNREFUSED", ECONNRESET: "ECONNRESET", ENOTCONN: "ENOTCONN",
      ENOBUFS: "ENOBUFS", EADDRINUSE: "EADDRINUSE", ETIMEDOUT: "ETIMEDOUT", EROFS: "EROFS", EBUSY: "EBUSY", ENODEV: "ENODEV",
      ENXIO: "ENXIO", EOPNOTSUPP: "EOPNOTSUPP", ENOTSOCK: "ENOTSOCK", EPROTOTYPE: "EPROTOTYPE", ELOOP: "ELOOP",
    ]
    return names[errno] ?? "E\(errno)"
  }
}
