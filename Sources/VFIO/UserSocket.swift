// A stream socket that carries descriptors beside bytes (unix(7), SCM_RIGHTS), with a deadline on
// everything.

internal import CRingway
internal import Glibc
internal import Platform
internal import SystemPackage

/// Descriptors that came with a message. Whoever is interested takes one; the rest is closed with
/// this object, so that nothing a server sends can pile up here.
final class ReceivedDescriptors {
  /// How many may come with one message. A server that sends more is not believed.
  static let limit = 16

  private var held: [Int32] = []

  var count: Int { held.count }

  fileprivate func add(_ descriptor: Int32) { held.append(descriptor) }

  /// Gives the first one away; nil when there is none.
  func takeFirst() -> OwnedDescriptor? {
    held.isEmpty ? nil : OwnedDescriptor(taking: held.removeFirst())
  }

  deinit { for descriptor in held { _ = Glibc.close(descriptor) } }
}

/// A connected socket. Calls wait until `deadline`, in monotonic nanoseconds, and then fail with
/// ETIMEDOUT; a peer that has closed is ECONNRESET.
struct UserSocket: ~Copyable, Sendable {
  private let owned: OwnedDescriptor
  var descriptor: Int32 { owned.raw }

  /// Takes over a connected stream socket, and makes it non-blocking.
  init(taking descriptor: consuming OwnedDescriptor) {
    owned = descriptor
    _ = rw_fcntl(owned.raw, F_SETFL, O_NONBLOCK)
  }

