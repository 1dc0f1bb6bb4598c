// What a command does around its loop: opens the cards, tells of links, ends in order on Ctrl-C.
//
// Standard output belongs to the result. Everything that is said on the way goes to standard error:
// lines for people, or with --json one JSON object a line.

import DriverKit
import Glibc
import Platform
import Ringway

/// Cards that are open, and the person in front of them.
final class PortSession: LoopObserver {
  let ports: [Port]
  let json: Bool
  private let signals: SignalWatcher
  private let mode: WaitMode
  private let live: LiveLine
  private var links: [LinkState?]
  /// What the loop costs; nil before `run`.
  private(set) var cost: LoopFigures?
  /// Called about once a second; `seconds` since the loop's start.
  var onSecond: ((_ seconds: Double) -> Void)?
  /// Called after every change of a link.
  var onLink: (() -> Void)?

  init(_ addresses: [String], memory: MemoryArguments, port: PortArguments, json: Bool) throws {
    self.json = json
    mode = port.wait
    live = LiveLine(json: json)
    // A reader that leaves is an error to be told, not a signal that leaves a card running.
    signal(SIGPIPE, SIG_IGN)
    signals = try SignalWatcher()
    ports = try Port.open(addresses, options: port.options, memoryOptions: memory.options(for: addresses.count, port.options))
    links = ports.map { _ in nil }
    if let shortage = ports.first?.memory.shortage { note("warning", shortage) }
  }

  /// Waits a moment for links, and tells the state of each.
  /// - Parameter seconds: the longest wait, for all together.
  func settle(seconds: Double) throws {
    let end = MonotonicClock().now() + UInt64(seconds * 1e9)
    for port in ports {
      let now = MonotonicClock().now()
      do throws(RingwayError) { try port.waitForLink(seconds: now < end ? Double(end - now) / 1e9 : 0) } catch {
        guard case .noLink = error else { throw error }
      }
    }
    for index in ports.indices { reportLink(index) }
  }

  /// Every card has a link, or cannot tell.
  var isLinked: Bool { ports.allSatisfy { $0.link.status != .down } }

  /// Throws when a card has no link.
  func requireLink(waited seconds: Double) throws {
    for port in ports where port.link.status == .down { throw RingwayError.noLink(card: port.name, seconds: seconds) }
  }

  /// Runs work until it is done, the time is over, or Ctrl-C.
  func run<Work: PortWork & ~Copyable>(_ work: inout Work, limit: UInt64? = nil) throws -> LoopEnd {
    let loop = try PortLoop(ports, mode: mode, stop: [signals.descriptor])
    cost = loop.figures
    defer { live.finish() }
    let end = try loop.run(&work, limit: limit, observer: self)
    if end == .stopped { _ = signals.next() }
    return end
  }

  /// Lets the cards send what they have, at most a second; a further Ctrl-C cuts it short.
  func close() {
    var waits = 0
    while waits < 20, !Port.drain(ports, within: 50_000), signals.next() == nil { waits += 1 }
    for port in ports { port.close() }
  }

  // MARK: LoopObserver

  func loopSaw(_ events: PortEvents, on port: Port) {
    guard let index = ports.firstIndex(where: { $0 === port }) else { return }
    if events.contains(.reset) { note("reset", "\(port.name): the card was reset") }
    if events.contains(.link) { reportLink(index) }
  }

  func loopTick(elapsed: UInt64) {
    // A driver that sees the link by polling alone says so nowhere else.
    for index in ports.indices where ports[index].isOpen { reportLink(index) }
    onSecond?(Double(elapsed) / 1e9)
  }

  private func reportLink(_ index: Int) {
    let link = ports[index].link
    if link == links[index] { return }
    let statusChanged = link.status != links[index]?.status
    links[index] = link
    if !statusChanged { return }
    if json {
      live.event(LinkEvent(event: "link", device: ports[index].name, link: link.status.rawValue, speed: link.speed))
    } else {
      live.line("\(ports[index].name): link \(Self.describe(link))")
    }
    onLink?()
  }

  static func describe(_ link: LinkState) -> String {
    guard link.status == .up, link.speed > 0 else { return link.status.rawValue }
    return "up, \(link.speed) Mb/s\(link.fullDuplex ? "" : " half duplex")"
  }

  // MARK: Saying

  /// A line for a person, or an event with `text`.
  func note(_ event: String, _ text: String) {
    if json { live.event(TextEvent(event: event, text: text)) } else { live.line(text) }
  }

  /// The figures of this second: a line that is refreshed on a terminal, or a JSON object.
  func show(_ text: @autoclosure () -> String, _ object: @autoclosure () -> some Encodable) {
    if json { live.event(object()) } else { live.refresh(text()) }
  }

  /// The same with a table for a person.
  func show(lines: @autoclosure () -> [String], _ object: @autoclosure () -> some Encodable) {
    if json { live.event(object()) } else { live.refresh(lines: lines()) }
  }
}

private struct LinkEvent: Encodable {
  let event: String
  let device: String
  let link: String
  let speed: Int
}

private struct TextEvent: Encodable {
  let event: String
  let text: String
}

/// Standard error: lines, and one line or a table that is written over on a terminal.
final class LiveLine {
  private let terminal: Bool
  private var isRefreshing = false
  /// Lines of the table that stands above the cursor.
  private var drawn = 0

  init(json: Bool) { terminal = !json && isatty(2) == 1 }

  func line(_ text: String) {
    finish()
    printError(text)
  }

  func refresh(_ text: String) {
    guard terminal else { return printError(text) }
    put("\r\u{1b}[K\(text)")
    isRefreshing = true
  }

  func refresh(lines: [String]) {
    guard terminal else { return printError(lines.joined(separator: "\n")) }
    // Up to the last table, over each of its lines, and over what a longer one left.
    put((drawn > 0 ? "\u{1b}[\(drawn)A" : "") + lines.map { "\r\u{1b}[K\($0)\n" }.joined() + "\u{1b}[J")
    drawn = lines.count
  }

  private func put(_ text: String) {
    let bytes = Array(text.utf8)
    // SAFETY: write reads the array's own bytes.
    _ = unsafe bytes.withUnsafeBytes { unsafe write(2, $0.baseAddress!, $0.count) }
  }

  func event(_ value: some Encodable) { printError(jsonLine(value)) }

  /// Leaves the refreshed line standing.
  func finish() {
    if isRefreshing { printError("") }
    isRefreshing = false
    drawn = 0
  }
}

extension RingwayError: CommandFailure {
  var exit: Exit {
    switch category {
    case .usage: .usage
    case .deviceMissing: .deviceMissing
    case .permission: .permission
    case .configuration: .configuration
    case .other: .failure
    }
  }

  /// What the error itself advises, or where to look.
  var hint: String? {
    if let advice = Sentences(of: self).rest { return advice }
    return switch category {
    case .usage: "See the command's --help for what it takes."
    case .deviceMissing: "`ringway devices` lists the cards that are there."
    case .permission, .configuration, .other: "Run `ringway doctor` to examine the machine."
    }
  }
}

extension SystemError: CommandFailure { var exit: Exit { Exit(errno: errno.rawValue) } }
