// virtio-net headers: ports with and without them on one switch.
//
//    flags u8 · gso_type u8 · hdr_len u16 · gso_size u16 · csum_start u16 · csum_offset u16 · [buffers u16]     10 or 12 bytes
//
// The header's two sizes differ in the last field, which is a hint and may be 0. Between ports of one size frames pass as they
// are, header included. Otherwise: to a port with headers the first ten bytes go along, or zeros if the sender has none; to a
// port without them a checksum that the header asks for is computed. A frame that is to be cut into segments is for ports
// with headers alone: cutting it up is left to whoever offered the offload, and such frames are dropped and counted.

internal import CRingway
internal import NetmapCore
internal import Wire

extension ValeSource {
  private static let needsChecksum: UInt8 = 1, dataValid: UInt8 = 2
  /// Segment kinds (virtio 1.x, 5.1.6): none, TCP over IPv4, UDP, TCP over IPv6; the top bit is ECN.
  private static let kinds: [UInt8] = [0, 1, 3, 4]

  /// The first byte behind the header of the frame at `k`, which notes what the header asks for; nil for a frame without
  /// header or with a shorter one than Ethernet's.
  func behindHeader(_ k: Int, _ note: ValeNote, _ header: Int) -> UnsafeRawPointer? {
    // SAFETY: notes are of buffers that the region's programs hold, and lengths of bytes in them.
    guard let base = unsafe UnsafeRawPointer(bitPattern: note.address), Int(note.length) >= header else { return nil }
    let flags = unsafe rw_read8(base), kind = unsafe rw_read8(base + 1) & 0x7f
    // A header that makes no sense is for a port that understands more than we do: it is no reason to drop the frame there.
    if flags & Self.needsChecksum != 0 { unsafe notes[k].marks |= ValeNote.wantsChecksum }
    if kind != 0 || flags & ~(Self.needsChecksum | Self.dataValid) != 0 { unsafe notes[k].marks |= ValeNote.wantsSegments }
    if Int(note.length) > header { return Int(note.length) - header >= 14 ? unsafe base + header : nil }
    guard note.fragments > 1 else { return nil }
    let second = unsafe notes[k + 1]
    return second.length >= 14 ? unsafe UnsafeRawPointer(bitPattern: second.address) : nil
  }

  /// Slots that the frame at `k` takes in a port with other headers or smaller buffers; 0 when it cannot go there.
  func slotsNeeded(_ k: Int, header: Int, _ route: ValeRoute) -> Int {
    // SAFETY: of the accesses here: the frame's notes are below the batch's count.
    let note = unsafe notes[k], fragments = Int(note.fragments)
    let first = Int(note.length) - header + route.header
    guard first >= 0, first <= route.bufferSize else { return 0 }
    if route.header == 0, header > 0, note.marks & ValeNote.wantsSegments != 0 { return 0 }
    for extra in 1..<max(2, fragments) where extra < fragments {
      if unsafe Int(notes[k + extra].length) > route.bufferSize { return 0 }
    }
    return first == 0 ? fragments - 1 : fragments
  }

  /// Puts the header of the destination's size in front of `to`.
  func writeHeader(_ note: ValeNote, header: Int, _ route: ValeRoute, to: UnsafeMutableRawPointer) {
    guard route.header > 0 else { return }
    // SAFETY: buffers have 64 bytes at least.
    unsafe rw_write64(to, 0)
    unsafe rw_write32(to + 8, 0)
    guard header > 0, let from = unsafe UnsafeRawPointer(bitPattern: note.address) else { return }
    unsafe rw_copy(to, from, 10)
  }

  /// Computes the checksum that a frame's header asks for, in the copy.
  /// - Parameters:
  ///   - parts: the copy's buffers, each with the bytes in it.
  func fillChecksum(_ note: ValeNote, header: Int, parts: [UnsafeMutableRawBufferPointer]) {
    guard let from = unsafe UnsafeRawPointer(bitPattern: note.address), let first = unsafe parts.first,
      let base = first.baseAddress
    else { return }
    // SAFETY: the header is inside the sender's first fragment; what it says is read once and held against the copy.
    let start = Int(unsafe rw_read16(from + 6)), field = start + Int(unsafe rw_read16(from + 8))
    guard start < first.count, field + 2 <= first.count else { return }
    var total: UInt64 = 0, isOdd = false, skip = start
    for unsafe part in unsafe parts {
      guard let bytes = part.baseAddress, part.count > skip else { continue }
      let sum = unsafe InternetChecksum.sum(unsafe: UnsafeRawPointer(bytes + skip), count: part.count - skip)
      // A part at an odd place counts with its bytes swapped.
      total += UInt64(isOdd ? sum.byteSwapped : sum)
      if (part.count - skip) % 2 == 1 { isOdd.toggle() }
      skip = 0
    }
    let sum = ~InternetChecksum.fold(total)
    unsafe base.storeBytes(of: (sum == 0 ? 0xffff : sum).bigEndian, toByteOffset: field, as: UInt16.self)
  }
}
