// `ringway-model`: a network card as a program.
//
//     QEMU, ringway ── vfio-user socket ── ModelServer ── 82599, 82574, virtio-net ── wire ── TAP …
//
// One file for the command, one for what is made (Cards), one for what is told (Reporter).

import ArgumentParser
import Glibc
import ModelKit
import ModelServer
import Platform

@main struct RingwayModel: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ringway-model",
    abstract: "A device model of a network card, served over vfio-user.",
    discussion: """
      Attach it to a driver of this project (ringway pktgen rx vfio-user:SOCKET) or to a virtual machine \
      (QEMU 10.1: -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"SOCKET"}}').

      Wires: null, tap:NAME[,netns=NAME], pcap:FILE[,out=FILE], gen:rate=1M,size=64, pair:NAME; see ringway-model(1).
      """,
    version: "0.1.0")

  @Argument(help: "82599, 82574 or virtio-net; several, or one for all sockets.")
  var models: [CardKind]
  @Option(name: .long, parsing: .singleValue, help: ArgumentHelp("Where drivers connect. Several make several cards.", valueName: "path"))
  var socket: [String] = []
  @Option(name: .long, parsing: .singleValue, help: ArgumentHelp("What the cable leads to (default: null).", valueName: "wire"))
  var wire: [String] = []
  @Option(name: .long, parsing: .singleValue, help: ArgumentHelp("What goes wrong on every wire: drop=5,7, tx.corrupt=every:10.", valueName: "fault"))
  var wireFault: [String] = []
  @Option(name: .long, parsing: .singleValue, help: ArgumentHelp("The card's address, once for each card.", valueName: "address"))
  var mac: [String] = []
  @Option(help: ArgumentHelp("Queue pairs of a virtio-net card: 1 to 64.", valueName: "count"))
  var queues = 4
  @Option(help: "How drivers reach the card: shared (doorbells are memory) or trapped (every access is a message).")
  var mode = Mode.shared
  @Flag(help: "The same as --mode trapped.")
  var trapped = false
  @Option(help: ArgumentHelp("For faults by chance; a gen: wire has a seed of its own.", valueName: "number"))
  var seed: UInt64 = 1
  @Option(help: ArgumentHelp("Trapped mode: nanoseconds of virtual time for each access.", valueName: "ns"))
  var accessTime: UInt64 = 1000
  @Option(help: ArgumentHelp("Shared mode: how long the card sleeps at most between looks at its doorbells.", valueName: "us"))
  var longestSleep: UInt64 = 1000
  @Option(help: ArgumentHelp("Seconds between lines of figures; 0 for none.", valueName: "seconds"))
  var statsInterval = 0.0
  @Flag(help: "Tell what happens as JSON, one object a line.")
  var json = false
  @Flag(help: "Start with the cable pulled out; SIGUSR1 plugs it in and out.")
  var linkDown = false

  enum Mode: String, ExpressibleByArgument, CaseIterable { case shared, trapped }

  func validate() throws {
    guard !socket.isEmpty else { throw ValidationError("Say where drivers connect: --socket PATH.") }
    guard models.count == 1 || models.count == socket.count else {
      throw ValidationError("Name one model, or one for each of the \(socket.count) sockets.")
    }
    guard wire.count <= 1 || wire.count == socket.count else {
      throw ValidationError("Name one wire for each of the \(socket.count) sockets.")
    }
    guard mac.count <= socket.count else { throw ValidationError("Name one address for each of the \(socket.count) sockets.") }
    guard Set(socket).count == socket.count else { throw ValidationError("Each card needs a socket of its own.") }
    guard (1...64).contains(queues) else { throw ValidationError("--queues takes 1 to 64.") }
    guard (1...1_000_000).contains(longestSleep) else { throw ValidationError("--longest-sleep takes 1 to 1000000 microseconds.") }
    guard accessTime <= 1_000_000_000 else { throw ValidationError("--access-time takes at most 1000000000 nanoseconds.") }
    guard statsInterval >= 0, statsInterval <= 86400 else { throw ValidationError("--stats-interval takes 0 to 86400 seconds.") }
  }

  static func main() {
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch {
      exitProcess(for: error)
    }
  }

  func run() throws {
    signal(SIGPIPE, SIG_IGN)
    let signals = try SignalWatcher(SignalWatcher.ending + [SIGUSR1])
    let reporter = Reporter(json: json)
    let cards = try Cards(self, reporter)
    defer { cards.close() }
    var loop = ServerLoop(cards.servers)
    loop.longestSleep = longestSleep * 1000
    let end = MonotonicClock()
    let started = end.now()
    var nextFigures = statsInterval
    while true {
      try loop.run(until: signals.descriptor, interval: 250_000_000) {
        cards.watchLinks()
        let seconds = Double(end.now() - started) / 1e9
        if statsInterval > 0, seconds >= nextFigures {
          nextFigures += statsInterval
          cards.showFigures(seconds)
        }
        return true
      }
      guard signals.next() == SIGUSR1 else { return cards.finish(seconds: Double(end.now() - started) / 1e9) }
      cards.toggleLinks()
    }
  }
}
