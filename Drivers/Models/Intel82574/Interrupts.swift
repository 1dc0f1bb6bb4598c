// Causes, masks, vectors and moderation (82574 datasheet, 7.4 and 10.2.4).
//
//    raise ──> causes & mask ── MSI-X: IVAR ──> vector, at most one an EITR interval; EIAC, IAM
//                            └─ MSI, INTx: one an ITR interval
//
// A cause that has been sent is not sent again until it was cleared or masked in between.

extension E1000eModel {
  /// What the interrupt block holds beside its registers. Times are nanoseconds of the bus.
  struct Interrupts {
    var causes: UInt32 = 0
    var mask: UInt32 = 0
    /// Causes that have been sent and not cleared or masked since.
    var sent: UInt32 = 0
    var vectorQuietUntil = [UInt64](repeating: 0, count: 5)
    var quietUntil: UInt64 = 0
    var receive = Delay()
    var transmit = Delay()

    var wanted: UInt32 { causes & mask & ~sent }
  }

  /// Causes that wait for a timer that starts anew with each frame, and for one that does not.
  struct Delay {
    var causes: UInt32 = 0
    var end: UInt64 = .max
    var absoluteEnd: UInt64 = .max
    var next: UInt64 { min(end, absoluteEnd) }
  }

  private var isMSIX: Bool { bus.interruptKind == .msix }

  func raise(_ causes: UInt32) {
    interrupts.causes |= causes & Cause.all
    if isMSIX, causes & Cause.others != 0 { interrupts.causes |= Cause.other }
    sendInterrupts()
  }

  /// ICS: as if the causes had come by themselves.
  var causeRegister: UInt32 {
    interrupts.causes | (interrupts.causes & interrupts.mask != 0 ? Cause.asserted : 0)
  }

  /// Reading ICR (7.4.5): with nothing let through, or with an interrupt asserted, it clears all
  /// causes; otherwise the read has no effect.
  func readCauses() -> UInt32 {
    let value = causeRegister
    guard interrupts.mask == 0 || value & Cause.asserted != 0 else { return value }
    interrupts.causes = 0
    interrupts.sent = 0
    if value & Cause.asserted != 0 { maskAutomatically() }
    return value
  }

  func clearCauses(_ causes: UInt32) {
    if causeRegister & Cause.asserted != 0 { maskAutomatically() }
    interrupts.causes &= ~causes
    interrupts.sent &= ~causes
  }

  /// CTRL_EXT.IAME: accesses to ICR mask what IAM says.
  private func maskAutomatically() {
    if registers[At.extendedControl] & 1 << 27 != 0 { clearMask(registers[At.autoMask]) }
  }

  func setMask(_ causes: UInt32) {
    interrupts.mask |= causes & Cause.all
    sendInterrupts()
  }

  func clearMask(_ causes: UInt32) {
    interrupts.mask &= ~causes
    interrupts.sent &= ~causes
  }

  /// Sends what is set and let through, unless its moderation interval still runs; then it is tried
  /// again when that ends.
  func sendInterrupts() {
    guard interrupts.wanted != 0, let kind = bus.interruptKind, !faults.noInterrupts else { return }
    if kind == .msix { return sendVectors() }
    guard interrupts.quietUntil <= bus.now else { return }
    interrupts.sent |= interrupts.wanted
    interrupts.quietUntil = bus.now &+ UInt64(registers[At.throttle] & 0xffff) * 256
    tally(Count.interrupts)
    bus.interrupt(0)
  }

  /// The IVAR entry of the queue cause in `bit`: 4 bits, the highest of them says that it counts.
  private func allocation(_ bit: Int) -> UInt32 { registers[At.vectorAllocation] >> UInt32((bit - 20) * 4) & 0xf }

  private func sendVectors() {
    for vector in 0..<5 where interrupts.vectorQuietUntil[vector] <= bus.now {
      var causes: UInt32 = 0
      for bit in 20...24 where interrupts.wanted & 1 << UInt32(bit) != 0 && allocation(bit) == UInt32(8 | vector) {
        causes |= 1 << UInt32(bit)
      }
      guard causes != 0 else { continue }
      interrupts.sent |= causes
      interrupts.vectorQuietUntil[vector] =
        bus.now &+ UInt64(registers[At.vectorThrottle + 4 * vector] & 0xffff) * 256
      let cleared = causes & registers[At.autoClear]
      interrupts.causes &= ~cleared
      interrupts.sent &= ~cleared
      // CTRL_EXT.EIAME: sending masks what IAM says.
      if registers[At.extendedControl] & 1 << 24 != 0 { clearMask(causes & registers[At.autoMask]) }
      tally(Count.interrupts)
      bus.interrupt(vector)
    }
  }

  // MARK: Delays

  /// A frame was received: at once, or after RDTR (counted anew with each frame) or RADV. Units of
  /// 1.024 microseconds.
  func raiseReceived(_ causes: UInt32) {
    let delay = registers[At.receiveDelay]
    guard delay & 0xffff != 0 else { return raise(causes) }
    postpone(&interrupts.receive, causes, delay, registers[At.receiveAbsoluteDelay])
  }

  /// The same for descriptors that were sent and asked for it (IDE), with TIDV and TADV.
  func raiseSent(_ causes: UInt32, delayed: Bool) {
    let delay = registers[At.transmitDelay]
    guard delayed, delay & 0xffff != 0 else { return raise(causes) }
    postpone(&interrupts.transmit, causes, delay, registers[At.transmitAbsoluteDelay])
  }

  private func postpone(_ timer: inout Delay, _ causes: UInt32, _ delay: UInt32, _ absolute: UInt32) {
    timer.causes |= causes
    timer.end = bus.now &+ UInt64(delay & 0xffff) * 1024
    if absolute & 0xffff != 0, timer.absoluteEnd == .max {
      timer.absoluteEnd = bus.now &+ UInt64(absolute & 0xffff) * 1024
    }
  }

  /// Ends the receive delay now: RDTR's flush bit.
  func flushReceiveDelay() {
    let causes = interrupts.receive.causes
    interrupts.receive = Delay()
    if causes != 0 { raise(causes) }
  }

  /// Timers that have run out by now. Returns how many.
  func runInterruptTimers() -> Int {
    var ended = 0
    if interrupts.receive.next <= bus.now {
      tally(interrupts.receive.end <= bus.now ? Count.receiveTimerInterrupts : Count.receiveAbsoluteInterrupts)
      flushReceiveDelay()
      ended += 1
    }
    if interrupts.transmit.next <= bus.now {
      tally(interrupts.transmit.end <= bus.now ? Count.transmitTimerInterrupts : Count.transmitAbsoluteInterrupts)
      let causes = interrupts.transmit.causes
      interrupts.transmit = Delay()
      raise(causes)
      ended += 1
    }
    if interrupts.wanted != 0 {
      let before = interrupts.wanted
      sendInterrupts()
      if interrupts.wanted != before { ended += 1 }
    }
    return ended
  }

  /// When the next of these timers ends; `.max` for never.
  var interruptDeadline: UInt64 {
    var next = min(interrupts.receive.next, interrupts.transmit.next)
    guard interrupts.wanted != 0, let kind = bus.interruptKind, !faults.noInterrupts else { return next }
    if kind != .msix { return min(next, interrupts.quietUntil) }
    for bit in 20...24 where interrupts.wanted & 1 << UInt32(bit) != 0 {
      let entry = allocation(bit)
      if entry & 8 != 0, entry & 7 < 5 { next = min(next, interrupts.vectorQuietUntil[Int(entry & 7)]) }
    }
    return next
  }
}
