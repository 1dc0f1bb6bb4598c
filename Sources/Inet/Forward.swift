// Packets for others (RFC 1812, section 5.2 and 5.3).

internal import Ether
internal import Ifnet
internal import Netisr
internal import Packet
internal import Routes
internal import Wire

extension Inet {
  /// A checked packet that is not for this machine; its header is in the first buffer.
  func forward(_ packet: consuming Packet, _ target: IPv4Address) {
    guard settings.forwarding.isOn else { return refuse(packet, .ipForwardingOff, .ipCannotForward) }
    guard let header = unsafe IPv4Header(unsafe: packet.start, count: packet.firstCount) else { return refuse(packet, .ipMalformed) }
    let source = header.source
    // Neither what was sent to all stations of the link nor what has no way back goes on; link-local stays local.
    guard packet.flags.isDisjoint(with: [.linkBroadcast, .linkMulticast]), source.rawValue >> 24 != 0, target.rawValue >> 24 != 0,
      target.rawValue >> 16 != 0xa9fe, source.rawValue >> 16 != 0xa9fe
    else { return refuse(packet, .ipNotForUs, .ipCannotForward) }
    guard header.timeToLive > 1 else {
      sendError(about: packet, type: ICMP.timeExceeded, code: ICMP.exceededInTransit)
      return refuse(packet, .ipTimeToLive, .ipCannotForward)
    }
    guard let route = routes.lookup(target) else {
      sendError(about: packet, type: ICMP.unreachable, code: ICMP.Unreachable.host)
      return refuse(packet, .ipNoRoute, .ipCannotForward)
    }
    if !route.flags.isDisjoint(with: [.reject, .blackhole]) { return prohibit(packet, route) }
    guard let port = unsafe local.pointee.port(route.interface) else { return refuse(packet, .interfaceGone, .ipCannotForward) }
    let received = packet.interface
    if route.interface == received { redirect(about: packet, source, target, route) }
    var mtu = unsafe port.pointee.interface!._withUnsafeGuaranteedRef { $0.mtu }
    if route.mtu > 0 { mtu = min(route.mtu, mtu) }
    if packet.count > mtu, header.mayNotFragment {
      sendError(
        about: packet, type: ICMP.unreachable, code: ICMP.Unreachable.fragmentationNeeded,
        value: UInt32(min(max(mtu, 0), 65535)))
      return refuse(packet, .ipTooBig, .ipCannotFragment)
    }
    header.decrementTimeToLive()
    // The card's judgement of a received packet asks nothing of the card that sends it.
    packet.setHeaderLengths(link: 0, network: 0)
    unsafe my.pointee.counters.add(.ipForwarded)
    ether.delivered(received)
    // What happens to it from here on is not what happened to what was received.
    packet.interface = .none
    if packet.count > mtu { return fragment(packet, mtu: mtu, towards: route.gateway ?? target, through: route.interface) }
    send(packet, towards: route.gateway ?? target, through: route.interface)
  }

  @inline(never) private func prohibit(_ packet: consuming Packet, _ route: Route4) {
    if route.flags.contains(.reject) { sendError(about: packet, type: ICMP.unreachable, code: ICMP.Unreachable.host) }
    refuse(packet, .ipProhibited, .ipCannotForward)
  }

  /// The packet leaves where it came in: its sender, if it is on that link, could have sent it to the gateway itself
  /// (RFC 1812, section 5.2.7.2).
  @inline(never) private func redirect(about packet: borrowing Packet, _ source: IPv4Address, _ target: IPv4Address, _ route: Route4) {
    guard settings.sendRedirects.isOn, let port = unsafe local.pointee.port(packet.interface), unsafe port.pointee.isOnNetwork(source),
      unsafe local.pointee.find(source).kind == .none
    else { return }
    unsafe my.pointee.counters.add(.ipRedirectsSent)
    sendError(about: packet, type: ICMP.redirect, code: ICMP.redirectHost, value: (route.gateway ?? target).rawValue)
  }
}
