// The transmit side: descriptors to frames (82574 datasheet, 7.2 and 7.3).
//
//    head ──> descriptors ──> context kept for the queue
//                         └─> data ──> frame put together ──> checksums, tag, segments ──> wire

internal import ModelKit

extension E1000eModel {
  /// What the card holds for a transmit queue beside its registers.
  struct Transmitter {
    /// What has been fetched of the frame that is under way.
    let frame = ScratchFrame()
    /// The second word of the frame's first data descriptor: its options count. 0: no frame.
    var first: UInt64 = 0
    /// The last context descriptor (7.2.9).
    var contextLow: UInt64 = 0
    var contextHigh: UInt64 = 0
    /// After a DMA error, until transmission is switched off or the card is reset.
    var isStopped = false
    var wrongTail = -1

    mutating func reset() {
      frame.removeAll()
      (first, contextLow, contextHigh) = (0, 0, 0)
      (isStopped, wrongTail) = (false, -1)
    }
  }

  /// Descriptors of a queue from head to tail, until about `budget` have been taken. Returns how many.
  func transmit(_ queue: Int, budget: Int) -> Int {
    let bank = queue * At.nextQueue
    let tail = Int(registers[At.transmitTail + bank] & 0xffff)
    var head = Int(registers[At.transmitHead + bank] & 0xffff)
    guard head != tail, registers[At.transmitControl] & 2 != 0, !faults.transmitHang, !transmitters[queue].isStopped,
      registers[At.transmitArbitration + bank] & 1 << 10 != 0, registers[At.deviceControl] & 4 == 0
    else { return 0 }
    let count = Int(registers[At.transmitLength + bank] & 0xf_ff80) / 16
    guard tail < count, head < count else {
      if transmitters[queue].wrongTail != tail {
        transmitters[queue].wrongTail = tail
        bus.complain("transmit queue \(queue): head \(head) or tail \(tail) lies outside of \(count) descriptors")
      }
      return 0
    }
    let base = UInt64(registers[At.transmitBase + bank + 4]) << 32 | UInt64(registers[At.transmitBase + bank] & ~15)
    var taken = 0, reported = 0, delayed = 0
    while head != tail, taken < budget {
      let at = base + UInt64(head) * 16
      guard let low = bus.memory.read64(at), let high = bus.memory.read64(at + 8) else {
        stop(queue, "descriptor", at)
        break
      }
      guard process(queue, low, high) else { break }
      taken += 1
      head = head + 1 == count ? 0 : head + 1
      if high & 1 << 27 != 0, !faults.neverReports {
        bus.memory.write64(high | 1 << 32, at: at + 8)
        if high & 1 << 31 != 0 { delayed += 1 } else { reported += 1 }
      }
    }
    registers[At.transmitHead + bank] = UInt32(head)
    raiseWhatLeft(queue, reported: reported > 0, delayed: delayed > 0, left: (tail - head + count) % count, taken)
    return taken
  }

  private func raiseWhatLeft(_ queue: Int, reported: Bool, delayed: Bool, left: Int, _ taken: Int) {
    let done = Cause.transmitted | Cause.transmitQueue << UInt32(queue)
    var causes: UInt32 = reported ? done : 0
    if left == 0 {
      causes |= Cause.transmitEmpty
      tally(Count.transmitEmptyInterrupts)
    }
    // TXDCTL.LWTHRESH: in units of eight descriptors.
    let low = Int(registers[At.transmitDescriptorControl + queue * At.nextQueue] >> 25) * 8
    if low > 0, left < low, left + taken >= low {
      causes |= Cause.transmitLow
      tally(Count.transmitLowInterrupts)
    }
    if delayed { raiseSent(done, delayed: true) }
    if causes != 0 { raise(causes) }
    raiseWhatArrived()
  }

  private func stop(_ queue: Int, _ what: String, _ address: UInt64) {
    transmitters[queue].isStopped = true
    bus.complain("transmit queue \(queue): no \(what) at 0x\(String(address, radix: 16)); the queue stops")
  }

  /// One descriptor; false when the queue has to stop.
  private func process(_ queue: Int, _ low: UInt64, _ high: UInt64) -> Bool {
    let isExtended = high & 1 << 29 != 0, type = high >> 20 & 0xf
    if isExtended, type == 0 {
      (transmitters[queue].contextLow, transmitters[queue].contextHigh) = (low, high)
      if high & 1 << 26 != 0 { tally(Count.segmentations) }
      return true
    }
    if isExtended, type != 1 { bus.complain("transmit queue \(queue): descriptor type \(type) is neither context nor data") }
    let frame = transmitters[queue].frame
    if transmitters[queue].first == 0 {
      frame.removeAll()
      transmitters[queue].first = high
    }
    let length = Int(isExtended ? high & 0xf_ffff : high & 0xffff)
    var address = low
    if faults.wrongAddresses > 0 {
      faults.wrongAddresses -= 1
      address ^= 1 << 50
    }
    if length > 0, !frame.append(bus.memory, address, count: length), !frame.isOverflown {
      stop(queue, "buffer", address)
      return false
    }
    if high & 1 << 24 != 0 { finish(queue, last: high) }
    return true
  }

