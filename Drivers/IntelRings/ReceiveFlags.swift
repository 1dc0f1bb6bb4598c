// From the card's words about a received frame to the stack's: tables, so that the packet path only
// looks up.
//
// A frame's flags are `status[4 bits] & info[11 bits]`: the status says what was checked, the packet
// type which protocol that was. A checked SCTP sum has no flag and falls out.

import Packet

/// What status bits, packet types and hash types are as packet flags.
@safe struct ReceiveFlags: BitwiseCopyable {
  /// 16 entries for the status bits, 2048 for hash and packet types.
  private let entries: UnsafeMutablePointer<UInt32>
  private static let infoAt = 16

  @inline(__always) private static var layer4: UInt32 { PacketFlags.tcpChecksum.rawValue | PacketFlags.udpChecksum.rawValue }

  init() {
    unsafe entries = .allocate(capacity: Self.infoAt + 2048)
    for i in 0..<16 { unsafe (entries + i).initialize(to: Self.status(UInt64(i) << 3)) }
    for i in 0..<2048 { unsafe (entries + (Self.infoAt + i)).initialize(to: Self.info(i)) }
  }

  func deallocate() { unsafe entries.deallocate() }

  // SAFETY: the indices have 4 and 11 bits.
  /// Of a frame without errors.
  @inline(__always) func plain(_ word: ReceiveWord, _ info: ReceiveInfo) -> UInt32 {
    unsafe entries[word.flagIndex] & entries[Self.infoAt &+ info.flagIndex]
  }

  /// Also of frames with a wrong checksum, as `family` describes them.
  func any(_ word: ReceiveWord, _ info: ReceiveInfo, _ family: AdvancedFamily) -> UInt32 {
    var flags = plain(word, info)
    let isUDP = flags & PacketFlags.udpChecksum.rawValue != 0
    if word.errors & family.ipWrong != 0, word.bits & ReceiveWord.ipChecked != 0 {
      flags = flags & ~PacketFlags.ipChecksum.rawValue | PacketFlags.badChecksum.rawValue
    }
    if word.errors & family.layer4Wrong != 0, flags & Self.layer4 != 0 {
      flags &= ~Self.layer4
      if !(isUDP && family.doubtsUDP) { flags |= PacketFlags.badChecksum.rawValue }
    }
    return flags
  }

  /// In raw bits: option sets would need their metadata at run time.
  private static func status(_ bits: UInt64) -> UInt32 {
    var flags = PacketFlags.hashed.rawValue
    if bits & ReceiveWord.vlan != 0 { flags |= PacketFlags.vlan.rawValue }
    if bits & ReceiveWord.ipChecked != 0 { flags |= PacketFlags.ipChecksum.rawValue }
    if bits & ReceiveWord.layer4Checked != 0 { flags |= layer4 }
    return flags
  }

  /// What the packet's type leaves of the status.
  private static func info(_ bits: Int) -> UInt32 {
    var flags = PacketFlags.vlan.rawValue | PacketFlags.ipChecksum.rawValue
    // Hash type 0: none was made.
    if bits & 15 != 0 { flags |= PacketFlags.hashed.rawValue }
    if bits & ReceiveInfo.tcp != 0 { flags |= PacketFlags.tcpChecksum.rawValue }
    if bits & ReceiveInfo.udp != 0 { flags |= PacketFlags.udpChecksum.rawValue }
    return flags
  }
}
