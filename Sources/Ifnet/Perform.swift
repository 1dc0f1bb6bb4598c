// Requests carried out: who may, on which interface, in which order of errors.
//
//     create, destroy: privilege ─> name           others: interface (ENXIO) ─> privilege (EPERM) ─> the request

internal import Netisr
internal import Packet
internal import Wire

extension InterfaceTable {
  /// Carries a request out, on worker 0. From worker 0, and from threads that are no workers.
  /// - Throws: ENXIO (no such interface), EPERM (not privileged), and what the request says.
  public func perform(_ request: InterfaceRequest, by who: Credentials) throws(InterfaceError) -> InterfaceReply {
    try control { [self] () throws(InterfaceError) in
      switch request {
      case .configuration(let room): return try configuration(room: room, vnet: who.vnet)
      case .cloners(let count):
        let (names, total) = try clonerNames(count)
        return .cloners(names, total: total)
      case .create(let name, let parameters):
        try demand(who, "make \(name)")
        return .created(try create(name, parameters: parameters, vnet: who.vnet).name)
      case .destroy(let name):
        try demand(who, "destroy \(name)")
        try destroy(name, vnet: who.vnet)
        return .done
      case .groupMembers(let group, let length):
        return try names(try members(of: group, vnet: who.vnet).map(\.name), length: length)
      case .on(let name, let operation):
        guard let interface = interface(named: name, vnet: who.vnet) else {
          throw InterfaceError(.ENXIO, "there is no interface \(name)")
        }
        if operation.needsPrivilege { try demand(who, "change \(name)") }
        return try perform(operation, on: interface)
      }
    }
  }

  private func demand(_ who: Credentials, _ what: String) throws(InterfaceError) {
    if !who.isPrivileged {
      throw InterfaceError(.EPERM, "user \(who.uid) may not \(what): that takes root or the configured group")
    }
  }

  /// A list of names in the BSDs' form: 16 bytes each; length 0 asks how many bytes there are.
  private func names(_ names: [String], length: Int) throws(InterfaceError) -> InterfaceReply {
    let needed = names.count * 16
    if length == 0 { return .needed(bytes: needed) }
    guard length >= needed else { throw InterfaceError(.EINVAL, "the list takes \(needed) bytes, there is room for \(length)") }
    return .names(names, bytes: needed)
  }

  /// GIFCONF: every address that fits, in order; the first that does not ends the list.
  private func configuration(room: Int, vnet: Vnet) throws(InterfaceError) -> InterfaceReply {
    guard room >= 0 else { throw InterfaceError(.EINVAL, "a list cannot have \(room) bytes") }
    var entries: [ConfigurationEntry] = []
    var bytes = 0
    for interface in interfaces where interface.vnet == vnet {
      var shown = interface.addresses.map(\.address).filter {
        if case .link(_, let octets) = $0 { !octets.isEmpty } else { true }
      }.map { ConfigurationEntry(name: interface.name, address: $0) }
      if shown.isEmpty { shown = [ConfigurationEntry(name: interface.name, address: nil)] }
      for entry in shown {
        guard bytes + entry.size <= room else { return .configuration(entries, bytes: bytes) }
        entries.append(entry)
        bytes += entry.size
      }
    }
    return .configuration(entries, bytes: bytes)
  }

  // MARK: One interface

  private func perform(_ operation: InterfaceOperation, on interface: Interface) throws(InterfaceError) -> InterfaceReply {
    if let reply = try answer(operation, on: interface) { return reply }
    if let reply = try performAddress(operation, on: interface) { return reply }
    if let reply = try performDriver(operation, on: interface) { return reply }
    try set(operation, on: interface)
    return .done
  }

  /// Requests that ask the layer alone.
  private func answer(_ operation: InterfaceOperation, on interface: Interface) throws(InterfaceError) -> InterfaceReply? {
    switch operation {
    case .getIndex: .index(interface.index)
    case .getFlags: .flags(interface.flags)
    case .getCapabilities: .capabilities(available: interface.capabilities, enabled: interface.enabledCapabilities)
    case .getMetric: .number(interface.state.withLock { $0.metric })
    case .getMTU: .number(interface.mtu)
    case .getTSOLength: .number(interface.tsoLength)
    case .getPhysical: .number(interface.state.withLock { $0.physical })
    case .getData: .data(interface.data)
    case .describe: .description(interface.summary)
    case .getPollCPU: .number(-1)
    case .setPollCPU: .done
    case .groups(let length): try names(interface.groups, length: length)
    default: nil
    }
  }

