// What IPv4 and its neighbours count: `netstat -s`.

internal import Synchronization

/// A number that `netstat -s` shows. Each belongs to a protocol, and has the words that a BSD user knows.
public enum InetCounter: Int, CaseIterable, Sendable {
  // ip
  case ipTotal, ipBadChecksum, ipTooShort, ipTooSmall, ipBadHeaderLength, ipBadLength, ipBadVersion, ipBadAddress
  case ipFragments, ipFragmentsDropped, ipFragmentsTimedOut, ipReassembled, ipDelivered, ipNoProtocol
  case ipForwarded, ipCannotForward, ipNotMember, ipRedirectsSent, ipLocalOut, ipOutDropped, ipOutNoRoute
  case ipFragmented, ipFragmentsCreated, ipCannotFragment, ipBadOptions
  // icmp
  case icmpErrors, icmpNotAboutICMP, icmpNotAboutShort, icmpLimited, icmpTooShort, icmpBadChecksum, icmpBadCode
  case icmpReceived, icmpReflected, icmpBroadcastEcho, icmpOutUnreachable, icmpOutExceeded, icmpOutRedirect
  case icmpOutParameter, icmpEchoReplies, icmpInUnreachable, icmpInExceeded, icmpInRedirect, icmpPathMTU
  // igmp
  case igmpReceived, igmpTooShort, igmpBadChecksum, igmpQueries, igmpBadQueries, igmpReports, igmpOwnReports, igmpSent
  // arp
  case arpRequestsSent, arpRepliesSent, arpRequestsReceived, arpRepliesReceived, arpReceived, arpDropped, arpTimeouts
  case arpConflicts, arpMalformed

  /// "ip", "icmp", "igmp", "arp"
  public var group: String { Self.words[rawValue].0 }
  /// "total packets received"
  public var text: String { Self.words[rawValue].1 }

  private static let words: [(String, String)] = [
    ("ip", "total packets received"), ("ip", "bad header checksums"), ("ip", "with size smaller than minimum"),
    ("ip", "with data size < data length"), ("ip", "with header length < data size"), ("ip", "with data length < header length"),
    ("ip", "with incorrect version number"), ("ip", "with bad addresses"),
    ("ip", "fragments received"), ("ip", "fragments dropped (dup or out of space)"), ("ip", "fragments dropped after timeout"),
    ("ip", "packets reassembled ok"), ("ip", "packets for this host"), ("ip", "packets for unknown/unsupported protocol"),
    ("ip", "packets forwarded"), ("ip", "packets not forwardable"),
    ("ip", "packets received for unknown multicast group"), ("ip", "redirects sent"), ("ip", "packets sent from this host"),
    ("ip", "output packets dropped due to no bufs, etc."), ("ip", "output packets discarded due to no route"),
    ("ip", "output datagrams fragmented"), ("ip", "fragments created"), ("ip", "datagrams that can't be fragmented"),
    ("ip", "with bad options"),
    ("icmp", "calls to icmp_error"), ("icmp", "errors not generated in response to an icmp message"),
    ("icmp", "errors not generated because old message was too short"), ("icmp", "errors not generated because of the limit"),
    ("icmp", "messages less than the minimum length"), ("icmp", "messages with bad checksum"), ("icmp", "messages with bad code fields"),
    ("icmp", "messages received"), ("icmp", "message responses generated"), ("icmp", "multicast echo requests ignored"),
    ("icmp", "destination unreachable sent"), ("icmp", "time exceeded sent"), ("icmp", "routing redirect sent"),
    ("icmp", "parameter problem sent"), ("icmp", "echo replies sent"), ("icmp", "destination unreachable received"),
    ("icmp", "time exceeded received"), ("icmp", "routing redirect received"), ("icmp", "path MTU changes"),
    ("igmp", "messages received"), ("igmp", "messages received with too few bytes"), ("igmp", "messages received with bad checksum"),
    ("igmp", "membership queries received"), ("igmp", "membership queries received with invalid fields"),
    ("igmp", "membership reports received"), ("igmp", "membership reports received for groups to which we belong"),
    ("igmp", "membership reports sent"),
    ("arp", "ARP requests sent"), ("arp", "ARP replies sent"), ("arp", "ARP requests received"), ("arp", "ARP replies received"),
    ("arp", "ARP packets received"), ("arp", "total packets dropped due to no ARP entry"), ("arp", "ARP entries timed out"),
    ("arp", "duplicate IPs seen"), ("arp", "malformed ARP packets"),
  ]
}

/// Counters of all workers: a block a worker, written by it alone, and one for other threads.
@safe final class InetCounters: @unchecked Sendable {
  private static let stride = (InetCounter.allCases.count + 15) & ~15
  private let words: UnsafeMutablePointer<Atomic<UInt64>>
  private let blocks: Int

  init(workers: Int) {
    blocks = workers + 1
    let count = blocks * Self.stride
    unsafe words = UnsafeMutableRawPointer.allocate(byteCount: count * 8, alignment: 128)
      .bindMemory(to: Atomic<UInt64>.self, capacity: count)
    for i in 0..<count { unsafe (words + i).initialize(to: Atomic(0)) }
  }
  deinit { unsafe UnsafeMutableRawPointer(words).deallocate() }

  /// The block of worker `id`, which must be the caller.
  func block(_ id: Int) -> CounterBlock { unsafe CounterBlock(words: words + min(id, blocks - 1) * Self.stride) }

  func total(_ counter: InetCounter) -> UInt64 {
    (0..<blocks).reduce(0) { unsafe $0 &+ (words + $1 * Self.stride + counter.rawValue).pointee.load(ordering: .relaxed) }
  }
}

/// One worker's counters.
@safe struct CounterBlock {
  let words: UnsafeMutablePointer<Atomic<UInt64>>
  // SAFETY: the counter's number is below the block's size; the worker is the only writer.
  @inline(__always) func add(_ counter: InetCounter, _ n: UInt64 = 1) {
    let word = unsafe words + counter.rawValue
    unsafe word.pointee.store(word.pointee.load(ordering: .relaxed) &+ n, ordering: .relaxed)
  }
}
