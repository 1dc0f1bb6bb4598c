import CRingway
import Control
import Platform
import Testing

@testable import ControlClient

/// Both ends of a connection.
func pair() -> (Int32, Int32) {
  var ends: [Int32] = [-1, -1]
  let made = unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends)
  #expect(made == 0)
  return (ends[0], ends[1])
}

/// A daemon that answers each call with a line that `answer` makes.
func scripted(_ raw: Int32, _ answer: @escaping @Sendable (UInt64, String) -> [ControlMessage]) throws -> JoinedThread {
  return try JoinedThread(name: "script") {
    let socket = LocalSocket(taking: OwnedDescriptor(taking: raw))
    var lines = ControlLines(limit: 1 << 20)
    while let more = try? socket.receive(deadline: MonotonicClock().now() + 5_000_000_000) {
      lines.append(more)
      while let line = try? lines.next(), case .call(let id, let name, _)? = try? ControlMessage(line: line) {
        for message in answer(id, name) { try? socket.send(message.line, deadline: .max) }
      }
    }
  }
}

@Sendable func hello(_ id: UInt64, version: Int = 1) -> ControlMessage {
  let reply = HelloReply(version: version, program: "script", programVersion: "0", calls: [], privileged: true)
  return .result(id: id, (try? ControlCoder.value(reply)) ?? .null, more: false)
}

@Suite struct ControlClientTests {
  @Test("A call waits for its own answer and keeps the events that come before")
  func callAndEvents() throws {
    let (a, b) = pair()
    let server = try scripted(b) { id, name in
      if name == "hello" { return [hello(id)] }
      let event = try? ControlCoder.value(ControlEvent.lost(count: 7))
      return [
        .event(subscription: 3, event ?? .null), .result(id: id + 100, .null, more: false),
        .result(id: id, .array([.string("lo")]), more: true), .result(id: id, .array([.string("tap")]), more: false),
      ]
    }
    do {
      let client = try ControlClient(taking: OwnedDescriptor(taking: a), name: "test")
      #expect(client.hello.program == "script")
      #expect(try client.call(InterfaceCloners()) == ["lo", "tap"])
      let event = try client.nextEvent(milliseconds: 0)
      #expect(event?.subscription == 3 && event?.event == .lost(count: 7))
      #expect(try client.nextEvent(milliseconds: 1) == nil)
    }
    server.join()
  }

  @Test("A refusal is thrown as it was sent; silence is ETIMEDOUT; another version is EPROTONOSUPPORT")
  func failures() throws {
    let (a, b) = pair()
    let server = try scripted(b) { id, name in
      switch name {
      case "hello": [hello(id)]
      case "interface.get": [.failure(id: id, ControlError("ENXIO", "there is no em7."))]
      default: []
      }
    }
    do {
      let client = try ControlClient(taking: OwnedDescriptor(taking: a), name: "test")
      #expect(throws: ControlError("ENXIO", "there is no em7.")) { try client.call(InterfaceGet("em7")) }
      client.timeout = 20_000_000
      let error = #expect(throws: ControlError.self) { try client.call(InterfaceList()) }
      #expect(error?.errno == "ETIMEDOUT")
    }
    server.join()
    let (c, d) = pair()
    let other = try scripted(d) { id, _ in [hello(id, version: 99)] }
    let error = #expect(throws: ControlError.self) { try ControlClient(taking: OwnedDescriptor(taking: c), name: "test") }
    #expect(error?.errno == "EPROTONOSUPPORT")
    other.join()
  }

  @Test("Nobody there is an error that says how to start the daemon")
  func nobody() {
    let error = #expect(throws: ControlError.self) { try ControlClient(path: "/nonexistent/ringway", name: "test") }
    #expect(error?.errno == "ENOENT" && error?.message.contains("ringwayd") == true)
    let long = #expect(throws: ControlError.self) { try ControlClient(path: "/" + String(repeating: "x", count: 200), name: "test") }
    #expect(long?.errno == "ENAMETOOLONG")
  }
}

