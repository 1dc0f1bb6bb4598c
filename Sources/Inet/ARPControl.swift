// What people do with the ARP cache, and what addresses do in it: announcements, probes, defence (RFC 5227).

internal import Ether
public import Ifnet
internal import Netisr
internal import Packet
internal import Routes
public import Wire

extension Inet {
  // MARK: ringway arp

  /// The cache, by interface and address.
  public func arpEntries() -> [ARPEntry] {
    let now = arp.second
    return arp.state.withLock { $0.entries }.sorted { $0.key < $1.key }.compactMap { key, entry in
      guard let interface = table.interface(NeighbourTable.interface(key)) else { return nil }
      return ARPEntry(
        address: NeighbourTable.address(key), station: entry.station == 0 ? nil : MACAddress(rawValue: entry.station),
        interface: interface.name, expires: entry.phase == .permanent ? nil : Int(entry.expires) - Int(now),
        isPublished: entry.isPublished, state: "\(entry.phase)")
    }
  }

  /// Makes or changes an entry by hand (`arp -s`).
  /// - Parameters:
  ///   - published: also answer requests for the address, with `station`.
  ///   - temporary: it lives for `net.link.ether.inet.max_age`, and the network may change it.
  /// - Throws: EINVAL (no station's address, no host's address), ENETUNREACH (on no interface's network).
  public func setARP(
    _ address: IPv4Address, _ station: MACAddress, on interface: Interface? = nil, published: Bool = false, temporary: Bool = false
  ) throws(InterfaceError) {
    guard station.isUnicast else { throw InterfaceError(.EINVAL, "\(station) is no station's address") }
    guard !address.isMulticast, address != .broadcast, address != .any else {
      throw InterfaceError(.EINVAL, "\(address) is no host's address")
    }
    guard let index = interface?.index ?? network(of: address) else {
      throw InterfaceError(.ENETUNREACH, "\(address) is on no interface's network")
    }
    let key = NeighbourTable.key(index, address)
    let life = UInt32(settings.arpMaxAge.value)
    onOwner { inet in
      inet.arpSet(
        key,
        ARPOwner.Entry(
          phase: temporary ? .reachable : .permanent, station: station.rawValue, expires: inet.arp.second &+ life,
          isPublished: published))
    }
  }

  /// Takes an entry away (`arp -d`). Throws ENOENT when there is none.
  public func deleteARP(_ address: IPv4Address, on interface: Interface? = nil) throws(InterfaceError) {
    let keys = arp.change { state -> [UInt64] in
      let keys = state.entries.keys.filter {
        NeighbourTable.address($0) == address && (interface == nil || NeighbourTable.interface($0) == interface?.index)
      }
      for key in keys { state.entries[key] = nil }
      return Array(keys)
    }
    if keys.isEmpty { throw InterfaceError(.ENOENT, "there is no ARP entry for \(address)") }
    onEveryWorker { inet in for key in keys { inet.neighbourRemoved(key) } }
  }

  /// Takes every entry away (`arp -a -d`). Returns how many there were.
  @discardableResult public func flushARP() -> Int {
    let keys = arp.change { state -> [UInt64] in
      defer { state.entries = [:] }
      return Array(state.entries.keys)
    }
    onEveryWorker { inet in for key in keys { inet.neighbourRemoved(key) } }
    return keys.count
  }

  private func network(of address: IPv4Address) -> InterfaceIndex? {
    let all = state.withLock { $0.addresses }
    var best: (length: Int, index: InterfaceIndex)?
    for (index, addresses) in all {
      for entry in addresses where entry.isOnNetwork(address) && entry.prefixLength > best?.length ?? -1 {
        best = (entry.prefixLength, index)
      }
    }
    return best?.index
  }

