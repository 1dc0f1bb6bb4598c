// Formats: registers, descriptors, and the record layout that the packet path relies on.

import DeviceIO
import DriverKit
import Packet
import Testing

@testable import E1000e

@Suite struct FormatTests {
  /// The packet path stores hash and VLAN tag, and reads flags and header lengths, as 64-bit words.
  @Test func theRecordIsLaidOutAsThePacketPathExpects() {
    #expect(MemoryLayout<PacketRecord>.offset(of: \.length) == 32)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.offset) == 34)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.hash) == 40)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.vlan) == 44)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.interface) == 46)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.flags) == 48)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.headerLengths) == 52)
    #expect(PacketFlags.vlan.rawValue == 1)
    #expect(PacketFlags.hashed.rawValue == 2)
  }

  @Test func receiveDescriptorsAreReadWhereTheDatasheetSays() {
    let memory = UnsafeMutablePointer<UInt64>.allocate(capacity: 4)
    defer { unsafe memory.deallocate() }
    for i in 0..<4 { unsafe (memory + i).initialize(to: 0) }
    // 7.1.5.2: hash 0xcafe0001 of type 1; VLAN 0x1234, length 1514, IP and layer 4 checked, UDP.
    unsafe memory[2] = 0xcafe_0001_0000_0101
    unsafe memory[3] = 0x1234_05ea_0000_0073
    let ring = unsafe DescriptorWindow(unsafe: UnsafeMutableRawPointer(memory))
    var descriptor = unsafe ReceiveDescriptor(ring, 0)
    #expect(unsafe !descriptor.status.isDone)
    unsafe descriptor.advance()
    #expect(unsafe descriptor.status.isDone && descriptor.status.isLast && descriptor.status.isPlain)
    #expect(unsafe descriptor.length == 1514)
    #expect(unsafe descriptor.vlanTag == 0x1234)
    #expect(unsafe descriptor.hash == 0xcafe_0001)
    #expect(unsafe descriptor.hashType == 1)
    unsafe descriptor.post(0x1_2345_6000)
    #expect(unsafe memory[2] == 0x1_2345_6000)
    #expect(unsafe memory[3] == 0)
  }

  @Test func statusBitsTellDamageFromWrongChecksums() {
    for bit: UInt32 in [24, 25, 26, 28, 31] {
      #expect(ReceiveStatus(3 | 1 << bit).isDamaged)
      #expect(!ReceiveStatus(3 | 1 << bit).isPlain)
    }
    for bit: UInt32 in [29, 30] {
      #expect(!ReceiveStatus(3 | 1 << bit).isDamaged, "a frame with a wrong checksum is delivered and says so")
      #expect(!ReceiveStatus(3 | 1 << bit).isPlain)
    }
    #expect(!ReceiveStatus(1).isPlain && ReceiveStatus(1).isDone)
    #expect(!ReceiveStatus(2).isDone)
  }

  @Test func statusBitsBecomePacketFlags() {
    let table = FlagTable()
    defer { table.deallocate() }
    #expect(table.plain(ReceiveStatus(3)) == 0)
    #expect(table.plain(ReceiveStatus(0x0b)) == PacketFlags.vlan.rawValue)
    #expect(table.plain(ReceiveStatus(0x73)) == PacketFlags([.ipChecksum, .udpChecksum]).rawValue)
    #expect(table.plain(ReceiveStatus(0x63)) == PacketFlags([.ipChecksum, .tcpChecksum]).rawValue)
    // IXSM: the other bits mean nothing.
    #expect(table.plain(ReceiveStatus(0x77)) == 0)
    #expect(table.any(ReceiveStatus(0x63 | 1 << 29)) == PacketFlags([.ipChecksum, .badChecksum]).rawValue)
    #expect(table.any(ReceiveStatus(0x63 | 1 << 30)) == PacketFlags([.badChecksum, .tcpChecksum]).rawValue)
    #expect(table.hashed(0) == 0)
    for type in 1..<16 { #expect(table.hashed(type) == PacketFlags.hashed.rawValue) }
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
