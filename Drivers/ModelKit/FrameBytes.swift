// Network byte order in raw buffers, for the device's side. Out of bounds is zero or nothing: the
// bytes come from a wire or from a driver.

extension UnsafeRawBufferPointer {
  /// The byte at an offset; 0 outside.
  @inlinable public func byte(_ offset: Int) -> UInt8 {
    // SAFETY: checked against the count.
    offset >= 0 && offset < count ? unsafe loadUnaligned(fromByteOffset: offset, as: UInt8.self) : 0
  }
  /// 16 bits, most significant byte first; 0 when they do not lie inside.
  @inlinable public func big16(_ offset: Int) -> UInt16 {
    // SAFETY: checked against the count.
    offset >= 0 && offset <= count - 2
      ? UInt16(bigEndian: unsafe loadUnaligned(fromByteOffset: offset, as: UInt16.self)) : 0
  }
  /// 32 bits, most significant byte first; 0 when they do not lie inside.
  @inlinable public func big32(_ offset: Int) -> UInt32 {
    // SAFETY: checked against the count.
    offset >= 0 && offset <= count - 4
      ? UInt32(bigEndian: unsafe loadUnaligned(fromByteOffset: offset, as: UInt32.self)) : 0
  }
  /// `count` bytes from an offset; as many of them as there are.
  @inlinable public func piece(_ offset: Int, _ count: Int) -> UnsafeRawBufferPointer {
    let from = Swift.min(Swift.max(offset, 0), self.count)
    let size = Swift.min(Swift.max(count, 0), self.count - from)
    return unsafe UnsafeRawBufferPointer(rebasing: self[from..<from + size])
  }
}

extension UnsafeMutableRawBufferPointer {
  /// Writes a byte; outside, nothing.
  @inlinable public func setByte(_ value: UInt8, _ offset: Int) {
    // SAFETY: checked against the count.
    if offset >= 0, offset < count { unsafe storeBytes(of: value, toByteOffset: offset, as: UInt8.self) }
  }
  /// Writes 16 bits, most significant byte first; outside, nothing.
  @inlinable public func setBig16(_ value: UInt16, _ offset: Int) {
    // SAFETY: checked against the count.
    if offset >= 0, offset <= count - 2 {
      unsafe storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
    }
  }
  /// Writes 32 bits, most significant byte first; outside, nothing.
  @inlinable public func setBig32(_ value: UInt32, _ offset: Int) {
    // SAFETY: checked against the count.
    if offset >= 0, offset <= count - 4 {
      unsafe storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
    }
  }
}
