// What requests ask of switches: attach, detach, list, headers, polling.

public import NetmapAPI
internal import NetmapCore
internal import Platform

extension ValePorts: NetmapSwitchControl {
  // MARK: Attach and detach

  public func attach(
    _ name: String, _ request: RegisterRequest, in system: NetmapSystem
  ) throws(NetmapError) -> (RegisterRequest, port: UInt32) {
    sweep()
    let parts = try ValeName(name)
    if find(parts.vale)?.station(named: name) != nil { throw NetmapError(.EBUSY, "\(name) is on the switch already") }
    if let port = persistent[parts.port] { return try attach(port, name, parts, request) }
    guard !parts.port.utf8.contains(where: { "{}/:".utf8.contains($0) }) else {
      throw NetmapError(.ENXIO, "\(name): \(parts.port) is no interface")
    }
    let adapter = try system.adapter(for: PortRequest(parts.port, RingSelection(.allNIC)), create: false)
    guard request.ringID == 0, request.mode == 1 || request.mode == 3 else {
      throw NetmapError(.EINVAL, "\(name): all rings of a card are attached, with or without those to the host, and no fewer")
    }
    guard adapter.krings.openPorts == 0 else { throw NetmapError(.EBUSY, "\(parts.port) is in use; close the programs that hold it") }
    let card = try attach(adapter, name, parts, request, system)
    var answer = request
    let counts = adapter.counts
    (answer.transmitRings, answer.receiveRings) = (UInt16(clamping: counts.transmit), UInt16(clamping: counts.receive))
    (answer.hostTransmitRings, answer.hostReceiveRings) = (UInt16(clamping: counts.hostTransmit), UInt16(clamping: counts.hostReceive))
    answer.transmitSlots = UInt32(clamping: adapter.slots(.transmit, host: false))
    answer.receiveSlots = UInt32(clamping: adapter.slots(.receive, host: false))
    answer.memoryID = card.port.region.id
    answer.offset = UInt64(card.port.memory.offset)
    answer.memorySize = UInt64(card.port.region.allocator.sharedBytes)
    return (answer, UInt32(card.station.number))
  }

  private func attach(
    _ adapter: any NetmapAdapter, _ name: String, _ parts: ValeName, _ request: RegisterRequest, _ system: NetmapSystem
  ) throws(NetmapError) -> ValeCard {
    let withHost = request.mode == 3
    var wanted = RegisterRequest()
    wanted.memoryID = request.memoryID
    let port = try system.open(
      adapter, PortRequest(parts.port, RingSelection(withHost ? .nicAndSoftware : .allNIC, flags: .exclusive), register: wanted))
    let vale: ValeSwitch
    do throws(NetmapError) { vale = try findOrMake(parts.vale) } catch {
      port.close()
      throw error
    }
    let card = ValeCard(name, port, host: withHost && adapter.counts.hostReceive > 0, vale, netisr)
    guard vale.add(card.stations) else {
      removeIfEmpty(vale)
      port.close()
      throw NetmapError(.ENOMEM, "\(parts.vale) has \(vale.count) ports of \(ValeSwitch.mostPorts): too few are left for \(parts.port)")
    }
    adapter.krings.takenBy = name
    cards[name] = card
    let control = netisr.worker(0)
    card.begin { [weak self, weak card] in
      control.post { [weak self, weak card] in if let self, let card { take(out: card) } }
    }
    return card
  }

  /// A persistent port goes onto a switch, and keeps its rings.
  private func attach(
    _ port: ValePort, _ name: String, _ parts: ValeName, _ request: RegisterRequest
  ) throws(NetmapError) -> (RegisterRequest, port: UInt32) {
    guard port.vale == nil else { throw NetmapError(.EBUSY, "\(parts.port) is attached as \(port.name)") }
    guard port.krings.openPorts == 0 else { throw NetmapError(.EBUSY, "\(parts.port) is in use; close the programs that hold it") }
    let vale = try findOrMake(parts.vale)
    port.station.rename(name)
    guard vale.add([port.station]) else {
      port.station.rename(parts.port)
      removeIfEmpty(vale)
      throw NetmapError(.ENOMEM, "\(parts.vale) has \(ValeSwitch.mostPorts) ports, and takes no more")
    }
    port.move(to: vale)
    var answer = request
    port.describe(&answer)
    return (answer, UInt32(port.station.number))
  }

