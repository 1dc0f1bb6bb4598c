// Figures for people.

/// Packets and bytes at one moment; two of them make a rate.
struct Totals: Equatable {
  var packets: UInt64 = 0
  var bytes: UInt64 = 0
}

/// What was moved in some time.
struct Rate: Equatable {
  let packetsPerSecond: Double
  /// Of frames without preamble, check sequence and gap.
  let bitsPerSecond: Double

  init(_ totals: Totals, since last: Totals = Totals(), seconds: Double) {
    let time = seconds > 0 ? seconds : 1
    packetsPerSecond = Double(totals.packets &- last.packets) / time
    bitsPerSecond = Double(totals.bytes &- last.bytes) * 8 / time
  }

  var text: String { "\(Figure.scaled(packetsPerSecond))pps \(Figure.scaled(bitsPerSecond))b/s" }
}

/// Second by second.
struct RateMeter {
  private var last = Totals()
  private var lastSeconds = 0.0

  /// The rate since the last call.
  mutating func next(_ totals: Totals, at seconds: Double) -> Rate {
    defer {
      last = totals
      lastSeconds = seconds
    }
    return Rate(totals, since: last, seconds: seconds - lastSeconds)
  }
}

enum Figure {
  /// "1.23 M", "999 ", "0 ": three digits and a decimal unit.
  static func scaled(_ value: Double) -> String {
    var value = value
    for unit in ["", "k", "M", "G"] {
      if value < 999.5 { return "\(digits(value)) \(unit)" }
      value /= 1000
    }
    return "\(digits(value)) T"
  }

  private static func digits(_ value: Double) -> String {
    if value >= 99.95 || value == value.rounded() { return String(Int(value.rounded())) }
    let places = value >= 9.995 ? 10.0 : 100.0
    let scaled = Int((value * places).rounded())
    let fraction = String(scaled % Int(places))
    return "\(scaled / Int(places)).\(String(repeating: "0", count: (places == 10 ? 1 : 2) - fraction.count))\(fraction)"
  }

  /// "1,234,567".
  static func grouped(_ value: UInt64) -> String {
    var text = ""
    for (index, digit) in String(value).reversed().enumerated() {
      if index > 0 && index % 3 == 0 { text.append(",") }
      text.append(digit)
    }
    return String(text.reversed())
  }

  /// "12.3 s" with one digit behind the point.
  static func seconds(_ value: Double) -> String {
    let tenths = Int((value * 10).rounded())
    return "\(tenths / 10).\(tenths % 10) s"
  }
}
