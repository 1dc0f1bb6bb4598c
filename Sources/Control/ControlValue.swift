// JSON values.

/// A JSON value (RFC 8259). Integers are kept exactly; members of an object keep their order.
public enum ControlValue: Sendable, Equatable {
  case null
  case bool(Bool)
  case int(Int64)
  /// Above `Int64.max`.
  case uint(UInt64)
  case double(Double)
  case string(String)
  case array([ControlValue])
  case object([Member])

  /// A name and its value.
  public struct Member: Sendable, Equatable {
    public var name: String
    public var value: ControlValue
    public init(_ name: String, _ value: ControlValue) {
      self.name = name
      self.value = value
    }
  }

  /// Of an object: the member's value; nil when there is none, or when this is no object.
  public subscript(name: String) -> ControlValue? {
    guard case .object(let members) = self else { return nil }
    return members.first { $0.name == name }?.value
  }
  public var text: String? { if case .string(let text) = self { text } else { nil } }
  public var members: [Member]? { if case .object(let members) = self { members } else { nil } }
  public var elements: [ControlValue]? { if case .array(let elements) = self { elements } else { nil } }
  /// An unsigned number, exactly.
  public var number: UInt64? {
    switch self {
    case .int(let value): UInt64(exactly: value)
    case .uint(let value): value
    default: nil
    }
  }

  init(_ value: UInt64) { self = Int64(exactly: value).map(ControlValue.int) ?? .uint(value) }
}

// MARK: Writing

extension ControlValue {
  /// JSON text, without white space or line ends: one line. Numbers that JSON cannot say (infinite) become null.
  public var json: [UInt8] {
    var bytes: [UInt8] = []
    write(to: &bytes)
    return bytes
  }

  /// For people and files: members on lines of their own, indented by two.
  public var pretty: String {
    var text = ""
    pretty(into: &text, indent: "")
    return text
  }

  private func pretty(into text: inout String, indent: String) {
    let inner = indent + "  "
    switch self {
    case .array(let elements) where !elements.isEmpty:
      text += "["
      for (i, element) in elements.enumerated() {
        text += (i == 0 ? "\n" : ",\n") + inner
        element.pretty(into: &text, indent: inner)
      }
      text += "\n" + indent + "]"
    case .object(let members) where !members.isEmpty:
      text += "{"
      for (i, member) in members.enumerated() {
        text += (i == 0 ? "\n" : ",\n") + inner + String(decoding: ControlValue.string(member.name).json, as: UTF8.self) + ": "
        member.value.pretty(into: &text, indent: inner)
      }
      text += "\n" + indent + "}"
    default: text += String(decoding: json, as: UTF8.self)
    }
  }

  private func write(to bytes: inout [UInt8]) {
    switch self {
    case .null: bytes += "null".utf8
    case .bool(let value): bytes += (value ? "true" : "false").utf8
    case .int(let value): bytes += String(value).utf8
    case .uint(let value): bytes += String(value).utf8
    case .double(let value): bytes += (value.isFinite ? String(value) : "null").utf8
    case .string(let text): Self.write(text, to: &bytes)
    case .array(let elements):
      bytes.append(UInt8(ascii: "["))
      for (i, element) in elements.enumerated() {
        if i > 0 { bytes.append(UInt8(ascii: ",")) }
        element.write(to: &bytes)
      }
      bytes.append(UInt8(ascii: "]"))
    case .object(let members):
      bytes.append(UInt8(ascii: "{"))
      for (i, member) in members.enumerated() {
        if i > 0 { bytes.append(UInt8(ascii: ",")) }
        Self.write(member.name, to: &bytes)
        bytes.append(UInt8(ascii: ":"))
        member.value.write(to: &bytes)
      }
      bytes.append(UInt8(ascii: "}"))
    }
  }

  private static func write(_ text: String, to bytes: inout [UInt8]) {
    bytes.append(UInt8(ascii: "\""))
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"): bytes += [UInt8(ascii: "\\"), byte]
      case UInt8(ascii: "\n"): bytes += "\\n".utf8
      case UInt8(ascii: "\t"): bytes += "\\t".utf8
      case UInt8(ascii: "\r"): bytes += "\\r".utf8
      case 0..<0x20, 0x7f:
        let digits = Array("0123456789abcdef".utf8)
        bytes += "\\u00".utf8
        bytes += [digits[Int(byte >> 4)], digits[Int(byte & 15)]]
      default: bytes.append(byte)
      }
    }
    bytes.append(UInt8(ascii: "\""))
  }
}
