// A ringwayd of this build, and cards for it, for as long as a measurement takes.

import Foundation
import Glibc

/// Processes of this build's in a directory of their own; they end with the object.
final class BenchDaemon {
  let socket: String
  private let directory: String
  private var children: [Process] = []

  /// Where this program lies, the others lie too.
  static var binaries: String { (CommandLine.arguments[0] as NSString).deletingLastPathComponent }

  /// What is missing for it; nil when nothing is.
  static var missing: String? {
    ["ringwayd", "ringway-model"].first { !FileManager.default.isExecutableFile(atPath: "\(binaries)/\($0)") }
      .map { "\($0) is not built beside this program: swift build -c release --product \($0)" }
  }

  /// - Parameters:
  ///   - workers: of the daemon.
  ///   - cards: for each its model ("82599") and its wire ("gen:size=60", "null").
  init(workers: Int = 1, cards: [(model: String, wire: String)] = []) throws {
    directory = NSTemporaryDirectory() + "ringway-bench-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    socket = directory + "/netmap.sock"
    var lines = [
      "[control]", "socket = \"\(directory)/control.sock\"", "[netisr]", "workers = \(workers)", "[memory]", "huge = false", "[netmap]",
      "socket = \"\(socket)\"",
    ]
    for (n, card) in cards.enumerated() {
      let path = "\(directory)/card\(n).sock"
      try spawn("ringway-model", [card.model, "--socket", path, "--wire", card.wire])
      try wait(for: path)
      lines += ["[[card]]", "device = \"vfio-user:\(path)\""]
    }
    let configuration = directory + "/ringwayd.toml"
    try (lines.joined(separator: "\n") + "\n").write(toFile: configuration, atomically: true, encoding: .utf8)
    try spawn("ringwayd", ["--config", configuration])
    try wait(for: socket)
  }

  private func spawn(_ name: String, _ arguments: [String]) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "\(Self.binaries)/\(name)")
    process.arguments = arguments
    let log = "\(directory)/\(name).log"
    _ = FileManager.default.createFile(atPath: log, contents: nil)
    process.standardError = FileHandle(forWritingAtPath: log)
    process.standardOutput = FileHandle.nullDevice
    try process.run()
    children.append(process)
  }

  private func wait(for path: String) throws {
    for _ in 0..<400 {
      if FileManager.default.fileExists(atPath: path) { return }
      if let dead = children.first(where: { !$0.isRunning }) { throw BenchError("\(dead.executableURL?.lastPathComponent ?? "a program") ended: \(log(of: dead))") }
      usleep(25_000)
    }
    throw BenchError("nothing listens at \(path) after 10 s")
  }

  private func log(of process: Process) -> String {
    let name = process.executableURL?.lastPathComponent ?? ""
    return (try? String(contentsOfFile: "\(directory)/\(name).log", encoding: .utf8))?.suffix(600).description ?? ""
  }

  deinit {
    for child in children.reversed() where child.isRunning {
      child.terminate()
      child.waitUntilExit()
    }
    try? FileManager.default.removeItem(atPath: directory)
  }
}
