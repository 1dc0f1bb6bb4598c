// The sync: a request in the page, a doorbell if its worker sleeps, a bounded wait (NetmapAPI, SyncPage.swift).

internal import CRingway
internal import NetmapAPI
internal import Platform

extension NetmapAttachment {
  /// Nanoseconds after which a sync gives its worker up, with ETIMEDOUT.
  public static let patience: UInt64 = 10_000_000_000

  /// The rings of a direction.
  @inline(__always) func rings(receive: Bool) -> Range<Int> { receive ? transmitCount..<ringCount : 0..<transmitCount }

  /// NIOCTXSYNC, NIOCRXSYNC: 0, or ENXIO (gone), EBUSY (driven by a CSB), ETIMEDOUT (the worker does not answer). A ring
  /// that was reset is no error here.
  public func sync(receive: Bool, on descriptor: Int32) -> Int32 {
    guard isOpen else { return ENXIO }
    guard !isDrivenByCSB else { return EBUSY }
    return syncRings(rings(receive: receive), on: descriptor)
  }

  /// Syncs these rings whatever mode the descriptor is in.
  func syncRings(_ range: Range<Int>, on descriptor: Int32) -> Int32 {
    var first = range.lowerBound
    while first < range.upperBound {
      let last = min(first + 64, range.upperBound)
      ask(first, last, UInt64.max)
      for index in first..<last {
        let errno = settle(unsafe rings[index], on: descriptor)
        if errno != 0 { return errno }
      }
      first = last
    }
    return 0
  }

  /// Asks for a sync of the rings first ..< last whose bit is set, and rings their doorbells.
  func ask(_ first: Int, _ last: Int, _ mask: UInt64) {
    var index = first
    while index < last {
      if mask & 1 << UInt64(index - first) != 0 {
        let ring = unsafe rings[index]
        if !ring.isReceive, isSwitchPort { copyIndirect(ring) }
        ring.ask()
      }
      index += 1
    }
    rw_fence()
    var rung: UInt32 = 0
    index = first
    while index < last {
      let ring = unsafe rings[index]
      if mask & 1 << UInt64(index - first) != 0, rung & 1 << ring.doorbellNumber == 0, ring.workerSleeps {
        rung |= 1 << ring.doorbellNumber
        EventFD.signal(ring.doorbell)
      }
      index += 1
    }
  }

  /// Waits until everything that was asked for up to now is done: 0, ENXIO or ETIMEDOUT.
  func settle(_ ring: AttachedRing, on descriptor: Int32) -> Int32 {
    let wanted = ring.requested
    if isDone(ring, wanted) { return 0 }
    let start = MonotonicClock().now()
    var now = start
    while now &- start < spin {
      for _ in 0..<32 {
        if isDone(ring, wanted) { return 0 }
        rw_pause()
      }
      now = MonotonicClock().now()
    }
    // SAFETY: both words lie in the ring's lines.
    let done = unsafe (ring.line + SyncPage.done).assumingMemoryBound(to: UInt32.self)
    _ = unsafe rw_add32(ring.line + SyncPage.waiters, 1)
    defer { _ = unsafe rw_add32(ring.line + SyncPage.waiters, UInt32.max) }
    while true {
      let seen = ring.done
      if Int32(bitPattern: seen &- wanted) >= 0 { return 0 }
      if !isOpen { return ENXIO }
      unsafe rw_futex_wait(done, seen, UInt64(SyncPage.longestSleep) * 1_000_000)
      if ring.done != seen { continue }
      if NetmapChannel.isGone(descriptor) { return ENXIO }
      if MonotonicClock().now() &- start > Self.patience { return ETIMEDOUT }
      // A worker that went to sleep between our request and its last look sees the doorbell at the latest now.
      if ring.workerSleeps { EventFD.signal(ring.doorbell) }
    }
  }

  @inline(__always) private func isDone(_ ring: AttachedRing, _ wanted: UInt32) -> Bool {
    Int32(bitPattern: ring.done &- wanted) >= 0
  }

  /// Brings what INDIRECT slots point to into the slots' own buffers: the daemon cannot look into this process's memory.
  /// A pointer to nowhere makes the slot's packet empty, which the switch drops.
  private func copyIndirect(_ ring: AttachedRing) {
    let head = ring.head
    var at = ring.hwcur
    guard head < ring.slots, at < ring.slots else { return }
    // SAFETY: slots lie in the region (checked at the attach); the buffer's bounds are checked before it is written.
    while at != head {
      let slot = unsafe ring.header + 256 + 16 * Int(at)
      let word = unsafe rw_read64(slot)
      if word >> 48 & 0x10 != 0 {
        let pointer = unsafe rw_read64(slot + 8)
        let wanted = Int(UInt16(truncatingIfNeeded: word >> 32))
        if let (buffer, size) = unsafe buffer(UInt32(truncatingIfNeeded: word), of: ring), wanted <= size, wanted > 0,
          unsafe rw_copy_in(buffer, pointer, wanted) != wanted
        {
          unsafe rw_write16(slot + 4, 0)
        }
      }
      at = at + 1 == ring.slots ? 0 : at + 1
    }
  }

  /// A buffer by its index, if all of it lies in the region: the ring's own fields say where, and a program can write those.
  public func buffer(_ index: UInt32, of ring: AttachedRing) -> (UnsafeMutableRawPointer, Int)? {
    let start = Int64(bitPattern: unsafe rw_read64(ring.header))
    let size = Int64(unsafe rw_read32(ring.header + 12))
    let (distance, overflow) = start.addingReportingOverflow(Int64(index) * size)
    let (at, beyond) = distance.addingReportingOverflow(Int64(unsafe ring.header - memory))
    guard !overflow, !beyond, size > 0, at >= 0, at <= Int64(memoryCount) - size else { return nil }
    return unsafe (memory + Int(at), Int(size))
  }
}
