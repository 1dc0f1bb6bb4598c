// Which rings a program takes: netmap's register modes and flags.

/// `nr_mode`: what a program registers.
public enum RegisterMode: Equatable, Sendable {
  /// All rings of the card (NR_REG_ALL_NIC).
  case allNIC
  /// The host rings (NR_REG_SW).
  case software
  /// Both (NR_REG_NIC_SW).
  case nicAndSoftware
  /// One pair of the card's (NR_REG_ONE_NIC).
  case oneNIC(Int)
  /// One pair of host rings (NR_REG_ONE_SW).
  case oneSoftware(Int)
  /// No ring: the memory alone (NR_REG_NULL).
  case null
}

/// `nr_flags` of a registration.
public struct RegisterFlags: OptionSet, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  /// `NR_MONITOR_TX`, `NR_MONITOR_RX`, `NR_ZCOPY_MON`: the port is a monitor of the one named.
  public static let monitorTransmit = RegisterFlags(rawValue: 0x100)
  public static let monitorReceive = RegisterFlags(rawValue: 0x200)
  public static let zeroCopyMonitor = RegisterFlags(rawValue: 0x400)
  /// `NR_EXCLUSIVE`: nobody else may hold one of these rings.
  public static let exclusive = RegisterFlags(rawValue: 0x800)
  /// `NR_RX_RINGS_ONLY`, `NR_TX_RINGS_ONLY`.
  public static let receiveRingsOnly = RegisterFlags(rawValue: 0x2000)
  public static let transmitRingsOnly = RegisterFlags(rawValue: 0x4000)
  /// `NR_ACCEPT_VNET_HDR`: the program understands virtio-net headers.
  public static let acceptVnetHeader = RegisterFlags(rawValue: 0x8000)
  /// `NR_DO_RX_POLL`: receive even when only writability is asked for.
  public static let receivePoll = RegisterFlags(rawValue: 0x10000)
  /// `NR_NO_TX_POLL`: poll does not transmit by itself.
  public static let noTransmitPoll = RegisterFlags(rawValue: 0x20000)
}

/// `nr_mode`'s numbers.
public enum RegisterModeNumber {
  public static let allNIC: UInt32 = 1
  public static let software: UInt32 = 2
  public static let nicAndSoftware: UInt32 = 3
  public static let oneNIC: UInt32 = 4
  /// Legacy requests only: a pipe's end is a name, `base{id` and `base}id`.
  public static let pipeMaster: UInt32 = 5
  public static let pipeSlave: UInt32 = 6
  public static let null: UInt32 = 7
  public static let oneSoftware: UInt32 = 8
}

extension RegisterMode {
  /// `nr_mode` and `nr_ringid`.
  public var numbers: (mode: UInt32, ring: UInt16) {
    switch self {
    case .allNIC: (RegisterModeNumber.allNIC, 0)
    case .software: (RegisterModeNumber.software, 0)
    case .nicAndSoftware: (RegisterModeNumber.nicAndSoftware, 0)
    case .oneNIC(let ring): (RegisterModeNumber.oneNIC, UInt16(clamping: ring))
    case .oneSoftware(let ring): (RegisterModeNumber.oneSoftware, UInt16(clamping: ring))
    case .null: (RegisterModeNumber.null, 0)
    }
  }
}

extension RegisterRequest {
  /// The rings asked for. EINVAL for a mode that there is not, for DEFAULT, and for the old modes of pipes.
  public func registerMode() throws(NetmapError) -> RegisterMode {
    switch mode {
    case RegisterModeNumber.allNIC: return .allNIC
    case RegisterModeNumber.software: return .software
    case RegisterModeNumber.nicAndSoftware: return .nicAndSoftware
    case RegisterModeNumber.oneNIC: return .oneNIC(Int(ringID))
    case RegisterModeNumber.null: return .null
    case RegisterModeNumber.oneSoftware: return .oneSoftware(Int(ringID))
    case RegisterModeNumber.pipeMaster, RegisterModeNumber.pipeSlave:
      throw NetmapError(.EINVAL, "Register mode \(mode) is for the old requests alone. Name the pipe's end instead: `base{id` or `base}id`.")
    default: throw NetmapError(.EINVAL, "There is no register mode \(mode).")
    }
  }

  /// Sets `mode` and `ringID`.
  public mutating func setMode(_ mode: RegisterMode) { (self.mode, ringID) = mode.numbers }

  public var registerFlags: RegisterFlags { RegisterFlags(rawValue: flags) }
}
