import Testing

@testable import Control

func roundTrip<T: Codable & Equatable>(_ structure: T) throws {
  let value = try ControlCoder.value(structure)
  let read = try ControlValue(json: value.json)
  #expect(read == value)
  #expect(try ControlCoder.structure(T.self, from: read) == structure)
}

@Suite struct ValueTests {
  @Test("JSON is read as RFC 8259 says") func reading() throws {
    func read(_ text: String) throws -> ControlValue { try ControlValue(json: text.utf8) }
    #expect(try read(" {\"a\" : [1, -2, 3.5e2, true, false, null, \"x\\n\\u00e9\\ud83d\\ude00\"] } ") == .object([
      .init("a", .array([.int(1), .int(-2), .double(350), .bool(true), .bool(false), .null, .string("x\n\u{e9}\u{1f600}")]))
    ]))
    #expect(try read("18446744073709551615") == .uint(.max))
    #expect(try read("-9223372036854775808") == .int(.min))
    #expect(try read("18446744073709551616") == .double(18446744073709551616))
  }

  @Test(
    "What is not JSON is an error",
    arguments: [
      "", "{", "[1,", "[1 2]", "{\"a\":1,\"a\":2}", "{a:1}", "01", "1.", "1e", "-", "+1", "nul", "\"", "\"\\x\"", "\"\\ud800\"",
      "\"\\udc00\"", "\"\u{1}\"", "1 2", "1e999", "{\"a\"}", "[,]", "{,}", "\"\\u12g4\"", "tru", "[1,]",
    ])
  func notJSON(text: String) { #expect(throws: ControlSyntaxError.self) { try ControlValue(json: text.utf8) } }

  @Test("Bytes that are no UTF-8, depth, members and length are bounded") func bounds() {
    #expect(throws: ControlSyntaxError.self) { try ControlValue(json: [0x22, 0xff, 0x22]) }
    #expect(throws: ControlSyntaxError.self) { try ControlValue(json: Array(repeating: UInt8(ascii: "["), count: 100_000)) }
    var limits = ControlLimits()
    limits.members = 1
    limits.bytes = 20
    #expect(throws: ControlSyntaxError.self) { try ControlValue(json: "{\"a\":1,\"b\":2}".utf8, limits: limits) }
    #expect(throws: ControlSyntaxError.self) { try ControlValue(json: Array(repeating: UInt8(ascii: " "), count: 21), limits: limits) }
  }

  @Test("Random bytes and broken messages never trap") func random() {
    var generator = SystemRandomNumberGenerator()
    let seed = Array("{\"id\":1,\"call\":\"interface.set\",\"arguments\":{\"interface\":\"em0\",\"changes\":[{\"mtu\":{\"bytes\":9000}}]}}".utf8)
    var read = 0
    for round in 0..<20_000 {
      var bytes = round % 2 == 0 ? seed : (0..<Int.random(in: 0..<60)).map { _ in UInt8.random(in: 0...255) }
      for _ in 0..<Int.random(in: 0..<4) where !bytes.isEmpty {
        bytes[Int.random(in: 0..<bytes.count)] = [UInt8](",:{}[]\"\\0123456789eE.-+tfn".utf8).randomElement(using: &generator) ?? 0
      }
      guard let message = try? ControlMessage(line: bytes), case .call(_, _, let arguments) = message else { continue }
      read += 1
      _ = try? ControlCoder.structure(InterfaceSet.self, from: arguments)
      _ = try? ControlCoder.structure(InterfaceRecord.self, from: arguments)
      _ = try? ControlCoder.structure(CaptureStart.self, from: arguments)
      #expect((try? ControlMessage(line: message.line.dropLast())) == message)
    }
    #expect(read > 100)
  }

  @Test("Texts are escaped so that a message stays one line") func escapes() throws {
    let text = "a\"b\\c\nd\r\t\u{0}\u{1f}\u{7f}\u{e9}\u{1f600}"
    let json = ControlValue.string(text).json
    #expect(!json.contains { $0 < 0x20 })
    #expect(try ControlValue(json: json) == .string(text))
    #expect(ControlValue.double(.infinity).json == Array("null".utf8))
  }

  @Test("The form for people") func pretty() {
    let value = ControlValue.object([.init("a", .array([.int(1), .object([])])), .init("b", .array([]))])
    #expect(value.pretty == "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}")
  }
}

@Suite struct CoderTests {
  @Test("Records come back as they went") func records() throws {
    var record = InterfaceRecord(name: "em0", index: 3, type: "ethernet", mtu: 1500)
    record.flags = ["UP", "RUNNING"]
    record.counters.ipackets = .max
    var address = AddressRecord(family: "inet6", address: "2001:2::1", prefixLength: 64)
    address.marks = ["tentative"]
    record.addresses = [address]
    record.media = MediaRecord(configured: "a", active: "b", status: "active", baudRate: 1, choices: ["c"])
    record.subqueues = [SubqueueRecord(index: 0, length: 2, oactive: true)]
    record.lastChange = 12.5
    record.details = ["parent": "em1"]
    try roundTrip(record)
    try roundTrip([record, record])
    for change: InterfaceChange in [
      .flags(set: ["UP"], clear: []), .mtu(bytes: 9000), .metric(value: -1), .name(new: "x"), .promiscuous(on: true),
      .addAddress(address: "198.18.0.1/24", broadcast: nil, destination: "198.18.0.2"), .tunnel(source: nil, destination: nil),
      .generic(name: "a", value: "b"),
    ] { try roundTrip(change) }
    try roundTrip(ControlEvent.end(reason: "shutdown"))
    try roundTrip(ControlEvent.change(ChangeRecord(time: 1.5, category: .link, event: "up", interface: "em0", index: 1)))
    try roundTrip(RouteTarget("default", gateway: "198.18.0.1"))
    try roundTrip(NetisrRecord(configuration: [.init("a", "1", "n/a")], protocols: [], workstreams: []))
    try roundTrip(ControlDone())
  }

