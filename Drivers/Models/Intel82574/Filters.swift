// Which frames come in, and to which queue (82574 datasheet, 7.1.1 and 7.1.2.10).

internal import ModelKit

extension E1000eModel {
  /// What a filter said: out, in, or in by a hash that other addresses share.
  enum Verdict { case out, exact, hashed }

  private var receiveControl: UInt32 { registers[At.receiveControl] }

  /// Whether the frame has a tag of the type that the card looks for (VET).
  func isTagged(_ frame: UnsafeRawBufferPointer) -> Bool {
    unsafe frame.count >= 18 && UInt32(frame.big16(12)) == registers[At.tagType] & 0xffff
  }

  /// Addresses (7.1.1.1), then VLAN (7.1.1.2).
  func verdict(_ frame: UnsafeRawBufferPointer) -> Verdict {
    if receiveControl & 1 << 18 != 0, unsafe isTagged(frame) {
      let tag = Int(unsafe frame.big16(14)), identifier = tag & 0xfff
      if registers[At.vlanTable + (identifier >> 5) * 4] & 1 << UInt32(identifier & 31) == 0 { return .out }
      // CFIEN, CFI: the format bit has to be the one that is expected.
      if receiveControl & 1 << 19 != 0, tag >> 12 & 1 != Int(receiveControl >> 20 & 1) { return .out }
    }
    return unsafe addressVerdict(frame)
  }

  private func addressVerdict(_ frame: UnsafeRawBufferPointer) -> Verdict {
    let low = unsafe frame.big32(0).byteSwapped, high = UInt32(unsafe frame.big16(4).byteSwapped)
    for entry in stride(from: At.addressTable, to: At.addressTable + 128, by: 8)
    where registers[entry + 4] & 0x8000_ffff == 1 << 31 | high && registers[entry] == low {
      return .exact
    }
    switch unsafe addressKind(frame) {
    case .broadcast: return receiveControl & 1 << 15 != 0 ? .exact : .out
    case .unicast: return receiveControl & 1 << 3 != 0 ? .exact : .out
    case .multicast:
      if receiveControl & 1 << 4 != 0 { return .exact }
      let bit = unsafe FilterHash.multicast(frame, offset: Int(receiveControl >> 12 & 3))
      return registers[At.multicastTable + (bit >> 5) * 4] & 1 << UInt32(bit & 31) != 0 ? .hashed : .out
    }
  }

  /// A pause frame (IEEE 802.3, annex 31B) is counted, and goes no further unless RCTL.PMCF lets it.
  func takesPause(_ frame: UnsafeRawBufferPointer) -> Bool {
    guard frame.count >= 18, unsafe UInt32(frame.big16(12)) == registers[At.flowType] & 0xffff,
      unsafe frame.big32(0).byteSwapped == registers[At.flowAddressLow],
      UInt32(unsafe frame.big16(4).byteSwapped) == registers[At.flowAddressHigh] & 0xffff
    else { return false }
    guard registers[At.deviceControl] & 1 << 27 != 0, unsafe frame.big16(14) == 1 else {
      tally(Count.flowUnsupported)
      return false
    }
    tally(unsafe frame.big16(16) == 0 ? Count.pauseOnReceived : Count.pauseOffReceived)
    return receiveControl & 1 << 23 == 0
  }

  /// Receive-side scaling: the queue, and the descriptor's first words (type, queue and hash).
  func chooseQueue(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders) -> (queue: Int, words: UInt64) {
    let control = registers[At.multipleQueues]
    guard control & 3 == 1, registers[At.receiveChecksum] & 1 << 13 != 0,
      let (type, hash) = unsafe hash(frame, headers, control)
    else { return (0, 0) }
    let entry = Int(hash & 0x7f)
    let queue = Int(registers[At.redirection + entry & ~3] >> (UInt32(entry & 3) * 8 + 7) & 1)
    return (queue, UInt64(hash) << 32 | UInt64(queue) << 8 | UInt64(type))
  }

  /// Type (7.1.2.10.1) and value of the hash; nil when none of the kinds that are switched on applies.
  private func hash(
    _ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders, _ enabled: UInt32
  ) -> (type: UInt32, hash: UInt32)? {
    let engine = hash ?? makeHash()
    func on(_ bit: UInt32) -> Bool { enabled & 1 << bit != 0 }
    switch headers.network {
    case .none: return nil
    case .ipv4:
      if headers.isTCP, on(16), let value = unsafe engine.hash(frame, headers, over: .addressesAndPorts) {
        return (1, value)
      }
      return on(17) ? unsafe engine.hash(frame, headers, over: .addresses).map { (2, $0) } : nil
    case .ipv6:
      if headers.isTCP, on(18), let value = unsafe engine.hash(frame, headers, over: .addressesAndPorts) {
        return (3, value)
      }
      let type: UInt32 = headers.hasExtensions && on(19) ? 4 : 5
      return type == 4 || on(20) ? unsafe engine.hash(frame, headers, over: .addresses).map { (type, $0) } : nil
    }
  }

  private func makeHash() -> Toeplitz {
    let key = (0..<40).map { UInt8(truncatingIfNeeded: registers[At.hashKey + $0 & ~3] >> (UInt32($0 & 3) * 8)) }
    let made = Toeplitz(key: key)
    hash = made
    return made
  }
}
