// Controls under net.inet and net.link.ether.inet.

internal import Netisr
internal import Synchronization

/// One number that workers read and controls change.
final class Setting: Sendable {
  private let number: Atomic<Int>
  let allowed: ClosedRange<Int>
  init(_ initial: Int, _ allowed: ClosedRange<Int> = 0...1) {
    number = Atomic(initial)
    self.allowed = allowed
  }
  @inline(__always) var value: Int { number.load(ordering: .relaxed) }
  @inline(__always) var isOn: Bool { value != 0 }
  func set(_ value: Int) { number.store(value, ordering: .relaxed) }
}

/// Everything that can be set.
final class InetSettings: Sendable {
  let forwarding = Setting(0)
  let sendRedirects = Setting(1)
  let timeToLive = Setting(64, 1...255)
  let processOptions = Setting(1, 0...2)
  let sourceRoute = Setting(0)
  let acceptSourceRoute = Setting(0)
  let directedBroadcast = Setting(0)
  let maxFragmentPackets = Setting(1024, 0...65536)
  let maxFragments = Setting(2048, 0...1_000_000)
  let maxFragmentsPerPacket = Setting(64, 0...8192)
  let fragmentTimeout = Setting(30, 1...255)
  let icmpLimit = Setting(200, 0...1_000_000)
  let icmpQuoteLength = Setting(528, 8...528)
  let icmpBroadcastEcho = Setting(0)
  let icmpMaskReply = Setting(0)
  let icmpTimestampReply = Setting(1)
  let icmpDropRedirect = Setting(1)
  let arpMaxAge = Setting(1200, 1...86400)
  let arpWait = Setting(20, 1...3600)
  let arpMaxTries = Setting(5, 1...20)
  let arpMaxHold = Setting(16, 1...1024)
  let arpMaxEntries = Setting(16384, 16...1_000_000)
  let arpProxyAll = Setting(0)
  let arpAnnouncements = Setting(1, 0...16)
  let arpProbe = Setting(0)
  let igmpVersion = Setting(3, 1...3)

  var controls: [(name: String, summary: String, setting: Setting)] {
    [
      ("net.inet.ip.forwarding", "1: packets for others are forwarded", forwarding),
      ("net.inet.ip.redirect", "1: redirects are sent", sendRedirects),
      ("net.inet.ip.ttl", "time to live of packets from here", timeToLive),
      ("net.inet.ip.process_options", "0: options are ignored, 1: processed, 2: packets with options are dropped", processOptions),
      ("net.inet.ip.sourceroute", "1: source-routed packets are forwarded", sourceRoute),
      ("net.inet.ip.accept_sourceroute", "1: source-routed packets are accepted", acceptSourceRoute),
      ("net.inet.ip.directed-broadcast", "1: broadcasts to a network behind another interface are forwarded", directedBroadcast),
      ("net.inet.ip.maxfragpackets", "datagrams in fragments that a worker holds at most", maxFragmentPackets),
      ("net.inet.ip.maxfrags", "fragments that a worker holds at most", maxFragments),
      ("net.inet.ip.maxfragsperpacket", "fragments of one datagram at most", maxFragmentsPerPacket),
      ("net.inet.ip.fragttl", "seconds that fragments wait for the rest", fragmentTimeout),
      ("net.inet.icmp.icmplim", "ICMP errors a second and worker at most; 0: no limit", icmpLimit),
      ("net.inet.icmp.quotelen", "bytes of a packet's payload that an ICMP error quotes", icmpQuoteLength),
      ("net.inet.icmp.bmcastecho", "1: echo requests to broadcasts and groups are answered", icmpBroadcastEcho),
      ("net.inet.icmp.maskrepl", "1: address mask requests are answered", icmpMaskReply),
      ("net.inet.icmp.tstamprepl", "1: timestamp requests are answered", icmpTimestampReply),
      ("net.inet.icmp.drop_redirect", "1: received redirects are ignored", icmpDropRedirect),
      ("net.link.ether.inet.max_age", "seconds that an ARP entry lives", arpMaxAge),
      ("net.link.ether.inet.wait", "seconds that a station counts as down after no answer", arpWait),
      ("net.link.ether.inet.maxtries", "ARP requests before a station counts as down", arpMaxTries),
      ("net.link.ether.inet.maxhold", "packets that wait for one ARP answer", arpMaxHold),
      ("net.link.ether.inet.max_entries", "ARP entries at most", arpMaxEntries),
      ("net.link.ether.inet.proxyall", "1: ARP requests for what is routed elsewhere are answered", arpProxyAll),
      ("net.link.ether.inet.garp_rexmit_count", "announcements of an address after the first", arpAnnouncements),
      ("net.link.ether.inet.probe", "1: a new address is probed before it is used (RFC 5227)", arpProbe),
      ("net.inet.igmp.default_version", "IGMP's version where no older querier is heard", igmpVersion),
    ]
  }
}

extension Inet {
  func addControls() {
    for control in settings.controls {
      let (name, setting) = (control.name, control.setting)
      netisr.sysctl.add(name, control.summary, read: { .integer(Int64(setting.value)) }) { text throws(SysctlError) in
        guard let value = Int(text), setting.allowed.contains(value) else {
          throw .invalid(name: name, value: text, allowed: "\(setting.allowed.lowerBound) to \(setting.allowed.upperBound)")
        }
        setting.set(value)
      }
    }
  }
}
