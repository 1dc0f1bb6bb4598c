// NetmapPreload: `libringway-netmap.so`, by which programs for the netmap kernel module run on the daemon's ports.
//
//   LD_PRELOAD=/usr/lib/libringway-netmap.so program
//
//   program ──> trampoline (CNetmapPreload): is it a netmap descriptor? ── no ──> C library
//                    └── yes ──> here: the descriptor's attachment in this process ──> NetmapClient
//
// Invariants
// - A descriptor for /dev/netmap is a socket that is connected to the daemon. It is all that passes from process to
//   process; whoever gets it attaches by himself when he first uses it.
// - Nothing here runs before the process has such a descriptor, but for one system call on requests that only netmap has.
// - Swift's part keeps no state: what there is lies in CNetmapPreload's tables, which a fork leaves in order.
// - Every call sets errno as netmap does, and leaves it alone when it succeeds.

import CNetmapPreload
import CRingway
import NetmapAPI
import NetmapClient

/// Descriptors of the library's own lie above those that programs count on.
private let doorbellsFrom: Int32 = 700

private func fail(_ errno: Int32) -> Int32 {
  rw_set_errno(errno)
  return -1
}

/// This process's attachment of a descriptor, made when there is none.
func attachment(_ descriptor: Int32) throws(NetmapClientError) -> NetmapAttachment {
  if let held = existing(descriptor) { return held }
  guard rwp_check(descriptor) != 0 else { throw NetmapClientError(EBADF, "The descriptor is netmap's no longer.") }
  let made = try NetmapAttachment(
    descriptor, staysWithProcess: true, doorbellsFrom: doorbellsFrom, closing: { rwp_close_own($0) })
  for own in made.ownDescriptors { rwp_own(own) }
  let pointer = unsafe Unmanaged.passRetained(made)
  if unsafe rwp_install(descriptor, pointer.toOpaque()) != 0 { return made }
  // Another thread was quicker.
  unsafe pointer.release()
  return existing(descriptor) ?? made
}

private func existing(_ descriptor: Int32) -> NetmapAttachment? {
  let pointer = unsafe rwp_acquire(descriptor)
  defer { rwp_release(descriptor) }
  // SAFETY: the table owns a reference; it is not given up while a user is counted.
  return unsafe pointer.map { unsafe Unmanaged<NetmapAttachment>.fromOpaque($0).takeUnretainedValue() }
}

private func find(_ descriptor: Int32) -> NetmapFound {
  guard rwp_inode(descriptor) != 0 else { return .other }
  guard let held = try? attachment(descriptor) else { return .bare }
  return .attached(held)
}

