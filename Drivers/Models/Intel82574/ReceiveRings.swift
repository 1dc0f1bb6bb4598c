// Receive descriptors: legacy, extended, and extended with packet split (82574 datasheet, 7.1.4 to
// 7.1.6).

internal import ModelKit

extension E1000eModel {
  /// What the card holds for a receive queue beside its registers.
  struct Receiver {
    /// After a DMA error, until receiving is switched off or the card is reset.
    var isStopped = false
    /// The tail that was complained about.
    var wrongTail = -1
    /// Causes of frames that have arrived: those that RDTR may delay, and the others.
    var arrived: UInt32 = 0
    var urgent: UInt32 = 0

    mutating func reset() { self = Receiver() }
  }

  /// Where a queue stands: descriptors `head..<tail` are the card's.
  private struct Ring {
    let base: UInt64
    let count: Int
    let step: Int
    var head: Int
    let tail: Int
    var free: Int { tail >= head ? tail - head : tail - head + count }
    /// Head and tail registers count in 16 bytes, whatever a descriptor's size.
    var unit: Int { step / 16 }
  }

  private func ring(_ queue: Int) -> Ring? {
    let bank = queue * At.nextQueue, isSplit = splits
    let base = UInt64(registers[At.receiveBase + bank + 4]) << 32 | UInt64(registers[At.receiveBase + bank] & ~15)
    let step = isSplit ? 32 : 16
    let count = Int(registers[At.receiveLength + bank] & 0xf_ff80) / step
    let head = Int(registers[At.receiveHead + bank] & 0xffff) * 16 / step
    let tail = Int(registers[At.receiveTail + bank] & 0xffff) * 16 / step
    guard !receivers[queue].isStopped, count > 0 else { return nil }
    guard head < count, tail < count else {
      if receivers[queue].wrongTail != tail {
        receivers[queue].wrongTail = tail
        bus.complain("receive queue \(queue): head \(head) or tail \(tail) lies outside of \(count) descriptors")
      }
      return nil
    }
    return Ring(base: base, count: count, step: step, head: head, tail: tail)
  }

  private var isExtended: Bool { registers[At.receiveFilter] & 1 << 15 != 0 }
  /// RCTL.DTYP: packet split, which needs extended descriptors.
  private var splits: Bool { isExtended && registers[At.receiveControl] >> 10 & 3 == 1 }

  /// RCTL.BSIZE and BSEX, or FLXBUF (KiB).
  private var bufferBytes: Int {
    let control = registers[At.receiveControl], flexible = Int(control >> 27 & 0xf)
    if flexible > 0 { return flexible * 1024 }
    let shift = Int(control >> 16 & 3)
    return control & 1 << 25 == 0 || shift == 0 ? 2048 >> shift : 32768 >> shift
  }

  /// Buffers and descriptors of one frame; false when there are too few of them, or a DMA error.
  func store(_ frame: UnsafeRawBufferPointer, _ queue: Int, _ report: Report) -> Bool {
    var report = report
    if faults.receiveErrors != 0, faults.receiveErrorCount > 0 {
      if faults.receiveErrorCount != .max { faults.receiveErrorCount -= 1 }
      report.status |= faults.receiveErrors
    }
    guard var ring = ring(queue) else {
      if !receivers[queue].isStopped { overrun(queue) }
      return false
    }
    let before = ring.free
    guard before > 0 else {
      overrun(queue)
      return false
    }
    let isWhole = splits ? unsafe storeSplit(frame, &ring, queue, report) : unsafe storeLinear(frame, &ring, queue, report)
    guard isWhole else { return false }
    skip(&ring, queue)
    registers[At.receiveHead + queue * At.nextQueue] = UInt32(ring.head * ring.unit)
    if faults.neverDelivers { return true }
    receivers[queue].arrived |= Cause.receiveQueue << UInt32(queue) | Cause.receiveTimer
    // RDMTS: a half, a quarter or an eighth of the ring is left.
    let threshold = ring.count >> (1 + Int(registers[At.receiveControl] >> 8 & 3))
    if before > threshold, ring.free <= threshold {
      tally(Count.receiveLowInterrupts)
      receivers[queue].urgent |= Cause.receiveLow
    }
    return true
  }

