// Control: the control socket's messages, as codecs: no sockets, no stack.
//
//     ringway ifconfig em0          {"id":1,"call":"interface.get","arguments":{"interface":"em0"}}
//        │  one JSON object a line   ────────────────────────────────────────────────>  ringwayd
//        │  <────────────────────────────────────────────────────────────────────────
//        │                          {"id":1,"result":{"name":"em0", …}}
//        │                          {"id":1,"error":{"errno":"ENXIO","message":"there is no …"}}
//        └─ after "subscribe":      {"subscription":3,"event":{…}}
//
// - `ControlValue` is JSON (RFC 8259) with bounds: bytes, depth, members. Wrong bytes are errors, never traps.
// - `ControlCoder` turns a `Codable` structure into a value and back; requests and replies are such structures.
// - `ControlMessage` is the envelope, `ControlLines` cuts a byte stream into lines.
// - Each request is a type (`ControlRequest`) that names its reply's type.
//
// Invariants
// - The first call is `hello`: it agrees on a version. Members are added, never given another meaning; a new
//   member is optional, and a reader skips what it does not know.
// - A long reply comes in parts: all but the last carry `"more":true`.

/// Constants of the protocol.
public enum Control {
  /// Versions this code speaks, best first.
  public static let versions = [1]
  /// Where the daemon listens when nothing else is said.
  public static let defaultPath = "/run/ringway/control"
  /// Bytes of one message to the daemon.
  public static let requestLimit = 256 << 10
  /// Bytes of one message from the daemon.
  public static let replyLimit = 8 << 20
  /// Elements of a list that one part of a reply holds.
  public static let listPart = 2000

  /// The best version that both sides speak; nil: none.
  public static func agree(_ offered: [Int]) -> Int? { versions.first { offered.contains($0) } }
}

/// A request, and what answers it.
public protocol ControlRequest: Codable, Sendable {
  associatedtype Reply: Codable & Sendable
  /// As in "interface.get".
  static var call: String { get }
  /// Refused with EPERM unless the peer is root or in the configured group. Where an operation checks other
  /// things first (a missing interface is ENXIO before EPERM), this is false and the handler asks.
  static var needsPrivilege: Bool { get }
}

extension ControlRequest {
  public static var needsPrivilege: Bool { false }
}

/// A reply without content.
public struct ControlDone: Codable, Sendable, Equatable {
  public init() {}
}

/// A refusal: an errno and a sentence that says what failed, on what, and what to do next.
public struct ControlError: Error, Codable, Sendable, Equatable, CustomStringConvertible {
  /// The errno's name: "ENXIO".
  public var errno: String
  public var message: String
  public init(_ errno: String, _ message: String) {
    self.errno = errno
    self.message = message
  }
  public var description: String { "\(message) (\(errno))" }
}
