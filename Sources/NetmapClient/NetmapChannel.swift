// Requests to the daemon, over the descriptor itself (NetmapAPI, Messages.swift).

internal import CRingway
public import NetmapAPI
internal import Platform

/// What the daemon answered. Descriptors that nobody takes are closed with it.
public final class NetmapAnswer {
  /// 0, or why not (errno(3)).
  public let errno: Int32
  public let payload: [UInt8]
  /// The daemon's sentence about the error; may be empty.
  public let text: String
  var descriptors: [Int32]

  init(errno: Int32, payload: [UInt8], text: String, descriptors: [Int32]) {
    self.errno = errno
    self.payload = payload
    self.text = text
    self.descriptors = descriptors
  }

  deinit { for descriptor in descriptors { _ = rw_raw_close(descriptor) } }

  /// The error that the answer stands for.
  func error(_ what: String) -> NetmapClientError {
    NetmapClientError(errno, text.isEmpty ? "\(what): the daemon refuses with errno \(errno)." : text)
  }
}

/// Calls that have no state but the descriptor.
public enum NetmapChannel {
  /// Nanoseconds that an answer may take. Requests that wait for a teardown are retried by the daemon for a second.
  public static let patience: UInt64 = 30_000_000_000

  /// A new connection: a descriptor of the caller's, close-on-exec. ENOENT, ECONNREFUSED (no daemon), EACCES, ENAMETOOLONG.
  public static func connect(_ path: String) throws(NetmapClientError) -> Int32 {
    guard !path.utf8.contains(0) else { throw NetmapClientError(EINVAL, "\"\(path)\" is no path for a socket.") }
    let made = socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard made >= 0 else { throw .last("A socket for netmap cannot be made") }
    // SAFETY: the path is a null-terminated string for the length of the call.
    while unsafe rw_connect_path(made, path) != 0 {
      let errno = rw_errno()
      if errno == EINTR { continue }
      _ = rw_raw_close(made)
      rw_set_errno(errno)
      throw switch errno {
      case ENOENT, ECONNREFUSED:
        NetmapClientError(errno, "\(path): no daemon offers netmap here. Start it: `ringwayd`, or `systemctl start ringwayd`.")
      case EACCES, EPERM:
        NetmapClientError(EACCES, "\(path): this user may not use netmap. The key netmap.group names who may.")
      default: .last("\(path) cannot be connected to")
      }
    }
    return made
  }

