// What pktgen says at the end, and once a second. The property names are the JSON keys.

import Ringway

/// A figure that the loop publishes once a second and the observer reads.
final class Published<Value> {
  var value: Value
  init(_ value: Value) { self.value = value }
}

/// One second of any pktgen command.
struct LiveFigures: Encodable {
  let event = "second"
  let seconds: Double
  let packets: UInt64
  let bytes: UInt64
  let packets_per_second: Double
  let bits_per_second: Double
  let lost: UInt64?

  init(_ totals: Totals, _ rate: Rate, _ seconds: Double, lost: UInt64? = nil) {
    self.seconds = seconds
    packets = totals.packets
    bytes = totals.bytes
    packets_per_second = rate.packetsPerSecond
    bits_per_second = rate.bitsPerSecond
    self.lost = lost
  }
}

struct SendResult: Encodable {
  let device: String
  let driver: String
  let run: UInt16
  let size: Int
  let packets: UInt64
  let bytes: UInt64
  /// Rounds in which the card had no room.
  let ring_full: UInt64
  let seconds: Double
  let packets_per_second: Double
  let bits_per_second: Double

  init(_ port: Port, _ counts: GeneratorCounts, stream: TestStream, size: Int, seconds: Double) {
    let rate = Rate(Totals(packets: counts.sent, bytes: counts.bytes), seconds: seconds)
    device = port.name
    driver = port.driverName
    run = stream.run
    self.size = size
    packets = counts.sent
    bytes = counts.bytes
    ring_full = counts.full
    self.seconds = seconds
    packets_per_second = rate.packetsPerSecond
    bits_per_second = rate.bitsPerSecond
  }

  var text: String {
    "\(device): sent \(Figure.grouped(packets)) packets, \(Figure.grouped(bytes)) bytes in \(Figure.seconds(seconds)): \(Figure.scaled(packets_per_second))pps, \(Figure.scaled(bits_per_second))b/s"
  }
}

struct ReceiveResult: Encodable {
  struct Latency: Encodable {
    let minimum: UInt64
    let mean: UInt64
    let maximum: UInt64
  }

  let device: String
  let driver: String
  let run: UInt16?
  let packets: UInt64
  let bytes: UInt64
  let lost: UInt64
  let duplicates: UInt64
  let reordered: UInt64
  let corrupted: UInt64
  let late: UInt64
  let foreign: UInt64
  let other: UInt64
  let first: UInt64?
  let last: UInt64?
  let latency_ns: Latency
  let seconds: Double
  let packets_per_second: Double
  let bits_per_second: Double

  init(_ port: Port, _ receiver: borrowing PacketReceiver, expected: UInt64? = nil) {
    let counts = receiver.counts
    seconds = Double(receiver.span) / 1e9
    let rate = Rate(Totals(packets: counts.packets, bytes: counts.bytes), seconds: seconds)
    device = port.name
    driver = port.driverName
    run = receiver.currentRun
    packets = counts.packets
    bytes = counts.bytes
    lost = expected.map { $0 > counts.packets ? $0 - counts.packets : 0 } ?? counts.lost
    duplicates = counts.duplicates
    reordered = counts.reordered
    corrupted = counts.corrupted
    late = counts.late
    foreign = counts.foreign
    other = counts.other
    first = counts.first
    last = counts.last
    latency_ns = Latency(minimum: counts.minimumLatency, mean: counts.meanLatency, maximum: counts.maximumLatency)
    packets_per_second = rate.packetsPerSecond
    bits_per_second = rate.bitsPerSecond
  }

  var text: String {
    """
    \(device): received \(Figure.grouped(packets)) packets, \(Figure.grouped(bytes)) bytes in \(Figure.seconds(seconds)): \
    \(Figure.scaled(packets_per_second))pps, \(Figure.scaled(bits_per_second))b/s
    \(device): lost \(lost), duplicates \(duplicates), reordered \(reordered), corrupted \(corrupted)\
    \(late + foreign + other > 0 ? "; late \(late), of other runs \(foreign), other frames \(other)" : "")
    """
  }
}

struct PairResult: Encodable {
  let sent: SendResult
  let received: ReceiveResult
}

/// A generator that shows its figures.
struct SendWork: ~Copyable, PortWork {
  var generator: PacketGenerator
  let totals = Published(Totals())

  init(_ generator: consuming PacketGenerator) { self.generator = generator }

  mutating func round(now: UInt64) -> Int { generator.round(now: now) }
  func isDone(now: UInt64) -> Bool { generator.isDone(now: now) }
  func rest(now: UInt64) -> UInt64? { generator.rest(now: now) }
  mutating func publish() { totals.value = Totals(packets: generator.counts.sent, bytes: generator.counts.bytes) }
}

/// A receiver that shows its figures.
struct ReceiveWork: ~Copyable, PortWork {
  var receiver: PacketReceiver
  let figures = Published(ReceiverCounts())

  init(_ receiver: consuming PacketReceiver) { self.receiver = receiver }

  mutating func round(now: UInt64) -> Int { receiver.round(now: now) }
  func isDone(now: UInt64) -> Bool { receiver.isDone(now: now) }
  mutating func publish() { figures.value = receiver.counts }
}

/// Both on one thread.
struct PairWork: ~Copyable, PortWork {
  var generator: PacketGenerator
  var receiver: PacketReceiver
  let figures = Published(ReceiverCounts())
  let sentSoFar = Published(UInt64(0))
  /// When sending ended, in monotonic nanoseconds; nil while it goes on.
  private var stopped: UInt64?
  /// How long stragglers are waited for.
  static let grace: UInt64 = 500_000_000

  init(_ generator: consuming PacketGenerator, _ receiver: consuming PacketReceiver) {
    self.generator = generator
    self.receiver = receiver
  }

  /// From now on, only receives.
  mutating func stopSending(now: UInt64) { stopped = now }

  mutating func round(now: UInt64) -> Int {
    (stopped == nil ? generator.round(now: now) : 0) &+ receiver.round(now: now)
  }

  /// All is sent; after that, all is here or nothing came for a while.
  func isDone(now: UInt64) -> Bool {
    guard let stopped else { return generator.isDone(now: now) }
    let since = max(stopped, receiver.lastArrival)
    return receiver.counts.packets >= generator.counts.sent || now > since && now &- since > Self.grace
  }

  func rest(now: UInt64) -> UInt64? {
    stopped == nil ? min(generator.rest(now: now) ?? 0, 20_000) : nil
  }

  mutating func publish() {
    figures.value = receiver.counts
    sentSoFar.value = generator.counts.sent
  }
}
