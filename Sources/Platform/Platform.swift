// Platform: the operating system, as the rest of the house wants it.
//
//     OwnedDescriptor ─┬─ EventFD     wake-ups: interrupts, select, "stop"
//                      ├─ TimerFD     a rate or a deadline as a readable descriptor
//                      ├─ SignalWatcher   Ctrl-C as a readable descriptor
//                      └─ Epoll       waits for all of them
//     Files, MonotonicClock, CPUList, Thread pinning
//
// Invariants
// - A descriptor has one owner, a noncopyable value that closes it. Whoever needs only to name it
//   gets the number, and does not close it.
// - Descriptors are made close-on-exec, and eventfds, timers and signalfds never block: a read
//   that finds nothing says so.
// - A failed call is a `SystemError`: what was tried, on what, and the errno. An interrupted call
//   (EINTR) is repeated and never seen.

internal import CRingway
public import SystemPackage

/// A call to the operating system that failed.
public struct SystemError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What was tried, as a verb: "open", "read".
  public var operation: String
  /// On what: a path, or a description of the descriptor. May be empty.
  public var subject: String
  public var errno: Errno

  public init(_ operation: String, _ subject: String, _ errno: Errno) {
    self.operation = operation
    self.subject = subject
    self.errno = errno
  }

  /// "open /dev/vfio/12: Permission denied"
  public var description: String {
    subject.isEmpty ? "\(operation): \(errno)" : "\(operation) \(subject): \(errno)"
  }
}

/// The calling thread's errno.
func lastErrno() -> Errno { Errno(rawValue: rw_errno()) }

/// Makes a call that answers -1 with errno on failure; repeats it while it is interrupted.
func call<Result: SignedInteger>(
  _ operation: String, _ subject: @autoclosure () -> String = "", _ body: () -> Result
) throws(SystemError) -> Result {
  while true {
    let result = body()
    if result >= 0 { return result }
    let errno = lastErrno()
    if errno != .interrupted { throw SystemError(operation, subject(), errno) }
  }
}
