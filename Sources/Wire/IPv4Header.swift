// IPv4's header (RFC 791, section 3.1), seen where it lies.

/// An IPv4 header of at least 20 octets in memory that outlives the view.
///
///     0 version|length  1 service  2-3 total length  4-5 identification  6-7 flags|offset
///     8 time to live    9 protocol 10-11 checksum    12-15 source        16-19 destination
@frozen @safe public struct IPv4Header {
  @usableFromInline let start: UnsafeMutableRawPointer

  public static let size = 20
  public static let maximumSize = 60
  /// Octets of the largest datagram.
  public static let maximumDatagram = 65535
  public static let dontFragment: UInt16 = 0x4000
  public static let moreFragments: UInt16 = 0x2000
  public static let offsetMask: UInt16 = 0x1fff

  /// nil: fewer than 20 octets.
  @inlinable @inline(__always) public init?(unsafe start: UnsafeMutableRawPointer, count: Int) {
    guard count >= Self.size else { return nil }
    unsafe self.start = start
  }

  // SAFETY of what follows: the initializer has checked that 20 octets are there.
  @inlinable @inline(__always) public var version: UInt8 { unsafe start.octet(0) >> 4 }
  /// Octets, options included: 0 to 60. Not checked against anything.
  @inlinable @inline(__always) public var headerLength: Int { unsafe Int(start.octet(0) & 15) &* 4 }
  @inlinable @inline(__always) public func setHeaderLength(_ octets: Int) {
    unsafe start.setOctet(0x40 | UInt8(truncatingIfNeeded: octets >> 2) & 15, 0)
  }
  @inlinable public var service: UInt8 {
    get { unsafe start.octet(1) }
    nonmutating set { unsafe start.setOctet(newValue, 1) }
  }
  /// Octets of header and payload.
  @inlinable @inline(__always) public var totalLength: Int {
    get { unsafe Int(start.big16(2)) }
    nonmutating set { unsafe start.setBig16(UInt16(truncatingIfNeeded: newValue), 2) }
  }
  @inlinable public var identification: UInt16 {
    get { unsafe start.big16(4) }
    nonmutating set { unsafe start.setBig16(newValue, 4) }
  }
  /// Flags and offset together.
  @inlinable @inline(__always) public var fragment: UInt16 {
    get { unsafe start.big16(6) }
    nonmutating set { unsafe start.setBig16(newValue, 6) }
  }
  @inlinable @inline(__always) public var isFragment: Bool { fragment & (Self.moreFragments | Self.offsetMask) != 0 }
  /// Octets before this fragment's payload.
  @inlinable public var fragmentOffset: Int { Int(fragment & Self.offsetMask) &* 8 }
  @inlinable public var mayNotFragment: Bool { fragment & Self.dontFragment != 0 }
  @inlinable public var hasMoreFragments: Bool { fragment & Self.moreFragments != 0 }
  @inlinable @inline(__always) public var timeToLive: UInt8 {
    get { unsafe start.octet(8) }
    nonmutating set { unsafe start.setOctet(newValue, 8) }
  }
  @inlinable @inline(__always) public var proto: UInt8 {
    get { unsafe start.octet(9) }
    nonmutating set { unsafe start.setOctet(newValue, 9) }
  }
  @inlinable @inline(__always) public var checksum: UInt16 {
    get { unsafe start.big16(10) }
    nonmutating set { unsafe start.setBig16(newValue, 10) }
  }
  @inlinable @inline(__always) public var source: IPv4Address {
    get { unsafe IPv4Address(rawValue: start.big32(12)) }
    nonmutating set { unsafe start.setBig32(newValue.rawValue, 12) }
  }
  @inlinable @inline(__always) public var destination: IPv4Address {
    get { unsafe IPv4Address(rawValue: start.big32(16)) }
    nonmutating set { unsafe start.setBig32(newValue.rawValue, 16) }
  }

  /// Takes one hop off and puts the checksum right (RFC 1624). The time to live must not be 0.
  @inlinable @inline(__always) public func decrementTimeToLive() {
    let old = unsafe start.big16(8)
    let new = old &- 0x100
    unsafe start.setBig16(new, 8)
    checksum = InternetChecksum.adjust(checksum, from: old, to: new)
  }

  /// Computes the checksum over `headerLength` octets; the caller knows that they are there.
  @inlinable public func fillChecksum() {
    checksum = 0
    checksum = ~(unsafe InternetChecksum.sum(unsafe: start, count: headerLength))
  }
  /// Whether the checksum over `headerLength` octets is right; the caller knows that they are there.
  @inlinable @inline(__always) public var isChecksumRight: Bool {
    unsafe InternetChecksum.sum(unsafe: start, count: headerLength) == 0xffff
  }

  /// Numbers of the protocols above.
  public static let icmp: UInt8 = 1
  public static let igmp: UInt8 = 2
  public static let tcp: UInt8 = 6
  public static let udp: UInt8 = 17
}

/// Option kinds (RFC 791, section 3.1; RFC 2113).
public enum IPv4Option {
  public static let end: UInt8 = 0
  public static let noOperation: UInt8 = 1
  public static let recordRoute: UInt8 = 7
  public static let timestamp: UInt8 = 68
  public static let looseSourceRoute: UInt8 = 131
  public static let strictSourceRoute: UInt8 = 137
  public static let routerAlert: UInt8 = 148
}
