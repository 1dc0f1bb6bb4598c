// The two descriptor formats, as 64-bit words: one load says everything about a received frame,
// two stores describe a sent one. 82574 datasheet, 7.1.5 (receive) and 7.2 (transmit).
//
//   receive, as posted        63                          0      as written back by the card
//                       +0    [ buffer address            ]      [ hash 32 | multi-queue info 32   ]
//                       +8    [ 0                         ]      [ vlan 16 | length 16 | error 12 | status 20 ]
//
//   transmit, data      +0    [ buffer address            ]
//                       +8    [ vlan 16 | options 8 | status 8 | command 8 | type 4 | length 20 ]
//   transmit, context   +0    [ where the checksums start, go and end ]
//                       +8    [ as above, with type 0     ]

import DeviceIO

/// Bytes of a descriptor of either kind.
let descriptorSize = 16

/// What the card wrote over an extended receive descriptor: its second word.
struct ReceiveWriteBack: BitwiseCopyable {
  let word: UInt64
  @inline(__always) init(_ word: UInt64) { self.word = word }

  static let done: UInt64 = 1 << 0
  static let endOfPacket: UInt64 = 1 << 1
  static let ignoreChecksum: UInt64 = 1 << 2
  static let vlan: UInt64 = 1 << 3
  static let udpChecked: UInt64 = 1 << 4
  static let layer4Checked: UInt64 = 1 << 5
  static let ipChecked: UInt64 = 1 << 6
  /// Check sequence, symbol, sequence, carrier extension or data error: the frame is damaged.
  static let damaged: UInt64 = 1 << 24 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 31
  static let layer4Wrong: UInt64 = 1 << 29
  static let ipWrong: UInt64 = 1 << 30

  @inline(__always) var isDone: Bool { word & Self.done != 0 }
  /// A whole, undamaged frame in one buffer.
  @inline(__always) var isSingle: Bool {
    word & (Self.done | Self.endOfPacket | Self.damaged) == Self.done | Self.endOfPacket
  }
  @inline(__always) var isLast: Bool { word & Self.endOfPacket != 0 }
  @inline(__always) var isDamaged: Bool { word & Self.damaged != 0 }
  /// Bytes in this descriptor's buffer, as the card claims.
  @inline(__always) var length: UInt32 { UInt32(truncatingIfNeeded: word >> 32) & 0xffff }
  @inline(__always) var vlanTag: UInt16 { UInt16(truncatingIfNeeded: word >> 48) }
  /// Where to look in `ReceiveFlags`: the five status bits from 2 up, then the two checksum errors.
  @inline(__always) var flagIndex: Int { Int(truncatingIfNeeded: word >> 2 & 0x1f | word >> 24 & 0x60) }
}

/// A transmit data descriptor's second word (7.2.10).
enum TransmitCommand {
  static let endOfPacket: UInt64 = 1 << 24
  static let insertCheckSequence: UInt64 = 1 << 25
  static let reportStatus: UInt64 = 1 << 27
  static let extended: UInt64 = 1 << 29
  static let insertVLAN: UInt64 = 1 << 30
  static let dataType: UInt64 = 1 << 20
  static let done: UInt64 = 1 << 32
  /// Options: insert the IP checksum, insert the TCP or UDP one, as the last context says.
  static let ipOption: UInt64 = 1 << 40
  static let layer4Option: UInt64 = 2 << 40
  /// Every data descriptor; `single` for a frame in one buffer.
  static let data = extended | dataType | insertCheckSequence
  static let single = data | endOfPacket

  /// The context descriptor for a frame's checksums (7.2.9).
  /// - Parameters:
  ///   - link: bytes of link header. network: bytes of network header.
  ///   - ip: insert the IPv4 header's checksum. tcp, udp: insert that protocol's.
  static func context(link: Int, network: Int, ip: Bool, tcp: Bool) -> (UInt64, UInt64) {
    let layer4 = link + network
    let ipWord = UInt64(link) | UInt64(link + 10) << 8 | UInt64(ip ? layer4 - 1 : 0) << 16
    let field = layer4 + (tcp ? 16 : 6)
    let layer4Word = UInt64(layer4) | UInt64(field) << 8
    // TUCMD: bit 0 TCP, bit 1 IPv4.
    let command = extended | (tcp ? 1 << 24 : 0) | (ip ? 1 << 25 : 0)
    return (ipWord | layer4Word << 32, command)
  }
}

/// Descriptor memory with the index operations that every path shares.
///
/// Not bounds-checked: `index` is below the ring's count because callers mask it.
@unsafe struct DescriptorRing: BitwiseCopyable {
  let window: DescriptorWindow
  @inline(__always) init(_ window: DescriptorWindow) { unsafe self.window = window }

  @inline(__always) func low(_ index: Int) -> UInt64 { unsafe window.read64(index &* descriptorSize) }
  @inline(__always) func high(_ index: Int) -> UInt64 { unsafe window.read64(index &* descriptorSize &+ 8) }
  @inline(__always) func set(_ index: Int, _ low: UInt64, _ high: UInt64) {
    unsafe window.write64(index &* descriptorSize, low)
    unsafe window.write64(index &* descriptorSize &+ 8, high)
  }
  @inline(__always) func setHigh(_ index: Int, _ high: UInt64) {
    unsafe window.write64(index &* descriptorSize &+ 8, high)
  }
}
