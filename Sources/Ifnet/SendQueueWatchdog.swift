// A subqueue's watchdog: once a second on its owner worker, wherever that goes.

internal import Netisr
internal import Synchronization

/// The watchdog's state.
final class SubqueueWatch: Sendable {
  struct State {
    /// Counts starts and stops: what was begun before the last of them does nothing any more.
    var generation = 0
    var isOn = false
    var token: WorkerToken?
  }
  /// Seconds to go; 0 is idle.
  let timer = Atomic<Int>(0)
  let state = Mutex(State())
}

extension Subqueue {
  /// Seconds until `driver.watchdog(subqueue)` is called; 0: never. A driver sets it when it gives the card
  /// packets, and to 0 when the card has sent them all.
  public var watchdogTimer: Int {
    get { watch.timer.load(ordering: .relaxed) }
    set { watch.timer.store(max(0, newValue), ordering: .relaxed) }
  }

  /// ifsq_watchdog_start: looks once a second from now on, on the owner. The timer is 0 then.
  public func startWatchdog() {
    watchdogTimer = 0
    let generation = watch.state.withLock { state in
      state.generation &+= 1
      state.isOn = true
      state.token?.cancel()
      state.token = nil
      return state.generation
    }
    armWatchdog(generation)
  }

  /// ifsq_watchdog_stop: it does not fire again, except where it is firing now. The timer is 0 then.
  public func stopWatchdog() {
    watchdogTimer = 0
    watch.state.withLock { state in
      state.generation &+= 1
      state.isOn = false
      state.token?.cancel()
      state.token = nil
    }
  }

  public var isWatchdogRunning: Bool { watch.state.withLock { $0.isOn } }

  /// Puts the next look on the owner's clock, unless something has begun or stopped since.
  private func armWatchdog(_ generation: Int) {
    let (index, worker) = (index, staging.netisr.workers[owner])
    watch.state.withLock { state in
      guard state.isOn, state.generation == generation else { return }
      state.token = worker.schedule(after: 1_000_000_000) { [weak interface] in
        interface?.subqueues[index].watchdogTick(generation)
      }
    }
  }

  private func watchdogTick(_ generation: Int) {
    guard watch.state.withLock({ $0.isOn && $0.generation == generation }) else { return }
    // The owner has changed: the next look is there, the count goes on.
    if Worker.current?.id == owner { countDown() }
    armWatchdog(generation)
  }

  private func countDown() {
    let left = watchdogTimer
    guard left > 0 else { return }
    watchdogTimer = left - 1
    guard left == 1 else { return }
    let serializer = interface.serializer
    guard serializer.tryEnter(.transmit(index)) else {
      // Somebody is in the driver: in a second again.
      watchdogTimer = 1
      return
    }
    interface.driver.watchdog(self)
    serializer.leave(.transmit(index))
  }
}
