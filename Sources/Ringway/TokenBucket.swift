// A rate as a bucket of tokens.

/// Lets through so many packets a second, on average and in short bursts.
///
/// Time is a parameter. Amounts are kept in billionths of a token, so no rate drifts.
public struct TokenBucket: Sendable, Equatable {
  /// Tokens a second; nil is without limit.
  public let rate: UInt64?
  /// Tokens that gather while nobody takes any.
  public let burst: UInt64
  private var billionths: UInt64
  private var filled: UInt64?

  /// - Parameters:
  ///   - rate: at most 10^10 a second; more counts as that.
  ///   - burst: at least 1; at most 10^6.
  public init(rate: UInt64?, burst: UInt64 = 64) {
    self.rate = rate.map { min($0, 10_000_000_000) }
    self.burst = min(max(1, burst), 1_000_000)
    billionths = 0
  }

  private mutating func fill(_ now: UInt64) {
    guard let rate else { return }
    guard let last = filled else {
      // The first packet goes at once, and the rate holds from there on.
      billionths = 1_000_000_000
      filled = now
      return
    }
    let limit = burst &* 1_000_000_000
    let (gained, overflow) = (now > last ? now &- last : 0).multipliedReportingOverflow(by: rate)
    billionths = overflow || gained >= limit &- min(billionths, limit) ? limit : billionths &+ gained
    filled = max(last, now)
  }

  /// Takes up to `count` tokens. Returns how many there were.
  public mutating func take(_ count: Int, now: UInt64) -> Int {
    guard rate != nil else { return count }
    fill(now)
    let there = Int(min(billionths / 1_000_000_000, UInt64(max(0, count))))
    billionths &-= UInt64(there) &* 1_000_000_000
    return there
  }

  /// Nanoseconds until there is a token.
  public func untilNext() -> UInt64 {
    guard let rate, billionths < 1_000_000_000 else { return 0 }
    guard rate > 0 else { return .max }
    return (1_000_000_000 &- billionths &+ rate &- 1) / rate
  }
}
