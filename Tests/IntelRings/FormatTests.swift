// Layouts: descriptor words by hand from the datasheets, and the record the packet path relies on.

import DeviceIO
import Packet
import Testing

@testable import IntelRings

@Suite struct FormatTests {
  /// The packet path stores length and offset, VLAN tag and interface, and reads flags and header
  /// lengths, as wider words.
  @Test func theRecordIsLaidOutAsThePacketPathExpects() {
    #expect(MemoryLayout<PacketRecord>.offset(of: \.length) == 32)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.offset) == 34)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.frameLength) == 36)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.hash) == 40)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.vlan) == 44)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.interface) == 46)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.flags) == 48)
    #expect(MemoryLayout<PacketRecord>.offset(of: \.headerLengths) == 52)
    #expect(PacketFlags.vlan.rawValue == 1)
    #expect(PacketFlags.segmentation.rawValue == 0x40)
  }

  @Test func receiveDescriptorsAreReadWhereTheDatasheetSays() {
    let memory = RingMemory(4)
    // 82576, 7.1.5.2: hash 0xcafe0001 of type 2, IPv4 and UDP; VLAN 0x1234, 1514 bytes, all checked.
    memory[1, 0] = 0xcafe_0001_0000_0212
    memory[1, 1] = 0x1234_05ea_0000_0073
    let first = unsafe ReceiveDescriptor(memory.window, 0), descriptor = unsafe ReceiveDescriptor(memory.window, 1)
    #expect(unsafe !first.status.isDone)
    #expect(unsafe descriptor.status.isDone && descriptor.status.isLast && descriptor.status.isPlain)
    #expect(unsafe descriptor.length == 1514)
    #expect(unsafe descriptor.vlanTag == 0x1234)
    #expect(unsafe descriptor.hash == 0xcafe_0001)
    unsafe descriptor.post(0x1_2345_6000)
    #expect(memory[1, 0] == 0x1_2345_6000 && memory[1, 1] == 0)
  }

  @Test func errorBitsLeaveThePlainPath() {
    for bit: UInt32 in 24...31 { #expect(!ReceiveStatus(3 | 1 << bit).isPlain) }
    #expect(ReceiveStatus(0x7b).isPlain)
    #expect(!ReceiveStatus(1).isPlain && ReceiveStatus(1).isDone)
    #expect(!ReceiveStatus(2).isDone)
  }

  @Test func statusAndTypesBecomePacketFlags() {
    let table = ReceiveFlags()
    defer { table.deallocate() }
    func plain(_ status: UInt32, _ types: UInt32) -> PacketFlags {
      PacketFlags(rawValue: table.plain(ReceiveStatus(status), ReceiveTypes(types)))
    }
    #expect(plain(0x03, 0) == [])
    #expect(plain(0x0b, 0) == .vlan)
    // IPv4 + TCP, hash type 1; IPv4 + UDP, hash type 7.
    #expect(plain(0x63, 0x111) == [.hashed, .ipChecksum, .tcpChecksum])
    #expect(plain(0x73, 0x217) == [.hashed, .ipChecksum, .udpChecksum])
    // IPv6 + TCP has no header checksum.
    #expect(plain(0x23, 0x140) == .tcpChecksum)
    // SCTP was checked; there is no flag for it.
    #expect(plain(0x63, 0x410) == .ipChecksum)
    for type: UInt32 in 1...15 { #expect(plain(0x03, type) == .hashed) }
  }

  @Test func wrongChecksumsAreSaidByFamily() {
    let table = ReceiveFlags()
    defer { table.deallocate() }
    func any(_ status: UInt32, _ types: UInt32, _ family: AdvancedFamily) -> PacketFlags {
      PacketFlags(rawValue: table.any(ReceiveStatus(status), ReceiveTypes(types), family))
    }
    // 82576: IPE bit 30, L4E bit 29. 82599: bits 31 and 30.
    #expect(any(0x63 | 1 << 29, 0x110, .igb) == [.ipChecksum, .badChecksum])
    #expect(any(0x63 | 1 << 30, 0x110, .igb) == [.tcpChecksum, .badChecksum])
    #expect(any(0x63 | 1 << 30, 0x110, .ixgbe) == [.ipChecksum, .badChecksum])
    #expect(any(0x63 | 1 << 31, 0x110, .ixgbe) == [.tcpChecksum, .badChecksum])
    // The 82599 is not believed about UDP; the 82576 is.
    #expect(any(0x73 | 1 << 30, 0x210, .ixgbe) == .ipChecksum)
    #expect(any(0x73 | 1 << 29, 0x210, .igb) == [.ipChecksum, .badChecksum])
  }

  @Test func transmitWordsMatchTheDatasheets() {
    // 82576, 7.2.2.3: DEXT, IFCS and EOP in DCMD, DTYP 3; 82599, 7.2.3.2.4 the same.
    #expect(TransmitWord.single == 0x2330_0000)
    #expect(TransmitWord.reportStatus == 0x0800_0000)
    #expect(TransmitWord.insertVLAN == 0x4000_0000)
    #expect(TransmitWord.segment == 0x8000_0000)
    #expect(TransmitWord.contextType | TransmitWord.extended == 0x2020_0000)
    // POPTS 8 and 9, payload from 14, in the upper half.
    #expect(TransmitWord.ipOption == 0x100 << 32 && TransmitWord.layer4Option == 0x200 << 32)
    #expect(60 * TransmitWord.lengthAndPayload == 60 << 46 | 60)
    #expect(AdvancedFamily.ixgbe.usesContext == 1 << (32 + 7))
  }

  @Test func scalingSpreadsEvenly() {
    let words = ReceiveScaling.tableWords(queues: 4)
    #expect(words.count == 32 && words.allSatisfy { $0 == 0x0302_0100 })
    #expect(ReceiveScaling.tableWords(queues: 1).allSatisfy { $0 == 0 })
    let three = ReceiveScaling.table(queues: 3)
    for queue: UInt8 in 0..<3 { #expect((42...43).contains(three.count { $0 == queue })) }
    // The key repeats every 16 bits: what makes both directions of a connection hash alike.
    for word in ReceiveScaling.keyWords { #expect(word >> 16 == word & 0xffff) }
    #expect(ReceiveScaling.keyWords.count == 10)
  }
}
