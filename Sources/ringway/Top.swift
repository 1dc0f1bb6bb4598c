// `ringway top`: the daemon, live.

import ArgumentParser
import Control
import Glibc
import Platform
import Ringway

struct Top: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show live what workers, interfaces, queues and protocols do, and what is dropped and why.",
    discussion: """
      Keys: p or space pauses, the arrow keys step through the last ten minutes, q ends. Without a terminal every look \
      is printed once.
      """)

  @Option(name: [.customShort("s"), .long], help: ArgumentHelp("Seconds between two looks (default 1).", valueName: "seconds"))
  var interval = 1.0
  @Option(name: [.customShort("c"), .long], help: ArgumentHelp("Ends after so many looks.", valueName: "n"))
  var count: Int?
  @OptionGroup var daemon: DaemonArguments

  func validate() throws {
    guard interval >= 0.1, interval <= 3600 else { throw ValidationError("--interval takes 0.1 to 3600 seconds.") }
    if let count, count < 1 { throw ValidationError("--count takes 1 and more.") }
  }

  func run() throws {
    let client = try daemon.connect()
    let signals = try SignalWatcher()
    let isLive = !daemon.json && isatty(1) == 1 && isatty(0) == 1
    let terminal = isLive ? RawTerminal() : nil
    defer { terminal?.restore() }
    var history = TopHistory()
    history.add(try client.call(TopSample()))
    var looks = 0
    var next = MonotonicClock().now() + UInt64(interval * 1e9)
    while looks < count ?? .max {
      if isLive { terminal?.draw(TopText.lines(history, title: title)) }
      guard wait(until: next, signals: signals, keys: isLive, history: &history) else { return }
      guard MonotonicClock().now() >= next else { continue }
      next += UInt64(interval * 1e9)
      history.add(try client.call(TopSample()))
      looks += 1
      if daemon.json, let rates = history.shown { print(jsonLine(rates)) } else if !isLive {
        print(TopText.lines(history, title: title).joined(separator: "\n") + "\n")
      }
      fflush(nil)
    }
  }

  private var title: String { "ringwayd, every \(interval == interval.rounded() ? String(Int(interval)) : String(interval)) s" }

  /// Until the time is there or a key was pressed. Returns false to end.
  private func wait(until: UInt64, signals: borrowing SignalWatcher, keys: Bool, history: inout TopHistory) -> Bool {
    let now = MonotonicClock().now()
    let left = until > now ? Int32(min(3_600_000, (until - now) / 1_000_000 + 1)) : 0
    var watched = (pollfd(fd: signals.descriptor, events: Int16(POLLIN), revents: 0), pollfd(fd: keys ? 0 : -1, events: Int16(POLLIN), revents: 0))
    // SAFETY: two structures in a row, for the length of the call.
    unsafe withUnsafeMutableBytes(of: &watched) { bytes in
      _ = unsafe poll(bytes.baseAddress!.assumingMemoryBound(to: pollfd.self), 2, left)
    }
    if watched.0.revents != 0 { return false }
    guard keys, watched.1.revents != 0 else { return true }
    var buffer: (UInt8, UInt8, UInt8, UInt8) = (0, 0, 0, 0)
    // SAFETY: four bytes of a local variable.
    let n = unsafe withUnsafeMutableBytes(of: &buffer) { unsafe read(0, $0.baseAddress!, 4) }
    switch (n, buffer.0, buffer.2) {
    case (...0, _, _), (_, UInt8(ascii: "q"), _), (_, 3, _): return false
    case (_, UInt8(ascii: "p"), _), (_, UInt8(ascii: " "), _): history.togglePause()
    case (3, 27, UInt8(ascii: "D")): history.step(1)
    case (3, 27, UInt8(ascii: "C")): history.step(-1)
    case (3, 27, UInt8(ascii: "A")): history.step(10)
    case (3, 27, UInt8(ascii: "B")): history.step(-10)
    default: break
    }
    return true
  }
}

/// A terminal that gives keys at once and shows one screen.
final class RawTerminal {
  private var before = termios()
  private var isRaw = false

  init() {
    // SAFETY: local structures; a terminal that refuses stays as it is.
    guard unsafe tcgetattr(0, &before) == 0 else { return }
    var raw = before
    raw.c_lflag &= ~UInt32(ICANON | ECHO)
    isRaw = unsafe tcsetattr(0, TCSANOW, &raw) == 0
    // The other screen, without a cursor.
    print("\u{1b}[?1049h\u{1b}[?25l", terminator: "")
    fflush(nil)
  }

  func restore() {
    print("\u{1b}[?25h\u{1b}[?1049l", terminator: "")
    fflush(nil)
    if isRaw { _ = unsafe tcsetattr(0, TCSANOW, &before) }
    isRaw = false
  }

  func draw(_ lines: [String]) {
    var size = winsize()
    // SAFETY: a local structure.
    let known = unsafe ioctl(1, UInt(TIOCGWINSZ), &size) == 0 && size.ws_row > 0
    let height = known ? Int(size.ws_row) : 24, width = known && size.ws_col > 0 ? Int(size.ws_col) : 80
    let cut = lines.prefix(height - 1).map { String($0.prefix(width)) + "\u{1b}[K" }
    print("\u{1b}[H" + cut.joined(separator: "\r\n") + "\u{1b}[J", terminator: "")
    fflush(nil)
  }
}
