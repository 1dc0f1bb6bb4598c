// One table of the file, key by key. What nobody asked for at the end is unknown.

import Control

/// What has been found wrong, with where it stands.
final class ConfigurationReport {
  let file: String
  let lines: ConfigurationLines
  private(set) var problems: [ConfigurationProblem] = []
  init(file: String, text: String) {
    self.file = file
    lines = ConfigurationLines(text)
  }
  func add(_ path: String, _ problem: String) {
    problems.append(ConfigurationProblem(file: file, line: lines[path], key: path, problem: problem))
  }
}

/// A table that is being read.
final class ConfigurationTable {
  let path: String
  let report: ConfigurationReport
  private var members: [String: ControlValue] = [:]
  private var asked: [String] = []

  init(_ value: ControlValue, path: String, report: ConfigurationReport) {
    (self.path, self.report) = (path, report)
    if value.members == nil { report.add(path, "a table was expected") }
    for member in value.members ?? [] { members[member.name] = member.value }
  }

  func full(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

  private func take(_ key: String) -> ControlValue? {
    asked.append(key)
    return members.removeValue(forKey: key)
  }
  private func wrong<T>(_ key: String, _ expected: String) -> T? {
    report.add(full(key), "\(expected) was expected")
    return nil
  }

  func string(_ key: String) -> String? {
    guard let value = take(key) else { return nil }
    return value.text ?? wrong(key, "a text in quotes")
  }
  /// A text that must be there.
  func required(_ key: String) -> String {
    guard members[key] != nil else {
      asked.append(key)
      report.add(full(key), "is missing")
      return ""
    }
    return string(key) ?? ""
  }
  func string(_ key: String, oneOf words: [String]) -> String? {
    guard let text = string(key) else { return nil }
    if words.contains(text) { return text }
    let near = Suggestion.nearest(to: text, in: words).map { ". Did you mean \"\($0)\"?" } ?? ""
    report.add(full(key), "\"\(text)\" is none of \(words.joined(separator: ", "))\(near)")
    return nil
  }
  func bool(_ key: String) -> Bool? {
    guard let value = take(key) else { return nil }
    guard case .bool(let flag) = value else { return wrong(key, "true or false") }
    return flag
  }
  func int(_ key: String, _ range: ClosedRange<Int>) -> Int? {
    guard let value = take(key) else { return nil }
    guard case .int(let number) = value, let number = Int(exactly: number), range.contains(number) else {
      return wrong(key, "a whole number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }
  func seconds(_ key: String, _ range: ClosedRange<Double>) -> Double? {
    let number: Double? = switch take(key) {
    case nil: nil
    case .int(let value): Double(value)
    case .double(let value): value
    default: -1
    }
    guard let number else { return nil }
    return range.contains(number) ? number : wrong(key, "a number of seconds from \(range.lowerBound) to \(range.upperBound)")
  }
  /// 2097152, or "2M": K, M, G mean powers of 1024.
  func bytes(_ key: String, _ range: ClosedRange<Int>) -> Int? {
    var number: Int?
    switch take(key) {
    case nil: return nil
    case .int(let value): number = Int(exactly: value)
    case .string(let text):
      let units: [Character: Int] = ["K": 10, "M": 20, "G": 30]
      let shift = text.last.flatMap { units[$0] }
      number = Int(shift == nil ? text[...] : text.dropLast()).flatMap { value in
        let (product, overflow) = value.multipliedReportingOverflow(by: 1 << (shift ?? 0))
        return overflow ? nil : product
      }
    default: break
    }
    guard let number, range.contains(number) else {
      return wrong(key, "a number of bytes from \(range.lowerBound) to \(range.upperBound), such as 4096 or \"2M\",")
    }
    return number
  }
  func strings(_ key: String) -> [String]? {
    guard let value = take(key) else { return nil }
    guard let elements = value.elements, elements.allSatisfy({ $0.text != nil }) else { return wrong(key, "a list of texts") }
    return elements.compactMap(\.text)
  }
  /// A text, a number, a truth value or a list of texts, as text.
  func anything(_ key: String) -> String? {
    guard let value = take(key) else { return nil }
    switch value {
    case .string(let text): return text
    case .int(let number): return String(number)
    case .bool(let flag): return flag ? "1" : "0"
    case .array(let elements) where elements.allSatisfy({ $0.text != nil }):
      return elements.compactMap(\.text).joined(separator: ",")
    default: return wrong(key, "a text, a number or a list of texts")
    }
  }
  /// A table below this one.
  func table(_ key: String) -> ConfigurationTable? {
    take(key).map { ConfigurationTable($0, path: full(key), report: report) }
  }
  /// The tables of a [[list]].
  func tables(_ key: String) -> [ConfigurationTable] {
    guard let value = take(key) else { return [] }
    guard let elements = value.elements else {
      report.add(full(key), "write it as [[\(full(key))]]: there may be several")
      return []
    }
    return elements.enumerated().map { ConfigurationTable($1, path: "\(full(key))[\($0)]", report: report) }
  }
  /// Everything that is left, tables inside tables by dotted names.
  func rest() -> [String: String] {
    var found: [String: String] = [:]
    func flatten(_ value: ControlValue, _ name: String) {
      if let below = value.members { return below.forEach { flatten($0.value, name.isEmpty ? $0.name : "\(name).\($0.name)") } }
      switch value {
      case .string(let text): found[name] = text
      case .int(let number): found[name] = String(number)
      case .bool(let flag): found[name] = flag ? "1" : "0"
      default: report.add(full(name), "a text, a number, true or false was expected")
      }
    }
    for (name, value) in members { flatten(value, name) }
    members = [:]
    return found
  }

  /// Complains about what nobody asked for.
  func finish() {
    for key in members.keys.sorted() {
      let near = Suggestion.nearest(to: key, in: asked).map { ". Did you mean \"\($0)\"?" } ?? ". Possible here: \(asked.joined(separator: ", "))"
      report.add(full(key), "unknown key\(near)")
    }
  }
}
