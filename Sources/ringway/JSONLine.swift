// JSON on one line. Foundation is imported here and not beside ports: it has a class `Port` of its own.

import Foundation

/// One line of JSON with sorted keys.
func jsonLine(_ value: some Encodable) -> String {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  guard let data = try? encoder.encode(value) else { return "{}" }
  return String(decoding: data, as: UTF8.self)
}
