// Null ports: a program that wants a region's memory and no rings (NR_REG_NULL).

public import NetmapAPI
public import NetmapCore

/// A port whose rings nobody can have, and whose syncs do nothing.
public final class NullPort: NetmapAdapter {
  public let name: String
  public let krings: PortKrings
  public let counts: RingCounts
  private let slotCounts: (transmit: Int, receive: Int)

  init(_ request: PortRequest) throws(NetmapError) {
    let asked = request.register
    name = "null:\(request.name)"
    krings = try PortKrings()
    // What the program's interface says; there is room for no more in its object.
    counts = RingCounts(
      transmit: min(Int(asked.transmitRings), 32), receive: min(Int(asked.receiveRings), 32), hostTransmit: 0, hostReceive: 0)
    slotCounts = (Int(clamping: asked.transmitSlots), Int(clamping: asked.receiveSlots))
  }

  public func slots(_ direction: RingDirection, host: Bool) -> Int { direction == .transmit ? slotCounts.transmit : slotCounts.receive }
  public func activate(_ rings: [PortRing]) throws(NetmapError) {}
  public func deactivate(_ rings: [PortRing]) -> RingRemains { RingRemains() }
  public func sync(_ kring: Kring, released: (from: UInt32, to: UInt32)) {}
}

/// Makes a null port for every request with the mode NULL, whatever name it has: the name need not exist.
public final class NullPortProvider: NetmapPortProvider {
  public init() {}

  /// - Throws: EINVAL when no region is asked for (netmap wants one, by its number or as EXTMEM), or no port may be made:
  ///   null ports are nobody's to find.
  public func adapter(
    for request: PortRequest, in system: NetmapSystem, create: Bool
  ) throws(NetmapError) -> (any NetmapAdapter)? {
    guard request.selection.mode == .null else { return nil }
    guard create else { throw NetmapError(.EINVAL, "\(request.name): a null port cannot be looked up, only registered") }
    guard request.register.memoryID != 0 || request.external != nil else {
      throw NetmapError(.EINVAL, "\(request.name): a port without rings is for its memory; name the region in nr_mem_id (1 is the global one)")
    }
    return try NullPort(request)
  }
}

extension NetmapSystem {
  /// Adds the ports that need no device and no switch: null ports, monitors, pipes. Before all other providers: what a
  /// request asks for by mode or flags holds for every name.
  public func addSoftwarePorts() {
    add(NullPortProvider())
    add(MonitorProvider())
    add(PipeProvider())
  }
}
