// `ringway pktgen`: numbered test frames, sent and accounted for.

import ArgumentParser
import DriverKit
import Platform
import Ringway
import Wire

struct Pktgen: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Send numbered test packets, receive and account for them.",
    discussion: """
      The packets are UDP over IPv4 in 198.18.0.0/15 and carry a sequence number each; the receiver \
      says which were lost, doubled, out of order or damaged.
      """,
    subcommands: [PktgenSend.self, PktgenReceive.self, PktgenPair.self])
}

/// What is sent.
struct StreamArguments: ParsableArguments {
  @Option(help: ArgumentHelp("Packets to send (default: until stopped).", valueName: "n"), transform: { try Amount.count($0) })
  var count: UInt64?
  @Option(help: ArgumentHelp("Bytes of a frame, without the check sequence.", valueName: "bytes"))
  var size = 60
  @Option(help: ArgumentHelp("Packets a second: 5000, 10k, 1M (default: as fast as the card goes).", valueName: "pps"), transform: { try Amount.rate($0) })
  var rate: UInt64?
  @Option(help: ArgumentHelp("Destination MAC address (default: 02:52:57:00:00:01).", valueName: "mac"), transform: { try MACAddress.parse($0) })
  var to: MACAddress?
  @Option(help: ArgumentHelp("Number that tells this run from others, 0 to 65535 (default: random).", valueName: "n"))
  var run: UInt16?
  @Option(help: ArgumentHelp("How long to wait for a link.", valueName: "time"), transform: { try Amount.seconds($0) })
  var linkWait: Double = 10

  var options: GeneratorOptions {
    var options = GeneratorOptions()
    options.size = size
    options.count = count
    options.rate = rate
    return options
  }

  func stream(from port: Port, to receiver: MACAddress? = nil) -> TestStream {
    TestStream(
      destination: to ?? receiver ?? MACAddress(0x02, 0x52, 0x57, 0, 0, 1), source: port.macAddress,
      run: run ?? UInt16.random(in: 0 ... .max))
  }
}

struct PktgenSend: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "tx", abstract: "Send test packets.")

  @OptionGroup var card: DeviceArgument
  @OptionGroup var stream: StreamArguments
  @OptionGroup var time: DurationArgument
  @OptionGroup var port: PortArguments
  @OptionGroup var memory: MemoryArguments
  @Flag(help: "Print the result as JSON.")
  var json = false

  func run() throws {
    let session = try PortSession([card.name], memory: memory, port: port, json: json)
    defer { session.close() }
    let port = session.ports[0]
    let stream = self.stream.stream(from: port)
    var work = SendWork(try PacketGenerator(port, stream: stream, options: self.stream.options))
    try session.settle(seconds: self.stream.linkWait)
    try session.requireLink(waited: self.stream.linkWait)
    session.note("sending", "sending \(self.stream.size)-byte packets from \(port.macAddress) to \(stream.destination), run \(stream.run)")
    let clock = MonotonicClock()
    let start = clock.now()
    var meter = RateMeter()
    let figures = work.totals
    session.onSecond = { seconds in
      let totals = figures.value
      let rate = meter.next(totals, at: seconds)
      session.show("\(Figure.seconds(seconds))  \(rate.text)  \(Figure.grouped(totals.packets)) sent", LiveFigures(totals, rate, seconds))
    }
    _ = try session.run(&work, limit: time.limit)
    let seconds = Double(clock.now() - start) / 1e9
    session.close()
    let result = SendResult(port, work.generator.counts, stream: stream, size: self.stream.size, seconds: seconds)
    json ? try printJSON(result) : print(result.text)
  }
}

