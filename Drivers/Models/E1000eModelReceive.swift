// The receive side: filters, queue choice, extended descriptors (82574 datasheet, 7.1).

import Wire

extension E1000eModel {
  private var receiveBits: UInt32 { registerFile[At.receiveControl] }

  /// One frame from the wire into memory, or dropped and counted.
  func deliver(_ arrived: [UInt8]) {
    guard receiveBits & 2 != 0, linkUp else { return }
    var frame = arrived
    while frame.count < 60 { frame.append(0) }
    if frame.count > 1518 && receiveBits & 1 << 5 == 0 || frame.count > 16380 {
      registerFile.tally(Count.longs)
      return
    }
    guard passes(frame) else {
      filteredOut += 1
      return
    }
    let parsed = ParsedFrame(frame)
    let (queue, hash) = choose(frame, parsed)
    var word: UInt64 = checksumBits(frame, parsed)
    let isTagged = frame[12] == 0x81 && frame[13] == 0
    if isTagged, registerFile[At.deviceControl] & 1 << 30 != 0 {
      word |= 1 << 3 | (UInt64(frame[14]) << 8 | UInt64(frame[15])) << 48
      frame.removeSubrange(12..<16)
    }
    if receiveBits & 1 << 26 == 0 { frame += [0, 0, 0, 0] }
    if write(frame, queue, hash, word) { count(arrived, frame.count) }
  }

  private func count(_ arrived: [UInt8], _ length: Int) {
    registerFile.tally(Count.received)
    registerFile.tallyWide(Count.receivedBytes, length + 4)
    if arrived.prefix(6).allSatisfy({ $0 == 0xff }) {
      registerFile.tally(Count.receivedBroadcast)
    } else if arrived.first.map({ $0 & 1 != 0 }) == true {
      registerFile.tally(Count.receivedMulticast)
    }
  }

  /// Addresses (7.1.1.1), then VLAN (7.1.1.2).
  private func passes(_ frame: [UInt8]) -> Bool {
    if frame[12] == 0x81, frame[13] == 0, receiveBits & 1 << 18 != 0 {
      let identifier = Int(frame[14] & 15) << 8 | Int(frame[15])
      if registerFile[At.vlanTable + (identifier >> 5) * 4] & 1 << UInt32(identifier & 31) == 0 { return false }
    }
    let low = (0..<4).reduce(UInt32(0)) { $0 | UInt32(frame[$1]) << UInt32(8 * $1) }
    let high = UInt32(frame[4]) | UInt32(frame[5]) << 8
    for i in 0..<16 {
      let entry = At.addressTable + 8 * i
      if registerFile[entry + 4] & 0x8000_ffff == 1 << 31 | high, registerFile[entry] == low { return true }
    }
    if low == .max, high == 0xffff { return receiveBits & 1 << 15 != 0 }
    if frame[0] & 1 == 0 { return receiveBits & 1 << 3 != 0 }
    if receiveBits & 1 << 4 != 0 { return true }
    // Which 12 of the address's upper 16 bits: RCTL.MO.
    let shift = [4, 3, 2, 0][Int(receiveBits >> 12 & 3)]
    let bit = Int(high >> UInt32(shift)) & 0xfff
    return registerFile[At.multicastTable + (bit >> 5) * 4] & 1 << UInt32(bit & 31) != 0
  }

  /// Receive-side scaling (7.1.2.10): the queue, and what the descriptor says of the hash.
  private func choose(_ frame: [UInt8], _ parsed: ParsedFrame) -> (Int, UInt64) {
    let control = registerFile[At.multipleQueues]
    guard control & 3 == 1, registerFile[At.receiveChecksum] & 1 << 13 != 0,
      let (type, input) = parsed.hashInput(frame, enabled: control)
    else { return (0, 0) }
    let key = (0..<40).map { UInt8(truncatingIfNeeded: registerFile[At.hashKey + $0 & ~3] >> (UInt32($0 & 3) * 8)) }
    let hash = toeplitz(input, key: key)
    let entry = Int(hash & 0x7f)
    let queue = (registerFile[At.redirection + entry & ~3] >> (UInt32(entry & 3) * 8 + 7)) & 1
    return (Int(queue), UInt64(hash) << 32 | UInt64(queue) << 8 | UInt64(type))
  }

  /// IPCS, TCPCS, UDPCS and the two error bits (7.1.5.2).
  private func checksumBits(_ frame: [UInt8], _ parsed: ParsedFrame) -> UInt64 {
    let control = registerFile[At.receiveChecksum]
    var word: UInt64 = 0
    if control & 1 << 8 != 0, let right = parsed.headerIsRight(frame) { word |= 1 << 6 | (right ? 0 : 1 << 30) }
    if control & 1 << 9 != 0, let right = parsed.transportIsRight(frame) {
      word |= 1 << 5 | (parsed.isUDP ? 1 << 4 : 0) | (right ? 0 : 1 << 29)
    }
    return word
  }

  private var bufferBytes: Int {
    let size = Int(receiveBits >> 16 & 3)
    return receiveBits & 1 << 25 == 0 ? 2048 >> size : [2048, 16384, 8192, 4096][size]
  }

  /// Buffers and descriptors of one frame; false when there are too few of them.
  private func write(_ frame: [UInt8], _ queue: Int, _ hash: UInt64, _ word: UInt64) -> Bool {
    let file = registerFile, bank = queue * At.nextQueue
    let ringCount = Int(file[At.receiveLength + bank] / 16)
    let base = UInt64(file[At.receiveBase + bank + 4]) << 32 | UInt64(file[At.receiveBase + bank])
    var head = Int(file[At.receiveHead + bank])
    let tail = Int(file[At.receiveTail + bank]), size = bufferBytes
    let needed = (frame.count + size - 1) / size
    let free = ringCount == 0 || tail >= ringCount ? 0 : (tail - head + ringCount) % ringCount
    guard needed <= free else {
      file.tally(Count.noBuffers)
      file.tally(Count.missed)
      raise(1 << 6)
      return false
    }
    guard file[At.receiveFilter] & 1 << 15 != 0 else { return false }
    for i in 0..<needed {
      let at = base + UInt64(head) * 16, part = frame[(i * size)..<min(frame.count, (i + 1) * size)]
      guard let buffer = memory.read64(at), memory.write(part, at: buffer) else { return false }
      var status: UInt64 = 1 | UInt64(faults.receiveLength ?? UInt16(part.count)) << 32
      var low: UInt64 = 0
      if i == needed - 1 {
        low = hash
        status |= word | 2 | UInt64(faults.receiveErrors)
        if faults.missingEnds > 0 {
          faults.missingEnds -= 1
          status &= ~2
        }
      }
      memory.write64(low, at: at)
      memory.write64(status, at: at + 8)
      head = (head + 1) % ringCount
      file[At.receiveHead + bank] = UInt32(head)
    }
    raise(1 << UInt32(20 + queue))
    return true
  }
}
