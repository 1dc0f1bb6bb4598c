import NetmapAPI
import Testing

@Suite("Flat requests")
struct FlatRequestTests {
  static func sample() -> FlatRequest {
    var request = FlatRequest(.register, name: "ix0", body: pattern(56))
    request.append(ControlBlocksOption(toLoop: 0x1000, toProgram: 0x2000))
    request.options.append(.init(type: 2, status: 95, bytes: pattern(12)))
    request.options.append(.init(type: 77, status: 22, bytes: []))
    return request
  }

  @Test("Byte by byte: header, lengths, body, options padded to 8")
  func bytes() throws {
    let bytes = Self.sample().encoded()
    #expect(bytes.count == 88 + 8 + 56 + (24 + 16) + (24 + 16) + 24)
    #expect(Array(bytes[0..<12]) == [14, 0, 1, 0, 0, 0, 0, 0, 0x69, 0x78, 0x30, 0])
    #expect(bytes[12..<88].allSatisfy { $0 == 0 })
    #expect(Array(bytes[88..<96]) == [56, 0, 0, 0, 3, 0, 0, 0])
    #expect(Array(bytes[96..<152]) == pattern(56))
    #expect(Array(bytes[152..<176]) == [0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0])
    #expect(Array(bytes[176..<192]) == [0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0])
    #expect(Array(bytes[192..<216]) == [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 95, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0])
    #expect(Array(bytes[216..<232]) == pattern(12) + [0, 0, 0, 0])
    #expect(Array(bytes[232..<256]) == [0, 0, 0, 0, 0, 0, 0, 0, 77, 0, 0, 0, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    let read = try FlatRequest(decoding: bytes)
    #expect(read == Self.sample())
    #expect(read.name == "ix0" && read.kind == .register && read.version == 14)
  }

