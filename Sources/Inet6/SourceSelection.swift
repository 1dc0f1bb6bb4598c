// Which of this host's addresses a packet comes from (RFC 6724, section 5, rules 1, 2, 3, 5, 6 and 8).

internal import Ifnet
internal import Packet
internal import Wire

extension Inet6 {
  /// The best source for a destination on a link; nil: no address fits.
  func selectSource(for destination: IPv6Address, on link: InterfaceIndex, _ worker: WorkerPointer) -> IPv6Address? {
    var best: Candidate?
    let wanted = destination.scope
    unsafe worker.pointee.own.forEach { address, _, own in
      guard own.bits & OwnAddress.ready != 0, own.bits & (OwnAddress.group | OwnAddress.anycast) == 0 else { return }
      // A link's own addresses are no sources on another link.
      if address.isLinkLocal || wanted == .linkLocal || destination.isMulticast, own.link != link.word { return }
      if address.isLoopback != destination.isLoopback { return }
      let candidate = Candidate(
        address: address, isSame: address == destination, scope: address.scope, isDeprecated: own.bits & OwnAddress.deprecated != 0,
        isOnLink: own.link == link.word, hasLabel: Self.label(address) == Self.label(destination),
        common: min(address.commonPrefix(destination), Int(own.prefixLength)))
      guard let old = best else {
        best = candidate
        return
      }
      if candidate.isBetter(than: old, for: wanted) { best = candidate }
    }
    return best?.address
  }

  private struct Candidate {
    var address: IPv6Address
    var isSame: Bool
    var scope: IPv6Scope
    var isDeprecated: Bool
    var isOnLink: Bool
    var hasLabel: Bool
    var common: Int

    func isBetter(than other: Candidate, for wanted: IPv6Scope) -> Bool {
      if isSame != other.isSame { return isSame }
      if scope != other.scope { return scope < other.scope ? scope >= wanted : other.scope < wanted }
      if isDeprecated != other.isDeprecated { return !isDeprecated }
      if isOnLink != other.isOnLink { return isOnLink }
      if hasLabel != other.hasLabel { return hasLabel }
      if common != other.common { return common > other.common }
      // The table's order is no order: the lower address, so that the choice repeats.
      return address < other.address
    }
  }

  /// The default policy table's labels (section 2.1).
  private static func label(_ address: IPv6Address) -> Int {
    if address.isLoopback { return 0 }
    if address.isV4Mapped { return 4 }
    switch address.high >> 48 {
    case 0x2002: return 2
    case 0x2001 where address.high >> 32 == 0x2001_0000: return 5
    case 0x3ffe: return 12
    default: break
    }
    if address.high >> 57 == 0xfc >> 1 { return 13 }
    if address.high >> 54 == 0x3fb { return 11 }
    return address.high == 0 && address.low >> 32 == 0 ? 3 : 1
  }
}
