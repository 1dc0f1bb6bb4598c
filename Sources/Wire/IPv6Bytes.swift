// Reading and writing network-order fields at places in memory that somebody else filled.

/// A stretch of a packet's bytes, lent by the packet. What lies outside reads as zero and is not written: lengths are
/// checked where they mean something, and a mistake there never reaches beyond the buffer.
@frozen @safe public struct IPv6Bytes {
  public let base: UnsafeMutableRawPointer
  public let count: Int

  /// - Parameter base: `count` bytes that stay where they are for as long as the view is used.
  @inlinable @inline(__always) public init(unsafe base: UnsafeMutableRawPointer, count: Int) {
    unsafe self.base = base
    self.count = max(0, count)
  }

  @inlinable @inline(__always) public func holds(_ size: Int, at offset: Int) -> Bool {
    offset >= 0 && size >= 0 && offset <= count &- size
  }

  // SAFETY (all below): `holds` keeps offset and size inside the memory that the initializer was promised.
  @inlinable @inline(__always) public func get8(_ at: Int) -> UInt8 {
    guard holds(1, at: at) else { return 0 }
    return unsafe base.load(fromByteOffset: at, as: UInt8.self)
  }
  @inlinable @inline(__always) public func get16(_ at: Int) -> UInt16 {
    guard holds(2, at: at) else { return 0 }
    return unsafe UInt16(bigEndian: base.loadUnaligned(fromByteOffset: at, as: UInt16.self))
  }
  @inlinable @inline(__always) public func get32(_ at: Int) -> UInt32 {
    guard holds(4, at: at) else { return 0 }
    return unsafe UInt32(bigEndian: base.loadUnaligned(fromByteOffset: at, as: UInt32.self))
  }
  @inlinable @inline(__always) public func get64(_ at: Int) -> UInt64 {
    guard holds(8, at: at) else { return 0 }
    return unsafe UInt64(bigEndian: base.loadUnaligned(fromByteOffset: at, as: UInt64.self))
  }
  @inlinable @inline(__always) public func address(_ at: Int) -> IPv6Address {
    IPv6Address(high: get64(at), low: get64(at &+ 8))
  }
  /// Six octets.
  @inlinable @inline(__always) public func mac(_ at: Int) -> UInt64 { UInt64(get16(at)) << 32 | UInt64(get32(at &+ 2)) }

  @inlinable @inline(__always) public func set8(_ value: UInt8, _ at: Int) {
    guard holds(1, at: at) else { return }
    unsafe base.storeBytes(of: value, toByteOffset: at, as: UInt8.self)
  }
  @inlinable @inline(__always) public func set16(_ value: UInt16, _ at: Int) {
    guard holds(2, at: at) else { return }
    unsafe base.storeBytes(of: value.bigEndian, toByteOffset: at, as: UInt16.self)
  }
  @inlinable @inline(__always) public func set32(_ value: UInt32, _ at: Int) {
    guard holds(4, at: at) else { return }
    unsafe base.storeBytes(of: value.bigEndian, toByteOffset: at, as: UInt32.self)
  }
  @inlinable @inline(__always) public func set64(_ value: UInt64, _ at: Int) {
    guard holds(8, at: at) else { return }
    unsafe base.storeBytes(of: value.bigEndian, toByteOffset: at, as: UInt64.self)
  }
  @inlinable @inline(__always) public func setAddress(_ value: IPv6Address, _ at: Int) {
    set64(value.high, at)
    set64(value.low, at &+ 8)
  }
  @inlinable @inline(__always) public func setMAC(_ value: UInt64, _ at: Int) {
    set16(UInt16(truncatingIfNeeded: value >> 32), at)
    set32(UInt32(truncatingIfNeeded: value), at &+ 2)
  }

  /// The stretch from `offset` on; empty when it lies outside.
  @inlinable @inline(__always) public func dropFirst(_ offset: Int) -> IPv6Bytes {
    guard offset >= 0, offset <= count else { return unsafe IPv6Bytes(unsafe: base, count: 0) }
    return unsafe IPv6Bytes(unsafe: base + offset, count: count &- offset)
  }

  /// The ones' complement sum, not folded, of `length` bytes from `offset`; outside counts as zero. An odd last byte is
  /// the high half of a word.
  @inlinable public func sum(from offset: Int, _ length: Int) -> UInt64 {
    var at = max(0, offset)
    let end = min(count, max(at, offset &+ length))
    var total: UInt64 = 0
    while at &+ 4 <= end {
      unsafe total &+= UInt64(UInt32(bigEndian: base.loadUnaligned(fromByteOffset: at, as: UInt32.self)))
      at &+= 4
    }
    if at &+ 2 <= end {
      total &+= UInt64(get16(at))
      at &+= 2
    }
    if at < end { total &+= UInt64(get8(at)) << 8 }
    return total
  }
}
