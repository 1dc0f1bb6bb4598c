// ICMP for this machine (RFC 792; RFC 1122, section 3.2.2).

internal import CRingway
internal import Ether
internal import Glibc
internal import Netisr
internal import Packet
internal import Routes
internal import Wire

extension Inet {
  private func refuseICMP(_ packet: consuming Packet, _ reason: DropReason, _ counter: InetCounter? = nil) {
    if let counter { unsafe my.pointee.counters.add(counter) }
    refuse(packet, reason)
  }

  /// A whole ICMP datagram, its IPv4 header in front.
  func icmpInput(_ packet: consuming Packet, _ headerLength: Int) {
    let counters = unsafe my.pointee.counters
    counters.add(.icmpReceived)
    guard packet.count >= headerLength + ICMP.headerSize, packet.pullUp(headerLength + ICMP.headerSize) else {
      return refuseICMP(packet, .icmpMalformed, .icmpTooShort)
    }
    guard packet.checksum(from: headerLength, count: packet.count - headerLength) == 0xffff else {
      return refuseICMP(packet, .icmpBadChecksum, .icmpBadChecksum)
    }
    let (type, code) = unsafe (packet.start.octet(headerLength), packet.start.octet(headerLength + 1))
    switch type {
    case ICMP.echo: echo(packet, headerLength)
    case ICMP.timestamp where settings.icmpTimestampReply.isOn: timestamp(packet, headerLength)
    case ICMP.maskRequest where settings.icmpMaskReply.isOn: mask(packet, headerLength)
    case ICMP.unreachable:
      guard code <= 15 else { return refuseICMP(packet, .icmpMalformed, .icmpBadCode) }
      counters.add(.icmpInUnreachable)
      if code == ICMP.Unreachable.fragmentationNeeded { notePathMTU(packet, headerLength) }
      ether.deliver(packet)
    case ICMP.timeExceeded:
      guard code <= 1 else { return refuseICMP(packet, .icmpMalformed, .icmpBadCode) }
      counters.add(.icmpInExceeded)
      ether.deliver(packet)
    case ICMP.redirect:
      guard code <= 3 else { return refuseICMP(packet, .icmpMalformed, .icmpBadCode) }
      counters.add(.icmpInRedirect)
      followRedirect(packet, headerLength)
      ether.deliver(packet)
    case ICMP.echoReply, ICMP.parameterProblem, ICMP.sourceQuench, ICMP.timestampReply, ICMP.maskReply:
      ether.deliver(packet)
    default: refuseICMP(packet, .icmpUnknown)
    }
  }

  /// Answers in the buffer of the question: any size, any number of buffers.
  private func echo(_ packet: consuming Packet, _ headerLength: Int) {
    unsafe packet.start.setOctet(ICMP.echoReply, headerLength)
    answer(packet, headerLength, counting: .icmpEchoReplies) { message in
      let sum = unsafe message.start.big16(2)
      unsafe message.start.setBig16(InternetChecksum.adjust(sum, from: UInt16(ICMP.echo) << 8, to: UInt16(ICMP.echoReply) << 8), 2)
    }
  }

  /// Sends a message back to where it came from, from the address that it was for.
  private func answer(
    _ packet: consuming Packet, _ headerLength: Int, counting counter: InetCounter, _ finish: (borrowing Packet) -> Void
  ) {
    guard let header = unsafe IPv4Header(unsafe: packet.start, count: packet.firstCount) else { return refuse(packet, .ipMalformed) }
    let (source, target, service) = (header.source, header.destination, header.service)
    let isOwn = unsafe local.pointee.find(target).kind == .own
    guard isOwn && packet.flags.isDisjoint(with: [.linkBroadcast, .linkMulticast]) || settings.icmpBroadcastEcho.isOn else {
      return refuseICMP(packet, .icmpSuppressed, .icmpBroadcastEcho)
    }
    guard source.rawValue != 0, unsafe local.pointee.find(source).kind != .broadcast else { return refuseICMP(packet, .icmpSuppressed) }
    let own = isOwn ? target : self.source(through: packet.interface, towards: source)
    guard own != .any else { return refuseICMP(packet, .icmpSuppressed) }
    packet.removeFirst(headerLength)
    finish(packet)
    let counters = unsafe my.pointee.counters
    counters.add(.icmpReflected)
    counters.add(counter)
    ether.delivered(packet.interface)
    packet.interface = .none
    var options = OutputOptions(proto: IPv4Header.icmp, target: source, source: own)
    options.service = service
    output(packet, options)
  }

  private func fill(_ message: borrowing Packet) {
    unsafe message.start.setBig16(0, 2)
    unsafe message.start.setBig16(~message.checksum(from: 0, count: message.count), 2)
  }