  /// Whether the other end of the cable is asked to wait (CTRL.TFCE): a queue that runs cannot take
  /// another frame of the largest size. The card's own buffer is not modelled, so that is where it
  /// would fill.
  var asksForPause: Bool {
    guard registers[At.deviceControl] & 1 << 28 != 0, registers[At.receiveControl] & 2 != 0 else {
      isPausing = false
      return false
    }
    let largest = registers[At.receiveControl] & 1 << 5 != 0 ? 9728 : 1522
    var isShort = false
    // Without receive-side scaling nothing reaches the second queue.
    for queue in 0..<(registers[At.multipleQueues] & 3 == 1 ? 2 : 1) {
      guard let ring = ring(queue) else { continue }
      let needed = min((largest + frameRoom - 1) / max(frameRoom, 1), max(1, ring.count / 2))
      if ring.free < needed { isShort = true }
    }
    if isShort != isPausing { tally(isShort ? Count.pauseOffSent : Count.pauseOnSent) }
    isPausing = isShort
    return isShort
  }

  /// Bytes of a frame that one descriptor takes.
  private var frameRoom: Int {
    guard splits else { return bufferBytes }
    return splitRoom(0) + splitRoom(1) + splitRoom(2) + splitRoom(3)
  }

  /// PSRCTL: the size of buffer `index` of a packet-split descriptor.
  private func splitRoom(_ index: Int) -> Int {
    let sizes = registers[At.splitControl] >> UInt32(index * 8)
    return index == 0 ? Int(sizes & 0x7f) * 128 : Int(sizes & 0x3f) * 1024
  }

  private func overrun(_ queue: Int) {
    tally(Count.noBuffers)
    tally(Count.missed)
    tally(Count.overrunInterrupts)
    receivers[queue].urgent |= Cause.overrun
  }

  private func stop(_ queue: Int, _ what: String, _ address: UInt64) -> Bool {
    receivers[queue].isStopped = true
    bus.complain("receive queue \(queue): no memory for \(what) at 0x\(String(address, radix: 16)); the queue stops")
    return false
  }

  /// Faults that move the head on: a descriptor reported twice, or not at all.
  private func skip(_ ring: inout Ring, _ queue: Int) {
    if faults.duplicates > 0, ring.free > 0 {
      faults.duplicates -= 1
      let last = ring.base + UInt64((ring.head + ring.count - 1) % ring.count * ring.step)
      let next = ring.base + UInt64(ring.head * ring.step)
      if let low = bus.memory.read64(last), let high = bus.memory.read64(last + 8) {
        bus.memory.write64(low, at: next)
        bus.memory.write64(high, at: next + 8)
      }
      ring.head = (ring.head + 1) % ring.count
    }
    if faults.jumps > 0 {
      faults.jumps -= 1
      ring.head = (ring.head + faults.jump) % ring.count
    }
  }

  private func garbledAddress(_ address: UInt64) -> UInt64 {
    guard faults.wrongAddresses > 0 else { return address }
    faults.wrongAddresses -= 1
    return address ^ 1 << 50
  }

  private func reportedLength(_ length: Int) -> UInt64 {
    guard let wrong = faults.receiveLength, faults.receiveLengths > 0 else { return UInt64(length) }
    if faults.receiveLengths != .max { faults.receiveLengths -= 1 }
    return UInt64(wrong)
  }

  /// The status of a frame's last descriptor.
  private func lastStatus(_ report: Report) -> UInt32 {
    guard faults.missingEnds > 0 else { return report.status }
    faults.missingEnds -= 1
    return report.status & ~2
  }

