// The table of `ringway bridge --table`: a second's rates beside the totals, for both cards.
//
//     12 s                          packets/s         b/s       packets           bytes
//     vfio-user:a.sock, ixgbe, up
//       received                      81,234    980 Mb/s       974,808   1,470,123,456
//       sent                          81,190    979 Mb/s       974,280   1,469,923,112
//       interrupts                     2,310                    27,720
//       dropped: rx_missed_errors          0                       120
//     both: 612 cycles a packet, 38.1% of a processor

struct BridgeTable {
  private var last: BridgeFigures?

  /// The lines for these figures; rates are since the last call.
  mutating func next(_ now: BridgeFigures) -> [String] {
    defer { last = now }
    let time = max(0.001, now.seconds - (last?.seconds ?? 0))
    var lines = [Self.row(Figure.seconds(now.seconds), "packets/s", "b/s", "packets", "bytes")]
    for (index, side) in now.ports.enumerated() {
      let before = last?.ports[index]
      func rate(_ value: UInt64, _ old: UInt64?) -> UInt64 { UInt64(Double(value &- (old ?? 0)) / time) }
      func traffic(_ name: String, _ packets: UInt64, _ oldPackets: UInt64?, _ bytes: UInt64, _ oldBytes: UInt64?) -> String {
        Self.row(
          "  \(name)", Figure.grouped(rate(packets, oldPackets)),
          "\(Figure.scaled(Double(rate(bytes, oldBytes)) * 8))b/s", Figure.grouped(packets), Figure.grouped(bytes))
      }
      func events(_ name: String, _ value: UInt64, _ old: UInt64?) -> String {
        Self.row("  \(name)", Figure.grouped(rate(value, old)), "", Figure.grouped(value), "")
      }
      lines.append("\(side.device), \(side.driver), link \(side.link)")
      lines.append(traffic("received", side.rx_packets, before?.rx_packets, side.rx_bytes, before?.rx_bytes))
      lines.append(traffic("sent", side.tx_packets, before?.tx_packets, side.tx_bytes, before?.tx_bytes))
      lines.append(events("interrupts", side.interrupts, before?.interrupts))
      for (reason, count) in side.reasons {
        lines.append(events("dropped: \(reason)", count, before?.reasons.first { $0.0 == reason }?.1))
      }
    }
    lines.append("both: \(now.costText(since: last?.cost ?? BridgeFigures.Cost()))")
    return lines
  }

  private static func row(_ name: String, _ columns: String...) -> String {
    let widths = [12, 12, 16, 20]
    var line = name + String(repeating: " ", count: max(0, 32 - name.count))
    for (column, width) in zip(columns, widths) { line += String(repeating: " ", count: max(1, width - column.count)) + column }
    while line.last == " " { line.removeLast() }
    return line
  }
}

extension BridgeFigures.Side {
  /// Every drop with its reason: those of the bridge itself, then the card's and its driver's.
  var reasons: [(String, UInt64)] {
    (tx_dropped > 0 ? [("transmit ring full", tx_dropped)] : []) + drops.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
  }
}

extension BridgeFigures {
  /// "612 cycles a packet, 38.1% of a processor", of what was done since `before`.
  func costText(since before: Cost) -> String {
    let packets = cost.packets &- before.packets
    let busy = cost.busy &- before.busy
    let total = cost.total &- before.total
    let permille = total > 0 ? Int((Double(busy) * 1000 / Double(total)).rounded()) : 0
    let share = "\(permille / 10).\(permille % 10)% of a processor"
    guard packets > 0 else { return "no packets, \(share)" }
    return "\(Figure.grouped(busy / packets)) cycles a packet, \(share)"
  }

  /// The summary with what only the table shows.
  var longSummary: String {
    var lines = summary.split(separator: "\n").map(String.init)
    for side in ports {
      let reasons = side.reasons.map { "\($0.0) \($0.1)" }.joined(separator: ", ")
      lines.append("\(side.device): \(Figure.grouped(side.interrupts)) interrupts; drops: \(reasons.isEmpty ? "none" : reasons)")
    }
    lines.append("forwarding took \(costText(since: Cost()))")
    return lines.joined(separator: "\n")
  }
}
