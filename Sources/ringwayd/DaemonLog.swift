// The daemon's log: standard error; with <N> in front when the journal reads it (sd-daemon(3), JOURNAL_STREAM).

import Glibc
import Logging
import Synchronization

/// The level is the process's: it changes while the daemon runs, for every logger there is.
enum DaemonLog {
  static let levels = Logger.Level.allCases.map(\.rawValue)
  private static let level = Mutex(Logger.Level.info)

  static var current: Logger.Level {
    get { level.withLock { $0 } }
    set { level.withLock { $0 = newValue } }
  }

  /// Once, at the start.
  static func begin(_ label: String = "ringwayd") -> Logger {
    // The journal's stream is named by device and inode; any other standard error gets plain lines.
    var found = stat()
    // SAFETY: a local structure.
    let isThere = unsafe fstat(2, &found) == 0
    let stream = unsafe getenv("JOURNAL_STREAM").map { unsafe String(cString: $0) }
    let isJournal = isThere && stream == "\(found.st_dev):\(found.st_ino)"
    LoggingSystem.bootstrap { _ in LineHandler(isJournal: isJournal) }
    return Logger(label: label)
  }

  /// syslog(3)'s numbers.
  static func priority(_ level: Logger.Level) -> Int {
    switch level {
    case .critical: 2
    case .error: 3
    case .warning: 4
    case .notice: 5
    case .info: 6
    case .debug, .trace: 7
    }
  }

  /// Control characters would let a name from outside forge lines.
  static func line(_ level: Logger.Level, _ message: String, isJournal: Bool) -> String {
    let safe = String(String.UnicodeScalarView(message.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f ? "?" : $0 }))
    return isJournal ? "<\(priority(level))>\(safe)\n" : "ringwayd: \(level == .info ? "" : "\(level): ")\(safe)\n"
  }
}

private struct LineHandler: LogHandler {
  let isJournal: Bool
  var metadata: Logger.Metadata = [:]
  var logLevel: Logger.Level {
    get { DaemonLog.current }
    set { DaemonLog.current = newValue }
  }
  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    let bytes = Array(DaemonLog.line(event.level, "\(event.message)", isJournal: isJournal).utf8)
    // One write a line: lines of several threads do not mix. SAFETY: the array's own bytes.
    _ = unsafe bytes.withUnsafeBytes { unsafe write(2, $0.baseAddress, $0.count) }
  }
}
