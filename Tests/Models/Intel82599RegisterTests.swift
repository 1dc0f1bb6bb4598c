// Registers, non-volatile memory, semaphores and module of the 82599 model.

import ModelKit
import Testing

@testable import Models

/// Registers, non-volatile memory, semaphores, the two-wire bus and the link.
@Suite struct Intel82599RegisterTests {
  @Test func identityAndCapabilities() throws {
    let rig = try Rig599()
    let space = rig.model.configuration
    #expect(space.read(0, 4) == 0x10fb_8086 && space.read(8, 4) >> 8 == 0x020000)
    #expect(rig.model.bars.map(\.index) == [0, 4] && rig.model.bars.map(\.memory.count) == [128 * 1024, 16 * 1024])
    var found: [UInt32: Int] = [:]
    var at = Int(space.read(0x34, 1))
    while at != 0 {
      found[space.read(at, 1)] = at
      at = Int(space.read(at + 1, 1))
    }
    #expect(found[1] != nil && found[5] != nil && found[0x11] == 0x70 && found[0x10] == 0xa0)
    #expect(space.read(0x72, 2) & 0x7ff == 63 && space.read(0x74, 4) == 4 && space.read(0x78, 4) == 0x2004)
  }

  @Test func resetEndsAndBringsDefaults() throws {
    let rig = try Rig599()
    rig.write(0x1234, 0x5080)
    rig.write(1 << 26, 0)
    #expect(rig.read(0) & (1 << 26 | 1 << 3) == 0)
    #expect(rig.read(0x5080) == 0 && rig.read(0x4268) == 1518 << 16 && rig.read(0x2f00) & 8 == 8)
    #expect(rig.model.resets == 1)
    rig.model.inject(.stuckReset)
    rig.write(1 << 26, 0)
    #expect(rig.read(0) & 1 << 26 != 0)
  }

  @Test func busMasteringEndsWhenAsked() throws {
    let rig = try Rig599()
    #expect(rig.read(8) & 1 << 19 != 0)
    rig.write(4, 0)
    #expect(rig.read(8) & 1 << 19 == 0)
    // STATUS takes no writes.
    let before = rig.read(8)
    rig.write(0x7fff_f30f, 8)
    #expect(rig.read(8) == before)
  }

  private func eeprom(_ rig: Rig599, _ at: Int) -> UInt16 {
    rig.write(UInt32(at) << 2 | 1, 0x10014)
    let value = rig.read(0x10014)
    #expect(value & 2 != 0)
    return UInt16(value >> 16)
  }

  @Test func checksumAndAddress() throws {
    let rig = try Rig599()
    var sum = (0..<0x40).reduce(UInt16(0)) { $0 &+ eeprom(rig, $1) }
    for pointer in (3..<0x0f).map({ Int(eeprom(rig, $0)) }) where pointer != 0 && pointer != 0xffff {
      let length = Int(eeprom(rig, pointer))
      guard length != 0, length != 0xffff else { continue }
      for word in 1...length { sum &+= eeprom(rig, pointer + word) }
    }
    #expect(sum == 0xbaba)
    #expect(rig.read(0xa200) == 0x0000_0002 && rig.read(0xa204) == 0x8000_0100)
    #expect(rig.read(0x5400) == rig.read(0xa200) && rig.read(0x5404) == rig.read(0xa204))
    rig.write(0xffff_ffff, 0x540c)
    #expect(rig.read(0xa20c) == 0x8000_ffff)
  }

