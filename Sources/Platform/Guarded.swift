// A value behind a lock.
//
// The lock is pthread's. The thread sanitizer follows it also when threads wait for one another, which it cannot for
// `Mutex`: the waiting half of that lies in a library that is not instrumented, and each contended hand-over would be
// reported as a race. What is shared by several workers is therefore `Guarded`.

public import Glibc

/// A value that one thread at a time sees.
@safe public final class Guarded<Value: ~Copyable>: @unchecked Sendable {
  @usableFromInline let mutex: UnsafeMutablePointer<pthread_mutex_t>
  @usableFromInline let value: UnsafeMutablePointer<Value>

  @inlinable public init(_ value: consuming Value) {
    unsafe mutex = .allocate(capacity: 1)
    unsafe mutex.initialize(to: pthread_mutex_t())
    // Fails only for attributes, and there are none.
    _ = unsafe pthread_mutex_init(mutex, nil)
    unsafe self.value = .allocate(capacity: 1)
    unsafe self.value.initialize(to: value)
  }

  @inlinable deinit {
    _ = unsafe pthread_mutex_destroy(mutex)
    unsafe mutex.deallocate()
    unsafe value.deinitialize(count: 1)
    unsafe value.deallocate()
  }

  /// Lends the value to `body`. Not recursive: a body that comes back here waits for ever.
  @inlinable public func withLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout Value) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // SAFETY: both live as long as this object; the lock makes this the only access to the value.
    _ = unsafe pthread_mutex_lock(mutex)
    defer { _ = unsafe pthread_mutex_unlock(mutex) }
    return try unsafe body(&value.pointee)
  }
}
