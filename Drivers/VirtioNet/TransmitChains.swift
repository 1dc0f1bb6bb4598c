// Frames that take more than one descriptor: no headroom, several buffers, or a VLAN tag to insert.
//
//   no headroom    [constant header, 12 bytes] -> [frame]
//   VLAN tag       [header, both addresses, tag: 28 bytes of the descriptor's own] -> [rest of the frame]
//   offloads       [header, 12 bytes of the descriptor's own] -> [frame], or in front as above
//   several        [header and first part] -> [part] -> ...
//
// virtio has no tag insertion of its own. The tag goes out from descriptor memory, so the frame's
// buffer stays as it is.

import CRingway
import DriverKit
import Packet
import VirtioTransport
import Wire

extension TransmitQueue {
  /// What has to be known of a frame before its descriptors are written.
  private struct Shape {
    var segments = 0
    /// Bytes on the wire, tag included.
    var total: UInt32 = 0
    /// The header goes into the first buffer, in front of the frame.
    var inFront = false
    var tagged = false
    /// To be cut into segments by the device.
    var isCut = false
    var descriptors: Int { segments + (inFront ? 0 : 1) }

    init(_ record: RawPacket) {
      var at: RawPacket? = unsafe record
      while let segment = unsafe at {
        if unsafe segment.pointee.length != 0 { segments += 1 }
        unsafe total &+= UInt32(segment.pointee.length)
        unsafe at = segment.pointee.next
      }
      let first = unsafe record.pointee
      tagged = first.flags.rawValue & PacketFlags.vlan.rawValue != 0
      inFront = !tagged && Int(first.offset) >= NetHeader.size && first.length != 0
      isCut = first.flags.rawValue & PacketFlags.segmentation.rawValue != 0 && first.headerLengths != 0
      guard tagged else { return }
      // Both addresses are taken out of the first buffer, which must hold them, and more.
      total = first.length > 12 ? total &+ UInt32(Ethernet.vlanTagSize) : 0
    }
  }

  /// Posts a frame of any shape.
  /// - Returns: false when there is no room for it now. A frame that can never be sent is counted,
  ///   freed, and counts as taken.
  @inline(never)
  mutating func postCarefully(_ record: RawPacket) -> Bool {
    let shape = unsafe Shape(record)
    let most = shape.isCut ? TransmitOffloads.largestFrame : maximumFrame
    guard shape.total >= Ethernet.headerSize, shape.total <= most, shape.descriptors <= queue.layout.size else {
      return unsafe refuse(record)
    }
    if shape.descriptors > free.count {
      reclaim()
      if shape.descriptors > free.count { return false }
    }
    // Changes checksum fields, so it comes once, when the frame is certain to go.
    guard let header = unsafe offloads.header(for: record, shift: shape.tagged ? Ethernet.vlanTagSize : 0) else {
      return unsafe refuse(record)
    }
    let head = unsafe fillChain(record, shape, header)
    unsafe post(record, head: head, bytes: shape.total)
    return true
  }

  /// A frame that can never be sent: counted, freed, and taken.
  private mutating func refuse(_ record: RawPacket) -> Bool {
    counters.drops &+= 1
    unsafe PoolState.put(record)
    return true
  }

  /// The usual case: frames of one buffer without headroom, nothing to insert. From `first` on, until one is anything else or the ring is full. Returns the index of
  /// the first frame that was not posted.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inline(never)
  mutating func postBare(_ source: UnsafeMutablePointer<RawPacket>, _ first: Int, _ have: Int) -> Int {
    let ring = queue.ring, slots = unsafe shadow.slots, links = unsafe self.links, ids = unsafe free.ids, mask = free.mask
    let most = maximumFrame &- UInt32(Ethernet.headerSize), header = constantHeader
    var taken = free.head, next = queue.next, left = free.count, at = first, bytes: UInt64 = 0
    // SAFETY: `at` stays below the batch's count; numbers of the list are below the ring's size.
    while at < have, left >= 2 {
      let record = unsafe source[at]
      let length = unsafe UInt32(record.pointee.length), offset = unsafe Int(record.pointee.offset)
      guard unsafe record.pointee.next == nil, offset < NetHeader.size, length &- UInt32(Ethernet.headerSize) <= most,
        unsafe Self.asksNothing(record)
      else { break }
      let head = unsafe ids[Int(UInt32(taken) & mask)], body = unsafe ids[Int(UInt32(taken &+ 1) & mask)]
      ring.setDescriptor(
        UInt32(head), address: header, length: UInt32(NetHeader.size), flags: DescriptorFlags.next, next: body)
      unsafe ring.setDescriptor(UInt32(body), address: record.pointee.iova &+ UInt64(truncatingIfNeeded: offset), length: length)
      unsafe links[Int(head)] = body
      unsafe slots[Int(head)] = record
      ring.setAvailable(next, id: UInt32(head))
      taken &+= 2
      next &+= 1
      left &-= 2
      bytes &+= UInt64(length)
      at &+= 1
    }
    free.head = taken
    queue.next = next
    careful &+= at &- first
    counters.packets &+= UInt64(truncatingIfNeeded: at &- first)
    counters.bytes &+= bytes
    return at
  }

