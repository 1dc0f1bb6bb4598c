// VERSION: what both sides can do, as JSON (vfio-user specification, `VFIO_USER_VERSION`).

internal import SystemPackage

/// As much of JSON (RFC 8259) as a client's capabilities need. Depth and length are bounded.
enum JSONValue: Equatable {
  case null
  case bool(Bool)
  case number(Double)
  case text(String)
  case list([JSONValue])
  case object([String: JSONValue])

  subscript(_ key: String) -> JSONValue? {
    if case .object(let members) = self { members[key] } else { nil }
  }

  /// nil when the text is no JSON, or nested more than sixteen deep.
  init?(parsing text: some Collection<UInt8>) {
    var parser = JSONParser(bytes: Array(text))
    guard let value = parser.value(depth: 0), parser.isAtEnd else { return nil }
    self = value
  }
}

private struct JSONParser {
  let bytes: [UInt8]
  var place = 0

  private mutating func skipSpace() {
    while place < bytes.count, [0x20, 0x09, 0x0a, 0x0d].contains(bytes[place]) { place += 1 }
  }

  var isAtEnd: Bool {
    mutating get {
      skipSpace()
      return place == bytes.count
    }
  }

  private mutating func take(_ character: Character) -> Bool {
    skipSpace()
    guard place < bytes.count, bytes[place] == character.asciiValue else { return false }
    place += 1
    return true
  }

  private mutating func word(_ text: StaticString) -> Bool {
    let wanted = Array("\(text)".utf8)
    guard bytes[place...].starts(with: wanted) else { return false }
    place += wanted.count
    return true
  }

  mutating func value(depth: Int) -> JSONValue? {
    skipSpace()
    guard depth <= 16, place < bytes.count else { return nil }
    switch bytes[place] {
    case UInt8(ascii: "{"): return object(depth)
    case UInt8(ascii: "["): return list(depth)
    case UInt8(ascii: "\""): return text().map { .text($0) }
    case UInt8(ascii: "t"): return word("true") ? .bool(true) : nil
    case UInt8(ascii: "f"): return word("false") ? .bool(false) : nil
    case UInt8(ascii: "n"): return word("null") ? .null : nil
    default: return number()
    }
  }

  private mutating func object(_ depth: Int) -> JSONValue? {
    guard take("{") else { return nil }
    var members: [String: JSONValue] = [:]
    if take("}") { return .object(members) }
    repeat {
      skipSpace()
      guard let key = text(), take(":"), let value = value(depth: depth + 1) else { return nil }
      members[key] = value
    } while take(",")
    return take("}") ? .object(members) : nil
  }

  private mutating func list(_ depth: Int) -> JSONValue? {
    guard take("[") else { return nil }
    var values: [JSONValue] = []
    if take("]") { return .list(values) }
    repeat {
      guard let value = value(depth: depth + 1) else { return nil }
      values.append(value)
    } while take(",")
    return take("]") ? .list(values) : nil
  }

  /// Escapes are kept as they are written: no capability's name has one.
  private mutating func text() -> String? {
    guard take("\"") else { return nil }
    let start = place
    while place < bytes.count, bytes[place] != UInt8(ascii: "\"") {
      place += bytes[place] == UInt8(ascii: "\\") ? 2 : 1
    }
    guard place < bytes.count else { return nil }
    defer { place += 1 }
    return String(decoding: bytes[start..<place], as: UTF8.self)
  }

  private mutating func number() -> JSONValue? {
    let start = place
    while place < bytes.count, "+-.eE0123456789".utf8.contains(bytes[place]) { place += 1 }
    return Double(String(decoding: bytes[start..<place], as: UTF8.self)).map { .number($0) }
  }
}

/// The negotiation.
struct Negotiation {
  /// The answer's payload.
  let reply: [UInt8]
  /// What the client takes in one message; 1 when it does not say.
  let clientDescriptors: Int

  private static let offers: [(name: String, value: String)] = [
    ("max_msg_fds", "\(MessageHeader.mostDescriptors)"),
    ("max_data_xfer_size", "\(MessageHeader.largestTransfer)"),
    ("pgsizes", "\(ClientMemory.pageSize)"),
    ("max_dma_maps", "\(ClientMemory.mostMaps)"),
    ("write_multiple", "true"),
  ]

  /// - Throws: EINVAL when the message is no version, ENOTSUP for another major version.
  init(_ payload: Fields) throws(Errno) {
    try payload.require(4)
    let major = UInt16(truncatingIfNeeded: payload.le32(0)), minor = UInt16(truncatingIfNeeded: payload.le32(0) >> 16)
    guard major == 0 else { throw .notSupported }
    var text = payload.bytes[4...]
    if text.last == 0 { text = text.dropLast() }
    var named: JSONValue?
    if !text.isEmpty {
      guard let parsed = JSONValue(parsing: text), case .object = parsed else { throw .invalidArgument }
      named = parsed["capabilities"]
    }
    var clientDescriptors = 1
    if case .number(let value)? = named?["max_msg_fds"], value >= 1, value <= 253 { clientDescriptors = Int(value) }
    self.clientDescriptors = clientDescriptors

    // A subset of what the client named, and no longer than what it sent: QEMU reads the answer
    // into the space of its question.
    var reply: [UInt8] = []
    reply.append16(0)
    reply.append16(min(minor, 1))
    guard !text.isEmpty else {
      self.reply = reply
      return
    }
    var members: [String] = []
    for offer in Negotiation.offers where named?[offer.name] != nil {
      let longer = members + ["\"\(offer.name)\":\(offer.value)"]
      if Negotiation.json(longer).utf8.count < payload.count - 4 { members = longer }
    }
    self.reply = reply + Array(Negotiation.json(members).utf8) + [0]
  }

  private static func json(_ members: [String]) -> String {
    members.isEmpty ? "{}" : "{\"capabilities\":{\(members.joined(separator: ","))}}"
  }
}
