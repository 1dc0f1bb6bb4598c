// Statistics registers (82574 datasheet, 10.2.7): they stick at their largest value and are cleared by
// being read.

extension E1000eModel {
  /// Adds to a 32-bit counter, which sticks at its largest value.
  func tally(_ offset: Int, _ amount: UInt32 = 1) {
    let (sum, overflow) = registers[offset].addingReportingOverflow(amount)
    registers[offset] = overflow ? .max : sum
  }

  /// Adds to a 64-bit counter.
  func tallyWide(_ offset: Int, _ amount: Int) {
    let sum = (UInt64(registers[offset + 4]) << 32 | UInt64(registers[offset])) &+ UInt64(amount)
    registers[offset] = UInt32(truncatingIfNeeded: sum)
    registers[offset + 4] = UInt32(sum >> 32)
  }

  /// A driver's read. The low half of a wide counter stays until its high half has been read.
  func readStatistic(_ offset: Int) -> UInt32 {
    let value = registers[offset]
    if !Count.isWide(offset) { registers[offset] = 0 }
    if Count.isWide(offset - 4) { registers[offset - 4] = 0 }
    return value
  }

  /// Which of six counters a frame of `size` bytes, with its check sequence, belongs to.
  private func sizeClass(_ size: Int) -> Int {
    switch size {
    case ...64: 0
    case ...127: 4
    case ...255: 8
    case ...511: 12
    case ...1023: 16
    default: 20
    }
  }

  /// A frame that was on the wire towards the card, whatever becomes of it.
  /// - Parameter size: with the check sequence.
  func countArrival(_ size: Int) {
    tally(Count.allReceived)
    tallyWide(Count.allReceivedBytes, size)
  }

  /// A good frame that passed the filters.
  func countReceived(_ frame: UnsafeRawBufferPointer, _ size: Int) {
    tally(Count.received)
    tallyWide(Count.receivedBytes, size)
    tally(Count.receivedBySize + sizeClass(size))
    let kind = unsafe addressKind(frame)
    if kind == .broadcast { tally(Count.receivedBroadcast) } else if kind == .multicast { tally(Count.receivedMulticast) }
  }

  func countSent(_ frame: UnsafeRawBufferPointer) {
    let size = frame.count + 4
    tally(Count.sent)
    tally(Count.allSent)
    tallyWide(Count.sentBytes, size)
    tallyWide(Count.allSentBytes, size)
    tally(Count.sentBySize + sizeClass(size))
    let kind = unsafe addressKind(frame)
    if kind == .broadcast { tally(Count.sentBroadcast) } else if kind == .multicast { tally(Count.sentMulticast) }
  }

  enum AddressKind { case unicast, multicast, broadcast }

  /// What the destination of a frame is.
  func addressKind(_ frame: UnsafeRawBufferPointer) -> AddressKind {
    if unsafe frame.byte(0) & 1 == 0 { return .unicast }
    return unsafe frame.big32(0) == .max && frame.big16(4) == .max ? .broadcast : .multicast
  }
}
