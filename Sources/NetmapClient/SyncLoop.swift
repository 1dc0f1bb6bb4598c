// CSB mode: a loop that syncs for the program, which publishes head and cur in control blocks of its own memory.
//
//   program                          control blocks, 64 bytes a ring              loop (here)
//   head, cur, "wake me"   ────────> to the loop                       ────────>  ring's head and cur, a sync
//   reads hwcur, hwtail    <──────── to the program: hwcur, hwtail,    <────────  what the sync answered
//                                    "kick me"
//
// With an eventfd for each ring the loop sleeps until the program kicks it or the daemon has news; otherwise it goes round
// every `sleep` microseconds. Blocks are the program's memory: what stands there may be anything, and goes to the daemon,
// which checks it as it checks every ring.

internal import CRingway
internal import NetmapAPI
internal import Platform

/// A run of the loop, in the thread that asked for it.
struct SyncLoop {
  private let attachment: NetmapAttachment
  private let descriptor: Int32
  private let sleep: UInt32
  private let events: [LoopEventsOption.Ring]?
  private let mode: UInt32

  // Values of the page's loop word. The next word is the process that runs it.
  static let idle: UInt32 = 0, running: UInt32 = 1, stopping: UInt32 = 2, stopFirst: UInt32 = 3

  init(_ attachment: NetmapAttachment, _ descriptor: Int32, sleep: UInt32, events: [LoopEventsOption.Ring]?, mode: UInt32) {
    self.attachment = attachment
    self.descriptor = descriptor
    self.sleep = sleep
    self.events = events
    self.mode = mode
  }

  // MARK: Enable, start, stop

  /// Notes where the blocks are and writes the first ones: EINVAL unless both addresses are multiples of 64, EFAULT when
  /// the memory cannot be read and written.
  static func enable(_ attachment: NetmapAttachment, toLoop: UInt64, toProgram: UInt64) -> Int32 {
    guard toLoop % 64 == 0, toProgram % 64 == 0, toLoop != 0, toProgram != 0 else { return EINVAL }
    for index in 0..<attachment.ringCount {
      let ring = attachment.ring(index)
      let offset = UInt64(index * ControlBlock.size)
      guard var mine = ProgramIoctl.copyIn(toLoop &+ offset, ControlBlock.size), var theirs = ProgramIoctl.copyIn(toProgram &+ offset, ControlBlock.size)
      else { return EFAULT }
      put(ring.head, at: ControlBlock.head, in: &mine)
      put(ring.cur, at: ControlBlock.cur, in: &mine)
      put(1, at: ControlBlock.programNeedsKick, in: &mine)
      put(1, at: ControlBlock.syncFlags, in: &mine)
      put(ring.hwcur, at: ControlBlock.hwcur, in: &theirs)
      put(ring.hwtail, at: ControlBlock.hwtail, in: &theirs)
      put(1, at: ControlBlock.loopNeedsKick, in: &theirs)
      guard ProgramIoctl.copyOut(toLoop &+ offset, mine), ProgramIoctl.copyOut(toProgram &+ offset, theirs) else { return EFAULT }
    }
    attachment.blocks.withLock { $0 = ControlBlocks(toLoop: toLoop, toProgram: toProgram) }
    return 0
  }

  /// Whether so many blocks can be read and written, both ways. Addresses that are not aligned are the daemon's to refuse.
  static func areReachable(_ blocks: ControlBlocksOption, rings: Int) -> Bool {
    for start in [blocks.toLoop, blocks.toProgram] where start % 64 == 0 {
      for index in 0..<rings {
        let address = start &+ UInt64(index * ControlBlock.size)
        guard let bytes = ProgramIoctl.copyIn(address, ControlBlock.size), ProgramIoctl.copyOut(address, bytes) else { return false }
      }
    }
    return true
  }

  private static func put(_ value: UInt32, at offset: Int, in bytes: inout [UInt8]) {
    for i in 0..<4 { bytes[offset + i] = UInt8(truncatingIfNeeded: value >> UInt32(8 * i)) }
  }

