// A lock for what many read in every batch and control changes now and then.

internal import Glibc

/// Readers beside each other, writers alone and before readers that come later: control never waits for a gap in the traffic.
/// Not recursive. pthread's, so that the thread sanitizer follows it.
@safe final class ValeLock: @unchecked Sendable {
  private let lock: UnsafeMutablePointer<pthread_rwlock_t>

  init() {
    unsafe lock = .allocate(capacity: 1)
    unsafe lock.initialize(to: pthread_rwlock_t())
    var attributes = pthread_rwlockattr_t()
    // None of these fails for a valid kind and attributes that are initialised.
    _ = unsafe pthread_rwlockattr_init(&attributes)
    // PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP
    _ = unsafe pthread_rwlockattr_setkind_np(&attributes, 2)
    _ = unsafe pthread_rwlock_init(lock, &attributes)
    _ = unsafe pthread_rwlockattr_destroy(&attributes)
  }

  deinit {
    _ = unsafe pthread_rwlock_destroy(lock)
    unsafe lock.deallocate()
  }

  @inline(__always) func read<R>(_ body: () -> R) -> R {
    // SAFETY: the lock lives as long as this object.
    _ = unsafe pthread_rwlock_rdlock(lock)
    defer { _ = unsafe pthread_rwlock_unlock(lock) }
    return body()
  }

  func write<R>(_ body: () -> R) -> R {
    _ = unsafe pthread_rwlock_wrlock(lock)
    defer { _ = unsafe pthread_rwlock_unlock(lock) }
    return body()
  }
}
