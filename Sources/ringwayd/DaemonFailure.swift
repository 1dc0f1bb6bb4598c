// How the daemon ends when it cannot go on: an exit code of sysexits(3), a problem, a hint.

import CRingway
import Control
import Ringway

/// Exit codes, as those of `ringway`.
enum DaemonExit: Int32 {
  case ok = 0
  case failure = 1
  /// EX_USAGE
  case usage = 64
  /// EX_UNAVAILABLE: a card that the configuration names is missing.
  case deviceMissing = 69
  /// EX_TEMPFAIL: another daemon serves the socket.
  case busy = 75
  /// EX_NOPERM
  case permission = 77
  /// EX_CONFIG
  case configuration = 78
}

struct DaemonFailure: Error, CustomStringConvertible {
  var exit: DaemonExit
  var problem: String
  var hint: String?
  init(_ exit: DaemonExit, _ problem: String, hint: String?) {
    (self.exit, self.problem, self.hint) = (exit, problem, hint)
  }
  var description: String { hint.map { "\(problem) \($0)" } ?? problem }

  init(_ error: ControlError) {
    let exit: DaemonExit = switch error.errno {
    case "EADDRINUSE": .busy
    case "EPERM", "EACCES": .permission
    case "ENODEV", "ENXIO": .deviceMissing
    default: .failure
    }
    self.init(exit, error.message, hint: nil)
  }
}