  /// Connects to the socket file `path`: ENAMETOOLONG beyond 107 bytes (unix(7)), EAGAIN when as
  /// many clients wait already as the server allows.
  init(connecting path: String) throws(Errno) {
    let made = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard made >= 0 else { throw Errno(rawValue: rw_errno()) }
    let connected = OwnedDescriptor(taking: made)
    let name = Array(path.utf8)
    var address = sockaddr_un()
    guard !name.isEmpty, !name.contains(0) else { throw .invalidArgument }
    guard name.count < MemoryLayout.size(ofValue: address.sun_path) else { throw .fileNameTooLong }
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { field in
      for (index, byte) in name.enumerated() { unsafe field[index] = byte }
    }
    // SAFETY: a local structure and its size.
    let result = unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe connect(made, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard result == 0 else { throw Errno(rawValue: rw_errno()) }
    owned = connected
  }

  /// Ends the connection both ways, also for whoever watches the descriptor.
  func shut() { _ = shutdown(owned.raw, Int32(SHUT_RDWR)) }

  /// Whether the peer is gone, or `shut` was called.
  var hasHungUp: Bool {
    var watched = pollfd(fd: owned.raw, events: UserSocket.peerClosed, revents: 0)
    // SAFETY: one local structure.
    return unsafe poll(&watched, 1, 0) > 0
  }

  /// POLLRDHUP (poll(2)): glibc declares it for GNU sources only.
  private static let peerClosed: Int16 = 0x2000

  /// Sends all of it; the descriptors go with the first byte.
  func send(_ bytes: [UInt8], descriptors: [Int32] = [], deadline: UInt64) throws(Errno) {
    var control = UserSocket.rights(descriptors)
    var done = 0
    while done < bytes.count {
      // SAFETY: the structures point into the arrays for the length of the call alone.
      let sent = unsafe bytes.withUnsafeBytes { content in
        unsafe control.withUnsafeMutableBytes { rights in
          var piece = unsafe iovec(
            iov_base: UnsafeMutableRawPointer(mutating: content.baseAddress! + done), iov_len: content.count - done)
          return unsafe withUnsafeMutablePointer(to: &piece) { piece in
            var message = unsafe msghdr()
            unsafe message.msg_iov = piece
            unsafe message.msg_iovlen = 1
            if rights.count > 0 {
              unsafe message.msg_control = rights.baseAddress
              unsafe message.msg_controllen = rights.count
            }
            return unsafe sendmsg(owned.raw, &message, Int32(MSG_NOSIGNAL))
          }
        }
      }
      if sent >= 0 {
        done += sent
        if sent > 0 { control = [] }
      } else {
        try pause(for: Int16(POLLOUT), deadline: deadline)
      }
    }
  }

  /// Fills `bytes`; descriptors that come along go to `descriptors`.
  ///
  /// Throws EPROTO when there are more than `ReceivedDescriptors.limit`.
  func receive(_ bytes: inout [UInt8], _ descriptors: ReceivedDescriptors, deadline: UInt64) throws(Errno) {
    var control = [UInt8](repeating: 0, count: UserSocket.space(ReceivedDescriptors.limit))
    var done = 0
    while done < bytes.count {
      var flags: Int32 = 0
      var filled = 0
      let start = done
      // SAFETY: as in `send`; the kernel says how much of each array it filled.
      let got = unsafe bytes.withUnsafeMutableBytes { content in
        unsafe control.withUnsafeMutableBytes { rights in
          var piece = unsafe iovec(iov_base: content.baseAddress! + start, iov_len: content.count - start)
          return unsafe withUnsafeMutablePointer(to: &piece) { piece in
            var message = unsafe msghdr()
            unsafe message.msg_iov = piece
            unsafe message.msg_iovlen = 1
            unsafe message.msg_control = rights.baseAddress
            unsafe message.msg_controllen = rights.count
            let got = unsafe recvmsg(owned.raw, &message, Int32(MSG_CMSG_CLOEXEC))
            unsafe flags = message.msg_flags
            unsafe filled = message.msg_controllen
            return got
          }
        }
      }
      if got > 0 {
        done += got
        UserSocket.collect(control, filled, into: descriptors)
        guard flags & Int32(MSG_CTRUNC) == 0, descriptors.count <= ReceivedDescriptors.limit else {
          throw .protocolError
        }
      } else if got == 0 {
        throw .connectionReset
      } else {
        try pause(for: Int16(POLLIN), deadline: deadline)
      }
    }
  }

  /// After a call that did not succeed: waits when it would have blocked, else throws its errno.
  private func pause(for event: Int16, deadline: UInt64) throws(Errno) {
    let errno = Errno(rawValue: rw_errno())
    if errno == .interrupted { return }
    guard errno == .resourceTemporarilyUnavailable || errno == .noBufferSpace else { throw errno }
    let now = MonotonicClock().now()
    guard now < deadline else { throw .timedOut }
    var watched = pollfd(fd: owned.raw, events: event, revents: 0)
    let milliseconds = (deadline - now + 999_999) / 1_000_000
    // SAFETY: one local structure. Whatever it says, the call itself is tried again.
    _ = unsafe poll(&watched, 1, Int32(clamping: milliseconds))
  }

  // MARK: Control messages (cmsg(3)): length, level, type, and descriptors of four bytes each,
  // padded to the size of a pointer.

  private static let header = 16

  private static func space(_ count: Int) -> Int { header + (count * 4 + 7) & ~7 }

  private static func rights(_ descriptors: [Int32]) -> [UInt8] {
    if descriptors.isEmpty { return [] }
    var bytes = [UInt8](repeating: 0, count: space(descriptors.count))
    bytes.set(UInt64(header + descriptors.count * 4), at: 0)
    bytes.set(SOL_SOCKET, at: 8)
    bytes.set(Int32(SCM_RIGHTS), at: 12)
    for (index, descriptor) in descriptors.enumerated() { bytes.set(descriptor, at: header + index * 4) }
    return bytes
  }

  private static func collect(_ control: [UInt8], _ filled: Int, into descriptors: ReceivedDescriptors) {
    var at = 0
    while at + header <= min(filled, control.count) {
      guard let length = control.field(UInt64.self, at: at), length >= UInt64(header),
        length <= UInt64(min(filled, control.count) - at)
      else { return }
      if control.field(Int32.self, at: at + 8) == SOL_SOCKET,
        control.field(Int32.self, at: at + 12) == Int32(SCM_RIGHTS)
      {
        for place in stride(from: at + header, to: at + Int(length) - 3, by: 4) {
          if let descriptor = control.field(Int32.self, at: place) { descriptors.add(descriptor) }
        }
      }
      at += (Int(length) + 7) & ~7
    }
  }
}
