import CRingway
import Packet
import Platform
import Synchronization
import Testing

@testable import Netisr

/// A device that has as much work as it is given.
final class FakePoller: WorkerPoller {
  let work = Atomic<Int>(0)
  let polls = Tally(), arms = Tally(), disarms = Tally(), done = Tally()
  let event: Int32
  init(event: Int32 = -1) { self.event = event }
  func poll(budget: Int) -> Int {
    polls.add()
    let n = min(budget, work.load(ordering: .acquiring))
    if n > 0 {
      work.wrappingSubtract(n, ordering: .relaxed)
      done.add(n)
    }
    return n
  }
  func arm() -> Bool {
    arms.add()
    return work.load(ordering: .sequentiallyConsistent) > 0
  }
  func disarm() { disarms.add() }
  var eventDescriptor: Int32 { event }
}

func manual(_ workers: Int = 1, clock: ManualClock = ManualClock(), _ change: (inout NetisrConfiguration) -> Void = { _ in }) throws -> Netisr {
  var configuration = NetisrConfiguration()
  configuration.isManual = true
  configuration.maxThreads = workers
  change(&configuration)
  return try Netisr(configuration, clock: clock)
}

/// A dispatcher with threads; more workers than processors are allowed.
func threaded(_ workers: Int = 2, _ change: (inout NetisrConfiguration) -> Void = { _ in }) throws -> Netisr {
  var configuration = NetisrConfiguration()
  configuration.maxThreads = workers
  configuration.cpus = Array(0..<max(1, workers))
  change(&configuration)
  let netisr = try Netisr(configuration)
  try netisr.start()
  return netisr
}

@Suite struct WorkerTests {
  @Test func messagesRunInOrderOnTheirWorker() throws {
    let netisr = try threaded(2)
    defer { netisr.stop() }
    let log = Log()
    for i in 0..<1000 { netisr.workers[1].post { log.add(Worker.current?.id == 1 ? i : -1) } }
    netisr.workers[1].perform {}
    #expect(log.all == Array(0..<1000))
  }

  @Test func performReturnsAResultAndRunsInlineOnItself() throws {
    let netisr = try threaded(2)
    defer { netisr.stop() }
    #expect(Worker.current == nil)
    #expect(netisr.workers[1].perform { Worker.current?.id } == 1)
    let nested = netisr.workers[0].perform { netisr.workers[0].perform { Worker.current?.id } }
    #expect(nested == 0)
    #expect(netisr.workers[0].perform { netisr.workers[1].perform { Worker.current?.id } } == 1)
  }

  @Test func performWorksBeforeStartAndAfterStop() throws {
    var configuration = NetisrConfiguration()
    configuration.maxThreads = 1
    let netisr = try Netisr(configuration)
    let log = Log()
    netisr.workers[0].post { log.add(1) }
    #expect(netisr.workers[0].perform { Worker.current?.id } == 0)
    #expect(log.all == [1])
    try netisr.start()
    #expect(netisr.workers[0].perform { 7 } == 7)
    netisr.stop()
    #expect(netisr.workers[0].perform { 8 } == 8)
    netisr.stop()
  }

  @Test func stopDoesWhatWasSent() throws {
    let netisr = try threaded(2)
    let tally = Tally()
    for _ in 0..<500 { for worker in netisr.workers { worker.post { tally.add() } } }
    netisr.stop()
    #expect(tally.value == 1000)
  }

  @Test func aKickIsOnItsWayOnce() throws {
    let netisr = try manual()
    let log = Log()
    let kick = KickMessage { log.add(1) }
    #expect(netisr.workers[0].send(kick))
    #expect(!netisr.workers[0].send(kick))
    #expect(kick.isQueued)
    netisr.settle()
    #expect(log.all == [1])
    #expect(!kick.isQueued)
    #expect(netisr.workers[0].send(kick))
    netisr.settle()
    #expect(log.all == [1, 1])
  }

  @Test func aKickCanSendItselfAgain() throws {
    let netisr = try manual()
    final class Box: Sendable { let kick = Guarded<KickMessage?>(nil) }
    let box = Box(), tally = Tally()
    let kick = KickMessage {
      tally.add()
      if tally.value < 3, let again = box.kick.withLock({ $0 }) { netisr.workers[0].send(again) }
    }
    box.kick.withLock { $0 = kick }
    netisr.workers[0].send(kick)
    netisr.settle()
    #expect(tally.value == 3)
    box.kick.withLock { $0 = nil }
  }

