// Received IPv4 packets: checks, whose they are, and to whom they go (RFC 791; RFC 1122, section 3.2.1).

internal import CRingway
internal import Ether
internal import Ifnet
internal import Netisr
internal import Packet
internal import Wire

extension Inet {
  @inline(__always) func refuse(_ packet: consuming Packet, _ reason: DropReason) {
    netisr.drops.drop(packet, reason, proto: NetisrProtocol.ip.rawValue)
  }
  @inline(never) func refuse(_ packet: consuming Packet, _ reason: DropReason, _ counter: InetCounter) {
    unsafe my.pointee.counters.add(counter)
    refuse(packet, reason)
  }

  /// IP's handler.
  func input(_ packet: consuming Packet) {
    let counters = unsafe my.pointee.counters
    counters.add(.ipTotal)
    guard packet.pullUp(IPv4Header.size) else { return refuse(packet, .ipMalformed, .ipTooSmall) }
    guard let header = unsafe IPv4Header(unsafe: packet.start, count: packet.firstCount) else {
      return refuse(packet, .ipMalformed, .ipTooSmall)
    }
    guard header.version == 4 else { return refuse(packet, .ipMalformed, .ipBadVersion) }
    let headerLength = header.headerLength
    if headerLength != IPv4Header.size {
      guard headerLength > IPv4Header.size else { return refuse(packet, .ipMalformed, .ipBadHeaderLength) }
      guard packet.pullUp(headerLength) else { return refuse(packet, .ipMalformed, .ipBadHeaderLength) }
    }
    // The first buffer keeps its place when it is filled up, so the view still holds.
    guard packet.flags.contains(.ipChecksum) || header.isChecksumRight else {
      return refuse(packet, .ipBadChecksum, .ipBadChecksum)
    }
    let total = header.totalLength
    guard total >= headerLength else { return refuse(packet, .ipMalformed, .ipBadLength) }
    guard total <= packet.count else { return refuse(packet, .ipMalformed, .ipTooShort) }
    // What is behind the datagram is the link's padding.
    if total < packet.count { packet.truncate(to: total) }
    let (source, target) = (header.source, header.destination)
    guard let port = unsafe local.pointee.port(packet.interface) else { return refuse(packet, .interfaceGone) }
    guard source.rawValue >> 28 < 14, target.rawValue != 0,
      !source.isLoopback && !target.isLoopback || (unsafe port.pointee.isLoopback)
    else { return refuse(packet, .ipBadAddress, .ipBadAddress) }
    if headerLength != IPv4Header.size { return inputWithOptions(packet) }
    place(packet, target)
  }

  /// Own, broadcast, group, or somebody else's.
  @inline(__always) func place(_ packet: consuming Packet, _ target: IPv4Address) {
    let entry = unsafe local.pointee.find(target)
    if entry.kind == .none, target.rawValue >> 28 < 14 { return forward(packet, target) }
    if entry.kind == .own { return deliverHere(packet) }
    placeGroup(packet, target, entry)
  }

  @inline(never) private func placeGroup(_ packet: consuming Packet, _ target: IPv4Address, _ entry: LocalEntry) {
    if entry.kind == .broadcast {
      if entry.interface == packet.interface { return deliverHere(packet) }
      guard settings.directedBroadcast.isOn else { return refuse(packet, .ipBadAddress, .ipCannotForward) }
      return forward(packet, target)
    }
    if target == .broadcast { return deliverHere(packet) }
    guard target.isMulticast, let port = unsafe local.pointee.port(packet.interface) else {
      return refuse(packet, .ipBadAddress, .ipBadAddress)
    }
    guard unsafe port.pointee.isMember(target) else { return refuse(packet, .ipNotForUs, .ipNotMember) }
    deliverHere(packet)
  }

  /// For this machine: fragments wait for the rest, whole datagrams go up.
  func deliverHere(_ packet: consuming Packet) {
    guard let header = unsafe IPv4Header(unsafe: packet.start, count: packet.firstCount) else {
      return refuse(packet, .ipMalformed)
    }
    // Nobody else may say that he is us (RFC 1122, section 3.2.1.3).
    guard unsafe local.pointee.find(header.source).kind != .own || local.pointee.port(packet.interface)?.pointee.isLoopback ?? false
    else { return refuse(packet, .ipBadAddress, .ipBadAddress) }
    guard header.isFragment else { return up(packet) }
    unsafe my.pointee.counters.add(.ipFragments)
    netisr.dispatch(.ipDirect, packet)
  }

  /// A whole datagram to its protocol.
  func up(_ packet: consuming Packet) {
    guard let header = unsafe IPv4Header(unsafe: packet.start, count: packet.firstCount) else {
      return refuse(packet, .ipMalformed)
    }
    let (proto, length) = (header.proto, header.headerLength)
    guard length <= packet.firstCount else { return refuse(packet, .ipMalformed) }
    let counters = unsafe my.pointee.counters
    switch proto {
    case IPv4Header.icmp:
      counters.add(.ipDelivered)
      icmpInput(packet, length)
    case IPv4Header.igmp:
      counters.add(.ipDelivered)
      netisr.dispatch(.igmp, packet)
    default:
      if let handler = state.withLock({ $0.upper[proto] }) {
        counters.add(.ipDelivered)
        return handler(packet, length)
      }
      counters.add(.ipNoProtocol)
      // UDP's and TCP's ports are all closed here; other protocols do not exist (RFC 1122, section 3.2.2.1).
      let code = proto == IPv4Header.udp ? ICMP.Unreachable.port : ICMP.Unreachable.proto
      sendError(about: packet, type: ICMP.unreachable, code: code)
      refuse(packet, .ipUnknownProtocol)
    }
  }
}
