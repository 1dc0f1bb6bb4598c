// Figures, and how they are shown.

import Foundation

/// One measurement.
struct Figure: Codable {
  var section: String
  var name: String
  /// Nanoseconds an operation: each round's.
  var nanoseconds: [Double]
  /// What else was seen: "tail writes a packet": 0.25.
  var extra: [String: Double] = [:]

  var sorted: [Double] { nanoseconds.sorted() }
  var median: Double {
    let sorted = self.sorted
    guard !sorted.isEmpty else { return 0 }
    return sorted.count % 2 == 1 ? sorted[sorted.count / 2] : (sorted[sorted.count / 2 - 1] + sorted[sorted.count / 2]) / 2
  }
}

struct Report: Codable {
  var title: String
  var note: String
  var figures: [Figure] = []
  var remarks: [String] = []

  mutating func add(_ section: String, _ name: String, _ nanoseconds: [Double], _ extra: [String: Double] = [:]) {
    figures.append(Figure(section: section, name: name, nanoseconds: nanoseconds, extra: extra))
    FileHandle.standardError.write(Data("\(section): \(name): \(nanoseconds.map { Self.short($0) }.joined(separator: " ")) ns\n".utf8))
  }

  func json() throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    return String(decoding: try encoder.encode(self), as: UTF8.self)
  }

  static func short(_ value: Double) -> String { String(format: value < 10 ? "%.2f" : value < 100 ? "%.1f" : "%.0f", value) }

  var markdown: String {
    var text = "# \(title)\n\n\(note)\n"
    var sections: [String] = []
    for figure in figures where !sections.contains(figure.section) { sections.append(figure.section) }
    for section in sections {
      let rows = figures.filter { $0.section == section }
      let extras = Set(rows.flatMap { $0.extra.keys }).sorted()
      text += "\n## \(section)\n\n| | ns | lowest to highest | million a second |" + extras.map { " \($0) |" }.joined() + "\n"
      text += "|---|---:|---:|---:|" + extras.map { _ in "---:|" }.joined() + "\n"
      for row in rows {
        text += "| \(row.name) | \(Self.short(row.median)) | \(Self.short(row.sorted.first ?? 0)) to \(Self.short(row.sorted.last ?? 0)) "
        text += "| \(Self.short(row.median > 0 ? 1000 / row.median : 0)) |"
        text += extras.map { key in " \(row.extra[key].map { Self.short($0) } ?? "") |" }.joined() + "\n"
      }
    }
    for remark in remarks { text += "\n\(remark)\n" }
    return text
  }
}
