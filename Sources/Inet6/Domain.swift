// The family's place among the interfaces: attach and detach, up and down, requests for addresses.

public import Ifnet
internal import Netisr
internal import Packet
internal import Routes
internal import Wire

extension Inet6 {
  public func attach(_ interface: Interface) {
    onOwner { inet6 in
      guard inet6.owner.links[interface.index.word] == nil else { return }
      let link = Link6(interface, hopLimit: inet6.settings.hopLimit)
      inet6.owner.links[link.index.word] = link
      inet6.publishSlot(link)
      if interface.flags.contains(.up) { inet6.bringUp(link) }
    }
  }

  public func detach(_ interface: Interface) {
    onOwner { inet6 in
      guard let link = inet6.owner.links[interface.index.word] else { return }
      inet6.bringDown(link)
      for record in link.addresses { inet6.removeAddress(record, link) }
      for (group, state) in link.groups {
        inet6.forgetGroup(group, link)
        if !state.isForeign { try? interface.deleteMulticast(.ipv6(group)) }
      }
      for neighbour in inet6.owner.neighbours.values where neighbour.key.link == link.index.word {
        inet6.forget(neighbour, .interfaceGone)
      }
      inet6.owner.links[link.index.word] = nil
      let index = link.index
      unsafe inet6.publish { worker in
        unsafe worker.pointee.setSlot(index, InterfaceSlot())
        unsafe inet6.purgeFragments(of: index.word, worker)
        // The interface stays until the last worker has forgotten it.
        _ = interface
      }
    }
  }

  public func changed(_ interface: Interface, isUp: Bool) {
    onOwner { inet6 in
      guard let link = inet6.owner.links[interface.index.word] else { return }
      if isUp { inet6.bringUp(link) } else { inet6.bringDown(link) }
    }
  }

  public func mtuChanged(_ interface: Interface) {
    onOwner { inet6 in
      guard let link = inet6.owner.links[interface.index.word] else { return }
      inet6.publishSlot(link)
    }
  }

  /// Neighbours hear of the new link address at once (RFC 4861, section 7.2.6).
  public func linkAddressChanged(_ interface: Interface) {
    onOwner { inet6 in
      guard let link = inet6.owner.links[interface.index.word], link.isUp else { return }
      for record in link.addresses where record.state == .ready {
        inet6.advertise(record.address, to: .allNodes, isSolicited: false, on: link, isAnycast: record.isAnycast)
      }
    }
  }

  // MARK: Up and down

  func bringUp(_ link: Link6) {
    guard !link.isUp else { return }
    link.isUp = true
    link.isDisabled = false
    publishSlot(link)
    if link.isLoopback {
      if link.addresses.isEmpty { addAddress(AddressRecord(.loopback, 128, on: link.interface), link) }
      join(.allNodes, link)
      return
    }
    guard link.interface.flags.contains(.multicast) || link.isEthernet else { return }
    if link.groups[.allNodes] == nil { join(.allNodes, link) } else { reportAll(link) }
    if settings.forwarding, link.groups[.allRouters] == nil { join(.allRouters, link) }
    // A first message waits a little, so that machines that start together do not speak together (section 5.4.2).
    for record in link.addresses {
      installRoutes(record, link)
      startDetection(record, link, delay: jitter(configuration.initialDelay))
    }
    if settings.autoLinkLocal, let mac = link.interface.linkAddress, !link.addresses.contains(where: { $0.address.isLinkLocal }) {
      let record = AddressRecord(IPv6Address(linkLocal: mac), 64, on: link.interface)
      link.addresses.append(record)
      publish(record, link)
      link.interface.add(record.entry)
      join(record.address.solicitedNode, link)
      startDetection(record, link, delay: jitter(configuration.initialDelay))
    }
  }

  func bringDown(_ link: Link6) {
    guard link.isUp else { return }
    link.isUp = false
    link.solicitationTimer?.cancel()
    link.advertisementTimer?.cancel()
    link.generalQueryTimer?.cancel()
    for group in link.groups.values { group.timer?.cancel() }
    for record in link.addresses {
      record.timer?.cancel()
      if record.state == .ready, !link.isLoopback { record.state = .tentative }
      publish(record, link)
      removeRoutes(record, link)
    }
    for router in link.routers { removeRouter(router, link) }
    for prefix in link.prefixes { removePrefix(prefix, link) }
    for neighbour in owner.neighbours.values where neighbour.key.link == link.index.word && neighbour.state != .permanent {
      forget(neighbour, .interfaceDown)
    }
    publishSlot(link)
  }

  // MARK: Requests

  public func control(_ request: AddressRequest, on interface: Interface) throws(InterfaceError) {
    let result = onOwner { inet6 -> Result<Void, InterfaceError> in
      do throws(InterfaceError) {
        try inet6.perform(request, interface)
        return .success(())
      } catch { return .failure(error) }
    }
    try result.get()
  }

  private func perform(_ request: AddressRequest, _ interface: Interface) throws(InterfaceError) {
    guard let link = owner.links[interface.index.word] else {
      throw InterfaceError(.ENXIO, "\(interface.name) has no IPv6: it is being taken away")
    }
    switch request {
    case .set(let address, let length, _, let destination):
      let record = try record(address, length, destination, link)
      for old in link.addresses where old.address.isLinkLocal == record.address.isLinkLocal { removeAddress(old, link) }
      addAddress(record, link)
    case .add(let address, let length, _, let destination):
      let record = try record(address, length, destination, link)
      if owner.links.values.contains(where: { ($0 === link || !record.address.isLinkLocal) && $0.addresses.contains { $0.address == record.address } }) {
        throw InterfaceError(.EEXIST, "\(interface.name): \(record.address) is an address of this machine already")
      }
      addAddress(record, link)
    case .delete(let address):
      guard case .ipv6(let address) = address else { throw InterfaceError(.EAFNOSUPPORT, "\(interface.name): \(address) is no IPv6 address") }
      guard let record = link.addresses.first(where: { $0.address == address }) else {
        throw InterfaceError(.EADDRNOTAVAIL, "\(interface.name) has no address \(address). `ringway ifconfig \(interface.name)` lists its addresses")
      }
      removeAddress(record, link)
    }
  }

  private func record(
    _ address: SocketAddress, _ length: Int?, _ destination: SocketAddress?, _ link: Link6
  ) throws(InterfaceError) -> AddressRecord {
    let name = link.interface.name
    guard case .ipv6(let address) = address else { throw InterfaceError(.EAFNOSUPPORT, "\(name): \(address) is no IPv6 address") }
    guard !address.isMulticast, !address.isUnspecified, !address.isV4Mapped, !address.isLoopback || link.isLoopback else {
      throw InterfaceError(.EINVAL, "\(name): \(address) cannot be the address of this interface. Give a unicast address")
    }
    let length = length ?? (address.isLoopback ? 128 : 64)
    guard (0...128).contains(length) else { throw InterfaceError(.EINVAL, "\(name): the prefix length \(length) is outside 0 to 128") }
    var target: IPv6Address?
    if let destination {
      guard case .ipv6(let value) = destination else { throw InterfaceError(.EAFNOSUPPORT, "\(name): \(destination) is no IPv6 address") }
      guard link.interface.flags.contains(.pointToPoint), length == 128 else {
        throw InterfaceError(.EINVAL, "\(name): a destination needs a point-to-point interface and the prefix length 128")
      }
      target = value
    }
    return AddressRecord(address, length, on: link.interface, destination: target)
  }
}
