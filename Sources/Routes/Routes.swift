// Routes: longest-prefix-match tables, one copy a worker.
//
//     add, delete ──message──> worker 0 ─> worker 1 ─> … each changes its own copy
//     lookup on a worker: its own copy, nothing shared, nothing locked
//
// `LookupTable4` and `LookupTable6` are the data structures alone: prefix to number. `RouteTable` adds what
// a route is, copies it to every worker, and takes an interface's routes away when it goes.

public import Wire

/// An IPv4 prefix; bits behind its length are zero.
public struct IPv4Prefix: Hashable, Sendable, CustomStringConvertible {
  public let address: IPv4Address
  public let length: Int
  /// - Parameter length: 0 to 32, clamped.
  public init(_ address: IPv4Address, _ length: Int) {
    self.length = max(0, min(32, length))
    self.address = IPv4Address(rawValue: address.rawValue & IPv4Address.mask(self.length).rawValue)
  }
  public var description: String { "\(address)/\(length)" }
}

/// An IPv6 prefix; bits behind its length are zero.
public struct IPv6Prefix: Hashable, Sendable, CustomStringConvertible {
  public let address: IPv6Address
  public let length: Int
  /// - Parameter length: 0 to 128, clamped.
  public init(_ address: IPv6Address, _ length: Int) {
    self.length = max(0, min(128, length))
    let mask = IPv6Address.mask(self.length)
    self.address = IPv6Address(high: address.high & mask.high, low: address.low & mask.low)
  }
  public var description: String { "\(address)/\(length)" }
}

/// Longest-prefix match over IPv4: prefixes to numbers from 1 to 2^24 - 1; 0 is "no route".
///
/// One thread changes and looks up, or several look up and none changes.
public final class LookupTable4 {
  private var lengths: [[IPv4Address: UInt32]] = Array(repeating: [:], count: 33)
  public private(set) var count = 0
  public init() {}
  /// Adds or changes. Returns the former value, or 0.
  @discardableResult public func set(_ prefix: IPv4Prefix, to value: UInt32) -> UInt32 {
    let old = lengths[prefix.length].updateValue(value, forKey: prefix.address)
    if old == nil { count += 1 }
    return old ?? 0
  }
  /// Removes exactly this prefix. Returns its value, or 0.
  @discardableResult public func remove(_ prefix: IPv4Prefix) -> UInt32 {
    guard let old = lengths[prefix.length].removeValue(forKey: prefix.address) else { return 0 }
    count -= 1
    return old
  }
  public func lookup(_ address: IPv4Address) -> UInt32 {
    for length in stride(from: 32, through: 0, by: -1) {
      if let value = lengths[length][IPv4Address(rawValue: address.rawValue & IPv4Address.mask(length).rawValue)] { return value }
    }
    return 0
  }
}

/// Longest-prefix match over IPv6. As `LookupTable4`.
public final class LookupTable6 {
  private var lengths: [[IPv6Address: UInt32]] = Array(repeating: [:], count: 129)
  public private(set) var count = 0
  public init() {}
  @discardableResult public func set(_ prefix: IPv6Prefix, to value: UInt32) -> UInt32 {
    let old = lengths[prefix.length].updateValue(value, forKey: prefix.address)
    if old == nil { count += 1 }
    return old ?? 0
  }
  @discardableResult public func remove(_ prefix: IPv6Prefix) -> UInt32 {
    guard let old = lengths[prefix.length].removeValue(forKey: prefix.address) else { return 0 }
    count -= 1
    return old
  }
  public func lookup(_ address: IPv6Address) -> UInt32 {
    for length in stride(from: 128, through: 0, by: -1) where !lengths[length].isEmpty {
      if let value = lengths[length][IPv6Prefix(address, length).address] { return value }
    }
    return 0
  }
}