  // SAFETY: of all users of `word`: two fields of the page's header.
  private static func word(_ attachment: NetmapAttachment) -> UnsafeMutablePointer<UInt32> {
    unsafe (attachment.page.base + SyncPage.loopState).assumingMemoryBound(to: UInt32.self)
  }

  /// Ends the loop, wherever it runs, and waits until it has ended. One that has not started yet ends at its start.
  static func stop(_ attachment: NetmapAttachment) -> Int32 {
    let word = unsafe word(attachment)
    while true {
      switch unsafe rw_load_acquire32(word) {
      case idle: if unsafe rw_compare_and_swap32(word, idle, stopFirst) != 0 { return 0 }
      case stopFirst: return 0
      case running:
        if unsafe !isAlive(rw_load_acquire32(word + 1)) {
          if unsafe rw_compare_and_swap32(word, running, idle) != 0 { return 0 }
        } else if unsafe rw_compare_and_swap32(word, running, stopping) != 0 {
          unsafe rw_futex_wake(word)
        }
      default:
        if unsafe !isAlive(rw_load_acquire32(word + 1)) { _ = unsafe rw_compare_and_swap32(word, stopping, idle) }
        if unsafe rw_load_acquire32(word) != stopping { return 0 }
        unsafe rw_futex_wait(word, stopping, 10_000_000)
        if unsafe rw_load_acquire32(word) != stopping { return 0 }
      }
    }
  }

  private static func isAlive(_ process: UInt32) -> Bool {
    process != 0 && (kill(pid_t(truncatingIfNeeded: process), 0) == 0 || rw_errno() == EPERM)
  }

  /// Runs until somebody stops it: 0. EINVAL without control blocks or with wrong eventfds, EBUSY when a loop runs already,
  /// ENXIO when the port goes away.
  func run(_ settle: (NetmapOptionType, NetmapError.Code?) -> Void) -> Int32 {
    guard attachment.isDrivenByCSB, let blocks = attachment.blocks.withLock({ $0 }) else { return EINVAL }
    let word = unsafe Self.word(attachment)
    while unsafe rw_compare_and_swap32(word, Self.idle, Self.running) == 0 {
      if unsafe rw_compare_and_swap32(word, Self.stopFirst, Self.idle) != 0 { return 0 }
      let seen = unsafe rw_load_acquire32(word)
      guard seen == Self.running || seen == Self.stopping else { continue }
      if unsafe Self.isAlive(rw_load_acquire32(word + 1)) { return EBUSY }
      _ = unsafe rw_compare_and_swap32(word, seen, Self.idle)
    }
    unsafe rw_store_release32(word + 1, UInt32(bitPattern: getpid()))
    defer {
      unsafe rw_store_release32(word + 1, 0)
      unsafe rw_store_release32(word, Self.idle)
      unsafe rw_futex_wake(word)
    }
    if let events {
      guard events.count == attachment.ringCount, events.allSatisfy({ Self.isOpen($0.toLoop) && Self.isOpen($0.toProgram) }) else {
        settle(.loopEvents, .EINVAL)
        return EINVAL
      }
      settle(.loopEvents, nil)
    }
    guard mode & ~(LoopModeOption.directTransmit | LoopModeOption.directReceive) == 0, mode == 0 || events != nil else {
      settle(.loopMode, .EINVAL)
      return EINVAL
    }
    settle(.loopMode, nil)
    return unsafe turn(blocks, word)
  }

  private static func isOpen(_ descriptor: Int32) -> Bool { descriptor < 0 || rw_raw_fcntl(descriptor, F_GETFD, 0) >= 0 }

  // MARK: Turns

