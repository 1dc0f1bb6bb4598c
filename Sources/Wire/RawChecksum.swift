// The Internet checksum over raw memory, and changed by what changed (RFC 1071, RFC 1624).

extension InternetChecksum {
  /// The folded ones' complement sum of `count` octets at `start`, plus `initial`. The result is a number in the host's
  /// order, as `sum` has it; an odd count is padded with a zero.
  @inlinable
  public static func sum(unsafe start: UnsafeRawPointer, count: Int, initial: UInt16 = 0) -> UInt16 {
    // Ones' complement sums do not mind the byte order: words are added as they lie, and the result is swapped.
    var total: UInt64 = 0
    var at = 0
    while at &+ 8 <= count {
      let word = unsafe start.loadUnaligned(fromByteOffset: at, as: UInt64.self)
      // Two halves: 2^32 additions until the total could overflow, which is more than any frame has.
      total &+= word & 0xffff_ffff
      total &+= word >> 32
      at &+= 8
    }
    if at &+ 4 <= count {
      total &+= unsafe UInt64(start.loadUnaligned(fromByteOffset: at, as: UInt32.self))
      at &+= 4
    }
    if at &+ 2 <= count {
      total &+= unsafe UInt64(start.loadUnaligned(fromByteOffset: at, as: UInt16.self))
      at &+= 2
    }
    if at < count { total &+= unsafe UInt64(UInt16(littleEndian: UInt16(start.load(fromByteOffset: at, as: UInt8.self)))) }
    let swapped = UInt16(bigEndian: fold(total))
    return fold(UInt64(swapped) &+ UInt64(initial))
  }

  /// Sixteen bits out of a sum of many.
  @inlinable @inline(__always) public static func fold(_ total: UInt64) -> UInt16 {
    var sum = (total & 0xffff_ffff) &+ (total >> 32)
    sum = (sum & 0xffff) &+ (sum >> 16)
    sum = (sum & 0xffff) &+ (sum >> 16)
    sum = (sum & 0xffff) &+ (sum >> 16)
    return UInt16(truncatingIfNeeded: sum)
  }

  /// A checksum field after one of the words that it covers has changed: HC' = ~(~HC + ~m + m') (RFC 1624, section 3,
  /// equation 3).
  @inlinable @inline(__always) public static func adjust(_ checksum: UInt16, from old: UInt16, to new: UInt16) -> UInt16 {
    ~fold(UInt64(~checksum) &+ UInt64(~old) &+ UInt64(new))
  }

  /// The sum of a pseudo header: addresses, protocol, length (RFC 1071; RFC 793, section 3.1).
  @inlinable public static func pseudoHeader(from: IPv4Address, to: IPv4Address, proto: UInt8, length: Int) -> UInt16 {
    let addresses = UInt64(from.rawValue) &+ UInt64(to.rawValue)
    return fold(addresses &+ UInt64(proto) &+ UInt64(truncatingIfNeeded: length & 0xffff))
  }
}
