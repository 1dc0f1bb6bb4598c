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
