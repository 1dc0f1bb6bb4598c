// The advanced descriptor formats as 64-bit words (82576 datasheet, 7.1.5 and 7.2.2; 82599
// datasheet, 7.1.6 and 7.2.3).
//
//   receive, as posted     63                                0      as written back by the card
//                    +0    [ buffer address                  ]      [ hash 32 | header info 16 | packet type 12 | hash type 4 ]
//                    +8    [ header buffer address: not used ]      [ vlan 16 | length 16 | error 12 | status 20 ]
//
//   transmit, data   +0    [ buffer address                  ]
//                    +8    [ payload 18 | options 6 | CC 1 | slot 3 | status 4 | command 8 | type 4 | mac 4 | length 16 ]
//   context          +0    [ seed 32 | vlan 16 | link header 7 | network header 9 ]
//                    +8    [ segment size 16 | transport header 8 | - | slot 3 | - | command 8 | type 4 | kind 20 ]
//
// A written-back receive descriptor is read in pieces, each of them once: what is used as a bound is
// never read again.

import DeviceIO

/// Bytes of a descriptor of any kind.
public let advancedDescriptorSize = 16

/// Status and errors of a receive descriptor: the low half of its second word.
struct ReceiveStatus: BitwiseCopyable {
  let bits: UInt32
  @inline(__always) init(_ bits: UInt32) { self.bits = bits }

  static let done: UInt32 = 1 << 0
  static let endOfPacket: UInt32 = 1 << 1
  static let vlan: UInt32 = 1 << 3
  static let udpChecked: UInt32 = 1 << 4
  static let layer4Checked: UInt32 = 1 << 5
  static let ipChecked: UInt32 = 1 << 6
  /// Whatever either family calls an error of the frame or its checksums.
  static let anyError: UInt32 = 0xff << 24

  @inline(__always) var isDone: Bool { bits & Self.done != 0 }
  @inline(__always) var isLast: Bool { bits & Self.endOfPacket != 0 }
  /// A whole frame in one buffer with nothing wrong, checksums included: one comparison.
  @inline(__always) var isPlain: Bool {
    bits & (Self.done | Self.endOfPacket | Self.anyError) == Self.done | Self.endOfPacket
  }
  @inline(__always) var errors: UInt32 { bits & 0xfff0_0000 }
  /// VLAN, UDP, layer 4 and IP bits: where `ReceiveFlags` keeps what they mean, in bytes.
  @inline(__always) var flagOffset: Int { Int(truncatingIfNeeded: bits & 0x78) }
}

/// Packet and hash types: the low half of the first word of a written-back receive descriptor.
struct ReceiveTypes: BitwiseCopyable {
  let bits: UInt32
  @inline(__always) init(_ bits: UInt32) { self.bits = bits }

  // Packet type bits, as they lie in the word (behind four bits of hash type).
  static let tcp = 1 << 8
  static let udp = 1 << 9
  static let sctp = 1 << 10

  /// Hash type and packet types up to SCTP: an index into `ReceiveFlags`.
  @inline(__always) var flagIndex: Int { Int(truncatingIfNeeded: bits & 0x7ff) }
}

/// One receive descriptor: every operation on it, whoever the buffers come from.
@unsafe struct ReceiveDescriptor: BitwiseCopyable {
  private let window: DescriptorWindow
  @inline(__always) init(_ ring: DescriptorWindow, _ index: Int) {
    unsafe window = DescriptorWindow(unsafe: ring.base + index &* advancedDescriptorSize)
  }
  @inline(__always) init(at address: UnsafeMutableRawPointer) { unsafe window = DescriptorWindow(unsafe: address) }

  /// No `done` bit until the card has written the descriptor back.
  @inline(__always) var status: ReceiveStatus { unsafe ReceiveStatus(window.read32(8)) }
  // Valid once `status` says done, and a barrier lies between.
  /// Bytes in the buffer, as the card claims.
  @inline(__always) var length: UInt32 { unsafe UInt32(window.read16(12)) }
  @inline(__always) var vlanTag: UInt32 { unsafe UInt32(window.read16(14)) }
  @inline(__always) var types: ReceiveTypes { unsafe ReceiveTypes(window.read32(0)) }
  @inline(__always) var hash: UInt32 { unsafe window.read32(4) }

  /// Offers a buffer to the card.
  @inline(__always) func post(_ iova: UInt64) {
    unsafe window.write64(0, iova)
    unsafe window.write64(8, 0)
  }
}

/// The second word of transmit descriptors.
enum TransmitWord {
  static let contextType: UInt64 = 2 << 20
  static let dataType: UInt64 = 3 << 20
  static let endOfPacket: UInt64 = 1 << 24
  static let insertCheckSequence: UInt64 = 1 << 25
  static let reportStatus: UInt64 = 1 << 27
  static let extended: UInt64 = 1 << 29
  static let insertVLAN: UInt64 = 1 << 30
  static let segment: UInt64 = 1 << 31
  static let done: UInt64 = 1 << 32
  /// Where the context slot's number lies.
  static let slotShift: UInt64 = 36
  /// Insert the IPv4 header's checksum; insert the one of TCP or UDP.
  static let ipOption: UInt64 = 1 << 40
  static let layer4Option: UInt64 = 1 << 41
  static let payloadShift: UInt64 = 46
  /// Payload lengths have 18 bits.
  static let largestPayload = 1 << 18 - 1

  /// Every data descriptor; `single` for a frame in one buffer.
  static let data = extended | dataType | insertCheckSequence
  static let single = data | endOfPacket
  /// A length times this is the length and the payload of a frame in one buffer.
  static let lengthAndPayload: UInt64 = 1 | 1 << payloadShift

  // In a context descriptor: the network header is IPv4; the transport is TCP (neither bit: UDP).
  static let ipv4: UInt64 = 1 << 10
  static let tcp: UInt64 = 1 << 11
}

/// One transmit descriptor: every operation on it, whoever the buffers belong to.
@unsafe struct TransmitDescriptor: BitwiseCopyable {
  private let window: DescriptorWindow
  @inline(__always) init(_ ring: DescriptorWindow, _ index: Int) {
    unsafe window = DescriptorWindow(unsafe: ring.base + index &* advancedDescriptorSize)
  }
  @inline(__always) init(at address: UnsafeMutableRawPointer) { unsafe window = DescriptorWindow(unsafe: address) }

  /// The card has sent everything up to here; asked for by `reportStatus`.
  @inline(__always) var isReported: Bool { unsafe window.read32(12) & 1 != 0 }
  /// Whether a frame ends here, as posted: the card's write-back replaces the whole word.
  @inline(__always) var isLast: Bool { unsafe window.read64(8) & TransmitWord.endOfPacket != 0 }

  @inline(__always) func post(_ low: UInt64, _ high: UInt64) {
    unsafe window.write64(0, low)
    unsafe window.write64(8, high)
  }
  /// Adds command bits to a descriptor that was posted, before the tail moves past it.
  @inline(__always) func add(_ command: UInt64) { unsafe window.write64(8, window.read64(8) | command) }
}
