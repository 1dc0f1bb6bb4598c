// Receiving neighbour discovery: checks on the worker that has the packet, the rest on worker 0.

internal import Ether
internal import Ifnet
internal import Netisr
internal import Packet
internal import Synchronization
internal import Wire

/// A message that passed its checks.
struct NDArrival: Sendable {
  var message: NDMessage
  var source: IPv6Address
  var destination: IPv6Address
  var link: UInt32
}

extension Inet6 {
  /// A message of neighbour discovery at `offset`; its checksum is right.
  func receiveND(_ packet: consuming Packet, _ offset: Int, _ worker: WorkerPointer) {
    let counters = unsafe worker.pointee.counters
    let isWhole = packet.pullUp(packet.count)
    let bytes = packet.v6
    let type = bytes.get8(offset)
    let source = bytes.address(IPv6Header.source)
    let destination = bytes.address(IPv6Header.destination)
    counters.add(Self.counter(type))
    // Hop limit 255: it comes from the link (section 7.1). Never in fragments (RFC 6980), so it lies in one buffer.
    guard bytes.get8(IPv6Header.hopLimit) == 255, isWhole, !Headers.hasFragment(bytes, offset),
      let message = NDMessage(bytes.dropFirst(offset)), Self.isSound(message, source, destination)
    else {
      counters.add(Self.badCounter(type))
      return dropInput(packet, .neighbourMalformed, counters)
    }
    let link = packet.interface.word
    if case .neighbourSolicitation(let target, _) = message {
      // Also addresses that are not ready yet are worth a look.
      guard let own = unsafe worker.pointee.own.find(target, target.isLinkScoped ? link : 0), unsafe own.pointee.value.link == link else {
        return dropInput(packet, .neighbourNotForUs, counters)
      }
    }
    guard inFlight.load(ordering: .relaxed) < 512 else { return dropInput(packet, .tooManyMessages, counters) }
    delivered(packet.interface, counters)
    let arrival = NDArrival(message: message, source: source, destination: destination, link: link)
    let worker0 = netisr.worker(0)
    if worker0.isCurrent { return handle(arrival) }
    inFlight.add(1, ordering: .relaxed)
    worker0.post { [self] in
      inFlight.subtract(1, ordering: .relaxed)
      handle(arrival)
    }
  }

  private static func counter(_ type: UInt8) -> Inet6Counter {
    switch type {
    case ICMPv6.routerSolicitation: .routerSolicitationIn
    case ICMPv6.routerAdvertisement: .routerAdvertisementIn
    case ICMPv6.neighbourSolicitation: .solicitationIn
    case ICMPv6.neighbourAdvertisement: .advertisementIn
    default: .redirectIn
    }
  }

  private static func badCounter(_ type: UInt8) -> Inet6Counter {
    switch type {
    case ICMPv6.redirect: .badRedirect
    case ICMPv6.routerSolicitation, ICMPv6.routerAdvertisement: .badRouter
    default: .badNeighbour
    }
  }

  /// What addresses and options must be like together (RFC 4861, sections 6.1, 7.1, 8.1).
  private static func isSound(_ message: NDMessage, _ source: IPv6Address, _ destination: IPv6Address) -> Bool {
    switch message {
    case .routerSolicitation(let options): !(source.isUnspecified && options.source != nil)
    case .routerAdvertisement: source.isLinkLocal
    case .neighbourSolicitation(let target, let options):
      source.isUnspecified ? destination == target.solicitedNode && options.source == nil : true
    case .neighbourAdvertisement(_, _, let isSolicited, _, _): !(destination.isMulticast && isSolicited)
    case .redirect: source.isLinkLocal
    }
  }

  // MARK: Worker 0

  func handle(_ arrival: NDArrival) {
    guard let link = owner.links[arrival.link], link.isUp, !owner.isStopped else { return }
    switch arrival.message {
    case .neighbourSolicitation(let target, let options): solicited(target, options, arrival, link)
    case .neighbourAdvertisement(let target, let isRouter, let isSolicited, let overrides, let options):
      advertised(target, isRouter, isSolicited, overrides, options, link)
    case .routerSolicitation(let options):
      if !arrival.source.isUnspecified, settings.forwarding, let mac = options.source {
        learn(NeighbourKey(address: arrival.source, link: arrival.link), mac, isRouter: false)
      }
      answerRouterSolicitation(link)
    case .routerAdvertisement(let message, let options): routerAdvertised(message, options, arrival.source, link)
    case .redirect(let target, let destination, let options): redirected(target, destination, options, arrival.source, link)
    }
  }

