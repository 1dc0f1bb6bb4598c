// What `ringway top` shows: differences between two looks at the daemon, as lines.
//
//     ringwayd  12:00:03  2 workers                                        paused, 3 s ago
//     worker  cpu   busy   cycles/pkt   packets/s   batch   wakeups/s   history (60 s)
//     interface      in pkt/s   in b/s   out pkt/s   out b/s   drops/s
//     queue          worker  packets/s  batch  tail writes/pkt  drops/s
//     protocol       handled/s  direct/s  hybrid/s  queued/s  len  drops/s
//     drops          interface  queue  protocol  reason   /s   total

import Control

/// Rates between two samples. The property names are the JSON keys.
struct TopRates: Encodable, Equatable {
  struct Worker: Encodable, Equatable {
    let id: Int
    let cpu: Int?
    /// Share of the processor, 0 to 1; nil where cycles are not counted.
    let busy: Double?
    let cycles_per_packet: Double?
    let packets_per_second: Double
    /// Packets a batch.
    let batch: Double?
    let wakeups_per_second: Double?
  }
  struct Interface: Encodable, Equatable {
    let name: String
    let in_packets_per_second, in_bits_per_second, out_packets_per_second, out_bits_per_second: Double
    let drops_per_second: Double
  }
  struct Queue: Encodable, Equatable {
    let interface, direction: String
    let index: Int
    let worker: Int?
    let packets_per_second, bits_per_second: Double
    let batch, tail_writes_per_packet: Double?
    let drops_per_second: Double
  }
  struct Proto: Encodable, Equatable {
    let name: String
    let handled_per_second, direct_per_second, hybrid_per_second, queued_per_second, drops_per_second: Double
    /// Packets that wait, over all workers.
    let length: UInt64
    let watermark: UInt64
  }
  struct Drop: Encodable, Equatable {
    let interface: String?
    let queue: Int
    let proto, reason: String
    let per_second: Double
    let total: UInt64
  }
  /// Seconds between the samples.
  let seconds: Double
  let workers: [Worker]
  let interfaces: [Interface]
  let queues: [Queue]
  let protocols: [Proto]
  let drops: [Drop]

  /// - Parameters:
  ///   - old: nil counts since the daemon's start, over no time: rates are 0.
  init(_ now: TopRecord, since old: TopRecord?) {
    let seconds = old.map { Double(now.time &- $0.time) / 1e9 } ?? 0
    self.seconds = seconds
    func rate(_ value: UInt64, _ before: UInt64?) -> Double {
      seconds > 0 && before != nil ? Double(value >= before! ? value - before! : value) / seconds : 0
    }
    workers = now.workers.map { worker in Self.worker(worker, old?.workers.first { $0.id == worker.id }, seconds) }
    interfaces = now.interfaces.map { interface in
      let c = interface.counters, b = old?.interfaces.first { $0.name == interface.name }?.counters
      let lost = now.drops.filter { $0.interface == interface.name }.reduce(0) { $0 + $1.packets }
      let lostBefore = old.map { $0.drops.filter { $0.interface == interface.name }.reduce(0) { $0 + $1.packets } }
      return Interface(
        name: interface.name, in_packets_per_second: rate(c.ipackets, b?.ipackets), in_bits_per_second: rate(c.ibytes, b?.ibytes) * 8,
        out_packets_per_second: rate(c.opackets, b?.opackets), out_bits_per_second: rate(c.obytes, b?.obytes) * 8,
        drops_per_second: rate(lost, lostBefore))
    }
    queues = now.queues.map { queue in
      let b = old?.queues.first { $0.interface == queue.interface && $0.direction == queue.direction && $0.index == queue.index }
      return Self.queue(queue, b, rate)
    }
    protocols = Self.protocols(now, old, rate)
    drops = now.drops.map { drop in
      let b = old?.drops.first { $0.interface == drop.interface && $0.queue == drop.queue && $0.proto == drop.proto && $0.reason == drop.reason }
      return Drop(
        interface: drop.interface, queue: drop.queue, proto: drop.proto, reason: drop.reason,
        per_second: rate(drop.packets, old == nil ? nil : b?.packets ?? 0), total: drop.packets)
    }.sorted { ($0.per_second, $0.total) > ($1.per_second, $1.total) }
  }

