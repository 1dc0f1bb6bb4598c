// The loop around ports: work, look at the clock now and then, sleep when there is nothing to do.
//
//     round, round, round …            packets, from one batch to the next
//        every 16 rounds               the clock
//        every millisecond             stop requests, link and device events
//        every second                  ticks of the drivers, the observer's figures
//     nothing for a while (adaptive)   arm every queue, look again, sleep until an interrupt

internal import CRingway
public import DMAMemory
public import DeviceIO
internal import DriverKit
internal import NetmapCore
internal import PCI
internal import Packet
public import Platform

/// When a loop sleeps.
public enum WaitMode: Equatable, Sendable {
  /// Never: the lowest latency, a whole processor.
  case poll
  /// Whenever a round found nothing.
  case interrupt
  /// After `idleMicroseconds` without a packet.
  case adaptive(idleMicroseconds: Int)

  public static let standard = WaitMode.adaptive(idleMicroseconds: 50)
}

/// What a loop does with its ports.
public protocol PortWork: ~Copyable {
  /// One pass over the queues.
  /// - Parameter now: monotonic nanoseconds, at most 16 rounds old.
  /// - Returns: how many packets were moved.
  mutating func round(now: UInt64) -> Int
  /// True when there is nothing left to do.
  func isDone(now: UInt64) -> Bool
  /// How long a round that moved nothing may be followed by rest, in nanoseconds, beside
  /// interrupts: a sender that waits for its rate or for room says when to look again.
  func rest(now: UInt64) -> UInt64?
  /// Shows figures up to date to other threads and to the observer.
  mutating func publish()
}

extension PortWork where Self: ~Copyable {
  public func isDone(now: UInt64) -> Bool { false }
  public func rest(now: UInt64) -> UInt64? { nil }
  public mutating func publish() {}
}

/// Hears of what a loop's person wants to know.
public protocol LoopObserver: AnyObject {
  /// A card's link or state changed.
  func loopSaw(_ events: PortEvents, on port: Port)
  /// About a second has passed since the last call; `elapsed` is nanoseconds since the start.
  func loopTick(elapsed: UInt64)
}

/// Why a loop ended.
public enum LoopEnd: Equatable, Sendable {
  /// The work said that it is done.
  case done
  /// A stop descriptor became readable.
  case stopped
  /// The time is over.
  case timeout
}

/// Runs work over ports on the calling thread.
public struct PortLoop: ~Copyable {
  private let ports: [Port]
  private let mode: WaitMode
  private let clock: any TimeSource
  /// What it has cost so far; up to date when the observer is called, and after `run`.
  public let figures = LoopFigures()
  /// Stop requests, link and device events.
  private let control: Epoll
  /// Those, and every queue's interrupt.
  private let everything: Epoll

  private enum Token {
    static let stop: UInt64 = 1 << 32
    static let control: UInt64 = 1 << 33
    /// A queue's descriptor, and above the others' bits which port it belongs to.
    static func queue(_ descriptor: Int32, port: Int) -> UInt64 { UInt64(port) << 34 | UInt64(UInt32(bitPattern: descriptor)) }
    static func isQueue(_ token: UInt64) -> Bool { token & (stop | control) == 0 }
  }

  /// - Parameters:
  ///   - stop: the loop ends when one of these becomes readable; it does not read them.
  public init(
    _ ports: [Port], mode: WaitMode = .standard, stop: [Int32] = [], clock: any TimeSource = MonotonicClock()
  ) throws(RingwayError) {
    let control = try Self.epoll()
    let everything = try Self.epoll()
    do { try Self.watch(ports, stop: stop, control: control, everything: everything) } catch { throw .system(error) }
    self.init(ports, mode: mode, clock: clock, control: control, everything: everything)
  }

  private init(
    _ ports: [Port], mode: WaitMode, clock: any TimeSource, control: consuming Epoll, everything: consuming Epoll
  ) {
    self.ports = ports
    self.mode = mode
    self.clock = clock
    self.control = control
    self.everything = everything
  }

  private static func epoll() throws(RingwayError) -> Epoll {
    do { return try Epoll() } catch { throw .system(error) }
  }

  private static func watch(
    _ ports: [Port], stop: [Int32], control: borrowing Epoll, everything: borrowing Epoll
  ) throws(SystemError) {
    for descriptor in stop { try control.add(descriptor, token: Token.stop) }
    try everything.add(control.descriptor, token: Token.control)
    for (index, port) in ports.enumerated() {
      // A queue may share its descriptor with the control events: it is watched once.
      var watched: Set<Int32> = []
      for descriptor in [port.controlDescriptor, port.functionDescriptor] where descriptor >= 0 {
        if watched.insert(descriptor).inserted { try control.add(descriptor, token: UInt64(index)) }
      }
      for queue in 0..<port.queueCount {
        let descriptor = port.eventDescriptor(queue: queue)
        guard descriptor >= 0, watched.insert(descriptor).inserted else { continue }
        try everything.add(descriptor, token: Token.queue(descriptor, port: index))
      }
    }
  }

