// Memory that others can take away: a page in its place, instead of the process's end.
//
//     load or store ──> SIGBUS ──> serve(address) ──┬─ in no window: the handler before us
//                                                   └─ in a window: pages in the place of what is gone,
//                                                      raise its flag, signal its eventfd, try again
//
// Two things answer an access with SIGBUS: the registers of a card whose memory decoding is off or
// that is away, and a file that somebody else cut short or punched a hole into. The instruction that
// faulted runs again when the handler returns.
// - Registers (`.ones`) become pages of ones, whole, as a missing device reads. The pages are private:
//   stores go nowhere, but are read back until the window is mapped anew, so ask the flag, not only
//   the value.
// - Memory (`.zeros`) becomes private zeros, page by page. Whoever shares it does not see what is
//   written there: the owner looks at the flag after its work and parts with the other side.
//
// Rules of a signal handler kept here: no memory is allocated, no lock taken, no Swift object
// touched; the table is C storage that needs no initialising (rw_guard.h), and the system calls
// are mmap and write. The functions on the way carry @_noAllocation and @_noLocks in release
// builds. `serve` runs once before the handler is installed, so that whatever the runtime sets up
// lazily in debug builds is set up.
//
// A window leaves the table before its memory does: `remove` waits for handlers at work, so none
// can put pages over memory that meanwhile belongs to somebody else.

public import CRingway
public import SystemPackage

/// Counts the faults in one or several windows. A number of C storage that is there for ever, to be read in
/// the packet path; belongs to whoever opened it until `FaultGuard.close`.
@frozen @safe public struct FaultFlag: Sendable, BitwiseCopyable {
  @usableFromInline let index: UInt32
  init(_ index: UInt32) { self.index = index }

  /// Faults since the flag was opened or cleared.
  @inlinable @inline(__always) public var count: UInt32 {
    // SAFETY: C storage; the index wraps inside it.
    unsafe rw_load_acquire32(rw_guard_flag(index))
  }
  /// Whether something has faulted.
  @inlinable @inline(__always) public var isRaised: Bool { count != 0 }
  /// Counts one more: for owners that find out about a loss in another way.
  public func raise() { rw_guard_raise(index) }
  /// Nothing has faulted, from now on.
  public func clear() { unsafe rw_store_release32(rw_guard_flag(index), 0) }
}

/// The process's table of guarded memory.
public enum FaultGuard {
  /// What takes the place of what is gone.
  public enum Kind: UInt32, Sendable {
    /// Private zeros over the page that faulted.
    case zeros = 0
    /// Pages of 0xFF over the whole window.
    case ones = 1
  }
  /// A window's place in the table.
  public struct Window: Sendable { let index: UInt32 }

  /// How many windows, and how many flags, there can be.
  public static let capacity = Int(RW_GUARD_WINDOWS)

  private struct State {
    var isInstalled = false
    var freeWindows: [UInt32] = []
    var freeFlags: [UInt32] = []
    var flagsUsed: UInt32 = 0
  }
  private static let state = Guarded(State())

  /// - Throws: ENOSPC when all are in use.
  public static func openFlag() throws(Errno) -> FaultFlag {
    try state.withLock { (state: inout State) throws(Errno) -> FaultFlag in
      let index: UInt32
      if let free = state.freeFlags.popLast() {
        index = free
      } else {
        guard state.flagsUsed < UInt32(RW_GUARD_FLAGS) else { throw .noSpace }
        index = state.flagsUsed
        state.flagsUsed += 1
      }
      let flag = FaultFlag(index)
      flag.clear()
      return flag
    }
  }

  /// Gives a flag back, after the windows that raise it.
  public static func close(_ flag: FaultFlag) { state.withLock { $0.freeFlags.append(flag.index) } }

