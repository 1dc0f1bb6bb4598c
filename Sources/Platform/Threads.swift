// Threads: workers that stay on their processor.

internal import CRingway
internal import SystemPackage

/// The calling thread.
public enum CurrentThread {
  /// Keeps the calling thread on one processor (sched_setaffinity(2)).
  /// - Parameter cpu: 0 to 1023.
  public static func pin(to cpu: Int) throws(SystemError) {
    guard let number = UInt32(exactly: cpu) else { throw SystemError("pin", "thread to CPU \(cpu)", .invalidArgument) }
    _ = try call("pin", "thread to CPU \(cpu)") { rw_pin_thread(number) }
  }

  /// Names the calling thread for `top -H` and debuggers; cut to the kernel's 15 bytes.
  public static func name(_ name: String) {
    let short = String(decoding: name.utf8.prefix(15), as: UTF8.self)
    // SAFETY: a null-terminated string for the length of the call.
    _ = unsafe rw_name_thread(short)
  }
}

/// A thread with an owner, who waits for its end by `join` or by going out of scope.
public struct JoinedThread: ~Copyable {
  private let thread: pthread_t

  /// The body, as one reference that a C thread can be handed.
  private final class Job: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }

  /// Starts a thread.
  /// - Parameters:
  ///   - name: for `top -H`; cut to 15 bytes.
  ///   - cpu: the one processor it runs on; nil leaves it where the kernel puts it. One that the
  ///     thread may not run on is an error here, before anything is started.
  ///   - body: must end before the owner can.
  public init(name: String, cpu: Int? = nil, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
    if let cpu, try !CPUList.allowed().cpus.contains(cpu) {
      throw SystemError("pin", "thread to CPU \(cpu)", .invalidArgument)
    }
    let job = Job {
      CurrentThread.name(name)
      // Allowed a moment ago; a processor switched off since leaves the thread unpinned.
      if let cpu { try? CurrentThread.pin(to: cpu) }
      body()
    }
    var thread = pthread_t()
    let reference = unsafe Unmanaged.passRetained(job)
    // SAFETY: the new thread takes over the one reference that is passed to it.
    let refused = unsafe pthread_create(
      &thread, nil,
      { argument in
        unsafe Unmanaged<Job>.fromOpaque(argument!).takeRetainedValue().body()
        return nil
      }, reference.toOpaque())
    if refused != 0 {
      unsafe reference.release()
      throw SystemError("start", "thread \(name)", Errno(rawValue: refused))
    }
    self.thread = thread
  }

  /// Waits for the body's end.
  public consuming func join() {}

  deinit { _ = pthread_join(thread, nil) }
}
