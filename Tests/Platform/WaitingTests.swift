// Epoll, timers, signals and clocks.

import CRingway
import Synchronization
import SystemPackage
import Testing

@testable import Platform

@Suite struct EpollTests {
  @Test func reportsTokensOfWhatIsReady() throws {
    let epoll = try Epoll()
    let one = try EventFD()
    let two = try EventFD()
    try epoll.add(one.descriptor, token: 0xFFFF_0000_0000_0001)
    try epoll.add(two.descriptor, token: 2)
    #expect(try epoll.wait(milliseconds: 0).isEmpty)
    one.signal()
    #expect(try epoll.wait(milliseconds: -1) == [Epoll.Event(token: 0xFFFF_0000_0000_0001, ready: .readable)])
    two.signal()
    #expect(try Set(epoll.wait(milliseconds: 0).map(\.token)) == [0xFFFF_0000_0000_0001, 2])
    try epoll.remove(one.descriptor)
    #expect(try epoll.wait(milliseconds: 0).map(\.token) == [2])
  }

  @Test func modifyChangesInterestAndToken() throws {
    let epoll = try Epoll()
    let event = try EventFD()
    try epoll.add(event.descriptor, for: [.readable, .oneShot], token: 1)
    event.signal()
    #expect(try epoll.wait(milliseconds: 0).count == 1)
    #expect(try epoll.wait(milliseconds: 0).isEmpty)
    try epoll.modify(event.descriptor, for: [.readable, .writable], token: 9)
    #expect(try epoll.wait(milliseconds: 0) == [Epoll.Event(token: 9, ready: [.readable, .writable])])
  }

  @Test func hangUpIsReportedUnasked() throws {
    var ends: [Int32] = [-1, -1]
    try #require(unsafe pipe(&ends) == 0)
    let reader = OwnedDescriptor(taking: ends[0])
    let epoll = try Epoll()
    try epoll.add(reader.raw, token: 5)
    _ = close(ends[1])
    #expect(try epoll.wait(milliseconds: 0) == [Epoll.Event(token: 5, ready: .hangUp)])
  }

  @Test func epollsNest() throws {
    let inner = try Epoll()
    let outer = try Epoll()
    let event = try EventFD()
    try inner.add(event.descriptor, token: 1)
    try outer.add(inner.descriptor, token: 7)
    #expect(try outer.wait(milliseconds: 0).isEmpty)
    event.signal()
    #expect(try outer.wait(milliseconds: 0).map(\.token) == [7])
    event.drain()
    #expect(try outer.wait(milliseconds: 0).isEmpty)
  }

  @Test func mistakesAreTyped() throws {
    let epoll = try Epoll()
    let event = try EventFD()
    try epoll.add(event.descriptor, token: 1)
    #expect(throws: SystemError("watch", "descriptor \(event.descriptor)", .fileExists)) {
      try epoll.add(event.descriptor, token: 1)
    }
    #expect(throws: SystemError("watch", "descriptor -1", .badFileDescriptor)) { try epoll.remove(-1) }
  }

  @Test func moreEventsThanABatchComeInTurns() throws {
    let epoll = try Epoll()
    var descriptors: [Int32] = []
    defer { for descriptor in descriptors { _ = close(descriptor) } }
    for token in 0..<UInt64(Epoll.batch + 6) {
      let descriptor = eventfd(1, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
      descriptors.append(descriptor)
      try epoll.add(descriptor, token: token)
    }
    var seen: Set<UInt64> = []
    for _ in 0..<2 { try epoll.wait(milliseconds: 0) { seen.insert($0.token) } }
    #expect(seen.count == Epoll.batch + 6)
  }
}

@Suite struct TimeTests {
  @Test func clockGoesOnAndSleepLastsLongEnough() {
    let clock = MonotonicClock()
    let before = clock.now()
    clock.sleep(nanoseconds: 2_000_000)
    let after = clock.now()
    #expect(after - before >= 2_000_000)
  }

  @Test func timerFiresOnceOrPeriodically() throws {
    let timer = try TimerFD()
    let epoll = try Epoll()
    try epoll.add(timer.descriptor, token: 1)
    #expect(timer.drain() == 0)
    try timer.start(after: 1_000_000)
    #expect(try epoll.wait(milliseconds: 5000).count == 1)
    #expect(timer.drain() == 1)
    try timer.start(after: 0, every: 500_000)
    MonotonicClock().sleep(nanoseconds: 5_000_000)
    #expect(timer.drain() >= 5)
    try timer.stop()
    #expect(try epoll.wait(milliseconds: 3).isEmpty)
  }
}

@Suite struct SignalTests {
  @Test func aWatchedSignalIsReadNotDelivered() throws {
    let watcher = try SignalWatcher([SIGUSR1, SIGUSR2])
    #expect(watcher.next() == nil)
    // Sent to this thread alone: the other threads of the test runner do not block it.
    #expect(raise(SIGUSR2) == 0)
    let epoll = try Epoll()
    try epoll.add(watcher.descriptor, token: 1)
    #expect(try epoll.wait(milliseconds: 0).count == 1)
    #expect(watcher.next() == SIGUSR2)
    #expect(watcher.next() == nil)
  }

  @Test func anUnknownSignalIsRefused() {
    #expect(throws: SystemError("watch", "signal 1000", .invalidArgument)) { _ = try SignalWatcher([1000]) }
  }
}

@Suite struct CPUTests {
  @Test(arguments: [
    ("0-3,8", [0, 1, 2, 3, 8]), ("5\n", [5]), ("", []), ("\n", []), ("7,1-2,2", [1, 2, 7]),
  ])
  func parses(text: String, cpus: [Int]) { #expect(CPUList(parsing: text)?.cpus == cpus) }

  @Test(arguments: ["3-1", "a", "1,,2", "-1", "1-", "+1", "1-2-3", "1 2", "0-99999999999", "٣"])
  func refuses(text: String) { #expect(CPUList(parsing: text) == nil) }

  @Test func printsWhatItParses() {
    #expect(CPUList([9, 3, 2, 1, 7, 9]).description == "1-3,7,9")
    #expect(CPUList([Int]()).description == "")
  }

  @Test func pinsTheThread() throws {
    let allowed = try CPUList.allowed()
    let target = try #require(allowed.cpus.last)
    #expect(try CPUList.online().cpus.contains(target))
    // On a thread of its own, so that no other test is confined.
    let seen = Mutex<(cpus: [Int], name: String)>(([], ""))
    let thread = try JoinedThread(name: "a-name-longer-than-15-bytes", cpu: target) {
      let found = (try? CPUList.allowed().cpus, try? Files.line("/proc/thread-self/comm"))
      seen.withLock { $0 = (found.0 ?? [], found.1 ?? "") }
    }
    thread.join()
    #expect(seen.withLock { $0.cpus } == [target])
    #expect(seen.withLock { $0.name } == "a-name-longer-t")
    #expect(throws: SystemError("pin", "thread to CPU 1024", .invalidArgument)) { try CurrentThread.pin(to: 1024) }
    #expect(throws: SystemError("pin", "thread to CPU -1", .invalidArgument)) { try CurrentThread.pin(to: -1) }
    #expect(throws: SystemError("pin", "thread to CPU 1000", .invalidArgument)) {
      try JoinedThread(name: "nowhere", cpu: 1000) {}.join()
    }
  }
}
