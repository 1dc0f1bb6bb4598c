// Option OFFSETS: frames that start somewhere in their buffers, as the slot's `ptr` says.
//
//   buffer  |<── offset ──>|── frame, len bytes ──|<── gap ──>|
//
// Who registers first decides for a ring, and a ring that is shared keeps what it has: later programs get the larger
// largest offset, or EBUSY when theirs does not fit.

internal import NetmapAPI
internal import NetmapCore

/// What an OFFSETS option comes to.
struct OffsetPlan: Sendable {
  /// The bits of `ptr` that are the offset.
  let mask: UInt64
  let wanted: OffsetsOption
  /// What the program gets.
  let answer: OffsetsOption

  /// A fresh ring's.
  func apply(to kring: Kring) {
    kring.setOffsets(mask: mask, largest: Int(wanted.largest), gap: Int(clamping: wanted.smallestGap))
    guard wanted.initial != 0 else { return }
    for i in 0..<kring.count {
      var slot = kring.ring.slot(i)
      slot.pointer = wanted.initial
      kring.ring.setSlot(i, slot)
    }
  }
}

extension PortKrings {
  /// Holds a program's wish against the port, and the rings that others hold already. On worker 0; changes nothing.
  /// - Throws: EOPNOTSUPP for a port without offsets, EINVAL for numbers that cannot be, EBUSY when a ring has others, or
  ///   none: it is in use, and stays as it is.
  func planOffsets(
    _ wanted: OffsetsOption, _ ids: [RingID], _ region: NetmapRegion, _ adapter: any NetmapAdapter
  ) throws(NetmapError) -> OffsetPlan {
    let name = adapter.name
    guard adapter.supportsOffsets else { throw NetmapError(.EOPNOTSUPP, "\(name): frames of this port cannot start at offsets.") }
    let mask = try wanted.mask(name, bufferSize: region.allocator.bufferSize)
    var answer = wanted
    for kring in ids.compactMap({ ring($0)?.kring }) {
      guard kring.offsetMask & mask == mask, UInt64(kring.largestOffset) >= wanted.largest else {
        throw NetmapError(.EBUSY, "\(name): \(kring.id) is in use with offsets up to \(kring.largestOffset).")
      }
      answer.largest = max(answer.largest, UInt64(kring.largestOffset))
    }
    return OffsetPlan(mask: mask, wanted: wanted, answer: answer)
  }
}

extension OffsetsOption {
  /// The bits of `ptr`; EINVAL for numbers that do not fit each other, or a buffer.
  func mask(_ name: String, bufferSize: Int) throws(NetmapError) -> UInt64 {
    guard bits <= 64 else { throw NetmapError(.EINVAL, "\(name): an offset has at most 64 bits; \(bits) were asked for.") }
    let mask = bits == 0 || bits == 64 ? UInt64.max : (1 << UInt64(bits)) - 1
    guard largest <= UInt64(bufferSize) else {
      throw NetmapError(.EINVAL, "\(name): an offset of \(largest) lies beyond the buffer's \(bufferSize) bytes.")
    }
    guard largest & mask == largest else { throw NetmapError(.EINVAL, "\(name): an offset of \(largest) does not fit \(bits) bits.") }
    guard initial <= largest else {
      throw NetmapError(.EINVAL, "\(name): the initial offset of \(initial) is larger than the largest one, \(largest).")
    }
    return mask
  }
}
