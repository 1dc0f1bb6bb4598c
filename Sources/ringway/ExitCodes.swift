// How a command ends: one exit code for each kind of failure, two lines on standard error.
//
//     ringway: error: 0000:03:00.0 carries the default route by eth0
//     hint: move the route elsewhere, or add --force
//
// Libraries throw typed errors and know nothing of exit codes. A command's file gives each error
// type that it can meet a code, by an extension to `CommandFailure`; everything else ends with 1.

import ArgumentParser
import Glibc

/// Exit codes, named after sysexits(3) where it has a name for them.
enum Exit: Int32 {
  case ok = 0
  case failure = 1
  /// EX_USAGE: the arguments make no sense.
  case usage = 64
  /// EX_UNAVAILABLE: no such device, or it is gone.
  case deviceMissing = 69
  /// EX_NOPERM: the caller may not.
  case permission = 77
  /// EX_CONFIG: the machine is not set up for it.
  case configuration = 78

  /// What an errno means for the person at the terminal.
  init(errno: Int32) {
    switch errno {
    case EPERM, EACCES: self = .permission
    case ENODEV, ENXIO: self = .deviceMissing
    default: self = .failure
    }
  }
}

/// An error that knows how the command should end.
protocol CommandFailure: Error {
  var exit: Exit { get }
  /// What failed, on what.
  var problem: String { get }
  /// What to do next.
  var hint: String? { get }
}

extension CommandFailure {
  var problem: String { Sentences(of: self).first }
  var hint: String? { Sentences(of: self).rest }
}

/// A failure that a command finds by itself.
struct Failure: CommandFailure, CustomStringConvertible {
  var exit: Exit
  var problem: String
  var hint: String?

  init(_ exit: Exit, _ problem: String, hint: String? = nil) {
    self.exit = exit
    self.problem = problem
    self.hint = hint
  }

  var description: String { hint.map { "\(problem). \($0)" } ?? problem }
}

/// A library error's description says what failed in its first sentence, and what to do after it.
struct Sentences {
  let first: String
  let rest: String?

  init(of error: any Error) {
    let text = Array(String(describing: error))
    guard
      let end = text.indices.dropLast(2).first(where: { index in
        (text[index] == "." || text[index] == "?") && text[index + 1] == " "
          && (text[index + 2].isUppercase || text[index + 2] == "`")
      })
    else {
      first = String(text)
      rest = nil
      return
    }
    first = String(text[...end])
    rest = String(text[(end + 2)...])
  }
}

/// Ends the process as `error` asks for; help and version requests end it with 0.
func exitProcess(for error: any Error) -> Never {
  if let failure = error as? any CommandFailure {
    complain(failure.problem, hint: failure.hint)
    Glibc.exit(failure.exit.rawValue)
  }
  let code = RingwayCommand.exitCode(for: error)
  if code == .success || error is ExitCode { RingwayCommand.exit(withError: error) }
  if code == .validationFailure {
    // The parser's own text: the message, then usage lines.
    var lines = RingwayCommand.fullMessage(for: error).split(separator: "\n", omittingEmptySubsequences: false)
    let first = lines.removeFirst()
    let message = first.hasPrefix("Error: ") ? first.dropFirst("Error: ".count) : first
    complain(String(message), hint: lines.isEmpty ? nil : lines.joined(separator: "\n"))
    Glibc.exit(Exit.usage.rawValue)
  }
  let sentences = Sentences(of: error)
  complain(sentences.first, hint: sentences.rest)
  Glibc.exit(Exit.failure.rawValue)
}

/// One line that says what failed, and one that says what to do.
func complain(_ problem: String, hint: String? = nil) {
  printError("ringway: error: \(problem.hasSuffix(".") ? String(problem.dropLast()) : problem)")
  if let hint { printError("hint: \(hint)") }
}

/// Something worth knowing that did not keep the command from its end.
func warn(_ text: String) { printError("ringway: warning: \(text)") }

/// Writes a line to standard error, after what was printed before.
func printError(_ line: String) {
  fflush(nil)
  let bytes = Array((line + "\n").utf8)
  var done = 0
  while done < bytes.count {
    // SAFETY: write reads at most the bytes left in the buffer.
    let count = unsafe bytes.withUnsafeBytes { buffer in
      unsafe write(2, buffer.baseAddress! + done, bytes.count - done)
    }
    if count <= 0 { return }
    done += count
  }
}
