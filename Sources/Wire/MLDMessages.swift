// Multicast listener discovery on the wire (RFC 2710 is version 1, RFC 3810 version 2).

/// What a router asks.
public struct MLDQuery: Sendable, Equatable {
  /// Unspecified: a general query.
  public var group: IPv6Address
  /// Milliseconds within which to answer.
  public var maximumResponse: UInt64
  /// The query is of version 1 (24 bytes long).
  public var isVersion1: Bool
  /// Sources that are asked for; empty: the whole group.
  public var sources: [IPv6Address] = []

  public init(group: IPv6Address, maximumResponse: UInt64, isVersion1: Bool, sources: [IPv6Address] = []) {
    self.group = group
    self.maximumResponse = maximumResponse
    self.isVersion1 = isVersion1
    self.sources = sources
  }

  /// Reads a query; `bytes` start at its type. nil for lengths that are neither version's (RFC 3810, section 8.1).
  public init?(_ bytes: IPv6Bytes) {
    guard bytes.count >= 24, bytes.get8(0) == ICMPv6.mldQuery, bytes.get8(1) == 0 else { return nil }
    let group = bytes.address(8)
    guard group.isUnspecified || group.isMulticast else { return nil }
    let code = bytes.get16(4)
    guard bytes.count > 24 else {
      self.init(group: group, maximumResponse: UInt64(code), isVersion1: true)
      return
    }
    guard bytes.count >= 28 else { return nil }
    let count = Int(bytes.get16(26))
    guard bytes.count >= 28 + count * 16, !(group.isUnspecified && count > 0) else { return nil }
    // Section 5.1.3: from 32768 on a floating point number.
    let time = code < 0x8000 ? UInt64(code) : (UInt64(code & 0xfff) | 0x1000) << (UInt64(code >> 12 & 7) + 3)
    self.init(
      group: group, maximumResponse: time, isVersion1: false, sources: (0..<min(count, 64)).map { bytes.address(28 + $0 * 16) })
  }
}

/// A record of a version 2 report (RFC 3810, section 5.2.12).
public enum MLDRecord: UInt8, Sendable { case isInclude = 1, isExclude = 2, toInclude = 3, toExclude = 4 }

/// Messages as bytes, checksum zero.
public enum MLDBuilder {
  /// A report or a done of version 1: 24 bytes.
  public static func version1(_ type: UInt8, group: IPv6Address) -> [UInt8] { [type, 0, 0, 0, 0, 0, 0, 0] + group.bytes }

  /// A report of version 2, its records without sources: 8 bytes and 20 a record.
  public static func report(_ records: [(kind: MLDRecord, group: IPv6Address)]) -> [UInt8] {
    let count = UInt16(clamping: records.count)
    return records.reduce([ICMPv6.mldv2Report, 0, 0, 0, 0, 0, UInt8(count >> 8), UInt8(count & 0xff)]) {
      $0 + [$1.kind.rawValue, 0, 0, 0] + $1.group.bytes
    }
  }

  /// The hop-by-hop header that every message of MLD carries: router alert, value 0 (RFC 2711), padded to 8 bytes.
  public static let routerAlert: [UInt8] = [ICMPv6.headerNext, 0, 5, 2, 0, 0, 1, 0]
}

extension ICMPv6 {
  static let headerNext: UInt8 = 58
}
