// Opening a TAP interface of Linux (Documentation/networking/tuntap.rst): a descriptor and a name.

internal import CRingway
internal import Glibc
public import Ifnet
public import Platform
internal import SystemPackage

/// An open TAP interface.
public struct TapHandle: ~Copyable, Sendable {
  /// /dev/net/tun, bound to the interface, not blocking.
  public let file: OwnedDescriptor
  /// A socket in the interface's network namespace, to ask for its flags.
  public let control: OwnedDescriptor
  /// The interface's name in Linux.
  public let name: String

  public init(file: consuming OwnedDescriptor, control: consuming OwnedDescriptor, name: String) {
    self.file = file
    self.control = control
    self.name = name
  }
}

/// Opens TAP interfaces: with the process's own privileges, or by asking somebody who has kept some.
public protocol TapOpener: Sendable {
  /// Makes the interface, or opens the persistent one of that name.
  /// - Parameters:
  ///   - name: at most 15 bytes; with "%d" the kernel chooses a number.
  ///   - namespace: a name below /run/netns, or a path; nil: this process's.
  func open(name: String, namespace: String?) throws(InterfaceError) -> TapHandle
}

/// Opens with the process's own privileges: CAP_NET_ADMIN, and for another namespace CAP_SYS_ADMIN.
public struct LinuxTapOpener: TapOpener {
  public init() {}

  private final class Answer: @unchecked Sendable {
    var file: Int32 = -1
    var control: Int32 = -1
    var name = ""
    var error: InterfaceError?
  }

  public func open(name: String, namespace: String?) throws(InterfaceError) -> TapHandle {
    guard (1...15).contains(name.utf8.count), !name.utf8.contains(where: { $0 <= 32 || $0 == 47 || $0 == 127 }) else {
      throw InterfaceError(.EINVAL, "\"\(name.prefix(40))\" is no name for an interface of Linux (1 to 15 bytes, no blanks)")
    }
    let answer = Answer()
    if let namespace {
      // On a thread of its own, which ends there, so that no other thread of the process changes its namespace.
      let path = namespace.hasPrefix("/") ? namespace : "/run/netns/\(namespace)"
      do {
        let thread = try JoinedThread(name: "ringway-netns") {
          do throws(InterfaceError) {
            try Self.enter(path)
            try Self.open(name, into: answer)
          } catch { answer.error = error }
        }
        thread.join()
      } catch { throw InterfaceError(.ENOMEM, "tap \(name): \(error)") }
    } else {
      try Self.open(name, into: answer)
    }
    if let error = answer.error { throw error }
    return TapHandle(file: OwnedDescriptor(taking: answer.file), control: OwnedDescriptor(taking: answer.control), name: answer.name)
  }

  private static func refusal(_ what: String, _ number: Int32) -> InterfaceError {
    let error = Errno(rawValue: number)
    let code: InterfaceErrno =
      switch error {
      case .notPermitted: .EPERM
      case .permissionDenied: .EACCES
      case .resourceBusy: .EBUSY
      case .noSuchFileOrDirectory: .ENOENT
      case .invalidArgument: .EINVAL
      default: .EIO
      }
    return InterfaceError(code, "\(what): \(error). Be root (CAP_NET_ADMIN), load module tun, and name an interface that nobody else has open")
  }

  private static func enter(_ path: String) throws(InterfaceError) {
    // SAFETY: the path is a null-terminated string for the length of the call.
    let place = unsafe rw_open(path, O_RDONLY | O_CLOEXEC, 0)
    guard place >= 0 else { throw refusal("the network namespace \(path) cannot be opened", rw_errno()) }
    defer { close(place) }
    guard rw_setns(place, RW_CLONE_NEWNET) == 0 else { throw refusal("the network namespace \(path) cannot be entered", rw_errno()) }
  }

  private static func open(_ name: String, into answer: Answer) throws(InterfaceError) {
    let file = unsafe rw_open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC, 0)
    guard file >= 0 else { throw refusal("/dev/net/tun cannot be opened", rw_errno()) }
    var request = InterfaceRequestBytes(name)
    request.flags = UInt16(IFF_TAP | IFF_NO_PI)
    guard request.perform(RW_TUNSETIFF, on: file) else {
      defer { close(file) }
      throw refusal("the TAP interface \(name) cannot be made", rw_errno())
    }
    let control = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | O_CLOEXEC, 0)
    guard control >= 0 else {
      defer { close(file) }
      throw refusal("a socket for \(name) cannot be opened", rw_errno())
    }
    answer.file = file
    answer.control = control
    answer.name = request.name
  }
}

/// struct ifreq (netdevice(7)): 16 bytes of name, then flags.
struct InterfaceRequestBytes {
  private var bytes = [UInt8](repeating: 0, count: 40)
  init(_ name: String) { bytes.replaceSubrange(0..<min(15, name.utf8.count), with: name.utf8.prefix(15)) }
  var name: String { String(decoding: bytes.prefix(16).prefix { $0 != 0 }, as: UTF8.self) }
  var flags: UInt16 {
    get { UInt16(bytes[16]) | UInt16(bytes[17]) << 8 }
    set { (bytes[16], bytes[17]) = (UInt8(newValue & 255), UInt8(newValue >> 8)) }
  }
  mutating func perform(_ request: UInt, on descriptor: Int32) -> Bool {
    // SAFETY: as large as the structure that the kernel reads and writes.
    unsafe bytes.withUnsafeMutableBytes { unsafe rw_ioctl(descriptor, request, $0.baseAddress) } >= 0
  }
}
