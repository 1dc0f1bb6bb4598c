// `ringway bridge`: two cards joined by a wire in software.

import ArgumentParser
import Platform
import Ringway

struct Bridge: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Forward every frame between two cards, both ways, unchanged.")

  @Argument(help: "One card: its PCI address, or vfio-user:SOCKET; or a netmap port of the daemon's: netmap:ix0.")
  var first: String
  @Argument(help: "The other card's.")
  var second: String
  @Option(help: ArgumentHelp("Time between two lines of figures; 0 shows none.", valueName: "time"), transform: { try Amount.seconds($0) })
  var statsInterval: Double?
  @Flag(help: "Show a table: packets, bytes, drops by reason, interrupts, cycles a packet.")
  var table = false
  @OptionGroup var time: DurationArgument
  @OptionGroup var port: PortArguments
  @OptionGroup var memory: MemoryArguments
  @Flag(help: "Print figures and the result as JSON.")
  var json = false

  func run() throws {
    if isNetmap { return try runNetmap() }
    let session = try PortSession([first, second], memory: memory, port: port, json: json)
    defer { session.close() }
    let ports = session.ports
    var forwarder = try Forwarder(ports[0], ports[1])
    let monitor = forwarder.monitor
    try session.settle(seconds: 2)
    announce(session)
    let clock = MonotonicClock()
    let start = clock.now()
    let interval = statsInterval ?? 1
    var meter = RateMeter()
    var table = BridgeTable()
    var nextShow = interval
    session.onSecond = { seconds in
      guard interval > 0, seconds + 0.05 >= nextShow else { return }
      nextShow = max(nextShow + interval, seconds)
      let figures = BridgeFigures(ports, monitor, session.cost, seconds: seconds)
      if self.table { return session.show(lines: table.next(figures), figures) }
      let rate = meter.next(figures.totals, at: seconds)
      session.show("\(Figure.seconds(seconds))  \(rate.text)  \(figures.text)", figures)
    }
    _ = try session.run(&forwarder, limit: time.limit)
    let result = BridgeFigures(ports, monitor, session.cost, seconds: Double(clock.now() - start) / 1e9)
    session.close()
    json ? print(jsonLine(result)) : print(self.table ? result.longSummary : result.summary)
  }

  /// Says once that frames pass, as soon as both cards have a link.
  private func announce(_ session: PortSession) {
    let pair = "\(session.ports[0].name) and \(session.ports[1].name)"
    var isAnnounced = false
    let tell = { [unowned session] in
      guard !isAnnounced, session.isLinked else { return }
      isAnnounced = true
      session.note("forwarding", "forwarding between \(pair)")
    }
    tell()
    session.onLink = tell
  }
}

/// Both ports' figures. The property names are the JSON keys.
struct BridgeFigures: Encodable {
  struct Side: Encodable {
    let device: String
    let driver: String
    let link: String
    let rx_packets: UInt64
    let rx_bytes: UInt64
    let tx_packets: UInt64
    let tx_bytes: UInt64
    /// Frames that this card should have sent, and had no room for.
    let tx_dropped: UInt64
    /// Frames lost in the card or refused by its driver, by the counter that says why.
    let drops: [String: UInt64]
    let interrupts: UInt64
  }

  let ports: [Side]
  let seconds: Double
  /// Processor ticks a forwarded packet; absent before the first.
  let cycles_per_packet: Double?
  /// How much of the time went into packets: 0 to 1.
  let busy: Double
  /// For the second that a table shows.
  let cost: Cost

  struct Cost {
    var packets: UInt64 = 0
    var busy: UInt64 = 0
    var total: UInt64 = 0
  }

  private enum CodingKeys: String, CodingKey { case ports, seconds, cycles_per_packet, busy }

  init(ports: [Side], seconds: Double, cost: Cost) {
    self.ports = ports
    self.seconds = seconds
    self.cost = cost
    cycles_per_packet = cost.packets > 0 ? Double(cost.busy) / Double(cost.packets) : nil
    busy = cost.total > 0 ? Double(cost.busy) / Double(cost.total) : 0
  }

  /// What was sent, both ways.
  var totals: Totals {
    ports.reduce(into: Totals()) {
      $0.packets += $1.tx_packets
      $0.bytes += $1.tx_bytes
    }
  }

  var text: String {
    "> \(Figure.grouped(ports[1].tx_packets))  < \(Figure.grouped(ports[0].tx_packets))  dropped \(ports[0].tx_dropped + ports[1].tx_dropped)"
  }

  var summary: String {
    ports.map {
      "\($0.device): received \(Figure.grouped($0.rx_packets)) packets, \(Figure.grouped($0.rx_bytes)) bytes; sent \(Figure.grouped($0.tx_packets)) packets, \(Figure.grouped($0.tx_bytes)) bytes; dropped \($0.tx_dropped)"
    }.joined(separator: "\n")
  }
}

extension BridgeFigures {
  init(_ ports: [Port], _ monitor: ForwarderMonitor, _ loop: LoopFigures?, seconds: Double) {
    let (forward, backward) = (monitor.forward, monitor.backward)
    self.init(
      ports: [
        Side(ports[0], received: forward, sent: backward), Side(ports[1], received: backward, sent: forward),
      ], seconds: seconds,
      cost: loop.map { Cost(packets: $0.packets, busy: $0.busyTicks, total: $0.totalTicks) } ?? Cost())
  }
}

extension BridgeFigures.Side {
  init(_ port: Port, received: ForwardCounts, sent: ForwardCounts) {
    self.init(
      device: port.name, driver: port.driverName, link: port.link.status.rawValue, rx_packets: received.receivedPackets,
      rx_bytes: received.receivedBytes, tx_packets: sent.sentPackets, tx_bytes: sent.sentBytes, tx_dropped: sent.dropped,
      drops: Dictionary(port.drops().map { ($0.name, $0.value) }, uniquingKeysWith: { $1 }), interrupts: port.interrupts)
  }
}
