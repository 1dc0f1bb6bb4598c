// The transmit side: descriptors to frames (82574 datasheet, 7.2).

import Wire

/// The last context descriptor of a queue (7.2.9).
struct TransmitContext {
  var low: UInt64 = 0
  var high: UInt64 = 0
}

/// A frame whose descriptors have not all been seen.
struct PartialFrame {
  var bytes: [UInt8] = []
  /// The first data descriptor's second word: its options count.
  var first: UInt64?
}

extension E1000eModel {
  /// Descriptors of queue `queue` from head to tail.
  func transmit(_ queue: Int) {
    let file = registerFile, bank = queue * At.nextQueue
    guard file[At.transmitControl] & 2 != 0, file[At.transmitArbitration + bank] & 1 << 10 != 0 else { return }
    let ringCount = file[At.transmitLength + bank] / 16
    let base = UInt64(file[At.transmitBase + bank + 4]) << 32 | UInt64(file[At.transmitBase + bank])
    var head = file[At.transmitHead + bank]
    let tail = file[At.transmitTail + bank]
    var causes: UInt32 = 0
    while !faults.transmitHang, head != tail, tail < ringCount {
      let at = base + UInt64(head) * 16
      guard let low = memory.read64(at), let high = memory.read64(at + 8) else { break }
      process(queue, low, high)
      if high & 1 << 27 != 0, !faults.neverReports {
        memory.write64(high | 1 << 32, at: at + 8)
        causes |= 1 << UInt32(22 + queue)
      }
      head = head + 1 == ringCount ? 0 : head + 1
      file[At.transmitHead + bank] = head
    }
    if causes != 0 { raise(causes) }
  }

  private func process(_ queue: Int, _ low: UInt64, _ high: UInt64) {
    let isExtended = high & 1 << 29 != 0, type = high >> 20 & 0xf
    if isExtended && type == 0 {
      transmitContexts[queue] = TransmitContext(low: low, high: high)
      return
    }
    let length = Int(isExtended ? high & 0xf_ffff : high & 0xffff)
    guard let data = memory.read(low, length) else { return }
    partialFrames[queue].bytes += data
    if partialFrames[queue].first == nil { partialFrames[queue].first = high }
    guard high & 1 << 24 != 0 else { return }
    var frame = partialFrames[queue].bytes
    let options = isExtended ? (partialFrames[queue].first ?? high) >> 40 & 0xff : 0
    partialFrames[queue] = PartialFrame()
    insertChecksums(&frame, options, transmitContexts[queue])
    if high & 1 << 30 != 0, registerFile[At.deviceControl] & 1 << 30 != 0, frame.count >= 12 {
      let tag = UInt16(truncatingIfNeeded: high >> 48)
      frame.insert(contentsOf: [0x81, 0, UInt8(tag >> 8), UInt8(tag & 255)], at: 12)
    }
    while frame.count < 60, registerFile[At.transmitControl] & 8 != 0 { frame.append(0) }
    finish(frame, queue)
  }

  private func finish(_ frame: [UInt8], _ queue: Int) {
    guard linkUp else { return }
    sent.append(Sent(bytes: frame, queue: queue))
    registerFile.tally(Count.sent)
    registerFile.tallyWide(Count.sentBytes, frame.count + 4)
    if frame.prefix(6).allSatisfy({ $0 == 0xff }) {
      registerFile.tally(Count.sentBroadcast)
    } else if frame.first.map({ $0 & 1 != 0 }) == true {
      registerFile.tally(Count.sentMulticast)
    }
  }

  /// Sums from a start to an end (0: the frame's) and writes the complement (7.2.8). The pseudo
  /// header's sum is in the field already.
  private func insertChecksums(_ frame: inout [UInt8], _ options: UInt64, _ context: TransmitContext) {
    func insert(start: Int, field: Int, end: Int) {
      let last = end == 0 ? frame.count - 1 : end
      guard start < frame.count, last < frame.count, last >= start, field + 1 < frame.count else { return }
      let sum = InternetChecksum.of(frame[start...last])
      frame[field] = UInt8(sum >> 8)
      frame[field + 1] = UInt8(sum & 255)
    }
    let c = context.low
    if options & 1 != 0 { insert(start: Int(c & 255), field: Int(c >> 8 & 255), end: Int(c >> 16 & 0xffff)) }
    if options & 2 != 0 { insert(start: Int(c >> 32 & 255), field: Int(c >> 40 & 255), end: Int(c >> 48)) }
  }
}
