// Sending what this host makes: header, source, route, path MTU, fragments.

internal import Ether
internal import Ifnet
internal import Netisr
public import Packet
internal import Routes
public import Wire

extension Inet6 {
  /// Room in front of a packet for what links add: Ethernet, two tags, and some.
  static let linkRoom = 64

  /// Sends an upper-layer message. On a worker; from another thread the packet is dropped.
  /// - Parameters:
  ///   - packet: the message alone, from its upper header on; its checksum field zero when `checksumAt` says where it is.
  ///   - source: nil chooses one (RFC 6724).
  ///   - interface: for destinations that mean something on one link alone; `.none` leaves it to the routes.
  ///   - checksumAt: bytes into the message; nil leaves the message as it is.
  public func output(
    _ packet: consuming Packet, next: UInt8, from source: IPv6Address? = nil, to destination: IPv6Address,
    hopLimit: Int? = nil, on interface: InterfaceIndex = .none, checksumAt: Int? = nil
  ) {
    guard let worker = unsafe here else {
      return netisr.drops.drop(packet, .netisrNoPlacement, interface: InterfaceIndex.none, proto: NetisrProtocol.ipv6.rawValue)
    }
    let counters = unsafe worker.pointee.counters
    let hop = unsafe nextHop(for: destination, hint: interface, worker)
    guard let source = unsafe source ?? selectSource(for: destination, on: hop?.link ?? interface, worker) else {
      counters.add(.noRoute)
      return dropOutput(packet, .ipNoRoute, interface, counters)
    }
    if let checksumAt {
      let sum = IPv6Header.pseudoSum(source: source, destination: destination, length: packet.count, next: next)
      let value = ~InternetChecksum.fold(sum &+ packet.sum(from: 0, packet.count))
      packet.v6.set16(value == 0 ? 0xffff : value, checksumAt)
    }
    let hops = hopLimit ?? Int(unsafe worker.pointee.slot(hop?.link ?? interface).hopLimit)
    guard let whole = withHeader(packet, next, source, destination, UInt8(clamping: hops)) else {
      counters.add(.outDropped)
      counters.add(.outputDrops)
      return
    }
    unsafe send(whole, on: interface, worker)
  }

  /// Puts the IPv6 header in front; in a buffer of its own when there is no room. nil: no buffer, counted as a drop.
  private func withHeader(
    _ packet: consuming Packet, _ next: UInt8, _ source: IPv6Address, _ destination: IPv6Address, _ hops: UInt8
  ) -> Packet? {
    let payload = packet.count
    guard payload <= IPv6Header.maximumPayload else {
      netisr.drops.drop(packet, .tooLong, interface: InterfaceIndex.none, proto: NetisrProtocol.ipv6.rawValue)
      return nil
    }
    guard let whole = packet.withHeadroom(IPv6Header.size) else {
      netisr.drops.count(1, .sendNoBuffer, interface: .none, proto: NetisrProtocol.ipv6.rawValue)
      return nil
    }
    IPv6Header.write(whole.v6, payload: payload, next: next, hopLimit: hops, source: source, destination: destination)
    return whole
  }

  /// An empty packet of the calling worker's pool, with room in front.
  func allocate(_ worker: WorkerPointer) -> Packet? {
    guard let packet = unsafe netisr.worker(worker.pointee.id).allocate(), packet.reserveHeadroom(Self.linkRoom) else { return nil }
    return packet
  }

