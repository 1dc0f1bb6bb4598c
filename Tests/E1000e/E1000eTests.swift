// Formats: registers, descriptors, and the record layout that the packet path relies on.

import DeviceIO
import DriverKit
import Packet
import Testing

@testable import E1000e

@Suite struct FormatTests {
  /// The packet path stores hash and VLAN tag, and reads flags and header lengths, as 64-bit words.
  @Test func theRecordIsLaidOutAsThePacketPathExpects() {
    #expect(MemoryLayout<PacketRecord>.offset(of: \.hash) == 40)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.vlan) == 44)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.interface) == 46)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.flags) == 48)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.headerLengths) == 52)
    #expect(PacketFlags.vlan.rawValue == 1)
    #expect(PacketFlags.hashed.rawValue == 2)
  }

  @Test func receiveWriteBacksAreReadFromOneWord() {
    // 7.1.5.2: VLAN 0x1234, length 1514, IP and layer 4 checked, UDP, done and last.
    let word = ReceiveWriteBack(0x1234_05ea_0000_0073)
    #expect(word.isDone && word.isLast && word.isSingle && !word.isDamaged)
    #expect(word.length == 1514)
    #expect(word.vlanTag == 0x1234)
    #expect(!ReceiveWriteBack(0x1234_05ea_0000_0072).isDone)
    #expect(!ReceiveWriteBack(0x1234_05ea_0000_0071).isSingle)
    for bit: UInt64 in [24, 25, 26, 28, 31] {
      #expect(ReceiveWriteBack(0x40_0000_0003 | 1 << bit).isDamaged)
      #expect(!ReceiveWriteBack(0x40_0000_0003 | 1 << bit).isSingle)
    }
    // A wrong checksum is not damage: the frame is delivered and says so.
    #expect(ReceiveWriteBack(0x40_0000_0003 | 1 << 29 | 1 << 30).isSingle)
  }

  @Test func transmitCommandsMatchTheDatasheet() {
    // 7.2.10: DEXT, IFCS and EOP in DCMD, DTYP 1.
    #expect(TransmitCommand.single == 0x2310_0000)
    #expect(TransmitCommand.reportStatus == 0x0800_0000)
    #expect(TransmitCommand.done == 0x1_0000_0000)
    // 7.2.9: TCP over IPv4 behind a 14-byte header: sums from 14, into 24, up to 33; from 34 into 50.
    let (low, high) = TransmitCommand.context(link: 14, network: 20, ip: true, tcp: true)
    #expect(low == 0x0000_3222_0021_180e)
    #expect(high == 0x2300_0000)
    let (udpLow, udpHigh) = TransmitCommand.context(link: 18, network: 40, ip: false, tcp: false)
    #expect(udpLow == 0x0000_403a_0000_1c12)
    #expect(udpHigh == 0x2000_0000)
  }

  @Test func bufferSizesAreTheCards() {
    #expect(Rctl.bufferSize(2047) == nil)
    #expect(Rctl.bufferSize(2048)?.bits.rawValue == 0)
    #expect(Rctl.bufferSize(3000)?.size == 2048)
    // 10.2.5.1: BSEX with 3, 2, 1 is 4096, 8192, 16384.
    #expect(Rctl.bufferSize(4096)?.bits.rawValue == 1 << 25 | 3 << 16)
    #expect(Rctl.bufferSize(9000)?.bits.rawValue == 1 << 25 | 2 << 16)
    #expect(Rctl.bufferSize(65536)?.bits.rawValue == 1 << 25 | 1 << 16)
  }

  @Test func speedsAreRead() {
    #expect(Status(rawValue: 0).speed == 10)
    #expect(Status(rawValue: 1 << 6).speed == 100)
    #expect(Status(rawValue: 2 << 6).speed == 1000)
    #expect(Status(rawValue: 3 << 6).speed == 1000)
  }
}
