// ControlClient: a connection to the daemon, for programs that wait for answers.
//
//     let client = try ControlClient(path: Control.defaultPath, name: "ringway ifconfig")
//     let em0 = try client.call(InterfaceGet("em0"))
//     _ = try client.call(Subscribe([.link]))
//     while let (_, event) = try client.nextEvent() { … }
//
// Invariants
// - One thread uses a client. A call waits for its answer, at most `timeout`; events that come meanwhile are kept.
// - Whatever the daemon sends is checked; what makes no sense ends the connection with an error.

public import Control
internal import CRingway
public import Platform
internal import SystemPackage

/// A connection to the daemon's control socket.
public final class ControlClient {
  /// What the daemon said of itself.
  public private(set) var hello: HelloReply
  /// Nanoseconds that a call waits for its answer.
  public var timeout: UInt64
  /// For poll(2): readable when events or their ends have come.
  public var descriptor: Int32 { socket.descriptor }

  private let socket: LocalSocket
  private var lines = ControlLines(limit: Control.replyLimit)
  private var events: [(subscription: UInt64, event: ControlEvent)] = []
  private var nextID: UInt64 = 1
  private let clock = MonotonicClock()
  private let who: String

  /// Events that are kept while a call waits; more end the connection.
  public static let keptEvents = 65536

  /// Connects and says hello.
  /// - Parameters:
  ///   - path: of the socket, at most 107 bytes.
  ///   - name: who calls, for the daemon's log.
  ///   - timeout: nanoseconds a call may take.
  public convenience init(path: String = Control.defaultPath, name: String, timeout: UInt64 = 10_000_000_000) throws(ControlError) {
    try self.init(taking: try LocalSocket(connecting: path), path: path, name: name, timeout: timeout)
  }

  /// The same over a connected stream socket (socketpair(2)).
  public convenience init(taking descriptor: consuming OwnedDescriptor, name: String, timeout: UInt64 = 10_000_000_000) throws(ControlError) {
    try self.init(taking: LocalSocket(taking: descriptor), path: "a socket", name: name, timeout: timeout)
  }

  private init(taking socket: LocalSocket, path: String, name: String, timeout: UInt64) throws(ControlError) {
    self.socket = socket
    self.timeout = timeout
    who = path
    hello = HelloReply(version: 0, program: "", programVersion: "", calls: [], privileged: false)
    hello = try call(Hello(client: name))
    guard Control.versions.contains(hello.version) else {
      throw ControlError("EPROTONOSUPPORT", "\(path): the daemon speaks version \(hello.version) of the protocol, which this program does not know.")
    }
  }

  /// Asks, and waits for the whole answer.
  public func call<R: ControlRequest>(_ request: R) throws(ControlError) -> R.Reply {
    try ControlCoder.structure(from: try call(R.call, try ControlCoder.value(request)))
  }

  /// The same without types. Parts of a long list are put together.
  public func call(_ name: String, _ arguments: ControlValue) throws(ControlError) -> ControlValue {
    let id = nextID
    nextID &+= 1
    let deadline = clock.now() &+ timeout
    let line = ControlMessage.call(id: id, name: name, arguments: arguments).line
    guard line.count <= Control.requestLimit else { throw ControlError("EMSGSIZE", "the request is longer than \(Control.requestLimit) bytes.") }
    do { try socket.send(line, deadline: deadline) } catch {
      // A daemon that turns a client away says why before it closes.
      if case .failure(0, let reason)? = try? nextMessage(deadline: deadline) { throw reason }
      throw error
    }
    var parts: [ControlValue] = []
    while true {
      guard let message = try nextMessage(deadline: deadline) else {
        throw ControlError("ETIMEDOUT", "\(who): the daemon has not answered \"\(name)\" in time. Is a worker stuck? Its log says so.")
      }
      switch message {
      case .result(id, let value, let more):
        if more {
          guard let elements = value.elements else { throw ControlError("EBADMSG", "a part of the answer to \"\(name)\" is no list.") }
          parts += elements
        } else if parts.isEmpty {
          return value
        } else {
          guard let elements = value.elements else { throw ControlError("EBADMSG", "a part of the answer to \"\(name)\" is no list.") }
          return .array(parts + elements)
        }
      case .failure(id, let error): throw error
      // About no call: the daemon ends the connection ("too many clients").
      case .failure(0, let error): throw error
      default: try keep(message)
      }
    }
  }

  /// The next event. nil when none came within `milliseconds` (-1: waits for ever). ECONNRESET when the daemon is gone.
  public func nextEvent(milliseconds: Int32 = -1) throws(ControlError) -> (subscription: UInt64, event: ControlEvent)? {
    let deadline = milliseconds < 0 ? UInt64.max : clock.now() &+ UInt64(milliseconds) &* 1_000_000
    while events.isEmpty {
      guard let message = try nextMessage(deadline: deadline) else { return nil }
      if case .failure(0, let error) = message { throw error }
      try keep(message)
    }
    return events.removeFirst()
  }

  private func keep(_ message: ControlMessage) throws(ControlError) {
    // Late answers to calls that were given up have no reader.
    guard case .event(let subscription, let value) = message else { return }
    guard events.count < Self.keptEvents else { throw ControlError("ENOBUFS", "\(events.count) events wait to be read.") }
    events.append((subscription, try ControlCoder.structure(from: value)))
  }

  private func nextMessage(deadline: UInt64) throws(ControlError) -> ControlMessage? {
    while true {
      if let line = try lines.next() { return try ControlMessage(line: line) }
      guard let more = try socket.receive(deadline: deadline) else { return nil }
      lines.append(more)
    }
  }
}
