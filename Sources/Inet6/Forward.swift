// Forwarding: packets between interfaces (RFC 8200, section 3; RFC 4443; RFC 4007, section 9).

internal import Ether
internal import Ifnet
internal import Netisr
internal import Packet
internal import Routes
internal import Wire

/// Where a packet goes next.
struct NextHop: BitwiseCopyable {
  var address: IPv6Address
  var link: InterfaceIndex
  /// Bytes.
  var mtu: Int
  var hasGateway: Bool
}

extension Inet6 {
  /// Sends a packet of somebody else's on.
  func forward(_ packet: consuming Packet, _ worker: WorkerPointer) {
    let counters = unsafe worker.pointee.counters
    let bytes = packet.v6
    let source = bytes.address(IPv6Header.source)
    let destination = bytes.address(IPv6Header.destination)
    // No way leads from an address that is none, or out of a link's own scope.
    guard !source.isUnspecified, !source.isLoopback, !destination.isLinkLocal, packet.flags.isDisjoint(with: [.linkBroadcast, .linkMulticast])
    else {
      counters.add(.cannotForward)
      return dropInput(packet, destination.isLinkLocal ? .ipNotForUs : .ipBadAddress, counters)
    }
    if bytes.get8(IPv6Header.next) == IPv6Next.hopByHop, unsafe !checkHopByHop(packet, worker) {
      return dropInput(packet, .ipv6HopByHop, counters)
    }
    let hops = bytes.get8(IPv6Header.hopLimit)
    guard hops > 1 else {
      unsafe sendError(.hopLimitExceeded, about: packet, worker)
      return dropInput(packet, .ipTimeToLive, counters)
    }
    // SAFETY (here and below): `routes` and `ether` hold the two for as long as this object lives.
    guard let route = unsafe fastRoutes._withUnsafeGuaranteedRef({ $0.lookup(destination) }) else {
      counters.add(.noRoute)
      unsafe sendError(.unreachable(.noRoute), about: packet, worker)
      return dropInput(packet, .ipNoRoute, counters)
    }
    if !route.flags.isDisjoint(with: [.reject, .blackhole, .local]) {
      return unsafe refuse(packet, route, worker)
    }
    let slot = unsafe worker.pointee.slot(route.interface)
    guard slot.isUsable, slot.bits & InterfaceSlot.loopback == 0 else {
      unsafe sendError(.unreachable(.noRoute), about: packet, worker)
      return dropInput(packet, .interfaceDown, counters)
    }
    guard !source.isLinkLocal else {
      counters.add(.badScope)
      unsafe sendError(.unreachable(.beyondScope), about: packet, worker)
      return dropInput(packet, .ipBadAddress, counters)
    }
    let mtu = route.mtu > 0 ? min(route.mtu, Int(slot.mtu)) : Int(slot.mtu)
    guard packet.count <= mtu else {
      unsafe sendError(.tooBig(mtu: mtu), about: packet, worker)
      return dropInput(packet, .ipTooBig, counters)
    }
    let nextHop = route.gateway ?? destination
    if route.interface == packet.interface, unsafe worker.pointee.settings.sendRedirects {
      unsafe sendRedirect(about: packet, nextHop: nextHop, worker)
    }
    bytes.set8(hops &- 1, IPv6Header.hopLimit)
    counters.add(.forwarded)
    let received = packet.interface
    unsafe fastEther._withUnsafeGuaranteedRef { $0.delivered(received) }
    // What the card found is no wish for the card that sends.
    packet.flags.formIntersection(.hashed)
    unsafe emit(packet, to: nextHop, on: route.interface, slot, worker, forwarded: true)
  }

  /// A route that leads nowhere, or home to an address that is not ready.
  @inline(never) private func refuse(_ packet: consuming Packet, _ route: Route6, _ worker: WorkerPointer) {
    let counters = unsafe worker.pointee.counters
    counters.add(.cannotForward)
    if route.flags.contains(.local) { return dropInput(packet, .ipNotForUs, counters) }
    if route.flags.contains(.reject) { unsafe sendError(.unreachable(.noRoute), about: packet, worker) }
    dropInput(packet, .ipProhibited, counters)
  }

  /// Hop-by-hop options are every router's matter (RFC 8200, section 4.3). false: the packet goes no further.
  @inline(never) private func checkHopByHop(_ packet: borrowing Packet, _ worker: WorkerPointer) -> Bool {
    let bytes = packet.v6
    let length = (Int(bytes.get8(IPv6Header.size + 1)) + 1) * 8
    guard bytes.holds(8, at: IPv6Header.size), bytes.holds(length, at: IPv6Header.size) else { return false }
    switch Headers.options(bytes, IPv6Header.size, length) {
    case .fine: return true
    case .drop: return false
    case .problem(let error):
      unsafe worker.pointee.counters.add(.badOptions)
      unsafe sendError(error, about: packet, worker)
      return false
    }
  }

  // MARK: The last step

  /// Sends a finished packet to a neighbour on a link, or hands it to worker 0, which finds out its link address.
  @inline(__always)
  func emit(
    _ packet: consuming Packet, to nextHop: IPv6Address, on link: InterfaceIndex, _ slot: InterfaceSlot, _ worker: WorkerPointer,
    forwarded: Bool = false
  ) {
    guard slot.isEthernet else {
      guard let interface = unsafe slot.interface else {
        return unsafe dropOutput(packet, .interfaceGone, link, worker.pointee.counters)
      }
      return unsafe emitElsewhere(packet, to: nextHop, interface)
    }
    let mac: UInt64
    if nextHop.isMulticast {
      mac = nextHop.multicastMAC
    } else if let found = unsafe worker.pointee.neighbours.find(nextHop, link.word) {
      mac = unsafe found.pointee.value.mac
      if unsafe found.pointee.value.tellsOwner {
        unsafe found.pointee.value.tellsOwner = false
        tellUse(of: nextHop, link)
      }
    } else {
      return unsafe hold(packet, for: nextHop, on: link, worker, forwarded: forwarded)
    }
    let record = unsafe packet.intoRaw()
    // SAFETY: the packet was this function's and is the callee's now.
    unsafe fastEther._withUnsafeGuaranteedRef {
      unsafe $0.send(Packet(unsafe: record), to: mac, type: Ethernet.typeIPv6, through: link)
    }
  }

  @inline(never) func emitElsewhere(_ packet: consuming Packet, to nextHop: IPv6Address, _ interface: Unmanaged<Interface>) {
    // SAFETY: the control half holds the interface until every worker has forgotten the slot.
    let interface = unsafe interface.takeUnretainedValue()
    if let link = interface.link {
      link.output(packet, to: .ipv6(nextHop), on: interface)
    } else {
      netisr.drops.drop(packet, .sendInterfaceGone, interface: interface.index, proto: NetisrProtocol.ipv6.rawValue)
    }
  }
}
