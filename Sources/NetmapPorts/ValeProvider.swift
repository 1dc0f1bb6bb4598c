// All switches of a netmap system, and the names of their ports.

public import NetmapAPI
internal import NetmapCore
public import Netisr

/// Provides ports of switches ("vale0:a") and persistent ports ("v0"). Everything on worker 0.
public final class ValePorts: NetmapPortProvider, @unchecked Sendable {
  public let options: ValeOptions
  let netisr: Netisr
  var switches: [ValeSwitch?] = []
  /// Ports that a name made, by name.
  var ports: [String: ValePort] = [:]
  /// By their own names.
  var persistent: [String: ValePort] = [:]
  /// Attached cards, by their names on the switch.
  var cards: [String: ValeCard] = [:]

  public init(_ netisr: Netisr, options: ValeOptions = ValeOptions()) {
    self.netisr = netisr
    self.options = options
  }

  /// What the switches have lost and passed on, by port.
  public struct PortReport: Equatable, Sendable {
    public var name: String
    /// Put into the port's rings, and lost there for want of room.
    public var packets: UInt64, bytes: UInt64, drops: UInt64
  }

  /// On worker 0.
  public var report: [PortReport] {
    switches.flatMap { vale in
      (0..<ValeSwitch.mostPorts).compactMap { vale?.station($0) }.map { station in
        let counted = station.queues.compactMap { $0?.counters }
        return PortReport(
          name: station.name, packets: counted.reduce(0) { $0 &+ $1.packets }, bytes: counted.reduce(0) { $0 &+ $1.bytes },
          drops: counted.reduce(0) { $0 &+ $1.drops })
      }
    }
  }

  public func adapter(
    for request: PortRequest, in system: NetmapSystem, create: Bool
  ) throws(NetmapError) -> (any NetmapAdapter)? {
    sweep()
    if let found = persistent[request.name] ?? ports[request.name] { return found }
    guard ValeName.isSwitch(request.name), request.name.utf8.contains(UInt8(ascii: ":")) else { return nil }
    let name = try ValeName(request.name)
    if let vale = find(name.vale), vale.station(named: request.name) != nil {
      if let port = persistent[name.port], port.vale === vale { return port }
      throw NetmapError(.EBUSY, "\(request.name): the switch has this interface for itself")
    }
    guard create else { return nil }
    if isInterface(name.port, system) {
      throw NetmapError(.EINVAL, "\(request.name): \(name.port) is an interface; attach it to the switch, or take another name")
    }
    return try make(request, name, system)
  }

  /// Whether a port of another kind, or a persistent one, has this name.
  func isInterface(_ name: String, _ system: NetmapSystem) -> Bool {
    do {
      _ = try system.adapter(for: PortRequest(name, RingSelection(.allNIC)), create: false)
      return true
    } catch { return error.code != .ENXIO }
  }

  private func make(_ request: PortRequest, _ name: ValeName, _ system: NetmapSystem) throws(NetmapError) -> ValePort {
    let port = try ValePort(
      request.name, ValeShape(request.register), region: nil, persistent: false, options: options, clock: netisr.clock)
    let vale = try findOrMake(name.vale)
    guard vale.add([port.station]) else {
      removeIfEmpty(vale)
      throw NetmapError(.ENOMEM, "\(name.vale) has \(ValeSwitch.mostPorts) ports, and takes no more")
    }
    port.move(to: vale)
    port.whenIdle = { [weak self] in self?.end($0) }
    ports[request.name] = port
    // If nobody gets to hold it after all.
    netisr.worker(0).post { [weak self] in self?.sweep() }
    return port
  }

  /// Ports that a name made and that nobody holds are gone.
  func sweep() { for port in ports.values where port.krings.openPorts == 0 { end(port) } }

  private func end(_ port: ValePort) {
    guard ports[port.name] === port else { return }
    ports[port.name] = nil
    if let vale = port.vale { leave(vale, [port.station]) }
    port.move(to: nil)
  }

  // MARK: Switches

  func find(_ name: String) -> ValeSwitch? { switches.lazy.compactMap { $0 }.first { $0.name == name } }

  func findOrMake(_ name: String) throws(NetmapError) -> ValeSwitch {
    if let found = find(name) { return found }
    let free = switches.firstIndex { $0 == nil } ?? switches.count
    guard free < options.mostSwitches else {
      throw NetmapError(.ENOMEM, "\(name): there are \(options.mostSwitches) switches already")
    }
    let vale = ValeSwitch(name, number: free, lifetime: options.lifetime)
    if free == switches.count { switches.append(vale) } else { switches[free] = vale }
    return vale
  }

  /// Ports leave a switch; without any it is gone.
  func leave(_ vale: ValeSwitch, _ stations: [ValeStation]) {
    vale.remove(stations)
    removeIfEmpty(vale)
  }

  func removeIfEmpty(_ vale: ValeSwitch) {
    if vale.count == 0, switches.indices.contains(vale.number), switches[vale.number] === vale { switches[vale.number] = nil }
  }
}
