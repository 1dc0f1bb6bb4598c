import NetmapAPI
import Testing

/// A program's memory: pieces at addresses, and nothing between them.
struct TestMemory {
  var pieces: [UInt64: [UInt8]] = [:]
  var reads = 0

  func read(_ address: UInt64, _ count: Int) -> [UInt8]? {
    for (base, bytes) in pieces where address >= base && address - base < UInt64(bytes.count) {
      let start = Int(address - base)
      return start + count <= bytes.count ? Array(bytes[start..<(start + count)]) : nil
    }
    return nil
  }

  mutating func write(_ writes: [ProgramRequest.Write]) {
    for write in writes where !put(write) { Issue.record("\(write) goes nowhere") }
  }

  private mutating func put(_ write: ProgramRequest.Write) -> Bool {
    for (base, bytes) in pieces where write.address >= base && write.address - base < UInt64(bytes.count) {
      let start = Int(write.address - base)
      guard start + write.bytes.count <= bytes.count else { return false }
      pieces[base]!.replaceSubrange(start..<(start + write.bytes.count), with: write.bytes)
      return true
    }
    return false
  }

  static func le(_ value: UInt64, _ size: Int) -> [UInt8] { (0..<size).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) } }

  mutating func header(
    at address: UInt64 = 0x1000, _ type: UInt16, name: String = "ix0", version: UInt16 = 14, reserved: UInt32 = 0, options: UInt64 = 0,
    body: UInt64 = 0
  ) {
    let name = Array(name.utf8) + [UInt8](repeating: 0, count: 64 - name.utf8.count)
    pieces[address] =
      Self.le(UInt64(version), 2) + Self.le(UInt64(type), 2) + Self.le(UInt64(reserved), 4) + name + Self.le(options, 8) + Self.le(body, 8)
  }

  /// An option as a program writes it: `size` is `nro_size`.
  mutating func option(at address: UInt64, _ type: UInt32, next: UInt64 = 0, size: UInt64 = 0, _ payload: [UInt8] = []) {
    pieces[address] = Self.le(next, 8) + Self.le(UInt64(type), 4) + Self.le(0xabcd, 4) + Self.le(size, 8) + payload
  }

  func status(_ address: UInt64) -> UInt32? { read(address + 12, 4).map { UInt32(number($0, 0, 4)) } }
}

@Suite("Requests in a program's memory")
struct ProgramRequestTests {
  private func read(_ memory: TestMemory, at address: UInt64 = 0x1000) -> ProgramRequest {
    FlatRequest.read(at: address) { memory.read($0, $1) }
  }
  /// Reads, and writes back what belongs back.
  private func refusal(_ memory: inout TestMemory) -> NetmapError.Code? {
    let request = read(memory)
    guard let refusal = request.refusal else { return nil }
    #expect(!refusal.problem.isEmpty)
    memory.write(request.writeBack(errno: refusal.code.rawValue))
    return refusal.code
  }

  private func register() -> TestMemory {
    var memory = TestMemory()
    memory.header(1, options: 0x3000, body: 0x2000)
    memory.pieces[0x2000] = pattern(56)
    memory.option(at: 0x3000, 5, next: 0x4000, pattern(32))
    memory.option(at: 0x4000, 1, next: 0x5000, size: 0, pattern(72))
    memory.option(at: 0x5000, 3, pattern(16))
    return memory
  }

  @Test("A request with all it points to is laid flat")
  func flat() throws {
    let request = read(register())
    #expect(request.refusal == nil)
    #expect(request.request.name == "ix0" && request.request.body == pattern(56))
    #expect(request.request.options.map(\.type) == [5, 1, 3])
    #expect(request.request.options.map(\.bytes) == [pattern(32), pattern(72), pattern(16)])
    #expect(request.request.options.allSatisfy { $0.status == 95 }, "statuses are the answer's to write")
    #expect(try FlatRequest(decoding: request.request.encoded()) == request.request)
  }

