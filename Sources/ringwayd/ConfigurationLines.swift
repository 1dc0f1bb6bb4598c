// Where a key stands in the file, and what was meant by one that does not exist. The TOML reader knows neither.

/// Lines of keys: "card[1].addresses" -> 12. A plain look at the text, good enough to point at it.
struct ConfigurationLines {
  private var lines: [String: Int] = [:]

  init(_ text: String) {
    var path = ""
    var counts: [String: Int] = [:]
    for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
      let line = Self.trimmed(line)
      if line.hasPrefix("[["), let end = line.firstRange(of: "]]") {
        let name = Self.unquoted(line[line.index(line.startIndex, offsetBy: 2)..<end.lowerBound])
        let index = counts[name, default: 0]
        counts[name] = index + 1
        path = "\(name)[\(index)]"
        lines[path] = number + 1
      } else if line.hasPrefix("["), let end = line.firstIndex(of: "]") {
        path = Self.unquoted(line[line.index(after: line.startIndex)..<end])
        lines[path] = number + 1
      } else if !line.hasPrefix("#"), let equals = line.firstIndex(of: "=") {
        let key = Self.unquoted(line[..<equals])
        let full = path.isEmpty ? key : "\(path).\(key)"
        if lines[full] == nil { lines[full] = number + 1 }
      }
    }
  }

  /// The key's line, or its table's.
  subscript(path: String) -> Int? {
    if let line = lines[path] { return line }
    guard let dot = path.lastIndex(of: ".") else { return nil }
    return self[String(path[..<dot])]
  }

  private static func trimmed(_ text: Substring) -> Substring {
    var text = text
    while let first = text.first, first.isWhitespace { text.removeFirst() }
    while let last = text.last, last.isWhitespace { text.removeLast() }
    return text
  }

  private static func unquoted(_ text: Substring) -> String {
    String(trimmed(text)).split(separator: ".", omittingEmptySubsequences: false)
      .map { trimmed($0) }.joined(separator: ".").filter { $0 != "\"" && $0 != "'" }
  }
}

enum Suggestion {
  /// The candidate that is nearest to a mistyped word; nil when none is near.
  static func nearest(to word: String, in candidates: some Sequence<String>) -> String? {
    let best = candidates.map { ($0, distance(word, $0)) }.min { ($0.1, $0.0) < ($1.1, $1.0) }
    guard let best, best.1 <= max(1, word.count / 3) else { return nil }
    return best.0
  }

  /// Insertions, deletions and exchanges of one letter (Levenshtein's), of words up to 64 letters.
  static func distance(_ a: String, _ b: String) -> Int {
    let (a, b) = (Array(a.utf8.prefix(64)), Array(b.utf8.prefix(64)))
    var row = Array(0...b.count)
    for i in a.indices {
      var corner = row[0]
      row[0] = i + 1
      for j in b.indices {
        let next = min(row[j] + 1, row[j + 1] + 1, corner + (a[i] == b[j] ? 0 : 1))
        corner = row[j + 1]
        row[j + 1] = next
      }
    }
    return row[b.count]
  }
}