  /// Routes a packet of this host's that has its header.
  func send(_ packet: consuming Packet, on interface: InterfaceIndex, _ worker: WorkerPointer) {
    let counters = unsafe worker.pointee.counters
    let destination = packet.v6.address(IPv6Header.destination)
    counters.add(.localOut)
    packet.flags = []
    let scoped = destination.isLinkScoped ? interface.word : 0
    if !destination.isMulticast, let own = unsafe worker.pointee.own.find(destination, scoped),
      unsafe own.pointee.value.bits & OwnAddress.ready != 0
    {
      let loop = unsafe worker.pointee.slot(worker.pointee.loopback)
      if loop.isUsable, let interface = unsafe loop.interface { return unsafe emitElsewhere(packet, to: destination, interface) }
      packet.interface = unsafe InterfaceIndex(word: own.pointee.value.link)
      netisr.queue(.ipv6, packet)
      return
    }
    guard let hop = unsafe nextHop(for: destination, hint: interface, worker) else {
      counters.add(.noRoute)
      return dropOutput(packet, .ipNoRoute, interface, counters)
    }
    let slot = unsafe worker.pointee.slot(hop.link)
    guard slot.isUsable else { return dropOutput(packet, .interfaceDown, hop.link, counters) }
    let mtu = max(IPv6Header.minimumMTU, min(hop.mtu, paths.mtu(for: destination, now: netisr.clock) ?? hop.mtu))
    if packet.count > mtu { return unsafe fragment(packet, hop, mtu, worker) }
    unsafe emit(packet, to: hop.address, on: hop.link, slot, worker)
  }

  /// Where a packet of this host's goes next.
  func nextHop(for destination: IPv6Address, hint: InterfaceIndex, _ worker: WorkerPointer) -> NextHop? {
    if destination.isLinkScoped || destination.isMulticast {
      var link = hint
      if link == .none { link = routes.lookup(destination)?.interface ?? .none }
      guard link != .none else { return nil }
      return unsafe NextHop(address: destination, link: link, mtu: Int(worker.pointee.slot(link).mtu), hasGateway: false)
    }
    guard let route = routes.lookup(destination), route.flags.isDisjoint(with: [.reject, .blackhole]) else { return nil }
    let mtu = unsafe Int(worker.pointee.slot(route.interface).mtu)
    return NextHop(
      address: route.gateway ?? destination, link: route.interface, mtu: route.mtu > 0 ? min(route.mtu, mtu) : mtu,
      hasGateway: route.gateway != nil)
  }

  // MARK: Fragments

  /// Cuts a packet into fragments (RFC 8200, section 4.5) and sends them.
  private func fragment(_ packet: consuming Packet, _ hop: NextHop, _ mtu: Int, _ worker: WorkerPointer) {
    let counters = unsafe worker.pointee.counters
    let (fixed, field) = Headers.unfragmentable(packet.v6)
    let overhead = fixed + IPv6Header.fragmentSize
    let room = min(mtu, packet.bufferCapacity - Self.linkRoom)
    let step = (room - overhead) & ~7
    guard step >= 8, packet.v6.holds(fixed, at: 0) else { return dropOutput(packet, .ipTooBig, hop.link, counters) }
    let next = packet.v6.get8(field)
    let identification = unsafe worker.pointee.reassembly.nextIdentification()
    counters.add(.outFragmented)
    var offset = 0
    let total = packet.count - fixed
    while offset < total {
      let size = min(step, total - offset)
      guard let piece = unsafe allocate(worker), piece.extend(overhead + size),
        packet.copy(from: 0, to: unsafe IPv6Bytes(unsafe: piece.v6.base, count: fixed)),
        packet.copy(from: fixed + offset, to: piece.v6.dropFirst(overhead))
      else {
        counters.add(.outDropped)
        return dropOutput(packet, .noBuffer, hop.link, counters)
      }
      let bytes = piece.v6
      bytes.set8(IPv6Next.fragment, field)
      bytes.set16(UInt16(truncatingIfNeeded: overhead + size - IPv6Header.size), IPv6Header.payloadLength)
      bytes.set8(next, fixed)
      bytes.set8(0, fixed + 1)
      bytes.set16(UInt16(truncatingIfNeeded: offset) | (offset + size < total ? 1 : 0), fixed + 2)
      bytes.set32(identification, fixed + 4)
      counters.add(.outFragments)
      unsafe emit(piece, to: hop.address, on: hop.link, worker.pointee.slot(hop.link), worker)
      offset += size
    }
  }
}
