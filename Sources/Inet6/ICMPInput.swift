// Receiving ICMPv6 (RFC 4443): echo, errors, and the way to neighbour discovery and MLD.

internal import Ether
internal import Ifnet
internal import Netisr
internal import Packet
internal import Wire

extension Inet6 {
  /// An ICMPv6 message for this machine; `offset` is where it starts.
  func receiveICMP(_ packet: consuming Packet, _ offset: Int, _ worker: WorkerPointer) {
    let counters = unsafe worker.pointee.counters
    _ = packet.pullUp(min(packet.count, offset + ICMPv6.headerSize + IPv6Header.size))
    let bytes = packet.v6
    let length = packet.count - offset
    guard length >= ICMPv6.headerSize, bytes.holds(ICMPv6.headerSize, at: offset) else {
      counters.add(.shortMessages)
      return dropInput(packet, .icmpMalformed, counters)
    }
    // A card that has checked the sum says so; one that found it wrong may be wrong itself.
    if packet.flags.isDisjoint(with: [.tcpChecksum, .udpChecksum]) {
      let pseudo = IPv6Header.pseudoSum(
        source: bytes.address(IPv6Header.source), destination: bytes.address(IPv6Header.destination), length: length,
        next: IPv6Next.icmp)
      guard InternetChecksum.fold(pseudo &+ packet.sum(from: offset, length)) == 0xffff else {
        counters.add(.badChecksum)
        return dropInput(packet, .icmpBadChecksum, counters)
      }
    }
    switch bytes.get8(offset) {
    case ICMPv6.echoRequest: unsafe reflect(packet, offset, worker)
    case ICMPv6.echoReply:
      counters.add(.echoReplyIn)
      unsafe deliverICMP(packet, offset, worker)
    case ICMPv6.mldQuery, ICMPv6.mldReport, ICMPv6.mldDone, ICMPv6.mldv2Report: unsafe receiveMLD(packet, offset, worker)
    case ICMPv6.routerSolicitation...ICMPv6.redirect: unsafe receiveND(packet, offset, worker)
    case 0..<128:
      unsafe learnError(packet, offset, worker)
      unsafe deliverICMP(packet, offset, worker)
    default: dropInput(packet, .icmpUnknown, counters)
    }
  }

  /// What this module has no use for itself goes to whoever registered for ICMPv6.
  private func deliverICMP(_ packet: consuming Packet, _ offset: Int, _ worker: WorkerPointer) {
    unsafe delivered(packet.interface, worker.pointee.counters)
    if let handler = unsafe worker.pointee.upper.handlers[Int(IPv6Next.icmp)] { handler(packet, offset) }
  }

  /// Sends an echo request back as a reply, in the same buffers (section 4.2).
  private func reflect(_ packet: consuming Packet, _ offset: Int, _ worker: WorkerPointer) {
    let counters = unsafe worker.pointee.counters
    let bytes = packet.v6
    let asker = bytes.address(IPv6Header.source)
    let asked = bytes.address(IPv6Header.destination)
    let link = packet.interface
    guard !asker.isUnspecified, bytes.get8(offset + 1) == 0 else {
      counters.add(.badCode)
      return dropInput(packet, .icmpMalformed, counters)
    }
    guard let source = unsafe asked.isMulticast ? selectSource(for: asker, on: link, worker) : asked else {
      return dropInput(packet, .icmpSuppressed, counters)
    }
    counters.add(.echoIn)
    counters.add(.echoOut)
    counters.add(.reflected)
    delivered(link, counters)
    packet.removeFirst(offset)
    let message = packet.v6
    // RFC 1624: the new sum from the old one and from what changes: the type, and perhaps an address.
    var sum = UInt64(~message.get16(ICMPv6.checksum)) &+ UInt64(~(UInt16(ICMPv6.echoRequest) << 8)) &+ UInt64(ICMPv6.echoReply) << 8
    if source != asked {
      let old = InternetChecksum.fold(IPv6Header.pseudoSum(source: asked, destination: .any, length: 0, next: 0))
      sum &+= UInt64(~old) &+ IPv6Header.pseudoSum(source: source, destination: .any, length: 0, next: 0)
    }
    message.set8(ICMPv6.echoReply, 0)
    message.set16(~InternetChecksum.fold(sum), ICMPv6.checksum)
    output(packet, next: IPv6Next.icmp, from: source, to: asker, on: asker.isLinkScoped ? link : .none)
  }

  /// A "packet too big" about a packet of this host's lowers the path's MTU (RFC 8201, section 4).
  private func learnError(_ packet: borrowing Packet, _ offset: Int, _ worker: WorkerPointer) {
    let bytes = packet.v6
    let quoted = bytes.dropFirst(offset + ICMPv6.headerSize)
    guard bytes.get8(offset) == ICMPv6.packetTooBig, quoted.count >= IPv6Header.size, quoted.get8(0) >> 4 == 6 else { return }
    let destination = quoted.address(IPv6Header.destination)
    guard unsafe worker.pointee.isOwn(quoted.address(IPv6Header.source), on: packet.interface.word), !destination.isMulticast else { return }
    let mtu = max(IPv6Header.minimumMTU, Int(bytes.get32(offset + 4)))
    guard let hop = unsafe nextHop(for: destination, hint: packet.interface, worker), mtu < hop.mtu else { return }
    let now = netisr.clock.now()
    let seconds = unsafe UInt64(clamping: worker.pointee.settings.pathMTUSeconds)
    if paths.lower(destination, to: mtu, until: now &+ seconds &* 1_000_000_000, now: now) {
      unsafe worker.pointee.counters.add(.tooBigReceived)
    }
  }
}
