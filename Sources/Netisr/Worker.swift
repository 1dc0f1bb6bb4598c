// A worker: one thread that owns what it works on.
//
//     any thread: post, send, queue ──> lanes ──┐ (wakes it when it sleeps, and only then)
//                                               v
//     messages ─> timers ─> pollers ─> packets by protocol ─> rollups ─> again, or sleep
//
// Invariants
// - `own` is touched by the worker's thread alone: in a manual dispatcher, and before `start` and
//   after `stop`, by the one thread that makes itself the worker.
// - A producer pushes, fences, and looks whether the worker sleeps; the worker says that it sleeps,
//   fences, and looks whether anything was pushed. One of the two sees the other.

public import Packet
internal import CRingway
internal import Platform
internal import Synchronization

/// A worker. See above and the module's essay.
@safe public final class Worker: @unchecked Sendable {
  public let id: Int
  /// The processor it is bound to; nil: any.
  public let cpu: Int?
  public unowned let netisr: Netisr
  let shared: NetisrShared
  /// Unique in the process; pools that this worker owns carry it.
  public let token: UInt32
  /// Packets for what the stack makes itself, set by whoever owns the memory. Used on this worker only.
  public var pool: PacketPool?

  private static let tokens = Atomic<UInt32>(1)
  static let wakeEvent: UInt64 = 0
  /// Messages and queued packets between two runs of the rollups.
  static let budget = 512

  enum Phase: UInt8, AtomicRepresentable { case idle, running, stopping, abandoned, stopped }
  let phase = Atomic(Phase.idle)
  let wake: EventFD
  let epoll: Epoll
  private var thread: JoinedThread?
  private let eventIDs = Atomic<UInt64>(wakeEvent)
  /// What dispatch needs of it; the dispatcher's shared part keeps it.
  let block: WorkerBlock.Pointer
  let lane = MessageLane()
  /// Ticks of passes that found work, and how many passes those were; written by the thread alone.
  let busyTicks = Atomic<UInt64>(0), busyPasses = Atomic<UInt64>(0), startTicks = Atomic<UInt64>(0)
  /// Messages that wait for their turn. The worker's own.
  private var inbox = MessageInbox()

  /// What belongs to the worker's thread.
  struct Own {
    var timers = WorkerTimers()
    var rollups: [(priority: Int, body: @Sendable () -> Void)] = []
    var pollers: [PollerEntry] = []
    var watches: [UInt64: WatchEntry] = [:]
    var ready: [UInt64] = []
    var passes: UInt64 = 0
  }
  var own = Own()

  init(id: Int, cpu: Int?, netisr: Netisr) throws(NetisrError) {
    self.id = id
    self.cpu = cpu
    self.netisr = netisr
    shared = netisr.shared
    unsafe block = netisr.shared.blocks[id]
    token = Self.tokens.wrappingAdd(1, ordering: .relaxed).oldValue
    do {
      wake = try EventFD()
      epoll = try Epoll()
      try epoll.add(wake.descriptor, token: Self.wakeEvent)
    } catch { throw .system("worker \(id): \(error)") }
    unsafe block.pointee.wake.store(wake.descriptor, ordering: .relaxed)
  }

  /// The worker that the calling thread is; nil on other threads.
  public static var current: Worker? {
    guard let worker = unsafe rw_thread_worker() else { return nil }
    // SAFETY: the thread is the worker for as long as the pointer is set.
    return unsafe Unmanaged<Worker>.fromOpaque(worker).takeUnretainedValue()
  }

  /// Whether the calling thread is this worker.
  public var isCurrent: Bool { rw_thread_token() == token }

  func newEventID() -> UInt64 { eventIDs.wrappingAdd(1, ordering: .relaxed).newValue }

  /// Makes the calling thread this worker while `body` runs.
  func asCurrent<T>(_ body: () -> T) -> T {
    // What the thread freed as somebody else goes back first, and at the end what it frees as this worker.
    PoolState.flushReturns()
    let before = unsafe rw_thread_get()
    unsafe rw_thread_set(
      rw_thread(
        token: token, worker_id: UInt32(id), worker: Unmanaged.passUnretained(self).toOpaque(), block: UnsafeMutableRawPointer(block)))
    defer {
      PoolState.flushReturns()
      unsafe rw_thread_set(before)
    }
    return body()
  }

  // MARK: Life

  func start() throws(NetisrError) {
    let failure = shared.dormant.withLock { () -> NetisrError? in
      guard phase.compareExchange(expected: .idle, desired: .running, ordering: .sequentiallyConsistent).exchanged else {
        return nil
      }
      do {
        thread = try JoinedThread(name: "netisr \(id)", cpu: cpu) { [self] in asCurrent { loop() } }
        return nil
      } catch {
        phase.store(.idle, ordering: .sequentiallyConsistent)
        return .system("worker \(id): \(error)")
      }
    }
    if let failure { throw failure }
  }

