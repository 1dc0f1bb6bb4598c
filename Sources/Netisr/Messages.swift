// Messages to workers: a lane that any thread pushes to and one worker takes from.
//
//     post, send ──CAS──> newest ─> … ─> oldest      one exchange takes all of them; turned round,
//                                                    they run in the order in which they were sent
//
// Pushing is lock-free. A kick brings its node with it, so sending one allocates nothing.

internal import Glibc
internal import Synchronization

/// One message. `next` belongs to the lane that the node is in.
@safe final class MessageNode: @unchecked Sendable {
  let body: @Sendable () -> Void
  let isKick: Bool
  /// Of a kick: it is in some lane.
  let queued = Atomic(false)
  var next: UnsafeMutableRawPointer?

  init(isKick: Bool = false, _ body: @escaping @Sendable () -> Void) {
    self.isKick = isKick
    self.body = body
    unsafe next = nil
  }

  func run() {
    // Before the body, so that what happens from here on can send it again.
    if isKick { queued.store(false, ordering: .sequentiallyConsistent) }
    body()
  }
}

/// A message that exists once: at most one of it is on its way.
public final class KickMessage: Sendable {
  let node: MessageNode
  public init(_ body: @escaping @Sendable () -> Void) { node = MessageNode(isKick: true, body) }
  public var isQueued: Bool { node.queued.load(ordering: .acquiring) }
}

/// Messages of one worker, as any thread sees them.
@safe struct MessageLane: ~Copyable {
  /// The newest; each node in the lane is retained once.
  private let newest = unsafe Atomic<UnsafeMutableRawPointer?>(nil)

  /// Any thread.
  func push(_ node: MessageNode) {
    let raw = unsafe Unmanaged.passRetained(node).toOpaque()
    // SAFETY: the node is in no lane, so its link is this thread's until the exchange publishes it.
    var old = unsafe newest.load(ordering: .relaxed)
    while true {
      unsafe node.next = unsafe old
      let tried = unsafe newest.weakCompareExchange(
        expected: old, desired: raw, successOrdering: .acquiringAndReleasing, failureOrdering: .relaxed)
      if unsafe tried.exchanged { return }
      unsafe old = unsafe tried.original
    }
  }

  var isEmpty: Bool { unsafe newest.load(ordering: .sequentiallyConsistent) == nil }

  /// Takes everything out, oldest first.
  func takeAll() -> MessageInbox {
    if isEmpty { return MessageInbox() }
    var at = unsafe newest.exchange(nil, ordering: .acquiringAndReleasing)
    var list: UnsafeMutableRawPointer?
    while let raw = unsafe at {
      // SAFETY: the lane holds a reference to each node that was in it; they go over to the inbox.
      let node = unsafe Unmanaged<MessageNode>.fromOpaque(raw).takeUnretainedValue()
      unsafe at = unsafe node.next
      unsafe node.next = unsafe list
      unsafe list = unsafe raw
    }
    return unsafe MessageInbox(list)
  }

  deinit { _ = takeAll() }
}

/// Messages that were taken out of a lane and have not run, oldest first. The worker's own.
@safe struct MessageInbox: ~Copyable {
  private var first: UnsafeMutableRawPointer?

  init() { unsafe first = nil }
  fileprivate init(_ first: UnsafeMutableRawPointer?) { unsafe self.first = unsafe first }

  var isEmpty: Bool { unsafe first == nil }

  mutating func pop() -> MessageNode? {
    guard let raw = unsafe first else { return nil }
    // SAFETY: the inbox's reference goes over to the caller.
    let node = unsafe Unmanaged<MessageNode>.fromOpaque(raw).takeRetainedValue()
    unsafe first = unsafe node.next
    unsafe node.next = nil
    return node
  }

  deinit {
    var at = unsafe first
    while let raw = unsafe at {
      // SAFETY: as in `pop`.
      let node = unsafe Unmanaged<MessageNode>.fromOpaque(raw).takeRetainedValue()
      unsafe at = unsafe node.next
      unsafe node.next = nil
    }
  }
}

/// Where a message that is waited for leaves its result (sem_overview(7)).
@safe final class Completion<Value: Sendable>: @unchecked Sendable {
  private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
  // Written before the semaphore is raised, read after it was taken.
  private var value: Value?

  init() {
    unsafe semaphore.initialize(to: sem_t())
    _ = unsafe sem_init(semaphore, 0, 0)
  }

  deinit {
    _ = unsafe sem_destroy(semaphore)
    unsafe semaphore.deallocate()
  }

  func complete(_ value: Value) {
    self.value = value
    _ = unsafe sem_post(semaphore)
  }

  /// Sleeps until `complete`. Once.
  func wait() -> Value {
    while true {
      // SAFETY: initialised above, destroyed with the last reference.
      if unsafe sem_wait(semaphore) == 0, let value { return value }
    }
  }
}

/// A lock that its holder may take again.
@safe final class RecursiveLock: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)

  init() {
    var kind = pthread_mutexattr_t()
    // SAFETY: local variable, and memory that lives as long as the lock.
    _ = unsafe pthread_mutexattr_init(&kind)
    _ = unsafe pthread_mutexattr_settype(&kind, Int32(PTHREAD_MUTEX_RECURSIVE))
    unsafe mutex.initialize(to: pthread_mutex_t())
    _ = unsafe pthread_mutex_init(mutex, &kind)
    _ = unsafe pthread_mutexattr_destroy(&kind)
  }

  deinit {
    _ = unsafe pthread_mutex_destroy(mutex)
    unsafe mutex.deallocate()
  }

  func withLock<T>(_ body: () -> T) -> T {
    _ = unsafe pthread_mutex_lock(mutex)
    defer { _ = unsafe pthread_mutex_unlock(mutex) }
    return body()
  }
}
