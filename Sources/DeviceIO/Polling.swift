// Bounded waiting. The clock is a parameter, so tests run without waiting.

/// Time for control paths: monotonic nanoseconds, and a way to let some pass.
public protocol TimeSource: Sendable {
  /// Monotonic time in nanoseconds.
  func now() -> UInt64
  /// Lets at least `nanoseconds` pass.
  func sleep(nanoseconds: UInt64)
}

extension TimeSource {
  /// Asks `condition` until it holds or `microseconds` have passed, resting `every` microseconds
  /// in between. The condition is asked once more after the time is over, so a caller that was
  /// not scheduled for a while does not fail for it.
  /// - Returns: whether the condition held.
  public func poll(within microseconds: UInt64, every: UInt64 = 10, until condition: () -> Bool) -> Bool {
    let end = now() &+ microseconds &* 1000
    while !condition() {
      if now() >= end { return condition() }
      sleep(nanoseconds: every &* 1000)
    }
    return true
  }
}