  /// Whose station answers for an address that is not ours: a published entry, or our own for what is routed elsewhere.
  func proxy(for message: ARPMessage, on interface: Interface) -> MACAddress? {
    if arp.hasPublished {
      let key = NeighbourTable.key(interface.index, message.target)
      let entry = arp.state.withLock { $0.entries[key] }
      if let entry, entry.isPublished { return MACAddress(rawValue: entry.station) }
    }
    guard settings.arpProxyAll.isOn, message.sender.rawValue != 0, let route = routes.lookup(message.target),
      route.interface != interface.index, !route.flags.contains(.reject), !route.flags.contains(.blackhole)
    else { return nil }
    return interface.linkAddress
  }

  // MARK: Addresses

  /// Announces an address now and, as `net.link.ether.inet.garp_rexmit_count` says, again every two seconds.
  func arpAnnounce(_ address: IPv4Address, on interface: Interface) {
    let key = NeighbourTable.key(interface.index, address)
    let again = settings.arpAnnouncements.value
    onOwner { inet in
      inet.arp.change { $0.announcements[key] = again > 0 ? (again, inet.arp.second &+ 2) : nil }
      inet.sendARP(ARPMessage.request, from: address, to: address, hardware: nil, on: interface)
    }
  }

  /// Forgets what was planned for an address that goes.
  func arpForget(_ address: IPv4Address, on index: InterfaceIndex) {
    let key = NeighbourTable.key(index, address)
    arp.change { state in
      state.announcements[key] = nil
      state.probes[key] = nil
      state.defended[key] = nil
    }
  }

  /// Begins to probe an address: three questions a second apart, then it is used. On worker 0.
  func arpProbe(_ address: IPv4Address, on interface: Interface) {
    let key = NeighbourTable.key(interface.index, address)
    arp.change { $0.probes[key] = ARPOwner.Probe(sent: 1, next: arp.second &+ 1) }
    sendARP(ARPMessage.request, from: .any, to: address, hardware: nil, on: interface)
  }

  /// Another station has the address that is being probed: it stays unused.
  func arpProbeLost(_ index: InterfaceIndex, _ address: IPv4Address, _ station: MACAddress) {
    let key = NeighbourTable.key(index, address)
    guard arp.change({ $0.probes.removeValue(forKey: key) != nil }) else { return }
    unsafe my.pointee.counters.add(.arpConflicts)
    announce(.conflict(address, station: station, interface: index))
  }

  /// Another station uses an address of ours: tells, and says once in ten seconds whose it is (RFC 5227, 2.4 (b)).
  func arpDefend(_ index: InterfaceIndex, _ address: IPv4Address, _ station: MACAddress) {
    let key = NeighbourTable.key(index, address)
    let now = arp.second
    let defend = arp.change { state -> Bool in
      if let last = state.defended[key], now < last &+ 10 { return false }
      state.defended[key] = now
      return true
    }
    announce(.conflict(address, station: station, interface: index))
    guard defend, let interface = table.interface(index) else { return }
    sendARP(ARPMessage.request, from: address, to: address, hardware: nil, on: interface)
  }

  /// What is due of announcements and probes. Once a second, on worker 0.
  func arpAnnounceTick(_ now: UInt32) {
    let announced = arp.change { state -> [UInt64] in
      let due = state.announcements.filter { $0.value.next <= now }.map(\.key)
      for key in due {
        guard let (left, _) = state.announcements[key] else { continue }
        state.announcements[key] = left > 1 ? (left - 1, now &+ 2) : nil
      }
      return due
    }
    let (asked, done) = arp.change { state -> ([UInt64], [UInt64]) in
      var (asked, done): ([UInt64], [UInt64]) = ([], [])
      for (key, probe) in state.probes where probe.next <= now {
        if probe.sent < 3 {
          state.probes[key] = ARPOwner.Probe(sent: probe.sent + 1, next: now &+ 1)
          asked.append(key)
        } else {
          state.probes[key] = nil
          done.append(key)
        }
      }
      return (asked, done)
    }
    for key in announced + asked {
      let address = NeighbourTable.address(key)
      guard let interface = table.interface(NeighbourTable.interface(key)) else { continue }
      sendARP(
        ARPMessage.request, from: asked.contains(key) ? .any : address, to: address, hardware: nil, on: interface)
    }
    for key in done { probed(NeighbourTable.address(key), NeighbourTable.interface(key)) }
  }
}
