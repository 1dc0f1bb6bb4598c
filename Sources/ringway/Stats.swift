// `ringway stats`: a card's link and counters.

import ArgumentParser
import DriverKit
import Packet
import Ringway

struct Stats: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show a card's link and counters.",
    discussion: """
      Opening a card resets it, so without --watch the counters are those of the moment that this \
      command takes. A card that another process holds cannot be asked: that process has its figures.
      """)

  @OptionGroup var card: DeviceArgument
  @Flag(help: "Go on, and show each second what has changed.")
  var watch = false
  @OptionGroup var time: DurationArgument
  @OptionGroup var port: PortArguments
  @OptionGroup var memory: MemoryArguments
  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    let session = try PortSession([card.name], memory: memory, port: port, json: json)
    defer { session.close() }
    let port = session.ports[0]
    try session.settle(seconds: 3)
    if watch || time.duration != nil {
      var last: [Statistic] = []
      var work = Discard(port)
      session.onSecond = { _ in
        let now = port.statistics()
        if json { print(jsonLine(PortStatistics(port))) } else { Self.show(now, since: last) }
        last = now
      }
      _ = try session.run(&work, limit: time.limit)
    }
    let result = PortStatistics(port)
    session.close()
    json ? try printJSON(result) : print(result.text)
  }

  /// Counters that changed, with what they gained.
  private static func show(_ now: [Statistic], since last: [Statistic]) {
    let before = Dictionary(last.map { ($0.name, $0.value) }, uniquingKeysWith: { $1 })
    let changed = now.filter { $0.value != before[$0.name] ?? 0 }
    if changed.isEmpty { return print("(no change)") }
    print(changed.map { "\($0.name) \($0.value) (+\($0.value &- (before[$0.name] ?? 0)))" }.joined(separator: "  "))
  }
}

/// Receives and drops, so that a card's counters move.
private struct Discard: ~Copyable, PortWork {
  private let port: Port
  private var batch = PacketBatch(capacity: 64)
  init(_ port: Port) { self.port = port }

  mutating func round(now: UInt64) -> Int {
    var total = 0
    for queue in 0..<port.queueCount {
      total += port.receive(queue: queue, into: &batch)
      batch.removeAll()
    }
    return total
  }
}

/// A card's state. The property names are the JSON keys.
struct PortStatistics: Encodable {
  struct Link: Encodable {
    let status: String
    let speed: Int
    let full_duplex: Bool
  }

  let device: String
  let driver: String
  let mac: String
  let mtu: Int
  let queues: Int
  let health: String
  let link: Link
  let statistics: [String: UInt64]
  private let names: [String]

  private enum CodingKeys: String, CodingKey { case device, driver, mac, mtu, queues, health, link, statistics }

  init(_ port: Port) {
    device = port.name
    driver = port.driverName
    mac = port.macAddress.description
    mtu = port.options.mtu
    queues = port.queueCount
    health = port.health.description
    let link = port.link
    self.link = Link(status: link.status.rawValue, speed: link.speed, full_duplex: link.fullDuplex)
    let counters = port.statistics()
    statistics = Dictionary(counters.map { ($0.name, $0.value) }, uniquingKeysWith: { $1 })
    names = counters.map(\.name)
  }

  var text: String {
    let width = names.map(\.count).max() ?? 0
    let lines = names.map { name in
      "  \(name)\(String(repeating: " ", count: width - name.count))  \(statistics[name] ?? 0)"
    }
    return (["\(device): \(driver), \(mac), MTU \(mtu), \(queues) queue\(queues == 1 ? "" : "s"), \(health), link \(link.status)\(link.speed > 0 ? " \(link.speed) Mb/s" : "")"]
      + lines).joined(separator: "\n")
  }
}