  /// Asks the thread to end: when it has done what was queued, or at once.
  func beginStop(draining: Bool) {
    _ = phase.compareExchange(
      expected: .running, desired: draining ? .stopping : .abandoned, ordering: .sequentiallyConsistent)
    wake.signal()
  }

  /// Waits for the thread's end. What is sent from now on is not done any more.
  func finishStop(draining: Bool) {
    thread = nil
    shared.dormant.withLock {
      guard phase.exchange(.stopped, ordering: .sequentiallyConsistent) != .stopped else { return }
      asCurrent {
        if draining { finish() }
        // From here on packets are refused; what came in until now is freed.
        unsafe block.pointee.ended.store(true, ordering: .sequentiallyConsistent)
        for proto in 0..<NetisrProtocol.count { purge(proto) { _ in true } }
      }
    }
  }

  // MARK: Messages

  /// Runs `body` on this worker, after the messages that were sent before. Returns at once.
  public func post(_ body: @escaping @Sendable () -> Void) {
    lane.push(MessageNode(body))
    notify()
  }

  /// Sends a message that exists once. Returns false when it is on its way already.
  @discardableResult public func send(_ kick: KickMessage) -> Bool {
    let node = kick.node
    guard node.queued.compareExchange(expected: false, desired: true, ordering: .acquiringAndReleasing).exchanged else {
      return false
    }
    lane.push(node)
    notify()
    return true
  }

  /// Runs `body` on this worker and waits for it; inline when the caller is this worker. In a manual
  /// dispatcher, and before the workers are started, the calling thread becomes the worker.
  ///
  /// The caller sleeps meanwhile. Two workers that wait for each other do so for ever: on a worker,
  /// `post` is the way, or waiting for workers with higher numbers only.
  public func perform<T: Sendable>(_ body: @escaping @Sendable () -> T) -> T {
    if isCurrent { return body() }
    if shared.configuration.isManual { return performHere(body) }
    if !hasThread, let result = performDormant(body) { return result }
    let completion = Completion<T>()
    post { completion.complete(body()) }
    // The thread may have ended since: then nobody else runs the message.
    if !hasThread { shared.dormant.withLock { if !hasThread { asCurrent { _ = runMessages(max: .max) } } } }
    return completion.wait()
  }

  private var hasThread: Bool {
    let phase = phase.load(ordering: .sequentiallyConsistent)
    return phase == .running || phase == .stopping || phase == .abandoned
  }

  private func performHere<T>(_ body: () -> T) -> T {
    asCurrent {
      _ = runMessages(max: .max)
      return body()
    }
  }

  private func performDormant<T>(_ body: () -> T) -> T? {
    shared.dormant.withLock { hasThread ? nil : performHere(body) }
  }

  /// At once on this worker, by message from elsewhere.
  func onWorker(_ body: @escaping @Sendable () -> Void) { if isCurrent { body() } else { post(body) } }

  /// Wakes the worker if it sleeps. After whatever it is to find has been pushed.
  func notify() {
    if isCurrent { return }
    atomicMemoryFence(ordering: .sequentiallyConsistent)
    unsafe shared.wake(block)
  }

  /// Cycles of the time-stamp counter spent on passes that found work; 0 in manual dispatchers.
  public var busyCycles: UInt64 { busyTicks.load(ordering: .relaxed) }
  /// Cycles since its thread began.
  public var totalCycles: UInt64 {
    let start = startTicks.load(ordering: .relaxed)
    return start == 0 ? 0 : rw_ticks() &- start
  }
  /// Passes that found work: what it did in one go is a batch.
  public var batches: UInt64 { busyPasses.load(ordering: .relaxed) }

  /// How often it was woken from its sleep by a message or a packet.
  public var wakeups: UInt64 { unsafe block.pointee.wakeups.load(ordering: .relaxed) }

  var hasMessages: Bool { !inbox.isEmpty || !lane.isEmpty }

  /// Runs messages in their order. Returns how many.
  func runMessages(max: Int) -> Int {
    var done = 0
    while done < max {
      if inbox.isEmpty { inbox = lane.takeAll() }
      guard let message = inbox.pop() else { break }
      done += 1
      message.run()
    }
    return done
  }

  // MARK: Timers

  /// Runs `body` on this worker after `nanoseconds`, and every `period` nanoseconds after that (0: once).
  @discardableResult
  public func schedule(after nanoseconds: UInt64, every period: UInt64 = 0, _ body: @escaping @Sendable () -> Void) -> WorkerToken {
    let token = WorkerToken()
    let (sum, overflow) = shared.clock.now().addingReportingOverflow(nanoseconds)
    let at = overflow ? UInt64.max : sum
    onWorker { [unowned self] in own.timers.add(at: at, period: period, token: token, body) }
    return token
  }

  /// An empty packet of this worker's pool; nil when there is none. On this worker only.
  public func allocate() -> Packet? { pool?.allocate() }
}
