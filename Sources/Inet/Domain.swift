// IPv4 as a family of addresses: set, added, deleted, with their routes.
//
// An address brings a host route to itself (local) and a route to its network (connected). The network's route goes when
// the interface goes down and comes back with it; when two addresses share a network, the second takes the route over.

internal import Ether
public import Ifnet
internal import Netisr
internal import Packet
internal import Routes
internal import Wire

extension Inet: ProtocolDomain {
  public var family: AddressFamily { .ipv4 }

  public func attach(_ interface: Interface) { rebuild() }

  /// Everything of IPv4 that an interface has goes: addresses, routes, neighbours, groups. On worker 0.
  public func detach(_ interface: Interface) {
    for entry in state.withLock({ $0.addresses[interface.index] ?? [] }) { take(entry, from: interface) }
    state.withLock { state in
      state.addresses[interface.index] = nil
      state.groups[interface.index] = nil
    }
    igmpForget(interface.index)
    rebuild()
    let index = interface.index
    onOwner { $0.arpPurge(index) }
  }

  public func changed(_ interface: Interface, isUp: Bool) {
    let addresses = state.withLock { $0.addresses[interface.index] ?? [] }
    for entry in addresses {
      if isUp { addNetworkRoute(entry, interface.index) } else { removeNetworkRoute(entry, interface.index) }
    }
    let index = interface.index
    if isUp { announceAll(interface) } else { onOwner { $0.arpPurge(index) } }
  }

  public func mtuChanged(_ interface: Interface) {}

  public func linkAddressChanged(_ interface: Interface) { announceAll(interface) }

  /// Gratuitous ARP for every address of an interface.
  func announceAll(_ interface: Interface) {
    guard interface.flags.contains(.up), interface.link === ether else { return }
    for entry in state.withLock({ $0.addresses[interface.index] ?? [] }) where !entry.isTentative {
      arpAnnounce(entry.address, on: interface)
    }
  }

  public func control(_ request: AddressRequest, on interface: Interface) throws(InterfaceError) {
    switch request {
    case .set(let address, let prefixLength, let broadcast, let destination):
      let new = try checked(address, prefixLength, broadcast, destination, interface)
      if let old = state.withLock({ $0.addresses[interface.index]?.first }) {
        if old.address != new.address { try refuseKnown(new.address, interface) }
        remove(old, interface)
      } else {
        try refuseKnown(new.address, interface)
      }
      add(new, interface, atHead: true)
    case .add(let address, let prefixLength, let broadcast, let destination):
      let new = try checked(address, prefixLength, broadcast, destination, interface)
      try refuseKnown(new.address, interface)
      add(new, interface, atHead: false)
    case .delete(let address):
      guard case .ipv4(let wanted) = address else { throw wrongFamily(address, interface) }
      guard let old = state.withLock({ $0.addresses[interface.index]?.first { $0.address == wanted } }) else {
        throw InterfaceError(.EADDRNOTAVAIL, "\(interface.name) does not have the address \(wanted)")
      }
      remove(old, interface)
    }
  }

  private func wrongFamily(_ address: SocketAddress, _ interface: Interface) -> InterfaceError {
    InterfaceError(.EAFNOSUPPORT, "\(interface.name): \(address) is no IPv4 address")
  }

  private func refuseKnown(_ address: IPv4Address, _ interface: Interface) throws(InterfaceError) {
    let owner = state.withLock { $0.addresses.first { $0.value.contains { $0.address == address } }?.key }
    guard let owner else { return }
    throw InterfaceError(.EEXIST, "\(interface.name): \(table.interface(owner)?.name ?? "another interface") has the address \(address) already")
  }

  /// Fills in what was left out: the class's mask, the network's last address as the broadcast address.
  private func checked(
    _ address: SocketAddress, _ prefixLength: Int?, _ broadcast: SocketAddress?, _ destination: SocketAddress?, _ interface: Interface
  ) throws(InterfaceError) -> InetAddress {
    guard case .ipv4(let own) = address else { throw wrongFamily(address, interface) }
    guard own.rawValue >> 24 != 0, !own.isMulticast, own.rawValue >> 28 != 15 else {
      throw InterfaceError(.EINVAL, "\(interface.name): \(own) is no host's address")
    }
    let byClass = own.rawValue >> 31 == 0 ? 8 : own.rawValue >> 30 == 2 ? 16 : 24
    var length = prefixLength ?? byClass
    guard (0...32).contains(length) else { throw InterfaceError(.EINVAL, "\(interface.name): a prefix of \(length) bits is impossible") }
    var far: IPv4Address?
    if let destination {
      guard case .ipv4(let other) = destination else { throw wrongFamily(destination, interface) }
      guard interface.flags.contains(.pointToPoint) else {
        throw InterfaceError(.EINVAL, "\(interface.name) is not point-to-point and takes no destination")
      }
      far = other
      if prefixLength == nil { length = 32 }
    }
    var last: IPv4Address?
    if let broadcast {
      guard case .ipv4(let given) = broadcast else { throw wrongFamily(broadcast, interface) }
      last = given
    } else if interface.flags.contains(.broadcast), length < 31 {
      last = IPv4Address(rawValue: own.rawValue | ~IPv4Address.mask(length).rawValue)
    }
    let entry = InterfaceAddress(
      address, on: interface, prefixLength: length, broadcast: last.map { .ipv4($0) }, destination: destination)
    return InetAddress(address: own, prefixLength: length, broadcast: last, destination: far, entry: entry)
  }

