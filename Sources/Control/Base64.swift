// Bytes inside JSON (RFC 4648, section 4).

public enum Base64 {
  private static let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

  public static func encode(_ bytes: some Collection<UInt8>) -> String {
    var text: [UInt8] = []
    text.reserveCapacity((bytes.count + 2) / 3 * 4)
    var iterator = bytes.makeIterator()
    while let a = iterator.next() {
      let b = iterator.next()
      let c = b == nil ? nil : iterator.next()
      text.append(digits[Int(a >> 2)])
      text.append(digits[Int((a & 3) << 4 | (b ?? 0) >> 4)])
      text.append(b == nil ? UInt8(ascii: "=") : digits[Int((b! & 15) << 2 | (c ?? 0) >> 6)])
      text.append(c == nil ? UInt8(ascii: "=") : digits[Int(c! & 63)])
    }
    return String(decoding: text, as: UTF8.self)
  }

  /// nil for anything that `encode` does not write.
  public static func decode(_ text: String) -> [UInt8]? {
    let text = Array(text.utf8)
    guard text.count % 4 == 0 else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.count / 4 * 3)
    var at = 0
    while at < text.count {
      let padding = at + 4 == text.count ? (text[at + 3] == UInt8(ascii: "=") ? (text[at + 2] == UInt8(ascii: "=") ? 2 : 1) : 0) : 0
      var group: UInt32 = 0
      for i in 0..<4 {
        guard i < 4 - padding else {
          group <<= 6
          continue
        }
        guard let digit = value(text[at + i]) else { return nil }
        group = group << 6 | UInt32(digit)
      }
      // Bits behind the last byte are zero.
      if group & (padding == 2 ? 0xffff : padding == 1 ? 0xff : 0) != 0 { return nil }
      for i in 0..<(3 - padding) { bytes.append(UInt8(truncatingIfNeeded: group >> UInt32(16 - 8 * i))) }
      at += 4
    }
    return bytes
  }

  private static func value(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): byte - UInt8(ascii: "A")
    case UInt8(ascii: "a")...UInt8(ascii: "z"): byte - UInt8(ascii: "a") + 26
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0") + 52
    case UInt8(ascii: "+"): 62
    case UInt8(ascii: "/"): 63
    default: nil
    }
  }
}
