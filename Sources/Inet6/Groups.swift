// Groups that this machine listens to, and the reports of it (MLD: RFC 2710, RFC 3810). On worker 0.

internal import Ether
internal import Ifnet
internal import Netisr
internal import Packet
internal import Synchronization
internal import Wire

/// A group on a link.
final class Group6 {
  /// Joins by this module.
  var references = 1
  /// Somebody else has joined on the interface; this module only listens and reports.
  var isForeign = false
  var timer: WorkerToken?
  /// State changes still to be repeated (robustness variable 2).
  var repeats = 0
  /// Version 1: the last report was ours, so leaving is said.
  var wasLastReporter = false
}

extension Inet6 {
  /// Groups that everybody is in, or that reach no farther than this machine, are not reported (RFC 3810, section 6).
  static func isReported(_ group: IPv6Address) -> Bool { group != .allNodes && group.multicastScope >= 2 }

  func join(_ group: IPv6Address, _ link: Link6) {
    if let known = link.groups[group] {
      known.references += 1
      if known.isForeign {
        known.isForeign = false
        try? link.interface.addMulticast(.ipv6(group))
      }
      return
    }
    link.groups[group] = Group6()
    try? link.interface.addMulticast(.ipv6(group))
    listen(group, link)
  }

  private func listen(_ group: IPv6Address, _ link: Link6) {
    let index = link.index.word
    let own = OwnAddress(bits: OwnAddress.group, prefixLength: 128, link: index)
    unsafe publish { unsafe $0.pointee.own.set(group, index, own) }
    announce(group, .toExclude, link)
  }

  func leave(_ group: IPv6Address, _ link: Link6) {
    guard let known = link.groups[group] else { return }
    known.references -= 1
    guard known.references <= 0 else { return }
    if !known.isForeign {
      try? link.interface.deleteMulticast(.ipv6(group))
      // Somebody else is still in it.
      if link.groups[group] === known, link.interface.membership(of: .ipv6(group)) != nil {
        known.isForeign = true
        known.references = 0
        return
      }
    }
    let says = known.wasLastReporter
    forgetGroup(group, link)
    guard link.isUp, Self.isReported(group) else { return }
    if isVersion1(link) {
      if says { sendMLD(MLDBuilder.version1(ICMPv6.mldDone, group: group), to: .allRouters, link) }
    } else {
      sendMLD(MLDBuilder.report([(.toInclude, group)]), to: .allMLDv2Routers, link)
    }
  }

  /// Takes a group away without a word.
  func forgetGroup(_ group: IPv6Address, _ link: Link6) {
    link.groups.removeValue(forKey: group)?.timer?.cancel()
    let index = link.index.word
    unsafe publish { unsafe $0.pointee.own.remove(group, index) }
  }

  /// Groups that others join and leave on an interface.
  func followGroups() -> WorkerToken {
    table.subscribe { [weak self] event, interface in
      guard let self else { return }
      let index = interface.index.word
      let change: @Sendable (Inet6) -> Void
      switch event {
      case .multicastAdded(.ipv6(let group)):
        change = { inet6 in
          guard let link = inet6.owner.links[index], link.groups[group] == nil else { return }
          let state = Group6()
          (state.references, state.isForeign) = (0, true)
          link.groups[group] = state
          inet6.listen(group, link)
        }
      case .multicastRemoved(.ipv6(let group)):
        change = { inet6 in
          guard let link = inet6.owner.links[index], link.groups[group]?.isForeign == true else { return }
          inet6.leave(group, link)
        }
      default: return
      }
      let worker0 = netisr.worker(0)
      if worker0.isCurrent { change(self) } else { worker0.post { change(self) } }
    }
  }

  private func isVersion1(_ link: Link6) -> Bool { netisr.clock.now() < link.version1Until }

  /// A change, said now and once more within a second (sections 6.1 and 9.11).
  private func announce(_ group: IPv6Address, _ kind: MLDRecord, _ link: Link6) {
    guard link.isUp, !link.isLoopback, Self.isReported(group), let state = link.groups[group] else { return }
    state.repeats = 1
    report([group], kind, link)
    let index = link.index.word
    state.timer?.cancel()
    state.timer = after(100 + jitter(900)) { inet6 in
      guard let link = inet6.owner.links[index], let state = link.groups[group], state.repeats > 0 else { return }
      state.repeats = 0
      inet6.report([group], .toExclude, link)
    }
  }

