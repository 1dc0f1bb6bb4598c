import NetmapAPI
import NetmapCore
import Testing

@testable import NetmapPorts

/// `#expect` cannot look into noncopyable values, and is slow in long loops.
func check(_ condition: Bool, _ comment: @autoclosure () -> String = "", at location: SourceLocation = #_sourceLocation) {
  if !condition { Issue.record("\(comment())", sourceLocation: location) }
}

/// Numbers from a seed.
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  init(_ seed: UInt64) { state = seed &* 0x9e37_79b9_7f4a_7c15 | 1 }
  mutating func next() -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return state &* 0x2545_f491_4f6c_dd1d
  }
  mutating func below(_ n: Int) -> Int { n <= 0 ? 0 : Int(next() % UInt64(n)) }
  mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
}

extension NetmapTestSystem {
  /// A system that knows pipes, monitors and null ports as well.
  static func complete(buffers: Int = 16384) throws -> NetmapTestSystem {
    try NetmapTestSystem(buffers: buffers, software: true)
  }

  func pipe(
    _ name: String, slots: UInt32 = 64, rings: (UInt16, UInt16) = (1, 1), _ mode: RegisterMode = .allNIC, _ flags: RegisterFlags = [],
    offsets: OffsetsOption? = nil, memory: UInt16 = 0
  ) throws(NetmapError) -> NetmapPort {
    var register = RegisterRequest()
    (register.transmitSlots, register.receiveSlots) = (slots, slots)
    (register.transmitRings, register.receiveRings) = rings
    // The global region, unless another one is asked for: it outlives the ports, and tells what they left.
    register.memoryID = memory == 0 ? 1 : memory == .max ? 0 : memory
    return try system.register(PortRequest(name, RingSelection(mode, flags: flags), register: register, offsets: offsets))
  }

  func expectAllBack(_ location: SourceLocation = #_sourceLocation) throws {
    #expect(try inUse() == [0, 0, 0], sourceLocation: location)
    let leaks = try system.memory.global().allocator.statistics[2]
    #expect(leaks.doubleFrees == 0 && leaks.foreignFrees == 0, sourceLocation: location)
  }
}

/// What a test sends: a number in the first bytes of each fragment, and lengths that follow from it.
enum TestFrame {
  /// Puts a frame of `fragments` slots behind head; there is room for it.
  static func put(_ ring: NetmapProgramRing, _ number: UInt64, fragments: Int = 1, offset: Int = 0) {
    var i = ring.head
    for part in 0..<fragments {
      var slot = ring.slot(i)
      slot.length = UInt16(length(number, part))
      slot.flags = part + 1 < fragments ? .moreFragments : []
      if offset > 0 { slot.pointer = UInt64(offset) }
      ring.setSlot(i, slot)
      unsafe ring.withBuffer(slot.bufferIndex) { unsafe $0.storeBytes(of: number &* 64 &+ UInt64(part), toByteOffset: offset, as: UInt64.self) }
      i = ring.next(i)
    }
    ring.setHead(i)
  }

  static func length(_ number: UInt64, _ part: Int) -> Int { 60 + Int((number &* 7 &+ UInt64(part)) % 1400) }

  /// Takes the frame at head, if one is there: its number and fragments. A fragment that is not what was sent is an issue.
  static func take(_ ring: NetmapProgramRing, offset: Int = 0, at location: SourceLocation = #_sourceLocation) -> (number: UInt64, fragments: Int)? {
    guard ring.head != ring.tail else { return nil }
    var i = ring.head, part = 0, number: UInt64 = 0, more = true
    while more {
      guard i != ring.tail else {
        check(false, "a packet without its end", at: location)
        break
      }
      let slot = ring.slot(i)
      let stamp = unsafe ring.withBuffer(slot.bufferIndex) { unsafe $0.load(fromByteOffset: offset, as: UInt64.self) }
      if part == 0 { number = stamp / 64 }
      check(stamp == number &* 64 &+ UInt64(part), "frame \(number), part \(part): \(stamp / 64).\(stamp % 64)", at: location)
      check(Int(slot.length) == length(number, part), "length \(slot.length) of frame \(number)", at: location)
      more = slot.flags.contains(.moreFragments)
      part += 1
      i = ring.next(i)
    }
    ring.setHead(i)
    return (number, part)
  }
}
