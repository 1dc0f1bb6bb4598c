// Cyclic redundancy checks of frames.

/// CRC-32 of Ethernet (IEEE 802.3-2022, 3.2.9) and CRC-32C of SCTP (RFC 9260, appendix A).
public enum EthernetCRC {
  private static func table(_ polynomial: UInt32) -> [UInt32] {
    (0..<256).map { index in
      var value = UInt32(index)
      for _ in 0..<8 { value = value & 1 != 0 ? value >> 1 ^ polynomial : value >> 1 }
      return value
    }
  }
  private static let ethernet = table(0xedb8_8320)
  private static let castagnoli = table(0x82f6_3b78)

  private static func run(_ bytes: UnsafeRawBufferPointer, _ table: [UInt32], _ start: UInt32) -> UInt32 {
    unsafe table.withUnsafeBufferPointer { entries in
      var value = start
      // SAFETY: the index has 8 bits, the table 256 entries.
      for at in 0..<bytes.count {
        value = unsafe value >> 8 ^ entries[Int(UInt8(truncatingIfNeeded: value) ^ bytes.byte(at))]
      }
      return value
    }
  }

  /// The frame check sequence; its least significant byte is sent first.
  public static func of(_ frame: UnsafeRawBufferPointer) -> UInt32 { ~(unsafe run(frame, ethernet, .max)) }

  /// SCTP's checksum of a packet whose checksum field (bytes 8 to 11) counts as zero; in the field, its
  /// least significant byte comes first.
  public static func sctp(_ packet: UnsafeRawBufferPointer) -> UInt32 {
    guard packet.count >= 12 else { return ~(unsafe run(packet, castagnoli, .max)) }
    var value = unsafe run(packet.piece(0, 8), castagnoli, .max)
    for _ in 0..<4 { value = value >> 8 ^ castagnoli[Int(value & 0xff)] }
    return ~(unsafe run(packet.piece(12, packet.count - 12), castagnoli, value))
  }
}

/// Where a card looks in its filter tables.
public enum FilterHash {
  /// The 12 bits of a multicast address that select the bit of the multicast table array.
  /// - Parameter offset: the multicast offset field (82574 RCTL.MO, 82599 MCSTCTRL.MO): 0 to 3 for
  ///   bits 47:36, 46:35, 45:34 and 43:32 of the address as the datasheets count them.
  public static func multicast(_ frame: UnsafeRawBufferPointer, offset: Int) -> Int {
    let low = Int(unsafe frame.byte(4)), high = Int(unsafe frame.byte(5))
    let shift = switch offset & 3 { case 0: 4; case 1: 3; case 2: 2; default: 0 }
    return (low | high << 8) >> shift & 0xfff
  }

  /// Whether `bit` (0 to 4095) is set in a table of 128 words, as the multicast table array and the
  /// VLAN filter table are.
  public static func contains(_ bit: Int, _ word: (_ index: Int) -> UInt32) -> Bool {
    word(bit >> 5 & 0x7f) >> UInt32(bit & 31) & 1 != 0
  }
}
