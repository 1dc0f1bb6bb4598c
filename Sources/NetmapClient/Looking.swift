// poll(2)'s rules for a netmap descriptor: what is ready, and which syncs that takes.

internal import CRingway
internal import NetmapAPI

extension NetmapAttachment {
  private static let readEvents = Int16(POLLIN | POLLRDNORM)
  private static let writeEvents = Int16(POLLOUT | POLLWRNORM)

  /// One look. Transmits what is pending, whatever the events (with NO_TX_POLL only when room is asked for); receives
  /// when somebody waits for it (or with DO_RX_POLL).
  /// - Returns: the events that are ready; POLLERR when a sync reset a ring, the port is gone, or a CSB drives it.
  public func look(_ events: Int16, on descriptor: Int32) -> Int16 {
    guard isOpen, !isDrivenByCSB else { return Int16(POLLERR) }
    let read = events & Self.readEvents
    let write = events & Self.writeEvents
    var ready: Int16 = 0
    // Room that the program has not looked at yet needs no sync, nor do packets it has not looked at, unless it has
    // given slots back.
    var wantsRoom = write != 0
    if wantsRoom, hasUnseen(receive: false) {
      ready |= write
      wantsRoom = false
    }
    var receives = reply.flags.contains(.receivePoll)
    if read != 0 {
      if needsReceive() { receives = true } else { ready |= read }
    }
    if !reply.flags.contains(.noTransmitPoll) || write != 0 {
      let result = syncSome(receive: false, all: wantsRoom, on: descriptor)
      if result < 0 { return Int16(POLLERR) }
      if result > 0, wantsRoom { ready |= write }
    }
    if receives {
      let result = syncSome(receive: true, all: true, on: descriptor)
      if result < 0 { return Int16(POLLERR) }
      if result > 0 { ready |= read }
    }
    return ready
  }

  /// Somebody is about to sleep for these events: the daemon sends a byte when one comes. Look once more after this.
  public func arm(_ events: Int16) {
    // SAFETY: fields of the page's header.
    if events & Self.readEvents != 0 { unsafe rw_store_release32(page.base + SyncPage.receiveArmed, 1) }
    if events & Self.writeEvents != 0 { unsafe rw_store_release32(page.base + SyncPage.transmitArmed, 1) }
    rw_fence()
  }

  private func hasUnseen(receive: Bool) -> Bool {
    for index in rings(receive: receive) {
      let ring = unsafe rings[index]
      if ring.cur != ring.tail { return true }
    }
    return false
  }

  /// A receive ring that has nothing new, or that the program has given slots of back.
  private func needsReceive() -> Bool {
    for index in rings(receive: true) {
      let ring = unsafe rings[index]
      if ring.cur == ring.tail || ring.head != ring.hwcur { return true }
    }
    return rings(receive: true).isEmpty
  }

  /// Syncs rings of a direction: all, or those with something pending. 1: one has something unseen; -1: one was reset, or
  /// the worker does not answer.
  private func syncSome(receive: Bool, all: Bool, on descriptor: Int32) -> Int {
    let range = rings(receive: receive)
    var result = 0
    var first = range.lowerBound
    while first < range.upperBound {
      let last = min(first + 64, range.upperBound)
      var mask: UInt64 = 0
      for index in first..<last {
        let ring = unsafe rings[index]
        if all || ring.head != ring.hwcur { mask |= 1 << UInt64(index - first) }
      }
      if mask != 0 { ask(first, last, mask) }
      for index in first..<last where mask & 1 << UInt64(index - first) != 0 {
        let ring = unsafe rings[index]
        if settle(ring, on: descriptor) != 0 || ring.isFaulted { return -1 }
        if ring.cur != ring.tail { result = 1 }
      }
      first = last
    }
    return result
  }
}
