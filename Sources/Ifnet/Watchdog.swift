// A watchdog: a count of seconds that a driver winds up when it gives the card work.
//
//     timer = 5 ── 1 Hz, on the owner ──> 4 3 2 1 0: expire. Busy: in a second again.
//     timer = 0: idle
//
// Invariants
// - It looks once a second on its owner's thread, and moves with the owner.
// - start and stop set the timer to 0. What was begun before the last of them never arms anything again.

public import Netisr
internal import Platform
internal import Synchronization

/// A watchdog of an interface or of anything else that has an owner worker.
public final class Watchdog: Sendable {
  /// Nanoseconds between two looks.
  public static let period: UInt64 = 1_000_000_000

  private struct State {
    /// Counts starts and stops.
    var generation = 0
    var isRunning = false
    var token: WorkerToken?
    var expire: (@Sendable () -> Bool)?
  }
  private let seconds = Atomic<Int>(0)
  private let state = Guarded(State())
  private let owner: @Sendable () -> Worker

  /// - Parameter owner: the worker on which it looks next; asked before each second.
  public init(owner: @escaping @Sendable () -> Worker) { self.owner = owner }

  /// What happens at 0. Returns false when it could not be done now (a serializer is taken): it is tried again in a
  /// second.
  public func onExpiry(_ body: @escaping @Sendable () -> Bool) { state.withLock { $0.expire = body } }

  /// Seconds to go; 0 is idle. From any thread.
  public var timer: Int {
    get { seconds.load(ordering: .relaxed) }
    set { seconds.store(max(0, newValue), ordering: .relaxed) }
  }
  public var isRunning: Bool { state.withLock { $0.isRunning } }

  public func start() {
    let generation = begin(running: true)
    arm(generation)
  }

  /// It does not expire again after this; from another thread, after the run in which it may be now.
  public func stop() { _ = begin(running: false) }

  private func begin(running: Bool) -> Int {
    timer = 0
    return state.withLock { state in
      state.generation += 1
      state.isRunning = running
      state.token?.cancel()
      state.token = nil
      return state.generation
    }
  }

  private func isCurrent(_ generation: Int) -> Bool { state.withLock { $0.isRunning && $0.generation == generation } }

  private func arm(_ generation: Int) {
    let worker = owner()
    state.withLock { state in
      guard state.isRunning, state.generation == generation else { return }
      state.token = worker.schedule(after: Self.period) { [weak self] in self?.look(generation) }
    }
  }

  private func look(_ generation: Int) {
    guard isCurrent(generation) else { return }
    // The owner has changed: the count goes on there.
    if owner().isCurrent { count(generation) }
    arm(generation)
  }

  private func count(_ generation: Int) {
    let left = timer
    // The driver may set the timer while this counts: then its value stands.
    guard left > 0, seconds.compareExchange(expected: left, desired: left - 1, ordering: .relaxed).exchanged, left == 1,
      let expire = state.withLock({ $0.expire })
    else { return }
    if !expire(), isCurrent(generation) {
      _ = seconds.compareExchange(expected: 0, desired: 1, ordering: .relaxed)
    }
  }
}
