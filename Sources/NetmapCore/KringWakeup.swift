// Select-wakeup: who sleeps on a ring, and how it is woken.
//
//    program: arm ─> look again ─> poll(2) on the descriptor ─> drain ─> disarm
//    worker:  something came ─> notify: nobody armed? a look, and that was it
//
// A program that waits on one ring arms that ring's wakeup; one that waits on several arms the one
// of their direction, so that it sleeps on two descriptors at most, however many rings it holds.

internal import CRingway
public import Platform
internal import Synchronization

/// Wakes those who wait on one ring, or on several rings of one direction.
public final class KringWakeup: Sendable {
  private let event: EventFD
  private let sleepers = Atomic(0)
  private let listeners = Mutex<[(id: Int, body: @Sendable () -> Void)]>([])
  private let listening = Atomic(0)
  private let sent = Atomic<UInt64>(0)

  public init() throws(SystemError) { event = try EventFD() }

  /// Readable when somebody was woken. Never blocks.
  public var descriptor: Int32 { event.descriptor }
  /// Wakeups that reached somebody.
  public var count: UInt64 { sent.load(ordering: .relaxed) }

  /// Before the last look: from here on, a `notify` makes the descriptor readable.
  public func arm() { sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent) }
  /// After the sleep.
  public func disarm() { sleepers.wrappingSubtract(1, ordering: .releasing) }
  /// Forgets a wakeup that was not waited for.
  public func drain() { event.drain() }
  /// Whether anybody waits.
  public var isArmed: Bool {
    sleepers.load(ordering: .sequentiallyConsistent) > 0 || listening.load(ordering: .acquiring) > 0
  }

  /// Something came, went, or broke. Costs a fence and two loads when nobody waits.
  public func notify() {
    // What came is visible before the look at who sleeps: whoever arms after that look sees it.
    rw_fence()
    notifyFenced()
  }

  /// The same behind a fence of the caller's: for several wakeups at once.
  public func notifyFenced() {
    if sleepers.load(ordering: .sequentiallyConsistent) > 0 {
      sent.wrappingAdd(1, ordering: .relaxed)
      event.signal()
    }
    guard listening.load(ordering: .acquiring) > 0 else { return }
    // The array as it is: called outside of the lock, and not copied.
    let current = listeners.withLock { $0 }
    for listener in current {
      sent.wrappingAdd(1, ordering: .relaxed)
      listener.body()
    }
  }

  /// Calls `body` at every notify until `stopListening`, on the thread that notifies: it must be quick.
  public func listen(_ body: @escaping @Sendable () -> Void) -> Int {
    let id = listening.wrappingAdd(1, ordering: .acquiringAndReleasing).newValue
    return listeners.withLock { all in
      let unique = max(id, (all.map(\.id).max() ?? 0) + 1)
      all.append((unique, body))
      return unique
    }
  }

  public func stopListening(_ id: Int) {
    let removed = listeners.withLock { all in
      let before = all.count
      all.removeAll { $0.id == id }
      return before - all.count
    }
    if removed > 0 { listening.wrappingSubtract(removed, ordering: .acquiringAndReleasing) }
  }
}