  private var constantHeader: UInt64 { headerBase &+ UInt64(queue.layout.size * Self.headerStride) }

  @inline(__always)
  private mutating func post(_ record: RawPacket, head: UInt32, bytes: UInt32) {
    unsafe shadow.slots[Int(head)] = record
    queue.ring.setAvailable(queue.next, id: head)
    queue.next &+= 1
    careful += 1
    counters.packets &+= 1
    counters.bytes &+= UInt64(bytes)
  }

  /// Writes the descriptors of a frame. Returns the first one's number.
  private mutating func fillChain(_ record: RawPacket, _ shape: Shape, _ words: TransmitHeader) -> UInt32 {
    var remaining = shape.descriptors
    let head = free.take()
    var id = head
    /// Writes one descriptor and takes the number of the next, when there is one.
    func put(_ address: UInt64, _ length: UInt32) {
      remaining -= 1
      guard remaining > 0 else {
        queue.ring.setDescriptor(id, address: address, length: length)
        return
      }
      let following = free.take()
      queue.ring.setDescriptor(
        id, address: address, length: length, flags: DescriptorFlags.next, next: UInt16(truncatingIfNeeded: following))
      unsafe links[Int(id)] = UInt16(truncatingIfNeeded: following)
      id = following
    }
    var skip = 0
    if shape.tagged {
      unsafe put(writeTaggedHeader(record, head, words), UInt32(NetHeader.size + 12 + Ethernet.vlanTagSize))
      skip = 12
    } else if !shape.inFront {
      put(words.isPlain ? constantHeader : writeHeader(head, words), UInt32(NetHeader.size))
    }
    var front = shape.inFront
    var at: RawPacket? = unsafe record
    while let segment = unsafe at {
      unsafe at = segment.pointee.next
      let length = unsafe UInt32(segment.pointee.length)
      guard length != 0 else { continue }
      let offset = unsafe Int(segment.pointee.offset)
      if front {
        front = false
        // SAFETY: `inFront` says that 12 bytes of the buffer lie before the frame.
        let header = unsafe segment.pointee.buffer + (offset - NetHeader.size)
        unsafe rw_write64(header, words.low)
        unsafe rw_write32(header + 8, words.high)
        unsafe put(segment.pointee.iova + UInt64(offset - NetHeader.size), length + UInt32(NetHeader.size))
      } else {
        unsafe put(segment.pointee.iova + UInt64(offset + skip), length - UInt32(skip))
        skip = 0
      }
    }
    return head
  }

  /// The header in descriptor `head`'s own header memory. Returns its bus address.
  private func writeHeader(_ head: UInt32, _ words: TransmitHeader) -> UInt64 {
    // SAFETY: `head` is below the ring's size.
    let header = unsafe headers + Int(head) * Self.headerStride
    unsafe rw_write64(header, words.low)
    unsafe rw_write32(header + 8, words.high)
    return headerBase &+ UInt64(Int(head) * Self.headerStride)
  }

  /// Header, addresses and tag in descriptor `head`'s own header memory. Returns its bus address.
  private func writeTaggedHeader(_ record: RawPacket, _ head: UInt32, _ words: TransmitHeader) -> UInt64 {
    // SAFETY: `head` is below the ring's size; the first buffer holds more than 12 bytes of frame.
    let header = unsafe headers + Int(head) * Self.headerStride
    let frame = unsafe record.pointee.buffer + Int(record.pointee.offset)
    unsafe rw_write64(header, words.low)
    unsafe rw_write32(header + 8, words.high)
    for i in 0..<12 { unsafe rw_write8(header + 12 + i, rw_read8(frame + i)) }
    let tag = unsafe record.pointee.vlan
    unsafe rw_write8(header + 24, UInt8(Ethernet.typeVLAN >> 8))
    unsafe rw_write8(header + 25, UInt8(Ethernet.typeVLAN & 0xff))
    unsafe rw_write8(header + 26, UInt8(tag >> 8))
    unsafe rw_write8(header + 27, UInt8(tag & 0xff))
    return headerBase &+ UInt64(Int(head) * Self.headerStride)
  }
}
