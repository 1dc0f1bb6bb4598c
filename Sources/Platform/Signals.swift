// Signals as a readable descriptor.

internal import CRingway
internal import SystemPackage

/// Watches signals (signalfd(2)) instead of handling them: Ctrl-C is one more event of the loop.
///
/// The signals stay blocked in the thread that made the watcher and in the threads it starts
/// afterwards, so make it first thing in `main`. They stay blocked when the watcher goes: a signal
/// that is still pending then must not kill a program which is just ending cleanly.
public struct SignalWatcher: ~Copyable, Sendable {
  private let owned: OwnedDescriptor
  /// Readable while a watched signal is pending.
  public var descriptor: Int32 { owned.raw }

  /// SIGINT (Ctrl-C) and SIGTERM: what ends a program.
  public static let ending: [Int32] = [SIGINT, SIGTERM]

  public init(_ signals: [Int32] = SignalWatcher.ending) throws(SystemError) {
    var set = sigset_t()
    // SAFETY: a local set, initialised by sigemptyset.
    unsafe sigemptyset(&set)
    for signal in signals where unsafe sigaddset(&set, signal) != 0 {
      throw SystemError("watch", "signal \(signal)", lastErrno())
    }
    // pthread_sigmask answers with the error itself, not by errno.
    let refused = unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
    if refused != 0 { throw SystemError("block", "signals \(signals)", Errno(rawValue: refused)) }
    owned = OwnedDescriptor(
      taking: try call("create", "signalfd") {
        unsafe signalfd(-1, &set, Int32(SFD_CLOEXEC | SFD_NONBLOCK))
      })
  }

  /// The next pending signal, or nil.
  public func next() -> Int32? {
    var info = signalfd_siginfo()
    let size = MemoryLayout<signalfd_siginfo>.size
    // SAFETY: a local variable of exactly the size the kernel writes.
    return unsafe read(owned.raw, &info, size) == size ? Int32(info.ssi_signo) : nil
  }
}
