// poll(2) over netmap's descriptors and others together.
//
//   look at each of netmap's ── one ready? ── yes ──> the others, without waiting ──> done
//        ^                          no
//        │                          v
//        │      arm each, look again ── still nothing ──> sleep on everything (poll(2)), at most 100 ms
//        └── netmap's socket has a byte, or the time is over ──┘      another descriptor is ready ──> look, done

public import CRingway
internal import NetmapAPI
internal import Platform

/// What a descriptor is to a wait.
public enum NetmapFound {
  /// None of ours.
  case other
  /// Ours, but nothing is registered on it: POLLERR.
  case bare
  case attached(NetmapAttachment)
}

public enum NetmapWait {
  /// As poll(2) with nanoseconds: how many entries have events, 0 when the time is over, -1 with errno (EINTR, EFAULT, …).
  /// - Parameters:
  ///   - limit: nanoseconds; nil waits for ever.
  ///   - signals: the kernel's 8-byte signal set to sleep with, or null.
  ///   - find: what a descriptor is.
  public static func poll(
    _ list: UnsafeMutablePointer<pollfd>, _ count: Int, limit: UInt64?, signals: UnsafeRawPointer? = nil, find: (Int32) -> NetmapFound
  ) -> Int32 {
    // SAFETY: the caller answers for `count` entries.
    // One port that is ready, or not to be waited for: the usual case, and nothing is allocated.
    if count == 1, unsafe list[0].fd >= 0, case .attached(let attachment) = find(unsafe list[0].fd) {
      let ready = unsafe attachment.look(list[0].events, on: list[0].fd)
      if ready != 0 || limit == 0 {
        unsafe list[0].revents = ready
        return ready != 0 ? 1 : 0
      }
    }
    var found: [NetmapFound] = []
    found.reserveCapacity(count)
    for index in 0..<count { unsafe found.append(list[index].fd >= 0 ? find(list[index].fd) : .other) }
    var wait = unsafe Waiting(list: list, count: count, found: found, signals: signals)
    return wait.run(limit)
  }
}

/// One call of poll.
@safe private struct Waiting {
  // SAFETY: the caller of NetmapWait.poll answers for the entries and the signal set during the call.
  let list: UnsafeMutablePointer<pollfd>
  let count: Int
  let found: [NetmapFound]
  var signals: UnsafeRawPointer?
  /// What the kernel is asked about: netmap's sockets for bytes, the others for their own events.
  var asked: [pollfd] = []
  var others = 0

  init(list: UnsafeMutablePointer<pollfd>, count: Int, found: [NetmapFound], signals: UnsafeRawPointer?) {
    unsafe self.list = unsafe list
    self.count = count
    self.found = found
    unsafe self.signals = unsafe signals
    asked.reserveCapacity(count)
    for index in 0..<count {
      var entry = unsafe list[index]
      if case .other = found[index] { others += 1 } else { entry.events = Int16(POLLIN) }
      entry.revents = 0
      asked.append(entry)
    }
  }

  /// Signals wait while the ports are looked at: one that comes then ends the sleep, with EINTR, as it would end poll(2).
  mutating func run(_ limit: UInt64?) -> Int32 {
    let before = rw_block_signals()
    var mask = before
    let given = unsafe signals
    let result = unsafe withUnsafePointer(to: &mask) { own in
      unsafe signals = unsafe given ?? UnsafeRawPointer(own)
      return turns(limit)
    }
    rw_restore_signals(before)
    return result
  }

  private mutating func turns(_ limit: UInt64?) -> Int32 {
    let start = MonotonicClock().now()
    while true {
      if look() > 0 {
        if others == 0 { return result() }
        let kernel = sleep(0)
        return finish(kernel)
      }
      let left = limit.map { limit in
        let spent = MonotonicClock().now() &- start
        return spent < limit ? limit - spent : 0
      }
      if left == 0 {
        let kernel = sleep(0)
        return finish(kernel)
      }
      arm()
      if look() > 0 { continue }
      let slept = sleep(min(left ?? UInt64.max, UInt64(SyncPage.longestSleep) * 1_000_000))
      if slept < 0 { return slept }
      if takeWakeups() { return finish(0) }
    }
  }

  /// Looks at all of netmap's descriptors; how many are ready.
  private func look() -> Int {
    var ready = 0
    for index in 0..<count {
      let entry = unsafe list[index]
      switch found[index] {
      case .other: unsafe list[index].revents = 0
      case .bare:
        unsafe list[index].revents = Int16(POLLERR)
        ready += 1
      case .attached(let attachment):
        unsafe list[index].revents = attachment.look(entry.events, on: entry.fd)
        if unsafe list[index].revents != 0 { ready += 1 }
      }
    }
    return ready
  }

  private func arm() {
    for index in 0..<count {
      if case .attached(let attachment) = found[index] { unsafe attachment.arm(list[index].events) }
    }
  }

  /// Sleeps on everything: poll(2)'s result, -1 with errno.
  private mutating func sleep(_ nanoseconds: UInt64) -> Int32 {
    var limit = timespec(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
    // With nothing to wait for, netmap's sockets are not looked at: their bytes stay for the next sleep.
    if nanoseconds == 0 {
      for index in 0..<count { if case .other = found[index] {} else { asked[index].fd = -1 } }
      defer { for index in 0..<count { unsafe asked[index].fd = list[index].fd } }
      return unsafe asked.withUnsafeMutableBufferPointer { unsafe rw_raw_poll($0.baseAddress, UInt($0.count), &limit, signals) }
    }
    return unsafe asked.withUnsafeMutableBufferPointer { unsafe rw_raw_poll($0.baseAddress, UInt($0.count), &limit, signals) }
  }

  /// Takes the bytes off netmap's sockets. True when another descriptor is ready, or one of netmap's has lost its daemon.
  private mutating func takeWakeups() -> Bool {
    var ends = false
    for index in 0..<count where asked[index].revents != 0 {
      if case .other = found[index] {
        ends = true
      } else if unsafe !NetmapChannel.drain(list[index].fd) {
        ends = true
      }
    }
    if ends { _ = look() }
    for index in 0..<count where ends && asked[index].revents & Int16(POLLHUP | POLLERR | POLLNVAL) != 0 {
      if case .attached = found[index] { unsafe list[index].revents = asked[index].revents & Int16(POLLNVAL) != 0 ? Int16(POLLNVAL) : Int16(POLLERR) }
    }
    return ends
  }

  /// Puts the kernel's answers about the others beside ours.
  private func finish(_ kernel: Int32) -> Int32 {
    if kernel < 0 {
      let ours = result()
      return ours > 0 ? ours : kernel
    }
    for index in 0..<count {
      if case .other = found[index] { unsafe list[index].revents = asked[index].revents }
    }
    return result()
  }

  private func result() -> Int32 {
    var ready: Int32 = 0
    for index in 0..<count where unsafe list[index].revents != 0 { ready += 1 }
    return ready
  }
}