  /// Somebody asks for one of our addresses (section 7.2.3 and 7.2.4; RFC 4862, section 5.4.3).
  private func solicited(_ target: IPv6Address, _ options: NDOptions, _ arrival: NDArrival, _ link: Link6) {
    guard let record = link.addresses.first(where: { $0.address == target }) else { return }
    switch record.state {
    case .duplicated: return
    case .tentative:
      // From nobody: another one wants the address as well.
      if arrival.source.isUnspecified { foundDuplicate(record, link) }
      return
    case .ready: break
    }
    if !arrival.source.isUnspecified, let mac = options.source {
      guard mac.isUnicast else { return }
      learn(NeighbourKey(address: arrival.source, link: arrival.link), mac, isRouter: nil)
    }
    let destination = arrival.source.isUnspecified ? IPv6Address.allNodes : arrival.source
    advertise(target, to: destination, isSolicited: !arrival.source.isUnspecified, on: link, isAnycast: record.isAnycast)
  }

  /// Sends a neighbour advertisement.
  func advertise(_ target: IPv6Address, to destination: IPv6Address, isSolicited: Bool, on link: Link6, isAnycast: Bool = false) {
    counters0.add(.advertisementOut)
    let message = NDBuilder.advertisement(
      target: target, link: link.interface.linkAddress, isRouter: settings.forwarding, isSolicited: isSolicited, overrides: !isAnycast)
    sendOnLink(message, from: target, to: destination, on: link)
  }

  /// A neighbour says what its link address is (section 7.2.5).
  private func advertised(
    _ target: IPv6Address, _ isRouter: Bool, _ isSolicited: Bool, _ overrides: Bool, _ options: NDOptions, _ link: Link6
  ) {
    if let record = link.addresses.first(where: { $0.address == target }) {
      if record.state == .tentative { foundDuplicate(record, link) }
      return
    }
    let key = NeighbourKey(address: target, link: link.index.word)
    guard let neighbour = owner.neighbours[key], neighbour.state != .permanent else { return }
    let mac = options.target
    if let mac, !mac.isUnicast { return }
    if neighbour.state == .incomplete {
      guard let mac else { return }
      neighbour.mac = mac
      neighbour.isRouter = isRouter
      enter(isSolicited ? .reachable : .stale, neighbour)
      return flush(neighbour)
    }
    let isOther = mac != nil && mac != neighbour.mac
    if isOther, !overrides {
      if neighbour.state == .reachable { enter(.stale, neighbour) }
      return
    }
    if let mac { neighbour.mac = mac }
    let wasRouter = neighbour.isRouter
    neighbour.isRouter = isRouter
    if isSolicited {
      enter(.reachable, neighbour)
    } else if isOther {
      enter(.stale, neighbour)
    }
    if wasRouter, !isRouter { routerLost(target, link) }
  }

  /// A link address that came along with another message: good to use, not proven (section 7.2.3).
  func learn(_ key: NeighbourKey, _ mac: MACAddress, isRouter: Bool?) {
    guard mac.isUnicast, !key.address.isMulticast, !key.address.isUnspecified else { return }
    guard let neighbour = owner.neighbours[key] ?? make(key), neighbour.state != .permanent else { return }
    if let isRouter { neighbour.isRouter = isRouter }
    guard neighbour.mac != mac else { return }
    neighbour.mac = mac
    enter(.stale, neighbour)
    flush(neighbour)
  }
}

extension Headers {
  /// Whether a fragment header lies in front of `offset`.
  static func hasFragment(_ bytes: IPv6Bytes, _ offset: Int) -> Bool {
    var next = bytes.get8(IPv6Header.next)
    var at = IPv6Header.size
    while at < offset, bytes.holds(8, at: at) {
      if next == IPv6Next.fragment { return true }
      next = bytes.get8(at)
      at += (Int(bytes.get8(at + 1)) + 1) * 8
    }
    return false
  }
}
