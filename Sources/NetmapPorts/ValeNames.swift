// Names of switches' ports.

internal import NetmapAPI

/// "vale0:a": a switch and a port of it.
struct ValeName: Equatable, Sendable {
  /// What all names of switches start with.
  static let prefix = "vale"
  /// Bytes of an interface's name, with the final NUL (IFNAMSIZ).
  static let nameSize = 16
  /// "vale0".
  let vale: String
  /// "a", or an interface's.
  let port: String

  static func isSwitch(_ name: String) -> Bool { name.hasPrefix(prefix) }

  /// - Throws: EINVAL for a name that is no switch's port.
  init(_ name: String) throws(NetmapError) {
    guard Self.isSwitch(name), let colon = name.utf8.firstIndex(of: UInt8(ascii: ":")) else {
      throw NetmapError(.EINVAL, "\(name) is no switch's port; write it as vale0:NAME")
    }
    vale = String(name[..<colon])
    port = String(name[name.utf8.index(after: colon)...])
    guard vale.utf8.count < Self.nameSize, vale.utf8.allSatisfy(Self.isPlain) else {
      throw NetmapError(.EINVAL, "\(name): a switch's name has letters, digits and _ only, and at most \(Self.nameSize - 1) of them")
    }
    guard !port.isEmpty, port.utf8.count < Self.nameSize else {
      throw NetmapError(.EINVAL, "\(name): a port's name has 1 to \(Self.nameSize - 1) characters")
    }
  }

  private static func isPlain(_ c: UInt8) -> Bool {
    switch c {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
      UInt8(ascii: "_"):
      true
    default: false
    }
  }
}
