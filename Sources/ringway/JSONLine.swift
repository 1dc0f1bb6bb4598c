// JSON on one line. FoundationEssentials alone: all of Foundation would bring its tables of languages
// (45 MB in a static binary), and a class `Port` of its own.

import FoundationEssentials

/// One line of JSON with sorted keys.
func jsonLine(_ value: some Encodable) -> String {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  guard let data = try? encoder.encode(value) else { return "{}" }
  return String(decoding: data, as: UTF8.self)
}