  /// Asks, and waits for the answer. Refusals are answers too; what is thrown means that there was none.
  /// - Parameters:
  ///   - descriptor: a connection; any process's that holds it.
  ///   - file: the memory file of EXTMEM, or -1.
  public static func ask(
    _ descriptor: Int32, _ head: NetmapRequestHead, _ payload: [UInt8] = [], file: Int32 = -1
  ) throws(NetmapClientError) -> NetmapAnswer {
    let packet = head.packet(payload)
    guard packet.count <= NetmapMessageLimit.bytes else {
      throw NetmapClientError(EMSGSIZE, "The request has \(packet.count) bytes; \(NetmapMessageLimit.bytes) are the most.")
    }
    var pair: (Int32, Int32) = (-1, -1)
    // SAFETY: the kernel writes two numbers.
    let made = unsafe withUnsafeMutableBytes(of: &pair) {
      unsafe socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0, $0.baseAddress!.assumingMemoryBound(to: Int32.self))
    }
    guard made == 0 else { throw .last("A socket pair for the daemon's answer cannot be made") }
    defer { _ = rw_raw_close(pair.0) }
    let deadline = MonotonicClock().now() &+ patience
    do {
      defer { _ = rw_raw_close(pair.1) }
      try send(descriptor, packet, passing: pair.1, file, deadline)
    }
    return try receive(pair.0, deadline)
  }

  private static func send(
    _ descriptor: Int32, _ packet: [UInt8], passing answer: Int32, _ file: Int32, _ deadline: UInt64
  ) throws(NetmapClientError) {
    let passed = (answer, file)
    while true {
      // SAFETY: the kernel reads the array's own bytes and two numbers of a local variable.
      let sent = unsafe packet.withUnsafeBytes { bytes in
        unsafe withUnsafeBytes(of: passed) { numbers in
          unsafe rw_send_packet(
            descriptor, bytes.baseAddress!, bytes.count, numbers.baseAddress!.assumingMemoryBound(to: Int32.self), file >= 0 ? 2 : 1)
        }
      }
      if sent == packet.count { return }
      switch rw_errno() {
      case EINTR: continue
      case EAGAIN, ENOBUFS:
        guard wait(descriptor, Int16(POLLOUT), deadline) else { throw NetmapClientError(ETIMEDOUT, "The daemon takes no requests. Its log says why.") }
      case EPIPE, ECONNRESET, ENOTCONN: throw .gone("A request failed")
      default: throw .last("The daemon cannot be asked")
      }
    }
  }

  private static func receive(_ pair: Int32, _ deadline: UInt64) throws(NetmapClientError) -> NetmapAnswer {
    var bytes = [UInt8](repeating: 0, count: NetmapMessageLimit.bytes)
    var descriptors = [Int32](repeating: -1, count: NetmapMessageLimit.descriptors)
    var came: UInt32 = 0
    while true {
      // SAFETY: at most the arrays' own bytes and numbers are written, and the counts say how many.
      let count = unsafe bytes.withUnsafeMutableBytes { bytes in
        unsafe descriptors.withUnsafeMutableBufferPointer {
          unsafe rw_receive_packet(pair, bytes.baseAddress!, bytes.count, $0.baseAddress!, UInt32($0.count), &came)
        }
      }
      if count < 0 {
        switch rw_errno() {
        case EINTR: continue
        case EAGAIN:
          if wait(pair, Int16(POLLIN), deadline) { continue }
          throw NetmapClientError(ETIMEDOUT, "The daemon has not answered in time. Is a worker stuck? Its log says so.")
        case EMSGSIZE: throw NetmapClientError(EIO, "The daemon's answer is too long. Use daemon and library of the same version.")
        default: throw .gone("No answer came")
        }
      }
      let answer = NetmapAnswer(errno: 0, payload: [], text: "", descriptors: Array(descriptors.prefix(Int(came))))
      if count == 0 { throw .gone("No answer came") }
      return try read(Array(bytes.prefix(count)), answer)
    }
  }

  /// Takes the packet apart; its descriptors, which `holder` has, must be as many as its head says.
  private static func read(_ packet: [UInt8], _ holder: NetmapAnswer) throws(NetmapClientError) -> NetmapAnswer {
    let parts: (head: NetmapReplyHead, payload: [UInt8], text: String)
    do { parts = try NetmapReplyHead.read(packet: packet) } catch { throw NetmapClientError(EIO, error.problem) }
    guard Int(parts.head.descriptors) == holder.descriptors.count, parts.head.errno >= 0 else {
      throw NetmapClientError(EIO, "The daemon's answer came with \(holder.descriptors.count) descriptors; it promises \(parts.head.descriptors).")
    }
    let descriptors = holder.descriptors
    holder.descriptors = []
    return NetmapAnswer(errno: parts.head.errno, payload: parts.payload, text: parts.text, descriptors: descriptors)
  }

  private static func wait(_ descriptor: Int32, _ events: Int16, _ deadline: UInt64) -> Bool {
    while true {
      let now = MonotonicClock().now()
      guard deadline > now else { return false }
      var watched = pollfd(fd: descriptor, events: events, revents: 0)
      var limit = timespec(tv_sec: Int((deadline - now) / 1_000_000_000), tv_nsec: Int((deadline - now) % 1_000_000_000))
      // SAFETY: local structures.
      let ready = unsafe rw_raw_poll(&watched, 1, &limit, nil)
      if ready > 0 { return true }
      if ready < 0, rw_errno() != EINTR { return false }
    }
  }

  /// Whether the other end of a connection has left.
  public static func isGone(_ descriptor: Int32) -> Bool {
    var watched = pollfd(fd: descriptor, events: 0, revents: 0)
    var limit = timespec()
    // SAFETY: local structures.
    return unsafe rw_raw_poll(&watched, 1, &limit, nil) > 0 && watched.revents != 0
  }

  /// Takes the wakeups that wait on a connection. False when the daemon has left.
  public static func drain(_ descriptor: Int32) -> Bool {
    var bytes: UInt64 = 0
    while true {
      // SAFETY: at most the eight bytes of a local variable.
      let count = unsafe recv(descriptor, &bytes, 8, Int32(MSG_DONTWAIT))
      if count > 0 { continue }
      if count == 0 { return false }
      if rw_errno() != EINTR { return rw_errno() == EAGAIN }
    }
  }

  /// What the daemon knows of an interface; ENXIO when nothing.
  public static func query(_ name: String, on descriptor: Int32) throws(NetmapClientError) -> PortQueryReply {
    let answer = try ask(descriptor, NetmapRequestHead(.query), PortQuery(name: name).encoded())
    guard answer.errno == 0 else { throw answer.error(name) }
    do { return try PortQueryReply(decoding: answer.payload) } catch { throw NetmapClientError(EIO, error.problem) }
  }
}
