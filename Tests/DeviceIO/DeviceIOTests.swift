import Testing

@testable import DeviceIO

/// A space that writes down every access.
final class Recorder: RegisterSpace {
  var memory: [Int: UInt32] = [:]
  var log: [String] = []
  let count = 0x1000
  func read8(at offset: Int) -> UInt8 { UInt8(truncatingIfNeeded: read32(at: offset)) }
  func read16(at offset: Int) -> UInt16 { UInt16(truncatingIfNeeded: read32(at: offset)) }
  func read32(at offset: Int) -> UInt32 {
    log.append("r\(offset)")
    return memory[offset] ?? 0
  }
  func write8(_ value: UInt8, at offset: Int) { write32(UInt32(value), at: offset) }
  func write16(_ value: UInt16, at offset: Int) { write32(UInt32(value), at: offset) }
  func write32(_ value: UInt32, at offset: Int) {
    log.append("w\(offset)=\(value)")
    memory[offset] = value
  }
  func doorbell(at offset: Int) -> Doorbell? { nil }
}

struct Bits: OptionSet, Sendable {
  let rawValue: UInt32
  static let on = Bits(rawValue: 1)
  static let go = Bits(rawValue: 4)
}

/// Time that passes only when somebody sleeps.
final class ManualClock: TimeSource, @unchecked Sendable {
  var time: UInt64 = 0
  var sleeps = 0
  func now() -> UInt64 { time }
  func sleep(nanoseconds: UInt64) {
    time += nanoseconds
    sleeps += 1
  }
}

@Suite struct RegisterTests {
  let control = Register<Bits>("CONTROL", 0x10)
  let table = Register<Plain>("TABLE", 0x100)

  @Test func modifyIsOneLoadAndOneStore() {
    let space = Recorder()
    space.memory[0x10] = 2
    space.modify(control) { $0.formUnion([.on, .go]) }
    #expect(space.log == ["r16", "w16=7"])
  }

  @Test func arraysOfRegistersAreStrided() {
    let space = Recorder()
    space.write(Plain(9), to: table, index: 3, stride: 8)
    #expect(space.memory[0x118] == 9)
    #expect(space.read(table, index: 3, stride: 8) == 9)
    #expect(space.read(table, index: 3) == 0)
  }
}

@Suite struct MMIOTests {
  /// 64 bytes of memory as a BAR.
  @safe final class Memory {
    let base = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 64)
    init() { unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: 64) }
    deinit { unsafe base.deallocate() }
  }
  let memory = Memory()
  var space: MMIOSpace { unsafe MMIOSpace(unsafe: memory.base, count: 64, owner: memory) }

  @Test func accessesAreLittleEndianAndAsWideAsTheySay() {
    space.write32(0x1122_3344, at: 8)
    #expect(space.read8(at: 8) == 0x44)
    #expect(space.read16(at: 10) == 0x1122)
    space.write16(0xaabb, at: 8)
    #expect(space.read32(at: 8) == 0x1122_aabb)
    space.write8(0xff, at: 11)
    #expect(space.read32(at: 8) == 0xff22_aabb)
  }

  @Test(arguments: [64, 61, 62, 2, 3, -4, Int.min, Int.max])
  func outsideOrMisalignedReadsAllOnesAndWritesNothing(offset: Int) {
    #expect(space.read32(at: offset) == .max)
    space.write32(7, at: offset)
    #expect((0..<16).allSatisfy { space.read32(at: $0 * 4) == 0 })
    #expect(space.doorbell(at: offset) == nil)
  }

  @Test func aDoorbellStoresWhereItSays() throws {
    let bell = try #require(space.doorbell(at: 12))
    bell.ring(0xdead_beef)
    #expect(space.read32(at: 12) == 0xdead_beef)
    bell.ring16(1)
    #expect(space.read32(at: 12) == 0xdead_0001)
  }

  @Test func aSubSpaceStaysInsideItsParent() throws {
    #expect(SubSpace(space, offset: 60, count: 8) == nil)
    #expect(SubSpace(space, offset: -1, count: 8) == nil)
    #expect(SubSpace(space, offset: Int.max, count: 8) == nil)
    let part = try #require(SubSpace(space, offset: 16, count: 8))
    part.write32(5, at: 4)
    #expect(space.read32(at: 20) == 5)
    part.write32(6, at: 8)
    #expect(space.read32(at: 24) == 0)
    #expect(part.read32(at: 8) == .max)
    #expect(part.read16(at: 7) == .max)
    #expect(part.doorbell(at: 5) == nil)
    part.doorbell(at: 0)?.ring(77)
    #expect(space.read32(at: 16) == 77)
  }
}

@Suite struct PollingTests {
  @Test func pollingEndsWhenTheConditionHolds() {
    let clock = ManualClock()
    var asked = 0
    #expect(clock.poll(within: 1000, every: 10) {
      asked += 1
      return asked == 5
    })
    #expect(clock.time == 40_000)
  }

  @Test func pollingHasABound() {
    let clock = ManualClock()
    #expect(!clock.poll(within: 100, every: 10) { false })
    #expect(clock.time == 100_000)
    #expect(clock.sleeps == 10)
  }

  @Test func theConditionIsAskedOnceMoreAfterTheTime() {
    let clock = ManualClock()
    #expect(clock.poll(within: 100, every: 1000) { clock.time > 0 })
  }
}
