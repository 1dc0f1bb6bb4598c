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
  /// `NR_EXCLUSIVE`: nobody else may hold one of these rings.
  public static let exclusive = RegisterFlags(rawValue: 0x800)
  public static let receiveRingsOnly = RegisterFlags(rawValue: 0x2000)
  public static let transmitRingsOnly = RegisterFlags(rawValue: 0x4000)
  /// `NR_DO_RX_POLL`: receive even when only writability is asked for.
  public static let receivePoll = RegisterFlags(rawValue: 0x10000)
  /// `NR_NO_TX_POLL`: poll does not transmit by itself.
  public static let noTransmitPoll = RegisterFlags(rawValue: 0x20000)
}

/// Rings asked for.
public struct RingSelection: Equatable, Sendable {
  public var mode: RegisterMode
  public var flags: RegisterFlags

  public init(_ mode: RegisterMode, flags: RegisterFlags = []) {
    self.mode = mode
    self.flags = flags
  }

  /// The rings, card before host and transmit before receive; nil for a number that the port does not have (EINVAL).
  public func rings(of counts: RingCounts) -> [RingID]? {
    var ids: [RingID] = []
    func add(_ transmit: Range<Int>, _ receive: Range<Int>, host: Bool) {
      if !flags.contains(.receiveRingsOnly) { ids += transmit.map { RingID(.transmit, $0, isHost: host) } }
      if !flags.contains(.transmitRingsOnly) { ids += receive.map { RingID(.receive, $0, isHost: host) } }
    }
    func one(_ n: Int, _ transmit: Int, _ receive: Int, host: Bool) -> Bool {
      guard n >= 0, n < max(transmit, receive) else { return false }
      add(n..<min(max(n, transmit), n + 1), n..<min(max(n, receive), n + 1), host: host)
      return true
    }
    guard !flags.isSuperset(of: [.receiveRingsOnly, .transmitRingsOnly]) else { return nil }
    switch mode {
    case .null: break
    case .allNIC: add(0..<counts.transmit, 0..<counts.receive, host: false)
    case .software: add(0..<counts.hostTransmit, 0..<counts.hostReceive, host: true)
    case .nicAndSoftware:
      add(0..<counts.transmit, 0..<counts.receive, host: false)
      add(0..<counts.hostTransmit, 0..<counts.hostReceive, host: true)
    case .oneNIC(let n):
      guard one(n, counts.transmit, counts.receive, host: false) else { return nil }
    case .oneSoftware(let n):
      guard one(n, counts.hostTransmit, counts.hostReceive, host: true) else { return nil }
    }
    return ids
  }
}
