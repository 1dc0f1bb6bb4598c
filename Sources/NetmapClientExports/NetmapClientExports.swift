// NetmapClientExports: NetmapClient as C calls it (ringway-netmap.h).
//
//   rw_netmap * ── a reference to Handle ──> NetmapPort
//
// Invariants
// - What C holds is one reference; rw_netmap_close gives it up.
// - No function traps on what C hands over, but for pointers that are none.

import CRingway
import NetmapClient
import NetmapClientC

/// What a `rw_netmap *` stands for.
@safe private final class Handle {
  let port: NetmapPort
  /// Null-terminated; lives until the next error.
  private(set) var sentence: UnsafeMutablePointer<CChar>

  init(_ port: NetmapPort) {
    self.port = port
    unsafe sentence = unsafe strdup("")
  }
  deinit { unsafe free(sentence) }

  /// Notes an error for C: -1, with errno.
  func fail(_ error: NetmapClientError) -> Int32 {
    unsafe free(sentence)
    unsafe sentence = unsafe strdup(error.sentence)
    rw_set_errno(error.errno)
    return -1
  }

  // SAFETY: the header demands a pointer that rw_netmap_open answered.
  static func at(_ pointer: OpaquePointer) -> Handle {
    unsafe Unmanaged<Handle>.fromOpaque(UnsafeRawPointer(pointer)).takeUnretainedValue()
  }
}

private func events(_ directions: Int32) -> NetmapReadiness { NetmapReadiness(rawValue: Int(directions & 3)) }

@_cdecl("rw_netmap_open")
public func rwNetmapOpen(
  _ name: UnsafePointer<CChar>, _ socket: UnsafePointer<CChar>?, _ why: UnsafeMutablePointer<CChar>?, _ room: Int
) -> OpaquePointer? {
  unsafe rwNetmapOpenSized(name, socket, 0, 0, 0, why, room)
}

@_cdecl("rw_netmap_open_sized")
public func rwNetmapOpenSized(
  _ name: UnsafePointer<CChar>, _ socket: UnsafePointer<CChar>?, _ transmitSlots: UInt32, _ receiveSlots: UInt32, _ extraBuffers: UInt32,
  _ why: UnsafeMutablePointer<CChar>?, _ room: Int
) -> OpaquePointer? {
  // SAFETY: null-terminated strings, as the header demands; the sentence is cut at the caller's room.
  let path = unsafe socket.map { unsafe String(cString: $0) } ?? NetmapEnvironment.socket
  do throws(NetmapClientError) {
    let port = try unsafe NetmapPort(named: String(cString: name), socket: path) { request in
      if transmitSlots != 0 { request.transmitSlots = transmitSlots }
      if receiveSlots != 0 { request.receiveSlots = receiveSlots }
      if extraBuffers != 0 { request.extraBuffers = extraBuffers }
    }
    return unsafe OpaquePointer(Unmanaged.passRetained(Handle(port)).toOpaque())
  } catch {
    if let why = unsafe why, room > 0 {
      let bytes = Array(error.sentence.utf8.prefix(room - 1))
      for (index, byte) in bytes.enumerated() { unsafe why[index] = CChar(bitPattern: byte) }
      unsafe why[bytes.count] = 0
    }
    rw_set_errno(error.errno)
    return nil
  }
}

@_cdecl("rw_netmap_close") public func rwNetmapClose(_ port: OpaquePointer?) {
  guard let port = unsafe port else { return }
  // SAFETY: C's own reference.
  let handle = unsafe Unmanaged<Handle>.fromOpaque(UnsafeRawPointer(port)).takeRetainedValue()
  handle.port.close()
}

@_cdecl("rw_netmap_reopen") public func rwNetmapReopen(_ port: OpaquePointer) -> Int32 {
  let handle = unsafe Handle.at(port)
  do { try handle.port.reopen() } catch { return handle.fail(error) }
  return 0
}

@_cdecl("rw_netmap_error") public func rwNetmapError(_ port: OpaquePointer) -> UnsafePointer<CChar> {
  unsafe UnsafePointer(Handle.at(port).sentence)
}

@_cdecl("rw_netmap_rings") public func rwNetmapRings(_ port: OpaquePointer, _ direction: Int32) -> UInt32 {
  let handle = unsafe Handle.at(port)
  return UInt32(direction == Int32(RW_NETMAP_RECEIVE) ? handle.port.receiveRings.count : handle.port.transmitRings.count)
}

@_cdecl("rw_netmap_ring")
public func rwNetmapRing(_ port: OpaquePointer, _ direction: Int32, _ index: UInt32, _ ring: UnsafeMutableRawPointer) -> Int32 {
  let handle = unsafe Handle.at(port)
  let rings = direction == Int32(RW_NETMAP_RECEIVE) ? handle.port.receiveRings : handle.port.transmitRings
  guard Int(index) < rings.count else {
    return handle.fail(NetmapClientError(ENOENT, "\(handle.port.name): there are \(rings.count) rings of this direction, and no number \(index)."))
  }
  let view = rings[Int(index)]
  let made = unsafe rw_netmap_ring(
    header: view.header.assumingMemoryBound(to: UInt8.self), buffers: view.bytes(0).baseAddress!.assumingMemoryBound(to: UInt8.self),
    buffer_count: view.bufferCount, buffer_size: view.bufferSize, slots: view.slotCount, direction: UInt32(direction), is_host: view.isHost ? 1 : 0,
    number: UInt32(view.number), reserved: 0)
  // SAFETY: the caller's structure, as the header says.
  unsafe ring.storeBytes(of: made, as: rw_netmap_ring.self)
  return 0
}

@_cdecl("rw_netmap_sync") public func rwNetmapSync(_ port: OpaquePointer, _ direction: Int32) -> Int32 {
  let handle = unsafe Handle.at(port)
  do throws(NetmapClientError) {
    if direction & Int32(RW_NETMAP_TRANSMIT) != 0 { try handle.port.syncTransmit() }
    if direction & Int32(RW_NETMAP_RECEIVE) != 0 { try handle.port.syncReceive() }
  } catch { return handle.fail(error) }
  return 0
}

@_cdecl("rw_netmap_wait") public func rwNetmapWait(_ port: OpaquePointer, _ directions: Int32, _ milliseconds: Int32) -> Int32 {
  let handle = unsafe Handle.at(port)
  do throws(NetmapClientError) {
    return Int32(try handle.port.wait(for: events(directions), nanoseconds: milliseconds < 0 ? nil : UInt64(milliseconds) * 1_000_000).rawValue)
  } catch { return handle.fail(error) }
}

@_cdecl("rw_netmap_descriptor") public func rwNetmapDescriptor(_ port: OpaquePointer) -> Int32 { unsafe Handle.at(port).port.descriptor }
@_cdecl("rw_netmap_arm") public func rwNetmapArm(_ port: OpaquePointer, _ directions: Int32) { unsafe Handle.at(port).port.arm(for: events(directions)) }
@_cdecl("rw_netmap_drain") public func rwNetmapDrain(_ port: OpaquePointer) { unsafe Handle.at(port).port.drain() }
@_cdecl("rw_netmap_take_buffer") public func rwNetmapTakeBuffer(_ port: OpaquePointer) -> UInt32 { unsafe Handle.at(port).port.takeExtraBuffer() ?? 0 }
@_cdecl("rw_netmap_give_buffer") public func rwNetmapGiveBuffer(_ port: OpaquePointer, _ buffer: UInt32) {
  unsafe Handle.at(port).port.giveExtraBuffer(buffer)
}
