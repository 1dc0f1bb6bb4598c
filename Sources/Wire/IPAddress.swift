// IPv4 and IPv6 addresses: values, and their text.

/// An IPv4 address (RFC 791).
@frozen public struct IPv4Address: Hashable, Sendable, BitwiseCopyable, Comparable, CustomStringConvertible {
  /// In the host's order: 198.18.0.1 is 0xc612_0001.
  public let rawValue: UInt32
  @inlinable @inline(__always) public init(rawValue: UInt32) { self.rawValue = rawValue }
  public init(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) {
    rawValue = UInt32(a) << 24 | UInt32(b) << 16 | UInt32(c) << 8 | UInt32(d)
  }

  /// Four decimal numbers without leading zeros, nothing else.
  public init?(_ text: some StringProtocol) {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 4 else { return nil }
    var value: UInt32 = 0
    for part in parts {
      guard (1...3).contains(part.utf8.count), part.utf8.allSatisfy({ (48...57).contains($0) }),
        part.count == 1 || part.first != "0", let octet = UInt8(part)
      else { return nil }
      value = value << 8 | UInt32(octet)
    }
    rawValue = value
  }

  public static let any = IPv4Address(rawValue: 0)
  public static let broadcast = IPv4Address(rawValue: 0xffff_ffff)
  public static let allHosts = IPv4Address(224, 0, 0, 1)
  public var isMulticast: Bool { rawValue >> 28 == 0xe }
  public var isLoopback: Bool { rawValue >> 24 == 127 }
  public var bytes: [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: rawValue >> UInt32(24 - 8 * $0)) } }
  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
  public var description: String { bytes.map(String.init).joined(separator: ".") }

  /// The mask with `length` (0 to 32) leading ones.
  public static func mask(_ length: Int) -> IPv4Address {
    IPv4Address(rawValue: length <= 0 ? 0 : ~UInt32(0) << UInt32(32 - min(32, length)))
  }
  /// Leading ones of a mask; nil when ones follow a zero.
  public var maskLength: Int? {
    let ones = (~rawValue).leadingZeroBitCount
    return rawValue == Self.mask(ones).rawValue ? ones : nil
  }
}

/// An IPv6 address (RFC 4291).
@frozen public struct IPv6Address: Hashable, Sendable, BitwiseCopyable, Comparable, CustomStringConvertible {
  /// The first and the last eight octets, in the host's order.
  public let high: UInt64
  public let low: UInt64
  @inlinable @inline(__always) public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// The first 16 of `bytes`; nil when there are fewer.
  public init?(bytes: some Sequence<UInt8>) {
    var high: UInt64 = 0, low: UInt64 = 0
    var n = 0
    for byte in bytes.prefix(16) {
      if n < 8 { high = high << 8 | UInt64(byte) } else { low = low << 8 | UInt64(byte) }
      n += 1
    }
    guard n == 16 else { return nil }
    self.init(high: high, low: low)
  }

  /// Any of the forms of RFC 4291, section 2.2 (with "::", with a dotted end); no zone.
  public init?(_ text: some StringProtocol) {
    var text = String(text)
    if let colon = text.lastIndex(of: ":"), text[colon...].contains(".") {
      guard let tail = IPv4Address(text[text.index(after: colon)...]) else { return nil }
      text = text[...colon] + String(tail.rawValue >> 16, radix: 16) + ":" + String(tail.rawValue & 0xffff, radix: 16)
    }
    func groups(_ part: Substring) -> [UInt16]? {
      if part.isEmpty { return [] }
      var found: [UInt16] = []
      for group in part.split(separator: ":", omittingEmptySubsequences: false) {
        guard (1...4).contains(group.utf8.count), group.allSatisfy({ $0.isASCII && $0.isHexDigit }),
          let value = UInt16(group, radix: 16)
        else { return nil }
        found.append(value)
      }
      return found
    }
    var all: [UInt16]
    if let gap = text.firstRange(of: "::") {
      guard let front = groups(text[..<gap.lowerBound]), let back = groups(text[gap.upperBound...]),
        front.count + back.count <= 7
      else { return nil }
      all = front + [UInt16](repeating: 0, count: 8 - front.count - back.count) + back
    } else {
      guard let found = groups(text[...]), found.count == 8 else { return nil }
      all = found
    }
    self.init(
      high: all[..<4].reduce(0) { $0 << 16 | UInt64($1) }, low: all[4...].reduce(0) { $0 << 16 | UInt64($1) })
  }

  public static let any = IPv6Address(high: 0, low: 0)
  public static let loopback = IPv6Address(high: 0, low: 1)
  /// ff02::1
  public static let allNodes = IPv6Address(high: 0xff02_0000_0000_0000, low: 1)
  /// ff02::2
  public static let allRouters = IPv6Address(high: 0xff02_0000_0000_0000, low: 2)
  public var isMulticast: Bool { high >> 56 == 0xff }
  /// fe80::/10
  public var isLinkLocal: Bool { high >> 54 == 0x3fa }
  public var bytes: [UInt8] {
    (0..<16).map { UInt8(truncatingIfNeeded: ($0 < 8 ? high : low) >> UInt64(56 - 8 * ($0 & 7))) }
  }
  public static func < (a: Self, b: Self) -> Bool { (a.high, a.low) < (b.high, b.low) }

  /// The mask with `length` (0 to 128) leading ones.
  public static func mask(_ length: Int) -> IPv6Address {
    func half(_ n: Int) -> UInt64 { n <= 0 ? 0 : n >= 64 ? ~0 : ~0 << UInt64(64 - n) }
    return IPv6Address(high: half(length), low: half(length - 64))
  }

  /// The text of RFC 5952: lower case, the longest run of zeros shortened.
  public var description: String {
    let groups = (0..<8).map { UInt16(truncatingIfNeeded: ($0 < 4 ? high : low) >> UInt64(48 - 16 * ($0 & 3))) }
    var best = 0..<0
    var start = 0
    while start < 8 {
      var end = start
      while end < 8, groups[end] == 0 { end += 1 }
      if end - start > max(1, best.count) { best = start..<end }
      start = max(end, start + 1)
    }
    func text(_ range: Range<Int>) -> String { range.map { String(groups[$0], radix: 16) }.joined(separator: ":") }
    return best.isEmpty ? text(0..<8) : text(0..<best.lowerBound) + "::" + text(best.upperBound..<8)
  }
}
