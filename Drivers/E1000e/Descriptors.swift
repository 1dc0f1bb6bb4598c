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

/// Status and errors of an extended receive descriptor (7.1.5.2): the low half of its second word.
struct ReceiveStatus: BitwiseCopyable {
  let bits: UInt32
  @inline(__always) init(_ bits: UInt32) { self.bits = bits }

  static let done: UInt32 = 1 << 0
  static let endOfPacket: UInt32 = 1 << 1
  static let ignoreChecksum: UInt32 = 1 << 2
  static let vlan: UInt32 = 1 << 3
  static let udpChecked: UInt32 = 1 << 4
  static let layer4Checked: UInt32 = 1 << 5
  static let ipChecked: UInt32 = 1 << 6
  /// Check sequence, symbol, sequence, carrier extension or data error: the frame is damaged.
  static let damaged: UInt32 = 1 << 24 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 31
  static let layer4Wrong: UInt32 = 1 << 29
  static let ipWrong: UInt32 = 1 << 30

  @inline(__always) var isDone: Bool { bits & Self.done != 0 }
  @inline(__always) var isLast: Bool { bits & Self.endOfPacket != 0 }
  @inline(__always) var isDamaged: Bool { bits & Self.damaged != 0 }
  /// A whole frame in one buffer with nothing wrong, checksums included: one comparison.
  @inline(__always) var isPlain: Bool {
    bits & (Self.done | Self.endOfPacket | Self.damaged | Self.layer4Wrong | Self.ipWrong) == Self.done | Self.endOfPacket
  }
  /// What there is to say of the frame when nothing is wrong: five bits, an index into `FlagTable`.
  @inline(__always) var flagIndex: Int { Int(truncatingIfNeeded: bits >> 2 & 0x1f) }
}

/// One extended receive descriptor: every operation on it, whoever the buffers come from.
///
/// The words are read in pieces, each of them once: what is used as a bound is never read again.
@unsafe struct ReceiveDescriptor: BitwiseCopyable {
  private var window: DescriptorWindow
  @inline(__always) init(_ ring: DescriptorWindow, _ index: Int) {
    unsafe window = DescriptorWindow(unsafe: ring.base + index &* descriptorSize)
  }

  /// Zero until the card has written the descriptor back.
  @inline(__always) var status: ReceiveStatus { unsafe ReceiveStatus(window.read32(8)) }
  // Valid once `status` says done, and a barrier lies between.
  /// Bytes in the buffer, as the card claims.
  @inline(__always) var length: UInt32 { unsafe UInt32(window.read16(12)) }
  @inline(__always) var vlanTag: UInt32 { unsafe UInt32(window.read16(14)) }
  @inline(__always) var hash: UInt32 { unsafe window.read32(4) }
  /// 0 when the frame has no hash.
  @inline(__always) var hashType: Int { unsafe Int(truncatingIfNeeded: window.read32(0) & 15) }

  /// Offers a buffer to the card.
  @inline(__always) func post(_ iova: UInt64) {
    unsafe window.write64(0, iova)
    unsafe window.write64(8, 0)
  }
  @inline(__always) mutating func advance() { unsafe window = DescriptorWindow(unsafe: window.base + descriptorSize) }
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

/// One transmit descriptor: every operation on it, whoever the buffers belong to.
@unsafe struct TransmitDescriptor: BitwiseCopyable {
  private var window: DescriptorWindow
  @inline(__always) init(_ ring: DescriptorWindow, _ index: Int) {
    unsafe window = DescriptorWindow(unsafe: ring.base + index &* descriptorSize)
  }

  /// The card has sent everything up to here; asked for by `requestReport`.
  @inline(__always) var isReported: Bool { unsafe window.read32(12) & 1 != 0 }
  /// Whether a frame ends here.
  @inline(__always) var isLast: Bool { unsafe window.read64(8) & TransmitCommand.endOfPacket != 0 }

  @inline(__always) func post(_ low: UInt64, _ high: UInt64) {
    unsafe window.write64(0, low)
    unsafe window.write64(8, high)
  }
  /// Adds command bits to a descriptor that was posted, before the tail moves past it.
  @inline(__always) func add(_ command: UInt64) { unsafe window.write64(8, window.read64(8) | command) }
  @inline(__always) mutating func advance() { unsafe window = DescriptorWindow(unsafe: window.base + descriptorSize) }
}
