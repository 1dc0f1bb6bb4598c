import Control
import Testing

@testable import ringway

/// Tables of `netstat`, and what `top` makes of two looks.
@Suite struct DaemonTextTests {
  @Test func netisrTablesHaveTheColumnsOfTheSpecification() {
    let record = NetisrRecord(
      configuration: [.init("Thread count", "2", "2"), .init("Dispatch policy", "direct", "n/a")],
      protocols: [.init(name: "ip", proto: 1, queueLimit: 256, policy: "flow", dispatch: "default", flags: "--F")],
      workstreams: [
        .init(
          wsid: 0, cpu: 1, name: "ip", length: 3, watermark: 7, dispatched: 10, hybridDispatched: 20, queueDrops: 1, queued: 30,
          handled: 57),
        .init(
          wsid: -1, cpu: -1, name: "ip", length: 0, watermark: 0, dispatched: 2, hybridDispatched: 0, queueDrops: 0, queued: 0,
          handled: 2),
      ])
    #expect(
      NetisrText.text(record) == """
        Configuration:
        Setting                             Current        Limit
        Thread count                              2            2
        Dispatch policy                      direct          n/a

        Protocols:
        Name       Proto QLimit Policy Dispatch Flags
        ip             1    256   flow  default --F\("  ")

        Workstreams:
        WSID CPU Name         Len    WMark   Disp'd  HDisp'd   QDrops   Queued  Handled
           0   1 ip             3        7       10       20        1       30       57
           -   - ip             0        0        2        0        0        0        2
        """)
  }

  @Test func routesInTheirFamilies() {
    var v4 = RouteRecord(family: "inet", prefix: "0.0.0.0/0", flags: "UGS")
    v4.gateway = "198.18.0.2"
    v4.interface = "em0"
    var v6 = RouteRecord(family: "inet6", prefix: "2001:2::1/128", flags: "UHl")
    v6.interface = "lo0"
    let text = RouteText.text([v4, v6])
    #expect(text.contains("Internet:\n") && text.contains("Internet6:\n"))
    #expect(text.split(separator: "\n").contains { $0.hasPrefix("default") && $0.contains("198.18.0.2") && $0.hasSuffix("em0") })
    #expect(text.split(separator: "\n").contains { $0.hasPrefix("2001:2::1 ") && $0.contains("link") })
  }

  @Test func networks() {
    #expect(CommandPrefix.network("198.18.3.4", 15) == "198.18.0.0/15")
    #expect(CommandPrefix.network("2001:2:0:1::9", 64) == "2001:2:0:1::/64")
    #expect(CommandPrefix.network("nonsense", 3) == nil)
    #expect(CommandPrefix.short("::/0") == "default" && CommandPrefix.short("198.18.0.1/32") == "198.18.0.1")
  }

  private func sample(at seconds: UInt64, packets: UInt64, drops: UInt64) -> TopRecord {
    var worker = TopRecord.Worker(id: 0, cpu: nil, packets: packets, batches: packets / 4)
    worker.busyCycles = packets * 100
    worker.totalCycles = seconds * 1_000_000
    var counters = CountersRecord()
    counters.ipackets = packets
    counters.ibytes = packets * 100
    var queue = TopRecord.Queue(interface: "em0", direction: "tx", index: 0, packets: packets, bytes: packets * 64, drops: 0)
    queue.tailWrites = packets / 4
    return TopRecord(
      time: seconds * 1_000_000_000, cyclesPerSecond: nil, workers: [worker], interfaces: [.init(name: "em0", counters: counters)],
      queues: [queue],
      streams: [
        .init(
          wsid: 0, cpu: 0, name: "ip", length: 1, watermark: 2, dispatched: packets, hybridDispatched: 0, queueDrops: 0, queued: 0,
          handled: packets)
      ],
      drops: [.init(interface: "em0", index: 1, queue: 0, proto: "ip", reason: "ip-no-route", packets: drops, bytes: drops * 60)])
  }

  @Test func ratesAreDifferences() {
    let rates = TopRates(sample(at: 12, packets: 5000, drops: 30), since: sample(at: 10, packets: 1000, drops: 10))
    #expect(rates.seconds == 2)
    #expect(rates.workers[0].packets_per_second == 2000 && rates.workers[0].batch == 4)
    #expect(rates.workers[0].cycles_per_packet == 100 && rates.workers[0].busy == 0.2)
    #expect(rates.interfaces[0].in_packets_per_second == 2000 && rates.interfaces[0].in_bits_per_second == 1_600_000)
    #expect(rates.interfaces[0].drops_per_second == 10)
    #expect(rates.queues[0].tail_writes_per_packet == 0.25)
    #expect(rates.protocols[0].handled_per_second == 2000)
    #expect(rates.drops[0].per_second == 10 && rates.drops[0].total == 30)
  }

  @Test func aPausedViewStaysWhereItIs() {
    var history = TopHistory()
    for second in 1...10 as ClosedRange<UInt64> { history.add(sample(at: second, packets: second * second * 100, drops: 0)) }
    #expect(history.rates.count == 9)
    history.step(2)
    let seen = history.shown
    #expect(history.isPaused && history.back == 2)
    history.add(sample(at: 11, packets: 50_000, drops: 0))
    #expect(history.shown == seen && history.back == 3)
    history.togglePause()
    #expect(history.back == 0 && history.shown != seen)
    #expect(history.curve(5) { $0.workers[0].packets_per_second }.count == 5)
    history.step(1000)
    #expect(history.back == history.rates.count - 1)
    let lines = TopText.lines(history, title: "test")
    #expect(lines.contains { $0.contains("em0") } && lines.contains { $0.contains("ip-no-route") })
  }

  @Test func aDropSaysWhy() {
    var packet = CapturedPacket(time: 0, interface: "em0", index: 1, length: 60, data: "")
    #expect(LiveCapture.comment(packet).isEmpty)
    packet.drop = "ip-no-route"
    packet.queue = 1
    packet.proto = "ip"
    #expect(LiveCapture.comment(packet) == "dropped: ip-no-route (queue 1, protocol ip)")
  }
}
