// A batch's slots as plain pointers, for loops that change the queue's own state as they go.

import Packet

extension PacketBatch {
  /// Where received packets go, and how many fit. `commit(received:)` makes them the batch's.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always)
  mutating func freeSlots(max: Int) -> (slots: UnsafeMutablePointer<RawPacket>, room: Int)? {
    var slots: UnsafeMutablePointer<RawPacket>?
    var room = 0
    _ = unsafe fill(max: max) { free, count in
      unsafe slots = free
      room = count
      return 0
    }
    guard let slots = unsafe slots else { return nil }
    return unsafe (slots, room)
  }

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always)
  mutating func commit(received: Int) { _ = unsafe fill(max: received) { _, _ in received } }

  /// The packets to be sent. `commit(sent:)` takes the first ones out.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always)
  mutating func fullSlots() -> (slots: UnsafeMutablePointer<RawPacket>, count: Int)? {
    var slots: UnsafeMutablePointer<RawPacket>?
    var count = 0
    _ = unsafe drain { full, n in
      unsafe slots = full
      count = n
      return 0
    }
    guard let slots = unsafe slots else { return nil }
    return unsafe (slots, count)
  }

  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(__always)
  mutating func commit(sent: Int) { _ = unsafe drain { _, _ in sent } }
}