  @Test("Case 24: rollups of priority 50 and 200: 200 first, ties in the order of registration")
  func case24() throws {
    let netisr = try manual()
    let log = Log()
    netisr.workers[0].addRollup(priority: 50) { log.add(50) }
    netisr.workers[0].addRollup(priority: 200) { log.add(200) }
    netisr.workers[0].addRollup(priority: 50) { log.add(51) }
    netisr.run(worker: 0)
    #expect(log.all == [200, 50, 51])
  }

  @Test func rollupsRunAfterEachBudgetOfMessages() throws {
    let netisr = try manual()
    let log = Log(), tally = Tally()
    netisr.workers[0].addRollup(priority: 50) { log.add(tally.value) }
    netisr.run(worker: 0)
    for _ in 0..<1200 { netisr.workers[0].post { tally.add() } }
    netisr.settle()
    #expect(Array(log.all.dropFirst().prefix(3)) == [512, 1024, 1200])
  }

  @Test func aChainVisitsEveryWorkerInTurn() throws {
    let netisr = try threaded(3)
    defer { netisr.stop() }
    let log = Log(), done = Tally()
    netisr.chain({ log.add($0.id) }, done: { done.add(Worker.current?.id ?? -1) })
    eventually("the chain's end") { done.value == 2 }
    #expect(log.all == [0, 1, 2])
  }
}

@Suite struct TimerTests {
  @Test func timersRunWhenTheyAreDueInOrder() throws {
    let clock = ManualClock(), netisr = try manual(clock: clock), log = Log()
    netisr.workers[0].schedule(after: 30) { log.add(30) }
    netisr.workers[0].schedule(after: 10) { log.add(10) }
    netisr.workers[0].schedule(after: 20) { log.add(20) }
    netisr.workers[0].schedule(after: 10) { log.add(11) }
    netisr.settle()
    #expect(log.all.isEmpty)
    clock.sleep(nanoseconds: 20)
    netisr.settle()
    #expect(log.all == [10, 11, 20])
    clock.sleep(nanoseconds: 10)
    netisr.settle()
    #expect(log.all == [10, 11, 20, 30])
  }

  @Test func periodicTimersGoOnUntilCancelled() throws {
    let clock = ManualClock(), netisr = try manual(clock: clock), tally = Tally()
    let token = netisr.workers[0].schedule(after: 10, every: 10) { tally.add() }
    clock.sleep(nanoseconds: 50)
    netisr.settle()
    #expect(tally.value == 5)
    token.cancel()
    clock.sleep(nanoseconds: 50)
    netisr.settle()
    #expect(tally.value == 5)
  }

  @Test func aTimerThatAnotherCancelsInTheSamePassDoesNotRun() throws {
    let clock = ManualClock(), netisr = try manual(clock: clock), log = Log()
    final class Box: Sendable { let token = Guarded<WorkerToken?>(nil) }
    let box = Box()
    netisr.workers[0].schedule(after: 5) {
      log.add(1)
      box.token.withLock { $0?.cancel() }
    }
    let second = netisr.workers[0].schedule(after: 5) { log.add(2) }
    box.token.withLock { $0 = second }
    clock.sleep(nanoseconds: 10)
    netisr.settle()
    #expect(log.all == [1])
  }

  @Test func cancelledTimersAreSweptOut() {
    var timers = WorkerTimers()
    for i in 0..<10_000 {
      let token = WorkerToken()
      timers.add(at: UInt64(20_000 - i), period: 0, token: token) {}
      if i % 100 != 0 { token.cancel() }
    }
    var order: [UInt64] = []
    while let timer = timers.popDue(.max) { order.append(timer.at) }
    #expect(order.count == 100)
    #expect(order == order.sorted())
    #expect(timers.next == nil)
  }

  @Test func timersWakeASleepingWorker() throws {
    let netisr = try threaded(1)
    defer { netisr.stop() }
    let tally = Tally()
    let token = netisr.workers[0].schedule(after: 2_000_000, every: 1_000_000) { tally.add() }
    eventually("five runs") { tally.value >= 5 }
    netisr.workers[0].perform { token.cancel() }
    let runs = tally.value
    MonotonicClock().sleep(nanoseconds: 5_000_000)
    #expect(tally.value == runs)
  }
}

