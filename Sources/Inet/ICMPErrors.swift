// ICMP errors about packets (RFC 792; RFC 1122, section 3.2.2; RFC 1812, section 4.3).

internal import CRingway
internal import Ether
internal import Netisr
internal import Packet
internal import Wire

/// How many errors a worker has sent in this second.
struct ICMPLimiter {
  private var second: UInt64 = 0
  private var sent = 0

  /// Whether one more is within `limit` (0: always).
  mutating func allow(_ limit: Int, now: UInt64) -> Bool {
    guard limit > 0 else { return true }
    let second = now / 1_000_000_000
    if second != self.second { (self.second, sent) = (second, 0) }
    sent += 1
    return sent <= limit
  }
}

extension Inet {
  /// Tells a packet's sender what is wrong with it, unless such a message must not be sent. The packet begins with its
  /// IPv4 header, and stays with the caller. On a worker.
  /// - Parameter value: the second word: next hop's MTU, gateway, or pointer in the first octet.
  @inline(never)
  func sendError(about packet: borrowing Packet, type: UInt8, code: UInt8, value: UInt32 = 0) {
    let my = unsafe self.my
    unsafe my.pointee.counters.add(.icmpErrors)
    guard mayTell(about: packet, redirect: type == ICMP.redirect),
      let old = unsafe IPv4Header(unsafe: packet.start, count: packet.firstCount)
    else { return }
    guard unsafe my.pointee.limiter.allow(settings.icmpLimit.value, now: netisr.clock.now()) else {
      unsafe my.pointee.counters.add(.icmpLimited)
      return
    }
    // All of the message within 576 bytes (RFC 1812, section 4.3.2.3).
    let quoted = min(packet.count, old.headerLength + settings.icmpQuoteLength.value, 576 - IPv4Header.size - ICMP.headerSize)
    guard let message = Worker.current?.allocate(), message.reserveHeadroom(64), message.extend(ICMP.headerSize + quoted),
      unsafe packet.copyBytes(from: 0, count: quoted, to: message.start + ICMP.headerSize)
    else {
      unsafe my.pointee.counters.add(.ipOutDropped)
      return
    }
    let start = unsafe message.start
    unsafe start.setOctet(type, 0)
    unsafe start.setOctet(code, 1)
    unsafe start.setBig16(0, 2)
    unsafe start.setBig32(value, 4)
    unsafe start.setBig16(~InternetChecksum.sum(unsafe: start, count: message.count), 2)
    switch type {
    case ICMP.unreachable: unsafe my.pointee.counters.add(.icmpOutUnreachable)
    case ICMP.timeExceeded: unsafe my.pointee.counters.add(.icmpOutExceeded)
    case ICMP.redirect: unsafe my.pointee.counters.add(.icmpOutRedirect)
    default: unsafe my.pointee.counters.add(.icmpOutParameter)
    }
    let target = old.source
    var options = OutputOptions(proto: IPv4Header.icmp, target: target, source: errorSource(packet, target))
    // Internetwork control (RFC 1812, section 4.3.2.5).
    options.service = 0xc0
    output(message, options)
  }

  /// Never about errors, fragments but the first, groups, broadcasts, or senders that are nobody (RFC 1122, 3.2.2).
  private func mayTell(about packet: borrowing Packet, redirect: Bool) -> Bool {
    let counters = unsafe my.pointee.counters
    guard let old = unsafe IPv4Header(unsafe: packet.start, count: packet.firstCount), old.version == 4,
      old.headerLength >= IPv4Header.size, old.headerLength <= packet.firstCount
    else {
      counters.add(.icmpNotAboutShort)
      return false
    }
    guard old.fragmentOffset == 0 else { return false }
    let (source, target) = (old.source, old.destination)
    guard packet.flags.isDisjoint(with: [.linkBroadcast, .linkMulticast]), !target.isMulticast, target.rawValue >> 28 != 15,
      source.rawValue >> 28 < 14, source.rawValue >> 24 != 0, !source.isLoopback,
      unsafe local.pointee.find(source).kind == .none, unsafe local.pointee.find(target).kind != .broadcast
    else { return false }
    if old.proto == IPv4Header.icmp {
      guard let type = packet.byte(at: old.headerLength) else { return false }
      if ICMP.isError(type) || redirect && type == ICMP.redirect {
        counters.add(.icmpNotAboutICMP)
        return false
      }
    }
    return true
  }

  /// The address that the packet was for when it is ours; else that of the interface that it came in through.
  private func errorSource(_ packet: borrowing Packet, _ target: IPv4Address) -> IPv4Address? {
    if let old = unsafe IPv4Header(unsafe: packet.start, count: packet.firstCount),
      unsafe local.pointee.find(old.destination).kind == .own
    {
      return old.destination
    }
    let own = source(through: packet.interface, towards: target)
    return own == .any ? nil : own
  }
}
