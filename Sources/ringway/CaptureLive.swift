// Captures on an interface of the daemon: what passes, and what was dropped and why.

import Capture
// Not the daemon's description of an interface: a file's.
import struct Capture.CaptureInterface
import Control
import ControlClient
import Glibc
import Packet
import Platform
import Ringway

/// A live capture.
final class LiveCapture {
  struct Wish {
    var interface: String
    var filter: String
    var file: String?
    var snap: Int
    var count: UInt64?
    /// Nanoseconds; nil: until somebody ends it.
    var limit: UInt64?
    var drops = false
    var traffic = true
  }

  /// What it has done. The property names are the JSON keys.
  struct Result: Encodable, Equatable {
    let interface: String
    let file: String?
    var captured: UInt64 = 0
    var dropped_packets: UInt64 = 0
    /// Packets that passed while this reader was too slow.
    var missed: UInt64 = 0

    var text: String {
      "\(interface): \(captured) frames captured"
        + (dropped_packets > 0 ? ", \(dropped_packets) of them dropped by the stack" : "")
        + (missed > 0 ? "; \(missed) are missing: the capture was too slow" : "")
    }
  }

  private let wish: Wish
  private let client: ControlClient
  private let filter: PacketFilter
  private var writer: PcapngWriter?
  private var lines: PacketLines
  /// Place of an interface in the file, by its index in the daemon.
  private let places: [Int: Int]
  private let links: [Int: Int]
  private let started: UInt64
  private(set) var result: Result

  init(_ wish: Wish, _ client: ControlClient) throws {
    self.wish = wish
    self.client = client
    let filter = try PacketFilter(wish.filter)
    var request = CaptureStart(
      interface: wish.interface == "any" ? nil : wish.interface, traffic: wish.traffic, drops: wish.drops, snapLength: wish.snap)
    request.backlog = 65536
    let reply = try client.call(request)
    places = Dictionary(reply.interfaces.enumerated().map { ($1.index, $0) }, uniquingKeysWith: { $1 })
    links = Dictionary(reply.interfaces.map { ($0.index, $0.linkType) }, uniquingKeysWith: { $1 })
    started = Self.epoch()
    result = Result(interface: wish.interface, file: wish.file)
    let described = reply.interfaces.map {
      CaptureInterface(name: $0.name, description: "an interface of ringwayd", filter: wish.filter)
    }
    self.filter = filter
    lines = PacketLines(limit: wish.snap)
    if let file = wish.file {
      writer = try PcapngWriter(
        path: file, interfaces: described.isEmpty ? [CaptureInterface(name: wish.interface)] : described, snapLength: wish.snap,
        application: "ringway capture")
      try writer!.flush()
    }
  }

  private static func epoch() -> UInt64 {
    var time = timespec()
    // SAFETY: a local variable.
    _ = unsafe clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }

  /// Runs until the count or the time is reached, or `stop` becomes readable.
  func run(stop: Int32) throws {
    let end = wish.limit.map { MonotonicClock().now() &+ $0 }
    while result.captured < wish.count ?? .max {
      let now = MonotonicClock().now()
      if let end, now >= end { break }
      let left = end.map { $0 - now } ?? 3_600_000_000_000
      guard let event = try client.nextEvent(orUntil: stop, within: min(left, 200_000_000)) else {
        try flush()
        if ControlClient.isReadable(stop) { break }
        continue
      }
      switch event {
      case .packet(let packet): try take(packet)
      case .lost(let count): result.missed += count
      case .end(let reason):
        try finish()
        throw Failure(.failure, "the daemon ended the capture: \(reason)", hint: "what was captured until then is complete")
      case .change: break
      }
    }
    try finish()
  }

  private func take(_ packet: CapturedPacket) throws {
    guard var bytes = packet.bytes else { return }
    var length = packet.length
    // Loopback has no link header: captures are Ethernet's.
    if let link = links[packet.index], link != 1, let first = bytes.first {
      bytes = [UInt8](repeating: 0, count: 12) + (first >> 4 == 6 ? [0x86, 0xdd] : [0x08, 0x00]) + bytes
      length += 14
    }
    let matches = unsafe bytes.withUnsafeBytes { unsafe filter.matches($0, wireLength: length) }
    guard matches else { return }
    result.captured += 1
    if packet.drop != nil { result.dropped_packets += 1 }
    let comment = Self.comment(packet)
    if writer != nil {
      let direction: CaptureDirection = packet.direction == "in" ? .inbound : packet.direction == "out" ? .outbound : .unknown
      let place = places[packet.index] ?? 0
      try unsafe bytes.withUnsafeBytes { raw in
        try unsafe writer!.write(raw, wireLength: length, interface: place, time: packet.time, direction: direction, comment: comment)
      }
    } else {
      let arrow = packet.direction == "in" ? "<" : packet.direction == "out" ? ">" : "x"
      try lines.append(
        "\(packet.interface ?? "-") \(arrow) \(PacketLines.line(bytes, length: length, time: packet.time))\(comment.isEmpty ? "" : "  [\(comment)]")")
    }
  }

  /// The packet's comment: why it was dropped.
  static func comment(_ packet: CapturedPacket) -> String {
    guard let reason = packet.drop else { return "" }
    var where_: [String] = []
    if let queue = packet.queue { where_.append("queue \(queue)") }
    if let proto = packet.proto, !proto.isEmpty { where_.append("protocol \(proto)") }
    return "dropped: \(reason)" + (where_.isEmpty ? "" : " (\(where_.joined(separator: ", ")))")
  }

  private func flush() throws { if writer != nil { try writer!.flush() } else { try lines.flush() } }

  private func finish() throws {
    do throws(CaptureError) {
      if writer != nil {
        let totals = CaptureStatistics(start: started, end: Self.epoch(), received: result.captured + result.missed, dropped: result.missed)
        try writer!.write(totals, interface: 0)
        try writer!.flush()
      } else {
        try lines.flush()
      }
    } catch {
      // A reader that left had what it wanted.
      if case .readerGone = error { return }
      throw error
    }
  }
}