  /// Requests that change what the layer keeps.
  private func set(_ operation: InterfaceOperation, on interface: Interface) throws(InterfaceError) {
    switch operation {
    case .setFlags(let flags): try interface.setFlags(flags)
    case .changeFlags(let set, let clear): try interface.setFlags(interface.flags.subtracting(clear).union(set))
    case .setCapabilities(let wanted): try interface.setCapabilities(wanted)
    case .setMetric(let metric):
      interface.state.withLock { $0.metric = metric }
      interface.touch()
    case .setMTU(let mtu): try interface.setMTU(mtu)
    case .setTSOLength(let length):
      guard length > 0 else { throw InterfaceError(.EINVAL, "\(interface.name): a TSO length of \(length) is not possible") }
      interface.state.withLock { $0.tsoLength = length }
    case .rename(let name): try rename(interface, to: name)
    case .setDescription(let text):
      guard text.utf8.count <= 1024 else { throw InterfaceError(.ENAMETOOLONG, "\(interface.name): a description has at most 1024 bytes") }
      interface.state.withLock { $0.description = text }
    case .setLinkAddress(let octets): try interface.setLinkAddress(octets)
    case .addMulticast(let group):
      try interface.demandLinkGroup(group)
      try interface.addMulticast(group)
      interface.touch()
    case .deleteMulticast(let group):
      try interface.demandLinkGroup(group)
      try interface.deleteMulticast(group)
      interface.touch()
    case .joinGroup(let group): try interface.join(group: group)
    case .leaveGroup(let group): try interface.leave(group: group)
    case .setPolling(let isOn): try interface.setPolling(isOn)
    default: throw InterfaceError(.EOPNOTSUPP, "\(interface.name): this request is not known")
    }
  }

  /// SIFNAME. The interface stays what it is: its index, its addresses, its cloner.
  /// - Throws: EINVAL (no name), ENAMETOOLONG, EEXIST (its own name too).
  private func rename(_ interface: Interface, to name: String) throws(InterfaceError) {
    try checkName(name)
    let old = interface.name
    events.runHandlers(interface, isAttach: false)
    announce(.departure, interface)
    // One lock for both: whoever looks finds it under the one name or the other.
    state.withLock { state in
      state.names[old] = nil
      state.names[name] = interface
      interface.state.withLock { $0.name = name }
    }
    interface.touch()
    announce(.renamed(from: old), interface)
    events.runHandlers(interface, isAttach: true)
    announce(.arrival, interface)
  }
}

extension InterfaceOperation {
  /// What only a privileged asker may do.
  public var needsPrivilege: Bool {
    switch self {
    case .getIndex, .getFlags, .getCapabilities, .getMetric, .getMTU, .getTSOLength, .getData, .getPhysical, .describe,
      .getStatus, .getMedia, .getGeneric, .getTunnel, .groups, .getAddress, .getNetmask, .getBroadcast, .getDestination,
      .getPollCPU:
      false
    default: true
    }
  }
}

extension Interface {
  func demandLinkGroup(_ group: SocketAddress) throws(InterfaceError) {
    guard flags.contains(.multicast) else { throw InterfaceError(.EOPNOTSUPP, "\(name) knows no multicast") }
    guard group.family == .link else { throw InterfaceError(.EINVAL, "\(name): \(group) is no link-level address") }
  }

  /// SIFCAP.
  /// - Throws: EINVAL (a capability that it does not have), what the driver says.
  func setCapabilities(_ wanted: InterfaceCapabilities) throws(InterfaceError) {
    guard capabilities.isSuperset(of: wanted) else {
      throw InterfaceError(.EINVAL, "\(name) does not have all of these capabilities (`ringway ifconfig -m \(name)` lists them)")
    }
    try driver.handle(.setCapabilities(wanted), on: self)
    enabledCapabilities = wanted
    touch()
  }

  /// SIFMTU, in bytes.
  /// - Throws: EOPNOTSUPP (a driver without requests), EINVAL (outside 72 to 65535), what the driver says.
  func setMTU(_ wanted: Int) throws(InterfaceError) {
    try demandRequests()
    guard (72...65535).contains(wanted) else {
      throw InterfaceError(.EINVAL, "\(name): the MTU \(wanted) is outside 72 to 65535")
    }
    try driver.handle(.setMTU(wanted), on: self)
    mtu = wanted
    touch()
    table.announce(.mtu(wanted), self)
    for domain in table.domains { domain.mtuChanged(self) }
  }

  func demandRequests() throws(InterfaceError) {
    if !driver.takesRequests { throw InterfaceError(.EOPNOTSUPP, "\(name): its driver takes no requests") }
  }

  var data: InterfaceData {
    let (metric, baudRate, lastChange) = state.withLock { ($0.metric, $0.baudRate, $0.lastChange) }
    return InterfaceData(
      type: type, mtu: mtu, metric: metric, baudRate: baudRate, linkStatus: linkStatus,
      counters: table.compatibility.isOn ? compatibleCounters : counters, lastChange: lastChange)
  }

  var summary: InterfaceDescription {
    let shown = addresses.map {
      AddressDescription(
        address: $0.address, prefixLength: $0.prefixLength, broadcast: $0.broadcast, destination: $0.destination, flags: $0.flags)
    }
    return InterfaceDescription(
      name: name, index: index, vnet: vnet, flags: flags, capabilities: capabilities, enabledCapabilities: enabledCapabilities,
      data: data, linkAddress: linkAddress, description: interfaceDescription, addresses: shown, groups: groups,
      media: driver.media, tsoLength: tsoLength, physical: state.withLock { $0.physical }, multicast: multicastGroups,
      promiscuousCount: promiscuousCount, allMulticastCount: allMulticastCount)
  }
}