  @Test("Cut short at any length, or longer, it is refused")
  func truncation() {
    let bytes = Self.sample().encoded()
    for count in 0..<bytes.count { #expect(code { _ = try FlatRequest(decoding: Array(bytes.prefix(count))) } == .EINVAL, "\(count)") }
    #expect(code { _ = try FlatRequest(decoding: bytes + [0]) } == .EINVAL)
    #expect(code { _ = try FlatRequest(decoding: bytes + [UInt8](repeating: 0, count: 24)) } == .EINVAL)
  }

  @Test("Reserved fields are zero, and lengths never lead beyond the bytes")
  func fields() {
    let bytes = Self.sample().encoded()
    for offset in [4, 7, 72, 79, 80, 87, 152, 159, 192] {
      var wrong = bytes
      wrong[offset] = 1
      #expect(code { _ = try FlatRequest(decoding: wrong) } == .EINVAL, "\(offset)")
    }
    for (offset, values) in [(88, 4), (92, 4), (168, 8), (208, 8)] {
      for value in [UInt8(0), 0x7f, 0x80, 0xff] {
        var wrong = bytes
        for i in 0..<values { wrong[offset + i] = value }
        let result = code { _ = try FlatRequest(decoding: wrong) }
        #expect(result == .EINVAL || result == .EMSGSIZE, "\(offset) \(value)")
      }
    }
  }

  @Test("4096 bytes of body and options are accepted, one more is not")
  func limit() throws {
    var request = FlatRequest(.csbEnable, name: "")
    request.options = [.init(type: 9, bytes: pattern(4096 - 24))]
    #expect(try FlatRequest(decoding: request.encoded()) == request)
    request.options[0].bytes.append(0)
    #expect(code { _ = try FlatRequest(decoding: request.encoded()) } == .EMSGSIZE)
    request.options = (0..<170).map { .init(type: 100 + $0) }
    #expect(try FlatRequest(decoding: request.encoded()).options.count == 170)
    request.options.append(.init(type: 9))
    #expect(code { _ = try FlatRequest(decoding: request.encoded()) } == .EMSGSIZE)
    #expect(code { try request.admit() } == .EMSGSIZE)
    request = FlatRequest(.register, name: "", body: pattern(4096))
    #expect(try FlatRequest(decoding: request.encoded()).body.count == 4096)
    request.body.append(0)
    #expect(code { _ = try FlatRequest(decoding: request.encoded()) } == .EMSGSIZE)
  }

  @Test("Names: cut at 63 bytes, and never taken for another's")
  func names() throws {
    var request = FlatRequest(.portHeaderGet, name: String(repeating: "n", count: 70))
    #expect(request.name == String(repeating: "n", count: 63))
    var bytes = request.encoded()
    for i in 8..<72 { bytes[i] = 0x61 }
    request = try FlatRequest(decoding: bytes)
    #expect(request.name.utf8.count == 63 && request.nameBytes.count == 64 && request.nameBytes[63] == 0)
    bytes[8] = 0xff
    #expect(try FlatRequest(decoding: bytes).name.unicodeScalars.first == "\u{fffd}")
    request.name = "vale0:a"
    #expect(request.name == "vale0:a")
  }

  private func admit(_ request: FlatRequest) -> (NetmapError.Code?, [UInt32]) {
    var request = request
    let result = code { try request.admit() }
    return (result, request.options.map(\.status))
  }
  private func option(_ type: UInt32, _ count: Int) -> FlatRequest.Option { .init(type: type, status: 7, bytes: pattern(count)) }

  @Test("Every request is admitted with its body and no other")
  func bodies() {
    for type in NetmapRequestType.allCases {
      #expect(admit(FlatRequest(type, name: "p")).0 == nil, "\(type)")
      #expect(admit(FlatRequest(type, name: "p", body: pattern(type.bodySize + 8))).0 == .EINVAL)
      if type.bodySize > 0 { #expect(admit(FlatRequest(type, name: "p", body: [])).0 == .EINVAL) }
    }
    for raw: UInt16 in [0, 16, 0xffff] {
      var request = FlatRequest(.csbEnable, name: "")
      request.type = raw
      #expect(admit(request).0 == .EINVAL)
      request.options = [option(3, 16)]
      #expect(admit(request) == (.EINVAL, [95]))
    }
  }

  @Test("Versions 14 and 15 are understood")
  func versions() {
    for version: UInt16 in [0, 11, 13, 14, 15, 16, .max] {
      let result = admit(FlatRequest(.portInfo, name: "", version: version)).0
      #expect(result == ([14, 15].contains(version) ? nil : .EINVAL), "\(version)")
    }
  }

  @Test("Options: unknown, double, of type 0, of a wrong size")
  func options() {
    func request(_ type: NetmapRequestType, _ options: FlatRequest.Option...) -> FlatRequest { FlatRequest(type, name: "p", options: options) }
    #expect(admit(request(.register, option(0, 0))) == (.EINVAL, [22]))
    #expect(admit(request(.register, option(1, 72), option(0, 0))) == (.EINVAL, [0, 22]))
    #expect(admit(request(.register, option(3, 16), option(5, 32), option(3, 16))) == (.EINVAL, [22, 0, 22]))
    #expect(admit(request(.register, option(6, 0))) == (.EOPNOTSUPP, [95]))
    #expect(admit(request(.register, option(6, 0), option(6, 0))) == (.EOPNOTSUPP, [95, 95]), "types that nobody knows may be double")
    #expect(admit(request(.register, option(3, 16), option(.max, 0))) == (.EOPNOTSUPP, [0, 95]))
    #expect(admit(request(.portInfo, option(1234, 0))) == (.EOPNOTSUPP, [95]))
    #expect(admit(request(.register, option(4, 8))) == (.EOPNOTSUPP, [95]), "a loop's option")
    #expect(admit(request(.portInfo, option(4, 8))) == (nil, [95]), "which other requests just leave alone")
    #expect(admit(request(.syncLoopStart, option(4, 8), option(2, 40))) == (nil, [95, 95]))
    for (type, size) in [(1, 72), (3, 16), (4, 8), (5, 32)] as [(UInt32, Int)] {
      #expect(admit(request(.portInfo, option(type, size))).0 == nil)
      for wrong in [0, size - 1, size + 1, 2 * size] { #expect(admit(request(.portInfo, option(type, wrong))) == (.EINVAL, [22])) }
    }
  }

  @Test("Options are read and settled by type")
  func settling() throws {
    var request = FlatRequest(.register, name: "p")
    #expect(try request.option(OffsetsOption.self) == nil)
    request.append(OffsetsOption(largest: 64, initial: 14))
    request.append(ControlBlocksOption(toLoop: 64, toProgram: 128))
    try request.admit()
    #expect(request.options.map(\.status) == [95, 95])
    #expect(try request.option(OffsetsOption.self)?.initial == 14)
    request.settle(.offsets, payload: OffsetsOption(largest: 128, initial: 14))
    request.settle(.controlBlocks, .EINVAL)
    request.settle(.externalMemory, .EBUSY)
    #expect(request.options.map(\.status) == [0, 22])
    #expect(try request.option(OffsetsOption.self)?.largest == 128)
    request.options[0].bytes = [1]
    #expect(code { _ = try request.option(OffsetsOption.self) } == .EINVAL)
    request.body = pattern(56)
    request.answer(RegisterRequest())
    #expect(Array(request.body[44..<48]) == Array(pattern(56)[44..<48]), "padding stays the program's")
    #expect(request.body[0..<44].allSatisfy { $0 == 0 })
  }

  @Test("Whatever bytes become, they are read as they are written again, or refused")
  func mutations() throws {
    var random = TestRandom(seed: 2)
    let sample = Self.sample().encoded()
    var read = 0
    for _ in 0..<20_000 {
      let bytes = random.mutate(sample)
      do throws(NetmapError) {
        var request = try FlatRequest(decoding: bytes)
        read += 1
        #expect(try! FlatRequest(decoding: request.encoded()) == request)
        let result = code { try request.admit() }
        #expect(result == nil || [.EINVAL, .EMSGSIZE, .EOPNOTSUPP].contains(result))
      } catch { #expect([.EINVAL, .EMSGSIZE].contains(error.code) && !error.problem.isEmpty) }
    }
    #expect(read > 1000 && read < 19_000)
  }
}
