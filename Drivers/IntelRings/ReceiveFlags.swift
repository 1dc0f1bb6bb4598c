// From the card's words about a received frame to the stack's: tables, so that the packet path only
// looks up.
//
// A frame's flags are `status[4 bits] & types[11 bits]`: the status says what was checked, the packet
// type which protocol that was. A checked SCTP sum has no flag and falls out.

import Packet

/// What status bits, packet types and hash types are as packet flags.
@safe struct ReceiveFlags: BitwiseCopyable {
  /// 16 entries for the status bits, 8 bytes apart so that the bits are the offset; then 2048 for hash
  /// and packet types, 4 bytes apart.
  private let entries: UnsafeMutablePointer<UInt32>
  private static let typesAt = 32

  @inline(__always) private static var layer4: UInt32 { PacketFlags.tcpChecksum.rawValue | PacketFlags.udpChecksum.rawValue }

  init() {
    unsafe entries = .allocate(capacity: Self.typesAt + 2048)
    for i in 0..<32 { unsafe (entries + i).initialize(to: Self.status(UInt32(i / 2) << 3)) }
    for i in 0..<2048 { unsafe (entries + (Self.typesAt + i)).initialize(to: Self.types(i)) }
  }

  func deallocate() { unsafe entries.deallocate() }

  // SAFETY: the offset is a multiple of 8 below 128, the index has 11 bits.
  /// Of a frame without errors.
  @inline(__always) func plain(_ status: ReceiveStatus, _ types: ReceiveTypes) -> UInt32 {
    unsafe UnsafeRawPointer(entries).load(fromByteOffset: status.flagOffset, as: UInt32.self)
      & entries[Self.typesAt &+ types.flagIndex]
  }

  /// Also of frames with a wrong checksum, as `family` describes them.
  func any(_ status: ReceiveStatus, _ types: ReceiveTypes, _ family: AdvancedFamily) -> UInt32 {
    var flags = plain(status, types)
    let isUDP = flags & PacketFlags.udpChecksum.rawValue != 0
    if status.errors & family.ipWrong != 0, status.bits & ReceiveStatus.ipChecked != 0 {
      flags = flags & ~PacketFlags.ipChecksum.rawValue | PacketFlags.badChecksum.rawValue
    }
    if status.errors & family.layer4Wrong != 0, flags & Self.layer4 != 0 {
      flags &= ~Self.layer4
      if !(isUDP && family.doubtsUDP) { flags |= PacketFlags.badChecksum.rawValue }
    }
    return flags
  }

  /// In raw bits: option sets would need their metadata at run time.
  private static func status(_ bits: UInt32) -> UInt32 {
    var flags = PacketFlags.hashed.rawValue
    if bits & ReceiveStatus.vlan != 0 { flags |= PacketFlags.vlan.rawValue }
    if bits & ReceiveStatus.ipChecked != 0 { flags |= PacketFlags.ipChecksum.rawValue }
    if bits & ReceiveStatus.layer4Checked != 0 { flags |= layer4 }
    return flags
  }

  /// What the packet's type leaves of the status.
  private static func types(_ bits: Int) -> UInt32 {
    var flags = PacketFlags.vlan.rawValue | PacketFlags.ipChecksum.rawValue
    // Hash type 0: none was made.
    if bits & 15 != 0 { flags |= PacketFlags.hashed.rawValue }
    if bits & ReceiveTypes.tcp != 0 { flags |= PacketFlags.tcpChecksum.rawValue }
    if bits & ReceiveTypes.udp != 0 { flags |= PacketFlags.udpChecksum.rawValue }
    return flags
  }
}
