// IGMP, the host's side: version 3 (RFC 3376), and 2 (RFC 2236) and 1 where an older querier is heard.
//
//     join, leave ──> state-change reports: now, and once more
//     query ────────> answer after a random part of its time: for one group, or for all
//
// Any-source membership is all there is: a group that is joined is received from everybody, so its records are
// "exclude nobody" and "include nobody". State belongs to worker 0; queries come to it by message.

internal import Ether
internal import Ifnet
internal import Netisr
internal import Packet
internal import Platform
internal import Wire

/// What is going on in each group and on each interface.
final class IGMPOwner: Sendable {
  struct Membership {
    /// Nanoseconds of the clock at which an answer is due; nil: none is.
    var answer: UInt64?
    /// State changes still to be told, and when the next is due.
    var changes = 0
    var changeAt: UInt64 = 0
    var isLeaving = false
    /// Version 2: we were the last to report, so we say when we leave.
    var wasReporter = false
  }
  struct Link {
    var groups: [IPv4Address: Membership] = [:]
    /// When an answer to a general query is due.
    var answer: UInt64?
    /// Until when a querier of version 1 or 2 is taken to be there.
    var older: [Int: UInt64] = [:]
  }
  struct State {
    var links: [InterfaceIndex: Link] = [:]
    var random: UInt64 = 0x2545_f491_4f6c_dd1d
    /// xorshift: answers are spread, nothing depends on the numbers being secret.
    mutating func random(below limit: UInt64) -> UInt64 {
      random ^= random << 13
      random ^= random >> 7
      random ^= random << 17
      return limit == 0 ? 0 : random % limit
    }
  }
  let state = Guarded(State())
}

extension Inet {
  private static var tenth: UInt64 { 100_000_000 }
  /// Unsolicited reports: interval of version 3 (1 s) and 2 (10 s); how many (robustness 2).
  private func reportInterval(_ version: Int) -> UInt64 { version == 3 ? 1_000_000_000 : 10_000_000_000 }
  private static var robustness: Int { 2 }
  private static var querierPresent: UInt64 { 260_000_000_000 }

  private func version(_ link: IGMPOwner.Link, _ now: UInt64) -> Int {
    for version in 1...2 where link.older[version] ?? 0 > now { return version }
    return settings.igmpVersion.value
  }

  func igmpJoined(_ group: IPv4Address, _ interface: Interface) {
    // All hosts is never reported (RFC 2236, section 6).
    guard group != .allHosts else { return }
    igmpChange(group, interface, isLeaving: false)
  }
  func igmpLeft(_ group: IPv4Address, _ interface: Interface) {
    guard group != .allHosts else { return }
    igmpChange(group, interface, isLeaving: true)
  }
  func igmpForget(_ index: InterfaceIndex) { igmp.state.withLock { $0.links[index] = nil } }

  private func igmpChange(_ group: IPv4Address, _ interface: Interface, isLeaving: Bool) {
    let now = netisr.clock.now()
    igmp.state.withLock { state in
      var link = state.links[interface.index] ?? IGMPOwner.Link()
      var membership = link.groups[group] ?? IGMPOwner.Membership()
      membership.isLeaving = isLeaving
      membership.changes = Self.robustness
      membership.changeAt = now
      membership.answer = nil
      link.groups[group] = membership
      state.links[interface.index] = link
    }
    onOwner { $0.igmpTick() }
  }

  // MARK: Input

  private func refuseIGMP(_ packet: consuming Packet, _ reason: DropReason, _ counter: InetCounter) {
    unsafe my.pointee.counters.add(counter)
    netisr.drops.drop(packet, reason, proto: NetisrProtocol.igmp.rawValue)
  }

