// What the daemon tells the service manager (sd_notify(3)): readiness, watchdog, reload, end.

import CRingway
import ControlClient
import Control
import Platform

/// The service manager's socket, as the environment names it; says nothing when there is none.
struct ServiceManager: Sendable {
  private let path: String?
  /// Nanoseconds between two signs of life that the manager wants; nil: it wants none.
  let watchdog: UInt64?

  init(environment: (String) -> String? = ServiceManager.environment) {
    path = environment("NOTIFY_SOCKET").flatMap { $0.hasPrefix("/") || $0.hasPrefix("@") ? $0 : nil }
    let isForUs = environment("WATCHDOG_PID").flatMap { Int32($0) }.map { $0 == getpid() } ?? true
    watchdog = isForUs ? environment("WATCHDOG_USEC").flatMap { UInt64($0) }.flatMap { $0 > 0 && $0 < 1 << 50 ? $0 * 1000 : nil } : nil
  }

  static func environment(_ name: String) -> String? {
    // SAFETY: a null-terminated string that nobody changes.
    unsafe getenv(name).map { unsafe String(cString: $0) }
  }

  func ready() { send("READY=1\nSTATUS=running\nMAINPID=\(getpid())") }
  /// systemd wants the moment of the monotonic clock, in microseconds, with it (Type=notify-reload).
  func reloading() { send("RELOADING=1\nMONOTONIC_USEC=\(MonotonicClock().now() / 1000)\nSTATUS=reloading") }
  func stopping() { send("STOPPING=1\nSTATUS=draining") }
  func alive() { send("WATCHDOG=1") }
  func status(_ text: String) { send("STATUS=\(text.split(separator: "\n").first ?? "")") }

  private func send(_ text: String) {
    guard let path else { return }
    let made = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard made >= 0 else { return }
    let owned = OwnedDescriptor(taking: made)
    let bytes = Array(text.utf8)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    var name = Array(path.utf8)
    guard name.count < MemoryLayout.size(ofValue: address.sun_path) else { return }
    // An abstract name begins with a zero byte and has no end: its length says how long it is.
    let isAbstract = name[0] == UInt8(ascii: "@")
    if isAbstract { name[0] = 0 }
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { field in
      for (i, byte) in name.enumerated() { unsafe field[i] = byte }
    }
    let size = 2 + name.count + (isAbstract ? 0 : 1)
    // SAFETY: a local structure with as many bytes as are named, and the array's own bytes.
    unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { target in
        _ = unsafe bytes.withUnsafeBytes {
          unsafe sendto(owned.raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT), target, socklen_t(size))
        }
      }
    }
  }
}
