// The stack's interfaces as netmap ports.

public import Ifnet
public import NetmapAPI
public import NetmapPorts

/// Finds attached cards by their interface's name.
public final class CardPorts: NetmapPortProvider {
  private let table: InterfaceTable
  public let settings: NetmapSettings

  public init(_ table: InterfaceTable, settings: NetmapSettings = NetmapSettings()) {
    self.table = table
    self.settings = settings
  }

  /// - Throws: EINVAL for an interface that has no card below it.
  public func adapter(
    for request: PortRequest, in system: NetmapSystem, create: Bool
  ) throws(NetmapError) -> (any NetmapAdapter)? {
    guard let interface = table.interface(named: request.name) else { return nil }
    guard let card = interface.driver as? CardAttachment else {
      throw NetmapError(.EINVAL, "\(request.name) cannot do netmap: there is no card below it. Bridge it with a switch, or open a card.")
    }
    let found = try card.netmap(in: system.memory, settings: settings)
    let (sent, received) = (Int(request.register.hostTransmitRings), Int(request.register.hostReceiveRings))
    if sent > 0 || received > 0 { found.setHostRings(transmit: sent, receive: received) }
    return found
  }
}
