// A slot of a shared ring: 16 bytes that a program also writes.

/// `struct netmap_slot`: which buffer, how many bytes of it, and what about it.
@frozen public struct NetmapSlot: BitwiseCopyable, Sendable, Equatable {
  /// `buf_idx`: a buffer's index. Programs swap these to move packets without a copy.
  public var bufferIndex: UInt32
  /// `len`: bytes of the packet in this buffer.
  public var length: UInt16
  public var flags: SlotFlags
  /// `ptr`: an address in the program, for `.indirect`; or an offset in the buffer.
  public var pointer: UInt64

  @inlinable @inline(__always)
  public init(bufferIndex: UInt32, length: UInt16, flags: SlotFlags = [], pointer: UInt64 = 0) {
    self.bufferIndex = bufferIndex
    self.length = length
    self.flags = flags
    self.pointer = pointer
  }
}

/// Flags of a slot.
@frozen public struct SlotFlags: OptionSet, Sendable, BitwiseCopyable {
  public let rawValue: UInt16
  @inlinable @inline(__always) public init(rawValue: UInt16) { self.rawValue = rawValue }
  /// `NS_BUF_CHANGED`: the program put another buffer into the slot.
  @inlinable public static var bufferChanged: SlotFlags { SlotFlags(rawValue: 0x0001) }
  /// `NS_REPORT`: tell when this slot has been sent.
  @inlinable public static var report: SlotFlags { SlotFlags(rawValue: 0x0002) }
  /// `NS_FORWARD`: pass the packet on between card and host at the next receive sync.
  @inlinable public static var forward: SlotFlags { SlotFlags(rawValue: 0x0004) }
  /// `NS_NO_LEARN`: the switch does not learn this packet's source address.
  @inlinable public static var noLearn: SlotFlags { SlotFlags(rawValue: 0x0008) }
  /// `NS_INDIRECT`: the bytes are at `pointer` in the program.
  @inlinable public static var indirect: SlotFlags { SlotFlags(rawValue: 0x0010) }
  /// `NS_MOREFRAG`: the packet goes on in the next slot.
  @inlinable public static var moreFragments: SlotFlags { SlotFlags(rawValue: 0x0020) }
  /// `NS_TXMON`: the packet was sent, not received (monitors).
  @inlinable public static var transmitMonitor: SlotFlags { SlotFlags(rawValue: 0x0040) }
  /// The high byte: a switch's destination port, or how many fragments there are.
  @inlinable public var high: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 8) }
}
