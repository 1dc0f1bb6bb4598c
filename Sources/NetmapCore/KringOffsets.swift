// The option OFFSETS: packets that begin somewhere in their buffer (net/netmap.h, `nmreq_opt_offsets`).
//
//    buffer  |<-- offset -->|<-- length -->|            offset + length <= buffer
//    slot    ptr: the bits of the mask are the offset; larger than `largestOffset` counts as that
//
// An adapter takes part by saying `supportsOffsets`, by reading where a slot's packet begins from `kring.offset(of:)`
// (after `checkedSlot`, which holds offset and length against the buffer), and by writing, into receive slots that it fills,
// the offset at which it put the packet: `kring.pointer(offset:old:)`.

extension Kring {
  /// Where in its buffer a slot's frame starts, in bytes: what the program wrote, held to the largest offset agreed on.
  /// 0 without the option.
  @inline(__always) public func offset(of slot: NetmapSlot) -> Int {
    Int(truncatingIfNeeded: min(slot.pointer & offsetMask, UInt64(truncatingIfNeeded: largestOffset)))
  }

  /// Whether a slot's frame ends in its buffer.
  @inline(__always) public func fits(_ slot: NetmapSlot) -> Bool { offset(of: slot) &+ Int(slot.length) <= bufferSize }

  /// The `ptr` that says where a frame starts, with the bits kept that are not the offset's.
  @inline(__always) public func pointer(offset: Int, old: UInt64) -> UInt64 {
    old & ~offsetMask | UInt64(truncatingIfNeeded: offset) & offsetMask
  }
}
