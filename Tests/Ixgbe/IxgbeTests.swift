// Formats: registers and their bits where the datasheet has them.

import DeviceIO
import DriverKit
import Testing

@testable import Ixgbe

@Suite struct FormatTests {
  @Test func matchesNameTheFamily() {
    let ids = Set(IxgbeDriver.matches.map(\.device))
    #expect(ids.isSuperset(of: [0x10fb, 0x10f7, 0x10f8, 0x10f9, 0x10fc, 0x1507, 0x1514, 0x1517, 0x1529, 0x152a]))
    #expect(ids.isSuperset(of: [0x154a, 0x154d, 0x1557, 0x1558, 0x1528, 0x1560]))
    #expect(IxgbeDriver.matches.allSatisfy { $0.vendor == 0x8086 && !$0.model.isEmpty })
    #expect(ids.count == IxgbeDriver.matches.count)
    #expect(Part.of(vendor: 0x8086, device: 0x10fb)?.media == .sfp)
    #expect(Part.of(vendor: 0x8086, device: 0x10f7)?.media == .backplane)
    #expect(Part.of(vendor: 0x8086, device: 0x1528)?.isX540 == true)
    #expect(Part.of(vendor: 0x8086, device: 0x10d3) == nil)
    #expect(Part.of(vendor: 0x1af4, device: 0x10fb) == nil)
  }

  @Test func linkModesLieWhereTheDatasheetSays() {
    // 8.2.3.22.19: LMS in bits 15 to 13.
    #expect(Autoc(rawValue: 0).with(.tenGigabitSerial).rawValue == 0x6000)
    #expect(Autoc(rawValue: 0xe000).with(.gigabitNegotiated).rawValue == 0x4000)
    #expect(Autoc(rawValue: 0xc09c_6004).with(.tenGigabitSerial).rawValue == 0xc09c_6004)
    #expect(Autoc(rawValue: 0xc000).mode == .backplaneGigabit)
    #expect(Autoc.modeTopBit.rawValue == 0x8000)
  }

  @Test func speedsAreRead() {
    #expect(Links(rawValue: 0x7000_0000).speed == 10000)
    #expect(Links(rawValue: 0x6000_0000).speed == 1000)
    #expect(Links(rawValue: 0x5000_0000).speed == 100)
    #expect(Links(rawValue: 0x4000_0000).speed == 0)
    #expect(Links(rawValue: 0x4000_0000).contains(.up))
  }

  @Test func bufferSizesAreWholeKilobytes() {
    #expect(Srrctl.bufferSize(2047) == nil)
    #expect(Srrctl.bufferSize(2048)?.bits.rawValue == 2)
    #expect(Srrctl.bufferSize(3000)?.size == 2048)
    #expect(Srrctl.bufferSize(9216)?.bits.rawValue == 9)
    #expect(Srrctl.bufferSize(65536)?.size == 16384)
    #expect(Srrctl.oneBuffer.rawValue == 0x0200_0000)
  }

  @Test func managementCommandsMatchTheDatasheet() {
    // 8.2.3.22.11: register in the low half, device above it, the operation in bits 27 and 26.
    #expect(Msca.command(.address, device: 7, register: 0xc400).rawValue == 0x4007_c400)
    #expect(Msca.command(.write, device: 30, register: 0).rawValue == 0x441e_0000)
    #expect(Msca.command(.read, device: 1, register: 2).rawValue == 0x4c01_0002)
  }

  @Test func semaphoreBitsComeInPairs() {
    #expect(SharedResources.nonVolatileMemory.ofFirmware.rawValue == 0x20)
    #expect(SharedResources.phy(0).rawValue == 2)
    #expect(SharedResources.phy(1).rawValue == 4)
    #expect(SharedResources.macRegisters.ofFirmware.rawValue == 0x100)
  }

  @Test func causesOfVectorsAreTheLowHalf() {
    #expect(Cause.vector(0).rawValue == 1)
    #expect(Cause.vector(15).rawValue == 0x8000)
    #expect(Cause.vector(16) == [], "the control vector has no cause of its own")
    #expect(Cause.linkChange.rawValue == 0x10_0000)
  }
}
