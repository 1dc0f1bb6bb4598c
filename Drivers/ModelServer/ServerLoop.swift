// The loop around one server, or around several whose models are joined by a wire.
//
//     work ──> idle for `spin` ──> sleep 20 us, 40 us … `longestSleep` ──> work
//                                       └── at once on: a message, a frame, a deadline, a stop
//
// A doorbell in shared memory wakes nobody, so sleep is bounded while a client shares pages: the
// bound is the longest that a doorbell waits after a pause. In trapped mode, and without a client,
// everything that happens wakes a descriptor.

internal import CRingway
internal import Platform
internal import SystemPackage

/// Runs servers until it is told to stop.
public struct ServerLoop {
  /// How long to go on looking without a pause after the last thing that happened. Nanoseconds.
  public var spin: UInt64 = 50_000
  /// The longest sleep while doorbells are shared. Nanoseconds.
  public var longestSleep: UInt64 = 1_000_000
  /// Trapped mode: how long nobody asks anything before virtual time goes on. Nanoseconds.
  public var patience: UInt64 = 2_000_000
  private let servers: [ModelServer]
  private let clock = MonotonicClock()

  public init(_ servers: [ModelServer]) { self.servers = servers }

  private var isSpinning: Bool { servers.contains { $0.hasClient && $0.options.mode == .shared } }

  /// - Parameters:
  ///   - stop: ends the loop when it is readable; not read.
  ///   - interval: nanoseconds between calls of `tick`; 0 for none.
  ///   - tick: for figures. Returns false to end the loop.
  /// - Throws: when waiting is impossible.
  public func run(until stop: Int32, interval: UInt64 = 0, tick: () -> Bool = { true }) throws(ModelServerError) {
    var lastWork = clock.now()
    var lastLook: UInt64 = 0
    var nextTick = interval == 0 ? UInt64.max : lastWork &+ interval
    var sleep: UInt64 = 0
    var isStopped = false
    while !isStopped {
      let now = clock.now()
      if now >= nextTick {
        if !tick() { return }
        nextTick = max(nextTick &+ interval, now)
      }
      // Sockets cost a system call: while the device is busy they are looked at less often.
      let looks = sleep > 0 || now &- lastWork > 2_000 || now &- lastLook > 10_000
      if looks { lastLook = now }
      var moved = 0
      for server in servers { moved &+= server.round(listens: looks) }
      if moved > 0 {
        lastWork = now
        sleep = 0
        // Ctrl-C is looked at now and then, however busy it is.
        if looks, now & 0xff == 0 { isStopped = try wait(0, stop) }
        continue
      }
      if isSpinning, now &- lastWork < spin {
        rw_pause()
        continue
      }
      isStopped = try pause(&sleep, now, min(nextTick, .max), stop)
    }
  }

  /// One sleep, longer than the one before.
  private func pause(_ sleep: inout UInt64, _ now: UInt64, _ nextTick: UInt64, _ stop: Int32) throws(ModelServerError) -> Bool {
    sleep = min(max(sleep &* 2, 20_000), longestSleep)
    var limit: UInt64 = isSpinning ? sleep : 1_000_000_000
    for server in servers {
      if let deadline = server.untilDeadline { limit = min(limit, max(deadline, 1)) }
      if server.hasClient, server.options.mode == .trapped { limit = min(limit, patience) }
    }
    if nextTick != .max { limit = min(limit, nextTick > now ? nextTick &- now : 1) }
    let before = clock.now()
    let isStopped = try wait(limit, stop)
    // Nothing woke us: in trapped mode it is the device's turn.
    if clock.now() &- before >= patience { for server in servers where server.jump() { sleep = 0 } }
    return isStopped
  }

  /// Waits for any server's descriptors. True when told to stop.
  private func wait(_ nanoseconds: UInt64, _ stop: Int32) throws(ModelServerError) -> Bool {
    var list = [pollfd(fd: stop, events: Int16(POLLIN), revents: 0)]
    for server in servers {
      for (place, descriptor) in server.wakeDescriptors.enumerated() {
        let events = place == 0 && server.isBlocked ? POLLOUT : POLLIN
        list.append(pollfd(fd: descriptor, events: Int16(events), revents: 0))
      }
    }
    // SAFETY: the kernel fills the array's own entries.
    let ready = unsafe list.withUnsafeMutableBufferPointer { unsafe rw_poll($0.baseAddress!, UInt($0.count), nanoseconds) }
    if ready < 0, Errno(rawValue: rw_errno()) != .interrupted {
      throw .system("Waiting for clients", Errno(rawValue: rw_errno()))
    }
    return list[0].revents != 0
  }
}
