// A ring as a program uses it.
//
//        ┌── ours: head ..< tail ──┐
//   …────┼─────────────────────────┼────…       receive: packets to read; transmit: free slots to fill
//       head       cur            tail
//
// Moving `head` gives slots back, at the next sync. `cur` says where to wake up: at head unless more is wanted first.

public import CRingway

/// `struct netmap_slot`.
@frozen public struct NetmapSlotView: BitwiseCopyable, Sendable {
  public var buffer: UInt32
  /// Bytes of the packet.
  public var length: UInt16
  /// `NS_*`.
  public var flags: UInt16
  public var pointer: UInt64

  @inlinable @inline(__always) public init(buffer: UInt32, length: UInt16, flags: UInt16 = 0, pointer: UInt64 = 0) {
    self.buffer = buffer
    self.length = length
    self.flags = flags
    self.pointer = pointer
  }

  /// `NS_BUF_CHANGED`: set when the index was replaced.
  public static let bufferChanged: UInt16 = 1
  /// `NS_MOREFRAG`: the packet goes on in the next slot.
  public static let moreFragments: UInt16 = 0x20
}

/// A view of a ring in the region. Valid while the port it came from is open; copies are the same ring. One thread at a
/// time uses a ring.
@frozen @safe public struct NetmapRingView: BitwiseCopyable, @unchecked Sendable {
  /// First byte of `struct netmap_ring`.
  public let header: UnsafeMutableRawPointer
  /// Buffer 0, and how many buffers from there on lie in the region.
  @usableFromInline let buffers: UnsafeMutableRawPointer
  public let bufferCount: UInt32
  /// Bytes of a buffer.
  public let bufferSize: UInt32
  public let slotCount: UInt32
  public let isReceive: Bool
  public let isHost: Bool
  /// Among the rings of its kind and direction.
  public let number: UInt16

  // SAFETY: header and slots lie in the region, which NetmapAttachment checked; an index of a slot or a buffer that is out
  // of range is taken for 0.

  @inlinable @inline(__always) public var head: UInt32 { unsafe rw_read32(header + 20) }
  @inlinable @inline(__always) public var cur: UInt32 { unsafe rw_read32(header + 24) }
  /// The other side's: first slot that is not ours.
  @inlinable @inline(__always) public var tail: UInt32 { unsafe rw_load_acquire32(header + 28) }

  /// Slots between head and tail.
  @inlinable @inline(__always) public var available: UInt32 {
    let distance = tail &- head
    return Int32(bitPattern: distance) < 0 ? distance &+ slotCount : distance
  }

  /// Gives all slots before `head` back; wakeups come as soon as there is one more than now.
  @inlinable @inline(__always) public func setHead(_ head: UInt32) {
    unsafe rw_write32(header + 24, head)
    unsafe rw_store_release32(header + 20, head)
  }
  /// Where to wake up: beyond head for those who need several slots at once.
  @inlinable @inline(__always) public func setCur(_ cur: UInt32) { unsafe rw_write32(header + 24, cur) }

  /// The slot after `i`.
  @inlinable @inline(__always) public func next(_ i: UInt32) -> UInt32 { i &+ 1 >= slotCount ? 0 : i &+ 1 }

  @inlinable @inline(__always) func address(_ i: UInt32) -> UnsafeMutableRawPointer {
    unsafe header + 256 + 16 &* Int(i < slotCount ? i : 0)
  }

  @inlinable @inline(__always) public func slot(_ i: UInt32) -> NetmapSlotView {
    let at = unsafe address(i)
    let word = unsafe rw_read64(at)
    return NetmapSlotView(
      buffer: UInt32(truncatingIfNeeded: word), length: UInt16(truncatingIfNeeded: word >> 32), flags: UInt16(truncatingIfNeeded: word >> 48),
      pointer: unsafe rw_read64(at + 8))
  }

  @inlinable @inline(__always) public func setSlot(_ i: UInt32, _ slot: NetmapSlotView) {
    let at = unsafe address(i)
    unsafe rw_write64(at, UInt64(slot.buffer) | UInt64(slot.length) << 32 | UInt64(slot.flags) << 48)
    unsafe rw_write64(at + 8, slot.pointer)
  }

  /// A buffer's bytes; those of buffer 0, which is nobody's, for an index that does not exist.
  @inlinable @inline(__always) public func bytes(_ buffer: UInt32) -> UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(
      start: buffers + Int(buffer < bufferCount ? buffer : 0) &* Int(bufferSize), count: Int(bufferSize))
  }

  /// The packet in slot `i`, cut at the buffer's end.
  @inlinable @inline(__always) public func packet(_ i: UInt32) -> UnsafeMutableRawBufferPointer {
    let slot = slot(i)
    return unsafe UnsafeMutableRawBufferPointer(rebasing: bytes(slot.buffer)[..<min(Int(slot.length), Int(bufferSize))])
  }
}

extension NetmapAttachment {
  /// nil when the ring's buffers do not lie in the region, or have less than netmap's 64 bytes.
  func view(_ index: Int) -> NetmapRingView? {
    let ring = ring(index)
    // SAFETY: fields of the ring's header, read once and checked.
    let offset = Int64(bitPattern: unsafe rw_read64(ring.header))
    let size = unsafe rw_read32(ring.header + 12)
    let (start, overflow) = offset.addingReportingOverflow(Int64(unsafe ring.header - memory))
    guard !overflow, start >= 0, size >= 64, start <= Int64(memoryCount) - Int64(size) else { return nil }
    let count = (Int64(memoryCount) - start) / Int64(size)
    return unsafe NetmapRingView(
      header: ring.header, buffers: memory + Int(start), bufferCount: UInt32(clamping: count), bufferSize: size, slotCount: ring.slots,
      isReceive: ring.isReceive, isHost: ring.isHost, number: ring.number)
  }
}
