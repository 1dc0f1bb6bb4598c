// The receive side: from the wire to what goes into memory (82574 datasheet, 7.1).
//
//    wire ──> size, errors ──> filters ──> hash, checksums, tag, check sequence ──> Rings: buffers

internal import ModelKit

extension E1000eModel {
  /// What the descriptors of a frame say beside its length.
  struct Report {
    /// Extended status and errors, 32 bits: 0 DD, 1 EOP, 2 IXSM, 3 VP, 4 UDPCS, 5 TCPCS, 6 IPCS, 7 PIF;
    /// errors from bit 24.
    var status: UInt32 = 3
    var tag: UInt16 = 0
    /// The first eight bytes of an extended descriptor.
    var words: UInt64 = 0
    /// The sum over the frame from RXCSUM.PCSS.
    var packetChecksum: UInt16 = 0
    /// Bytes of the headers that packet split puts into a buffer of their own; 0 when none were found.
    var headerLength = 0
    /// The size on the wire, check sequence included.
    var wireSize = 0
  }

  private var control: UInt32 { registers[At.receiveControl] }
  /// RCTL.LBM or the PHY's loopback: what is sent comes back, and the cable is cut off.
  var isLooped: Bool { control >> 6 & 3 == 1 || phy.isLooped }

  /// Frames from the wire, at most `budget`. Returns how many.
  func receive(budget: Int) -> Int {
    var moved = 0
    while moved < budget, !asksForPause,
      unsafe wire.receive(
        at: bus.now,
        { frame, marks in
          if !isLooped, isLinkUp { unsafe arrive(frame, marks) }
        })
    { moved += 1 }
    raiseWhatArrived()
    return moved
  }

  /// Interrupts of all frames since the last call, together.
  func raiseWhatArrived() {
    let timed = receivers[0].arrived | receivers[1].arrived, now = receivers[0].urgent | receivers[1].urgent
    guard timed | now != 0 else { return }
    for queue in 0..<2 { (receivers[queue].arrived, receivers[queue].urgent) = (0, 0) }
    if now != 0 { raise(now) }
    if timed != 0 { raiseReceived(timed) }
  }

  /// One frame, into memory, or dropped and counted.
  func arrive(_ frame: UnsafeRawBufferPointer, _ marks: WireMarks) {
    guard control & 2 != 0 else { return }
    let size = max(frame.count, 60) + 4, isDamaged = marks.contains(.badCheckSequence)
    countArrival(size)
    guard frame.count >= 14 else { return tally(isDamaged ? Count.fragments : Count.shorts) }
    if size > 1522, control & 1 << 5 == 0 || size > 16384 { return tally(isDamaged ? Count.jabbers : Count.longs) }
    if isDamaged {
      tally(Count.checkSequenceErrors)
      // SBP: bad frames are kept.
      guard control & 4 != 0 else { return }
    }
    if unsafe takesPause(frame) { return }
    let verdict = unsafe verdict(frame)
    guard verdict != .out else {
      filteredOut += 1
      return
    }
    unsafe admit(frame, size, verdict, isDamaged: isDamaged)
  }

  private func admit(_ frame: UnsafeRawBufferPointer, _ size: Int, _ verdict: Verdict, isDamaged: Bool) {
    let headers = unsafe ParsedHeaders(frame)
    var report = Report()
    report.wireSize = size
    let (queue, words) = unsafe chooseQueue(frame, headers)
    report.words = words
    report.headerLength = headers.network == .none ? 0 : headers.payloadOffset
    report.status |= unsafe checksumBits(frame, headers) | (isDamaged ? 1 << 24 : 0) | (verdict == .hashed ? 1 << 7 : 0)
    let checksum = registers[At.receiveChecksum]
    let skipped = Int(checksum & 0xff)
    let isLegacy = registers[At.receiveFilter] & 1 << 15 == 0
    if isLegacy || checksum & 1 << 13 == 0 {
      report.packetChecksum = unsafe FrameChecksum.sum(frame.piece(skipped, frame.count - skipped))
      let identification = headers.isIPv4 ? unsafe frame.big16(headers.networkOffset + 4) : 0
      report.words = UInt64(report.packetChecksum) << 48 | UInt64(identification) << 32
    }
    let strips = unsafe registers[At.deviceControl] & 1 << 30 != 0 && isTagged(frame)
    let keepsCheck = control & 1 << 26 == 0
    let isStored: Bool
    if strips || keepsCheck || frame.count < 60 {
      unsafe reshape(frame, &report, strips: strips, keepsCheck: keepsCheck)
      isStored = unsafe store(arrival.bytes, queue, report)
    } else {
      isStored = unsafe store(frame, queue, report)
    }
    guard isStored else { return }
    unsafe countReceived(frame, size)
    let small = registers[At.smallPacket] & 0xfff
    if small > 0, size <= small { receivers[queue].urgent |= Cause.smallPacket }
  }

  /// Puts into `arrival` what is to be stored where that is not what came.
  private func reshape(_ frame: UnsafeRawBufferPointer, _ report: inout Report, strips: Bool, keepsCheck: Bool) {
    arrival.removeAll()
    unsafe arrival.append(frame)
    arrival.pad(to: 60)
    let check = keepsCheck ? unsafe EthernetCRC.of(arrival.bytes) : 0
    if strips, let tag = arrival.stripTag(type: UInt16(truncatingIfNeeded: registers[At.tagType])) {
      report.tag = tag
      report.status |= 1 << 3
      report.headerLength = max(0, report.headerLength - 4)
    }
    guard keepsCheck else { return }
    let end = arrival.count
    arrival.pad(to: end + 4)
    unsafe arrival.mutableBytes.setBig32(check.byteSwapped, end)
  }

  /// IPCS, TCPCS, UDPCS and the two error bits (7.1.5.2).
  private func checksumBits(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders) -> UInt32 {
    let checksum = registers[At.receiveChecksum]
    var status: UInt32 = 0
    if checksum & 1 << 8 != 0, let right = unsafe FrameChecksum.ipv4HeaderIsRight(frame, headers) {
      status |= 1 << 6 | (right ? 0 : 1 << 30)
    }
    // RFCTL: IPv6 may be left alone altogether (10) or for checksums alone (11).
    let isLeftAlone = headers.isIPv6 && registers[At.receiveFilter] & 3 << 10 != 0
    if checksum & 1 << 9 != 0, headers.isTCP || headers.isUDP, !isLeftAlone,
      let right = unsafe FrameChecksum.transportIsRight(frame, headers)
    {
      status |= 1 << 5 | (headers.isUDP ? 1 << 4 : 0) | (right ? 0 : 1 << 29)
    }
    return status
  }
}