  private func turn(_ blocks: ControlBlocks, _ word: UnsafeMutablePointer<UInt32>) -> Int32 {
    let kicked = events.map { $0.allSatisfy { $0.toLoop >= 0 } } ?? false
    while unsafe rw_load_acquire32(word) == Self.running {
      // Armed before the rings are looked at: what comes later wakes the loop.
      if kicked { attachment.arm(Int16(POLLIN) | Int16(POLLOUT)) }
      for index in 0..<attachment.ringCount {
        let ring = LoopRing(
          attachment: attachment, index: index, descriptor: descriptor, toLoop: blocks.toLoop &+ UInt64(index * ControlBlock.size),
          toProgram: blocks.toProgram &+ UInt64(index * ControlBlock.size), usesKicks: kicked, event: events?[index].toProgram ?? -1)
        let errno = ring.serve()
        if errno != 0 { return errno }
      }
      if kicked {
        if !waitForKick() { return ENXIO }
      } else if sleep > 0 {
        MonotonicClock().sleep(nanoseconds: UInt64(sleep) * 1000)
      } else {
        sched_yield()
      }
    }
    return 0
  }

  /// Sleeps until a kick or a wakeup comes, at most 10 ms: somebody may stop the loop. False when the daemon is gone.
  private func waitForKick() -> Bool {
    guard let events else { return true }
    var list = [pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)]
    for ring in events { list.append(pollfd(fd: ring.toLoop, events: Int16(POLLIN), revents: 0)) }
    var limit = timespec(tv_sec: 0, tv_nsec: 10_000_000)
    // SAFETY: the array's own entries and a local structure.
    _ = unsafe list.withUnsafeMutableBufferPointer { unsafe rw_raw_poll($0.baseAddress, UInt($0.count), &limit, nil) }
    for entry in list.dropFirst() where entry.revents & Int16(POLLIN) != 0 {
      var count: UInt64 = 0
      // SAFETY: eight bytes of a local variable; poll(2) said that a read does not block.
      _ = unsafe read(entry.fd, &count, 8)
    }
    return list[0].revents == 0 || NetmapChannel.drain(descriptor)
  }
}

/// One ring in one turn of the loop.
private struct LoopRing {
  let attachment: NetmapAttachment
  let index: Int
  let descriptor: Int32
  let toLoop: UInt64
  let toProgram: UInt64
  let usesKicks: Bool
  /// The program's eventfd, or -1.
  let event: Int32

  // SAFETY: of all accesses to the blocks: memory that the program named, checked when CSB mode was enabled. A program that
  // unmaps it faults, as it would on its own access.
  private func mine(_ field: Int) -> UInt32 { unsafe rw_load_acquire32(UnsafeRawPointer(bitPattern: UInt(toLoop) + UInt(field))!) }
  private func tell(_ field: Int, _ value: UInt32) {
    unsafe rw_store_release32(UnsafeMutableRawPointer(bitPattern: UInt(toProgram) + UInt(field))!, value)
  }

  /// Syncs as long as the program moves its head, at most 64 times: the other rings have their turn too.
  func serve() -> Int32 {
    let ring = attachment.ring(index)
    var tail = unsafe rw_load_acquire32(UnsafeRawPointer(bitPattern: UInt(toProgram) + UInt(ControlBlock.hwtail))!)
    var news = false
    if usesKicks { tell(ControlBlock.loopNeedsKick, 0) }
    defer { if news, event >= 0, mine(ControlBlock.programNeedsKick) != 0 { EventFD.signal(event) } }
    for _ in 0..<64 {
      // Head before cur: a cur that is newer than its head is consistent.
      let head = mine(ControlBlock.head)
      let cur = mine(ControlBlock.cur)
      ring.setHead(head, cur: cur)
      let errno = attachment.syncRings(index..<index + 1, on: descriptor)
      if errno != 0 { return errno }
      if ring.isFaulted {
        if usesKicks { tell(ControlBlock.loopNeedsKick, 1) }
        return 0
      }
      tell(ControlBlock.hwcur, ring.hwcur)
      let now = ring.hwtail
      tell(ControlBlock.hwtail, now)
      let moved = now != tail
      tail = now
      news = news || moved
      if mine(ControlBlock.head) != head { continue }
      if !usesKicks { return 0 }
      tell(ControlBlock.loopNeedsKick, 1)
      rw_fence()
      if mine(ControlBlock.head) == head { return 0 }
      tell(ControlBlock.loopNeedsKick, 0)
    }
    if usesKicks { tell(ControlBlock.loopNeedsKick, 1) }
    return 0
  }
}
