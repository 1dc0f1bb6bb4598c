// Sending ICMPv6 errors (RFC 4443, section 2.4): about what, to whom, how often.

internal import Ifnet
internal import Packet
internal import Synchronization
internal import Wire

/// A limit a second, over all workers. Only errors come here.
final class RateWindow: Sendable {
  // The second in the upper half, what was sent in it in the lower.
  private let state = Atomic<UInt64>(0)

  /// Whether one more may go out. - Parameter limit: a second; 0: none.
  func allows(limit: Int, now: UInt64) -> Bool {
    guard limit > 0 else { return true }
    let second = now / 1_000_000_000 & 0xffff_ffff
    var old = state.load(ordering: .relaxed)
    while true {
      let sent = old >> 32 == second ? old & 0xffff_ffff : 0
      guard sent < UInt64(limit) else { return false }
      let result = state.compareExchange(expected: old, desired: second << 32 | (sent + 1), ordering: .relaxed)
      if result.exchanged { return true }
      old = result.original
    }
  }
}

extension Inet6 {
  /// Sends an error about a packet that starts with its IPv6 header, if one may be sent.
  @inline(never) func sendError(_ error: ICMPv6Error, about packet: borrowing Packet, _ worker: WorkerPointer) {
    let counters = unsafe worker.pointee.counters
    counters.add(.errors)
    let bytes = packet.v6
    let source = bytes.address(IPv6Header.source)
    let original = bytes.address(IPv6Header.destination)
    guard mayAnswer(error, packet, source, original) else { return counters.add(.errorsNotSent) }
    guard unsafe errorWindow.allows(limit: worker.pointee.settings.errorsPerSecond, now: netisr.clock.now()) else {
      return counters.add(.rateLimited)
    }
    let link = packet.interface
    var from: IPv6Address?
    if !original.isMulticast, unsafe worker.pointee.isOwn(original, on: link.word) { from = original }
    guard let from = unsafe from ?? selectSource(for: source, on: link, worker), let message = unsafe allocate(worker) else {
      return counters.add(.outDropped)
    }
    // As much of the packet as fits without being more than every link carries (section 2.4 c).
    let room = min(IPv6Header.minimumMTU - IPv6Header.size, message.tailroom)
    let quoted = min(packet.count, room - ICMPv6.headerSize)
    guard quoted > 0, message.extend(ICMPv6.headerSize + quoted), packet.copy(from: 0, to: message.v6.dropFirst(ICMPv6.headerSize)) else {
      return counters.add(.outDropped)
    }
    message.v6.set8(error.type, 0)
    message.v6.set8(error.code, 1)
    message.v6.set16(0, ICMPv6.checksum)
    message.v6.set32(error.value, 4)
    switch error.type {
    case ICMPv6.unreachable: counters.add(.unreachableSent)
    case ICMPv6.packetTooBig: counters.add(.tooBigSent)
    case ICMPv6.timeExceeded: counters.add(.timeExceededSent)
    default: counters.add(.problemSent)
    }
    output(message, next: IPv6Next.icmp, from: from, to: source, on: source.isLinkScoped ? link : .none, checksumAt: ICMPv6.checksum)
  }

  /// Section 2.4 e: never about errors and redirects, never to groups or nobody; about packets to groups only two kinds.
  private func mayAnswer(
    _ error: ICMPv6Error, _ packet: borrowing Packet, _ source: IPv6Address, _ destination: IPv6Address
  ) -> Bool {
    guard !source.isUnspecified, !source.isMulticast, !source.isV4Mapped else { return false }
    let isException = error.type == ICMPv6.packetTooBig || (error.type == ICMPv6.parameterProblem && error.code == 2)
    if !isException, destination.isMulticast || !packet.flags.isDisjoint(with: [.linkBroadcast, .linkMulticast]) { return false }
    guard let (next, offset) = Headers.find(packet.v6), next == IPv6Next.icmp else { return true }
    let type = packet.v6.get8(offset)
    return !ICMPv6.isError(type) && type != ICMPv6.redirect
  }
}