  @Test("The answer goes back to where the request came from")
  func writeBack() throws {
    var memory = register()
    var request = read(memory)
    var answer = request.request
    answer.body = pattern(200).suffix(56)
    answer.name = "vale0:a"
    for i in 0..<3 { answer.options[i].status = 0 }
    answer.options[0].bytes = pattern(100).suffix(32)
    answer.options[1].bytes = pattern(100).suffix(72)
    answer.options[2].bytes = pattern(100).suffix(16)
    try request.take(answer: answer.encoded())
    let before = memory
    memory.write(request.writeBack(errno: 0))
    #expect(memory.read(0x2000, 56) == pattern(200).suffix(56))
    #expect(memory.read(0x1008, 7) == Array("vale0:a".utf8))
    #expect(memory.read(0x1000, 8) == before.read(0x1000, 8) && memory.read(0x1048, 16) == before.read(0x1048, 16), "the rest of the header stays")
    for option: UInt64 in [0x3000, 0x4000, 0x5000] {
      #expect(memory.status(option) == 0)
      #expect(memory.read(option, 12) == before.read(option, 12) && memory.read(option + 16, 8) == before.read(option + 16, 8))
    }
    #expect(memory.read(0x3018, 32) == pattern(100).suffix(32))
    #expect(memory.read(0x4018, 8) == Array(pattern(72).prefix(8)), "the memory's address stays the program's")
    #expect(memory.read(0x4020, 64) == pattern(100).suffix(64))
    #expect(memory.read(0x5018, 16) == pattern(16), "control blocks' addresses too")
  }

  @Test("After an error statuses go back, and nothing else")
  func writeBackErrors() throws {
    var memory = register()
    var request = read(memory)
    var answer = request.request
    answer.body = pattern(200).suffix(56)
    for (i, status) in [0, 22, 95].enumerated() { answer.options[i] = .init(type: answer.options[i].type, status: UInt32(status), bytes: answer.options[i].bytes) }
    answer.options[0].bytes = pattern(100).suffix(32)
    try request.take(answer: answer.encoded())
    let writes = request.writeBack(errno: 22)
    #expect(writes.count == 3)
    memory.write(writes)
    #expect([0x3000, 0x4000, 0x5000].map { memory.status($0) } == [0, 22, 95])
    #expect(memory.read(0x2000, 56) == pattern(56) && memory.read(0x3018, 32) == pattern(32))
  }

  @Test("An answer of another shape is refused, and writes nothing")
  func shapes() throws {
    let memory = register()
    let request = read(memory)
    var other = request.request
    other.body.append(0)
    var fewer = request.request
    fewer.options.removeLast()
    var longer = request.request
    longer.options[1].bytes.append(0)
    var type = request.request
    type.options[1].type = 4
    for answer in [other, fewer, longer, type] {
      var request = request
      #expect(code { try request.take(answer: answer.encoded()) } == .EIO)
      #expect(request.request == read(memory).request)
    }
    var cut = request
    #expect(code { try cut.take(answer: []) } == .EINVAL)
  }

  @Test("What cannot be read is EFAULT, wherever it is")
  func unreadable() {
    for gone: UInt64 in [0x1000, 0x2000, 0x3000, 0x4000, 0x5000] {
      var memory = register()
      memory.pieces[gone] = nil
      #expect(refusal(&memory) == .EFAULT, "0x\(String(gone, radix: 16))")
      // Options before it have been looked at, and say so.
      for option: UInt64 in [0x3000, 0x4000, 0x5000] where memory.pieces[option] != nil {
        #expect(memory.status(option) == (option < gone && gone > 0x3000 ? 0 : 0xabcd))
      }
      for count in 0..<(register().pieces[gone]?.count ?? 0) {
        memory = register()
        memory.pieces[gone] = Array(memory.pieces[gone]!.prefix(count))
        #expect(refusal(&memory) == .EFAULT, "\(count) bytes at 0x\(String(gone, radix: 16))")
      }
    }
    var memory = TestMemory()
    memory.header(1, options: .max - 3, body: 0x2000)
    memory.pieces[0x2000] = pattern(56)
    #expect(refusal(&memory) == .EFAULT)
  }

  @Test("Header: version, reserved field, body where there is none and none where there is one")
  func headers() {
    for version: UInt16 in [0, 13, 16, .max] {
      var memory = TestMemory()
      memory.header(1, version: version, body: 0x2000)
      #expect(refusal(&memory) == .EINVAL)
    }
    var memory = register()
    memory.header(1, reserved: 1, options: 0x3000, body: 0x2000)
    #expect(refusal(&memory) == .EINVAL)
    for type in NetmapRequestType.allCases {
      memory = TestMemory()
      memory.pieces[0x2000] = pattern(64)
      memory.header(type.rawValue, body: type.bodySize > 0 ? 0x2000 : 0)
      #expect(refusal(&memory) == nil, "\(type)")
      memory.header(type.rawValue, version: 15, body: type.bodySize > 0 ? 0x2000 : 0)
      #expect(refusal(&memory) == nil, "\(type)")
      memory.header(type.rawValue, body: type.bodySize > 0 ? 0 : 0x2000)
      #expect(refusal(&memory) == .EINVAL, "\(type)")
    }
    for type: UInt16 in [0, 16, .max] {
      memory = TestMemory()
      memory.header(type)
      #expect(refusal(&memory) == .EINVAL)
      memory.option(at: 0x3000, 3, pattern(16))
      memory.header(type, options: 0x3000)
      #expect(refusal(&memory) == .EINVAL)
      #expect(memory.status(0x3000) == 95)
      memory.header(type, body: 0x2000)
      #expect(refusal(&memory) == .EINVAL)
    }
  }

