// Interfaces of a stack: as records, and changed by requests.

public import Control
public import Ifnet
internal import Inet
internal import Inet6
internal import Netisr
internal import Packet
internal import Routes
internal import Wire

extension ControlError {
  init(_ error: InterfaceError) {
    self.init(error.code.rawValue, error.problem.hasSuffix(".") ? error.problem : error.problem + ".")
  }
  init(_ error: RouteError) {
    let errno = switch error {
    case .exists: "EEXIST"
    case .missing: "ESRCH"
    case .unreachable: "ENETUNREACH"
    case .full: "ENOBUFS"
    case .invalid: "EINVAL"
    }
    self.init(errno, "\(error)")
  }
  init(_ error: SysctlError) {
    let errno = switch error {
    case .unknown: "ENOENT"
    case .readOnly: "EPERM"
    case .invalid: "EINVAL"
    }
    self.init(errno, "\(error)")
  }
}

extension Stack {
  /// Carries a request of the interface layer out.
  public func perform(_ request: InterfaceRequest, by who: Credentials = .system) throws(ControlError) -> InterfaceReply {
    do { return try interfaces.perform(request, by: who) } catch { throw ControlError(error) }
  }

  /// An interface by its name. ENXIO
  public func interface(_ name: String) throws(ControlError) -> Interface {
    guard let interface = interfaces.interface(named: name) else {
      throw ControlError("ENXIO", "there is no interface \(name). `ringway ifconfig -l` lists them.")
    }
    return interface
  }

  /// Everything that `ifconfig` and `netstat -i` show of an interface.
  public func record(of interface: Interface) -> InterfaceRecord {
    var record = InterfaceRecord(name: interface.name, index: Int(interface.index.index), type: interface.type.word, mtu: interface.mtu)
    record.generation = Int(interface.index.generation)
    record.flags = interface.flags.names
    record.flagBits = interface.flags.rawValue
    if case .description(let description)? = try? interfaces.perform(.on(interface.name, .describe), by: .system) {
      record.metric = description.data.metric
      record.tsolen = interface.capabilities.isDisjoint(with: [.tso4, .tso6]) ? nil : description.tsoLength
      record.description = description.description.isEmpty ? nil : description.description
      record.lastChange = wallClock(description.data.lastChange)
      record.multicast = description.multicast.map { "\($0.group)" }
    }
    record.baudRate = interface.baudRate
    record.capabilities = interface.capabilities.names
    record.options = interface.enabledCapabilities.names
    record.optionBits = interface.enabledCapabilities.rawValue
    record.ether = interface.type == .loopback ? nil : interface.linkAddress?.description
    record.addresses = interface.addresses.compactMap(record(of:))
    record.media = interface.driver.media.map {
      MediaRecord(configured: $0.configured, active: $0.active, status: $0.status, baudRate: $0.baudRate, choices: $0.choices)
    }
    record.link = interface.linkStatus.description
    record.groups = interface.groups
    record.counters = counters(of: interface)
    record.subqueues = interface.subqueues.map(record(of:))
    record.vnet = Int(interface.vnet.rawValue)
    if let status = try? interface.driver.answer(.status, on: interface), case .text(let text) = status { record.details["status"] = text }
    return record
  }

  private func record(of address: InterfaceAddress) -> AddressRecord? {
    guard let family = address.address.family, family != .link else { return nil }
    var record = AddressRecord(family: family.word, address: "\(address.address)", prefixLength: address.prefixLength)
    record.broadcast = address.broadcast.map { "\($0)" }
    record.destination = address.destination.map { "\($0)" }
    if case .ipv6(let ipv6) = address.address {
      record.scope = ipv6.isLinkLocal ? "link-local" : "global"
      let marks: [(IPv6AddressFlags, String)] = [
        (.anycast, "anycast"), (.tentative, "tentative"), (.duplicated, "duplicated"), (.deprecated, "deprecated"), (.autoconf, "autoconf"),
      ]
      record.marks = marks.filter { address.ipv6Flags.contains($0.0) }.map(\.1)
    }
    return record
  }

  private func record(of queue: Subqueue) -> SubqueueRecord {
    var record = SubqueueRecord(index: queue.index, length: queue.count, oactive: queue.isActive)
    record.owner = queue.owner
    record.limit = queue.limits.length
    record.bytes = UInt64(queue.bytes)
    let counters = queue.counters
    (record.drops, record.starts, record.sent) = (counters.drops, counters.starts, counters.sent)
    return record
  }

  func counters(of interface: Interface) -> CountersRecord {
    let from = interface.counters
    var to = CountersRecord()
    to.received = from.ipackets
    to.delivered = ether.deliveries(of: interface.index)
    for line in netisr.drops.snapshot() where line.interface == interface.index && !line.reason.isOutput {
      to.dropped += line.packets
      // What never came as far as the interface.
      if line.reason == .receiveRing || line.reason == .receiveError { to.received += line.packets }
    }
    (to.ipackets, to.ibytes, to.ierrors, to.imcasts, to.iqdrops) = (from.ipackets, from.ibytes, from.ierrors, from.imcasts, from.iqdrops)
    (to.opackets, to.obytes, to.oerrors, to.omcasts, to.oqdrops) = (from.opackets, from.obytes, from.oerrors, from.omcasts, from.oqdrops)
    (to.collisions, to.noproto) = (from.collisions, from.noproto)
    return to
  }

