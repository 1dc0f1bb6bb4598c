// Messages by chance: mutated, shuffled, and made of nothing. Seeded; what fails is repeated by its seed.

import CRingway
import ModelKit
import Platform
import Testing

@testable import ModelServer

/// SplitMix64.
struct Chance: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

@Suite struct FuzzTests {
  /// Values that sit on edges.
  static let edges: [UInt64] = [0, 1, 3, 4, 7, 8, 16, 31, 32, 64, 0x24, 0xfff, 0x1000, 0x3fff, 0x4000, 0x7fff_ffff, 0xffff_ffff, 1 << 63, .max]

  static func edge(_ chance: inout Chance) -> UInt64 {
    Bool.random(using: &chance) ? edges.randomElement(using: &chance)! : UInt64.random(in: 0...0x2_0000, using: &chance)
  }

  /// A message that is nearly right.
  static func message(_ chance: inout Chance) -> [UInt8] {
    let command = UInt16(UInt64.random(in: 0...17, using: &chance))
    func small(_ limit: UInt64) -> UInt32 { UInt32(UInt64.random(in: 0...limit, using: &chance)) }
    var payload: [UInt8]
    switch command {
    case 1: payload = le16(0) + le16(0) + Array(RawClient.capabilities.utf8) + [0]
    case 2: payload = le32(32) + le32(small(4)) + le64(0) + le64(edge(&chance) << 12) + le64(UInt64(small(8)) << 12)
    case 3: payload = le32(24) + le32(small(3)) + le64(edge(&chance) << 12) + le64(edge(&chance) << 12)
    case 4, 5, 7: payload = le32(small(80)) + le32(0) + le32(small(10)) + le32(0) + le64(0) + le64(0)
    case 8:
      let flags = [0x24, 0x21, 0x22, 0x14, 0x12, 0x11, 0x0c, 0x09].randomElement(using: &chance)! as UInt32
      payload = le32(20) + le32(flags) + le32(small(5)) + le32(small(64)) + le32(small(4)) + [1, 0, 1, 1]
    case 9: payload = le64(edge(&chance)) + le32(small(9)) + le32(small(300))
    case 10:
      let count = small(32)
      payload = le64(edge(&chance)) + le32(small(9)) + le32(count) + (0..<count).map { _ in UInt8(truncatingIfNeeded: chance.next()) }
    case 15: payload = le64(UInt64(small(3))) + (0..<small(80)).map { _ in UInt8(truncatingIfNeeded: chance.next()) }
    default: payload = (0..<small(64)).map { _ in UInt8(truncatingIfNeeded: chance.next()) }
    }
    // One in three is harmed.
    if UInt64.random(in: 0..<3, using: &chance) == 0, !payload.isEmpty {
      switch UInt64.random(in: 0..<3, using: &chance) {
      case 0: payload[Int.random(in: payload.indices, using: &chance)] = UInt8(truncatingIfNeeded: chance.next())
      case 1: payload.removeLast(Int.random(in: 0...payload.count, using: &chance))
      default:
        let at = Int.random(in: 0...max(payload.count - 8, 0), using: &chance)
        let value = le64(edge(&chance))
        for i in 0..<8 where at + i < payload.count { payload[at + i] = value[i] }
      }
    }
    let flags: UInt32 = UInt64.random(in: 0..<8, using: &chance) == 0 ? 0x10 : 0
    return RawClient.header(id: UInt16(truncatingIfNeeded: chance.next()), command, size: 16 + payload.count, flags: flags) + payload
  }

  static let greeting = RawClient.header(id: 0, 1, size: 16 + 4 + RawClient.capabilities.utf8.count + 1) + le16(0) + le16(0)
    + Array(RawClient.capabilities.utf8) + [0]