  /// Guards a mapping of this process until `remove`, which comes before it is unmapped.
  /// - Parameters:
  ///   - base: first byte, on a page.
  ///   - count: bytes, whole pages.
  ///   - pageSize: bytes, a power of two: huge pages are replaced whole.
  ///   - event: eventfd that is signalled on a fault, or -1. Open for as long as the window.
  /// - Throws: ENOSPC when the table is full, EINVAL for what is no whole pages, and what sigaction(2) and
  ///   memfd_create(2) say.
  public static func add(
    base: UnsafeMutableRawPointer, count: Int, pageSize: Int, kind: Kind, flag: FaultFlag, event: Int32 = -1
  ) throws(Errno) -> Window {
    let first = UInt64(UInt(bitPattern: base)), mask = UInt64(clamping: pageSize) &- 1
    guard pageSize > 0, count > 0, UInt64(pageSize) & mask == 0, (first | UInt64(count)) & mask == 0 else { throw .invalidArgument }
    return try state.withLock { (state: inout State) throws(Errno) -> Window in
      if !state.isInstalled {
        try install()
        state.isInstalled = true
      }
      if kind == .ones { try makeOnes() }
      let table = unsafe rw_guard_table()
      let index: UInt32
      if let free = state.freeWindows.popLast() {
        index = free
      } else {
        index = unsafe table.pointee.used
        guard index < UInt32(RW_GUARD_WINDOWS) else { throw .noSpace }
      }
      let window = unsafe rw_guard_window(index)
      // SAFETY: a free entry, and only this lock's holder fills entries. The base is published last, so a
      // handler never sees half a window.
      unsafe window.pointee.count = UInt64(count)
      unsafe window.pointee.page = UInt64(pageSize)
      unsafe window.pointee.kind = kind.rawValue
      unsafe window.pointee.flag = flag.index
      unsafe window.pointee.event = event
      unsafe rw_store_release64(window, first)
      if unsafe index == table.pointee.used { unsafe rw_store_release32(used, index + 1) }
      return Window(index: index)
    }
  }

  /// Takes a window out. No handler touches its memory afterwards.
  public static func remove(_ window: Window) {
    state.withLock { state in
      // SAFETY: base is the entry's first field.
      unsafe rw_store_release64(rw_guard_window(window.index), 0)
      rw_fence()
      // A handler is a handful of system calls long.
      while rw_guard_inside() != 0 { rw_pause() }
      state.freeWindows.append(window.index)
    }
  }

  /// Puts ones over a window of the kind `.ones` outside of any fault: its device has been closed.
  /// - Returns: false when there is no memory for it; then the mapping stays.
  public static func cover(_ window: Window) -> Bool {
    let entry = unsafe rw_guard_window(window.index)
    return unsafe mapOnes(rw_load_acquire64(entry), entry.pointee.count)
  }

  // SAFETY: `used` is the table's second field, at byte 4; a test holds the layout.
  private static var used: UnsafeMutableRawPointer { unsafe UnsafeMutableRawPointer(rw_guard_table()) + 4 }

  /// The file of ones, for the first window that needs it.
  private static func makeOnes() throws(Errno) {
    let table = unsafe rw_guard_table()
    guard unsafe table.pointee.one_size == 0 else { return }
    let size = 256 << 10
    let made = unsafe rw_memfd_create("ringway-ones", RW_MFD_CLOEXEC | RW_MFD_ALLOW_SEALING)
    guard made >= 0 else { throw lastErrno() }
    let file = OwnedDescriptor(taking: made)
    let ones = [UInt8](repeating: 0xFF, count: size)
    let written = unsafe ones.withUnsafeBytes { unsafe write(made, $0.baseAddress, $0.count) }
    guard written == size else { throw .noMemory }
    // Nobody can cut the file short under the handler. A kernel without seals does without.
    _ = rw_fcntl(made, RW_F_ADD_SEALS, RW_F_SEAL_ALL)
    unsafe table.pointee.ones = file.release()
    unsafe table.pointee.one_size = UInt64(size)
  }

  /// Remembers the handler before ours, and installs ours.
  private static func install() throws(Errno) {
    _ = serve(0)
    let table = unsafe rw_guard_table()
    // SAFETY: the table is C storage; no window is in it before this function returns.
    guard unsafe sigaction(SIGBUS, nil, &table.pointee.previous) == 0,
      unsafe rw_install_fault_handler(SIGBUS, faultHandler) == 0
    else { throw lastErrno() }
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
        if unsafe window.pointee.kind == 0 {
          let page = unsafe window.pointee.page
          // Where one page cannot be replaced alone, the whole mapping goes.
          served = rw_map_zeros(address & ~(page &- 1), page) == 0 || rw_map_zeros(base, count) == 0
        } else {
          served = mapOnes(base, count)
        }
        if served {
          // After the pages: a flag that its owner cleared in between is raised again, never missed.
          unsafe rw_guard_raise(window.pointee.flag)
          unsafe rw_guard_signal(window.pointee.event)
        }
      }
      index &+= 1
    }
    rw_guard_leave()
    return served
  }

  /// The file of ones over the whole range, piece by piece.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  private static func mapOnes(_ base: UInt64, _ count: UInt64) -> Bool {
    let piece = unsafe rw_guard_table().pointee.one_size
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
    served = unsafe FaultGuard.serve(rw_fault_address(info))
  }
  if !served { unsafe rw_previous_fault_handler(signal, info, context) }
  rw_restore_errno(saved)
}
