// ringwayd: the daemon that owns cards, workers and interfaces. ringwayd(8).
//
//     start: read the file ─ open cards, memory ─ workers ─ interfaces, routes ─ control socket ─ drop privileges ─ READY=1
//     run:   signals ─ heartbeats of the workers ─ WATCHDOG=1 while every one answers
//     HUP:   read the file, apply the difference       TERM: no input, empty queues, everything back, exit 0
//
// Invariants
// - A configuration with a mistake changes nothing.
// - Whatever fails at the start takes down what was started, and says what to do.

import ArgumentParser
import CRingway
import Control
import Logging
import Platform
import Ringway

@main struct Daemon: ParsableCommand {
  static let version = "0.1.0"
  static let configuration = CommandConfiguration(
    commandName: "ringwayd", abstract: "Owns network cards, moves their packets, and answers `ringway`.",
    discussion: "Runs in the foreground until SIGTERM. SIGHUP reads the configuration again and applies what is different.",
    version: version)

  @Option(name: .shortAndLong, help: ArgumentHelp("The configuration.", valueName: "file"))
  var config = ConfigurationFile.defaultPath
  @Flag(help: "Look for mistakes in the configuration, and end.")
  var check = false
  @Flag(help: "With --check: print the configuration as JSON.")
  var json = false
  @Flag(name: .customLong("print-default"), help: "Print a configuration with every key and its default, and end.")
  var printDefault = false
  @Option(help: ArgumentHelp("Listen here instead of at control.socket.", valueName: "path"))
  var socket: String?
  @Flag(name: .customLong("no-huge"), help: "Normal pages instead of hugepages, whatever the configuration says.")
  var noHuge = false
  @Option(name: .customLong("log-level"), help: ArgumentHelp("trace, debug, info, notice, warning, error or critical.", valueName: "level"))
  var logLevel: String?

  func validate() throws {
    if let logLevel, !DaemonLog.levels.contains(logLevel) { throw ValidationError("--log-level takes \(DaemonLog.levels.joined(separator: ", ")).") }
    if json, !check { throw ValidationError("--json goes with --check.") }
  }

  /// The configuration with what the command line says in front of it.
  static func load(_ config: String, socket: String?, noHuge: Bool, logLevel: String?) throws -> Configuration {
    var made = try ConfigurationFile.load(config)
    if let socket { made.control.socket = socket }
    if noHuge { made.memory.huge = false }
    if let logLevel { made.log.level = logLevel }
    return made
  }

  func run() throws {
    if printDefault { return print(Configuration.example, terminator: "") }
    // First of all, so that every thread leaves the signals to the loop.
    let signals = try SignalWatcher([SIGTERM, SIGINT, SIGHUP])
    let log = DaemonLog.begin()
    do {
      let wanted = try Self.load(config, socket: socket, noHuge: noHuge, logLevel: logLevel)
      if check {
        if json { print(try ControlCoder.value(wanted).pretty) } else { print("\(config): no mistakes") }
        return
      }
      let (config, socket, noHuge, logLevel) = (config, socket, noHuge, logLevel)
      let daemon = try Lifecycle(wanted, path: config, log: log) { try Self.load(config, socket: socket, noHuge: noHuge, logLevel: logLevel) }
      try daemon.start()
      try daemon.run(signals)
    } catch let error as ConfigurationProblems {
      for problem in error.problems { log.error("\(problem)") }
      throw ExitCode(DaemonExit.configuration.rawValue)
    } catch let error as DaemonFailure {
      log.error("\(error)")
      throw ExitCode(error.exit.rawValue)
    }
  }

  static func main() {
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch {
      // Wrong words are EX_USAGE, as with `ringway`.
      let code = exitCode(for: error)
      guard code == .validationFailure else { exit(withError: error) }
      let text = Array("ringwayd: \(fullMessage(for: error))\n".utf8)
      // SAFETY: the array's own bytes.
      _ = unsafe text.withUnsafeBytes { unsafe write(2, $0.baseAddress, $0.count) }
      CRingway.exit(DaemonExit.usage.rawValue)
    }
  }
}