  @Test("Options: type 0 and doubles say so in their statuses")
  func options() {
    var memory = register()
    memory.option(at: 0x4000, 0, next: 0x5000)
    #expect(refusal(&memory) == .EINVAL)
    #expect([0x3000, 0x4000, 0x5000].map { memory.status($0) } == [0, 22, 0xabcd])
    memory = register()
    memory.option(at: 0x5000, 5, next: 0, pattern(32))
    #expect(refusal(&memory) == .EINVAL)
    #expect([0x3000, 0x4000, 0x5000].map { memory.status($0) } == [22, 0, 22])
    memory = register()
    memory.option(at: 0x5000, 3, next: 0x3000, pattern(16))
    #expect(refusal(&memory) == .EINVAL, "a loop of known options is a double")
    #expect([0x3000, 0x4000, 0x5000].map { memory.status($0) } == [22, 0, 0])
    // Types that nobody knows have no payload here: their refusal is the daemon's.
    memory = register()
    memory.option(at: 0x5000, 1234, next: 0, size: 4000)
    let request = read(memory)
    #expect(request.refusal == nil && request.request.options[2] == .init(type: 1234, status: 95))
  }

  @Test("A loop, and more than 4096 bytes, are EMSGSIZE")
  func tooLong() {
    var memory = register()
    memory.option(at: 0x5000, 1234, next: 0x5000)
    #expect(refusal(&memory) == .EMSGSIZE)
    #expect([0x3000, 0x4000, 0x5000].map { memory.status($0) } == [0xabcd, 0xabcd, 0xabcd], "a loop is not written into")
    memory = register()
    memory.option(at: 0x5000, 2, size: 4097, pattern(5000))
    #expect(refusal(&memory) == .EMSGSIZE)
    #expect(memory.status(0x5000) == 0)
    memory.option(at: 0x5000, 2, size: .max, pattern(100))
    #expect(refusal(&memory) == .EMSGSIZE)
    // 56, 24 + 32, 24 + 72, and 24 of the option's own are taken.
    let most = UInt64(4096 - 56 - 56 - 96)
    memory.option(at: 0x5000, 2, size: most, pattern(5000))
    #expect(refusal(&memory) == nil)
    #expect(read(memory).request.options[2].bytes.count == Int(most) - 24)
    memory.option(at: 0x5000, 2, size: most + 8, pattern(5000))
    #expect(refusal(&memory) == .EMSGSIZE)
    // An eventfds' size below its own header counts as none.
    memory.option(at: 0x5000, 2, size: 23)
    #expect(read(memory).request.options[2].bytes.isEmpty)
  }

  @Test("Memory that holds anything is read and written back, or refused")
  func mutations() {
    var random = TestRandom(seed: 3)
    var refused = 0
    for _ in 0..<20_000 {
      var memory = register()
      for _ in 0...random.below(3) {
        let key = memory.pieces.keys.sorted()[random.below(memory.pieces.count)]
        memory.pieces[key] = random.mutate(memory.pieces[key]!)
        // A pointer that leads somewhere.
        if random.below(3) == 0, memory.pieces[key]!.count >= 8 {
          memory.pieces[key]!.replaceSubrange(0..<8, with: TestMemory.le([0x1000, 0x2000, 0x3000, 0x4000, 0x5000][random.below(5)], 8))
        }
      }
      let request = read(memory)
      if request.refusal != nil { refused += 1 }
      #expect(request.request.options.reduce(request.request.body.count) { $0 + 24 + $1.bytes.count } <= 4096)
      memory.write(request.writeBack(errno: request.refusal?.code.rawValue ?? 0))
    }
    #expect(refused > 2000 && refused < 19_000)
  }
}
