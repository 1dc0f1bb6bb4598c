// Requests that others decide: address requests go to their family, media and tunnels to the driver.

internal import Netisr
internal import Wire

extension InterfaceTable {
  /// Address requests; nil: it is none.
  func performAddress(_ operation: InterfaceOperation, on interface: Interface) throws(InterfaceError) -> InterfaceReply? {
    switch operation {
    case .setAddress(let address, let prefixLength, let broadcast, let destination):
      try give(
        .set(address, prefixLength: prefixLength, broadcast: broadcast, destination: destination), family: address, interface)
    case .addAddress(let address, let prefixLength, let broadcast, let destination):
      try give(
        .add(address, prefixLength: prefixLength, broadcast: broadcast, destination: destination), family: address, interface)
    case .deleteAddress(let address):
      try domain(address, interface).control(.delete(address), on: interface)
    case .getAddress(let family):
      return .address(try entry(family, nil, interface).address)
    case .getNetmask(let family, let address):
      return .address(try part(try entry(family, address, interface).mask, "mask", interface))
    case .getBroadcast(let family, let address):
      return .address(try part(try entry(family, address, interface).broadcast, "broadcast address", interface))
    case .getDestination(let family, let address):
      return .address(try part(try entry(family, address, interface).destination, "destination", interface))
    default: return nil
    }
    interface.touch()
    return .done
  }

  private func domain(_ address: SocketAddress, _ interface: Interface) throws(InterfaceError) -> any ProtocolDomain {
    guard let family = address.family, let domain = domains.first(where: { $0.family == family }) else {
      throw InterfaceError(.EOPNOTSUPP, "\(interface.name): no protocol here has addresses like \(address)")
    }
    return domain
  }

  /// An interface that gets an address comes up with it, as in the BSDs; IPv6 comes up too.
  private func give(_ request: AddressRequest, family: SocketAddress, _ interface: Interface) throws(InterfaceError) {
    try domain(family, interface).control(request, on: interface)
    if !interface.flags.contains(.up) { try interface.setFlags(interface.flags.union(.up)) }
  }

  /// The address that is named, or the family's first.
  private func entry(_ family: UInt8, _ address: SocketAddress?, _ interface: Interface) throws(InterfaceError) -> InterfaceAddress {
    guard let known = AddressFamily(rawValue: family), known == .link || domains.contains(where: { $0.family == known }) else {
      throw InterfaceError(.EOPNOTSUPP, "\(interface.name): no protocol here has the address family \(family)")
    }
    let found = interface.addresses.first { $0.address.family == known && (address == nil || $0.address == address) }
    guard let found else {
      throw InterfaceError(.EADDRNOTAVAIL, "\(interface.name) has no \(address.map { "address \($0)" } ?? "address of this family")")
    }
    return found
  }

  private func part(_ part: SocketAddress?, _ what: String, _ interface: Interface) throws(InterfaceError) -> SocketAddress {
    guard let part else { throw InterfaceError(.EINVAL, "\(interface.name): this address has no \(what)") }
    return part
  }

  /// Requests to the driver; nil: it is none.
  func performDriver(_ operation: InterfaceOperation, on interface: Interface) throws(InterfaceError) -> InterfaceReply? {
    let driver = interface.driver
    switch operation {
    case .setPhysical(let value):
      try interface.demandRequests()
      try driver.handle(.setPhysical(value), on: interface)
      interface.state.withLock { $0.physical = value }
    case .setMedia(let media):
      try interface.demandRequests()
      try driver.handle(.setMedia(media), on: interface)
    case .setGeneric(let name, let value):
      try interface.demandRequests()
      try driver.handle(.generic(name: name, value: value), on: interface)
    case .setTunnel(let source, let destination):
      try interface.demandRequests()
      try driver.handle(.setTunnel(source: source, destination: destination), on: interface)
    case .deleteTunnel:
      try interface.demandRequests()
      try driver.handle(.deleteTunnel, on: interface)
    case .getStatus: return .text(try ask(.status, interface))
    case .getGeneric(let name): return .text(try ask(.generic(name: name), interface))
    case .getMedia:
      try interface.demandRequests()
      guard let media = driver.media else { throw InterfaceError(.EOPNOTSUPP, "\(interface.name) has no medium") }
      return .media(media)
    case .getTunnel:
      try interface.demandRequests()
      guard case .tunnel(let source, let destination) = try driver.answer(.tunnel, on: interface) else {
        throw InterfaceError(.EOPNOTSUPP, "\(interface.name) is no tunnel")
      }
      return .tunnel(source: source, destination: destination)
    default: return nil
    }
    interface.touch()
    return .done
  }

  private func ask(_ query: DriverQuery, _ interface: Interface) throws(InterfaceError) -> String {
    try interface.demandRequests()
    guard case .text(let text) = try interface.driver.answer(query, on: interface) else {
      throw InterfaceError(.EOPNOTSUPP, "\(interface.name) does not say this")
    }
    return text
  }
}
