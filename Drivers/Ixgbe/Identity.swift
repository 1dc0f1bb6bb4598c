// Who the card is: its EEPROM and its address (82599 datasheet, 6 and 8.2.3.2).

import DeviceIO
import DriverKit
import Wire

/// Words of the EEPROM (6.1 to 6.4).
enum NVM {
  /// Words 3 to Eh point to sections that the checksum covers.
  static let sections: ClosedRange<UInt16> = 0x03...0x0e
  /// On the X540 these two are not covered (X540 datasheet, 6.2.15).
  static let notCoveredOnX540: Set<UInt16> = [0x04, 0x05]
  static let moduleSequences: UInt16 = 0x2b
  static let capabilities: UInt16 = 0x2c
  static let checksum: UInt16 = 0x3f
  static let sum: UInt16 = 0xbaba
  /// Bit of `capabilities`: the board takes any module.
  static let anyModule: UInt16 = 1
  /// The largest address that EERD takes.
  static let last: UInt16 = 0x3fff
}

extension IxgbeDriver {
  /// One 16-bit word of the EEPROM. The caller holds `.nonVolatileMemory`.
  func readNVM(_ word: UInt16) throws(DriverError) -> UInt16 {
    registers.write(Plain(UInt32(word) << Bits.eerdAddress | Bits.eerdStart), to: Reg.eerd)
    var value: UInt32 = 0
    let done = clock.poll(within: 100_000, every: 5) {
      value = registers.read(Reg.eerd)
      return value & Bits.eerdDone != 0
    }
    guard isPresent || value != .max else { throw lose() }
    guard done, value != .max else { throw .timeout(card: name, waitingFor: "a word of its EEPROM, EERD") }
    return UInt16(truncatingIfNeeded: value >> Bits.eerdData)
  }

  /// Refuses a card whose EEPROM is damaged: its configuration, its address and its analog settings
  /// come from there.
  func checkNVM() throws(DriverError) {
    try holding(.nonVolatileMemory) { () throws(DriverError) in
      var sum: UInt16 = 0
      for word in 0..<NVM.checksum { sum &+= try readNVM(word) }
      for pointer in NVM.sections where !(part.isX540 && NVM.notCoveredOnX540.contains(pointer)) {
        sum &+= try sumOfSection(try readNVM(pointer))
      }
      let stored = try readNVM(NVM.checksum)
      guard sum &+ stored == NVM.sum else {
        throw .device(
          card: name,
          problem: "the checksum of its EEPROM is wrong (it holds 0x\(String(stored, radix: 16)), the contents want "
            + "0x\(String(NVM.sum &- sum, radix: 16))); its maker's tools can write it anew")
      }
    }
  }

  /// A section is its length in words, and so many words (6.2).
  private func sumOfSection(_ start: UInt16) throws(DriverError) -> UInt16 {
    guard start != 0, start < NVM.last else { return 0 }
    let length = try readNVM(start)
    guard length != 0, length < NVM.last - start else { return 0 }
    var sum: UInt16 = 0
    for word in (start + 1)...(start + length) { sum &+= try readNVM(word) }
    return sum
  }

  /// The station address: the card loads it into the first receive address at reset.
  func readAddress() throws(DriverError) -> MACAddress {
    let low = registers.read(Reg.ral), high = registers.read(Reg.rah)
    let loaded = MACAddress(
      bytes: (0..<4).map { UInt8(truncatingIfNeeded: low >> ($0 * 8)) }
        + [UInt8(truncatingIfNeeded: high), UInt8(truncatingIfNeeded: high >> 8)])
    guard let loaded, high & Bits.addressValid != 0, loaded.isUnicast else {
      throw .device(card: name, problem: "it loaded no usable Ethernet address from its EEPROM")
    }
    return loaded
  }
}