  @Test func nonVolatileMemoryHasWhatDriversLookFor() throws {
    let rig = try Rig599()
    // Part number behind its guard; a sequence for modules 3 to 6; a firmware version above 5.
    #expect(eeprom(rig, 0x15) == 0xfafa)
    let part = Int(eeprom(rig, 0x16)), length = Int(eeprom(rig, part))
    #expect(length == 6 && eeprom(rig, part + 1) == 0x5257)
    let list = Int(eeprom(rig, 0x2b))
    var modules: [UInt16] = []
    var at = list + 1
    while eeprom(rig, at) != 0xffff {
      modules.append(eeprom(rig, at))
      let data = Int(eeprom(rig, at + 1))
      #expect(data != 0 && data != 0xffff && eeprom(rig, data + 1) != 0xffff)
      at += 2
    }
    #expect(modules == [3, 4, 5, 6])
    let firmware = Int(eeprom(rig, 0x0f)), patch = Int(eeprom(rig, firmware + 4))
    #expect(eeprom(rig, patch + 7) > 5)
    rig.write(0x1234 << 16 | 0x80 << 2 | 1, 0x10018)
    #expect(eeprom(rig, 0x80) == 0x1234)
  }

  @Test func semaphores() throws {
    let rig = try Rig599()
    #expect(rig.read(0x10140) & 1 == 0)
    #expect(rig.read(0x10140) & 1 == 1)
    rig.write(2, 0x10140)
    #expect(rig.read(0x10140) == 2)
    rig.write(5, 0x10160)
    #expect(rig.read(0x10160) == 5)
  }

  @Test func managementBusAnswersAtOnce() throws {
    let rig = try Rig599()
    rig.write(1 << 30 | 3 << 26 | 1 << 16 | 2, 0x425c)
    #expect(rig.read(0x425c) & 1 << 30 == 0 && rig.read(0x4260) >> 16 == 0xffff)
  }

  /// The test's own initiator: lines are let go (1) or pulled low (0).
  private struct Initiator {
    let rig: Rig599
    func lines(_ clock: Bool, _ data: Bool) { rig.write((clock ? 2 : 0) | (data ? 8 : 0), 0x28) }
    var data: Bool { rig.read(0x28) & 4 != 0 }
    func start() {
      lines(true, true)
      lines(true, false)
      lines(false, false)
    }
    func stop() {
      lines(false, false)
      lines(true, false)
      lines(true, true)
    }
    func send(_ byte: UInt8) -> Bool {
      for bit in (0..<8).reversed() {
        let value = byte >> UInt8(bit) & 1 == 1
        lines(false, value)
        lines(true, value)
        lines(false, value)
      }
      lines(false, true)
      lines(true, true)
      let isAcknowledged = !data
      lines(false, true)
      return isAcknowledged
    }
    func take(acknowledge: Bool) -> UInt8 {
      var byte: UInt8 = 0
      for _ in 0..<8 {
        lines(false, true)
        lines(true, true)
        byte = byte << 1 | (data ? 1 : 0)
        lines(false, true)
      }
      lines(false, !acknowledge)
      lines(true, !acknowledge)
      lines(false, !acknowledge)
      lines(false, true)
      return byte
    }
    func read(_ offset: UInt8, _ count: Int = 1, device: UInt8 = 0xa0) -> [UInt8]? {
      start()
      guard send(device), send(offset) else {
        stop()
        return nil
      }
      start()
      guard send(device | 1) else { return nil }
      let bytes = (0..<count).map { take(acknowledge: $0 < count - 1) }
      stop()
      return bytes
    }
  }

  @Test func moduleIsReadOverTwoWires() throws {
    let rig = try Rig599()
    let bus = Initiator(rig: rig)
    #expect(bus.read(0) == [3] && bus.read(3) == [0x10] && bus.read(37, 3) == [0, 0x1b, 0x21])
    #expect(bus.read(20, 7) == Array("RINGWAY".utf8))
    #expect(bus.read(0, device: 0xb0) == nil)
    rig.model.setModule(.passiveCable)
    #expect(bus.read(8) == [4] && bus.read(3) == [0])
    rig.model.setModule(.otherVendor)
    #expect(bus.read(37, 3) != [0, 0x1b, 0x21])
    let page = Intel82599Module.longRange.memory
    #expect(page[63] == page[0..<63].reduce(0, &+) && page[95] == page[64..<95].reduce(0, &+))
    #expect(rig.read(0x20) & 4 != 0)
    rig.model.setModule(.absent)
    #expect(bus.read(0) == nil && rig.read(0x20) & 4 == 0)
  }