struct PktgenReceive: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "rx", abstract: "Receive test packets and account for each.")

  @OptionGroup var card: DeviceArgument
  @Option(help: ArgumentHelp("Packets that are sent: ends when all are accounted for.", valueName: "n"), transform: { try Amount.count($0) })
  var count: UInt64?
  @Option(name: .customLong("run"), help: ArgumentHelp("The run to receive, 0 to 65535 (default: the first one seen).", valueName: "n"))
  var runNumber: UInt16?
  @Option(help: ArgumentHelp("Sequence numbers kept in view.", valueName: "n"))
  var window = 1 << 20
  @OptionGroup var time: DurationArgument
  @OptionGroup var port: PortArguments
  @OptionGroup var memory: MemoryArguments
  @Flag(help: "Print the result as JSON.")
  var json = false

  func validate() throws {
    guard (64...(1 << 30)).contains(window) else { throw ValidationError("--window takes 64 to 1073741824.") }
  }

  func run() throws {
    let session = try PortSession([card.name], memory: memory, port: port, json: json)
    defer { session.close() }
    var options = ReceiverOptions()
    options.expected = count
    options.run = runNumber
    options.window = window
    var work = ReceiveWork(PacketReceiver(session.ports[0], options: options))
    try session.settle(seconds: 2)
    session.note("receiving", "\(session.ports[0].name): receiving")
    var meter = RateMeter()
    let figures = work.figures
    session.onSecond = { seconds in
      let counts = figures.value
      let totals = Totals(packets: counts.packets, bytes: counts.bytes)
      let rate = meter.next(totals, at: seconds)
      session.show(
        "\(Figure.seconds(seconds))  \(rate.text)  \(Figure.grouped(counts.packets)) received, \(Figure.grouped(counts.lost)) lost",
        LiveFigures(totals, rate, seconds, lost: counts.lost))
    }
    _ = try session.run(&work, limit: time.limit)
    session.close()
    let result = ReceiveResult(session.ports[0], work.receiver)
    json ? try printJSON(result) : print(result.text)
  }
}

struct PktgenPair: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pair", abstract: "Send from one card to another and account for every packet.")

  @Argument(help: "The card that sends.")
  var sender: String
  @Argument(help: "The card that receives.")
  var receiver: String
  @OptionGroup var stream: StreamArguments
  @OptionGroup var time: DurationArgument
  @OptionGroup var port: PortArguments
  @OptionGroup var memory: MemoryArguments
  @Flag(help: "Print the result as JSON.")
  var json = false

  func run() throws {
    let session = try PortSession([sender, receiver], memory: memory, port: port, json: json)
    defer { session.close() }
    let ports = session.ports
    let stream = self.stream.stream(from: ports[0], to: ports[1].macAddress)
    var options = ReceiverOptions()
    options.run = stream.run
    options.expected = self.stream.count
    let generator = try PacketGenerator(ports[0], stream: stream, options: self.stream.options)
    var work = PairWork(generator, PacketReceiver(ports[1], options: options))
    try session.settle(seconds: self.stream.linkWait)
    try session.requireLink(waited: self.stream.linkWait)
    session.note("sending", "sending \(self.stream.size)-byte packets from \(ports[0].name) to \(ports[1].name), run \(stream.run)")
    let clock = MonotonicClock()
    let start = clock.now()
    var meter = RateMeter()
    let figures = work.figures
    let sent = work.sentSoFar
    session.onSecond = { seconds in
      let counts = figures.value
      let totals = Totals(packets: counts.packets, bytes: counts.bytes)
      let rate = meter.next(totals, at: seconds)
      session.show(
        "\(Figure.seconds(seconds))  \(rate.text)  \(Figure.grouped(sent.value)) sent, \(Figure.grouped(counts.packets)) received",
        LiveFigures(totals, rate, seconds, lost: counts.lost))
    }
    _ = try session.run(&work, limit: time.limit)
    // What is still on its way arrives before the account is closed.
    let seconds = Double(clock.now() - start) / 1e9
    work.stopSending(now: clock.now())
    _ = try session.run(&work, limit: 10_000_000_000)
    session.close()
    let result = PairResult(
      sent: SendResult(ports[0], work.generator.counts, stream: stream, size: self.stream.size, seconds: seconds),
      received: ReceiveResult(ports[1], work.receiver, expected: work.generator.counts.sent))
    json ? try printJSON(result) : print(result.sent.text + "\n" + result.received.text)
  }
}