  /// Works until the work is done, somebody wants it to stop, or `limit` nanoseconds are over.
  ///
  /// Throws the failure of a port that was lost; the other ports stay open.
  public borrowing func run<Work: PortWork & ~Copyable>(
    _ work: inout Work, limit: UInt64? = nil, observer: (any LoopObserver)? = nil
  ) throws(RingwayError) -> LoopEnd {
    let start = clock.now()
    var now = start
    var lastWork = start
    var nextLook = start
    var nextSecond = start &+ 1_000_000_000
    var cost = figures.begin()
    defer {
      figures.note(cost)
      work.publish()
    }
    maskAll()
    while true {
      var moved = 0
      let before = rw_ticks()
      var turns = 0
      while turns < 16 {
        let n = work.round(now: now)
        moved &+= n
        turns &+= 1
        // A round that found nothing goes on to the clock, so that waiting is measured.
        if n == 0 { break }
      }
      now = clock.now()
      if moved > 0 {
        lastWork = now
        cost.add(moved, since: before)
      }
      if work.isDone(now: now) { return .done }
      if let limit, now &- start >= limit { return .timeout }
      if now >= nextLook {
        nextLook = now &+ 1_000_000
        if try look(observer) { return .stopped }
      }
      if now >= nextSecond {
        nextSecond = max(nextSecond &+ 1_000_000_000, now)
        figures.note(cost)
        try second(&work, elapsed: now &- start, observer)
      }
      if moved == 0, shouldRest(idle: now &- lastWork) {
        let end = min(nextSecond, limit.map { start &+ $0 } ?? .max)
        if let pause = work.rest(now: now) {
          if pause > 0 { clock.sleep(nanoseconds: min(pause, 10_000_000)) }
        } else {
          try sleep(until: end, now: now)
          nextLook = 0
        }
        // The rounds to come measure how long rings stand still, and sleep is no standstill.
        now = clock.now()
      }
    }
  }

  private func shouldRest(idle: UInt64) -> Bool {
    switch mode {
    case .poll: false
    case .interrupt: true
    case .adaptive(let microseconds): idle >= UInt64(max(0, microseconds)) &* 1000
    }
  }

  /// Arms every queue and sleeps until an interrupt, an event or `end`.
  private func sleep(until end: UInt64, now: UInt64) throws(RingwayError) {
    var waiting = false
    for port in ports {
      for queue in 0..<port.queueCount {
        port.reclaim(queue: queue)
        if port.arm(queue: queue) { waiting = true }
      }
    }
    if !waiting {
      let milliseconds = end > now ? (end &- now &+ 999_999) / 1_000_000 : 0
      do {
        try everything.wait(milliseconds: Int32(clamping: milliseconds)) { event in
          guard Token.isQueue(event.token) else { return }
          ports[Int(event.token >> 34)].interrupts &+= EventFD.drain(Int32(truncatingIfNeeded: event.token))
        }
      } catch { throw .system(error) }
    }
    maskAll()
  }

  private func maskAll() {
    for port in ports { for queue in 0..<port.queueCount { port.mask(queue: queue) } }
  }

  /// Serves what has happened beside packets. Returns true when the loop has to stop.
  private func look(_ observer: (any LoopObserver)?) throws(RingwayError) -> Bool {
    let events: [Epoll.Event]
    do { events = try control.wait(milliseconds: 0) } catch { throw .system(error) }
    var stop = false
    for event in events {
      if event.token == Token.stop {
        stop = true
      } else if event.token < ports.count {
        let port = ports[Int(event.token)]
        try report(port.service(), port, observer)
      }
    }
    return stop
  }

  private func second<Work: PortWork & ~Copyable>(
    _ work: inout Work, elapsed: UInt64, _ observer: (any LoopObserver)?
  ) throws(RingwayError) {
    for port in ports { try report(port.tick(), port, observer) }
    work.publish()
    observer?.loopTick(elapsed: elapsed)
  }

  private func report(_ events: PortEvents, _ port: Port, _ observer: (any LoopObserver)?) throws(RingwayError) {
    if !events.isEmpty { observer?.loopSaw(events, on: port) }
    if events.contains(.lost), let failure = port.failure { throw failure }
  }
}