  @Test func linkFollowsModuleCableAndMode() throws {
    let rig = try Rig599()
    func isUp() -> Bool { rig.read(0x42a4) & 1 << 30 != 0 }
    #expect(isUp() && rig.read(0x42a4) >> 28 & 3 == 3)
    rig.model.setLink(up: false)
    #expect(!isUp())
    rig.model.setLink(up: true)
    #expect(isUp())
    rig.model.setModule(.gigabitCopper)
    #expect(!isUp())
    // AUTOC: 1 Gb/s without negotiation.
    rig.write(0xc09c_0004 | 1 << 12, 0x42a0)
    #expect(isUp() && rig.read(0x42a4) >> 28 & 3 == 2 && rig.read(0x42a0) & 1 << 12 == 0)
    rig.model.setModule(.absent)
    #expect(!isUp())
    rig.write(0xc09c_6005, 0x42a0)
    #expect(isUp(), "forced")
  }

  @Test func linkTakesItsTime() throws {
    let rig = try Rig599(linkDelay: 5_000_000)
    #expect(rig.read(0x42a4) & 1 << 30 == 0 && rig.model.deadline == 5_000_000)
    rig.card.advance(nanoseconds: 4_999_999)
    #expect(rig.read(0x42a4) & 1 << 30 == 0)
    rig.card.advance(nanoseconds: 1)
    #expect(rig.read(0x42a4) & 1 << 30 != 0 && rig.read(0x808) & 1 << 20 != 0)
  }

  @Test func backplaneCardNeedsNoModule() throws {
    let rig = try Rig599(device: 0x10f7)
    #expect(rig.read(0x42a4) >> 30 == 3 && rig.read(0x42a4) >> 28 & 3 == 3)
  }

  /// What a register test of a driver writes, and what has to come back.
  @Test func maskedRegisters() throws {
    let rig = try Rig599()
    let tests: [(at: Int, count: Int, stride: Int, mask: UInt32)] = [
      (0x3220, 1, 4, 0x8007_fff0), (0x3260, 1, 4, 0x8007_fff0), (0x3008, 1, 4, .max), (0x3200, 1, 4, .max),
      (0x1000, 4, 64, 0xffff_ff80), (0x1004, 4, 64, .max), (0x1008, 4, 64, 0xf_ff80), (0x1018, 4, 64, 0xffff),
      (0x6000, 4, 64, 0xffff_ff80), (0x6004, 4, 64, .max), (0x6008, 4, 64, 0xf_ff80), (0x5200, 128, 4, .max),
      (0x5400, 16, 8, .max), (0x5404, 16, 8, 0x8000_ffff),
    ]
    for (at, count, stride, mask) in tests {
      for index in 0..<count {
        for pattern in [0x5a5a_5a5a, 0xa5a5_a5a5, 0, UInt32.max] {
          let place = at + index * stride
          rig.write(at == 0x3220 || at == 0x3260 ? pattern & mask : pattern, place)
          #expect(rig.read(place) == pattern & mask, "register \(String(place, radix: 16))")
        }
      }
    }
  }

  @Test func goneCardReadsOnes() throws {
    let rig = try Rig599()
    rig.model.inject(.gone)
    #expect(rig.read(8) == .max && rig.read(0x42a4) == .max && rig.card.step() == 0)
    rig.model.inject(.none)
    #expect(rig.read(8) != .max)
  }

  @Test func randomRegistersRepeatBySeed() throws {
    func values(_ seed: UInt64) throws -> [UInt32] {
      let rig = try Rig599()
      rig.model.inject(.randomRegisters(seed: seed))
      return (0..<8).map { rig.read([8, 0x42a4, 0x4074, 0x800][$0 & 3]) }
    }
    #expect(try values(1) == values(1) && values(1) != values(2))
  }
}
