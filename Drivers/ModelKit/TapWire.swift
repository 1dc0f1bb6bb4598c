// A TAP interface of the Linux kernel at the other end of the cable (Documentation/networking/tuntap.rst).

internal import CRingway
internal import Glibc
internal import Platform
internal import SystemPackage

/// A cable to the kernel's network stack: what the card sends arrives at the interface, what the
/// kernel sends there arrives at the card.
///
/// The interface is made here, unless it exists already, and goes away with the wire, unless it is
/// persistent. Its addresses and whether it is up are the user's business; the link is up while the
/// interface is. Needs CAP_NET_ADMIN, and for another network namespace CAP_SYS_ADMIN.
@safe public final class TapWire: ModelWire {
  /// Frames and super-frames of at most so many bytes.
  public static let largestFrame = 65536

  /// The interface's name, also when the kernel chose it ("tap0" for "tap%d").
  public let name: String
  /// Network namespace as it was given; nil: this process's.
  public let namespace: String?
  private let file: OwnedDescriptor
  /// A socket inside the namespace, to ask for the interface's flags.
  private let control: OwnedDescriptor
  private let buffer: UnsafeMutableRawBufferPointer
  private let clock = MonotonicClock()
  private var wasUp = false
  private var looked: UInt64 = 0

  /// Frames that crossed, from the card's side.
  public private(set) var sent = 0
  public private(set) var received = 0
  /// Frames of the card that the kernel did not take: interface down, queue full, not a frame.
  public private(set) var refused = 0

  /// - Parameters:
  ///   - name: at most 15 bytes.
  ///   - namespace: a name below /run/netns, or a path such as /proc/PID/ns/net.
  public init(name: String, namespace: String? = nil) throws(WireError) {
    guard (1...15).contains(name.utf8.count), !name.contains("/"), !name.utf8.contains(where: { $0 <= 32 }) else {
      throw .specification(name, wrong: "no name for an interface (1 to 15 bytes, no blanks)", example: "tap:rw0")
    }
    let opened = try TapWire.inside(namespace, name)
    file = OwnedDescriptor(taking: opened.file)
    control = OwnedDescriptor(taking: opened.control)
    self.name = opened.name
    self.namespace = namespace
    unsafe buffer = .allocate(byteCount: TapWire.largestFrame, alignment: 64)
    _ = isUp
  }

  // SAFETY: this object's own memory.
  deinit { unsafe buffer.deallocate() }

  // MARK: Opening

  private typealias Opened = (file: Int32, control: Int32, name: String)

  private final class Answer: @unchecked Sendable {
    var result: Result<(file: Int32, control: Int32, name: String), WireError> =
      .failure(.specification("", wrong: "nothing was opened", example: "tap:rw0"))
  }

  /// Opens in a namespace: on a thread of its own, which ends there, so that no other thread of the
  /// process ever changes its namespace.
  private static func inside(_ namespace: String?, _ name: String) throws(WireError) -> Opened {
    guard let namespace else { return try open(name) }
    let path = namespace.contains("/") ? namespace : "/run/netns/\(namespace)"
    let answer = Answer()
    do {
      let thread = try JoinedThread(name: "ringway-netns") {
        do throws(WireError) {
          try enter(path)
          answer.result = .success(try open(name))
        } catch { answer.result = .failure(error) }
      }
      thread.join()
    } catch { throw .system(error, advice: "free some memory") }
    return try answer.result.get()
  }

  private static func enter(_ path: String) throws(WireError) {
    do {
      let place = try OwnedDescriptor(opening: path, flags: O_RDONLY)
      guard rw_setns(place.raw, RW_CLONE_NEWNET) == 0 else {
        throw SystemError("enter", path, Errno(rawValue: rw_errno()))
      }
    } catch let error as SystemError {
      throw .system(error, advice: "make the namespace with 'ip netns add NAME', and be root")
    } catch { throw .specification(path, wrong: "\(error)", example: "netns=NAME") }
  }

  private static func open(_ name: String) throws(WireError) -> Opened {
    do {
      let file = try OwnedDescriptor(opening: "/dev/net/tun", flags: O_RDWR | O_NONBLOCK)
      // struct ifreq: 16 bytes of name, then flags.
      var request = [UInt8](repeating: 0, count: 40)
      request.replaceSubrange(0..<name.utf8.count, with: name.utf8)
      let flags = UInt16(IFF_TAP | IFF_NO_PI)
      request[16] = UInt8(flags & 255)
      request[17] = UInt8(flags >> 8)
      // SAFETY: as large as the structure that the kernel reads and writes.
      guard unsafe request.withUnsafeMutableBytes({ unsafe rw_ioctl(file.raw, RW_TUNSETIFF, $0.baseAddress) }) >= 0 else {
        throw SystemError("make TAP interface", name, Errno(rawValue: rw_errno()))
      }
      let control = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | O_CLOEXEC, 0)
      guard control >= 0 else { throw SystemError("open", "socket", Errno(rawValue: rw_errno())) }
      let made = String(decoding: request.prefix(16).prefix { $0 != 0 }, as: UTF8.self)
      return (file.release(), control, made)
    } catch let error as SystemError {
      throw .system(error, advice: "be root (CAP_NET_ADMIN), load module tun, and name an interface nobody else uses")
    } catch { throw .specification(name, wrong: "\(error)", example: "tap:rw0") }
  }

  // MARK: ModelWire

  /// Whether the interface is up; looked at every 10 milliseconds of real time.
  public var isUp: Bool {
    let now = clock.now()
    if now &- looked >= 10_000_000 {
      looked = now
      var request = [UInt8](repeating: 0, count: 40)
      request.replaceSubrange(0..<name.utf8.count, with: name.utf8)
      // SAFETY: as large as the structure that the kernel reads and writes.
      let answer = unsafe request.withUnsafeMutableBytes { unsafe rw_ioctl(control.raw, RW_SIOCGIFFLAGS, $0.baseAddress) }
      wasUp = answer >= 0 && request[16] & 1 != 0
    }
    return wasUp
  }

  public func transmit(_ frame: UnsafeRawBufferPointer, queue: Int, at now: UInt64) {
    // SAFETY: the caller's bytes, during the call.
    if unsafe write(file.raw, frame.baseAddress, frame.count) == frame.count { sent += 1 } else { refused += 1 }
  }

  public func receive(at now: UInt64, _ body: (UnsafeRawBufferPointer, WireMarks) -> Void) -> Bool {
    let got = unsafe read(file.raw, buffer.baseAddress, buffer.count)
    guard got >= 14 else { return false }
    received += 1
    // The kernel does not pad; a wire carries 60 bytes at least.
    for at in got..<max(got, 60) { unsafe buffer.setByte(0, at) }
    unsafe body(UnsafeRawBufferPointer(rebasing: buffer[0..<max(got, 60)]), [])
    return true
  }

  public var descriptor: Int32 { file.raw }
}