  @Test("The words on the wire stay as they are") func words() throws {
    let value = try ControlCoder.value(InterfaceSet("em0", [.mtu(bytes: 9000)]))
    #expect(String(decoding: value.json, as: UTF8.self) == "{\"interface\":\"em0\",\"changes\":[{\"mtu\":{\"bytes\":9000}}]}")
    let call = ControlMessage.call(id: 1, name: InterfaceGet.call, arguments: try ControlCoder.value(InterfaceGet("em0")))
    #expect(String(decoding: call.line, as: UTF8.self) == "{\"id\":1,\"call\":\"interface.get\",\"arguments\":{\"interface\":\"em0\"}}\n")
  }

  @Test("A wrong member is named") func sentences() throws {
    func error(_ json: String) throws -> ControlError? {
      let value = try ControlValue(json: json.utf8)
      return #expect(throws: ControlError.self) { try ControlCoder.structure(InterfaceSet.self, from: value) }
    }
    #expect(try error("{}")?.message == "\"interface\" is missing.")
    #expect(try error("{\"interface\":1,\"changes\":[]}")?.message == "\"interface\": a text was expected.")
    #expect(try error("[]")?.errno == "EINVAL")
    #expect(try error("{\"interface\":\"a\",\"changes\":[{\"mtu\":{\"bytes\":1.5}}]}")?.message.contains("bytes") == true)
    #expect(try error("{\"interface\":\"a\",\"changes\":[{\"mtu\":{\"bytes\":18446744073709551615}}]}")?.errno == "EINVAL")
  }

  @Test("Members that are not known are skipped; optional ones may be missing") func growth() throws {
    let value = try ControlValue(json: "{\"categories\":[\"link\"],\"new\":{\"x\":[1]}}".utf8)
    let request = try ControlCoder.structure(Subscribe.self, from: value)
    #expect(request.categories == [.link] && request.interface == nil)
  }
}

@Suite struct EnvelopeTests {
  @Test("Every kind of message comes back") func envelopes() throws {
    for message: ControlMessage in [
      .call(id: 0, name: "x", arguments: .object([])), .result(id: .max, .null, more: false), .result(id: 1, .array([]), more: true),
      .failure(id: 2, ControlError("EPERM", "no.")), .event(subscription: 9, .string("e")),
    ] {
      #expect(message.line.last == 0x0a)
      #expect(try ControlMessage(line: message.line.dropLast()) == message)
    }
    for text in ["{}", "[]", "{\"id\":-1,\"call\":\"x\"}", "{\"id\":1}", "{\"id\":1,\"error\":{}}", "x"] {
      #expect(throws: ControlError.self) { try ControlMessage(line: text.utf8) }
    }
  }

  @Test("Lines come out of a stream cut anywhere; a long one is EMSGSIZE") func lines() throws {
    let text = Array("one\n\ntwo\nthree\n".utf8)
    for size in 1...text.count {
      var lines = ControlLines(limit: 8)
      var found: [String] = []
      var at = 0
      while at < text.count {
        lines.append(text[at..<min(text.count, at + size)])
        at += size
        while let line = try lines.next() { found.append(String(decoding: line, as: UTF8.self)) }
      }
      #expect(found == ["one", "", "two", "three"])
      #expect(lines.pending == 0)
    }
    var lines = ControlLines(limit: 3)
    lines.append("abcd".utf8)
    #expect(throws: ControlError.self) { try lines.next() }
    var ended = ControlLines(limit: 3)
    ended.append("abcd\n".utf8)
    #expect(throws: ControlError.self) { try ended.next() }
  }

  @Test("Versions are agreed on") func versions() {
    #expect(Control.agree([7, 1]) == 1)
    #expect(Control.agree([2, 3]) == nil)
    #expect(Control.agree([]) == nil)
  }

  @Test("Base 64 as RFC 4648 has it") func base64() {
    for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
      #expect(Base64.encode(Array(plain.utf8)) == coded)
      #expect(Base64.decode(coded) == Array(plain.utf8))
    }
    for wrong in ["Z", "Zg=", "Zh==", "Zg==Zg==", "Z*==", "====", "Zm9="] { #expect(Base64.decode(wrong) == nil) }
    for count in 0..<70 {
      let bytes = (0..<count).map { _ in UInt8.random(in: 0...255) }
      #expect(Base64.decode(Base64.encode(bytes)) == bytes)
    }
  }
}
