// The non-volatile memory: its words, the two register ways to it and the wires of its serial bus
// (82574 datasheet, 3.3, 6 and 10.2.2.4 to 10.2.2.6).

internal import Wire

extension E1000eModel {
  /// 64 words as a manufacturer leaves them: address, identity, and a sum of 0xBABA.
  static func makeNonVolatile(_ address: MACAddress, device: UInt16) -> [UInt16] {
    var words = [UInt16](repeating: 0xffff, count: 64)
    for i in 0..<3 { words[i] = UInt16(address[2 * i]) | UInt16(address[2 * i + 1]) << 8 }
    words[3] = 0x0420
    words[4] = 0
    words[5] = 0x1010
    words[8] = 0xe462
    words[9] = 0x8001
    // Initialisation control 1 and 2: identities are loaded, no management firmware.
    words[0x0a] = 0x026b
    words[0x0b] = 0
    words[0x0c] = 0x8086
    words[0x0d] = device
    words[0x0e] = 0x8086
    words[0x0f] = 0x8058
    words[0x3f] = 0
    words[0x3f] = 0xbaba &- words.reduce(0, &+)
    return words
  }

  /// EERD (10.2.2.5): bit 0 starts, bit 1 is done; the address from bit 2, the word from bit 16.
  func readNonVolatile(_ value: UInt32) {
    let word = Int(value >> 2 & 0x3fff)
    guard value & 1 != 0 else {
      registers[At.nvmRead] = value & ~2
      return
    }
    if word >= nonVolatile.count { bus.complain("EERD: word \(word) lies beyond the memory's \(nonVolatile.count)") }
    let data = word < nonVolatile.count ? nonVolatile[word] : 0xffff
    registers[At.nvmRead] = UInt32(data) << 16 | UInt32(word) << 2 | 2
  }

  /// EEWR (10.2.2.20): the same, written.
  func writeNonVolatile(_ value: UInt32) {
    let word = Int(value >> 2 & 0x3fff)
    if value & 1 != 0 {
      if word < nonVolatile.count {
        nonVolatile[word] = UInt16(truncatingIfNeeded: value >> 16)
      } else {
        bus.complain("EEWR: word \(word) lies beyond the memory's \(nonVolatile.count)")
      }
    }
    registers[At.nvmWrite] = value & 0xffff_fffc | 2
  }

  /// EEC: bits 0 to 3 are the bus's wires (clock, select, in, out), 6 and 7 ask for it and grant it,
  /// 8 says that a memory is there, 9 that the card has read it.
  func readNVMControl() -> UInt32 {
    var value = registers[At.nvmControl] & 0x0080_0047 | 1 << 8
    if value & 1 << 6 != 0 { value |= 1 << 7 }
    if serial.output { value |= 1 << 3 }
    if readsUntilConfigured > 0 { readsUntilConfigured -= 1 } else { value |= 1 << 9 }
    return value
  }

  func writeNVMControl(_ value: UInt32) {
    registers[At.nvmControl] = value
    guard value & 1 << 6 != 0 else { return serial = SerialMemory() }
    serial.drive(clock: value & 1 != 0, select: value & 2 != 0, input: value & 4 != 0, &nonVolatile)
  }

  /// A serial memory with addresses of 8 bits, most significant bit first: instruction, address, data.
  struct SerialMemory {
    private var clock = false
    private var selected = false
    private var shift: UInt32 = 0
    private var bits = 0
    private var instruction: UInt8 = 0
    private var address = 0
    private var writeEnabled = false
    var output = false

    mutating func drive(clock level: Bool, select: Bool, input: Bool, _ words: inout [UInt16]) {
      defer { clock = level }
      guard select else {
        if selected, instruction == 2 { writeEnabled = false }
        (selected, bits, shift, instruction, output) = (false, 0, 0, 0, false)
        return
      }
      selected = true
      if level, !clock { sample(input, &words) } else if !level, clock { present(words) }
    }

    /// A rising clock takes a bit in.
    private mutating func sample(_ input: Bool, _ words: inout [UInt16]) {
      shift = shift << 1 | (input ? 1 : 0)
      bits += 1
      if bits == 8 {
        instruction = UInt8(truncatingIfNeeded: shift)
        if instruction == 6 { writeEnabled = true }
        if instruction == 4 { writeEnabled = false }
      }
      if bits == 16, instruction == 2 || instruction == 3 { address = Int(shift & 0xff) }
      guard instruction == 2, writeEnabled, bits >= 24, bits % 8 == 0 else { return }
      if address / 2 < words.count {
        let byte = UInt16(shift & 0xff), isHigh = address & 1 != 0
        words[address / 2] = isHigh ? words[address / 2] & 0xff | byte << 8 : words[address / 2] & 0xff00 | byte
      }
      address += 1
    }

    /// A falling clock puts the next bit out.
    private mutating func present(_ words: [UInt16]) {
      switch instruction {
      case 3 where bits >= 16:
        let place = address + (bits - 16) / 8, bit = 7 - (bits - 16) % 8
        let word = place / 2 < words.count ? words[place / 2] : 0xffff
        output = (place & 1 != 0 ? word >> 8 : word) >> UInt16(bit) & 1 != 0
      // Status: never busy; bit 1 is the write enable latch.
      case 5 where bits >= 8: output = writeEnabled && (bits - 8) % 8 == 6
      default: output = false
      }
    }
  }

  // MARK: Semaphores

  /// SWSM (10.2.8.7): reading sets SMBI, so that the first reader sees it clear.
  func readSemaphore() -> UInt32 {
    let value = registers[At.semaphore]
    registers[At.semaphore] = value | 1
    return value
  }

  /// EXTCNF_CTRL: software, hardware and firmware each ask for the PHY; whoever has it keeps it.
  func writeExternalConfiguration(_ value: UInt32) {
    let software: UInt32 = 1 << 5, others: UInt32 = 1 << 6 | 1 << 7
    let taken = registers[At.externalConfiguration] & others != 0
    registers[At.externalConfiguration] =
      value & ~(software | others) | (registers[At.externalConfiguration] & others) | (taken ? 0 : value & software)
  }
}
