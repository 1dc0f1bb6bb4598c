// Reading JSON that anybody may have written.

/// What is wrong with a text that should be JSON, and at which byte.
public struct ControlSyntaxError: Error, Sendable, Equatable, CustomStringConvertible {
  public var offset: Int
  public var problem: String
  public var description: String { "not JSON at byte \(offset): \(problem)." }
}

/// Bounds of what is read.
public struct ControlLimits: Sendable {
  /// Bytes of the text.
  public var bytes = Control.replyLimit
  /// Values inside values.
  public var depth = 24
  /// Members of one object.
  public var members = 4096
  public init() {}
  public static let request: ControlLimits = {
    var limits = ControlLimits()
    limits.bytes = Control.requestLimit
    limits.members = 256
    return limits
  }()
}

extension ControlValue {
  /// Reads a JSON text (RFC 8259): one value, white space around it allowed. Names that come twice, text that is
  /// not UTF-8 and lone surrogates are errors.
  public init(json: some Collection<UInt8>, limits: ControlLimits = ControlLimits()) throws(ControlSyntaxError) {
    var parser = Parser(bytes: Array(json), limits: limits)
    guard parser.bytes.count <= limits.bytes else { throw parser.error("longer than \(limits.bytes) bytes") }
    self = try parser.value(depth: 0)
    parser.skipSpace()
    guard parser.at == parser.bytes.count else { throw parser.error("something follows the value") }
  }

  private struct Parser {
    let bytes: [UInt8]
    let limits: ControlLimits
    var at = 0

    func error(_ problem: String) -> ControlSyntaxError { ControlSyntaxError(offset: at, problem: problem) }
    var next: UInt8? { at < bytes.count ? bytes[at] : nil }

    mutating func skipSpace() {
      while let byte = next, byte == 0x20 || byte == 0x09 || byte == 0x0a || byte == 0x0d { at += 1 }
    }
    mutating func take(_ character: Unicode.Scalar) -> Bool {
      guard next == UInt8(ascii: character) else { return false }
      at += 1
      return true
    }

    mutating func value(depth: Int) throws(ControlSyntaxError) -> ControlValue {
      guard depth < limits.depth else { throw error("deeper than \(limits.depth) levels") }
      skipSpace()
      switch next {
      case UInt8(ascii: "{"): return try object(depth: depth)
      case UInt8(ascii: "["): return try array(depth: depth)
      case UInt8(ascii: "\""): return .string(try string())
      case UInt8(ascii: "t"): return try word("true", .bool(true))
      case UInt8(ascii: "f"): return try word("false", .bool(false))
      case UInt8(ascii: "n"): return try word("null", .null)
      case UInt8(ascii: "-"): return try number()
      case .some(0x30...0x39): return try number()
      case nil: throw error("the text ends where a value should be")
      default: throw error("no value begins like this")
      }
    }

    mutating func word(_ word: String, _ value: ControlValue) throws(ControlSyntaxError) -> ControlValue {
      guard bytes[at...].starts(with: word.utf8) else { throw error("\"\(word)\" was expected") }
      at += word.utf8.count
      return value
    }

    mutating func object(depth: Int) throws(ControlSyntaxError) -> ControlValue {
      at += 1
      var members: [Member] = []
      var names: Set<String> = []
      skipSpace()
      if take("}") { return .object([]) }
      repeat {
        skipSpace()
        guard next == UInt8(ascii: "\"") else { throw error("a name in quotes was expected") }
        let name = try string()
        guard names.insert(name).inserted else { throw error("a name comes twice in one object") }
        guard names.count <= limits.members else { throw error("more than \(limits.members) members") }
        skipSpace()
        guard take(":") else { throw error("a colon was expected") }
        members.append(Member(name, try value(depth: depth + 1)))
        skipSpace()
      } while take(",")
      guard take("}") else { throw error("a comma or a closing brace was expected") }
      return .object(members)
    }

    mutating func array(depth: Int) throws(ControlSyntaxError) -> ControlValue {
      at += 1
      var elements: [ControlValue] = []
      skipSpace()
      if take("]") { return .array([]) }
      repeat {
        elements.append(try value(depth: depth + 1))
        skipSpace()
      } while take(",")
      guard take("]") else { throw error("a comma or a closing bracket was expected") }
      return .array(elements)
    }

    mutating func digits() -> Int {
      let start = at
      while let byte = next, (0x30...0x39).contains(byte) { at += 1 }
      return at - start
    }

    mutating func number() throws(ControlSyntaxError) -> ControlValue {
      let start = at
      _ = take("-")
      let leadingZero = next == UInt8(ascii: "0")
      let count = digits()
      guard count > 0, count == 1 || !leadingZero else { throw error("not a number") }
      var isInteger = true
      if take(".") {
        isInteger = false
        guard digits() > 0 else { throw error("digits were expected") }
      }
      if take("e") || take("E") {
        isInteger = false
        if !take("+") { _ = take("-") }
        guard digits() > 0 else { throw error("digits were expected") }
      }
      let text = String(decoding: bytes[start..<at], as: UTF8.self)
      if isInteger {
        if let value = Int64(text) { return .int(value) }
        if let value = UInt64(text) { return .uint(value) }
      }
      guard let value = Double(text), value.isFinite else { throw error("the number is too large") }
      return .double(value)
    }

    mutating func string() throws(ControlSyntaxError) -> String {
      at += 1
      var text: [UInt8] = []
      while true {
        guard let byte = next else { throw error("the text ends inside quotes") }
        at += 1
        switch byte {
        case UInt8(ascii: "\""):
          guard let string = String(validating: text, as: UTF8.self) else { throw error("not UTF-8") }
          return string
        case UInt8(ascii: "\\"): text += try escape()
        case 0..<0x20: throw error("a control character inside quotes")
        default: text.append(byte)
        }
      }
    }

    mutating func escape() throws(ControlSyntaxError) -> [UInt8] {
      guard let byte = next else { throw error("the text ends inside quotes") }
      at += 1
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
      case UInt8(ascii: "b"): return [0x08]
      case UInt8(ascii: "f"): return [0x0c]
      case UInt8(ascii: "n"): return [0x0a]
      case UInt8(ascii: "r"): return [0x0d]
      case UInt8(ascii: "t"): return [0x09]
      case UInt8(ascii: "u"):
        var code = try fourDigits()
        if (0xd800..<0xdc00).contains(code), take("\\"), take("u") {
          let low = try fourDigits()
          guard (0xdc00..<0xe000).contains(low) else { throw error("half of a surrogate pair") }
          code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00)
        }
        guard let scalar = Unicode.Scalar(code) else { throw error("half of a surrogate pair") }
        return Array(String(Character(scalar)).utf8)
      default: throw error("no such escape")
      }
    }

    mutating func fourDigits() throws(ControlSyntaxError) -> UInt32 {
      var code: UInt32 = 0
      for _ in 0..<4 {
        guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
          throw error("four hexadecimal digits were expected")
        }
        code = code << 4 | UInt32(digit)
        at += 1
      }
      return code
    }
  }
}
