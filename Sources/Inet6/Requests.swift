// What people ask of neighbours, routers and groups (`ringway ndp`).

public import Ifnet
internal import Netisr
public import Packet
internal import Routes
public import Wire

extension Inet6 {
  /// Every neighbour, by interface and address.
  public func neighbours() -> [NeighbourInfo] {
    onOwner { inet6 in
      let now = inet6.netisr.clock.now()
      return inet6.owner.neighbours.values.map { neighbour in
        NeighbourInfo(
          address: neighbour.key.address, interface: InterfaceIndex(word: neighbour.key.link), mac: neighbour.mac,
          state: neighbour.state, isRouter: neighbour.isRouter,
          expires: neighbour.state == .permanent ? nil : (neighbour.deadline > now ? neighbour.deadline - now : 0) / 1_000_000_000,
          held: neighbour.held.count)
      }.sorted { ($0.interface.index, $0.address) < ($1.interface.index, $1.address) }
    }
  }

  /// Sets a neighbour by hand: it stays until it is deleted.
  /// - Throws: EINVAL for addresses that are no station's; ENXIO when the interface has gone.
  public func setNeighbour(_ address: IPv6Address, _ mac: MACAddress, on interface: Interface) throws(InterfaceError) {
    guard mac.isUnicast, !address.isMulticast, !address.isUnspecified else {
      throw InterfaceError(.EINVAL, "\(interface.name): \(address) at \(mac) is no station. Give a unicast address and its link address")
    }
    let index = interface.index.word
    let isThere = onOwner { inet6 -> Bool in
      guard inet6.owner.links[index] != nil else { return false }
      let key = NeighbourKey(address: address, link: index)
      let neighbour = inet6.owner.neighbours[key] ?? Neighbour(key)
      inet6.owner.neighbours[key] = neighbour
      neighbour.mac = mac
      inet6.enter(.permanent, neighbour)
      inet6.flush(neighbour)
      return true
    }
    if !isThere { throw InterfaceError(.ENXIO, "\(interface.name) has no IPv6: it is being taken away") }
  }

  /// - Throws: ENOENT when there is no such neighbour.
  public func deleteNeighbour(_ address: IPv6Address, on interface: Interface) throws(InterfaceError) {
    let key = NeighbourKey(address: address, link: interface.index.word)
    let wasThere = onOwner { inet6 -> Bool in
      guard let neighbour = inet6.owner.neighbours[key] else { return false }
      inet6.forget(neighbour, .neighbourUnresolved)
      return true
    }
    if !wasThere { throw InterfaceError(.ENOENT, "\(interface.name) has no neighbour \(address). `ringway ndp -a` lists them") }
  }

  /// Deletes every neighbour that was not set by hand.
  public func flushNeighbours() {
    onOwner { inet6 in
      for neighbour in inet6.owner.neighbours.values where neighbour.state != .permanent { inet6.forget(neighbour, .neighbourUnresolved) }
    }
  }

  /// Groups that this machine listens to on an interface.
  public func groups(on interface: Interface) -> [IPv6Address] {
    let index = interface.index.word
    return onOwner { $0.owner.links[index]?.groups.keys.sorted() ?? [] }
  }

  /// Default routers: interface, address, seconds left.
  public func defaultRouters() -> [(interface: InterfaceIndex, address: IPv6Address, expires: UInt64)] {
    onOwner { inet6 in
      let now = inet6.netisr.clock.now()
      return inet6.owner.links.values.flatMap { link in
        link.routers.map { (link.index, $0.address, ($0.until > now ? $0.until - now : 0) / 1_000_000_000) }
      }.sorted { ($0.0.index, $0.1) < ($1.0.index, $1.1) }
    }
  }

  /// Destinations whose path carries less than its first link: address, bytes.
  public func pathMTUs() -> [(destination: IPv6Address, mtu: Int)] { paths.all.map { ($0.0, $0.1) } }
}
