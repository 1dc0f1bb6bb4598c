// Receiving: checks, and whose packet it is.

internal import Ether
internal import Ifnet
internal import Netisr
internal import Packet
internal import Wire

/// What the first look at a packet says.
enum InputVerdict: Equatable {
  case own, forward
  case drop(DropReason, Inet6Counter)
}

extension Inet6 {
  /// Frees a packet that came in and does not go on.
  @inline(never) func dropInput(_ packet: consuming Packet, _ reason: DropReason, _ counters: CounterBlock) {
    counters.add(.inputDrops)
    netisr.drops.drop(packet, reason, proto: NetisrProtocol.ipv6.rawValue)
  }

  /// A packet that came in has reached its end.
  @inline(__always) func delivered(_ interface: InterfaceIndex, _ counters: CounterBlock) {
    counters.add(.delivered)
    ether.delivered(interface)
  }

  /// Frees a packet on its way out.
  @inline(never) func dropOutput(_ packet: consuming Packet, _ reason: DropReason, _ link: InterfaceIndex, _ counters: CounterBlock) {
    counters.add(.outputDrops)
    var reason = reason
    switch reason {
    case .noBuffer: reason = .sendNoBuffer
    case .interfaceDown, .interfaceGone: reason = .sendInterfaceGone
    default: break
    }
    // What no interface was to send is no interface's loss: it was received, and counted, before.
    let loser = reason.isOutput ? link : InterfaceIndex.none
    netisr.drops.drop(packet, reason, interface: loser, proto: NetisrProtocol.ipv6.rawValue)
  }

  /// netisr's IPV6: a packet without its link header.
  func input(_ packet: consuming Packet) {
    guard let worker = unsafe here else {
      return netisr.drops.drop(packet, .netisrNoPlacement, proto: NetisrProtocol.ipv6.rawValue)
    }
    unsafe worker.pointee.counters.add(.total)
    Self.fit(packet)
    switch unsafe Self.look(packet, worker) {
    case .forward: unsafe forward(packet, worker)
    case .own: unsafe receive(packet, worker)
    case .drop(let reason, let counter):
      unsafe worker.pointee.counters.add(counter)
      unsafe dropInput(packet, reason, worker.pointee.counters)
    }
  }

  /// The header in one buffer, and nothing behind the packet that Ethernet put there to fill its frame.
  @inline(__always) static func fit(_ packet: borrowing Packet) {
    guard packet.pullUp(IPv6Header.size) else { return }
    let size = IPv6Header.size &+ Int(packet.v6.get16(IPv6Header.payloadLength))
    if size < packet.count { packet.truncate(to: size) }
  }

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  static func look(_ packet: borrowing Packet, _ worker: WorkerPointer) -> InputVerdict {
    let bytes = packet.v6
    guard bytes.count >= IPv6Header.size else { return .drop(.tooShort, .tooSmall) }
    guard bytes.get8(0) >> 4 == 6 else { return .drop(.ipMalformed, .badVersion) }
    let size = IPv6Header.size &+ Int(bytes.get16(IPv6Header.payloadLength))
    guard size <= packet.count else { return .drop(.ipMalformed, .tooShort) }
    let link = packet.interface
    let slot = unsafe worker.pointee.slot(link)
    guard slot.isUsable else { return .drop(.interfaceDown, .cannotForward) }
    let source = bytes.address(IPv6Header.source)
    let destination = bytes.address(IPv6Header.destination)
    guard !source.isMulticast, !destination.isUnspecified, !source.isV4Mapped, !destination.isV4Mapped else {
      return .drop(.ipBadAddress, .badScope)
    }
    // ::1 never leaves a machine, and never comes from outside (RFC 4291, section 2.5.3).
    if source.isLoopback || destination.isLoopback, slot.bits & InterfaceSlot.loopback == 0 { return .drop(.ipBadAddress, .badScope) }
    if unsafe worker.pointee.isOwn(destination, on: link.word) { return .own }
    if slot.bits & InterfaceSlot.loopback != 0, unsafe worker.pointee.isOwnAnywhere(destination) { return .own }
    if destination.isMulticast {
      // Scopes 0 and 1 never come over a link (RFC 4291, section 2.7).
      if destination.multicastScope < 2, slot.bits & InterfaceSlot.loopback == 0 { return .drop(.ipBadAddress, .badScope) }
      return .drop(.ipNotForUs, .notMember)
    }
    if unsafe !worker.pointee.settings.forwarding { return .drop(.ipForwardingOff, .cannotForward) }
    return .forward
  }

  /// A packet for this machine: past its extension headers, to whoever its last header names.
  func receive(_ packet: consuming Packet, _ worker: WorkerPointer) {
    let counters = unsafe worker.pointee.counters
    switch unsafe Headers.walk(packet.v6, limit: worker.pointee.settings.headerLimit, counters: counters) {
    case .upper(let next, let offset, let field): unsafe deliver(packet, next, offset, field, worker)
    case .fragment(let offset, let field): unsafe receiveFragment(packet, offset, field, worker)
    case .problem(let error, let reason):
      counters.add(.badOptions)
      unsafe sendError(error, about: packet, worker)
      dropInput(packet, reason, counters)
    case .drop(let reason, let counter):
      counters.add(counter)
      dropInput(packet, reason, counters)
    }
  }

  private func deliver(_ packet: consuming Packet, _ next: UInt8, _ offset: Int, _ field: Int, _ worker: WorkerPointer) {
    let counters = unsafe worker.pointee.counters
    if next == IPv6Next.icmp { return unsafe receiveICMP(packet, offset, worker) }
    if let handler = unsafe worker.pointee.upper.handlers[Int(next)] {
      delivered(packet.interface, counters)
      return handler(packet, offset)
    }
    if next == IPv6Next.none {
      // Nothing follows, by the sender's own word (RFC 8200, section 4.7).
      return delivered(packet.interface, counters)
    }
    // A datagram for a port that nobody has: what tells traceroute that it has arrived (RFC 4443, section 3.1).
    unsafe sendError(next == IPv6Next.udp ? .unreachable(.port) : .unknownNext(at: field), about: packet, worker)
    dropInput(packet, .ipUnknownProtocol, counters)
  }

  /// netisr's IPV6_DIRECT: a datagram that was put together, without its fragment header.
  func inputReassembled(_ packet: consuming Packet) {
    guard let worker = unsafe here else {
      return netisr.drops.drop(packet, .netisrNoPlacement, proto: NetisrProtocol.ipv6.rawValue)
    }
    let counters = unsafe worker.pointee.counters
    // It counted when its fragments came; each of them but one is absorbed.
    Self.fit(packet)
    switch unsafe Self.look(packet, worker) {
    case .own: unsafe receive(packet, worker)
    case .forward: dropInput(packet, .ipNotForUs, counters)
    case .drop(let reason, let counter):
      counters.add(counter)
      dropInput(packet, reason, counters)
    }
  }
}
