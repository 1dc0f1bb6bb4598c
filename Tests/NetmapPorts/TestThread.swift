import Glibc

/// A thread of a test's own.
final class TestThread: @unchecked Sendable {
  private var thread = pthread_t()
  private let body: @Sendable () -> Void

  init(_ body: @escaping @Sendable () -> Void) {
    self.body = body
    let own = unsafe Unmanaged.passRetained(self).toOpaque()
    // SAFETY: the new thread takes over the reference that was just made.
    _ = unsafe pthread_create(&thread, nil, { argument in
      guard let argument = unsafe argument else { return nil }
      unsafe Unmanaged<TestThread>.fromOpaque(argument).takeRetainedValue().body()
      return nil
    }, own)
  }

  func join() { _ = pthread_join(thread, nil) }
}
