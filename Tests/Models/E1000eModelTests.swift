// The 82574L's model by itself: what the datasheet promises, asked of the registers directly.

import DMAMemory
import DeviceIO
import PCI
import Testing
import Wire

@testable import Models

/// Memory that is mapped for a model.
@safe private final class Lent {
  let base = UnsafeMutableRawPointer.allocate(byteCount: 65536, alignment: 4096)
  let iova = IOVA(rawValue: 0x40_0000)
  init(_ model: E1000eModel) throws {
    unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: 65536)
    try model.map(unsafe DMASource(unsafe: base, count: 65536, descriptor: -1, fileOffset: 0), at: iova)
    model.setBusMaster(true)
  }
  deinit { unsafe base.deallocate() }
  /// Byte `i` of the memory as the host sees it.
  subscript(i: Int) -> UInt64 {
    get { unsafe base.load(fromByteOffset: i, as: UInt64.self) }
    set { unsafe base.storeBytes(of: newValue, toByteOffset: i, as: UInt64.self) }
  }
}

@Suite struct E1000eModelTests {
  let model = E1000eModel()
  var registers: E1000eModelRegisters { model.registerFile }

  @Test func resetEndsByItselfAndLoadsTheAddress() {
    registers.write32(0x1234, at: 0x5400)
    registers.write32(1 << 26, at: 0)
    #expect(registers.read32(at: 0) & 1 << 26 != 0)
    #expect(registers.read32(at: 0) & 1 << 26 == 0)
    #expect(registers.read32(at: 0x5400) == 0x1200_5452)
    #expect(registers.read32(at: 0x5404) == 0x8000_5634)
    // The configuration is read a little later.
    #expect(registers.read32(at: 0x10) & 1 << 9 == 0)
    while registers.read32(at: 0x10) & 1 << 9 == 0 {}
  }

  @Test func theNonVolatileMemoryAddsUp() {
    var sum: UInt16 = 0
    for word: UInt32 in 0..<64 {
      registers.write32(word << 2 | 1, at: 0x14)
      let value = registers.read32(at: 0x14)
      #expect(value & 2 != 0)
      sum &+= UInt16(value >> 16)
    }
    #expect(sum == 0xbaba)
  }

  @Test func onlyThePHYAtAddressOneAnswers() {
    registers.write32(2 << 26 | 1 << 21 | 2 << 16, at: 0x20)
    #expect(registers.read32(at: 0x20) & 0x5000_ffff == 0x1000_0141)
    registers.write32(2 << 26 | 2 << 21 | 2 << 16, at: 0x20)
    #expect(registers.read32(at: 0x20) & 1 << 30 != 0)
  }

  @Test func tailsAreMemoryAndOtherRegistersAreNot() {
    #expect(registers.doorbell(at: 0x2818) != nil)
    #expect(registers.doorbell(at: 0x3918) != nil)
    #expect(registers.doorbell(at: 0xd0) == nil)
    registers.doorbell(at: 0x3818)?.ring(7)
    #expect(registers.read32(at: 0x3818) == 7)
    #expect(registers.read32(at: 0x20000) == .max)
    #expect(registers.read32(at: 2) == .max)
  }

  @Test func causesWaitForTheirMask() {
    registers.write32(0x8_0000 | 8, at: 0xe4)
    registers.write32(1 << 20, at: 0xc8)
    #expect(model.interrupts[0] == 0)
    registers.write32(1 << 20, at: 0xd0)
    #expect(model.interrupts[0] == 1)
    // Still set and let through: no second message for the same cause.
    registers.write32(1 << 20, at: 0xd0)
    #expect(model.interrupts[0] == 1)
    #expect(registers.read32(at: 0xc0) == 1 << 20)
    #expect(registers.read32(at: 0xc0) == 0, "reading clears")
  }

  @Test func aGoneCardReadsAllOnes() {
    model.faults.gone = true
    for offset in [0, 8, 0xc0, 0x4000, 0x2818] { #expect(registers.read32(at: offset) == .max) }
    #expect(model.readConfig16(at: 0) == .max)
  }

  @Test func accessesOutsideTheMappingsAreFaults() throws {
    let lent = try Lent(model)
    #expect(model.memory.read(lent.iova.rawValue, 65536)?.count == 65536)
    #expect(model.memory.read(lent.iova.rawValue + 1, 65536) == nil)
    #expect(model.memory.read(lent.iova.rawValue - 1, 1) == nil)
    #expect(!model.memory.write64(1, at: UInt64.max - 3))
    #expect(model.memory.faults == 3)
    model.setBusMaster(false)
    #expect(model.memory.read(lent.iova.rawValue, 1) == nil)
    #expect(model.memory.faults == 4)
    #expect(throws: DMAError.self) {
      try model.map(unsafe DMASource(unsafe: lent.base, count: 4096, descriptor: -1, fileOffset: 0), at: lent.iova)
    }
    try model.unmap(lent.iova, count: 65536)
    #expect(throws: DMAError.self) { try model.unmap(lent.iova, count: 65536) }
  }

  /// Legacy descriptors (7.2.10.1), which our driver does not use, work as well.
  @Test func aLegacyDescriptorIsSentAndReported() throws {
    let lent = try Lent(model)
    for i in 0..<64 { unsafe lent.base.storeBytes(of: UInt8(i), toByteOffset: 4096 + i, as: UInt8.self) }
    registers.write32(UInt32(lent.iova.rawValue), at: 0x3800)
    registers.write32(128, at: 0x3808)
    registers.write32(1 << 1 | 1 << 3, at: 0x400)
    lent[0] = lent.iova.rawValue + 4096
    lent[8] = 64 | 0x0b << 24
    registers.doorbell(at: 0x3818)?.ring(1)
    model.step()
    #expect(model.sent == [E1000eModel.Sent(bytes: (0..<64).map { UInt8($0) }, queue: 0)])
    #expect(lent[8] >> 32 & 1 == 1)
    #expect(registers.read32(at: 0x3810) == 1)
    #expect(registers.read32(at: 0x4080) == 1)
    #expect(registers.read32(at: 0x4080) == 0)
  }

  @Test func wideCountersClearWithTheirHighHalf() {
    registers.tallyWide(0x4088, 0x1_0000_0005)
    #expect(registers.read32(at: 0x4088) == 5)
    #expect(registers.read32(at: 0x4088) == 5)
    #expect(registers.read32(at: 0x408c) == 1)
    #expect(registers.read32(at: 0x4088) == 0)
  }

  /// Microsoft's verification suite for receive-side scaling: published key, inputs and results.
  @Test func theHashIsTheOneEverybodyComputes() {
    let key: [UInt8] = [
      0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
      0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
      0x01, 0xfa,
    ]
    let addresses: [UInt8] = [66, 9, 149, 187, 161, 142, 100, 80]
    #expect(toeplitz(addresses, key: key) == 0x323e_8fc2)
    #expect(toeplitz(addresses + [0x0a, 0xea, 0x06, 0xe6], key: key) == 0x51cc_c178)
  }
}
