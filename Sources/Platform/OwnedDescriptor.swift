// Descriptors with one owner.

internal import CRingway
internal import SystemPackage

/// A file descriptor that is closed with its owner.
public struct OwnedDescriptor: ~Copyable, Sendable {
  /// The descriptor's number: for calls and for other objects' bookkeeping, not for closing.
  public let raw: Int32

  /// Takes over an open descriptor.
  public init(taking raw: Int32) { self.raw = raw }

  /// Opens `path` close-on-exec (open(2)).
  /// - Parameters:
  ///   - flags: `O_RDONLY`, `O_RDWR` …; `O_CLOEXEC` is added.
  ///   - mode: permissions of a file that is created.
  public init(opening path: String, flags: Int32, mode: UInt32 = 0o644) throws(SystemError) {
    // SAFETY: the path is a null-terminated string for the length of the call.
    raw = try call("open", path) { unsafe rw_open(path, flags | O_CLOEXEC, mode) }
  }

  /// A second descriptor for the same open file.
  public func duplicate() throws(SystemError) -> OwnedDescriptor {
    let raw = self.raw
    return OwnedDescriptor(taking: try call("duplicate", "descriptor \(raw)") { rw_fcntl(raw, F_DUPFD_CLOEXEC, 0) })
  }

  /// Gives the descriptor away: it is not closed.
  public consuming func release() -> Int32 {
    let raw = raw
    discard self
    return raw
  }

  deinit { _ = close(raw) }
}

/// An eventfd(2): a 64-bit counter that is readable while it is not zero.
public struct EventFD: ~Copyable, Sendable {
  private let owned: OwnedDescriptor
  /// For epoll, and for the kernel's users of eventfds (VFIO, vhost).
  public var descriptor: Int32 { owned.raw }

  /// Non-blocking, close-on-exec, counter 0.
  public init() throws(SystemError) {
    owned = OwnedDescriptor(
      taking: try call("create", "eventfd") { eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK)) })
  }

  /// Takes over an eventfd from elsewhere. It must be non-blocking.
  public init(taking descriptor: Int32) { owned = OwnedDescriptor(taking: descriptor) }

  /// Adds 1. A full counter is left as it is: the reader is awake already.
  public func signal() { EventFD.signal(owned.raw) }

  /// Adds 1 to an eventfd that somebody else owns.
  public static func signal(_ descriptor: Int32) {
    var one: UInt64 = 1
    // SAFETY: eight bytes of a local variable.
    _ = unsafe write(descriptor, &one, 8)
  }

  /// Reads the counter and sets it to 0. Returns 0 when nothing was signalled.
  @discardableResult public func drain() -> UInt64 { EventFD.drain(owned.raw) }

  /// Drains a non-blocking eventfd that somebody else owns.
  @discardableResult public static func drain(_ descriptor: Int32) -> UInt64 {
    var count: UInt64 = 0
    // SAFETY: eight bytes of a local variable.
    return unsafe read(descriptor, &count, 8) == 8 ? count : 0
  }
}
