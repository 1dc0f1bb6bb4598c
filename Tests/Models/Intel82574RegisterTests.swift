// The 82574L's model by itself: what the datasheet promises of its registers.

import DMAMemory
import DeviceIO
import ModelKit
import PCI
import Testing
import Wire

@testable import Models

@Suite struct Intel82574RegisterTests {
  let bench: Card82574
  var model: E1000eModel { bench.model }
  init() throws { bench = try Card82574() }

  @Test func resetEndsByItselfAndLoadsTheAddress() {
    bench[0x5400] = 0x1234
    bench[0] = 1 << 26
    #expect(bench[0] & 1 << 26 != 0)
    #expect(bench[0] & 1 << 26 == 0)
    #expect(bench[0x5400] == 0x1200_5452)
    #expect(bench[0x5404] == 0x8000_5634)
    #expect(model.resets == 1)
    // Whoever changes another bit of CTRL later does not reset the card again.
    bench[0] = 1 << 26
    _ = bench[0x10]
    bench[0] = bench[0] | 1 << 6
    #expect(model.resets == 2)
    // The configuration is read a little later.
    #expect(bench[0x10] & 1 << 9 == 0)
    var reads = 0
    while bench[0x10] & 1 << 9 == 0, reads < 100 { reads += 1 }
    #expect(reads < 100)
  }

  @Test func tailsAreDoorbellsAndOtherRegistersAreToo() {
    bench.registers.doorbell(at: 0x3818)?.ring(7)
    #expect(bench[0x3818] == 7)
    #expect(bench.registers.read32(at: 0x20000) == .max)
    #expect(bench.registers.read32(at: 2) == .max)
  }

