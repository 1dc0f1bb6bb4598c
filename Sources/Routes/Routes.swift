// Routes: longest-prefix-match tables, one copy a worker.
//
//     add, change, remove ─> RouteBook (what is true; its mutex orders all changes) ─> log
//                                                        │ one walk over the workers 0 … N-1
//     worker n: RouteCopy <── reads the log up to its end ┘
//     lookup on a worker: its own copy; nothing shared, locked, counted or allocated
//
// A copy is two tries over a list of next hops: `LookupTable4` and `LookupTable6` map prefixes to numbers, the
// numbers name next hops (gateway, interface, flags, MTU), which many routes share.
//
// Invariants
// - The book alone decides whether a change is possible; a copy only follows. All copies apply the same changes in
//   the same order, so that two changes at once never leave two workers with different routes.
// - A change made on a worker is in this worker's copy when the call returns, and in the others' soon after; a change
//   made by any other thread is in all copies then.
// - What a copy cannot take (no memory) is reported, and the walk goes on.

public import Wire

/// An IPv4 prefix; bits behind its length are zero.
public struct IPv4Prefix: Hashable, Sendable, BitwiseCopyable, Comparable, CustomStringConvertible {
  public let address: IPv4Address
  public let length: Int
  /// - Parameter length: 0 to 32, clamped.
  public init(_ address: IPv4Address, _ length: Int) {
    self.length = max(0, min(32, length))
    self.address = IPv4Address(rawValue: address.rawValue & IPv4Address.mask(self.length).rawValue)
  }
  public func contains(_ other: IPv4Address) -> Bool { other.rawValue & IPv4Address.mask(length).rawValue == address.rawValue }
  public static func < (a: Self, b: Self) -> Bool { (a.address, a.length) < (b.address, b.length) }
  public var description: String { "\(address)/\(length)" }
}

/// An IPv6 prefix; bits behind its length are zero.
public struct IPv6Prefix: Hashable, Sendable, BitwiseCopyable, Comparable, CustomStringConvertible {
  public let address: IPv6Address
  public let length: Int
  /// - Parameter length: 0 to 128, clamped.
  public init(_ address: IPv6Address, _ length: Int) {
    self.length = max(0, min(128, length))
    let mask = IPv6Address.mask(self.length)
    self.address = IPv6Address(high: address.high & mask.high, low: address.low & mask.low)
  }
  public func contains(_ other: IPv6Address) -> Bool {
    let mask = IPv6Address.mask(length)
    return other.high & mask.high == address.high && other.low & mask.low == address.low
  }
  public static func < (a: Self, b: Self) -> Bool { (a.address, a.length) < (b.address, b.length) }
  public var description: String { "\(address)/\(length)" }
}
