// IPv4 options on their way through (RFC 791, section 3.1; RFC 1812, section 5.2.4).

internal import Ether
internal import Ifnet
internal import Packet
internal import Wire

extension Inet {
  private enum Verdict {
    case pass(IPv4Address)
    /// The octet that is wrong.
    case bad(Int)
    case sourceRoute
  }

  /// A packet with options: looks at them, writes down what they ask for, and passes the packet on.
  @inline(never) func inputWithOptions(_ packet: consuming Packet) {
    guard let header = unsafe IPv4Header(unsafe: packet.start, count: packet.firstCount) else { return refuse(packet, .ipMalformed) }
    switch settings.processOptions.value {
    case 0: return place(packet, header.destination)
    case 2: return refuse(packet, .ipOptions, .ipBadOptions)
    default: break
    }
    switch process(packet, header) {
    case .pass(let target):
      header.fillChecksum()
      // The card judged another header.
      packet.flags.remove(.ipChecksum)
      place(packet, target)
    case .bad(let at):
      sendError(about: packet, type: ICMP.parameterProblem, code: 0, value: UInt32(at) << 24)
      refuse(packet, .ipOptions, .ipBadOptions)
    case .sourceRoute:
      sendError(about: packet, type: ICMP.unreachable, code: ICMP.Unreachable.sourceRouteFailed)
      refuse(packet, .ipOptions, .ipBadOptions)
    }
  }

  private func process(_ packet: borrowing Packet, _ header: IPv4Header) -> Verdict {
    let (start, end) = unsafe (packet.start, header.headerLength)
    var target = header.destination
    var at = IPv4Header.size
    while at < end {
      let kind = unsafe start.octet(at)
      if kind == IPv4Option.end { break }
      if kind == IPv4Option.noOperation {
        at += 1
        continue
      }
      guard at + 1 < end else { return .bad(at) }
      let length = unsafe Int(start.octet(at + 1))
      guard length >= 2, at + length <= end else { return .bad(at + 1) }
      switch kind {
      case IPv4Option.recordRoute, IPv4Option.timestamp:
        guard length >= (kind == IPv4Option.recordRoute ? 3 : 4) else { return .bad(at + 1) }
        if let bad = write(packet, at, length, isRoute: kind == IPv4Option.recordRoute, target) { return .bad(bad) }
      case IPv4Option.looseSourceRoute, IPv4Option.strictSourceRoute:
        guard length >= 3 else { return .bad(at + 1) }
        guard unsafe local.pointee.find(target).kind == .own else {
          // On its way to a hop that is not us: strict ones must not come here.
          if kind == IPv4Option.strictSourceRoute || !settings.sourceRoute.isOn { return .sourceRoute }
          break
        }
        let pointer = unsafe Int(start.octet(at + 2))
        guard pointer >= 4 else { return .bad(at + 2) }
        // Its last hop was the one before us: it is ours, if we take such packets.
        if pointer + 3 > length {
          if !settings.acceptSourceRoute.isOn { return .sourceRoute }
          break
        }
        guard settings.sourceRoute.isOn, settings.forwarding.isOn else { return .sourceRoute }
        let next = unsafe IPv4Address(rawValue: start.big32(at + pointer - 1))
        guard let route = routes.lookup(next), !next.isMulticast, !next.isLoopback, next.rawValue != 0 else { return .sourceRoute }
        if kind == IPv4Option.strictSourceRoute, route.gateway != nil { return .sourceRoute }
        unsafe start.setBig32(source(through: route.interface, towards: next).rawValue, at + pointer - 1)
        unsafe start.setOctet(UInt8(pointer + 4), at + 2)
        header.destination = next
        target = next
      default: break
      }
      at += length
    }
    return .pass(target)
  }

  /// Our address towards `target` on an interface; 0.0.0.0: it has none.
  func source(through interface: InterfaceIndex, towards target: IPv4Address) -> IPv4Address {
    unsafe IPv4Address(rawValue: local.pointee.port(interface)?.pointee.source(towards: target) ?? 0)
  }

  /// Record route and timestamp: our address, the time. Returns the octet that is wrong.
  private func write(_ packet: borrowing Packet, _ at: Int, _ length: Int, isRoute: Bool, _ target: IPv4Address) -> Int? {
    let start = unsafe packet.start
    let pointer = unsafe Int(start.octet(at + 2))
    guard pointer >= (isRoute ? 4 : 5) else { return at + 2 }
    let own = unsafe local.pointee.find(target).kind == .own ? target : outgoing(target)
    if isRoute {
      if pointer + 3 > length { return nil }
      unsafe start.setBig32(own.rawValue, at + pointer - 1)
      unsafe start.setOctet(UInt8(truncatingIfNeeded: pointer + 4), at + 2)
      return nil
    }
    let mode = unsafe start.octet(at + 3) & 15
    guard mode == 0 || mode == 1 || mode == 3 else { return at + 3 }
    let need = mode == 0 ? 4 : 8
    if pointer + need - 1 > length {
      // Full: one more station that had no room, up to 15.
      let missed = unsafe start.octet(at + 3) >> 4
      guard missed < 15 else { return at + 3 }
      unsafe start.setOctet((missed + 1) << 4 | mode, at + 3)
      return nil
    }
    if mode == 3, unsafe local.pointee.find(IPv4Address(rawValue: start.big32(at + pointer - 1))).kind != .own { return nil }
    if mode == 1 { unsafe start.setBig32(own.rawValue, at + pointer - 1) }
    unsafe start.setBig32(millisecondsOfDay(), at + pointer - 1 + need - 4)
    unsafe start.setOctet(UInt8(truncatingIfNeeded: pointer + need), at + 2)
    return nil
  }

  private func outgoing(_ target: IPv4Address) -> IPv4Address {
    guard let route = routes.lookup(target) else { return .any }
    return source(through: route.interface, towards: route.gateway ?? target)
  }
}
