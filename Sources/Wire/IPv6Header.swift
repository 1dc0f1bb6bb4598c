// IPv6 on the wire (RFC 8200): the header, the extension headers, what addresses mean.

/// Next-header numbers (IANA protocol numbers).
public enum IPv6Next {
  public static let hopByHop: UInt8 = 0
  public static let tcp: UInt8 = 6
  public static let udp: UInt8 = 17
  public static let routing: UInt8 = 43
  public static let fragment: UInt8 = 44
  public static let esp: UInt8 = 50
  public static let authentication: UInt8 = 51
  public static let icmp: UInt8 = 58
  public static let none: UInt8 = 59
  public static let destination: UInt8 = 60
}

/// The fixed header (RFC 8200, section 3): sizes and offsets in bytes.
public enum IPv6Header {
  public static let size = 40
  public static let payloadLength = 4
  public static let next = 6
  public static let hopLimit = 7
  public static let source = 8
  public static let destination = 24
  public static let fragmentSize = 8
  /// Every link carries at least this much (RFC 8200, section 5).
  public static let minimumMTU = 1280
  public static let maximumPayload = 65535

  /// Writes all 40 bytes.
  @inlinable public static func write(
    _ bytes: IPv6Bytes, payload: Int, next: UInt8, hopLimit: UInt8, source: IPv6Address, destination: IPv6Address,
    trafficClass: UInt8 = 0, flow: UInt32 = 0
  ) {
    bytes.set32(6 << 28 | UInt32(trafficClass) << 20 | flow & 0xf_ffff, 0)
    bytes.set16(UInt16(truncatingIfNeeded: payload), payloadLength)
    bytes.set8(next, Self.next)
    bytes.set8(hopLimit, Self.hopLimit)
    bytes.setAddress(source, Self.source)
    bytes.setAddress(destination, Self.destination)
  }

  /// The unfolded sum of the pseudo header (RFC 8200, section 8.1).
  /// - Parameter length: bytes of the upper-layer packet.
  @inlinable public static func pseudoSum(
    source: IPv6Address, destination: IPv6Address, length: Int, next: UInt8
  ) -> UInt64 {
    half(source.high) &+ half(source.low) &+ half(destination.high) &+ half(destination.low)
      &+ UInt64(UInt32(truncatingIfNeeded: length)) &+ UInt64(next)
  }
  @inlinable @inline(__always) static func half(_ value: UInt64) -> UInt64 { value >> 32 &+ value & 0xffff_ffff }
}

/// How far an address reaches (RFC 4291, section 2.7; RFC 4007); larger reaches farther.
public enum IPv6Scope: UInt8, Comparable, Sendable {
  case reserved = 0, interfaceLocal = 1, linkLocal = 2, realmLocal = 3, adminLocal = 4, siteLocal = 5, organization = 8, global = 14
  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

extension IPv6Address {
  /// MLDv2's reports go here (RFC 3810, section 5.2.14).
  public static let allMLDv2Routers = IPv6Address(high: 0xff02_0000_0000_0000, low: 0x16)

  @inlinable public var isUnspecified: Bool { high | low == 0 }
  @inlinable public var isLoopback: Bool { high == 0 && low == 1 }
  /// ::ffff:0:0/96, which is never on the wire.
  @inlinable public var isV4Mapped: Bool { high == 0 && low >> 32 == 0xffff }

  /// The scope field of a multicast address, 0 to 15; 0 for others.
  @inlinable public var multicastScope: UInt8 { high >> 56 == 0xff ? UInt8(truncatingIfNeeded: high >> 48 & 0xf) : 0 }
  /// Means something on one link (or one machine) alone.
  @inlinable public var isLinkScoped: Bool {
    high >> 54 == 0x3fa || (high >> 56 == 0xff && (multicastScope == 1 || multicastScope == 2))
  }

  public var scope: IPv6Scope {
    if isMulticast { return IPv6Scope(rawValue: multicastScope) ?? (multicastScope < 5 ? .linkLocal : .global) }
    if isLinkLocal || isLoopback { return .linkLocal }
    return high >> 54 == 0x3fb ? .siteLocal : .global
  }

  /// ff02::1:ffXX:XXXX (RFC 4291, section 2.7.1).
  @inlinable public var solicitedNode: IPv6Address {
    IPv6Address(high: 0xff02_0000_0000_0000, low: 0x1_ff00_0000 | low & 0xff_ffff)
  }
  /// 33:33 and the last four octets (RFC 2464, section 7).
  @inlinable public var multicastMAC: UInt64 { 0x3333_0000_0000 | low & 0xffff_ffff }

  /// The address of an EUI-64 interface identifier under a /64 prefix (RFC 4291, appendix A).
  public init(prefix: UInt64, eui64Of mac: MACAddress) {
    let raw = mac.rawValue
    self.init(high: prefix, low: ((raw >> 24) << 40 | 0xff_fe00_0000 | raw & 0xff_ffff) ^ 0x0200_0000_0000_0000)
  }
  /// fe80::/64 and the EUI-64 identifier (RFC 4862, section 5.3; RFC 2464, section 5).
  public init(linkLocal mac: MACAddress) { self.init(prefix: 0xfe80_0000_0000_0000, eui64Of: mac) }

  /// Leading bits that two addresses share: 0 to 128.
  @inlinable public func commonPrefix(_ other: IPv6Address) -> Int {
    let difference = high ^ other.high
    return difference != 0 ? difference.leadingZeroBitCount : 64 + (low ^ other.low).leadingZeroBitCount
  }
  @inlinable public func isWithin(_ prefix: IPv6Address, _ length: Int) -> Bool { commonPrefix(prefix) >= length }
}
