// The first message of vfio-user: a version, and capabilities as JSON (RFC 8259).

/// What a server said of itself, with the protocol's defaults for what it left out.
struct UserCapabilities: Equatable {
  /// Descriptors it takes with one message.
  var descriptors = 1
  /// Bytes it takes or gives in one read or write of a region.
  var transfer = 1 << 20
  /// Mappings at a time.
  var mappings = 65535
  /// Smallest page it maps, in bytes.
  var pageSize = 4096

  /// The version that this client speaks.
  static let major: UInt16 = 0
  static let minor: UInt16 = 1

  /// The payload of our own message.
  static var proposal: [UInt8] {
    let text = #"{"capabilities":{"max_msg_fds":\#(ReceivedDescriptors.limit),"max_data_xfer_size":1048576,"pgsizes":4096}}"#
    var bytes = [UInt8](repeating: 0, count: 4)
    bytes.set(major, at: 0)
    bytes.set(minor, at: 2)
    return bytes + Array(text.utf8) + [0]
  }

  init() {}

  /// - Parameter payload: of the server's answer.
  init(_ payload: [UInt8]) throws(VFIOMalformed) {
    guard let major = payload.field(UInt16.self, at: 0), let minor = payload.field(UInt16.self, at: 2) else {
      throw VFIOMalformed("a version of \(payload.count) bytes")
    }
    guard major == UserCapabilities.major, minor <= UserCapabilities.minor else {
      throw VFIOMalformed("version \(major).\(minor) of vfio-user; 0.1 is what Ringway speaks")
    }
    let text = payload[4...].prefix { $0 != 0 }
    if text.isEmpty { return }
    var scanner = JSONScanner(Array(text))
    guard scanner.scan() else { throw VFIOMalformed("capabilities that are no JSON") }
    let found = scanner.numbers
    func value(_ name: String, _ range: ClosedRange<Double>, _ otherwise: Int) throws(VFIOMalformed) -> Int {
      guard let number = found["capabilities.\(name)"] else { return otherwise }
      guard range.contains(number) else { throw VFIOMalformed("a \(name) of \(number)") }
      return Int(number)
    }
    descriptors = try value("max_msg_fds", 0...1e9, descriptors)
    transfer = try value("max_data_xfer_size", 8...1e15, transfer)
    mappings = try value("max_dma_maps", 1...1e15, mappings)
    let sizes = try value("pgsizes", 1...9e18, pageSize)
    guard sizes.trailingZeroBitCount < 31 else { throw VFIOMalformed("page sizes \(sizes)") }
    // Memory is given in pages of this machine at least.
    pageSize = max(4096, 1 << sizes.trailingZeroBitCount)
  }
}

/// Reads JSON for its numbers, and refuses what is none. Depth and length are bounded.
struct JSONScanner {
  /// By path: "capabilities.max_msg_fds". Of a name that comes twice, the last.
  private(set) var numbers: [String: Double] = [:]
  private let bytes: [UInt8]
  private var at = 0
  private static let deepest = 16

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// Whether all of it is one JSON value.
  mutating func scan() -> Bool {
    guard value(path: "", depth: 0) else { return false }
    skipSpace()
    return at == bytes.count
  }

  private var next: UInt8? { at < bytes.count ? bytes[at] : nil }

  private mutating func skipSpace() {
    while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { at += 1 }
  }

  private mutating func take(_ character: Unicode.Scalar) -> Bool {
    skipSpace()
    guard next == UInt8(ascii: character) else { return false }
    at += 1
    return true
  }

  private mutating func value(path: String, depth: Int) -> Bool {
    guard depth < JSONScanner.deepest else { return false }
    skipSpace()
    switch next {
    case UInt8(ascii: "{"): return members(path, depth, close: "}", named: true)
    case UInt8(ascii: "["): return members(path, depth, close: "]", named: false)
    case UInt8(ascii: "\""): return string() != nil
    case UInt8(ascii: "t"): return word("true")
    case UInt8(ascii: "f"): return word("false")
    case UInt8(ascii: "n"): return word("null")
    default: return number(path)
    }
  }

  private mutating func members(_ path: String, _ depth: Int, close: Unicode.Scalar, named: Bool) -> Bool {
    at += 1
    if take(close) { return true }
    repeat {
      var name = path
      if named {
        skipSpace()
        guard let key = string(), take(":") else { return false }
        name = path.isEmpty ? key : "\(path).\(key)"
      }
      guard value(path: name, depth: depth + 1) else { return false }
    } while take(",")
    return take(close)
  }

  private mutating func word(_ text: StaticString) -> Bool {
    let wanted = Array("\(text)".utf8)
    guard bytes.count - at >= wanted.count, Array(bytes[at..<at + wanted.count]) == wanted else { return false }
    at += wanted.count
    return true
  }

  /// The text between quotes. Escapes are skipped, not undone: no name that matters has one.
  private mutating func string() -> String? {
    guard next == UInt8(ascii: "\"") else { return nil }
    at += 1
    let start = at
    while let byte = next {
      if byte == UInt8(ascii: "\"") {
        defer { at += 1 }
        return String(decoding: bytes[start..<at], as: UTF8.self)
      }
      guard byte >= 0x20 else { return nil }
      at += byte == UInt8(ascii: "\\") ? 2 : 1
    }
    return nil
  }

  private mutating func number(_ path: String) -> Bool {
    let start = at
    while let byte = next, "+-.eE0123456789".utf8.contains(byte) { at += 1 }
    guard at > start, let value = Double(String(decoding: bytes[start..<at], as: UTF8.self)), value.isFinite else {
      return false
    }
    numbers[path] = value
    return true
  }
}