@Suite struct PollerTests {
  @Test func pollersAreServedInManualMode() throws {
    let netisr = try manual()
    let poller = FakePoller()
    let token = netisr.workers[0].add(poller)
    poller.work.store(1000, ordering: .relaxed)
    netisr.settle()
    #expect(poller.done.value == 1000)
    #expect(poller.arms.value == 0)
    token.cancel()
    poller.work.store(10, ordering: .relaxed)
    netisr.settle()
    #expect(poller.done.value == 1000)
  }

  @Test func watchedDescriptorsAreServedInManualMode() throws {
    let netisr = try manual()
    let event = try EventFD(), number = event.descriptor, tally = Tally()
    let token = try netisr.workers[0].watch(number) { tally.add(Int(EventFD.drain(number))) }
    netisr.settle()
    #expect(tally.value == 0)
    event.signal()
    event.signal()
    netisr.settle()
    #expect(tally.value == 2)
    token.cancel()
    event.signal()
    netisr.settle()
    #expect(tally.value == 2)
    let again = try netisr.workers[0].watch(number) { tally.add(Int(EventFD.drain(number))) }
    #expect(throws: NetisrError.self) { _ = try netisr.workers[0].watch(number) {} }
    netisr.settle()
    #expect(tally.value == 3)
    again.cancel()
  }

  @Test func aDescriptorThatCannotBeWatchedIsAnError() throws {
    let netisr = try manual()
    #expect(throws: NetisrError.self) { _ = try netisr.workers[0].watch(-1) {} }
  }

  @Test func anIdleWorkerArmsSleepsAndIsWokenByTheInterrupt() throws {
    let netisr = try threaded(1)
    defer { netisr.stop() }
    let event = try EventFD(), poller = FakePoller(event: event.descriptor)
    let token = netisr.workers[0].add(poller)
    defer { token.cancel() }
    eventually("arming") { poller.arms.value > 0 }
    MonotonicClock().sleep(nanoseconds: 5_000_000)
    let polls = poller.polls.value
    MonotonicClock().sleep(nanoseconds: 20_000_000)
    #expect(poller.polls.value - polls < 10, "a worker without work sleeps")
    poller.work.store(5, ordering: .releasing)
    event.signal()
    eventually("the interrupt's work") { poller.done.value == 5 }
    #expect(poller.disarms.value > 0)
  }

  @Test func workThatShowsWhileArmingKeepsTheWorkerAwake() throws {
    let netisr = try threaded(1)
    defer { netisr.stop() }
    let event = try EventFD()
    final class Late: WorkerPoller {
      let arms = Tally(), done = Tally(), ready = Atomic(false), event: Int32
      init(_ event: Int32) { self.event = event }
      func poll(budget: Int) -> Int {
        guard ready.exchange(false, ordering: .sequentiallyConsistent) else { return 0 }
        done.add()
        return 1
      }
      func arm() -> Bool {
        arms.add()
        guard arms.value == 1 else { return false }
        ready.store(true, ordering: .sequentiallyConsistent)
        return true
      }
      func disarm() {}
      var eventDescriptor: Int32 { event }
    }
    let poller = Late(event.descriptor)
    let token = netisr.workers[0].add(poller)
    eventually("work without an interrupt") { poller.done.value == 1 }
    token.cancel()
  }

  @Test func anAwakeWorkerIsNotSignalled() throws {
    let netisr = try threaded(1)
    defer { netisr.stop() }
    let worker = netisr.workers[0], hold = Atomic(true), tally = Tally()
    worker.post { while hold.load(ordering: .acquiring) { rw_pause() } }
    eventually("the worker's start") { unsafe !worker.block.pointee.sleeping.load(ordering: .sequentiallyConsistent) }
    MonotonicClock().sleep(nanoseconds: 1_000_000)
    let before = worker.wakeups
    for _ in 0..<100 { worker.post { tally.add() } }
    #expect(worker.wakeups == before)
    hold.store(false, ordering: .releasing)
    worker.perform {}
    #expect(tally.value == 100)
  }
}
