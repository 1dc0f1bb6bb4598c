// Registers that fault: reads give all ones instead of killing the process.
//
//     load or store ──> SIGBUS ──> serve(address) ──┬─ in no window: the handler before us
//                                                   └─ in a window: pages of 0xFF over all of it,
//                                                      mark it, signal its eventfd, try again
//
// VFIO answers an access to a BAR with SIGBUS while memory decoding is off or once the device is
// away. The instruction that faulted runs again when the handler returns, and finds the pages of
// ones. They are private: stores go nowhere, but are read back until the window is mapped anew,
// so a driver asks `isGone`, not only the value.
//
// Rules of a signal handler kept here: no memory is allocated, no lock taken, no Swift object
// touched; the table is C storage that needs no initialising (rw_fault.h), and the system calls
// are mmap and write. The functions on the way carry @_noAllocation and @_noLocks in release
// builds. `serve` runs once before the handler is installed, so that whatever the runtime sets up
// lazily in debug builds is set up.
//
// A window leaves the table before its memory does: `remove` waits for handlers at work, so none
// can put pages over memory that meanwhile belongs to somebody else.

internal import CRingway
internal import Synchronization
internal import SystemPackage

/// The process's table of register windows.
enum FaultTable {
  /// How many windows there can be: 512. A card has at most six BARs.
  static let capacity = UInt32(RW_FAULT_WINDOWS)

  /// Guards adding and removing, and remembers whether the handler is installed.
  private static let installed = Mutex(false)

  /// Enters a mapping.
  /// - Parameters:
  ///   - base: first byte, on a page.
  ///   - count: bytes, whole pages.
  ///   - event: eventfd that is signalled on a fault, or -1.
  /// - Returns: its place in the table.
  static func add(base: UInt64, count: UInt64, event: Int32) throws(Errno) -> UInt32 {
    try installed.withLock { (installed: inout Bool) throws(Errno) -> UInt32 in
      if !installed {
        try install()
        installed = true
      }
      var index: UInt32 = 0
      while index < capacity {
        let window = unsafe rw_fault_window(index)
        if unsafe window.pointee.base == 0 {
          // SAFETY: a free entry, and only this lock's holder fills entries. The base is published
          // last, so a handler never sees half a window.
          unsafe window.pointee.count = count
          unsafe window.pointee.event = event
          unsafe rw_store_release32(faulted(index), 0)
          unsafe rw_store_release64(window, base)
          return index
        }
        index += 1
      }
      throw .noMemory
    }
  }

  /// Takes a window out. No handler touches its memory afterwards.
  static func remove(_ index: UInt32) {
    installed.withLock { _ in
      // SAFETY: base is the entry's first field.
      unsafe rw_store_release64(rw_fault_window(index), 0)
      rw_fence()
      // A handler is a handful of system calls long.
      while unsafe rw_load_acquire32(rw_fault_table()) != 0 { rw_pause() }
    }
  }

  static func hasFaulted(_ index: UInt32) -> Bool { unsafe rw_load_acquire32(faulted(index)) != 0 }
  static func clearFault(_ index: UInt32) { unsafe rw_store_release32(faulted(index), 0) }

  /// Puts ones over a mapping outside of any fault: its device has been closed.
  static func cover(base: UInt64, count: UInt64) -> Bool { mapOnes(base, count) }

  // SAFETY: `faulted` is the third field, at byte 16; tests hold the layout.
  private static func faulted(_ index: UInt32) -> UnsafeMutableRawPointer {
    unsafe UnsafeMutableRawPointer(rw_fault_window(index)) + 16
  }

  /// Makes the file of ones, remembers the handler before ours, and installs ours.
  private static func install() throws(Errno) {
    let size = 256 << 10
    let file = unsafe rw_memfd_create("ringway-ones", RW_MFD_CLOEXEC | RW_MFD_ALLOW_SEALING)
    guard file >= 0 else { throw Errno(rawValue: rw_errno()) }
    let ones = [UInt8](repeating: 0xFF, count: size)
    let written = unsafe ones.withUnsafeBytes { unsafe write(file, $0.baseAddress, $0.count) }
    guard written == size else {
      _ = close(file)
      throw .noMemory
    }
    // Nobody can cut the file short under the handler. A kernel without seals does without.
    _ = rw_fcntl(file, RW_F_ADD_SEALS, RW_F_SEAL_ALL)
    let table = unsafe rw_fault_table()
    unsafe table.pointee.ones = file
    unsafe table.pointee.one_size = UInt64(size)
    _ = serve(0)
    // SAFETY: the table is C storage; no window is in it before this function returns.
    guard unsafe sigaction(SIGBUS, nil, &table.pointee.previous) == 0,
      unsafe rw_install_fault_handler(SIGBUS, faultHandler) == 0
    else { throw Errno(rawValue: rw_errno()) }
  }

  /// Mends the fault at `address`, if it is in a window.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  fileprivate static func serve(_ address: UInt64) -> Bool {
    rw_fault_enter()
    rw_fence()
    var served = false
    var index: UInt32 = 0
    while index < UInt32(RW_FAULT_WINDOWS) && !served {
      let window = unsafe rw_fault_window(index)
      let base = unsafe rw_load_acquire64(window)
      let count = unsafe window.pointee.count
      if base != 0 && address >= base && address &- base < count && mapOnes(base, count) {
        // After the pages: a flag that `remap` cleared in between is set again, never missed.
        unsafe rw_store_release32(UnsafeMutableRawPointer(window) + 16, 1)
        unsafe rw_fault_signal(window.pointee.event)
        served = true
      }
      index &+= 1
    }
    rw_fault_leave()
    return served
  }

  /// The file of ones over the whole range, piece by piece.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  private static func mapOnes(_ base: UInt64, _ count: UInt64) -> Bool {
    let piece = unsafe rw_fault_table().pointee.one_size
    if piece == 0 { return false }
    var done: UInt64 = 0
    while done < count {
      let size = count &- done < piece ? count &- done : piece
      if rw_map_ones(base &+ done, size) != 0 { return false }
      done &+= size
    }
    return true
  }
}

/// The SIGBUS handler.
#if RINGWAY_CHECKED
  @_noAllocation @_noLocks
#endif
private func faultHandler(_ signal: Int32, _ info: UnsafeMutablePointer<siginfo_t>?, _ context: UnsafeMutableRawPointer?) {
  let saved = rw_save_errno()
  var served = false
  // SAFETY: the kernel hands over a valid siginfo for the length of the handler.
  if let info = unsafe info, unsafe rw_fault_code(info) > 0 {
    served = unsafe FaultTable.serve(rw_fault_address(info))
  }
  if !served { unsafe rw_previous_fault_handler(signal, info, context) }
  rw_restore_errno(saved)
}
