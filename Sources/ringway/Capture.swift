// `ringway capture`: frames into a pcapng file, or as lines.

import ArgumentParser
import Capture
import DriverKit
import Glibc
import Packet
import Platform
import Ringway

struct CaptureCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "capture", abstract: "Write received frames to a pcapng file, or print a line for each.",
    discussion: """
      FILTER is an expression as in pcap-filter(7): ringway capture 0000:03:00.0 -w a.pcapng udp port 53

      On an interface of the running daemon (em0, any) what passes it in both directions is captured, and with --drops \
      also what the stack dropped there, with the reason as the packet's comment: ringway capture em0 --drops -w a.pcapng
      """)

  @Argument(help: "The card's PCI address, vfio-user:SOCKET, an interface of the daemon (any: all of them), or a netmap port of its (netmap:ix0/r).")
  var address: String
  @Argument(help: "Only frames that match: a libpcap expression.")
  var filter: [String] = []
  @Option(name: [.customShort("w"), .customLong("write")], help: ArgumentHelp("The pcapng file; - is standard output.", valueName: "file"))
  var file: String?
  @Option(
    name: [.customShort("s"), .customLong("snap"), .customLong("snaplen")],
    help: ArgumentHelp("Bytes kept of each frame (default: all).", valueName: "bytes"))
  var snap = Capture.wholeFrames
  @Option(name: [.customShort("c"), .long], help: ArgumentHelp("Stop after so many frames.", valueName: "n"), transform: { try Amount.count($0) })
  var count: UInt64?
  @Flag(help: "Only frames for this card's own address, broadcast and multicast ones.")
  var noPromiscuous = false
  @Flag(help: "Also what was dropped, with the reason (interfaces of the daemon).")
  var drops = false
  @Flag(help: "Only what was dropped.")
  var dropsOnly = false
  @Option(help: ArgumentHelp("The daemon's control socket.", valueName: "path"))
  var socket: String?
  @OptionGroup var time: DurationArgument
  @OptionGroup var port: PortArguments
  @OptionGroup var memory: MemoryArguments
  @Flag(help: "Print the result as JSON, on standard error with -w -.")
  var json = false

  /// A card is named by where it is, an interface by its name.
  private var isInterface: Bool { !address.contains(":") }

  func validate() throws {
    if !isInterface && (drops || dropsOnly || socket != nil) {
      throw ValidationError("--drops, --drops-only and --socket go with an interface of the daemon, such as em0.")
    }
    guard Capture.snapLengths.contains(snap) else {
      throw ValidationError("--snap takes \(Capture.snapLengths.lowerBound) to \(Capture.snapLengths.upperBound).")
    }
  }

  func run() throws {
    let expression = filter.joined(separator: " ")
    if isInterface { return try runLive(expression) }
    let compiled = try PacketFilter(expression)
    let session = try PortSession([address], memory: memory, port: port, json: json)
    defer { session.close() }
    let card = session.ports[0]
    if noPromiscuous { try card.setReceiveFilter(ReceiveFilter()) }
    try session.settle(seconds: 2)
    var work = CaptureWork(card, filter: compiled, count: count, snap: snap)
    if let file {
      work.writer = try PcapngWriter(
        path: file, interfaces: [card.captureInterface(filter: expression)], snapLength: snap, application: "ringway capture")
      try work.flush()
    }
    session.note("capturing", "\(card.name): capturing\(expression.isEmpty ? "" : " \(expression)")")
    let figures = work.figures
    session.onSecond = { seconds in
      guard file != nil else { return }
      let now = figures.value
      session.show("\(Figure.seconds(seconds))  \(Figure.grouped(now.captured)) captured of \(Figure.grouped(now.received))", now)
    }
    _ = try session.run(&work, limit: time.limit)
    let dropped = card.missedFrames
    session.close()
    try work.finish(dropped: dropped)
    report(CaptureResult(card, work.figures.value, file: file, dropped: dropped))
  }

  private func runLive(_ expression: String) throws {
    let signals = try SignalWatcher()
    let client = try DaemonSession.connect(socket)
    let capture = try LiveCapture(
      LiveCapture.Wish(
        interface: address, filter: expression, file: file, snap: snap, count: count, limit: time.limit,
        drops: drops || dropsOnly, traffic: !dropsOnly), client)
    if !json { printError("\(address): capturing\(expression.isEmpty ? "" : " \(expression)")") }
    try capture.run(stop: signals.descriptor)
    let result = capture.result
    if json && file != nil && file != "-" { print(jsonLine(result)) } else { printError(json ? jsonLine(result) : result.text) }
  }

  private func report(_ result: CaptureResult) {
    // Standard output may be the capture itself, or its lines.
    if json && file != nil && file != "-" { print(jsonLine(result)) } else { printError(json ? jsonLine(result) : result.text) }
  }
}

