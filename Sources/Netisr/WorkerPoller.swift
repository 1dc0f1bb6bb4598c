// What a worker serves beside its queues: pollers, watched descriptors, rollups.

internal import Platform
internal import Synchronization

/// What a worker polls beside its queues: a card's queue, a device.
public protocol WorkerPoller: AnyObject, Sendable {
  /// Handles up to `budget` packets. Returns how many.
  func poll(budget: Int) -> Int
  /// Before the worker sleeps: lets interrupts through, then looks again; true when there is work
  /// and the worker must not sleep.
  func arm() -> Bool
  /// The worker is awake again: keeps interrupts away.
  func disarm()
  /// The descriptor that an interrupt makes readable; -1 when there is none. Watched for changes
  /// (edge-triggered): nobody has to read it. Asked for once, when the poller is added. A worker
  /// with a poller that has none sleeps 1 ms at most.
  var eventDescriptor: Int32 { get }
}

/// Something that was started on a worker and can be ended: timers, watches, pollers.
public final class WorkerToken: Sendable {
  private let cancelled = Atomic(false)
  private let onCancel: (@Sendable () -> Void)?
  public init() { onCancel = nil }
  init(onCancel: @escaping @Sendable () -> Void) { self.onCancel = onCancel }
  /// It does not run again after this returns on its worker; from another thread, after the run in
  /// which it may be now. Whoever wants to free what a run uses cancels on the worker (`perform`).
  public func cancel() {
    if !cancelled.exchange(true, ordering: .acquiringAndReleasing) { onCancel?() }
  }
  public var isCancelled: Bool { cancelled.load(ordering: .acquiring) }
}

/// A poller, and what ends it.
struct PollerEntry {
  let poller: any WorkerPoller
  let token: WorkerToken
  let hasDescriptor: Bool
}

/// A watched descriptor.
struct WatchEntry {
  let token: WorkerToken
  let body: @Sendable () -> Void
}

extension Worker {
  /// Packets that a poller may handle in one pass.
  static let pollBudget = 64

  /// Runs `body` on this worker after its messages, packets and pollers, in every pass and so before it
  /// sleeps; higher priorities first, equal ones in the order of registration.
  public func addRollup(priority: Int, _ body: @escaping @Sendable () -> Void) {
    onWorker { [unowned self] in
      let at = own.rollups.firstIndex { $0.priority < priority } ?? own.rollups.count
      own.rollups.insert((priority, body), at: at)
    }
  }

  /// Polls a device on this worker until the token is cancelled.
  public func add(_ poller: any WorkerPoller) -> WorkerToken {
    let id = newEventID(), descriptor = poller.eventDescriptor
    let token = WorkerToken { [weak self] in self?.removePoller(descriptor) }
    onWorker { [unowned self] in
      guard !token.isCancelled else { return }
      // A descriptor that cannot be watched is as good as none: the worker then looks by itself.
      let watched = descriptor >= 0 && (try? epoll.add(descriptor, for: [.readable, .edgeTriggered], token: id)) != nil
      own.pollers.append(PollerEntry(poller: poller, token: token, hasDescriptor: watched))
    }
    return token
  }

  private func removePoller(_ descriptor: Int32) {
    if descriptor >= 0 { try? epoll.remove(descriptor) }
    onWorker { [unowned self] in own.pollers.removeAll { $0.token.isCancelled } }
  }

  /// Runs `body` on this worker whenever `descriptor` is readable, until the token is cancelled. The
  /// descriptor must stay open until then.
  /// - Parameter onChange: once for each change (edge-triggered), not while it lasts: for descriptors that others share,
  ///   who may make them blocking and fill them, so that nobody here may read them.
  public func watch(
    _ descriptor: Int32, onChange: Bool = false, _ body: @escaping @Sendable () -> Void
  ) throws(NetisrError) -> WorkerToken {
    let id = newEventID()
    let token = WorkerToken { [weak self] in
      guard let self else { return }
      try? epoll.remove(descriptor)
      forgetWatch(id)
    }
    onWorker { [unowned self] in own.watches[id] = WatchEntry(token: token, body: body) }
    do { try epoll.add(descriptor, for: onChange ? [.readable, .edgeTriggered] : .readable, token: id) } catch {
      forgetWatch(id)
      throw .system("worker \(self.id) cannot watch descriptor \(descriptor): \(error)")
    }
    return token
  }

  private func forgetWatch(_ id: UInt64) { onWorker { [unowned self] in own.watches[id] = nil } }

  // MARK: Serving them, on the worker

  /// Gives every poller a turn. Returns the packets handled.
  func runPollers() -> Int {
    var handled = 0
    for entry in own.pollers where !entry.token.isCancelled { handled += entry.poller.poll(budget: Self.pollBudget) }
    return handled
  }

  /// Lets interrupts through everywhere; true when one of the pollers has work.
  func armPollers() -> Bool {
    var stay = false
    for entry in own.pollers where !entry.token.isCancelled && entry.poller.arm() { stay = true }
    return stay
  }

  func disarmPollers() { for entry in own.pollers where !entry.token.isCancelled { entry.poller.disarm() } }

  /// Collects what is ready, waiting up to `milliseconds` for it.
  func collectEvents(milliseconds: Int32) {
    _ = try? epoll.wait(milliseconds: milliseconds) { own.ready.append($0.token) }
  }

  /// Runs the bodies of the descriptors that `collectEvents` found. Returns whether there were any.
  func runWatches() -> Bool {
    guard !own.ready.isEmpty else { return false }
    var ready: [UInt64] = []
    swap(&ready, &own.ready)
    var ran = false
    for id in ready {
      if id == Self.wakeEvent {
        wake.drain()
      } else if let entry = own.watches[id], !entry.token.isCancelled {
        ran = true
        entry.body()
      }
    }
    ready.removeAll(keepingCapacity: true)
    swap(&ready, &own.ready)
    return ran
  }
}
