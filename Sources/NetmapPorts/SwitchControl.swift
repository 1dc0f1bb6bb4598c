// What the control requests ask of VALE switches.

public import NetmapAPI

/// A port of a switch, by numbers (VALE_LIST).
public struct SwitchPortEntry: Equatable, Sendable {
  public var bridge: UInt16
  public var port: UInt32
  /// "vale0:a".
  public var name: String

  public init(bridge: UInt16, port: UInt32, name: String) {
    self.bridge = bridge
    self.port = port
    self.name = name
  }
}

/// Switches under the control of requests. Whoever provides the ports `vale…:…` implements it beside `NetmapPortProvider`,
/// and is found through `NetmapSystem.switchControl`. Every call comes on worker 0, and names are as the program wrote them:
/// at most 63 bytes, unchecked.
public protocol NetmapSwitchControl: NetmapPortProvider {
  /// VALE_ATTACH: puts an interface, or a persistent port, into a switch; with `NIC_SW` its host rings too.
  /// - Parameter request: mode and flags; sizes and region are wishes.
  /// - Returns: the request with what there is now, and the port's number in the switch.
  /// - Throws: EINVAL without a switch's prefix or for an unknown region, ENXIO for an unknown interface, EBUSY when the port
  ///   is attached already or somebody has it open, ENOMEM when the switch is full.
  func attach(_ name: String, _ request: RegisterRequest, in system: NetmapSystem) throws(NetmapError) -> (RegisterRequest, port: UInt32)
  /// VALE_DETACH: takes it out again.
  /// - Returns: the number that it had.
  /// - Throws: EINVAL without a switch's prefix, ENXIO when it is not attached, EBUSY while it is polled.
  func detach(_ name: String, in system: NetmapSystem) throws(NetmapError) -> UInt32

  /// VALE_LIST with a name: its numbers. A name without a port that exists has the port `SwitchPorts.none`.
  /// - Throws: EINVAL without a switch's prefix, ENOENT when there is no such switch.
  func find(_ name: String) throws(NetmapError) -> (bridge: UInt16, port: UInt32)
  /// VALE_LIST without one: the first port from these numbers on, over all switches; nil at the end (ENOENT).
  func first(bridge: UInt16, port: UInt32) -> SwitchPortEntry?

  /// PORT_HDR_SET: `length` is 0, 10 or 12.
  /// - Throws: ENXIO for a port that does not exist, or is no switch's.
  func setHeader(_ name: String, length: UInt32) throws(NetmapError)
  /// PORT_HDR_GET; nil for a port that does not exist, or is no switch's.
  func header(_ name: String) -> UInt32?

  /// VALE_NEWIF: makes a persistent port.
  /// - Returns: the request with what there is now.
  /// - Throws: EEXIST, EINVAL for a name or sizes that cannot be, ENOMEM.
  func newInterface(_ name: String, _ request: ValeNewInterface, in system: NetmapSystem) throws(NetmapError) -> ValeNewInterface
  /// VALE_DELIF.
  /// - Throws: ENXIO when there is none, EINVAL for one that no VALE_NEWIF has made, EBUSY while somebody uses it.
  func deleteInterface(_ name: String, in system: NetmapSystem) throws(NetmapError)

  /// VALE_POLLING_ENABLE: an attached card is polled instead of waiting for its interrupts.
  /// - Throws: EINVAL without a switch's prefix or for a mode or CPUs that are none, ENXIO, EOPNOTSUPP for a port that is no
  ///   attached card, EFAULT when it is polled already.
  func startPolling(_ name: String, _ request: ValePolling) throws(NetmapError)
  /// VALE_POLLING_DISABLE.
  /// - Throws: as `startPolling`; EFAULT when it is not polled.
  func stopPolling(_ name: String) throws(NetmapError)
}

public enum SwitchPorts {
  /// `NM_BDG_NOPORT`: the number of no port. A switch has 254, numbered from 0.
  public static let none: UInt32 = 255
}
