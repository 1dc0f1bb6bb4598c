// Wire: what is on the wire: addresses, headers, checksums. Bytes and nothing else: no devices, no
// memory management, no system calls. Every parser takes untrusted bytes and returns nil for what
// it cannot read.

/// An Ethernet MAC address (IEEE 802-2014, clause 8): 48 bits in the order of transmission.
public struct MACAddress: Hashable, Sendable, CustomStringConvertible {
  /// The address in the low 48 bits, first octet sent in bits 47...40.
  public let rawValue: UInt64

  public init(rawValue: UInt64) { self.rawValue = rawValue & 0xffff_ffff_ffff }

  public init(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8, _ e: UInt8, _ f: UInt8) {
    rawValue =
      UInt64(a) << 40 | UInt64(b) << 32 | UInt64(c) << 24 | UInt64(d) << 16 | UInt64(e) << 8 | UInt64(f)
  }

  /// The first six of `bytes`; nil when there are fewer.
  public init?(bytes: some Sequence<UInt8>) {
    var value: UInt64 = 0
    var n = 0
    for byte in bytes.prefix(6) {
      value = value << 8 | UInt64(byte)
      n += 1
    }
    guard n == 6 else { return nil }
    rawValue = value
  }

  /// "52:54:00:12:34:56", also with "-"; nil for anything else.
  public init?(_ text: some StringProtocol) {
    let parts = text.split(separator: text.contains("-") ? "-" : ":", omittingEmptySubsequences: false)
    guard parts.count == 6 else { return nil }
    var value: UInt64 = 0
    for part in parts {
      guard part.count <= 2, part.allSatisfy(\.isHexDigit), let octet = UInt8(part, radix: 16) else { return nil }
      value = value << 8 | UInt64(octet)
    }
    rawValue = value
  }

  /// Octet `i` (0 to 5) in the order of transmission.
  public subscript(i: Int) -> UInt8 { UInt8(truncatingIfNeeded: rawValue >> UInt64(40 - 8 * i)) }
  public var bytes: [UInt8] { (0..<6).map { self[$0] } }
  public static let broadcast = MACAddress(rawValue: 0xffff_ffff_ffff)
  /// Group bit: multicast or broadcast.
  public var isMulticast: Bool { self[0] & 1 != 0 }
  /// All zero: no address.
  public var isZero: Bool { rawValue == 0 }
  /// Usable as a station's own address.
  public var isUnicast: Bool { !isMulticast && !isZero }

  public var description: String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
  }
}

/// Ethernet (IEEE 802.3-2022, clause 3): sizes in bytes, without the frame check sequence.
public enum Ethernet {
  public static let headerSize = 14
  public static let vlanTagSize = 4
  public static let minimumFrame = 60
  public static let checkSequenceSize = 4
  public static let typeIPv4: UInt16 = 0x0800
  public static let typeARP: UInt16 = 0x0806
  public static let typeVLAN: UInt16 = 0x8100
  public static let typeIPv6: UInt16 = 0x86dd

  /// A header's 14 bytes.
  public static func header(to: MACAddress, from: MACAddress, type: UInt16) -> [UInt8] {
    to.bytes + from.bytes + [UInt8(type >> 8), UInt8(type & 0xff)]
  }
}

/// The Internet checksum (RFC 1071).
public enum InternetChecksum {
  /// The folded ones' complement sum of `bytes` (odd lengths are padded with a zero), plus `initial`.
  public static func sum(_ bytes: some Sequence<UInt8>, initial: UInt32 = 0) -> UInt16 {
    var total = UInt64(initial)
    var high: UInt8?
    for byte in bytes {
      if let first = high {
        total &+= UInt64(first) << 8 | UInt64(byte)
        high = nil
      } else {
        high = byte
      }
    }
    if let first = high { total &+= UInt64(first) << 8 }
    while total > 0xffff { total = (total & 0xffff) + total >> 16 }
    return UInt16(total)
  }

  /// What goes into a checksum field that was zero while summing.
  public static func of(_ bytes: some Sequence<UInt8>, initial: UInt32 = 0) -> UInt16 { ~sum(bytes, initial: initial) }
}
