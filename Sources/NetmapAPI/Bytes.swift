// Numbers in bytes: little-endian, as the machine has them. Nothing here reads or writes beyond an array's end.

extension [UInt8] {
  /// The number that starts at `offset`; 0 where the array ends before it does.
  func number<T: FixedWidthInteger & UnsignedInteger>(_ type: T.Type, at offset: Int) -> T {
    let size = T.bitWidth / 8
    guard offset >= 0, count >= size, offset <= count - size else { return 0 }
    var value: T = 0
    for i in 0..<size { value |= T(self[offset + i]) << T(8 * i) }
    return value
  }

  func u16(_ offset: Int) -> UInt16 { number(UInt16.self, at: offset) }
  func u32(_ offset: Int) -> UInt32 { number(UInt32.self, at: offset) }
  func u64(_ offset: Int) -> UInt64 { number(UInt64.self, at: offset) }

  /// Writes `value` at `offset`, which the array must reach beyond; otherwise nothing happens.
  mutating func put<T: FixedWidthInteger & UnsignedInteger>(_ value: T, at offset: Int) {
    let size = T.bitWidth / 8
    guard offset >= 0, count >= size, offset <= count - size else { return }
    for i in 0..<size { self[offset + i] = UInt8(truncatingIfNeeded: value >> T(8 * i)) }
  }

  /// `count` bytes from `offset`; fewer where the array ends.
  func part(_ offset: Int, _ length: Int) -> [UInt8] {
    guard offset >= 0, length > 0, offset < count else { return [] }
    return [UInt8](self[offset..<(offset + Swift.min(length, count - offset))])
  }

  /// Text of a field of `length` bytes, up to its first NUL. nil when there is no NUL, or the text is not UTF-8.
  func text(_ offset: Int, _ length: Int) -> String? {
    let field = part(offset, length)
    guard let end = field.firstIndex(of: 0) else { return nil }
    return String(validating: field[..<end], as: UTF8.self)
  }

  /// Writes text and NULs into a field of `length` bytes; what does not fit with a NUL behind it is cut.
  mutating func put(_ text: String, at offset: Int, _ length: Int) {
    let bytes = [UInt8](text.utf8.prefix(Swift.max(0, length - 1)))
    for i in 0..<Swift.max(0, length) where offset + i < count { self[offset + i] = i < bytes.count ? bytes[i] : 0 }
  }
}

/// The error for bytes that are too few or too many.
func wrongLength(_ what: String, _ count: Int, _ wanted: Int) -> NetmapError {
  NetmapError(.EINVAL, "\(what) has \(count) bytes where \(wanted) are needed.")
}
