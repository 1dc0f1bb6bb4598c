// NetmapClient: netmap's rings for programs that ask the daemon for them, without an ioctl.
//
//     NetmapPort ──┬─ NetmapChannel      requests over the descriptor, answers over a fresh pair
//      (a program  ├─ NetmapAttachment   region, sync page, doorbells: mapped once a process
//       of ours)   │     sync · look (poll's rules) · arm
//     preload ─────┴─ NetmapWait         poll(2) over netmap's descriptors and others
//                     NetmapRingView     head, cur, tail, slots, buffers
//
//     let port = try NetmapPort("netmap:ix0")
//     while try port.wait(for: .receive) == .receive { for ring in port.receiveRings { … ring.setHead(…) } }
//
// Invariants
// - What the daemon answers is checked once, at the attach: lengths, magic numbers, how many descriptors. After that an
//   attachment knows the bounds of its memory by itself, and no index from shared memory reaches beyond them.
// - An attachment belongs to one process. It owns its mappings and doorbells, never the descriptor: that may be shared
//   with other processes, and is closed by whoever opened it.
// - A sync allocates nothing and takes no lock; it waits within a bound, and ends when the daemon does.
// - Calls on descriptors go to the kernel directly: a preloaded library (ours, for one) does not see them.

internal import CRingway
internal import NetmapAPI

/// What failed between a program and the daemon.
public struct NetmapClientError: Error, Equatable, Sendable, CustomStringConvertible {
  /// errno(3): netmap's where the daemon refused, the system's otherwise.
  public var errno: Int32
  /// What failed, on what, and what to do next. The daemon's own sentence where it had one.
  public var sentence: String

  public init(_ errno: Int32, _ sentence: String) {
    self.errno = errno
    self.sentence = sentence
  }
  public var description: String { sentence }

  /// With the calling thread's errno.
  static func last(_ what: String) -> NetmapClientError {
    let errno = rw_errno()
    // SAFETY: strerror answers a null-terminated string that lives until the next call; it is copied.
    return NetmapClientError(errno, "\(what): \(unsafe String(cString: strerror(errno))).")
  }

  static func gone(_ what: String) -> NetmapClientError {
    NetmapClientError(ENXIO, "\(what): the daemon has closed the connection. Open the port again once ringwayd runs.")
  }
}

/// Settings that come from the environment.
public enum NetmapEnvironment {
  /// Where the daemon listens when nothing else is said.
  public static let defaultSocket = "/run/ringway/netmap.sock"

  /// `RINGWAY_NETMAP_SOCKET`, or the default.
  public static var socket: String { text("RINGWAY_NETMAP_SOCKET") ?? defaultSocket }

  /// `RINGWAY_SPIN_US`: microseconds that a sync looks for its answer before it sleeps, at most 1,000,000. By default 20; 0
  /// where the process has a single processor, on which the worker could not run meanwhile.
  public static var spinNanoseconds: UInt64 {
    if let given = text("RINGWAY_SPIN_US"), let number = UInt64(given), number <= 1_000_000 { return number * 1000 }
    return processors() > 1 ? 20_000 : 0
  }

  private static func text(_ name: String) -> String? {
    // SAFETY: getenv answers a null-terminated string or null; it is copied at once.
    guard let value = unsafe getenv(name) else { return nil }
    let text = unsafe String(cString: value)
    return text.isEmpty ? nil : text
  }

  private static func processors() -> Int {
    var mask = (UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0))
    // SAFETY: the kernel writes at most the tuple's 64 bytes and says how many; it refuses when that is too little.
    let filled = unsafe withUnsafeMutableBytes(of: &mask) { unsafe rw_thread_cpus($0.baseAddress!, 64) }
    guard filled > 0 else { return 2 }
    return unsafe withUnsafeBytes(of: &mask) { unsafe $0.reduce(0) { $0 + $1.nonzeroBitCount } }
  }
}