  @Test func aGoneCardReadsAllOnes() {
    model.inject(.gone)
    for offset in [0, 8, 0xc0, 0x4000, 0x2818] { #expect(bench[offset] == .max) }
    #expect(bench.card.readConfig16(at: 0) == .max)
    #expect(bench.card.isGone)
    model.inject(.none)
    #expect(bench.card.readConfig16(at: 2) == 0x10d3)
  }

  @Test func wideCountersClearWithTheirHighHalf() {
    model.tallyWide(0x4088, 0x1_0000_0005)
    #expect(bench[0x4088] == 5)
    #expect(bench[0x4088] == 5)
    #expect(bench[0x408c] == 1)
    #expect(bench[0x4088] == 0)
  }

  /// Microsoft's verification suite for receive-side scaling: published key, inputs and results; here
  /// through the registers and a frame.
  @Test func theHashIsTheOneEverybodyComputes() throws {
    let key: [UInt8] = [
      0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
      0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
      0x01, 0xfa,
    ]
    bench.start()
    for i in 0..<10 {
      bench[0x5c80 + i * 4] = (0..<4).reduce(UInt32(0)) { $0 | UInt32(key[i * 4 + $1]) << UInt32(8 * $1) }
    }
    // Queue 1 for the hash's low bits 0x78 and nothing else.
    bench[0x5c00 + 0x78] = 0x80
    bench[0x5000] = 1 << 13
    bench[0x5818] = 1 | 1 << 16 | 1 << 17
    let addresses: [UInt8] = [66, 9, 149, 187, 161, 142, 100, 80]
    func frame(_ transport: UInt8) -> [UInt8] {
      Ethernet.header(to: Card82574.station, from: MACAddress(2, 0, 0, 0, 0, 1), type: 0x0800)
        + [0x45, 0, 0, 40, 0, 0, 0, 0, 64, transport, 0, 0] + addresses
        + [0x0a, 0xea, 0x06, 0xe6, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }
    bench.arrive(frame(6))
    bench.arrive(frame(17))
    let first = bench.received(1), second = bench.received(0)
    try #require(first.count == 1 && second.count == 1)
    #expect(first[0].hash == 0x51cc_c178)
    #expect(first[0].low & 0xffff_ffff == 1 << 8 | 1)
    #expect(second[0].hash == 0x323e_8fc2)
    #expect(second[0].low & 0xffff_ffff == 2)
  }
}

/// The register test of Linux's ethtool writes these patterns and wants exactly these bits back.
@Suite struct Intel82574PatternTests {
  static let registers: [(offset: Int, mask: UInt32)] = [
    (0x28, .max), (0x2c, 0xffff), (0x30, 0xffff), (0x38, 0xffff), (0x2820, 0xffff), (0x2804, .max), (0x2808, 0xf_ff80),
    (0x2810, 0xffff), (0x2818, 0xffff), (0x2168, 0xfff8), (0x170, 0xffff), (0x410, 0x3fff_ffff), (0x3804, .max),
    (0x3808, 0xf_ff80), (0x2800, 0xffff_fff0), (0x178, 0xffff), (0x3800, 0xffff_fff0), (0x3820, 0xffff),
    (0x5404, 0x8003_ffff), (0x547c, 0x8003_ffff), (0x5200, .max), (0x53fc, .max), (0x5600, .max),
  ]

  @Test(arguments: [InProcessCard.Mode.trapped])
  func onlyTheBitsThatExistAreKept(mode: InProcessCard.Mode) throws {
    let bench = try Card82574(mode: mode)
    for (offset, mask) in Intel82574PatternTests.registers {
      for pattern: UInt32 in [0x5a5a_5a5a, 0xa5a5_a5a5, 0, .max] {
        // FCRTH has a bit 31 of its own, and RDTR's flushes.
        let written = pattern & (offset == 0x2168 || offset == 0x178 ? 0xffff : .max)
        bench[offset] = written
        #expect(bench[offset] == written & mask, "register \(String(offset, radix: 16))")
      }
    }
  }

  @Test func statusCannotBeWritten() throws {
    let bench = try Card82574()
    let before = bench[8]
    bench[8] = 0x7fff_f033
    #expect(bench[8] & 0x7fff_f033 == before & 0x7fff_f033)
  }

  @Test(arguments: [(0x40, 0x5400), (0x110, 0x2800), (0x148, 0x2910), (0x200, 0x5200), (0x438, 0x3818), (0x600, 0x5600)])
  func olderOffsetsAreTheSameRegisters(alias: Int, offset: Int) throws {
    let bench = try Card82574()
    bench[alias] = 0x1230
    #expect(bench[offset] == 0x1230)
    bench[offset] = 0x4560
    #expect(bench[alias] == 0x4560)
  }

  @Test func narrowAccessesReadAPartAndWriteNothing() throws {
    let bench = try Card82574()
    bench[0x28] = 0x1122_3344
    #expect(bench.registers.read8(at: 0x29) == 0x33)
    #expect(bench.registers.read16(at: 0x2a) == 0x1122)
    bench.registers.write8(0xff, at: 0x28)
    #expect(bench[0x28] == 0x1122_3344)
    #expect(bench.model.bus.complaintCount == 1)
  }

  @Test func configurationSpaceLeadsToEveryCapability() throws {
    let space = try Card82574().model.configuration
    var found: [UInt8: Int] = [:], at = Int(space.read(0x34, 1))
    while at != 0, found.count < 16 {
      found[UInt8(space.read(at, 1))] = at
      at = Int(space.read(at + 1, 1))
    }
    #expect(found == [0x01: 0xc8, 0x05: 0xd0, 0x10: 0xe0, 0x11: 0xa0])
    #expect(space.read(0xa2, 2) & 0x7ff == 4)
    #expect(space.read(0xa4, 4) == 3 && space.read(0xa8, 4) == 0x2003)
    #expect(space.read(0xf0, 2) == 0x43)
    // The size of BAR0 is asked for by writing ones.
    space.write(.max, 0x10, 4)
    #expect(space.read(0x10, 4) == 0xfffe_0000)
    space.write(.max, 0x14, 4)
    #expect(space.read(0x14, 4) == 0xfffe_0000)
    space.write(.max, 0x1c, 4)
    #expect(space.read(0x1c, 4) == 0xffff_c000)
  }

  @Test func aFunctionResetBringsEverythingBackButTheNonVolatileMemory() throws {
    let bench = try Card82574()
    bench[0x100] = 2
    bench[0xd0] = 4
    bench[0x102c] = 0xbeef << 16 | 0x20 << 2 | 1
    #expect(bench[0x102c] & 2 != 0)
    try bench.card.reset()
    #expect(bench[0x100] == 0)
    #expect(bench[0xd0] == 0)
    bench[0x14] = 0x20 << 2 | 1
    #expect(bench[0x14] >> 16 == 0xbeef)
    #expect(!bench.card.isBusMaster)
  }

  /// SYSTIM: the increment is added once in each period of 40 nanoseconds.
  @Test func theSystemTimeGoesOn() throws {
    let bench = try Card82574()
    #expect(bench[0xb600] == 0)
    bench[0xb608] = 1 << 24 | 1000
    bench.card.advance(nanoseconds: 4000)
    #expect(bench[0xb600] == 100 * 1000)
    bench[0xb608] = 2 << 24 | 1000
    bench.card.advance(nanoseconds: 4000)
    #expect(bench[0xb600] == 150 * 1000)
    bench[0xb604] = 5
    #expect(bench[0xb604] == 5)
  }
}
