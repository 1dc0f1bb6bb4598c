// A frame in one piece, as it was on the wire.

public import Packet

/// Joins the buffers of a frame and puts its VLAN tag back.
///
/// Most frames lie in one buffer and carry their tag themselves: those are lent where they are. The
/// others are built in the image's own memory, which is made once.
@safe public struct WireImage: ~Copyable {
  private let scratch: UnsafeMutableRawBufferPointer
  /// Bytes of the two addresses, in front of a VLAN tag (IEEE 802.1Q, 9.3).
  private static let addressBytes = 12

  /// - Parameter capacity: bytes of a frame that can be joined; what is behind them is left out.
  public init(capacity: Int = 65536) {
    unsafe scratch = .allocate(byteCount: max(64, capacity), alignment: 16)
  }

  deinit { unsafe scratch.deallocate() }

  /// The frame's bytes, and its length on the wire (larger when the image's memory is too small for
  /// all of it).
  ///
  /// The bytes are valid while the packet is lent and until the next call.
  @inline(__always) @unsafe
  public func bytes(of packet: borrowing Packet) -> (bytes: UnsafeRawBufferPointer, wireLength: Int) {
    let tagged = packet.flags.contains(.vlan)
    if !tagged && packet.firstCount == packet.count {
      return unsafe packet.withBytes { bytes in (UnsafeRawBufferPointer(bytes), bytes.count) }
    }
    let count = build(packet, tagged: tagged)
    return unsafe (UnsafeRawBufferPointer(rebasing: scratch[..<count]), packet.count + (tagged ? 4 : 0))
  }

  /// - Returns: how many bytes of the scratch memory are valid.
  private func build(_ packet: borrowing Packet, tagged: Bool) -> Int {
    guard tagged else { return unsafe packet.copyBytes(to: scratch) }
    // The frame goes in four bytes further on; its addresses then move to the front.
    let body = unsafe UnsafeMutableRawBufferPointer(rebasing: scratch[4...])
    let count = unsafe packet.copyBytes(to: body)
    guard count >= Self.addressBytes, let start = unsafe scratch.baseAddress else {
      return unsafe packet.copyBytes(to: scratch)
    }
    // SAFETY: the scratch memory holds at least 64 bytes; the source lies behind the target.
    unsafe start.copyMemory(from: start + 4, byteCount: Self.addressBytes)
    unsafe scratch[12] = 0x81
    unsafe scratch[13] = 0x00
    unsafe scratch[14] = UInt8(packet.vlan >> 8)
    unsafe scratch[15] = UInt8(packet.vlan & 0xff)
    return count + 4
  }
}
