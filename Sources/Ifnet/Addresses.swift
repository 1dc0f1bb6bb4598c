// Addresses of an interface, and finding one among all.

public import Netisr
public import Wire

extension Interface {
  /// Links an address in (ifa_iflink), at the head or the tail, on every worker; announces it. When this returns,
  /// every worker has it; on a worker other than 0, worker 0 is sent a message and does it soon.
  public func add(_ address: InterfaceAddress, atHead: Bool = false) {
    table.change { [self] table in
      guard !isDying else { return }
      state.withLock { state in
        // The link-level address stays the first.
        let head = state.addresses.first?.address.family == .link ? 1 : 0
        state.addresses.insert(address, at: atHead ? head : state.addresses.count)
      }
      table.publish(self)
      table.announce(.addressAdded(address.address), self)
    }
  }

  /// Takes an address out (ifa_ifunlink), on every worker; announces it.
  public func remove(_ address: InterfaceAddress) {
    table.change { [self] table in
      let isGone = state.withLock { state -> Bool in
        let count = state.addresses.count
        state.addresses.removeAll { $0 === address }
        return state.addresses.count < count
      }
      guard isGone else { return }
      table.publish(self)
      table.announce(.addressRemoved(address.address), self)
    }
  }

  /// The first address of a family; nil: none.
  public func firstAddress(_ family: AddressFamily) -> InterfaceAddress? { addresses.first { $0.address.family == family } }

  /// ifaof_ifpforaddr: the address of this interface that suits `address` best. Exact or masked, the destination of a
  /// point-to-point interface, else the first of the family; nil for an unknown family.
  public func address(suiting address: SocketAddress) -> InterfaceAddress? {
    guard let family = address.family else { return nil }
    var first: InterfaceAddress?
    for entry in addresses where entry.address.family == family {
      if first == nil { first = entry }
      if entry.mask == nil {
        if entry.address == address || entry.destination == address { return entry }
      } else if flags.contains(.pointToPoint) {
        if entry.destination == address { return entry }
      } else if entry.matches(address) {
        return entry
      }
    }
    return first
  }

  /// ifmaof_ifpforaddr: the group that this interface has joined under `address`.
  public func membership(of address: SocketAddress) -> MulticastDescription? { multicastGroups.first { $0.group == address } }

  /// link_rtrequest: a route whose gateway is this interface itself belongs to a real address of it. Returns the
  /// address that suits the route's destination, after its own callback (`routeRequest`) has run; nil: there is only
  /// the link-level one.
  public func repointRoute(to destination: SocketAddress) -> InterfaceAddress? {
    guard let found = address(suiting: destination), found.address.family != .link else { return nil }
    found.routeRequest?(destination)
    return found
  }
}

extension InterfaceAddress {
  /// Equal where the mask has ones.
  func matches(_ other: SocketAddress) -> Bool {
    switch (address, mask, other) {
    case (.ipv4(let own), .ipv4(let mask), .ipv4(let other)): (own.rawValue ^ other.rawValue) & mask.rawValue == 0
    case (.ipv6(let own), .ipv6(let mask), .ipv6(let other)):
      (own.high ^ other.high) & mask.high == 0 && (own.low ^ other.low) & mask.low == 0
    default: false
    }
  }
}

extension InterfaceTable {
  private func first(vnet: Vnet, where holds: (Interface, InterfaceAddress) -> Bool) -> InterfaceAddress? {
    for interface in interfaces where interface.vnet == vnet {
      for entry in interface.addresses where holds(interface, entry) { return entry }
    }
    return nil
  }

  /// ifa_ifwithaddr: the interface address that equals `address`, or whose broadcast address it is.
  public func address(equal address: SocketAddress, vnet: Vnet = .base) -> InterfaceAddress? {
    first(vnet: vnet) { interface, entry in
      entry.address.family == address.family
        && (entry.address == address || interface.flags.contains(.broadcast) && entry.broadcast == address)
    }
  }

  /// ifa_ifwithdstaddr: the address of the point-to-point interface whose other end this is.
  public func address(withDestination address: SocketAddress, vnet: Vnet = .base) -> InterfaceAddress? {
    first(vnet: vnet) { interface, entry in interface.flags.contains(.pointToPoint) && entry.destination == address }
  }

  /// ifa_ifwithnet: the interface address on whose network `address` is, the longest mask first, ties to the first.
  /// A link-level address is looked up by its index.
  public func address(onNetworkOf address: SocketAddress, vnet: Vnet = .base) -> InterfaceAddress? {
    if case .link(let index, _) = address {
      // A hole in the table gives nothing.
      guard let interface = interface(number: Int(index)), interface.vnet == vnet else { return nil }
      return interface.addresses.first { $0.address.family == .link }
    }
    var best: InterfaceAddress?
    for interface in interfaces where interface.vnet == vnet {
      for entry in interface.addresses where entry.address.family == address.family && address.family != nil {
        if address.family == .ipv4, interface.flags.contains(.pointToPoint) {
          if entry.destination == address { return entry }
        } else if let claims = entry.claims {
          if claims(address) { return entry }
        } else if entry.matches(address), best.map({ entry.prefixLength > $0.prefixLength }) ?? true {
          best = entry
        }
      }
    }
    return best
  }

  /// The link address of the first Ethernet interface that has one (if_getanyethermac).
  /// - Throws: ENOENT
  public func anyEthernetAddress(vnet: Vnet = .base) throws(InterfaceError) -> MACAddress {
    for interface in interfaces where interface.vnet == vnet && interface.type == .ethernet {
      if let address = interface.linkAddress { return address }
    }
    throw InterfaceError(.ENOENT, "no Ethernet interface has an address")
  }
}
