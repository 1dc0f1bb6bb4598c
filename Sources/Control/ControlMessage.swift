// The envelope of every message, and lines out of a stream of bytes.

/// One message of either side.
public enum ControlMessage: Sendable, Equatable {
  /// To the daemon. `id` is the caller's own; the reply carries it.
  case call(id: UInt64, name: String, arguments: ControlValue)
  /// An answer, or a part of one (`more`).
  case result(id: UInt64, ControlValue, more: Bool)
  case failure(id: UInt64, ControlError)
  /// Of a subscription, at any time after the reply that named it.
  case event(subscription: UInt64, ControlValue)

  public var value: ControlValue {
    switch self {
    case .call(let id, let name, let arguments):
      return .object([.init("id", ControlValue(id)), .init("call", .string(name)), .init("arguments", arguments)])
    case .result(let id, let value, let more):
      var members = [ControlValue.Member("id", ControlValue(id)), .init("result", value)]
      if more { members.append(.init("more", .bool(true))) }
      return .object(members)
    case .failure(let id, let error):
      return .object([
        .init("id", ControlValue(id)),
        .init("error", .object([.init("errno", .string(error.errno)), .init("message", .string(error.message))])),
      ])
    case .event(let subscription, let value):
      return .object([.init("subscription", ControlValue(subscription)), .init("event", value)])
    }
  }

  /// The message as a line, with its end.
  public var line: [UInt8] { value.json + [0x0a] }

  /// Reads a line. EBADMSG when it is no message; the sentence says what is wrong with it.
  public init(line: some Collection<UInt8>, limits: ControlLimits = ControlLimits()) throws(ControlError) {
    let value: ControlValue
    do { value = try ControlValue(json: line, limits: limits) } catch { throw ControlError("EBADMSG", "\(error)") }
    if let subscription = value["subscription"]?.number, let event = value["event"] {
      self = .event(subscription: subscription, event)
      return
    }
    guard let id = value["id"]?.number else {
      throw ControlError("EBADMSG", "the message has no \"id\" (a number from 0).")
    }
    if let name = value["call"]?.text {
      self = .call(id: id, name: name, arguments: value["arguments"] ?? .object([]))
    } else if let result = value["result"] {
      self = .result(id: id, result, more: value["more"] == .bool(true))
    } else if let error = value["error"], let errno = error["errno"]?.text, let text = error["message"]?.text {
      self = .failure(id: id, ControlError(errno, text))
    } else {
      throw ControlError("EBADMSG", "the message has neither \"call\" nor \"result\" nor \"error\".")
    }
  }
}

/// Cuts a stream of bytes into lines of bounded length.
public struct ControlLines: Sendable {
  private var bytes: [UInt8] = []
  private var start = 0
  private var scanned = 0
  public let limit: Int

  /// - Parameter limit: bytes of a line, its end not counted.
  public init(limit: Int) { self.limit = limit }

  /// Bytes that wait for their line's end.
  public var pending: Int { bytes.count - start }

  public mutating func append(_ more: some Sequence<UInt8>) { bytes += more }

  /// The next whole line without its end; nil until more has come. EMSGSIZE for one that is too long: what follows
  /// cannot be told apart then, and the connection ends.
  public mutating func next() throws(ControlError) -> [UInt8]? {
    while scanned < bytes.count {
      if bytes[scanned] == 0x0a {
        let line = Array(bytes[start..<scanned])
        scanned += 1
        start = scanned
        if start == bytes.count {
          bytes.removeAll(keepingCapacity: bytes.capacity <= 1 << 16)
          (start, scanned) = (0, 0)
        }
        if line.count > limit { throw tooLong }
        return line
      }
      scanned += 1
    }
    if bytes.count - start > limit { throw tooLong }
    if start > 0 {
      bytes.removeFirst(start)
      scanned -= start
      start = 0
    }
    return nil
  }

  private var tooLong: ControlError { ControlError("EMSGSIZE", "a message is longer than \(limit) bytes.") }
}
