import Foundation
import Packet
import Testing

@testable import Capture

@Suite struct PacketFilterTests {
  static let expressions = [
    "", "ip", "ip6", "arp", "not arp", "tcp", "udp", "icmp", "icmp6", "vlan", "vlan 7", "vlan and udp port 53", "mpls",
    "port 53", "udp port 53", "src port 53", "dst port 80 and tcp", "portrange 50-100", "host 198.18.0.1",
    "src host 198.18.7.7 or dst host 198.18.0.10", "net 198.18.0.0/15", "dst net 198.19.0.0/16", "ether broadcast",
    "ether multicast", "ip multicast", "ether host 02:00:00:00:00:01", "ether dst 33:33:00:00:00:01",
    "ether proto 0x88cc", "greater 200", "less 64", "len > 1000", "tcp[tcpflags] & tcp-syn != 0",
    "tcp[tcpflags] & (tcp-syn|tcp-ack) == (tcp-syn|tcp-ack)", "icmp[icmptype] == icmp-echo", "ip[6:2] & 0x1fff != 0",
    "ip[0] & 0xf > 5", "ether[12:2] = 0x8100", "udp[4:2] > 100", "host 2001:2::1", "ip6 and udp",
    "(tcp or udp) and not port 53", "ip proto 17 and dst port 53", "stp", "llc",
  ]

  @Test(.enabled(if: tcpdumpInstalled)) func agreesWithTcpdump() throws {
    let frames = Frames()
    let folder = try TemporaryFolder()
    let path = folder.file("zoo.pcapng")
    do {
      var writer = try PcapngWriter(path: path, interfaces: [CaptureInterface(name: "zoo")])
      for (index, frame) in Zoo.frames.enumerated() {
        try writer.write(frames.packet(frame), time: UInt64(index + 1) * 1_000_000_000)
      }
      try writer.flush()
    }
    var passed = 0
    for expression in Self.expressions {
      let filter = try PacketFilter(expression)
      var ours: [Int] = []
      for (index, frame) in Zoo.frames.enumerated() {
        let whole = filter.matches(try frames.packet(frame))
        if whole { ours.append(index + 1) }
        // The same frame in pieces is the same frame.
        #expect(filter.matches(try frames.chain(frame, piece: 40)) == whole, "\(expression), frame \(index) in pieces")
      }
      let said = try tcpdump(["-tt", "-nr", path, expression])
      #expect(said.status == 0, "\(said.errors)")
      let theirs = said.output.split(separator: "\n").compactMap { line in Int(line.prefix { $0 != "." }) }
      #expect(ours == theirs, "\(expression)")
      passed += ours.count
    }
    #expect(passed > 100)
  }

  @Test func optimizerChangesNothing() throws {
    let frames = Frames()
    for expression in Self.expressions {
      let short = try PacketFilter(expression)
      let long = try PacketFilter(expression, optimize: false)
      #expect(short.instructionCount <= long.instructionCount)
      for frame in Zoo.frames {
        #expect(short.matches(try frames.packet(frame)) == long.matches(try frames.packet(frame)), "\(expression)")
      }
    }
  }

  /// A tag that the card took out is seen by the filter all the same.
  @Test func strippedTagIsThere() throws {
    let frames = Frames()
    let packet = try frames.packet(Zoo.frames[0])
    let vlan = try PacketFilter("vlan 1234 and udp port 53")
    var matches = vlan.matches(packet)
    #expect(!matches)
    packet.vlan = 0x6000 | 1234
    packet.flags = .vlan
    matches = vlan.matches(packet)
    #expect(matches)
  }

  @Test func looksAtTheWireLength() throws {
    let filter = try PacketFilter("len > 1000")
    let bytes: [UInt8] = Array(repeating: 0, count: 60)
    let matches = unsafe bytes.withUnsafeBytes { bytes in
      (unsafe filter.matches(bytes, wireLength: 1001), unsafe filter.matches(bytes, wireLength: 1000))
    }
    #expect(matches == (true, false))
  }

  @Test func wrongExpressionsAreExplained() throws {
    for expression in ["udp prot 53", "host", "port 70000", "(tcp", "tcp[", "vlan 5000 and and"] {
      do throws(CaptureError) {
        _ = try PacketFilter(expression)
        Issue.record("\(expression) was accepted")
      } catch {
        guard case .filter(expression, let message) = error else {
          Issue.record("\(error)")
          continue
        }
        #expect(!message.isEmpty)
        #expect("\(error)".contains("pcap-filter(7)"))
      }
    }
  }

  @Test func nothingLeaks() throws {
    let frames = Frames()
    let before = frames.pool.available
    let filter = try PacketFilter("udp")
    for frame in Zoo.frames { _ = filter.matches(try frames.chain(frame, piece: 30)) }
    #expect(frames.pool.available == before)
  }
}
