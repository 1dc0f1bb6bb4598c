// Netisr: the packet dispatcher (FreeBSD netisr(9), with DragonFly's rollups and messages).
//
//     driver, interface, protocol ── dispatch(proto, packet) ──┬─ direct: the handler, now, here
//                                                              ├─ hybrid: here, when nothing waits
//                                                              └─ deferred: a worker's queue
//     Worker 0 … N-1: a thread each.  messages ─> timers ─> pollers ─> packets by protocol ─> rollups ─> sleep
//
// Invariants
// - A packet given to netisr is consumed, whatever becomes of it; what is dropped is in the ledger.
// - Packets of one (worker, protocol) stay in order. There is no order across protocols.
// - What a worker owns is touched by its own thread; others send it a message.

public import DeviceIO
public import DMAMemory
public import Packet
public import Platform
internal import Synchronization

/// How a dispatcher is set up. Wrong values are put right as FreeBSD does.
public struct NetisrConfiguration: Sendable, Equatable {
  /// Workers: -1 for one a processor; 0 and less than -1 count as 1.
  public var maxThreads = 1
  public var bindThreads = false
  public var maxQueueLimit = 10240
  public var defaultQueueLimit = 256
  public var dispatch = DispatchPolicy.direct
  /// Processors for the workers, in turn; nil takes those that the process may run on.
  public var cpus: [Int]?
  /// No threads: `run(worker:)` and `settle()` make the calling thread the worker, so that tests
  /// repeat exactly.
  public var isManual = false
  /// How long an idle worker keeps polling before it sleeps, in microseconds.
  public var idleMicroseconds = 50

  public init() {}
}

/// A dispatcher and its workers.
public final class Netisr: @unchecked Sendable {
  public let configuration: NetisrConfiguration
  public let clock: any TimeSource
  public let drops: DropLedger
  public let sysctl = SysctlTree()
  public private(set) var workers: [Worker] = []
  let shared: NetisrShared
  /// Which stack instance an interface belongs to; nil: it is gone. Set once, by the interface layer.
  public var vnetOfInterface: (@Sendable (InterfaceIndex) -> Vnet?)?

  /// Hears of settings that were put right, as sentences. Set before handlers are registered.
  public var onWarning: (@Sendable (String) -> Void)?

  public init(
    _ configuration: NetisrConfiguration = NetisrConfiguration(), clock: any TimeSource = MonotonicClock(),
    drops: DropLedger = DropLedger()
  ) throws(NetisrError) {
    self.configuration = configuration
    self.clock = clock
    self.drops = drops
    let cpus = configuration.cpus ?? (try? CPUList.allowed().cpus) ?? [0]
    var count = configuration.maxThreads == -1 ? cpus.count : max(1, configuration.maxThreads)
    if !configuration.isManual { count = min(count, max(1, cpus.count)) }
    shared = NetisrShared(configuration, clock, drops, workers: count)
    for id in 0..<count {
      workers.append(try Worker(id: id, cpu: configuration.bindThreads ? cpus[id % cpus.count] : nil, netisr: self))
    }
    addControls()
  }

  /// Starts the workers' threads; does nothing in a manual dispatcher.
  public func start() throws(NetisrError) {
    guard !configuration.isManual else { return }
    for worker in workers { try worker.start() }
  }

  /// Ends the workers when they have done what was queued. Idempotent.
  public func stop() { stop(draining: true) }

  private func stop(draining: Bool) {
    shared.draining.store(workers.count { $0.phase.load(ordering: .acquiring) == .running }, ordering: .sequentiallyConsistent)
    for worker in workers { worker.beginStop(draining: draining) }
    for worker in workers { worker.finishStop(draining: draining) }
  }

  // Messages may refer to the dispatcher, which is gone now: they are not run any more.
  deinit { stop(draining: false) }

  // MARK: Workers

  /// FreeBSD's netisr_get_cpuid: worker `n % count`.
  public func worker(_ n: Int) -> Worker { workers[Int(UInt(bitPattern: n) % UInt(workers.count))] }

  /// FreeBSD's netisr_default_flow2cpu: the worker of a flow's number.
  public func worker(flow: UInt32) -> Worker { workers[Int(UInt(flow) % UInt(workers.count))] }

  /// Returns when everything that was sent and queued to the workers before has been done by them, one
  /// worker after the other. Not from a worker's handler of a packet.
  public func barrier() {
    for worker in workers { worker.perform { [unowned worker] in _ = worker.runPackets(max: 1) } }
  }

  /// Sends a message along the workers 0…N-1: each runs `body` before the next does. `done` runs on
  /// the last.
  public func chain(_ body: @escaping @Sendable (Worker) -> Void, done: @escaping @Sendable () -> Void = {}) {
    @Sendable func step(_ n: Int) {
      guard n < workers.count else { return done() }
      workers[n].post { [weak self] in
        guard let self else { return }
        body(workers[n])
        step(n + 1)
      }
    }
    step(0)
  }

  /// Manual dispatchers: makes the calling thread worker `n` for one pass. Returns whether it did anything.
  @discardableResult public func run(worker n: Int) -> Bool { workers[n].asCurrent { workers[n].pass() } }

  /// Manual dispatchers: passes until no worker has anything left.
  public func settle() {
    var busy = true
    while busy {
      busy = false
      for n in workers.indices where run(worker: n) { busy = true }
    }
  }
}
