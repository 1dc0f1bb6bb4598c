// Who the card is: its non-volatile memory and its address (82574 datasheet, 6 and 10.2.2.4).

import DeviceIO
import DriverKit
import Wire

extension E1000eDriver {
  /// Takes the lock on PHY and non-volatile memory from the firmware (EXTCNF_CTRL, 10.2.2.17).
  /// - Returns: false when the firmware does not let go within 50 ms; reading goes on without it,
  ///   as the card's firmware releases the lock in a reset.
  func takeOwnership() -> Bool {
    clock.poll(within: 50_000, every: 1000) {
      registers.modify(Reg.extendedConfiguration) { $0.insert(.softwareOwnership) }
      return registers.read(Reg.extendedConfiguration).contains(.softwareOwnership)
    }
  }

  func releaseOwnership() { registers.modify(Reg.extendedConfiguration) { $0.remove(.softwareOwnership) } }

  /// One 16-bit word of the non-volatile memory; nil when the card does not answer.
  func readNVM(_ word: UInt32) -> UInt16? {
    registers.write(Plain(word << Bits.eerdAddress | Bits.eerdStart), to: Reg.eerd)
    var value: UInt32 = 0
    let done = clock.poll(within: 20_000, every: 5) {
      value = registers.read(Reg.eerd)
      return value & Bits.eerdDone != 0
    }
    return done && value != .max ? UInt16(truncatingIfNeeded: value >> Bits.eerdData) : nil
  }

  /// The station address: the card loads it into the first receive address at reset; where that
  /// holds none, it is read from the non-volatile memory (words 0 to 2).
  func readAddress() throws(DriverError) -> MACAddress {
    let owned = takeOwnership()
    defer { if owned { releaseOwnership() } }
    checkNVM()
    let low = registers.read(Reg.ral), high = registers.read(Reg.rah)
    let loaded = MACAddress(
      bytes: (0..<4).map { UInt8(truncatingIfNeeded: low >> ($0 * 8)) }
        + [UInt8(truncatingIfNeeded: high), UInt8(truncatingIfNeeded: high >> 8)])
    if let loaded, high & Bits.addressValid != 0, loaded.isUnicast { return loaded }
    var bytes: [UInt8] = []
    for word: UInt32 in 0..<3 {
      guard let value = readNVM(word) else {
        throw .timeout(card: name, waitingFor: "a word of its non-volatile memory, EERD")
      }
      bytes += [UInt8(truncatingIfNeeded: value), UInt8(value >> 8)]
    }
    guard let stored = MACAddress(bytes: bytes), stored.isUnicast else {
      throw .device(card: name, problem: "its non-volatile memory holds no usable Ethernet address")
    }
    warn("\(name): the address \(stored) was read from the non-volatile memory, the card had not loaded it")
    return stored
  }

  /// Words 0 to 3fh must add up to BABAh (6.1.1.38). A wrong sum is said, not fatal.
  private func checkNVM() {
    var sum: UInt16 = 0
    for word: UInt32 in 0...0x3f {
      guard let value = readNVM(word) else {
        warn("\(name): its non-volatile memory could not be read")
        return
      }
      sum &+= value
    }
    if sum != 0xbaba {
      warn("\(name): the checksum of its non-volatile memory is wrong (the sum is 0x\(String(sum, radix: 16)), not 0xbaba)")
    }
  }
}