  private static func worker(_ now: TopRecord.Worker, _ old: TopRecord.Worker?, _ seconds: Double) -> Worker {
    let packets = old.map { now.packets &- $0.packets } ?? 0, batches = old.map { now.batches &- $0.batches } ?? 0
    var busy: Double?, cycles: Double?
    if let old, let nowBusy = now.busyCycles, let oldBusy = old.busyCycles, let nowTotal = now.totalCycles, let oldTotal = old.totalCycles {
      let spent = Double(nowBusy &- oldBusy), total = Double(nowTotal &- oldTotal)
      busy = total > 0 ? min(1, spent / total) : 0
      if packets > 0 { cycles = spent / Double(packets) }
    }
    let wakeups = zip2(now.wakeups, old?.wakeups).map { seconds > 0 ? Double($0 &- $1) / seconds : 0 }
    return Worker(
      id: now.id, cpu: now.cpu, busy: busy, cycles_per_packet: cycles, packets_per_second: seconds > 0 ? Double(packets) / seconds : 0,
      batch: batches > 0 ? Double(packets) / Double(batches) : nil, wakeups_per_second: wakeups)
  }

  private static func zip2(_ a: UInt64?, _ b: UInt64?) -> (UInt64, UInt64)? {
    guard let a, let b else { return nil }
    return (a, b)
  }

  private static func queue(_ now: TopRecord.Queue, _ old: TopRecord.Queue?, _ rate: (UInt64, UInt64?) -> Double) -> Queue {
    let packets = old.map { now.packets &- $0.packets } ?? 0
    let batches = zip2(now.batches, old?.batches).map { $0 &- $1 }, tails = zip2(now.tailWrites, old?.tailWrites).map { $0 &- $1 }
    return Queue(
      interface: now.interface, direction: now.direction, index: now.index, worker: now.worker,
      packets_per_second: rate(now.packets, old?.packets), bits_per_second: rate(now.bytes, old?.bytes) * 8,
      batch: batches.flatMap { $0 > 0 ? Double(packets) / Double($0) : nil },
      tail_writes_per_packet: tails.flatMap { packets > 0 ? Double($0) / Double(packets) : nil },
      drops_per_second: rate(now.drops, old?.drops))
  }

  /// Work streams of all workers, added up by protocol.
  private static func protocols(_ now: TopRecord, _ old: TopRecord?, _ rate: (UInt64, UInt64?) -> Double) -> [Proto] {
    var names: [String] = []
    for stream in now.streams where !names.contains(stream.name) { names.append(stream.name) }
    return names.map { name in
      func sum(_ record: TopRecord, _ field: (NetisrRecord.Workstream) -> UInt64) -> UInt64 {
        record.streams.filter { $0.name == name }.reduce(0) { $0 &+ field($1) }
      }
      func change(_ field: (NetisrRecord.Workstream) -> UInt64) -> Double { rate(sum(now, field), old.map { sum($0, field) }) }
      return Proto(
        name: name, handled_per_second: change(\.handled), direct_per_second: change(\.dispatched),
        hybrid_per_second: change(\.hybridDispatched), queued_per_second: change(\.queued), drops_per_second: change(\.queueDrops),
        length: sum(now, \.length), watermark: now.streams.filter { $0.name == name }.map(\.watermark).max() ?? 0)
    }
  }
}

/// The last minutes' rates, and which of them is looked at.
struct TopHistory {
  /// Samples kept: ten minutes at one a second.
  static let limit = 600
  private(set) var rates: [TopRates] = []
  private var last: TopRecord?
  /// How many samples back the view is; 0 is the newest.
  private(set) var back = 0
  private(set) var isPaused = false

  /// Adds a look. The first makes no rates.
  mutating func add(_ record: TopRecord) {
    defer { last = record }
    guard let last else { return }
    rates.append(TopRates(record, since: last))
    if rates.count > Self.limit { rates.removeFirst() }
    // A paused view stays with its sample.
    if isPaused { back = min(back + 1, rates.count - 1) }
  }

  var shown: TopRates? { rates.isEmpty ? nil : rates[max(0, rates.count - 1 - back)] }

  mutating func togglePause() {
    isPaused.toggle()
    if !isPaused { back = 0 }
  }
  /// Steps back (positive) or forward; pauses.
  mutating func step(_ samples: Int) {
    isPaused = true
    back = max(0, min(max(0, rates.count - 1), back + samples))
  }

