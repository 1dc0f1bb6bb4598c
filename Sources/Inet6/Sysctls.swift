// Controls: net.inet6, with FreeBSD's names.

internal import Netisr
internal import Wire

extension Inet6 {
  func addSysctls() {
    flag("net.inet6.ip6.forwarding", "Packets for others go on: this machine is a router", \.forwarding)
    flag("net.inet6.ip6.redirect", "A router tells senders of a better first hop", \.sendRedirects)
    flag("net.inet6.ip6.accept_rtadv", "A host takes what routers advertise", \.acceptRouterAdvertisements)
    flag("net.inet6.ip6.rtadv", "A router advertises itself and its prefixes", \.sendRouterAdvertisements)
    flag("net.inet6.ip6.auto_linklocal", "Every interface gets a link-local address", \.autoLinkLocal)
    flag("net.inet6.icmp6.rediraccept", "A host follows redirects", \.acceptRedirects)
    number("net.inet6.ip6.hlim", "Hop limit of what this host sends", 1...255, \.hopLimit)
    number("net.inet6.ip6.dad_count", "Probes before an address is used; 0: none", 0...16, \.duplicateProbes)
    number("net.inet6.ip6.hdrnestlimit", "Headers in a row", 1...32, \.headerLimit)
    number("net.inet6.ip6.maxfragpackets", "Datagrams in reassembly a worker", 0...65536, \.reassemblyLimit)
    number("net.inet6.ip6.maxfrags", "Fragments in reassembly a worker", 0...65536, \.fragmentLimit)
    number("net.inet6.ip6.maxfragsperpacket", "Fragments of one datagram", 1...8192, \.fragmentsPerDatagram)
    number("net.inet6.ip6.fraglifetime", "Seconds for fragments to meet", 1...3600, \.fragmentSeconds)
    number("net.inet6.icmp6.errppslimit", "Errors a second; 0: no limit", 0...1_000_000, \.errorsPerSecond)
    number("net.inet6.icmp6.nd6_maxqueuelen", "Packets that wait for a neighbour", 1...1024, \.neighbourQueue)
    number("net.inet6.icmp6.nd6_maxneighbours", "Neighbours in all", 16...1_048_576, \.neighbourLimit)
    number("net.inet6.ip6.pmtu_expire", "Seconds a path MTU is remembered", 60...86_400, \.pathMTUSeconds)
    for group in ["ip6", "icmp6"] {
      netisr.sysctl.add("net.inet6.\(group).stats", "Counters of \(group)") { [weak self] in
        let rows = (self?.statistics ?? []).filter { $0.counter.group == group }.map { [$0.counter.name, "\($0.value)", $0.counter.summary] }
        return .table(columns: ["Name", "Value", "Meaning"], rows: rows)
      }
    }
  }

  private func flag(_ name: String, _ summary: String, _ path: WritableKeyPath<Inet6Settings, Bool> & Sendable) {
    netisr.sysctl.add(name, summary, read: { [weak self] in .integer(self?.settings[keyPath: path] == true ? 1 : 0) }) {
      [weak self] (text: String) throws(SysctlError) in
      guard text == "0" || text == "1" else { throw .invalid(name: name, value: text, allowed: "0 or 1") }
      self?.set { $0[keyPath: path] = text == "1" }
    }
  }

  private func number(_ name: String, _ summary: String, _ range: ClosedRange<Int>, _ path: WritableKeyPath<Inet6Settings, Int> & Sendable) {
    netisr.sysctl.add(name, summary, read: { [weak self] in .integer(Int64(self?.settings[keyPath: path] ?? 0)) }) {
      [weak self] (text: String) throws(SysctlError) in
      guard let value = Int(text), range.contains(value) else {
        throw .invalid(name: name, value: text, allowed: "\(range.lowerBound) to \(range.upperBound)")
      }
      self?.set { $0[keyPath: path] = value }
    }
  }
}
