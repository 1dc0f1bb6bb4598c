// Which rings of a port a registration means.

public import NetmapAPI

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
