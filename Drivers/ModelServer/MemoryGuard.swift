// Files that are cut short under us: a page of zeros instead of the process's end.
//
//     access ──> SIGBUS ──> serve(address) ──┬─ in no window: the handler before us
//                                            └─ in a window: private zeros over the page, count it
//                                               for the window's owner, try again
//
// A client hands over files and may shorten them at any time; what lies behind the new end is then
// SIGBUS to whoever touches it. The owner looks at its count after each round of work and parts with
// the client.
//
// Rules of a signal handler kept here: no memory is allocated, no lock taken, no Swift object touched;
// the table is C storage (rw_guard.h). A window leaves the table before its memory does, and `remove`
// waits for handlers at work.

internal import CRingway
internal import Synchronization
internal import SystemPackage

/// The process's table of clients' memory.
enum MemoryGuard {
  private struct State {
    var isInstalled = false
    var free: [UInt32] = []
    var owners: Set<UInt32> = []
  }
  private static let state = Mutex(State())

  /// A counter of faults for one client; nil when 256 are in use.
  static func openOwner() -> UInt32? {
    state.withLock { state in
      guard let owner = (0..<UInt32(RW_GUARD_OWNERS)).first(where: { !state.owners.contains($0) }) else { return nil }
      state.owners.insert(owner)
      rw_guard_forget(owner)
      return owner
    }
  }
  static func closeOwner(_ owner: UInt32) { state.withLock { _ = $0.owners.remove(owner) } }
  /// Faults in the owner's windows.
  static func hits(_ owner: UInt32) -> UInt32 { rw_guard_hits(owner) }

  /// Enters a mapping: whole pages.
  /// - Throws: ENOSPC when 4096 are in the table.
  static func add(base: UInt64, count: UInt64, owner: UInt32) throws(Errno) -> UInt32 {
    try state.withLock { (state: inout State) throws(Errno) -> UInt32 in
      if !state.isInstalled {
        try install()
        state.isInstalled = true
      }
      let table = unsafe rw_guard_table()
      let index: UInt32
      if let free = state.free.popLast() {
        index = free
      } else {
        index = unsafe table.pointee.used
        guard index < UInt32(RW_GUARD_WINDOWS) else { throw .noSpace }
      }
      let window = unsafe rw_guard_window(index)
      // SAFETY: a free entry, and only this lock's holder fills entries. The base is published last,
      // so a handler never sees half a window.
      unsafe window.pointee.count = count
      unsafe window.pointee.owner = owner
      unsafe rw_store_release64(window, base)
      if unsafe index == table.pointee.used { unsafe rw_store_release32(used, index + 1) }
      return index
    }
  }

  /// Takes a window out. No handler touches its memory afterwards.
  static func remove(_ index: UInt32) {
    state.withLock { state in
      // SAFETY: base is the entry's first field.
      unsafe rw_store_release64(rw_guard_window(index), 0)
      rw_fence()
      // A handler is a handful of system calls long.
      while rw_guard_inside() != 0 { rw_pause() }
      state.free.append(index)
    }
  }

  // SAFETY: `used` is the table's second field, at byte 4; a test holds the layout.
  private static var used: UnsafeMutableRawPointer { unsafe UnsafeMutableRawPointer(rw_guard_table()) + 4 }

  private static func install() throws(Errno) {
    // Once before it is needed: whatever the runtime sets up lazily in debug builds is set up.
    _ = serve(0)
    let table = unsafe rw_guard_table()
    // SAFETY: the table is C storage; no window is in it before this function returns.
    guard unsafe sigaction(SIGBUS, nil, &table.pointee.previous) == 0,
      unsafe rw_install_fault_handler(SIGBUS, guardHandler) == 0
    else { throw Errno(rawValue: rw_errno()) }
  }

  /// Mends the fault at `address`, if it is in a window.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  fileprivate static func serve(_ address: UInt64) -> Bool {
    rw_guard_enter()
    rw_fence()
    var served = false
    var index: UInt32 = 0
    let end = unsafe rw_guard_table().pointee.used
    while index < end && !served {
      let window = unsafe rw_guard_window(index)
      let base = unsafe rw_load_acquire64(window)
      let count = unsafe window.pointee.count
      if base != 0 && address >= base && address &- base < count {
        // The page alone; where pages are huge that is refused, and the whole mapping goes.
        if rw_map_zeros(address & ~0xfff, 4096) == 0 || rw_map_zeros(base, count) == 0 {
          unsafe rw_guard_hit(window.pointee.owner)
          served = true
        }
      }
      index &+= 1
    }
    rw_guard_leave()
    return served
  }
}

/// The SIGBUS handler.
#if RINGWAY_CHECKED
  @_noAllocation @_noLocks
#endif
private func guardHandler(_ signal: Int32, _ info: UnsafeMutablePointer<siginfo_t>?, _ context: UnsafeMutableRawPointer?) {
  let saved = rw_save_errno()
  var served = false
  // SAFETY: the kernel hands over a valid siginfo for the length of the handler.
  if let info = unsafe info, unsafe rw_fault_code(info) > 0 {
    served = unsafe MemoryGuard.serve(rw_fault_address(info))
  }
  if !served { unsafe rw_guard_previous(signal, info, context) }
  rw_restore_errno(saved)
}
