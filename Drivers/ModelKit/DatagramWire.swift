// A cable made of two sockets of the local machine: one datagram is one frame, as QEMU's
// `-netdev dgram` with addresses of type unix speaks.

internal import CRingway
internal import Glibc
internal import Platform
internal import SystemPackage

/// A cable to another program of this machine.
@safe public final class DatagramWire: ModelWire {
  public static let largestFrame = 65536
  public let local: String
  public let remote: String
  private let socketFile: OwnedDescriptor
  private let buffer: UnsafeMutableRawBufferPointer
  private var address = sockaddr_un()
  public private(set) var sent = 0
  public private(set) var received = 0
  /// Frames of the card that found nobody there, or a full socket.
  public private(set) var refused = 0

  /// - Parameters:
  ///   - local: a socket that is made here, and taken away with the wire; at most 107 bytes.
  ///   - remote: the other program's socket; it may come later.
  public init(local: String, remote: String) throws(WireError) {
    self.local = local
    self.remote = remote
    guard let here = DatagramWire.address(local), let there = DatagramWire.address(remote) else {
      throw .specification(local, wrong: "a socket's path has 1 to 107 bytes", example: "dgram:/run/a.sock,to=/run/b.sock")
    }
    address = there
    let made = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard made >= 0 else {
      throw .system(SystemError("open", "socket", Errno(rawValue: rw_errno())), advice: "close some files")
    }
    socketFile = OwnedDescriptor(taking: made)
    var name = here
    // SAFETY: a local structure of the size that is given.
    let bound = unsafe withUnsafePointer(to: &name) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe bind(made, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard bound == 0 else {
      throw .system(
        SystemError("bind", local, Errno(rawValue: rw_errno())), advice: "remove the file if nobody uses it, or name another")
    }
    unsafe buffer = .allocate(byteCount: DatagramWire.largestFrame, alignment: 64)
  }

  // SAFETY: this object's own memory and its own socket file.
  deinit {
    unsafe buffer.deallocate()
    _ = unsafe unlink(local)
  }

  private static func address(_ path: String) -> sockaddr_un? {
    guard (1...107).contains(path.utf8.count), !path.utf8.contains(0) else { return nil }
    var made = sockaddr_un()
    made.sun_family = sa_family_t(AF_UNIX)
    // SAFETY: the path is shorter than the field.
    unsafe withUnsafeMutableBytes(of: &made.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
    return made
  }

  public func transmit(_ frame: UnsafeRawBufferPointer, queue: Int, at now: UInt64) {
    // SAFETY: the caller's bytes and this object's address, during the call.
    let wrote = unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe sendto(socketFile.raw, frame.baseAddress, frame.count, 0, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    if wrote == frame.count { sent += 1 } else { refused += 1 }
  }

  public func receive(at now: UInt64, _ body: (UnsafeRawBufferPointer, WireMarks) -> Void) -> Bool {
    let got = unsafe recv(socketFile.raw, buffer.baseAddress, buffer.count, 0)
    guard got >= 14 else { return false }
    received += 1
    unsafe body(UnsafeRawBufferPointer(rebasing: buffer[0..<got]), [])
    return true
  }

  public var descriptor: Int32 { socketFile.raw }
}