@_cdecl("rwp_swift_keep") func keep(_ pointer: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer {
  // SAFETY: the caller is counted as a user of the attachment.
  unsafe Unmanaged<NetmapAttachment>.fromOpaque(pointer).retain().toOpaque()
}

@_cdecl("rwp_swift_drop") func drop(_ pointer: UnsafeMutableRawPointer) {
  // SAFETY: the table's own reference, taken out of it.
  unsafe Unmanaged<NetmapAttachment>.fromOpaque(pointer).release()
}

// MARK: Opening

@_cdecl("rwp_swift_open") func open(_ flags: Int32) -> Int32 {
  let before = rw_errno()
  let descriptor: Int32
  do { descriptor = try NetmapChannel.connect(NetmapEnvironment.socket) } catch {
    switch error.errno {
    case ENOENT, ECONNREFUSED:
      rw_set_errno(before)
      return RWP_NO_DAEMON
    default: return fail(error.errno)
    }
  }
  if flags & O_CLOEXEC == 0 { _ = rw_raw_fcntl(descriptor, F_SETFD, 0) }
  if flags & O_NONBLOCK != 0 { _ = rw_raw_fcntl(descriptor, F_SETFL, Int(O_NONBLOCK)) }
  if rwp_note(descriptor, 0) != 0 {
    let errno = rw_errno()
    _ = rw_raw_close(descriptor)
    return fail(errno)
  }
  rw_set_errno(before)
  return descriptor
}

/// Whether a descriptor from elsewhere (inherited, passed) is connected to the daemon; by the path at its other end.
@_cdecl("rwp_swift_recognise") func recognise(_ descriptor: Int32) -> Int32 {
  let before = rw_errno()
  defer { rw_set_errno(before) }
  var kind: Int32 = 0
  var size = socklen_t(4)
  // SAFETY: four bytes of a local variable, and a buffer with its size.
  guard unsafe getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &kind, &size) == 0, kind == Int32(SOCK_SEQPACKET.rawValue) else { return 0 }
  var path = [CChar](repeating: 0, count: 128)
  let length = unsafe path.withUnsafeMutableBufferPointer { unsafe rw_peer_path(descriptor, $0.baseAddress!, 128) }
  guard length > 0 else { return 0 }
  let peer = String(decoding: path.prefix(Int(length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
  let wanted = NetmapEnvironment.socket
  if peer != wanted {
    var (one, two) = (stat(), stat())
    // SAFETY: null-terminated strings and local structures.
    guard unsafe stat(peer, &one) == 0, unsafe stat(wanted, &two) == 0, one.st_ino == two.st_ino, one.st_dev == two.st_dev else { return 0 }
  }
  return rwp_note(descriptor, 0) == 0 ? 1 : 0
}

// MARK: Calls on a descriptor

@_cdecl("rwp_swift_ioctl") func ioctl(_ descriptor: Int32, _ number: UInt, _ argument: UnsafeMutableRawPointer?) -> Int32 {
  let before = rw_errno()
  let errno = ProgramIoctl.run(descriptor, UInt64(number), UInt64(UInt(bitPattern: argument))) { () throws(NetmapClientError) in
    try attachment(descriptor)
  }
  if errno != 0 { return fail(errno) }
  rw_set_errno(before)
  return 0
}

@_cdecl("rwp_swift_mmap")
func mmap(
  _ at: UnsafeMutableRawPointer?, _ size: Int, _ protection: Int32, _ flags: Int32, _ descriptor: Int32, _ offset: Int64
) -> UnsafeMutableRawPointer {
  let before = rw_errno()
  do throws(NetmapClientError) {
    let mapped = try unsafe ProgramMapping.map(descriptor, at, size, protection, flags, offset) { () throws(NetmapClientError) in
      try attachment(descriptor)
    }
    rw_set_errno(before)
    return unsafe mapped
  } catch {
    rw_set_errno(error.errno)
    // SAFETY: MAP_FAILED, which is no address of anything.
    return unsafe UnsafeMutableRawPointer(bitPattern: UInt.max)!
  }
}

@_cdecl("rwp_swift_interface") func interface(_ number: UInt, _ request: UnsafeMutableRawPointer) -> Int32 {
  ProgramInterface.answer(UInt64(number), UInt64(UInt(bitPattern: request))) ? 0 : -1
}

// MARK: Waiting

@_cdecl("rwp_swift_poll")
func poll(_ list: UnsafeMutablePointer<pollfd>, _ count: UInt, _ nanoseconds: Int64, _ signals: UnsafeRawPointer?) -> Int32 {
  let before = rw_errno()
  let result = unsafe NetmapWait.poll(list, Int(count), limit: nanoseconds < 0 ? nil : UInt64(nanoseconds), signals: signals, find: find)
  if result >= 0 { rw_set_errno(before) }
  return result
}

/// The netmap descriptors of an epoll set. There are few, as a rule.
private func watched(_ epoll: Int32) -> [rwp_watch] {
  for room in [8, Int(RWP_WATCHES)] {
    var list = [rwp_watch](repeating: rwp_watch(), count: room)
    // SAFETY: the array's own entries.
    let count = unsafe list.withUnsafeMutableBufferPointer { unsafe rwp_watches(epoll, $0.baseAddress!, UInt32($0.count)) }
    if count < room || room == Int(RWP_WATCHES) { return Array(list.prefix(Int(count))) }
  }
  return []
}

@_cdecl("rwp_swift_epoll_wait")
func epollWait(
  _ epoll: Int32, _ list: UnsafeMutablePointer<epoll_event>, _ room: Int32, _ nanoseconds: Int64, _ signals: UnsafeRawPointer?
) -> Int32 {
  let before = rw_errno()
  let watches = watched(epoll)
  // The set itself is one entry more: it is readable when one of the other descriptors is ready.
  var entries: [pollfd] = []
  for watch in watches where rwp_check(watch.fd) != 0 {
    entries.append(pollfd(fd: watch.fd, events: Int16(truncatingIfNeeded: watch.events & 0x7ff), revents: 0))
  }
  let ours = entries.count
  entries.append(pollfd(fd: epoll, events: Int16(POLLIN), revents: 0))
  let result = unsafe entries.withUnsafeMutableBufferPointer {
    unsafe NetmapWait.poll($0.baseAddress!, $0.count, limit: nanoseconds < 0 ? nil : UInt64(nanoseconds), signals: signals, find: find)
  }
  if result < 0 { return -1 }
  var filled: Int32 = 0
  if entries[ours].revents != 0 {
    // The kernel's first, but never all of the room: neither side starves the other.
    let ready = entries.prefix(ours).contains { $0.revents != 0 }
    let share = ready && room > 1 ? max(1, room / 2) : room
    let kernel = unsafe rw_raw_epoll(epoll, list, share)
    if kernel < 0 { return -1 }
    filled = kernel
  }
  for entry in entries.prefix(ours) where entry.revents != 0 && filled < room {
    guard let watch = watches.first(where: { $0.fd == entry.fd }) else { continue }
    var event = unsafe epoll_event()
    unsafe event.events = UInt32(UInt16(bitPattern: entry.revents))
    unsafe event.data.u64 = watch.data
    // SAFETY: the caller has room for `room` events.
    unsafe list[Int(filled)] = event
    filled += 1
    if watch.events & 1 << 30 != 0 { rwp_silence(epoll, entry.fd) }
  }
  rw_set_errno(before)
  return filled
}
