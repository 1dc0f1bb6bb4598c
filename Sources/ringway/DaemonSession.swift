// What the commands that ask the daemon share: where it listens, how its refusals end a command.

import ArgumentParser
import Control
import ControlClient
import Glibc
import Platform
import Ringway

/// `--socket`, `--json`: of every command that talks to ringwayd.
struct DaemonArguments: ParsableArguments {
  @Option(help: ArgumentHelp("The daemon's control socket (default: $RINGWAY_SOCKET or \(Control.defaultPath)).", valueName: "path"))
  var socket: String?
  @Flag(help: "Print JSON.")
  var json = false

  /// Connects, and agrees on a version.
  func connect() throws -> ControlClient { try DaemonSession.connect(socket) }
}

enum DaemonSession {
  static func connect(_ path: String?) throws -> ControlClient {
    try ControlClient(path: path ?? environment("RINGWAY_SOCKET") ?? Control.defaultPath, name: "ringway")
  }

  private static func environment(_ name: String) -> String? {
    // SAFETY: nobody changes the environment of this process.
    guard let value = unsafe getenv(name) else { return nil }
    let text = unsafe String(cString: value)
    return text.isEmpty ? nil : text
  }
}

extension ControlClient {
  /// The next event; nil when `stop` became readable, or when none came within `nanoseconds`.
  func nextEvent(orUntil stop: Int32, within nanoseconds: UInt64 = .max) throws(ControlError) -> ControlEvent? {
    let start = MonotonicClock().now()
    while true {
      if let (_, event) = try nextEvent(milliseconds: 0) { return event }
      let spent = MonotonicClock().now() &- start
      guard spent < nanoseconds else { return nil }
      let left = Int32(min(60_000, (nanoseconds - spent) / 1_000_000 + 1))
      var watched = (pollfd(fd: stop, events: Int16(POLLIN), revents: 0), pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0))
      // SAFETY: two structures in a row, for the length of the call.
      unsafe withUnsafeMutableBytes(of: &watched) { bytes in
        _ = unsafe poll(bytes.baseAddress!.assumingMemoryBound(to: pollfd.self), 2, left)
      }
      if watched.0.revents != 0 { return nil }
    }
  }

  /// Whether `stop` is readable now.
  static func isReadable(_ stop: Int32) -> Bool {
    var watched = pollfd(fd: stop, events: Int16(POLLIN), revents: 0)
    return unsafe poll(&watched, 1, 0) == 1
  }
}

extension ControlError: CommandFailure {
  var exit: Exit {
    switch errno {
    case "EPERM", "EACCES": .permission
    case "ENXIO", "ENODEV": .deviceMissing
    case "ECONNREFUSED", "ECONNRESET": .deviceMissing
    case "ENOENT" where message.contains("no daemon"): .deviceMissing
    default: .failure
    }
  }
}

/// Columns of text: every column as wide as its widest cell.
struct TextTable {
  enum Side { case left, right }
  private var rows: [[String]] = []
  private let sides: [Side]

  /// - Parameter sides: of each column; the last one stays for columns behind it.
  init(_ header: [String], sides: [Side]) {
    rows = [header]
    self.sides = sides
  }

  mutating func append(_ row: [String]) { rows.append(row) }

  var lines: [String] {
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
    return rows.map { row in
      var line = ""
      for (column, cell) in row.enumerated() {
        let space = String(repeating: " ", count: widths[column] - cell.count)
        line += (column > 0 ? "  " : "") + ((sides[min(column, sides.count - 1)] == .left) ? cell + space : space + cell)
      }
      while line.last == " " { line.removeLast() }
      return line
    }
  }
}

extension String {
  /// Filled up with blanks on the right, or on the left.
  func padded(_ width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
  func aligned(_ width: Int) -> String { String(repeating: " ", count: max(0, width - count)) + self }
}
