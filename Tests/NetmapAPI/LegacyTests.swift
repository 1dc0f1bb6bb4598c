import NetmapAPI
import Testing

@Suite("Legacy requests")
struct LegacyTests {
  private func legacy(_ change: (inout LegacyRequest) -> Void = { _ in }) -> LegacyRequest {
    var legacy = LegacyRequest(name: "ix0")
    change(&legacy)
    return legacy
  }
  private func register(_ change: (inout LegacyRequest) -> Void) throws -> (String, RegisterRequest) {
    let request = try legacy(change).registration()
    #expect(request.kind == .register && request.version == 14 && request.options.isEmpty)
    return (request.name, try RegisterRequest(decoding: request.body))
  }

  @Test("struct nmreq, byte by byte")
  func layout() throws {
    let bytes = pattern(60)
    let request = try LegacyRequest(decoding: bytes)
    #expect(request.nameBytes == Array(bytes[0..<15]) + [0], "a name without an end gets one")
    let fields: [Field] = [
      Field(16, request.version), Field(20, request.offset), Field(24, request.memorySize), Field(28, request.transmitSlots),
      Field(32, request.receiveSlots), Field(36, request.transmitRings), Field(38, request.receiveRings), Field(40, request.ringID),
      Field(42, request.command), Field(44, request.arg1), Field(46, request.arg2), Field(48, request.arg3), Field(52, request.flags),
      Field(56, request.spare),
    ]
    for field in fields { #expect(field.value == number(bytes, field.offset, field.size), "at \(field.offset)") }
    #expect(fields.reduce(16) { $0 + $1.size } == 60)
    #expect(request.encoded() == Array(bytes[0..<15]) + [0] + Array(bytes[16...]))
    for count in 0..<60 { #expect(code { _ = try LegacyRequest(decoding: Array(bytes.prefix(count))) } == .EINVAL) }
    #expect(code { _ = try LegacyRequest(decoding: bytes + [0]) } == .EINVAL)
  }

  @Test("Versions below 14 are too old, later ones are served")
  func versions() {
    for version: UInt32 in [0, 3, 11, 13] {
      #expect(code { _ = try legacy { $0.version = version }.registration() } == .EINVAL)
      #expect(code { _ = try legacy { $0.version = version }.information() } == .EINVAL)
    }
    for version: UInt32 in [14, 15, 16, .max] {
      #expect(code { _ = try legacy { $0.version = version }.registration() } == nil)
      #expect(code { _ = try legacy { $0.version = version }.information() } == nil)
    }
  }

  @Test("Rings by the bits of nr_ringid, where nr_flags names no mode")
  func ringBits() throws {
    for (ringID, mode, ring, flags) in [
      (0, .allNIC, 0, []), (3, .allNIC, 3, []), (0x4000, .oneNIC(0), 0, []), (0x4003, .oneNIC(3), 3, []), (0x2000, .software, 0, []),
      (0x6001, .software, 1, []), (0x1000, .allNIC, 0, .noTransmitPoll), (0x8000, .allNIC, 0, .receivePoll),
      (0xd00f, .oneNIC(15), 15, [.noTransmitPoll, .receivePoll]), (0x4fff, .oneNIC(0xfff), 0xfff, []),
    ] as [(UInt16, RegisterMode, UInt16, RegisterFlags)] {
      let (name, request) = try register { $0.ringID = ringID }
      #expect(name == "ix0" && request.ringID == ring && request.registerFlags == flags, "0x\(String(ringID, radix: 16))")
      #expect(try request.registerMode() == mode, "0x\(String(ringID, radix: 16))")
    }
  }

  @Test("Rings by the mode in nr_flags; its other bits are flags")
  func modes() throws {
    for (flags, mode, rest) in [
      (1, .allNIC, []), (2, .software, []), (3, .nicAndSoftware, []), (4, .oneNIC(5), []), (7, .null, []), (8, .oneSoftware(5), []),
      (0x801, .allNIC, .exclusive), (0x2304, .oneNIC(5), [.receiveRingsOnly, .monitorTransmit, .monitorReceive]),
      (0x8001, .allNIC, .acceptVnetHeader),
    ] as [(UInt32, RegisterMode, RegisterFlags)] {
      // The old bits count for nothing beside a mode, but for those of poll.
      let (_, request) = try register { ($0.flags, $0.ringID) = (flags, 0x7005) }
      #expect(try request.registerMode() == mode, "0x\(String(flags, radix: 16))")
      #expect(request.registerFlags == rest.union(.noTransmitPoll))
    }
    let (_, unknown) = try register { $0.flags = 9 }
    #expect(code { _ = try unknown.registerMode() } == .EINVAL)
  }

  @Test("The ends of a pipe were modes, and are names")
  func pipes() throws {
    for (flags, ring, name) in [(5, 3, "ix0{3"), (6, 3, "ix0}3"), (5, 0x1000 + 4095, "ix0{4095"), (6, 0, "ix0}0")] as [(UInt32, UInt16, String)] {
      let (made, request) = try register { ($0.flags, $0.ringID) = (flags, ring) }
      #expect(made == name && request.ringID == 0)
      #expect(try request.registerMode() == .allNIC)
    }
    let (longest, _) = try register { ($0.flags, $0.ringID, $0.name) = (5, 0xfff, "abcdefghijklmno") }
    #expect(longest == "abcdefghijklmno{4095")
  }

  @Test("NIOCREGIF's fields, there and back")
  func registration() throws {
    var legacy = legacy {
      ($0.transmitSlots, $0.receiveSlots, $0.transmitRings, $0.receiveRings) = (128, 256, 1, 2)
      ($0.offset, $0.memorySize, $0.arg1, $0.arg2, $0.arg3) = (7, 8, 99, 3, 64)
    }
    var request = try legacy.registration()
    var body = try RegisterRequest(decoding: request.body)
    #expect(body.offset == 7 && body.memorySize == 8 && body.transmitSlots == 128 && body.receiveSlots == 256)
    #expect(body.transmitRings == 1 && body.receiveRings == 2 && body.hostTransmitRings == 0 && body.hostReceiveRings == 0)
    #expect(body.memoryID == 3 && body.extraBuffers == 64)
    (body.offset, body.memorySize) = (0x1_0000_1000, 0x1_0200_0000)
    (body.transmitSlots, body.receiveSlots, body.transmitRings, body.receiveRings) = (512, 1024, 4, 8)
    (body.memoryID, body.extraBuffers, body.hostTransmitRings) = (1, 60, 5)
    request.answer(body)
    let before = legacy
    try legacy.take(request)
    #expect(legacy.offset == 0x1000 && legacy.memorySize == 0x0200_0000, "cut to 32 bits, as netmap does")
    #expect(legacy.transmitSlots == 512 && legacy.receiveSlots == 1024 && legacy.transmitRings == 4 && legacy.receiveRings == 8)
    #expect(legacy.arg2 == 1 && legacy.arg3 == 60)
    #expect((legacy.name, legacy.arg1, legacy.ringID, legacy.flags, legacy.version) == (before.name, 99, before.ringID, before.flags, 14))
  }

  @Test("NIOCGINFO asks for a port, or for the ports of switches")
  func information() throws {
    var legacy = legacy { ($0.arg2, $0.transmitSlots) = (4, 77) }
    var request = try legacy.information()
    var info = try PortInfo(decoding: request.body)
    #expect(request.kind == .portInfo && request.name == "ix0" && info.memoryID == 4 && info.transmitSlots == 77)
    (info.memorySize, info.transmitSlots, info.receiveSlots) = (4096, 10, 20)
    (info.transmitRings, info.receiveRings, info.memoryID) = (3, 4, 5)
    request.answer(info)
    try legacy.take(request)
    #expect((legacy.memorySize, legacy.transmitSlots, legacy.receiveSlots) == (4096, 10, 20))
    #expect((legacy.transmitRings, legacy.receiveRings, legacy.arg2) == (3, 4, 5))

    legacy = self.legacy { ($0.name, $0.command, $0.arg1, $0.arg2) = ("", 4, 2, 9) }
    request = try legacy.information()
    #expect(request.kind == .valeList && request.name.isEmpty)
    #expect(try ValeList(decoding: request.body) == ValeList(bridgeIndex: 2, portIndex: 9))
    request.answer(ValeList(bridgeIndex: 3, portIndex: 11))
    request.name = "vale3:a-long-name"
    try legacy.take(request)
    #expect((legacy.arg1, legacy.arg2, legacy.name) == (3, 11, "vale3:a-long-na"))
    #expect(legacy.nameBytes.count == 16)
  }

  @Test("The commands of NIOCREGIF")
  func commands() throws {
    func request(_ command: UInt16, _ change: (inout LegacyRequest) -> Void = { _ in }) throws -> FlatRequest {
      try legacy {
        $0.name = "vale0:ix0"
        $0.command = command
        change(&$0)
      }.registration()
    }
    for (arg, mode) in [(0, .allNIC), (1, .nicAndSoftware), (3, .nicAndSoftware), (2, .allNIC)] as [(UInt16, RegisterMode)] {
      let attach = try request(1) { ($0.arg1, $0.flags, $0.arg2) = (arg, 0x804, 6) }
      let body = try ValeAttach(decoding: attach.body)
      #expect(attach.kind == .valeAttach && attach.name == "vale0:ix0")
      #expect(try body.register.registerMode() == mode)
      #expect(body.register.registerFlags == .exclusive && body.register.memoryID == 6)
    }
    #expect(try request(2).kind == .valeDetach && request(7).kind == .valeDeleteInterface && request(7).body.isEmpty)
    for (command, kind) in [(5, .portHeaderSet), (12, .portHeaderGet)] as [(UInt16, NetmapRequestType)] {
      let header = try request(command) { $0.arg1 = 12 }
      #expect(header.kind == kind)
      #expect(try PortHeader(decoding: header.body).length == 12)
      var legacy = legacy()
      var answer = header
      answer.answer(PortHeader(length: 10))
      try legacy.take(answer)
      #expect(legacy.arg1 == 10)
    }
    let made = try request(6) {
      ($0.transmitSlots, $0.receiveSlots, $0.transmitRings, $0.receiveRings, $0.arg2) = (1, 2, 3, 4, 5)
    }
    let interface = try ValeNewInterface(decoding: made.body)
    #expect((interface.transmitSlots, interface.receiveSlots, interface.transmitRings, interface.receiveRings, interface.memoryID) == (1, 2, 3, 4, 5))
    for (command, kind) in [(10, .valePollingEnable), (11, .valePollingDisable)] as [(UInt16, NetmapRequestType)] {
      for (flags, mode) in [(1, 1), (4, 2), (2, 0), (0, 0)] as [(UInt32, UInt32)] {
        let poll = try request(command) { ($0.flags, $0.ringID, $0.arg1) = (flags, 0xf003, 2) }
        #expect(poll.kind == kind)
        #expect(try ValePolling(decoding: poll.body) == ValePolling(mode: mode, firstCPU: 3, cpus: 2))
      }
    }
    for command: UInt16 in [3, 4, 13, 14, .max] { #expect(code { _ = try request(command) } == .EINVAL) }
    for command: UInt16 in [8, 9] { #expect(code { _ = try request(command) } == .EOPNOTSUPP) }
    for command in LegacyCommand.allCases {
      guard let flat = try? request(command.rawValue) else { continue }
      var admitted = flat
      #expect(code { try admitted.admit() } == nil, "\(command): what is translated keeps to the rules")
    }
  }

  @Test("Any 60 bytes are translated or refused, and take any answer")
  func mutations() {
    var random = TestRandom(seed: 4)
    var translated = 0
    for _ in 0..<20_000 {
      let bytes = (0..<60).map { $0 >= 42 && $0 < 44 && random.below(4) > 0 ? UInt8($0 == 42 ? random.below(14) : 0) : UInt8(truncatingIfNeeded: random.next()) }
      guard var legacy = try? LegacyRequest(decoding: bytes) else {
        Issue.record("60 bytes were refused")
        continue
      }
      for flat in [try? legacy.registration(), try? legacy.information()] {
        guard var flat else { continue }
        translated += 1
        #expect(code { try flat.admit() } == nil)
        flat.body = flat.body.map { _ in UInt8(truncatingIfNeeded: random.next()) }
        #expect(code { try legacy.take(flat) } == nil)
        flat.body.append(0)
        _ = try? legacy.take(flat)
      }
      #expect(legacy.encoded().count == 60)
    }
    #expect(translated > 20_000)
  }
}