  /// All of a frame's descriptors are there.
  private func finish(_ queue: Int, last: UInt64) {
    let frame = transmitters[queue].frame, first = transmitters[queue].first
    transmitters[queue].first = 0
    guard !frame.isOverflown, frame.count >= 14 else {
      return bus.complain("transmit queue \(queue): a frame of \(frame.count) bytes cannot be sent")
    }
    let isExtended = first & 1 << 29 != 0
    // VLE counts only with CTRL.VME; the tag is the last descriptor's.
    let isTagged = last & 1 << 30 != 0 && registers[At.deviceControl] & 1 << 30 != 0
    let tag = isTagged ? UInt16(truncatingIfNeeded: last >> 48) : nil
    if isExtended, first & 1 << 26 != 0 { return sendSegments(queue, first, tag) }
    // Without IFCS the frame brings its own check sequence.
    if last & 1 << 25 == 0 { frame.truncate(to: frame.count - 4) }
    if isExtended { insertChecksums(queue, first >> 40 & 0xff) } else if last & 1 << 26 != 0 {
      // Legacy (7.2.10.1): from CSS to the end, into CSO.
      unsafe FrameChecksum.insert(frame.mutableBytes, start: Int(last >> 40 & 0xff), field: Int(last >> 16 & 0xff))
    }
    if let tag { frame.insertTag(tag, type: UInt16(truncatingIfNeeded: registers[At.tagType])) }
    if registers[At.transmitControl] & 8 != 0 { frame.pad(to: 60) }
    guard frame.count <= 16384 else {
      return bus.complain("transmit queue \(queue): a frame of \(frame.count) bytes is more than the card can send")
    }
    unsafe emit(frame.bytes, queue)
  }

  /// Sums from a start to an end (0: the frame's) and writes the complement (7.2.8). The pseudo
  /// header's sum is in the field already.
  private func insertChecksums(_ queue: Int, _ options: UInt64) {
    let frame = transmitters[queue].frame, context = transmitters[queue].contextLow
    if options & 1 != 0 {
      let fits = unsafe FrameChecksum.insert(
        frame.mutableBytes, start: Int(context & 255), field: Int(context >> 8 & 255), end: Int(context >> 16 & 0xffff))
      if !fits { bus.complain("transmit queue \(queue): the IP checksum lies outside of the frame") }
    }
    if options & 2 != 0 {
      let fits = unsafe FrameChecksum.insert(
        frame.mutableBytes, start: Int(context >> 32 & 255), field: Int(context >> 40 & 255), end: Int(context >> 48))
      if !fits { bus.complain("transmit queue \(queue): the TCP or UDP checksum lies outside of the frame") }
    }
  }

  /// Segmentation (7.3): headers from the context, data in pieces of its MSS.
  private func sendSegments(_ queue: Int, _ first: UInt64, _ tag: UInt16?) {
    let low = transmitters[queue].contextLow, high = transmitters[queue].contextHigh
    var plan = SegmentationPlan(
      networkOffset: Int(low & 255), transportOffset: Int(low >> 32 & 255), headerLength: Int(high >> 40 & 255),
      segmentSize: Int(high >> 48))
    plan.transport = high & 1 << 24 != 0 ? .tcp : .udp
    plan.seed = .field
    plan.insertsIPv4Checksum = first & 1 << 40 != 0
    plan.insertsTransportChecksum = first & 2 << 40 != 0
    plan.tag = tag
    plan.tagType = UInt16(truncatingIfNeeded: registers[At.tagType])
    // FIN and PSH stay for the last segment; the others are in all of them.
    (plan.firstFlags, plan.middleFlags, plan.lastFlags) = (0xff6, 0xff6, 0xfff)
    let frame = transmitters[queue].frame
    let stated = Int(high & 0xf_ffff) + plan.headerLength
    if stated != frame.count {
      bus.complain("transmit queue \(queue): segmentation of \(stated) bytes was announced, \(frame.count) came")
    }
    if unsafe segmenter.segment(frame.bytes, plan, { unsafe emit($0, queue) }) == 0 {
      tally(Count.failedSegmentations)
      bus.complain("transmit queue \(queue): a frame of \(frame.count) bytes does not fit its segmentation context")
    }
  }

  /// Out on the wire, or back in.
  private func emit(_ frame: UnsafeRawBufferPointer, _ queue: Int) {
    if isLooped {
      unsafe countSent(frame)
      unsafe arrive(frame, [])
    } else if isLinkUp {
      unsafe countSent(frame)
      unsafe wire.transmit(frame, queue: queue, at: bus.now)
    }
  }
}
