// Lines of `word key=value …` into words that know where they stood.

/// A mistake in a file, where it is, and what to do about it.
public struct ConfigurationError: Error, Equatable, Sendable {
  /// From 1.
  public let line: Int
  /// Characters from the start of the line, from 1; a tab counts as one.
  public let column: Int
  public let message: String

  init(_ line: Int, _ column: Int, _ message: String) {
    self.line = line
    self.column = column
    self.message = message
  }
}

/// All mistakes in one file.
public struct ConfigurationErrors: Error, Equatable, Sendable, CustomStringConvertible {
  public let file: String
  public let errors: [ConfigurationError]

  /// "hugepages.conf:3:7: `cuont` is no key of `pages`. …", a line for each.
  public var description: String {
    errors.map { "\(file):\($0.line):\($0.column): \($0.message)" }.joined(separator: "\n")
  }
}

/// Text and its place.
struct Word: Equatable {
  let text: String
  let line: Int
  let column: Int

  func error(_ message: String) -> ConfigurationError { ConfigurationError(line, column, message) }
}

/// One line: what it is about, and its keys with their values.
struct Directive {
  let word: Word
  var keys: [Word] = []
  var values: [String: Word] = [:]

  func check(keys allowed: [String], required: [String]) throws(ConfigurationError) {
    for key in keys where !allowed.contains(key.text) {
      throw key.error("`\(key.text)` is no key of `\(word.text)`. Its keys are \(allowed.joined(separator: ", ")).")
    }
    for key in required where values[key] == nil {
      throw word.error("`\(word.text)` needs `\(key)`. Add \(key)=… to the line.")
    }
  }
}

/// Reads a line byte by byte; knows nothing of what the words mean.
struct ConfigurationLexer {
  private let scalars: [Unicode.Scalar]
  private let line: Int
  private var at = 0

  /// - Parameter names: the directives there are; others are refused before the rest is read.
  /// - Returns: nil for a line that is empty or a comment.
  static func directive(_ bytes: ArraySlice<UInt8>, number: Int, names: [String]) throws(ConfigurationError) -> Directive? {
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw ConfigurationError(number, 1, "the line is not valid UTF-8. Save the file as UTF-8 text.")
    }
    var lexer = ConfigurationLexer(text, line: number)
    return try lexer.read(names)
  }

  private init(_ text: String, line: Int) {
    var scalars = Array(text.unicodeScalars)
    if scalars.last == "\r" { scalars.removeLast() }
    self.scalars = scalars
    self.line = line
  }

  private mutating func read(_ names: [String]) throws(ConfigurationError) -> Directive? {
    try skipBlanks()
    guard let word = try bareWord(until: []) else { return nil }
    guard names.contains(word.text) else {
      let list = names.map { "`\($0)`" }.joined(separator: " or ")
      throw word.error("`\(word.text)` is no directive. Lines start with \(list).")
    }
    var directive = Directive(word: word)
    while true {
      try skipBlanks()
      guard let key = try bareWord(until: ["="]) else {
        if at < scalars.count, scalars[at] == "=" { throw error("a key is missing before `=`. Write key=value.") }
        return directive
      }
      guard at < scalars.count, scalars[at] == "=" else {
        throw key.error("`\(key.text)` has no value. Write \(key.text)=value, without blanks around `=`.")
      }
      at += 1
      let value = try value(of: key)
      guard directive.values[key.text] == nil else {
        throw key.error("`\(key.text)` is given twice. Keep one of them.")
      }
      directive.keys.append(key)
      directive.values[key.text] = value
    }
  }

  private func error(_ message: String) -> ConfigurationError { ConfigurationError(line, at + 1, message) }

  private func isBlank(_ scalar: Unicode.Scalar) -> Bool { scalar == " " || scalar == "\t" }

  /// Passes over blanks, and over a comment to the end of the line.
  private mutating func skipBlanks() throws(ConfigurationError) {
    while at < scalars.count, isBlank(scalars[at]) { at += 1 }
    if at < scalars.count, scalars[at] == "#" { at = scalars.count }
  }

  /// Characters up to a blank, a comment or one of `ends`; nil when there are none.
  private mutating func bareWord(until ends: [Unicode.Scalar]) throws(ConfigurationError) -> Word? {
    let start = at
    while at < scalars.count, !isBlank(scalars[at]), scalars[at] != "#", !ends.contains(scalars[at]) {
      try refuseControl()
      if scalars[at] == "\"" { throw error("a quotation mark stands where none may. Quote whole values only: path=\"/a b\".") }
      at += 1
    }
    return at == start ? nil : word(from: start, to: at)
  }

  private mutating func value(of key: Word) throws(ConfigurationError) -> Word {
    guard at < scalars.count, scalars[at] == "\"" else {
      guard let word = try bareWord(until: []) else {
        throw error("`\(key.text)=` has no value. Write it right after the `=`.")
      }
      return word
    }
    let start = at
    at += 1
    var text = String.UnicodeScalarView()
    while at < scalars.count, scalars[at] != "\"" {
      try refuseControl()
      if scalars[at] == "\\" {
        at += 1
        guard at < scalars.count, scalars[at] == "\"" || scalars[at] == "\\" else {
          throw error("only \\\" and \\\\ may follow a backslash in quotes. Double the backslash to mean itself.")
        }
      }
      text.append(scalars[at])
      at += 1
    }
    guard at < scalars.count else {
      throw ConfigurationError(line, start + 1, "the quotation mark is never closed. Close it on the same line.")
    }
    at += 1
    if at < scalars.count, !isBlank(scalars[at]), scalars[at] != "#" {
      throw error("a quoted value goes on after its end. Put a blank between the two.")
    }
    return Word(text: String(text), line: line, column: start + 1)
  }

  /// Control characters would end up in paths and on terminals.
  private func refuseControl() throws(ConfigurationError) {
    let value = scalars[at].value
    if value < 0x20 || (0x7f...0x9f).contains(value) || (0x2028...0x2029).contains(value) {
      throw error("a control character (0x\(String(value, radix: 16))) stands in the line. Remove it.")
    }
  }

  private func word(from start: Int, to end: Int) -> Word {
    var text = String.UnicodeScalarView()
    text.append(contentsOf: scalars[start..<end])
    return Word(text: String(text), line: line, column: start + 1)
  }
}