  /// IGMP's handler: a whole datagram, its IPv4 header in front.
  func igmpInput(_ packet: consuming Packet) {
    let counters = unsafe my.pointee.counters
    counters.add(.igmpReceived)
    guard let header = unsafe IPv4Header(unsafe: packet.start, count: packet.firstCount) else {
      return refuseIGMP(packet, .igmpMalformed, .igmpTooShort)
    }
    let length = header.headerLength
    let size = packet.count - length
    guard length >= IPv4Header.size, size >= IGMP.headerSize, packet.pullUp(length + min(size, IGMP.queryV3Size)) else {
      return refuseIGMP(packet, .igmpMalformed, .igmpTooShort)
    }
    guard packet.checksum(from: length, count: size) == 0xffff else {
      return refuseIGMP(packet, .igmpBadChecksum, .igmpBadChecksum)
    }
    let message = unsafe packet.start + length
    let group = unsafe IPv4Address(rawValue: message.big32(4))
    let index = packet.interface
    switch unsafe message.octet(0) {
    case IGMP.query:
      counters.add(.igmpQueries)
      let code = unsafe message.octet(1)
      // 8 octets are version 1 or 2, 12 and more version 3; nothing is in between (RFC 3376, section 7.1).
      guard size == IGMP.headerSize || size >= IGMP.queryV3Size, group.rawValue == 0 || group.isMulticast,
        header.timeToLive == 1
      else { return refuseIGMP(packet, .igmpMalformed, .igmpBadQueries) }
      let version = size >= IGMP.queryV3Size ? 3 : code == 0 ? 1 : 2
      let tenths = version == 3 ? IGMP.decode(code) : version == 2 ? Int(code) : 100
      onOwner { $0.igmpQueried(index, group, version: version, tenths: tenths) }
    case IGMP.reportV1, IGMP.reportV2:
      counters.add(.igmpReports)
      onOwner { $0.igmpHeard(index, group) }
    case IGMP.reportV3: counters.add(.igmpReports)
    case IGMP.leave: break
    default: return refuseIGMP(packet, .igmpMalformed, .igmpBadQueries)
    }
    ether.deliver(packet)
  }

  /// A query: an answer at a random moment within its time, unless one is due before.
  private func igmpQueried(_ index: InterfaceIndex, _ group: IPv4Address, version: Int, tenths: Int) {
    let now = netisr.clock.now()
    igmp.state.withLock { state in
      guard var link = state.links[index] else { return }
      if version < 3 { link.older[version] = now &+ Self.querierPresent }
      let due = now &+ state.random(below: UInt64(max(1, tenths)) &* Self.tenth)
      if group.rawValue == 0, self.version(link, now) == 3 {
        link.answer = min(link.answer ?? due, due)
      } else {
        for (member, old) in link.groups where !old.isLeaving && (group.rawValue == 0 || member == group) {
          let due = group.rawValue == 0 ? now &+ state.random(below: UInt64(max(1, tenths)) &* Self.tenth) : due
          link.groups[member]?.answer = min(old.answer ?? due, due)
        }
      }
      state.links[index] = link
    }
  }

  /// Version 1 and 2: another member has reported, so we need not.
  private func igmpHeard(_ index: InterfaceIndex, _ group: IPv4Address) {
    let now = netisr.clock.now()
    let isOurs = igmp.state.withLock { state -> Bool in
      guard let link = state.links[index], link.groups[group] != nil else { return false }
      if version(link, now) < 3 {
        state.links[index]?.groups[group]?.answer = nil
        state.links[index]?.groups[group]?.wasReporter = false
      }
      return true
    }
    if isOurs { unsafe my.pointee.counters.add(.igmpOwnReports) }
  }

  // MARK: Output

  private struct Report {
    var index: InterfaceIndex
    var version: Int
    var records: [(type: UInt8, group: IPv4Address)]
  }

  /// Five times a second, and after a change: sends what is due. On worker 0.
  func igmpTick() {
    let now = netisr.clock.now()
    let due = igmp.state.withLock { state -> [Report] in
      var reports: [Report] = []
      for index in state.links.keys.sorted(by: { $0.index < $1.index }) {
        guard var link = state.links[index] else { continue }
        let version = version(link, now)
        var records = changes(&link, version, now)
        let answers = answers(&link, version, now)
        if version == 3 {
          if !records.isEmpty { reports.append(Report(index: index, version: 3, records: records)) }
          if !answers.isEmpty { reports.append(Report(index: index, version: 3, records: answers)) }
        } else {
          records += answers
          for record in records { reports.append(Report(index: index, version: version, records: [record])) }
        }
        state.links[index] = link
      }
      return reports
    }
    for report in due { send(report) }
  }

