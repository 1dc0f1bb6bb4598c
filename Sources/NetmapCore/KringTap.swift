// What looks on while a ring is synced, and when syncs are stamped.

internal import CRingway
internal import Glibc
internal import Synchronization

/// Sees what passes a ring: monitors. Called by the thread that syncs the ring, inside `begin` and `end`.
public protocol KringTap: AnyObject, Sendable {
  /// After the prologue, before the adapter: the program has handed over `released`. Transmit slots have not been sent yet,
  /// receive slots have been read.
  func handedOver(_ kring: Kring, _ released: (from: UInt32, to: UInt32))
  /// After the adapter, before the epilogue: `rtail ..< hwtail` is new to the program.
  func willShow(_ kring: Kring)
}

/// Settings that all rings of a system share (netmap's sysctls).
public final class KringSettings: Sendable {
  private let unstamped = Atomic(false)
  public init() {}
  /// `no_timestamp`: receive syncs are stamped only where the ring asks for it (`NR_TIMESTAMP`).
  public var noTimestamp: Bool {
    get { unstamped.load(ordering: .relaxed) }
    set { unstamped.store(newValue, ordering: .relaxed) }
  }
}

extension Kring {
  /// The receive stamp (`ts`): the time of the sync.
  public func stamp() {
    if let settings, settings.noTimestamp, !ring.loadFlags().contains(.timestamp) { return }
    var now = timespec()
    // SAFETY: a local variable; CLOCK_REALTIME always exists.
    _ = unsafe clock_gettime(CLOCK_REALTIME, &now)
    ring.storeTimestamp(seconds: Int64(now.tv_sec), microseconds: Int64(now.tv_nsec / 1000))
  }
}
