// Registers of the MAC's link and of the PHY behind it (82599 datasheet, 8.2.3.22; X540 datasheet
// and IEEE 802.3, clause 45).

import DeviceIO

/// Auto-Negotiation Control (8.2.3.22.19).
struct Autoc: OptionSet {
  let rawValue: UInt32
  static let restart = Autoc(rawValue: 1 << 12)
  /// The link mode's top bit: changing it makes the card start its link anew.
  static let modeTopBit = Autoc(rawValue: 4 << 13)
  /// 0: SFI at a gigabit.
  static let gigabitBackplane = Autoc(rawValue: 1 << 9)

  /// Link Mode Select.
  enum Mode: UInt32 {
    case gigabitFixed = 0
    case tenGigabitFixed = 1
    case gigabitNegotiated = 2
    /// One lane at ten gigabits: what SFP+ modules use.
    case tenGigabitSerial = 3
    case backplane = 4
    case sgmii = 5
    case backplaneGigabit = 6
    case backplaneSgmii = 7
  }
  var mode: Mode { Mode(rawValue: rawValue >> 13 & 7) ?? .gigabitFixed }
  func with(_ mode: Mode) -> Autoc { Autoc(rawValue: rawValue & ~(7 << 13) | mode.rawValue << 13) }
}

/// Auto-Negotiation Control 2 (8.2.3.22.21).
struct Autoc2: OptionSet {
  let rawValue: UInt32
  /// The EEPROM has switched the link off.
  static let linkDisabled = Autoc2(rawValue: 7 << 28)
  /// The ten-gigabit lane's kind: 2 is SFI.
  static let sfi = Autoc2(rawValue: 2 << 16)
  static let serialMask = Autoc2(rawValue: 3 << 16)
}

/// Link Status (8.2.3.22.20).
struct Links: OptionSet {
  let rawValue: UInt32
  static let up = Links(rawValue: 1 << 30)
  /// Megabits a second; 0 when the card does not know.
  var speed: Int {
    switch rawValue >> 28 & 3 {
    case 3: 10000
    case 2: 1000
    case 1: 100
    default: 0
    }
  }
}

/// MDI Single Command and Address (8.2.3.22.11): the way to an external PHY's registers, as clause 45
/// of IEEE 802.3 has them.
struct Msca: OptionSet {
  let rawValue: UInt32
  /// Set while a command is on its way.
  static let busy = Msca(rawValue: 1 << 30)

  enum Operation: UInt32 {
    case address = 0
    case write = 1
    case read = 3
  }
  /// The X540's PHY answers at address 0.
  static func command(_ operation: Operation, device: UInt32, register: UInt32) -> Msca {
    Msca(rawValue: register & 0xffff | (device & 31) << 16 | operation.rawValue << 26 | 1 << 30)
  }
}

/// The X540's PHY (clause 45: device, register).
enum PHY {
  static let negotiation: UInt32 = 7
  /// The device of the maker's own registers; register 0, bit 11 is low power.
  static let vendor: UInt32 = 30
  static let control: UInt32 = 0
  static let status: UInt32 = 1
  static let restart: UInt16 = 1 << 9
  static let linkUp: UInt16 = 1 << 2
  static let lowPower: UInt16 = 1 << 11
}
