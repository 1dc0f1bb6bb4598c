// How the program ends: the codes of `ringway`, and two lines on standard error.

import ArgumentParser
import Glibc
import ModelKit
import ModelServer
import Platform

/// Exit codes, named after sysexits(3) where it has a name for them.
enum Exit: Int32 {
  case failure = 1
  case usage = 64
  case permission = 77
  case configuration = 78
}

/// Ends the process as `error` asks for; help and version requests end it with 0.
func exitProcess(for error: any Error) -> Never {
  if let server = error as? ModelServerError {
    complain(server.description)
    switch server {
    case .socket(_, _, let errno) where errno == .permissionDenied || errno == .notPermitted: exit(.permission)
    case .inUse, .notASocket, .socket: exit(.configuration)
    case .pathTooLong: exit(.usage)
    case .system: exit(.failure)
    }
  }
  if let wire = error as? WireError {
    complain(wire.description)
    switch wire {
    case .specification: exit(.usage)
    case .system(let failure, _) where failure.errno == .permissionDenied || failure.errno == .notPermitted: exit(.permission)
    default: exit(.configuration)
    }
  }
  let code = RingwayModel.exitCode(for: error)
  if code == .success || error is ExitCode { RingwayModel.exit(withError: error) }
  if code == .validationFailure {
    let text = RingwayModel.fullMessage(for: error)
    complain(text.hasPrefix("Error: ") ? String(text.dropFirst("Error: ".count)) : text)
    exit(.usage)
  }
  complain("\(error)")
  exit(.failure)
}

private func exit(_ code: Exit) -> Never { Glibc.exit(code.rawValue) }

/// What failed on one line, what to do on the next.
private func complain(_ text: String) {
  fflush(nil)
  var lines = text
  // Errors of the libraries say what failed in their first sentence, and what to do in the second.
  if !text.contains("\n"), let end = text.indices.dropLast().first(where: { text[$0] == "." && text[text.index(after: $0)] == " " }) {
    lines = "\(text[..<end])\nhint: \(text[end...].dropFirst(2))"
  }
  let bytes = Array("ringway-model: error: \(lines)\n".utf8)
  // SAFETY: write reads the array's own bytes.
  _ = unsafe bytes.withUnsafeBytes { unsafe write(2, $0.baseAddress, $0.count) }
}