  /// Makes an interface. EPERM, EINVAL, EEXIST, ENOSPC, ENXIO.
  /// - Returns: its name.
  public func create(_ name: String, _ options: [String: String], by who: Credentials = .system) throws(ControlError) -> String {
    if who.isPrivileged, let refusal = refuseCreation?(name) { throw refusal }
    var parameters = options
    // Linux's word for it.
    if let namespace = parameters.removeValue(forKey: "netns") { parameters["namespace"] = namespace }
    guard case .created(let made) = try perform(.create(name: name, parameters: parameters), by: who) else {
      throw ControlError("EIO", "\(name) was not made.")
    }
    return made
  }

  /// Changes an interface; the first change that is refused ends it.
  public func change(_ name: String, _ changes: [InterfaceChange], by who: Credentials = .system) throws(ControlError) -> InterfaceRecord {
    var name = name
    _ = try interface(name)
    for change in changes {
      if case .allMulticast(let on) = change {
        try setAllMulticast(on, on: name, by: who)
        continue
      }
      _ = try perform(.on(name, try operation(change, name)), by: who)
      if case .name(let new) = change { name = new }
    }
    return record(of: try interface(name))
  }

  /// Counted, so that a group's member and a person do not switch each other off.
  private func setAllMulticast(_ on: Bool, on name: String, by who: Credentials) throws(ControlError) {
    let interface = try interface(name)
    guard who.isPrivileged else { throw ControlError("EPERM", "\(name): only root and the configured group may change interfaces.") }
    do throws(InterfaceError) { try interface.setAllMulticast(on) } catch { throw ControlError(error.code.rawValue, error.problem) }
  }

  private func operation(_ change: InterfaceChange, _ name: String) throws(ControlError) -> InterfaceOperation {
    switch change {
    case .flags(let set, let clear): .changeFlags(set: try flags(set), clear: try flags(clear))
    case .mtu(let bytes): .setMTU(bytes)
    case .metric(let value): .setMetric(value)
    case .tsolen(let bytes): .setTSOLength(bytes)
    case .name(let new): .rename(new)
    case .description(let text): .setDescription(text)
    case .capabilities(let enable, let disable):
      .setCapabilities(try interface(name).enabledCapabilities.union(try capabilities(enable)).subtracting(try capabilities(disable)))
    case .linkAddress(let text):
      .setLinkAddress(try octets(text))
    case .media(let type): .setMedia(type)
    case .addGroup(let group): .joinGroup(group)
    case .deleteGroup(let group): .leaveGroup(group)
    // The bit of the request; the count of taps stays as it is.
    case .promiscuous(let on): .changeFlags(set: on ? .permanentPromisc : [], clear: on ? [] : .permanentPromisc)
    case .allMulticast(let on): .changeFlags(set: on ? .allMulti : [], clear: on ? [] : .allMulti)
    case .addMulticast(let text): .addMulticast(try address(text).address)
    case .deleteMulticast(let text): .deleteMulticast(try address(text).address)
    case .setAddress(let text, let broadcast, let destination):
      .setAddress(try address(text).address, prefixLength: try address(text).length, broadcast: try optional(broadcast), destination: try optional(destination))
    case .addAddress(let text, let broadcast, let destination):
      .addAddress(try address(text).address, prefixLength: try address(text).length, broadcast: try optional(broadcast), destination: try optional(destination))
    case .deleteAddress(let text): .deleteAddress(try address(text).address)
    case .polling(let on): .setPolling(on)
    case .tunnel(let source, let destination):
      if let source, let destination {
        .setTunnel(source: try address(source).address, destination: try address(destination).address)
      } else { .deleteTunnel }
    case .generic(let name, let value): .setGeneric(name: name, value: value)
    }
  }

  func address(_ text: String) throws(ControlError) -> AddressText {
    guard let parsed = AddressText(text) else {
      throw ControlError("EINVAL", "\"\(text)\" is no address. Write 198.18.0.1/24 or 2001:2::1/64.")
    }
    return parsed
  }
  private func optional(_ text: String?) throws(ControlError) -> SocketAddress? {
    guard let text else { return nil }
    return try address(text).address
  }
  private func octets(_ text: String) throws(ControlError) -> [UInt8] {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false).map { UInt8($0, radix: 16) }
    guard parts.count <= 32, parts.allSatisfy({ $0 != nil }) else { throw ControlError("EINVAL", "\"\(text)\" is no link address. Write 02:00:00:00:00:01.") }
    return parts.compactMap { $0 }
  }
  private func flags(_ names: [String]) throws(ControlError) -> InterfaceFlags {
    var flags: InterfaceFlags = []
    for name in names {
      guard let flag = InterfaceFlags(named: name) else { throw ControlError("EINVAL", "there is no interface flag \"\(name)\".") }
      flags.insert(flag)
    }
    return flags
  }
  private func capabilities(_ names: [String]) throws(ControlError) -> InterfaceCapabilities {
    var found: InterfaceCapabilities = []
    for name in names {
      guard let one = InterfaceCapabilities(named: name) else { throw ControlError("EINVAL", "there is no capability \"\(name)\".") }
      found.insert(one)
    }
    return found
  }

  /// A moment of the dispatcher's clock, in seconds since 1970.
  func wallClock(_ moment: UInt64) -> Double? {
    moment == 0 ? nil : WallClock.seconds() - Double(clock.now() &- min(moment, clock.now())) / 1e9
  }
}
