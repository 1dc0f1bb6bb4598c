// From the card's words about a received frame to the stack's: tables, so that the packet path only
// looks up.

import Packet

/// What the card's status bits and hash types are as packet flags (7.1.5.2 and 7.1.5.3).
@safe struct FlagTable: BitwiseCopyable {
  /// 32 entries for the status bits, 16 for the hash types.
  private let entries: UnsafeMutablePointer<UInt32>

  init() {
    unsafe entries = .allocate(capacity: 48)
    for i in 0..<48 { unsafe (entries + i).initialize(to: 0) }
    for i in 0..<32 { unsafe entries[i] = Self.flags(ReceiveStatus(UInt32(i) << 2)) }
    for i in 33..<48 { unsafe entries[i] = PacketFlags.hashed.rawValue }
  }

  func deallocate() { unsafe entries.deallocate() }

  // SAFETY: the indices have 5 and 4 bits.
  @inline(__always) func plain(_ status: ReceiveStatus) -> UInt32 { unsafe entries[status.flagIndex] }
  @inline(__always) func hashed(_ type: Int) -> UInt32 { unsafe entries[32 &+ type] }
  /// Also for frames with a wrong checksum.
  func any(_ status: ReceiveStatus) -> UInt32 { Self.flags(status) }

  /// In raw bits: option sets would need their metadata at run time.
  private static func flags(_ status: ReceiveStatus) -> UInt32 {
    let bits = status.bits
    var flags = bits & ReceiveStatus.vlan != 0 ? PacketFlags.vlan.rawValue : 0
    guard bits & ReceiveStatus.ignoreChecksum == 0 else { return flags }
    if bits & ReceiveStatus.ipChecked != 0 {
      flags |= bits & ReceiveStatus.ipWrong != 0 ? PacketFlags.badChecksum.rawValue : PacketFlags.ipChecksum.rawValue
    }
    let isUDP = bits & ReceiveStatus.udpChecked != 0
    if isUDP || bits & ReceiveStatus.layer4Checked != 0 {
      let right = isUDP ? PacketFlags.udpChecksum.rawValue : PacketFlags.tcpChecksum.rawValue
      flags |= bits & ReceiveStatus.layer4Wrong != 0 ? PacketFlags.badChecksum.rawValue : right
    }
    return flags
  }
}