  /// Originate stays; receive and transmit are now, in milliseconds since midnight UTC.
  private func timestamp(_ packet: consuming Packet, _ headerLength: Int) {
    guard packet.count >= headerLength + 20, packet.pullUp(headerLength + 20) else {
      return refuseICMP(packet, .icmpMalformed, .icmpTooShort)
    }
    let now = millisecondsOfDay()
    unsafe packet.start.setOctet(ICMP.timestampReply, headerLength)
    answer(packet, headerLength, counting: .icmpReflected) { message in
      unsafe message.start.setBig32(now, 12)
      unsafe message.start.setBig32(now, 16)
      fill(message)
    }
  }

  private func mask(_ packet: consuming Packet, _ headerLength: Int) {
    guard packet.count >= headerLength + 12, packet.pullUp(headerLength + 12) else {
      return refuseICMP(packet, .icmpMalformed, .icmpTooShort)
    }
    guard let port = unsafe local.pointee.port(packet.interface), unsafe port.pointee.networkCount > 0 else {
      return refuseICMP(packet, .icmpSuppressed)
    }
    let mask = unsafe port.pointee.networks[0].mask
    unsafe packet.start.setOctet(ICMP.maskReply, headerLength)
    answer(packet, headerLength, counting: .icmpReflected) { message in
      unsafe message.start.setBig32(mask, 8)
      fill(message)
    }
  }

  /// Milliseconds since midnight UTC.
  func millisecondsOfDay() -> UInt32 {
    var time = timespec()
    // SAFETY: a local variable; the clock always exists.
    _ = unsafe clock_gettime(CLOCK_REALTIME, &time)
    return UInt32(truncatingIfNeeded: (time.tv_sec % 86400) * 1000 + time.tv_nsec / 1_000_000)
  }

  // MARK: Path MTU (RFC 1191)

  /// How many targets a worker remembers.
  private static var maximumPathMTUs: Int { 1024 }

  /// A smaller MTU to a target that we have sent to; nil: none known. On a worker.
  func pathMTU(_ target: IPv4Address) -> Int? {
    guard unsafe !my.pointee.pathMTUs.isEmpty, let known = unsafe my.pointee.pathMTUs[target] else { return nil }
    guard known.expires > netisr.clock.now() else {
      unsafe my.pointee.pathMTUs[target] = nil
      return nil
    }
    return known.mtu
  }

  /// "Fragmentation needed" about a packet of ours: from now on for ten minutes, every worker cuts smaller.
  private func notePathMTU(_ packet: borrowing Packet, _ headerLength: Int) {
    let at = headerLength + ICMP.headerSize
    guard packet.count >= at + IPv4Header.size, packet.pullUp(at + IPv4Header.size) else { return }
    let (mtu, source, target) = unsafe (
      Int(packet.start.big16(headerLength + 6)), IPv4Address(rawValue: packet.start.big32(at + 12)),
      IPv4Address(rawValue: packet.start.big32(at + 16))
    )
    // Nobody's path is smaller than 68 bytes (RFC 791); a router that says 0 is older than RFC 1191.
    guard mtu >= 68, unsafe local.pointee.find(source).kind == .own else { return }
    unsafe my.pointee.counters.add(.icmpPathMTU)
    let expires = netisr.clock.now() &+ 600_000_000_000
    onEveryWorker { inet in
      let my = unsafe inet.my
      if let known = unsafe my.pointee.pathMTUs[target], known.mtu <= mtu, known.expires > inet.netisr.clock.now() { return }
      guard unsafe my.pointee.pathMTUs.count < Self.maximumPathMTUs || my.pointee.pathMTUs[target] != nil else { return }
      unsafe my.pointee.pathMTUs[target] = (mtu, expires)
    }
  }

  // MARK: Redirects

  /// Follows a redirect from the gateway in use, to a gateway on the same link, when that is allowed; routers do not
  /// (RFC 1122, section 3.2.2.2; RFC 1812, section 5.2.7.2).
  private func followRedirect(_ packet: borrowing Packet, _ headerLength: Int) {
    let at = headerLength + ICMP.headerSize
    guard !settings.icmpDropRedirect.isOn, !settings.forwarding.isOn, packet.count >= at + IPv4Header.size,
      packet.pullUp(at + IPv4Header.size), let port = unsafe local.pointee.port(packet.interface)
    else { return }
    let (from, gateway, target) = unsafe (
      IPv4Address(rawValue: packet.start.big32(12)), IPv4Address(rawValue: packet.start.big32(headerLength + 4)),
      IPv4Address(rawValue: packet.start.big32(at + 16))
    )
    guard unsafe port.pointee.isOnNetwork(gateway), unsafe local.pointee.find(gateway).kind == .none, !target.isMulticast,
      let old = routes.lookup(target), old.gateway == from, old.interface == packet.interface
    else { return }
    let route = Route4(
      IPv4Prefix(target, 32), gateway: gateway, interface: packet.interface, flags: [.up, .gateway, .host, .dynamic])
    onOwner { inet in _ = try? inet.routes.add(route, replacing: old.flags.contains(.dynamic)) }
  }
}
