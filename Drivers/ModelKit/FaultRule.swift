// Which frames a wire harms, and how: `drop=5,7`, `duplicate=every:10`, `corrupt=p:0.01`, `delay=3:2ms`.

/// One kind of harm to the frames that a selector names.
public struct WireFault: Equatable, Sendable {
  /// Seen from the card.
  public enum Direction: Sendable { case arriving, leaving }

  public enum Kind: Equatable, Sendable {
    case drop
    /// So many more copies follow at once.
    case duplicate(copies: Int)
    /// The frame is held until so many others have passed it, or for a millisecond.
    case reorder(by: Int)
    /// A bit is changed. With `marked`, the check sequence is wrong too, and whoever receives the
    /// frame discards it; otherwise the damage looks whole.
    case corrupt(marked: Bool)
    /// The frame arrives so many nanoseconds late; others pass it.
    case delay(UInt64)
    /// From this frame on, the wire stands still for so many nanoseconds.
    case stall(UInt64)
    /// The card's transmitter hangs when it has sent this frame.
    case hang
  }

  /// Frames, counted from 1 in each direction.
  public enum Selector: Equatable, Sendable {
    case numbers([ClosedRange<UInt64>])
    case every(UInt64)
    case probability(Double)
  }

  public var direction: Direction
  public var kind: Kind
  public var selector: Selector

  public init(_ kind: Kind, _ selector: Selector, direction: Direction = .arriving) {
    self.kind = kind
    self.selector = selector
    self.direction = direction
  }

  static let example = "drop=5,7 or tx.corrupt=every:10:silent or delay=p:0.01:2ms"

  /// `[rx.|tx.]KIND=WHICH[:HOW]`.
  ///
  /// - KIND and HOW: `drop`; `duplicate` (copies, default 1); `reorder` (frames that pass, default 1);
  ///   `corrupt` (`crc`, the default, or `silent`); `delay` and `stall` (time: 5us, 2ms, 1s); `hang`.
  /// - WHICH: numbers and ranges (`5,7,10-20`), `every:N`, `p:FRACTION`.
  /// - `rx.` (the default) are frames that arrive at the card, `tx.` those that it sends; `hang` is
  ///   always of the latter.
  public init(parsing text: String) throws(WireError) {
    func wrong(_ reason: String) -> WireError { .specification(text, wrong: reason, example: WireFault.example) }
    let halves = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    guard halves.count == 2, !halves[1].isEmpty else { throw wrong("a fault is KIND=WHICH") }
    var name = halves[0]
    direction = .arriving
    if name.hasPrefix("tx.") { direction = .leaving }
    if name.hasPrefix("tx.") || name.hasPrefix("rx.") { name = name.dropFirst(3) }
    var parts = halves[1].split(separator: ":", omittingEmptySubsequences: false)
    selector = try WireFault.selector(&parts, wrong)
    guard parts.count <= 1 else { throw wrong("there is one ':' too many") }
    kind = try WireFault.kind(name, parts.first, wrong)
    if kind == .hang { direction = .leaving }
  }

  /// Takes what says WHICH off the front of `parts`.
  private static func selector(
    _ parts: inout [Substring], _ wrong: (String) -> WireError
  ) throws(WireError) -> Selector {
    let first = parts.removeFirst()
    guard first == "every" || first == "p" else {
      guard let ranges = ranges(first) else { throw wrong("'\(first)' are no frame numbers (they start at 1)") }
      return .numbers(ranges)
    }
    let value = parts.isEmpty ? "" : parts.removeFirst()
    if first == "every" {
      guard let step = WireAmount.count(value), step > 0 else { throw wrong("every:N wants a number above 0") }
      return .every(step)
    }
    guard let chance = Double(value), (0...1).contains(chance) else { throw wrong("p:FRACTION wants a number from 0 to 1") }
    return .probability(chance)
  }

  private static func kind(
    _ name: Substring, _ how: Substring?, _ wrong: (String) -> WireError
  ) throws(WireError) -> Kind {
    func count() throws(WireError) -> Int {
      guard let how else { return 1 }
      guard let value = WireAmount.count(how), (1...1024).contains(value) else { throw wrong("'\(how)' is no number from 1 to 1024") }
      return Int(value)
    }
    func time() throws(WireError) -> UInt64 {
      guard let how, let value = WireAmount.nanoseconds(how) else { throw wrong("a time is missing, such as :2ms") }
      return value
    }
    switch name {
    case "drop", "hang":
      if let how { throw wrong("'\(name)' takes no ':\(how)'") }
      return name == "drop" ? .drop : .hang
    case "duplicate": return .duplicate(copies: try count())
    case "reorder": return .reorder(by: try count())
    case "corrupt":
      guard how == nil || how == "crc" || how == "silent" else { throw wrong("corrupt takes crc or silent") }
      return .corrupt(marked: how != "silent")
    case "delay": return .delay(try time())
    case "stall": return .stall(try time())
    default: throw wrong("'\(name)' is none of drop, duplicate, reorder, corrupt, delay, stall, hang")
    }
  }

  private static func ranges(_ text: Substring) -> [ClosedRange<UInt64>]? {
    var found: [ClosedRange<UInt64>] = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { WireAmount.count($0) }
      guard (1...2).contains(ends.count), let low = ends[0], let high = ends[ends.count - 1], low >= 1, low <= high else { return nil }
      found.append(low...high)
    }
    return found
  }
}

/// Numbers as people write them.
enum WireAmount {
  /// "1000", "64k", "1M", "2G": powers of ten.
  static func count(_ text: some StringProtocol) -> UInt64? {
    var digits = text[...]
    var unit: UInt64 = 1
    switch digits.last {
    case "k": unit = 1000
    case "M": unit = 1_000_000
    case "G": unit = 1_000_000_000
    default: break
    }
    if unit > 1 { digits = digits.dropLast() }
    guard !digits.isEmpty, digits.utf8.allSatisfy({ (48...57).contains($0) }), let value = UInt64(digits) else { return nil }
    let (product, overflow) = value.multipliedReportingOverflow(by: unit)
    return overflow ? nil : product
  }

  /// "500ns", "5us", "2ms", "1s".
  static func nanoseconds(_ text: some StringProtocol) -> UInt64? {
    for (suffix, unit) in [("ns", 1), ("us", 1000), ("ms", 1_000_000), ("s", 1_000_000_000)] as [(String, UInt64)]
    where text.hasSuffix(suffix) {
      guard let value = count(text.dropLast(suffix.count)) else { return nil }
      let (product, overflow) = value.multipliedReportingOverflow(by: unit)
      return overflow ? nil : product
    }
    return nil
  }
}