/// What a capture has done so far. The property names are the JSON keys.
struct CaptureFigures: Encodable, Equatable {
  var received: UInt64 = 0
  var captured: UInt64 = 0
}

struct CaptureResult: Encodable {
  let device: String
  let driver: String
  let file: String?
  /// Frames the card delivered.
  let received: UInt64
  /// Frames that passed the filter.
  let captured: UInt64
  /// Frames the card lost for want of room.
  let dropped: UInt64

  init(_ port: Port, _ figures: CaptureFigures, file: String?, dropped: UInt64) {
    device = port.name
    driver = port.driverName
    self.file = file
    received = figures.received
    captured = figures.captured
    self.dropped = dropped
  }

  var text: String {
    "\(device): \(captured) frames captured, \(received) received, \(dropped) dropped by the card"
  }
}

extension Port {
  /// As capture files describe this port.
  func captureInterface(filter: String) -> CaptureInterface {
    CaptureInterface(
      name: name, description: "\(driverName), \(macAddress)", filter: filter, macAddress: macAddress.bytes,
      speed: link.speed)
  }

  /// What the card lost for want of a buffer or a descriptor, under whatever name it counts it.
  var missedFrames: UInt64 {
    let names: Set<String> = ["rx_missed_errors", "rx_no_buffer_count", "rx_missed", "rx_dropped", "rx_drops"]
    return statistics().filter { names.contains($0.name) }.map(\.value).max() ?? 0
  }
}

/// Filters, and writes or prints.
struct CaptureWork: ~Copyable, PortWork {
  let figures = Published(CaptureFigures())
  var writer: PcapngWriter?
  private let port: Port
  private let filter: PacketFilter
  private let count: UInt64
  private let acceptsAll: Bool
  private let started: UInt64
  /// Nanoseconds from the monotonic clock to the Unix epoch's.
  private let epochOffset: UInt64
  private var batch: PacketBatch? = PacketBatch(capacity: 64)
  private var now = CaptureFigures()
  private var lines: PacketLines
  private var isDirty = false
  /// Ends the loop; thrown by `finish`.
  private var failure: CaptureError?

  init(_ port: Port, filter: consuming PacketFilter, count: UInt64?, snap: Int) {
    self.port = port
    acceptsAll = filter.expression.isEmpty
    self.filter = filter
    self.count = count ?? .max
    epochOffset = Self.epoch() &- MonotonicClock().now()
    started = Self.epoch()
    lines = PacketLines(limit: snap)
  }

  /// Nanoseconds since 1970.
  private static func epoch() -> UInt64 {
    var time = timespec()
    // SAFETY: a local variable.
    _ = unsafe clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }

  mutating func round(now: UInt64) -> Int {
    guard var batch = batch.take() else { return 0 }
    var total = 0
    for queue in 0..<port.queueCount {
      let n = port.receive(queue: queue, into: &batch)
      if n == 0 { continue }
      total += n
      // One time stamp a batch: the cards' own would need a register read a frame.
      let time = MonotonicClock().now() &+ epochOffset
      batch.forEach { take($0, time: time) }
      batch.removeAll()
    }
    self.batch = consume batch
    if total == 0 && isDirty { write { work throws(CaptureError) in try work.flush() } }
    return total
  }

  private mutating func take(_ packet: borrowing Packet, time: UInt64) {
    guard now.captured < count, failure == nil else { return }
    now.received &+= 1
    guard acceptsAll || filter.matches(packet) else { return }
    now.captured &+= 1
    isDirty = true
    do throws(CaptureError) {
      if writer != nil {
        try writer!.write(packet, time: time, direction: .inbound)
      } else {
        try lines.append(packet, time: time)
      }
    } catch { failure = error }
  }

  private mutating func write(_ body: (inout CaptureWork) throws(CaptureError) -> Void) {
    do throws(CaptureError) { try body(&self) } catch { failure = failure ?? error }
  }

  /// Hands over what is buffered.
  mutating func flush() throws(CaptureError) {
    isDirty = false
    if writer != nil { try writer!.flush() } else { try lines.flush() }
  }

  func isDone(now: UInt64) -> Bool { self.now.captured >= count || failure != nil }

  mutating func publish() {
    figures.value = now
    if isDirty { write { work throws(CaptureError) in try work.flush() } }
  }

  /// Writes the totals and the rest. A reader that left is no failure: it had what it wanted.
  mutating func finish(dropped: UInt64) throws(RingwayError) {
    do throws(CaptureError) {
      if let failure { throw failure }
      if writer != nil {
        try writer!.write(
          CaptureStatistics(
            start: started, end: Self.epoch(), received: now.received, dropped: dropped, accepted: now.captured),
          interface: 0)
      }
      try flush()
    } catch {
      if case .readerGone = error { return }
      throw .capture(error)
    }
  }
}

extension CaptureError: CommandFailure {
  var exit: Exit { RingwayError.capture(self).exit }
}