  private func add(_ new: InetAddress, _ interface: Interface, atHead: Bool) {
    var new = new
    let isEthernet = interface.link === ether && !interface.flags.contains(.noARP)
    new.isTentative = isEthernet && settings.arpProbe.isOn && interface.flags.contains(.up)
    let isFirst = state.withLock { state -> Bool in
      let isFirst = state.addresses[interface.index]?.isEmpty ?? true
      state.addresses[interface.index, default: []].insert(new, at: atHead ? 0 : state.addresses[interface.index]?.count ?? 0)
      return isFirst
    }
    interface.add(new.entry, atHead: atHead)
    rebuild()
    addRoutes(new, interface)
    if isFirst { joinAllHosts(interface) }
    guard isEthernet, interface.flags.contains(.up) else { return }
    let address = new.address
    if new.isTentative { onOwner { $0.arpProbe(address, on: interface) } } else { arpAnnounce(address, on: interface) }
  }

  /// Probing found nobody with the address: it is used from now on.
  func probed(_ address: IPv4Address, _ index: InterfaceIndex) {
    let found = state.withLock { state -> Bool in
      guard let at = state.addresses[index]?.firstIndex(where: { $0.address == address }) else { return false }
      state.addresses[index]?[at].isTentative = false
      return true
    }
    guard found, let interface = table.interface(index) else { return }
    rebuild()
    arpAnnounce(address, on: interface)
  }

  private func remove(_ old: InetAddress, _ interface: Interface) {
    take(old, from: interface)
    let isLast = state.withLock { state -> Bool in
      state.addresses[interface.index]?.removeAll { $0.address == old.address }
      return state.addresses[interface.index]?.isEmpty ?? true
    }
    if isLast { leaveAllHosts(interface) }
    rebuild()
    handOver(old)
  }

  /// An address's entry, routes and plans go.
  private func take(_ old: InetAddress, from interface: Interface) {
    interface.remove(old.entry)
    arpForget(old.address, on: interface.index)
    removeNetworkRoute(old, interface.index)
    let own = IPv4Prefix(old.address, 32)
    if let route = exactRoute(own), route.flags.contains(.local) { _ = try? routes.remove(own) }
  }

  // MARK: Routes

  private func exactRoute(_ prefix: IPv4Prefix) -> Route4? { routes.list4().first { $0.prefix == prefix } }

  private func networkPrefix(_ entry: InetAddress) -> IPv4Prefix {
    entry.destination.map { IPv4Prefix($0, 32) } ?? IPv4Prefix(entry.address, entry.prefixLength)
  }

  private func addRoutes(_ entry: InetAddress, _ interface: Interface) {
    let local = Route4(IPv4Prefix(entry.address, 32), interface: interface.index, flags: [.up, .host, .local])
    // Somebody's host route to what is now our own address gives way.
    _ = try? routes.add(local, replacing: true)
    if interface.flags.contains(.up) { addNetworkRoute(entry, interface.index) }
  }

  func addNetworkRoute(_ entry: InetAddress, _ index: InterfaceIndex) {
    let prefix = networkPrefix(entry)
    guard prefix != IPv4Prefix(entry.address, 32) else { return }
    let flags: RouteFlags = prefix.length == 32 ? [.up, .host, .connected] : [.up, .connected]
    _ = try? routes.add(Route4(prefix, interface: index, flags: flags))
  }

  func removeNetworkRoute(_ entry: InetAddress, _ index: InterfaceIndex) {
    let prefix = networkPrefix(entry)
    guard let route = exactRoute(prefix), route.interface == index, route.flags.contains(.connected) else { return }
    _ = try? routes.remove(prefix)
  }

  /// Another address on the same network takes its route over.
  private func handOver(_ old: InetAddress) {
    let all = state.withLock { $0.addresses }
    for (index, entries) in all {
      guard let interface = table.interface(index), interface.flags.contains(.up) else { continue }
      for entry in entries where networkPrefix(entry) == networkPrefix(old) { addNetworkRoute(entry, index) }
    }
  }

  // MARK: Following interfaces

  /// Keeps up with what happens to interfaces.
  func follow() {
    let token = table.subscribe { [weak self] event, interface in
      guard let self else { return }
      switch event {
      case .attach, .arrival, .flags: rebuild()
      case .link(.up): announceAll(interface)
      case .multicastAdded(.ipv4(let group)): joined(group, interface)
      case .multicastRemoved(.ipv4(let group)): left(group, interface)
      default: break
      }
    }
    state.withLock { $0.tokens.append(token) }
  }

  private func joined(_ group: IPv4Address, _ interface: Interface) {
    let isNew = state.withLock { state -> Bool in
      guard !(state.groups[interface.index]?.contains(group) ?? false) else { return false }
      state.groups[interface.index, default: []].append(group)
      return true
    }
    guard isNew else { return }
    rebuild()
    igmpJoined(group, interface)
  }

  private func left(_ group: IPv4Address, _ interface: Interface) {
    state.withLock { $0.groups[interface.index]?.removeAll { $0 == group } }
    rebuild()
    igmpLeft(group, interface)
  }

  private func joinAllHosts(_ interface: Interface) {
    guard interface.flags.contains(.multicast) else { return }
    // A driver that refuses the group hears it all the same or never: nothing here depends on it.
    try? interface.addMulticast(.ipv4(.allHosts))
  }
  private func leaveAllHosts(_ interface: Interface) {
    guard interface.flags.contains(.multicast) else { return }
    try? interface.deleteMulticast(.ipv4(.allHosts))
  }
}
