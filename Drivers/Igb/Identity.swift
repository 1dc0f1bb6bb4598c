// Who the card is: semaphores, its non-volatile memory and its address (82576 datasheet, 3.3 and
// 4.6.12; I210, 3.3).

import DeviceIO
import DriverKit
import Wire

extension IgbDriver {
  /// What the firmware and the ports' drivers share.
  enum Shared {
    case nvm, phy
  }

  private func bits(_ shared: Shared) -> UInt32 {
    switch shared {
    case .nvm: Bits.syncNVM
    // SW_PHY0 and 1 are bits 1 and 2, SW_PHY2 and 3 are bits 5 and 6.
    case .phy: UInt32(1) << UInt32(port < 2 ? 1 + port : 3 + port)
    }
  }

  /// The two semaphore bits of SWSM: first among drivers, then against the firmware. A few
  /// microseconds of ownership, to change SW_FW_SYNC (4.6.12.1).
  private func withSemaphore(_ body: () -> Void) -> Bool {
    // A driver that died between its two writes left the first bit set; the reset does not clear it.
    let mine = clock.poll(within: 5000, every: 50) { !registers.read(Reg.swsm).contains(.drivers) }
    let firmware = clock.poll(within: 5000, every: 50) {
      registers.modify(Reg.swsm) { $0.insert(.firmware) }
      return registers.read(Reg.swsm).contains(.firmware)
    }
    if firmware { body() }
    registers.modify(Reg.swsm) { $0.subtract([.drivers, .firmware]) }
    if !mine { warn("\(name): another driver left its semaphore taken (SWSM)") }
    return firmware
  }

  /// Takes a shared part from the firmware and other ports.
  /// - Returns: false when they do not let go within 100 ms.
  func take(_ shared: Shared) -> Bool {
    let mine = bits(shared), theirs = mine << Bits.syncFirmwareShift
    return clock.poll(within: 100_000, every: 2000) {
      var owned = false
      _ = withSemaphore {
        let sync = registers.read(Reg.swFwSync)
        guard sync & (mine | theirs) == 0 else { return }
        registers.write(Plain(sync | mine), to: Reg.swFwSync)
        owned = true
      }
      return owned
    }
  }

  func give(_ shared: Shared) {
    let mine = bits(shared)
    _ = withSemaphore { registers.write(Plain(registers.read(Reg.swFwSync) & ~mine), to: Reg.swFwSync) }
  }

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

  /// The I211 always, and the I210 without a flash chip, have their configuration fused in: there is
  /// no checksum to check and no word to read through EERD (I210, 3.4).
  private var isFused: Bool {
    kind == .i211 || (kind == .i210 && !registers.read(Reg.eecd).contains(.flashDetected))
  }

  /// The station address: the card loads it into the first receive address at reset; where that
  /// holds none, it is read from the non-volatile memory (words 0 to 2 of the port's section).
  func readAddress() throws(DriverError) -> MACAddress {
    let owned = take(.nvm)
    if !owned { warn("\(name): the firmware does not let go of the non-volatile memory") }
    defer { if owned { give(.nvm) } }
    if !isFused { checkNVM() }
    let low = registers.read(Reg.ral), high = registers.read(Reg.rah)
    let loaded = MACAddress(
      bytes: (0..<4).map { UInt8(truncatingIfNeeded: low >> ($0 * 8)) }
        + [UInt8(truncatingIfNeeded: high), UInt8(truncatingIfNeeded: high >> 8)])
    if let loaded, high & Bits.addressValid != 0, loaded.isUnicast { return loaded }
    guard !isFused else { throw .device(card: name, problem: "it has loaded no usable Ethernet address") }
    var bytes: [UInt8] = []
    for word: UInt32 in 0..<3 {
      guard let value = readNVM(kind.sectionStart(port: port) + word) else {
        throw .timeout(card: name, waitingFor: "a word of its non-volatile memory, EERD")
      }
      bytes += [UInt8(truncatingIfNeeded: value), UInt8(value >> 8)]
    }
    // The second port of an 82576 has the first one's address with the last bit turned (82576, 6.2.1).
    if kind == .i82576, port == 1 { bytes[5] ^= 1 }
    guard let stored = MACAddress(bytes: bytes), stored.isUnicast else {
      throw .device(card: name, problem: "its non-volatile memory holds no usable Ethernet address")
    }
    warn("\(name): the address \(stored) was read from the non-volatile memory, the card had not loaded it")
    return stored
  }

  /// Words 0 to 3fh of the port's section must add up to BABAh. A wrong sum is said, not fatal.
  private func checkNVM() {
    var sum: UInt16 = 0
    for word: UInt32 in 0...0x3f {
      guard let value = readNVM(kind.sectionStart(port: port) + word) else {
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
