// What IPv6 counts: one block a worker, with FreeBSD's names (netinet6/ip6_var.h, netinet/icmp6.h).

internal import Synchronization

/// A counter's place in a worker's block.
public enum Inet6Counter: Int, CaseIterable, Sendable {
  // ip6
  case total, tooShort, tooSmall, badOptions, badVersion, badScope, notMember, fragments, fragmentsDropped
  case fragmentTimeouts, fragmentOverflow, reassembled, fragmentsAbsorbed, delivered, forwarded, cannotForward, redirectsSent
  case localOut, outDropped, noRoute, outFragmented, outFragments, outputDrops, inputDrops, tooManyHeaders, atomicFragments
  // icmp6
  case errors, errorsNotSent, rateLimited, badChecksum, shortMessages, badCode, reflected, badNeighbour, badRedirect, badRouter
  case overflowNeighbours, tooBigReceived, unreachableSent, tooBigSent, timeExceededSent, problemSent
  case echoIn, echoOut, echoReplyIn, solicitationIn, solicitationOut, advertisementIn, advertisementOut
  case routerSolicitationIn, routerSolicitationOut, routerAdvertisementIn, routerAdvertisementOut, redirectIn
  case mldQueryIn, mldReportIn, mldReportOut, duplicates

  /// FreeBSD's field, "ip6s_total", and what `netstat -s` says of it.
  public var name: String { Self.texts[rawValue].0 }
  public var summary: String { Self.texts[rawValue].1 }
  /// "ip6" or "icmp6".
  public var group: String { rawValue < Self.errors.rawValue ? "ip6" : "icmp6" }

  private static let texts: [(String, String)] = [
    ("ip6s_total", "packets received"), ("ip6s_tooshort", "shorter than their header says"),
    ("ip6s_toosmall", "too short for a header"), ("ip6s_badoptions", "with wrong options"), ("ip6s_badvers", "with a wrong version"),
    ("ip6s_badscope", "outside their addresses' scope"), ("ip6s_notmember", "to groups that nobody has joined"),
    ("ip6s_fragments", "fragments received"), ("ip6s_fragdropped", "fragments dropped"),
    ("ip6s_fragtimeout", "datagrams whose fragments came too late"), ("ip6s_fragoverflow", "fragments above a limit"),
    ("ip6s_reassembled", "datagrams put together"), ("ip6s_fragabsorbed", "fragments that became part of another packet"),
    ("ip6s_delivered", "packets for this host"), ("ip6s_forward", "packets forwarded"), ("ip6s_cantforward", "packets not forwardable"),
    ("ip6s_redirectsent", "redirects sent"), ("ip6s_localout", "packets sent from this host"),
    ("ip6s_odropped", "output packets without a buffer"), ("ip6s_noroute", "packets without a route"),
    ("ip6s_fragmented", "output datagrams fragmented"), ("ip6s_ofragments", "output fragments made"),
    ("ip6s_outdrops", "output packets dropped"), ("ip6s_indrops", "input packets dropped"),
    ("ip6s_toomanyhdr", "with too many headers"), ("ip6s_atomicfrags", "atomic fragments received"),
    ("icp6s_error", "errors that were to be sent"), ("icp6s_canterror", "errors not sent because of what they were about"),
    ("icp6s_toofreq", "errors not sent because of the rate"), ("icp6s_checksum", "messages with a wrong checksum"),
    ("icp6s_tooshort", "messages too short"), ("icp6s_badcode", "messages with a wrong code"), ("icp6s_reflect", "answers sent"),
    ("icp6s_badns", "wrong neighbour messages"), ("icp6s_badredirect", "wrong redirects"), ("icp6s_badra", "wrong router messages"),
    ("icp6s_overflownd", "neighbours above the limit"), ("icp6s_pmtuchg", "path MTU changes"),
    ("icp6s_ounreach", "unreachable sent"), ("icp6s_otoobig", "packet too big sent"), ("icp6s_otimex", "time exceeded sent"),
    ("icp6s_oparamprob", "parameter problems sent"), ("icp6s_inecho", "echo requests received"), ("icp6s_outecho", "echo replies sent"),
    ("icp6s_inechoreply", "echo replies received"), ("icp6s_inns", "neighbour solicitations received"),
    ("icp6s_outns", "neighbour solicitations sent"), ("icp6s_inna", "neighbour advertisements received"),
    ("icp6s_outna", "neighbour advertisements sent"), ("icp6s_inrs", "router solicitations received"),
    ("icp6s_outrs", "router solicitations sent"), ("icp6s_inra", "router advertisements received"),
    ("icp6s_outra", "router advertisements sent"), ("icp6s_inredirect", "redirects received"),
    ("icp6s_inmldquery", "listener queries received"), ("icp6s_inmldreport", "listener reports received"),
    ("icp6s_outmldreport", "listener reports sent"), ("icp6s_dad", "addresses found duplicated"),
  ]
}

/// One worker's counters. The worker alone adds; anybody may read.
@safe struct CounterBlock {
  private let values: UnsafeMutablePointer<Atomic<UInt64>>

  init() {
    unsafe values = .allocate(capacity: Inet6Counter.allCases.count)
    for i in 0..<Inet6Counter.allCases.count { unsafe (values + i).initialize(to: Atomic(0)) }
  }
  func free() { unsafe values.deallocate() }

  // SAFETY: a case's raw value lies in 0 ..< allCases.count.
  @inline(__always) func add(_ counter: Inet6Counter, _ n: UInt64 = 1) {
    let old = unsafe values[counter.rawValue].load(ordering: .relaxed)
    unsafe values[counter.rawValue].store(old &+ n, ordering: .relaxed)
  }
  subscript(counter: Inet6Counter) -> UInt64 { unsafe values[counter.rawValue].load(ordering: .relaxed) }
}
