// The link header of what was dropped above Ethernet, for captures.

internal import Packet

/// The link header of a packet that was dropped somewhere above Ethernet: it still lies in front of it, or one is
/// made up from what the packet is.
enum LostHeader {
  /// What to put in front; nothing for a frame that still has its header.
  static func bytes(for packet: borrowing Packet) -> [UInt8] {
    guard let type = etherType(of: packet) else { return [] }
    return headerInFront(of: packet, type: type) ?? [UInt8](repeating: 0, count: 12) + [UInt8(type >> 8), UInt8(type & 0xff)]
  }

  /// The EtherType of a packet that begins with a network header; nil when it begins with an Ethernet header.
  private static func etherType(of packet: borrowing Packet) -> UInt16? {
    // A whole frame says what it is itself.
    if let high = packet.byte(at: 12), let low = packet.byte(at: 13) {
      let inside = packet.byte(at: 14) ?? 0
      switch UInt16(high) << 8 | UInt16(low) {
      case 0x0800 where inside >> 4 == 4, 0x86dd where inside >> 4 == 6, 0x0806 where inside == 0, 0x8100: return nil
      default: break
      }
    }
    guard let first = packet.byte(at: 0), let second = packet.byte(at: 1) else { return nil }
    if first >> 4 == 4, first & 15 >= 5, packet.count >= 20 { return 0x0800 }
    if first >> 4 == 6, packet.count >= 40 { return 0x86dd }
    if first == 0, second == 1, packet.byte(at: 2) == 8, packet.byte(at: 3) == 0, packet.count >= 28 { return 0x0806 }
    return nil
  }

  private static func headerInFront(of packet: borrowing Packet, type: UInt16) -> [UInt8]? {
    let headroom = packet.headroom
    func before(_ n: Int) -> UInt8 {
      // SAFETY: n is at most the headroom, which lies inside the buffer.
      unsafe packet.record.pointee.buffer.load(fromByteOffset: headroom - n, as: UInt8.self)
    }
    guard headroom >= 14, before(2) == UInt8(type >> 8), before(1) == UInt8(type & 0xff) else { return nil }
    let length = headroom >= 18 && before(6) == 0x81 && before(5) == 0 ? 18 : 14
    return (0..<length).map { before(length - $0) }
  }
}
