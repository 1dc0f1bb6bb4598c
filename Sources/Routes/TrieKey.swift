// What the trie needs to know of an address.

internal import Wire

/// An address as a string of bits, and how a trie over it is cut into levels.
protocol TrieKey: Equatable, BitwiseCopyable {
  /// Bits of an address.
  static var width: Int { get }
  /// Bits that index the root.
  static var rootBits: Int { get }
  /// Bits that index each further node. `width - rootBits` is a multiple of it.
  static var stride: Int { get }
  /// The `count` bits from bit `offset` (0 is the first) on; they lie in one word of the key.
  func bits(_ offset: Int, _ count: Int) -> Int
  /// The first `length` bits, zeros behind.
  func prefix(_ length: Int) -> Self
  /// A number that differs for different addresses, mostly.
  var scrambled: UInt64 { get }
}

/// 20 bits, then 4 at a time: the root takes 4 MiB, of which few routes touch little; a /24 is two loads away, and a
/// node is one cache line. Other shapes were not measured; what this one costs is in docs/benchmarks/stack.md.
extension IPv4Address: TrieKey {
  static var width: Int { 32 }
  static var rootBits: Int { 20 }
  static var stride: Int { 4 }
  @inline(__always) func bits(_ offset: Int, _ count: Int) -> Int {
    Int(truncatingIfNeeded: (rawValue &<< UInt32(truncatingIfNeeded: offset)) &>> UInt32(truncatingIfNeeded: 32 &- count))
  }
  @inline(__always) func prefix(_ length: Int) -> IPv4Address {
    IPv4Address(rawValue: length == 0 ? 0 : rawValue & (~0 &<< UInt32(truncatingIfNeeded: 32 &- length)))
  }
  @inline(__always) var scrambled: UInt64 { UInt64(rawValue) &* 0x9e37_79b9_7f4a_7c15 }
}

/// 16 bits, then 4 at a time: no node crosses a word.
extension IPv6Address: TrieKey {
  static var width: Int { 128 }
  static var rootBits: Int { 16 }
  static var stride: Int { 4 }
  @inline(__always) func bits(_ offset: Int, _ count: Int) -> Int {
    let word = offset < 64 ? high : low
    return Int(truncatingIfNeeded: (word &<< UInt64(truncatingIfNeeded: offset & 63)) &>> UInt64(truncatingIfNeeded: 64 &- count))
  }
  @inline(__always) func prefix(_ length: Int) -> IPv6Address {
    let top = length >= 64 ? ~0 : length == 0 ? 0 : ~0 &<< UInt64(truncatingIfNeeded: 64 &- length)
    let bottom = length <= 64 ? 0 : ~0 &<< UInt64(truncatingIfNeeded: 128 &- length)
    return IPv6Address(high: high & top, low: low & bottom)
  }
  @inline(__always) var scrambled: UInt64 {
    (high ^ (low &<< 29 | low &>> 35)) &* 0x9e37_79b9_7f4a_7c15 ^ low &* 0xc2b2_ae3d_27d4_eb4f
  }
}