  public func detach(_ name: String, in system: NetmapSystem) throws(NetmapError) -> UInt32 {
    sweep()
    let parts = try ValeName(name)
    guard let station = find(parts.vale)?.station(named: name) else { throw NetmapError(.ENXIO, "\(name) is not attached") }
    let number = UInt32(station.number)
    if let card = cards.values.first(where: { $0.station === station || $0.host === station }) {
      guard card.station === station else {
        throw NetmapError(.EBUSY, "\(name) is the host's side of \(card.station.name), and leaves with it")
      }
      guard !card.isPolled else { throw NetmapError(.EBUSY, "\(name) is being polled; stop that first") }
      take(out: card)
    } else if let port = persistent[parts.port], port.station === station {
      detach(port)
    } else {
      // As in netmap, a program's own port stays with its program.
      throw NetmapError(.EINVAL, "\(name) is a program's, and leaves when it is closed")
    }
    return number
  }

  func detach(_ port: ValePort) {
    guard let vale = port.vale, let own = port.persistentName else { return }
    port.move(to: nil)
    leave(vale, [port.station])
    port.station.rename(own)
  }

  /// A card leaves, asked or not.
  func take(out card: ValeCard) {
    guard cards[card.station.name] === card else { return }
    cards[card.station.name] = nil
    leave(card.vale, card.stations)
    card.end()
  }

  // MARK: Lists

  public func find(_ name: String) throws(NetmapError) -> (bridge: UInt16, port: UInt32) {
    sweep()
    guard ValeName.isSwitch(name) else { throw NetmapError(.EINVAL, "\(name) is no switch's name: those start with vale") }
    let bridge = name.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).first.map(String.init) ?? name
    guard let vale = find(bridge) as ValeSwitch? else { throw NetmapError(.ENOENT, "there is no switch \(bridge)") }
    let station = vale.station(named: name)
    return (UInt16(clamping: vale.number), station.map { UInt32($0.number) } ?? SwitchPorts.none)
  }

  public func first(bridge: UInt16, port: UInt32) -> SwitchPortEntry? {
    sweep()
    var from = Int(clamping: port)
    for index in Int(bridge)..<max(Int(bridge), switches.count) {
      if let vale = switches[index] {
        for number in min(from, ValeSwitch.mostPorts)..<ValeSwitch.mostPorts {
          if let station = vale.station(number) {
            return SwitchPortEntry(bridge: UInt16(clamping: index), port: UInt32(number), name: station.name)
          }
        }
      }
      from = 0
    }
    return nil
  }

  // MARK: Headers

  /// The program's port of a name, on a switch.
  private func port(_ name: String) -> ValePort? {
    ports[name] ?? persistent.values.first { $0.vale != nil && $0.name == name }
  }

  public func setHeader(_ name: String, length: UInt32) throws(NetmapError) {
    sweep()
    guard length == 0 || length == 10 || length == 12 else {
      throw NetmapError(.EINVAL, "\(name): a virtio-net header has 10 or 12 bytes, or 0 for none; not \(length)")
    }
    guard let port = port(name) else { throw NetmapError(.ENXIO, "\(name) is no program's port of a switch") }
    port.setHeader(Int(length))
  }

  public func header(_ name: String) -> UInt32? {
    sweep()
    return (port(name) ?? persistent[name]).map { UInt32($0.station.header) }
  }

  // MARK: Polling

  private func card(_ name: String) throws(NetmapError) -> ValeCard {
    let parts = try ValeName(name)
    if let card = cards[name] { return card }
    guard find(parts.vale)?.station(named: name) == nil else {
      throw NetmapError(.EOPNOTSUPP, "\(name) is no card: only cards are polled")
    }
    throw NetmapError(.ENXIO, "\(name) is not attached")
  }

  /// A card's rings stay with their workers, whatever processor is named: its queues have owners.
  public func startPolling(_ name: String, _ request: ValePolling) throws(NetmapError) {
    let card = try card(name), rings = card.adapter.counts.receive
    guard !card.isPolled else { throw NetmapError(.EFAULT, "\(name) is being polled already") }
    let processors = (try? CPUList.allowed().cpus.count) ?? 1
    guard request.cpus > 0, Int(clamping: request.cpus) < processors else {
      throw NetmapError(.EINVAL, "\(name): polling takes 1 to \(processors - 1) of \(processors) processors; \(request.cpus) were asked for")
    }
    switch request.mode {
    case ValePolling.oneCPU where request.cpus == 1: card.startPolling(0..<rings)
    case ValePolling.severalCPUs:
      let (end, overflow) = request.firstCPU.addingReportingOverflow(request.cpus)
      guard !overflow, Int(end) <= rings else {
        throw NetmapError(.EINVAL, "\(name) has \(rings) receive rings; \(request.cpus) from \(request.firstCPU) on are too many")
      }
      card.startPolling(Int(request.firstCPU)..<Int(end))
    default:
      throw NetmapError(.EINVAL, "\(name): mode \(request.mode) with \(request.cpus) processors is no way of polling")
    }
  }

  public func stopPolling(_ name: String) throws(NetmapError) {
    let card = try card(name)
    guard card.isPolled else { throw NetmapError(.EFAULT, "\(name) is not being polled") }
    card.stopPolling()
  }
}