  private func changes(_ link: inout IGMPOwner.Link, _ version: Int, _ now: UInt64) -> [(type: UInt8, group: IPv4Address)] {
    var records: [(type: UInt8, group: IPv4Address)] = []
    for group in link.groups.keys.sorted() {
      guard var membership = link.groups[group], membership.changes > 0, membership.changeAt <= now else { continue }
      membership.changes -= 1
      membership.changeAt = now &+ reportInterval(version)
      // Version 2 leaves once, and only if nobody else has reported since; version 1 just goes.
      let tells = version == 3 || !membership.isLeaving || version == 2 && membership.wasReporter
      if tells { records.append((membership.isLeaving ? IGMP.changeToInclude : IGMP.changeToExclude, group)) }
      if !membership.isLeaving { membership.wasReporter = true }
      let isOver = membership.isLeaving && (membership.changes == 0 || version < 3)
      link.groups[group] = isOver ? nil : membership
    }
    return records
  }

  private func answers(_ link: inout IGMPOwner.Link, _ version: Int, _ now: UInt64) -> [(type: UInt8, group: IPv4Address)] {
    var records: [(type: UInt8, group: IPv4Address)] = []
    let all = link.answer.map { $0 <= now } ?? false
    if all { link.answer = nil }
    for group in link.groups.keys.sorted() {
      guard var membership = link.groups[group], !membership.isLeaving else { continue }
      guard all || membership.answer.map({ $0 <= now }) ?? false else { continue }
      membership.answer = nil
      membership.wasReporter = true
      link.groups[group] = membership
      records.append((IGMP.modeIsExclude, group))
    }
    return records
  }

  private func send(_ report: Report) {
    guard let interface = table.interface(report.index), interface.flags.contains(.up) else { return }
    if report.version == 3 {
      // As many records as an Ethernet frame carries.
      for start in stride(from: 0, to: report.records.count, by: 180) {
        sendVersion3(Array(report.records[start..<min(start + 180, report.records.count)]), report.index)
      }
      return
    }
    for (type, group) in report.records {
      guard let packet = Worker.current?.allocate(), packet.reserveHeadroom(64), packet.extend(IGMP.headerSize) else { return }
      let isLeave = type == IGMP.changeToInclude
      let start = unsafe packet.start
      unsafe start.setBig32(0, 0)
      unsafe start.setOctet(isLeave ? IGMP.leave : report.version == 2 ? IGMP.reportV2 : IGMP.reportV1, 0)
      unsafe start.setBig32(group.rawValue, 4)
      finish(packet, to: isLeave ? IGMP.allRouters : group, report.index)
    }
  }

  private func sendVersion3(_ records: [(type: UInt8, group: IPv4Address)], _ index: InterfaceIndex) {
    guard let packet = Worker.current?.allocate(), packet.reserveHeadroom(64),
      packet.extend(IGMP.headerSize + records.count * IGMP.recordSize)
    else { return }
    let start = unsafe packet.start
    unsafe start.setBig32(UInt32(IGMP.reportV3) << 24, 0)
    unsafe start.setBig32(UInt32(records.count), 4)
    for (i, record) in records.enumerated() {
      let at = IGMP.headerSize + i * IGMP.recordSize
      unsafe start.setBig32(UInt32(record.type) << 24, at)
      unsafe start.setBig32(record.group.rawValue, at + 4)
    }
    finish(packet, to: IGMP.allReportRouters, index)
  }

  private func finish(_ packet: consuming Packet, to target: IPv4Address, _ index: InterfaceIndex) {
    unsafe packet.start.setBig16(~packet.checksum(from: 0, count: packet.count), 2)
    unsafe my.pointee.counters.add(.igmpSent)
    var options = OutputOptions(proto: IPv4Header.igmp, target: target, interface: index)
    options.timeToLive = 1
    options.service = 0xc0
    options.hasRouterAlert = true
    output(packet, options)
  }
}
