// The loops over slots of a card's rings: a run never wraps, and nothing here is called once a slot.
//
// Each is a function of its own, so that everything it uses stays in machine registers.

internal import CRingway
internal import NetmapCore
internal import Packet

/// A region's buffers, as programs number them.
@safe struct BufferPlace {
  let base: UnsafeMutableRawPointer
  let iova: UInt64
  /// Bytes from one buffer to the next.
  let stride: Int
}

enum NetmapLoops {
  // In a slot's upper half, above the length.
  @inline(__always) private static var changed: UInt32 { UInt32(SlotFlags.bufferChanged.rawValue) << 16 }
  /// What a slot that is being sent loses: what was asked for has been done.
  @inline(__always) private static var finished: UInt32 {
    UInt32(SlotFlags.bufferChanged.rawValue | SlotFlags.report.rawValue) << 16
  }

  /// Describes slots of one frame each by their records.
  /// - Parameters:
  ///   - slots, records: the run's first. full: takes the records.
  ///   - holder: who holds the buffers; not the reserved one.
  ///   - size: bytes a buffer, at most 65535.
  /// - Returns: how many, and their bytes; fewer than `count` when the next slot is part of a longer frame, or is not right.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(never) static func build(
    _ slots: UnsafeMutableRawPointer, _ records: RawPacket, _ full: UnsafeMutablePointer<RawPacket>, _ count: Int,
    _ place: BufferPlace, _ ledger: BufferLedger, _ holder: BufferOwner, size: UInt32
  ) -> (count: Int, bytes: UInt64) {
    let base = unsafe place.base, iova = place.iova, stride = place.stride, buffers = ledger.count
    // One index, in bytes of pointers below the ends, serves all three arrays.
    let slotsEnd = unsafe slots + count &* RingOffset.slotSize, recordsEnd = unsafe UnsafeMutableRawPointer(records + count)
    let fullEnd = unsafe UnsafeMutableRawPointer(full + count)
    var j = count &* -8, bytes: UInt64 = 0
    // SAFETY: the caller's runs lie in the ring, the records and the batch, and the ledger says that the buffer exists.
    while j != 0 {
      let at = unsafe slotsEnd + j &* 2
      let word = unsafe rw_read64(at), index = UInt32(truncatingIfNeeded: word), high = UInt32(truncatingIfNeeded: word >> 32)
      // Too long, or more fragments: bit 21 of what is compared.
      let odd = high & 0x20_ffff
      guard odd <= size, index < buffers, ledger.owner(of: index) == holder else { break }
      if high & finished != 0 { unsafe rw_write64(at, word & ~(UInt64(finished) << 32)) }
      let record = unsafe (recordsEnd + j &* 8).assumingMemoryBound(to: PacketRecord.self), start = Int(index) &* stride
      // The frame's start counts as the buffer's: drivers must find no room in front of it, which is the program's.
      unsafe record.pointee.buffer = base + start
      unsafe record.pointee.iova = iova &+ UInt64(truncatingIfNeeded: start)
      unsafe setLengths(record, odd)
      unsafe (fullEnd + j).storeBytes(of: record, as: RawPacket.self)
      bytes &+= UInt64(odd)
      j &+= 8
    }
    return (count &+ j / 8, bytes)
  }

  /// A length, offset 0, and the same length for the whole frame: one store.
  // SAFETY: length at 32, offset at 34, frame length at 36, as a test of the drivers' holds them.
  @inline(__always) private static func setLengths(_ record: RawPacket, _ length: UInt32) {
    unsafe UnsafeMutableRawPointer(record).storeBytes(of: UInt64(length) | UInt64(length) << 32, toByteOffset: 32, as: UInt64.self)
  }

  /// Puts frames of one buffer each into slots, and the slots' empty buffers onto their records.
  /// - Parameters:
  ///   - slots, buffers: the run's first, in the ring and in the adapter's own list.
  ///   - free: takes the records: behind the top of the pool's stack.
  ///   - own: the records' pool; `records` its first one, `bufferOf` the buffer on each.
  /// - Returns: how many, and their bytes; fewer than `count` when the next frame is different.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(never) static func fill(
    _ full: UnsafeMutablePointer<RawPacket>, _ slots: UnsafeMutableRawPointer, _ buffers: UnsafeMutablePointer<UInt32>,
    _ free: UnsafeMutablePointer<RawPacket>, _ count: Int, own: UnsafeMutablePointer<PoolState>, _ records: RawPacket,
    _ bufferOf: UnsafeMutablePointer<UInt32>, _ place: BufferPlace, _ ledger: BufferLedger, _ holder: BufferOwner
  ) -> (count: Int, bytes: UInt64) {
    let base = unsafe place.base, iova = place.iova, stride = place.stride
    // One index, in bytes of buffer numbers below the ends, serves all four arrays.
    let fullEnd = unsafe UnsafeMutableRawPointer(full + count), freeEnd = unsafe UnsafeMutableRawPointer(free + count)
    let slotsEnd = unsafe slots + count &* RingOffset.slotSize, buffersEnd = unsafe UnsafeMutableRawPointer(buffers + count)
    var j = count &* -4, bytes: UInt64 = 0
    // SAFETY: the caller's runs lie in the batch, the ring, its list and the stack; records of this pool lie behind `records`,
    // 64 bytes each, and `bufferOf` has an entry for each. Length at 32, offset at 34, as a test of the drivers' holds them.
    while j != 0 {
      let record = unsafe (fullEnd + j &* 2).load(as: RawPacket.self)
      guard unsafe record.pointee.pool == own, unsafe record.pointee.next == nil, unsafe !record.pointee.flags.contains(.vlan)
      else { break }
      let entry = unsafe bufferOf + Int(truncatingIfNeeded: (UInt(bitPattern: record) &- UInt(bitPattern: records)) / 64)
      let index = unsafe entry.pointee, empty = unsafe (buffersEnd + j).load(as: UInt32.self)
      var length = unsafe UnsafeRawPointer(record).load(fromByteOffset: 32, as: UInt32.self)
      if length > 0xffff {
        unsafe moveUp(record)
        length &= 0xffff
      }
      // The port holds the buffer, and this queue alone knows of it.
      ledger.give(index, to: holder)
      unsafe rw_write64(slotsEnd + j &* 4, UInt64(index) | UInt64(length &+ changed) << 32)
      unsafe (buffersEnd + j).storeBytes(of: index, as: UInt32.self)
      unsafe entry.pointee = empty
      let start = Int(empty) &* stride
      unsafe record.pointee.buffer = base + start
      unsafe record.pointee.iova = iova &+ UInt64(truncatingIfNeeded: start)
      unsafe (freeEnd + j &* 2).storeBytes(of: record, as: RawPacket.self)
      bytes &+= UInt64(length)
      j &+= 4
    }
    return (count &+ j / 4, bytes)
  }

  /// A virtio device put its header in front. Slots begin where their buffers begin.
  // SAFETY: drivers keep offset + length inside the buffer.
  @inline(never) private static func moveUp(_ record: RawPacket) {
    let buffer = unsafe record.pointee.buffer
    unsafe buffer.copyMemory(from: buffer + Int(record.pointee.offset), byteCount: Int(record.pointee.length))
  }
}
