// Redirects (RFC 4861, section 8): a router tells of a better first hop; a host follows.

internal import Ifnet
internal import Netisr
internal import Packet
internal import Routes
internal import Wire

extension Inet6 {
  /// Tells the sender of a packet that goes out where it came in of its better first hop (section 8.2).
  @inline(never) func sendRedirect(about packet: borrowing Packet, nextHop: IPv6Address, _ worker: WorkerPointer) {
    let counters = unsafe worker.pointee.counters
    let bytes = packet.v6
    let source = bytes.address(IPv6Header.source)
    let destination = bytes.address(IPv6Header.destination)
    let link = packet.interface
    // The sender must be a neighbour, and the target known to it by a link-local address, or be the destination.
    guard !destination.isMulticast, nextHop == destination || nextHop.isLinkLocal, let back = routes.lookup(source),
      back.interface == link, back.gateway == nil,
      let from = unsafe linkLocalSource(link, worker),
      unsafe errorWindow.allows(limit: worker.pointee.settings.errorsPerSecond, now: netisr.clock.now()),
      let message = unsafe allocate(worker)
    else { return }
    var mac: UInt64?
    if let found = unsafe worker.pointee.neighbours.find(nextHop, link.word) { mac = unsafe found.pointee.value.mac }
    let optionSize = mac == nil ? 0 : 8
    let room = min(IPv6Header.minimumMTU - IPv6Header.size, message.tailroom) - 40 - optionSize - 8
    let quoted = min(packet.count, room) & ~7
    guard quoted > 0, message.extend(40 + optionSize + 8 + quoted) else { return counters.add(.outDropped) }
    let out = message.v6
    out.set32(UInt32(ICMPv6.redirect) << 24, 0)
    out.set32(0, 4)
    out.setAddress(nextHop, 8)
    out.setAddress(destination, 24)
    if let mac {
      out.set16(UInt16(NDOptions.targetLink) << 8 | 1, 40)
      out.setMAC(mac, 42)
    }
    let at = 40 + optionSize
    out.set16(UInt16(NDOptions.redirectedHeader) << 8 | UInt16(1 + quoted / 8), at)
    out.set16(0, at + 2)
    out.set32(0, at + 4)
    let start = out.dropFirst(at + 8)
    guard packet.copy(from: 0, to: unsafe IPv6Bytes(unsafe: start.base, count: quoted)) else { return }
    counters.add(.redirectsSent)
    output(message, next: IPv6Next.icmp, from: from, to: source, hopLimit: 255, on: link, checksumAt: ICMPv6.checksum)
  }

  /// This machine's link-local address on a link.
  func linkLocalSource(_ link: InterfaceIndex, _ worker: WorkerPointer) -> IPv6Address? {
    var found: IPv6Address?
    unsafe worker.pointee.own.forEach { address, key, own in
      if address.isLinkLocal, key == link.word, own.bits & OwnAddress.ready != 0 { found = address }
    }
    return found
  }

  // MARK: Worker 0

  /// A host follows its own first hop's advice (section 8.3).
  func redirected(_ target: IPv6Address, _ destination: IPv6Address, _ options: NDOptions, _ source: IPv6Address, _ link: Link6) {
    guard settings.acceptRedirects, !settings.forwarding, let route = routes.lookup(destination), route.interface == link.index,
      route.gateway == source
    else { return counters0.add(.badRedirect) }
    let isNeighbour = target == destination
    if let mac = options.target { learn(NeighbourKey(address: target, link: link.index.word), mac, isRouter: isNeighbour ? nil : true) }
    let count = routes.list6().reduce(0) { $0 + ($1.flags.isSuperset(of: [.dynamic, .host]) ? 1 : 0) }
    guard count < 1024 else { return }
    var flags: RouteFlags = [.up, .host, .dynamic]
    if !isNeighbour { flags.insert(.gateway) }
    let host = Route6(IPv6Prefix(destination, 128), gateway: isNeighbour ? nil : target, interface: link.index, flags: flags)
    try? routes.add(host, replacing: route.prefix.length == 128 && route.flags.contains(.dynamic))
  }

  /// Takes away what was learned by redirects to a router that is none any more.
  func removeRedirects(through router: IPv6Address, _ link: Link6) {
    for route in routes.list6() where route.interface == link.index && route.gateway == router && route.flags.isSuperset(of: [.dynamic, .host]) {
      _ = try? routes.remove(route.prefix)
    }
  }
}