  private func storeLinear(
    _ frame: UnsafeRawBufferPointer, _ ring: inout Ring, _ queue: Int, _ report: Report
  ) -> Bool {
    let size = bufferBytes
    guard (frame.count + size - 1) / size <= ring.free else {
      overrun(queue)
      return false
    }
    var done = 0
    while done < frame.count {
      let at = ring.base + UInt64(ring.head * 16), count = min(size, frame.count - done)
      guard let buffer = bus.memory.read64(at) else { return stop(queue, "a descriptor", at) }
      let target = garbledAddress(buffer)
      guard unsafe bus.memory.write(frame.piece(done, count), at: target) else { return stop(queue, "a buffer", target) }
      done += count
      if !faults.neverDelivers { writeBack(at, count, report, isLast: done == frame.count) }
      ring.head = ring.head + 1 == ring.count ? 0 : ring.head + 1
    }
    return true
  }

  private func writeBack(_ at: UInt64, _ count: Int, _ report: Report, isLast: Bool) {
    let status = isLast ? UInt64(lastStatus(report)) : 1
    let length = reportedLength(count), tag = UInt64(isLast ? report.tag : 0)
    if isExtended {
      bus.memory.write64(isLast ? report.words : 0, at: at)
      bus.memory.write64(status | length << 32 | tag << 48, at: at + 8)
    } else {
      // Legacy (7.1.4): the address stays; status and errors are a byte each.
      let checksum = UInt64(isLast ? report.packetChecksum : 0)
      bus.memory.write64(
        length | checksum << 16 | (status & 0xff) << 32 | (status >> 24) << 40 | tag << 48, at: at + 8)
    }
  }

  /// Packet split (7.1.6): four buffers a descriptor, of the sizes in PSRCTL; headers that were found
  /// and fit have the first to themselves.
  private func storeSplit(
    _ frame: UnsafeRawBufferPointer, _ ring: inout Ring, _ queue: Int, _ report: Report
  ) -> Bool {
    let header = report.headerLength, total = frameRoom, first = splitRoom(0)
    let isSplit = header > 0 && header <= first && header < frame.count && splitRoom(1) > 0
    let needed = isSplit ? frame.count - header + first : frame.count
    guard total > 0, (needed + total - 1) / total <= ring.free else {
      overrun(queue)
      return false
    }
    var done = 0
    while done < frame.count {
      let at = ring.base + UInt64(ring.head * 32)
      var lengths: (UInt64, UInt64) = (0, 0)
      let isFirst = done == 0
      for index in 0..<4 where done < frame.count && splitRoom(index) > 0 {
        let limit = isFirst && index == 0 && isSplit ? header : splitRoom(index)
        let count = min(limit, frame.count - done)
        guard let buffer = bus.memory.read64(at + UInt64(index * 8)) else { return stop(queue, "a descriptor", at) }
        let target = garbledAddress(buffer)
        guard unsafe bus.memory.write(frame.piece(done, count), at: target) else {
          return stop(queue, "a buffer", target)
        }
        done += count
        if index == 0 { lengths.0 = UInt64(count) } else { lengths.1 |= UInt64(count) << UInt64(index * 16) }
      }
      if !faults.neverDelivers {
        let isLast = done == frame.count
        // Header status: the length found, and bit 15 when it was split off.
        let headerStatus = UInt64(header & 0x3ff) | (isFirst && isSplit ? 1 << 15 : 0)
        let status = isLast ? UInt64(lastStatus(report)) : 1
        bus.memory.write64(isLast ? report.words : 0, at: at)
        bus.memory.write64(lengths.1 | headerStatus, at: at + 16)
        bus.memory.write64(0, at: at + 24)
        bus.memory.write64(
          status | reportedLength(Int(lengths.0)) << 32 | UInt64(isLast ? report.tag : 0) << 48, at: at + 8)
      }
      ring.head = ring.head + 1 == ring.count ? 0 : ring.head + 1
    }
    return true
  }
}