  /// What a well-formed stream of answers is.
  private func expectAnswers(_ answers: [UInt8], seed: UInt64) {
    var at = 0
    while at < answers.count {
      guard let header = MessageHeader(answers[at...]) else { return check(false, "half an answer, seed \(seed)") }
      check(header.isPlausible && header.isReply && at + Int(header.size) <= answers.count, "seed \(seed)")
      if header.flags & 0x20 != 0 { check(header.size == 16 && header.errno > 0 && header.errno < 200, "seed \(seed)") }
      at += Int(header.size)
    }
  }

  @Test(arguments: [AccessMode.trapped, .shared])
  func messagesByChanceWithoutASocket(_ mode: AccessMode) throws {
    let model = try CopyEngine()
    // Both modes run at the same time in one process: each counts its own files.
    let name = "fuzz-\(mode)"
    let end = MonotonicClock().now() + 1_500_000_000
    var seed: UInt64 = 1
    while MonotonicClock().now() < end || seed <= 50 {
      var chance = Chance(state: seed)
      var bytes = FuzzTests.greeting
      for _ in 0..<40 { bytes += FuzzTests.message(&chance) }
      if seed % 5 == 0 { bytes.removeLast(Int.random(in: 0...60, using: &chance)) }
      let answers = ModelServer.serve(bytes: bytes, to: model, mode: mode) { command, number in
        switch command {
        case 2 where number % 3 != 0:
          let file = unsafe rw_memfd_create(name, RW_MFD_CLOEXEC)
          check(file >= 0)
          _ = ftruncate(file, number % 5 == 0 ? 0x1000 : 0x8000)
          return [file]
        case 8 where number % 3 != 0: return (0..<number % 4).map { _ in eventfd(0, Int32(EFD_CLOEXEC)) }
        default: return []
        }
      }
      expectAnswers(answers, seed: seed)
      check(model.bus.memory.windowCount == 0 && model.bus.interruptKind == nil && !model.bus.memory.isBusMaster)
      seed += 1
    }
    #expect(descriptors(named: name) == 0)
    #expect(try mappings(named: name) == 0)
  }

  @Test func aLiveServerOutlivesManyRuinousClients() throws {
    let bench = try ServerBench()
    let file = try memoryFile(0x8000, name: "live-fuzz")
    let event = try EventFD()
    let end = MonotonicClock().now() + 2_000_000_000
    var seed: UInt64 = 1000
    while MonotonicClock().now() < end {
      var chance = Chance(state: seed)
      let client = try RawClient(path: bench.path)
      client.push(FuzzTests.greeting)
      for _ in 0..<30 {
        let message = FuzzTests.message(&chance)
        let command = message[2]
        let passed: [Int32] = command == 2 ? [file.raw] : command == 8 ? [event.descriptor, event.descriptor] : []
        if client.push(message, UInt64.random(in: 0..<4, using: &chance) > 0 ? passed : []) < 0 { break }
      }
      if seed % 4 == 0 { client.push((0..<50).map { _ in UInt8(truncatingIfNeeded: chance.next()) }) }
      client.close()
      seed += 1
    }
    let clients = Int(seed - 1000)
    #expect(eventually { bench.record.left == clients })
    #expect(try bench.connect().register(0) == CopyEngine.identity)
    #expect(descriptors(named: "live-fuzz") == 1)
    #expect(try descriptors(of: event) == 1)
    #expect(try mappings(named: "live-fuzz") == 0)
  }

  @Test func capabilitiesAreReadWithCare() {
    #expect(JSONValue(parsing: Array("{\"a\":[1,-2.5e3,true,null,\"x\"]}".utf8)) == .object(["a": .list([.number(1), .number(-2500), .bool(true), .null, .text("x")])]))
    for text in ["", "{", "{\"a\"}", "{\"a\":}", "[1,]", "tru", "\"x", "\"\\", "{} {}", "-", String(repeating: "[", count: 5000)] {
      #expect(JSONValue(parsing: Array(text.utf8)) == nil, "\(text.prefix(20))")
    }
  }
}
