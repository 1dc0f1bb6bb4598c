// What a worker does all day.

internal import CRingway
internal import Packet
internal import Platform
internal import Synchronization

extension Worker {
  /// Longest sleep, in milliseconds: a bound on what a clock that is not the system's can spoil.
  private static let longestSleep: UInt64 = 1000
  /// Passes between two looks at the watched descriptors while there is other work.
  private static let passesPerLook: UInt64 = 32
  /// A periodic timer that is behind by more runs than this skips them.
  private static let mostRunsBehind: UInt64 = 1000

  /// The thread's body.
  func loop() {
    let clock = MonotonicClock()
    let patience = UInt64(max(0, shared.configuration.idleMicroseconds)) &* 1000
    var idleSince: UInt64?
    startTicks.store(rw_ticks(), ordering: .relaxed)
    while phase.load(ordering: .acquiring) == .running {
      let before = rw_ticks()
      if pass() {
        busyTicks.store(busyTicks.load(ordering: .relaxed) &+ (rw_ticks() &- before), ordering: .relaxed)
        busyPasses.store(busyPasses.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
        idleSince = nil
        continue
      }
      let now = clock.now()
      let since = idleSince ?? now
      if now &- since < patience {
        idleSince = since
        rw_pause()
        continue
      }
      idleSince = nil
      sleep()
    }
    if phase.load(ordering: .acquiring) == .stopping { finishTogether() }
  }

  /// Does what is left, and stays for the others as long as they have something left: they may send
  /// messages, and wait for them.
  private func finishTogether() {
    finish()
    shared.draining.wrappingSubtract(1, ordering: .sequentiallyConsistent)
    while shared.draining.load(ordering: .sequentiallyConsistent) > 0 {
      if hasWork {
        shared.draining.wrappingAdd(1, ordering: .sequentiallyConsistent)
        finish()
        shared.draining.wrappingSubtract(1, ordering: .sequentiallyConsistent)
      } else {
        collectEvents(milliseconds: 1)
        own.ready.removeAll()
      }
    }
  }

  /// Does what was sent and queued until nothing is left; pollers and timers end.
  func finish() {
    for entry in own.pollers { entry.token.cancel() }
    own.pollers.removeAll()
    own.timers.removeAll()
    while runMessages(max: Self.budget) + runPackets(max: Self.budget) > 0 { runRollups() }
    runRollups()
    own.timers.removeAll()
  }

  /// One turn over everything. Returns whether there was anything to do.
  func pass() -> Bool {
    own.passes &+= 1
    var done = runMessages(max: Self.budget)
    if shared.configuration.isManual || own.passes % Self.passesPerLook == 0 { collectEvents(milliseconds: 0) }
    var busy = runWatches()
    if runTimers() { busy = true }
    if runPollers() > 0 { busy = true }
    // Packets share the budget with the messages, but always get a turn.
    done += runPackets(max: max(1, Self.budget - done))
    runRollups()
    PoolState.flushReturns()
    return busy || done > 0
  }

  func runRollups() {
    for rollup in own.rollups { rollup.body() }
  }

  /// Runs what is due now, each timer once.
  private func runTimers() -> Bool {
    guard own.timers.next != nil else { return false }
    let now = shared.clock.now()
    var again: [WorkerTimers.Entry] = []
    var ran = false
    while var timer = own.timers.popDue(now) {
      ran = true
      timer.body()
      guard timer.period > 0, !timer.token.isCancelled else { continue }
      let next = timer.at.addingReportingOverflow(timer.period)
      if next.overflow { continue }
      timer.at = next.partialValue
      if timer.at < now, (now - timer.at) / timer.period > Self.mostRunsBehind { timer.at = now }
      again.append(timer)
    }
    for timer in again { own.timers.insert(timer) }
    return ran
  }

  /// Arms the pollers, looks again, and sleeps until something happens.
  private func sleep() {
    if !armPollers() {
      unsafe block.pointee.sleeping.store(true, ordering: .sequentiallyConsistent)
      atomicMemoryFence(ordering: .sequentiallyConsistent)
      if !hasWork, phase.load(ordering: .sequentiallyConsistent) == .running {
        collectEvents(milliseconds: sleepTime())
      }
      unsafe block.pointee.sleeping.store(false, ordering: .sequentiallyConsistent)
    }
    disarmPollers()
    _ = runWatches()
  }

  /// Milliseconds until the next timer, rounded up.
  private func sleepTime() -> Int32 {
    var limit = own.pollers.contains { !$0.hasDescriptor } ? 1 : Self.longestSleep
    if let next = own.timers.next {
      let now = shared.clock.now()
      limit = next <= now ? 0 : min(limit, (next - now - 1) / 1_000_000 + 1)
    }
    return Int32(limit)
  }

  var hasWork: Bool { unsafe hasMessages || block.pointee.pending.load(ordering: .sequentiallyConsistent) != 0 }
}
