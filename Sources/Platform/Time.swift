// Clocks and timers.

internal import CRingway
internal import SystemPackage

/// CLOCK_MONOTONIC (clock_gettime(2)): never set back, stands still while the machine sleeps.
///
/// Fits the clock protocol of module DeviceIO; the conformance is declared where both are seen.
public struct MonotonicClock: Sendable {
  public init() {}

  /// Nanoseconds since some point in the past.
  public func now() -> UInt64 {
    var time = timespec()
    // SAFETY: a local variable; CLOCK_MONOTONIC always exists, so the call cannot fail.
    _ = unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }

  /// Lets at least `nanoseconds` pass, signals or not.
  public func sleep(nanoseconds: UInt64) {
    let (end, overflow) = now().addingReportingOverflow(nanoseconds)
    var until = timespec(overflow ? UInt64(Int64.max) : end)
    // SAFETY: local variable; the absolute form needs no rest, so an interrupted call is repeated.
    while unsafe clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nil) == EINTR {}
  }
}

extension timespec {
  fileprivate init(_ nanoseconds: UInt64) {
    self.init(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
  }
}

/// A timer as a readable descriptor (timerfd_create(2)), on the monotonic clock.
public struct TimerFD: ~Copyable, Sendable {
  private let owned: OwnedDescriptor
  /// Readable once the timer has expired.
  public var descriptor: Int32 { owned.raw }

  /// Non-blocking, not running.
  public init() throws(SystemError) {
    owned = OwnedDescriptor(
      taking: try call("create", "timerfd") {
        timerfd_create(CLOCK_MONOTONIC, Int32(TFD_CLOEXEC | TFD_NONBLOCK))
      })
  }

  /// Starts the timer, or starts it anew.
  /// - Parameters:
  ///   - nanoseconds: until the first expiry; 0 counts as 1.
  ///   - period: nanoseconds between the expiries after it; 0 for a single one.
  public func start(after nanoseconds: UInt64, every period: UInt64 = 0) throws(SystemError) {
    try set(itimerspec(it_interval: timespec(period), it_value: timespec(max(nanoseconds, 1))))
  }

  /// Stops the timer and forgets an expiry that was not read.
  public func stop() throws(SystemError) { try set(itimerspec()) }

  private func set(_ value: itimerspec) throws(SystemError) {
    let timer = owned.raw
    var value = value
    // SAFETY: the kernel copies the value during the call.
    _ = try call("set", "timer") { unsafe timerfd_settime(timer, 0, &value, nil) }
  }

  /// How often the timer expired since the last call; 0 when it did not.
  @discardableResult public func drain() -> UInt64 { EventFD.drain(owned.raw) }
}
