// hugepages.conf: which hugepages to reserve, and where to mount them. hugepages.conf(5) is the
// manual page of the grammar below.
//
//   file      = { line }            line    = [ directive ] [ "#" anything ] newline
//   directive = word { key "=" value }
//   pages  size=2M count=256 node=any|each|NUMBER
//   mount  size=2M path=/dev/hugepages-2M group=ringway mode=0770
//
// Reading has two steps: words with their places (`ConfigurationLexer`), then meaning, here. Each
// line gives at most one error, and reading goes on behind it: a person sees all of them at once.

/// What hugepages.conf says.
public struct HugepagesConfiguration: Equatable, Sendable {
  /// The nodes a reservation is for.
  public enum Nodes: Equatable, Hashable, Sendable {
    /// The kernel spreads the pages over the nodes as it likes.
    case any
    /// So many on each node that has memory.
    case each
    case node(Int)
  }

  /// A `pages` line.
  public struct Reservation: Equatable, Sendable {
    /// Bytes a page.
    public var pageSize: Int
    public var count: Int
    public var nodes: Nodes
    /// Line in the file, from 1.
    public var line: Int
  }

  /// A `mount` line.
  public struct Mount: Equatable, Sendable {
    /// Bytes a page.
    public var pageSize: Int
    public var path: String
    /// Group name or number that may use the mount, or nil for root's.
    public var group: String?
    /// Permission bits of the mounted directory.
    public var mode: UInt32
    public var line: Int
  }

  public var reservations: [Reservation] = []
  public var mounts: [Mount] = []

  public init() {}

  /// Reads the text of a file.
  /// - Parameter file: its name, for the errors.
  public init(parsing text: some Sequence<UInt8>, file: String = "hugepages.conf") throws(ConfigurationErrors) {
    var errors: [ConfigurationError] = []
    let bytes = Array(text)
    guard bytes.count <= 1 << 16 else {
      throw ConfigurationErrors(file: file, errors: [ConfigurationError(1, 1, "the file is longer than 64 KiB. Use one line for each page size and node.")])
    }
    for (index, line) in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
      do throws(ConfigurationError) {
        guard let directive = try ConfigurationLexer.directive(line, number: index + 1, names: ["pages", "mount"]) else { continue }
        try add(directive)
      } catch {
        errors.append(error)
      }
    }
    if !errors.isEmpty { throw ConfigurationErrors(file: file, errors: errors) }
  }

  private mutating func add(_ directive: Directive) throws(ConfigurationError) {
    if directive.word.text == "pages" {
      try addReservation(directive)
    } else {
      try addMount(directive)
    }
  }

  private mutating func addReservation(_ directive: Directive) throws(ConfigurationError) {
    try directive.check(keys: ["size", "count", "node"], required: ["size", "count"])
    let size = try Self.pageSize(directive.values["size"]!)
    let count = try Self.count(directive.values["count"]!)
    let nodes = try directive.values["node"].map(Self.nodes) ?? .any
    for other in reservations where other.pageSize == size {
      if other.nodes == nodes {
        throw directive.word.error("pages of this size and node are reserved in line \(other.line) already. Keep one of the two lines.")
      }
      if case .node = nodes, case .node = other.nodes { continue }
      throw directive.word.error(
        "line \(other.line) reserves pages of this size for other nodes. Use either one line with node=any or node=each, or a line for each node number.")
    }
    reservations.append(Reservation(pageSize: size, count: count, nodes: nodes, line: directive.word.line))
  }

  private mutating func addMount(_ directive: Directive) throws(ConfigurationError) {
    try directive.check(keys: ["size", "path", "group", "mode"], required: ["size", "path"])
    let size = try Self.pageSize(directive.values["size"]!)
    let path = try Self.path(directive.values["path"]!)
    let group = try directive.values["group"].map(Self.group)
    let mode = try directive.values["mode"].map(Self.mode) ?? 0o770
    if let other = mounts.first(where: { $0.path == path }) {
      throw directive.word.error("line \(other.line) mounts on \(path) already. Use another path.")
    }
    mounts.append(Mount(pageSize: size, path: path, group: group, mode: mode, line: directive.word.line))
  }
}

extension HugepagesConfiguration {
  /// "2M", "1G", "64K", "16384": bytes, a power of two.
  static func pageSize(_ value: Word) throws(ConfigurationError) -> Int {
    var digits = Substring(value.text)
    let shift: Int
    switch digits.last {
    case "K", "k": shift = 10
    case "M", "m": shift = 20
    case "G", "g": shift = 30
    default: shift = 0
    }
    if shift > 0 { digits = digits.dropLast() }
    guard let number = decimal(digits), number > 0, number <= (1 << 40) >> shift, (number << shift) >= 4096,
      (number << shift) & ((number << shift) - 1) == 0
    else { throw value.error("`\(value.text)` is no page size. Write a power of two with K, M or G, such as 2M.") }
    return number << shift
  }

  static func count(_ value: Word) throws(ConfigurationError) -> Int {
    guard let number = decimal(value.text[...]), number <= 1 << 24 else {
      throw value.error("`\(value.text)` is no number of pages. Write a number from 0 to 16777216.")
    }
    return number
  }

  static func nodes(_ value: Word) throws(ConfigurationError) -> Nodes {
    if value.text == "any" { return .any }
    if value.text == "each" { return .each }
    guard let number = decimal(value.text[...]), number < 1024 else {
      throw value.error("`\(value.text)` is no node. Write any, each, or a node's number below 1024.")
    }
    return .node(number)
  }

  static func path(_ value: Word) throws(ConfigurationError) -> String {
    let parts = value.text.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
    guard value.text.hasPrefix("/"), value.text.utf8.count <= 1024, parts.allSatisfy({ !$0.isEmpty && $0 != "." && $0 != ".." })
    else { throw value.error("`\(value.text)` is no mount point. Write an absolute path without `.`, `..` or empty parts.") }
    return value.text
  }

  static func group(_ value: Word) throws(ConfigurationError) -> String {
    let plain = value.text.utf8.allSatisfy { byte in
      (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
        || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-")
    }
    guard plain, !value.text.isEmpty, !value.text.hasPrefix("-"), value.text.utf8.count <= 32 else {
      throw value.error("`\(value.text)` is no group. Write a group's name or number.")
    }
    return value.text
  }

  static func mode(_ value: Word) throws(ConfigurationError) -> UInt32 {
    guard (3...4).contains(value.text.utf8.count), value.text.utf8.allSatisfy({ (0x30...0x37).contains($0) }),
      let mode = UInt32(value.text, radix: 8), mode <= 0o1777
    else { throw value.error("`\(value.text)` is no mode. Write three or four octal digits, such as 0770.") }
    return mode
  }

  /// Decimal digits and nothing else; nil for anything that Int would overflow on.
  private static func decimal(_ text: Substring) -> Int? {
    guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
    return Int(text)
  }
}