  /// Reports groups, as the link's querier understands it.
  private func report(_ groups: [IPv6Address], _ kind: MLDRecord, _ link: Link6) {
    guard link.isUp else { return }
    if isVersion1(link) {
      for group in groups {
        link.groups[group]?.wasLastReporter = true
        sendMLD(MLDBuilder.version1(ICMPv6.mldReport, group: group), to: group, link)
      }
      return
    }
    // 20 bytes a record behind two headers and the report's own.
    let most = max(1, (link.mtu - IPv6Header.size - MLDBuilder.routerAlert.count - 8) / 20)
    var at = 0
    while at < groups.count {
      let part = groups[at..<min(groups.count, at + most)]
      sendMLD(MLDBuilder.report(part.map { (kind, $0) }), to: .allMLDv2Routers, link)
      at += most
    }
  }

  func reportAll(_ link: Link6) {
    let groups = link.groups.keys.filter(Self.isReported).sorted()
    if !groups.isEmpty { report(groups, .toExclude, link) }
  }

  private func sendMLD(_ message: [UInt8], to destination: IPv6Address, _ link: Link6) {
    guard link.isEthernet else { return }
    counters0.add(.mldReportOut)
    sendOnLink(message, from: link.linkLocal ?? .any, to: destination, on: link, alert: true)
  }

  // MARK: Queries

  /// A message of MLD at `offset`; its checksum is right.
  func receiveMLD(_ packet: consuming Packet, _ offset: Int, _ worker: WorkerPointer) {
    let counters = unsafe worker.pointee.counters
    let isWhole = packet.pullUp(packet.count)
    let bytes = packet.v6
    let type = bytes.get8(offset)
    let source = bytes.address(IPv6Header.source)
    counters.add(type == ICMPv6.mldQuery ? .mldQueryIn : .mldReportIn)
    // From the link, from a link-local address, with a router alert (RFC 3810, section 6.2).
    let isSound = bytes.get8(IPv6Header.hopLimit) == 1 && isWhole && Headers.hasRouterAlert(bytes)
    let link = packet.interface.word
    let worker0 = netisr.worker(0)
    switch type {
    case ICMPv6.mldQuery:
      guard isSound, source.isLinkLocal, let query = MLDQuery(bytes.dropFirst(offset)) else { break }
      delivered(packet.interface, counters)
      return worker0.isCurrent ? queried(query, link) : worker0.post { [self] in queried(query, link) }
    case ICMPv6.mldReport:
      guard isSound, bytes.holds(24, at: offset) else { break }
      let group = bytes.address(offset + 8)
      delivered(packet.interface, counters)
      return worker0.isCurrent ? overheard(group, link) : worker0.post { [self] in overheard(group, link) }
    default:
      guard isSound else { break }
      // Other listeners' words, meant for routers.
      return delivered(packet.interface, counters)
    }
    dropInput(packet, .mldMalformed, counters)
  }

  private func queried(_ query: MLDQuery, _ index: UInt32) {
    guard let link = owner.links[index], link.isUp else { return }
    // RFC 3810, section 9.12: robustness 2, query interval 125 s, response 10 s.
    if query.isVersion1 { link.version1Until = netisr.clock.now() &+ 260_000_000_000 }
    let wait = jitter(min(query.maximumResponse, 60_000))
    guard query.group.isUnspecified, !query.isVersion1 else {
      for group in link.groups.keys where Self.isReported(group) && (query.group.isUnspecified || query.group == group) {
        answer(group, after: query.isVersion1 ? jitter(min(query.maximumResponse, 60_000)) : wait, link)
      }
      return
    }
    link.generalQueryTimer?.cancel()
    link.generalQueryTimer = after(wait) { inet6 in
      guard let link = inet6.owner.links[index] else { return }
      inet6.report(link.groups.keys.filter(Self.isReported).sorted(), .isExclude, link)
    }
  }

  private func answer(_ group: IPv6Address, after wait: UInt64, _ link: Link6) {
    guard let state = link.groups[group] else { return }
    state.repeats = 0
    state.timer?.cancel()
    let index = link.index.word
    state.timer = after(wait) { inet6 in
      guard let link = inet6.owner.links[index], link.groups[group] != nil else { return }
      inet6.report([group], .isExclude, link)
    }
  }

  /// Version 1: another listener has reported the group, so we need not (RFC 2710, section 4).
  private func overheard(_ group: IPv6Address, _ index: UInt32) {
    guard let link = owner.links[index], isVersion1(link), let state = link.groups[group] else { return }
    state.timer?.cancel()
    state.wasLastReporter = false
  }
}

extension Headers {
  /// Whether a hop-by-hop header with a router alert comes first.
  static func hasRouterAlert(_ bytes: IPv6Bytes) -> Bool {
    guard bytes.get8(IPv6Header.next) == IPv6Next.hopByHop, bytes.holds(8, at: IPv6Header.size) else { return false }
    let length = (Int(bytes.get8(IPv6Header.size + 1)) + 1) * 8
    guard bytes.holds(length, at: IPv6Header.size), case .fine(let alert) = options(bytes, IPv6Header.size, length) else { return false }
    return alert != nil
  }
}
