// What is told: lines for people on standard output, or JSON.

import FoundationEssentials
import Glibc
import ModelServer

/// One thing that happened. The property names are the JSON keys.
private struct Line: Encodable {
  var event: String
  var model: String
  var socket: String
  var wire: String?
  var address: String?
  var mode: String?
  var client: Int?
  var reason: String?
  var link: String?
  var seconds: Double?
  var txPackets: UInt64?
  var txBytes: UInt64?
  var rxPackets: UInt64?
  var rxBytes: UInt64?
  var interrupts: UInt64?
  var messages: UInt64?
  var refusals: UInt64?
  var maps: UInt64?
  var dmaErrors: Int?
  var complaints: Int?
}

/// Writes lines as things happen, so that a reader behind a pipe sees them at once.
struct Reporter {
  let json: Bool

  private func tell(_ line: Line, _ text: String) {
    if json {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
      guard let data = try? encoder.encode(line) else { return }
      print(String(decoding: data, as: UTF8.self))
    } else {
      print(text)
    }
    fflush(nil)
  }

  private func line(_ event: String, _ card: Card) -> Line {
    Line(event: event, model: card.kind.rawValue, socket: card.server.path)
  }

  private func name(_ card: Card) -> String { "\(card.kind.rawValue) at \(card.server.path)" }

  func started(_ card: Card) {
    var told = line("started", card)
    told.wire = card.wireText
    told.address = card.address.description
    told.mode = card.server.options.mode == .trapped ? "trapped" : "shared"
    let mode = card.server.options.mode == .trapped ? "every access trapped" : "doorbells shared"
    tell(told, "\(name(card)): \(card.address), wire \(card.wireText), \(mode), waiting for a driver")
  }

  func show(_ event: ModelServerEvent, _ card: Card) {
    switch event {
    case .connected(let client):
      var told = line("connected", card)
      told.client = client
      tell(told, "\(name(card)): driver \(client) connected")
    case .left(let client, let reason, let counts):
      var told = line("left", card)
      told.client = client
      told.reason = reason
      told.messages = counts.messages
      told.refusals = counts.refusals
      told.maps = counts.maps
      told.interrupts = counts.interrupts
      tell(
        told,
        "\(name(card)): driver \(client) left, \(reason); \(grouped(counts.messages)) messages (\(counts.refusals) refused), "
          + "\(grouped(counts.maps)) maps, \(grouped(counts.interrupts)) interrupts")
    }
  }

  func link(_ card: Card) {
    var told = line("link", card)
    told.link = card.isUp ? "up" : "down"
    tell(told, "\(name(card)): the cable is \(card.isUp ? "plugged in" : card.isPlugged ? "dead at the other end" : "pulled out")")
  }

  private func counted(_ event: String, _ card: Card, _ seconds: Double) -> Line {
    var told = line(event, card)
    let now = card.traffic.traffic, counts = card.server.counts
    told.seconds = (seconds * 1000).rounded() / 1000
    told.txPackets = now.sentFrames
    told.txBytes = now.sentBytes
    told.rxPackets = now.receivedFrames
    told.rxBytes = now.receivedBytes
    told.interrupts = counts.interrupts
    told.messages = counts.messages
    told.dmaErrors = card.server.model.bus.memory.faults
    told.complaints = card.server.model.bus.complaintCount
    return told
  }

  func figures(_ card: Card, _ seconds: Double) {
    let now = card.traffic.traffic, last = card.last
    tell(
      counted("figures", card, seconds),
      "\(name(card)): \(Int(seconds)) s, sent \(grouped(now.sentFrames &- last.sentFrames)), received "
        + "\(grouped(now.receivedFrames &- last.receivedFrames)), interrupts \(grouped(card.server.counts.interrupts)), "
        + "messages \(grouped(card.server.counts.messages))")
  }

  func summary(_ card: Card, _ seconds: Double) {
    let now = card.traffic.traffic, bus = card.server.model.bus
    tell(
      counted("summary", card, seconds),
      "\(name(card)): \(Int(seconds)) s, \(card.server.clients) drivers; sent \(grouped(now.sentFrames)) frames "
        + "(\(grouped(now.sentBytes)) bytes), received \(grouped(now.receivedFrames)) (\(grouped(now.receivedBytes)) bytes); "
        + "\(bus.memory.faults) DMA errors, \(bus.complaintCount) complaints")
    if !json { for text in bus.complaints.prefix(8) { tell(line("complaint", card), "  \(text)") } }
  }

  /// "1,234,567".
  private func grouped(_ value: UInt64) -> String {
    var text = ""
    for (index, digit) in String(value).reversed().enumerated() {
      if index > 0, index % 3 == 0 { text.append(",") }
      text.append(digit)
    }
    return String(text.reversed())
  }
}
