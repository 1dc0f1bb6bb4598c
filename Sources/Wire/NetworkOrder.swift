// Numbers in the network's byte order at raw addresses: what header views are made of.

extension UnsafeRawPointer {
  /// The 16-bit number at `offset`, first octet most significant.
  @inlinable @inline(__always) public func big16(_ offset: Int) -> UInt16 {
    unsafe UInt16(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }
  @inlinable @inline(__always) public func big32(_ offset: Int) -> UInt32 {
    unsafe UInt32(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }
  /// Six octets, as in `MACAddress.rawValue`.
  @inlinable @inline(__always) public func big48(_ offset: Int) -> UInt64 {
    unsafe UInt64(big16(offset)) << 32 | UInt64(big32(offset &+ 2))
  }
  @inlinable @inline(__always) public func octet(_ offset: Int) -> UInt8 {
    unsafe load(fromByteOffset: offset, as: UInt8.self)
  }
}

extension UnsafeMutableRawPointer {
  @inlinable @inline(__always) public func big16(_ offset: Int) -> UInt16 { unsafe UnsafeRawPointer(self).big16(offset) }
  @inlinable @inline(__always) public func big32(_ offset: Int) -> UInt32 { unsafe UnsafeRawPointer(self).big32(offset) }
  @inlinable @inline(__always) public func big48(_ offset: Int) -> UInt64 { unsafe UnsafeRawPointer(self).big48(offset) }
  @inlinable @inline(__always) public func octet(_ offset: Int) -> UInt8 {
    unsafe load(fromByteOffset: offset, as: UInt8.self)
  }
  @inlinable @inline(__always) public func setBig16(_ value: UInt16, _ offset: Int) {
    unsafe storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
  }
  @inlinable @inline(__always) public func setBig32(_ value: UInt32, _ offset: Int) {
    unsafe storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
  }
  /// The low 48 bits of `value`, in six octets.
  @inlinable @inline(__always) public func setBig48(_ value: UInt64, _ offset: Int) {
    unsafe setBig16(UInt16(truncatingIfNeeded: value >> 32), offset)
    unsafe setBig32(UInt32(truncatingIfNeeded: value), offset &+ 2)
  }
  @inlinable @inline(__always) public func setOctet(_ value: UInt8, _ offset: Int) {
    unsafe storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
  }
}
