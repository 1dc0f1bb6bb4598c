// A client's stream of messages, with descriptors beside the bytes (unix(7), SCM_RIGHTS).
//
// Header and payload are read apart: descriptors come with the bytes that they were sent with, so
// those that arrive while a message is being read are that message's.

internal import CRingway
internal import Platform
internal import SystemPackage

/// Messages of one connection. Never blocks.
final class ClientSocket {
  /// What `receive` found.
  enum Incoming {
    /// Nothing complete yet.
    case nothing
    /// A whole message, header and all.
    case message([UInt8], PassedDescriptors)
    /// The connection is over, and why.
    case ended(String)
  }

  private let owned: OwnedDescriptor
  var descriptor: Int32 { owned.raw }
  /// What has been read of the message that is under way.
  private var buffer: [UInt8]
  private var filled = 0
  private var wanted = MessageHeader.size
  private var passed: [Int32] = []
  /// Answers that the socket has not taken yet, oldest first.
  private var outgoing: [(bytes: [UInt8], descriptor: Int32)] = []
  /// Descriptors of one message are cut off beyond this by the kernel itself (SCM_MAX_FD).
  private static let mostPassed = 253

  /// Takes over a connected socket.
  init(taking descriptor: consuming OwnedDescriptor) {
    owned = descriptor
    buffer = [UInt8](repeating: 0, count: 4096)
    _ = rw_fcntl(owned.raw, F_SETFL, O_NONBLOCK)
  }

  deinit { for descriptor in passed { _ = close(descriptor) } }

  /// Whether answers wait for room: then nothing more is read.
  var isBlocked: Bool { !outgoing.isEmpty }

  /// The next message, if all of it is there.
  func receive() -> Incoming {
    while true {
      if filled == wanted {
        if wanted == MessageHeader.size {
          guard let header = MessageHeader(buffer[..<filled]), header.isPlausible else {
            return .ended("it sent something that is no vfio-user message")
          }
          wanted = Int(header.size)
        }
        if filled == wanted { return .message(take(), PassedDescriptors(takePassed())) }
      }
      // A message's length is a claim: room grows with what comes.
      if filled == buffer.count { buffer.append(contentsOf: repeatElement(0, count: buffer.count)) }
      let got = read(upTo: min(wanted, buffer.count) - filled)
      if got == 0 { return .ended(filled > 0 ? "it left in the middle of a message" : "it closed the connection") }
      if got < 0 {
        let errno = Errno(rawValue: rw_errno())
        if errno == .interrupted { continue }
        if errno == .resourceTemporarilyUnavailable { return .nothing }
        return .ended("the connection broke: \(errno)")
      }
      filled += got
    }
  }

  private func take() -> [UInt8] {
    let message = Array(buffer[..<filled])
    filled = 0
    wanted = MessageHeader.size
    if buffer.count > 1 << 16 { buffer = [UInt8](repeating: 0, count: 4096) }
    return message
  }

  private func takePassed() -> [Int32] {
    defer { passed = [] }
    return passed
  }

  /// recvmsg(2), with whatever descriptors come along.
  private func read(upTo count: Int) -> Int {
    let header = MemoryLayout<cmsghdr>.size
    let room = header + ClientSocket.mostPassed * 4 + 8
    return unsafe withUnsafeTemporaryAllocation(byteCount: room, alignment: 8) { control in
      unsafe buffer.withUnsafeMutableBytes { bytes in
        // SAFETY: both buffers outlive the call, and the kernel is told their sizes.
        var piece = unsafe iovec(iov_base: bytes.baseAddress! + filled, iov_len: count)
        return unsafe withUnsafeMutablePointer(to: &piece) { piece in
          var message = unsafe msghdr()
          unsafe message.msg_iov = piece
          unsafe message.msg_iovlen = 1
          unsafe message.msg_control = control.baseAddress
          unsafe message.msg_controllen = room
          let got = unsafe recvmsg(owned.raw, &message, Int32(MSG_CMSG_CLOEXEC))
          if got >= 0 { unsafe collect(UnsafeRawBufferPointer(rebasing: control[..<Int(message.msg_controllen)])) }
          return got
        }
      }
    }
  }

  /// Takes the descriptors out of what the kernel wrote (cmsg(3)).
  private func collect(_ control: UnsafeRawBufferPointer) {
    let header = MemoryLayout<cmsghdr>.size
    var at = 0
    while at + header <= control.count {
      let one = unsafe control.loadUnaligned(fromByteOffset: at, as: cmsghdr.self)
      let length = Int(one.cmsg_len)
      guard length >= header, at + length <= control.count else { return }
      if one.cmsg_level == SOL_SOCKET, one.cmsg_type == Int32(SCM_RIGHTS) {
        for place in stride(from: at + header, to: at + length - 3, by: 4) {
          passed.append(unsafe control.loadUnaligned(fromByteOffset: place, as: Int32.self))
        }
      }
      at += (length + 7) & ~7
    }
  }

  /// Sends an answer, or keeps it until there is room.
  /// - Parameter passing: goes with the first byte; -1 for none.
  /// - Returns: false when the connection is broken.
  func send(_ bytes: [UInt8], passing: Int32 = -1) -> Bool {
    if bytes.isEmpty { return true }
    outgoing.append((bytes, passing))
    return flush()
  }

  /// Sends what waits. False when the connection is broken.
  func flush() -> Bool {
    while let first = outgoing.first {
      let sent = write(first.bytes, first.descriptor)
      if sent < 0 {
        let errno = Errno(rawValue: rw_errno())
        if errno == .interrupted { continue }
        return errno == .resourceTemporarilyUnavailable || errno == .noBufferSpace
      }
      if sent == first.bytes.count { outgoing.removeFirst() } else { outgoing[0] = (Array(first.bytes[sent...]), -1) }
    }
    return true
  }

  /// sendmsg(2).
  private func write(_ bytes: [UInt8], _ descriptor: Int32) -> Int {
    let header = MemoryLayout<cmsghdr>.size
    return unsafe withUnsafeTemporaryAllocation(byteCount: header + 8, alignment: 8) { control in
      unsafe bytes.withUnsafeBytes { source in
        // SAFETY: the kernel only reads, and both buffers outlive the call.
        var piece = unsafe iovec(iov_base: UnsafeMutableRawPointer(mutating: source.baseAddress), iov_len: source.count)
        return unsafe withUnsafeMutablePointer(to: &piece) { piece in
          var message = unsafe msghdr()
          unsafe message.msg_iov = piece
          unsafe message.msg_iovlen = 1
          if descriptor >= 0 {
            var one = cmsghdr()
            one.cmsg_len = header + 4
            one.cmsg_level = SOL_SOCKET
            one.cmsg_type = Int32(SCM_RIGHTS)
            unsafe control.storeBytes(of: one, as: cmsghdr.self)
            unsafe control.storeBytes(of: descriptor, toByteOffset: header, as: Int32.self)
            unsafe message.msg_control = control.baseAddress
            unsafe message.msg_controllen = header + 8
          }
          return unsafe sendmsg(owned.raw, &message, Int32(MSG_NOSIGNAL))
        }
      }
    }
  }
}