  /// A curve of the last `width` samples, highest bar for the largest value in it.
  func curve(_ width: Int, _ value: (TopRates) -> Double) -> String {
    let bars = Array("▁▂▃▄▅▆▇█")
    let values = rates.dropLast(back).suffix(width).map(value)
    let top = max(values.max() ?? 0, 1e-9)
    return String(values.map { bars[min(7, max(0, Int($0 / top * 7.999)))] })
  }
}

/// Lines for a terminal.
enum TopText {
  static func lines(_ history: TopHistory, title: String) -> [String] {
    guard let rates = history.shown else { return [title, "", "Waiting for the second look ..."] }
    let state = history.isPaused ? "   paused, \(history.back) samples back (arrows step, p goes on)" : ""
    var lines = [title + state, ""]
    var table = TextTable(["WORKER", "CPU", "BUSY", "CYCLES/PKT", "PKT/S", "BATCH", "WAKEUPS/S", "PKT/S BEFORE"], sides: [.right])
    for (index, w) in rates.workers.enumerated() {
      table.append([
        "\(w.id)", w.cpu.map(String.init) ?? "any", w.busy.map { "\(one($0 * 100))%" } ?? "-", w.cycles_per_packet.map { one($0) } ?? "-",
        number(w.packets_per_second), w.batch.map { one($0) } ?? "-", w.wakeups_per_second.map(number) ?? "-",
        history.curve(30) { index < $0.workers.count ? $0.workers[index].packets_per_second : 0 },
      ])
    }
    lines += table.lines + [""]
    table = TextTable(["INTERFACE", "IN PKT/S", "IN B/S", "OUT PKT/S", "OUT B/S", "DROPS/S"], sides: [.left, .right])
    for i in rates.interfaces {
      table.append([
        i.name, number(i.in_packets_per_second), Figure.scaled(i.in_bits_per_second), number(i.out_packets_per_second),
        Figure.scaled(i.out_bits_per_second), number(i.drops_per_second),
      ])
    }
    lines += table.lines + [""]
    if !rates.queues.isEmpty { lines += queues(rates) + [""] }
    table = TextTable(["PROTOCOL", "HANDLED/S", "DIRECT/S", "HYBRID/S", "QUEUED/S", "LEN", "WMARK", "DROPS/S"], sides: [.left, .right])
    for p in rates.protocols {
      table.append([
        p.name, number(p.handled_per_second), number(p.direct_per_second), number(p.hybrid_per_second), number(p.queued_per_second),
        "\(p.length)", "\(p.watermark)", number(p.drops_per_second),
      ])
    }
    lines += table.lines
    if !rates.drops.isEmpty { lines += [""] + drops(rates) }
    return lines
  }

  private static func queues(_ rates: TopRates) -> [String] {
    var table = TextTable(["QUEUE", "WORKER", "PKT/S", "B/S", "BATCH", "TAILS/PKT", "DROPS/S"], sides: [.left, .right])
    for q in rates.queues {
      table.append([
        "\(q.interface) \(q.direction)\(q.index)", q.worker.map(String.init) ?? "-", number(q.packets_per_second),
        Figure.scaled(q.bits_per_second), q.batch.map { one($0) } ?? "-", q.tail_writes_per_packet.map { two($0) } ?? "-",
        number(q.drops_per_second),
      ])
    }
    return table.lines
  }

  private static func drops(_ rates: TopRates) -> [String] {
    var table = TextTable(["DROPPED", "QUEUE", "PROTOCOL", "REASON", "/S", "TOTAL"], sides: [.left, .right, .left, .left, .right])
    for d in rates.drops.prefix(12) {
      table.append([
        d.interface ?? "-", "\(d.queue)", d.proto.isEmpty ? "-" : d.proto, d.reason, number(d.per_second), Figure.grouped(d.total),
      ])
    }
    return table.lines
  }

  private static func number(_ value: Double) -> String { Figure.grouped(UInt64(max(0, value.rounded()))) }
  private static func one(_ value: Double) -> String {
    let tenths = Int((value * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)"
  }
  private static func two(_ value: Double) -> String {
    let hundredths = Int((value * 100).rounded())
    return "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100)"
  }
}
