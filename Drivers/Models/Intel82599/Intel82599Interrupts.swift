// Interrupt causes, masks, vectors and moderation (datasheet, 7.3 and 8.2.3.5).
//
//   queue event ── IVAR ──> cause bit 0...63 ─┐                   ┌─ EITR of the vector ──> MSI-X
//   link, pin, ... ───────> cause bit 16...31 ┴─ and with masks ──┴─ EITR 0 ──> MSI or INTx
//
// A cause that stays set and unmasked is signalled once: again only after it was cleared or masked.

/// The state behind EICR, EIMS and their relatives.
struct Intel82599Interrupts {
  /// Queue causes; bit v is vector v with MSI-X, bit 0 to 15 of EICR otherwise.
  var queueCauses: UInt64 = 0
  var queueMask: UInt64 = 0
  var queueAutoMask: UInt64 = 0
  /// Bits 16 to 30 of EICR.
  var otherCauses: UInt32 = 0
  var otherMask: UInt32 = 0
  var otherAutoMask: UInt32 = 0
  var autoClear: UInt32 = 0
  /// Causes that were signalled and not cleared or masked since.
  var signalledQueues: UInt64 = 0
  var signalledOther: UInt32 = 0
  /// Vector for each receive queue and each transmit queue; 0xff: none.
  var receiveVector = Intel82599VectorTable()
  var transmitVector = Intel82599VectorTable()
  var otherVector: UInt8 = 0xff
  var timerVector: UInt8 = 0xff
  /// When each vector may fire again.
  var quietUntil = Intel82599QuietTable()

  var pendingQueues: UInt64 { queueCauses & queueMask }
  var pendingOther: UInt32 { otherCauses & otherMask }

  mutating func forget() {
    queueCauses = 0
    otherCauses = 0
    signalledQueues = 0
    signalledOther = 0
  }
}

/// 128 vector numbers.
struct Intel82599VectorTable {
  private var entries = [UInt8](repeating: 0xff, count: 128)
  subscript(_ at: Int) -> UInt8 {
    get { entries[at & 127] }
    set { entries[at & 127] = newValue }
  }
}

/// 64 points of time.
struct Intel82599QuietTable {
  private var entries = [UInt64](repeating: 0, count: 64)
  subscript(_ at: Int) -> UInt64 {
    get { entries[at & 63] }
    set { entries[at & 63] = newValue }
  }
}

extension Intel82599Model {
  var usesVectors: Bool { self.get(At599.generalInterrupt) & Bit599.multipleVectors != 0 }

  // MARK: Causes

  func raise(other: UInt32) {
    interrupts.otherCauses |= other
    interrupts.signalledOther &= ~other
  }

  @inline(__always) func raiseReceive(_ queue: Int) {
    let vector = interrupts.receiveVector[queue]
    if vector < 64 { interrupts.queueCauses |= 1 << UInt64(vector) }
  }
  @inline(__always) func raiseTransmit(_ queue: Int) {
    let vector = interrupts.transmitVector[queue]
    if vector < 64 { interrupts.queueCauses |= 1 << UInt64(vector) }
  }

  /// EICR: reading clears, all of it or (GPIE.OCD) the causes that are no queue's.
  func readCause() -> UInt32 {
    let value = UInt32(truncatingIfNeeded: interrupts.queueCauses & 0xffff) | interrupts.otherCauses
    let keepsQueues = get(At599.generalInterrupt) & Bit599.otherClearDisable != 0
    clearCauses(queues: keepsQueues ? 0 : 0xffff, other: .max)
    autoMaskOnAccess(value)
    return value
  }

  private func clearCauses(queues: UInt64, other: UInt32) {
    interrupts.queueCauses &= ~queues
    interrupts.otherCauses &= ~other
    interrupts.signalledQueues &= ~queues
    interrupts.signalledOther &= ~other
  }

  /// EIAM without GPIE.EIAME: reading or writing EICR masks.
  private func autoMaskOnAccess(_ causes: UInt32) {
    guard get(At599.generalInterrupt) & Bit599.extendedAutoMask == 0 else { return }
    setMask(
      queues: interrupts.queueMask & ~(interrupts.queueAutoMask & UInt64(causes & 0xffff)),
      other: interrupts.otherMask & ~(interrupts.otherAutoMask & causes))
  }

  private func setMask(queues: UInt64, other: UInt32) {
    interrupts.queueMask = queues
    interrupts.otherMask = other & 0x7fff_0000
    interrupts.signalledQueues &= queues
    interrupts.signalledOther &= other
  }

  // MARK: Registers

  func readInterrupt(_ at: Int) -> UInt32 {
    let state = interrupts
    switch at {
    case At599.causeSet: return UInt32(truncatingIfNeeded: state.queueCauses & 0xffff) | state.otherCauses
    case At599.autoClear: return state.autoClear
    case At599.maskSet, At599.maskClear: return UInt32(truncatingIfNeeded: state.queueMask & 0xffff) | state.otherMask
    case At599.causeSetExtended, At599.causeSetExtended + 4: return Self.half(state.queueCauses, at)
    case At599.maskSetExtended, At599.maskSetExtended + 4, At599.maskClearExtended, At599.maskClearExtended + 4:
      return Self.half(state.queueMask, at)
    default: return get(at)
    }
  }

  private static func half(_ value: UInt64, _ at: Int) -> UInt32 {
    UInt32(truncatingIfNeeded: at & 4 == 0 ? value : value >> 32)
  }
  private static func whole(_ value: UInt32, _ at: Int) -> UInt64 { at & 4 == 0 ? UInt64(value) : UInt64(value) << 32 }

  func writeInterrupt(_ at: Int, _ value: UInt32) {
    let low = UInt64(value & 0xffff), state = interrupts
    switch at {
    case At599.cause:
      clearCauses(queues: low, other: value)
      autoMaskOnAccess(value)
    case At599.causeSet:
      force(queues: low, other: value & 0x7fff_0000)
    case At599.causeSetExtended, At599.causeSetExtended + 4: force(queues: Self.whole(value, at), other: 0)
    case At599.autoClear: interrupts.autoClear = value
    case At599.maskSet: setMask(queues: state.queueMask | low, other: state.otherMask | value)
    case At599.maskClear: setMask(queues: state.queueMask & ~low, other: state.otherMask & ~value)
    case At599.maskSetExtended, At599.maskSetExtended + 4:
      setMask(queues: state.queueMask | Self.whole(value, at), other: state.otherMask)
    case At599.maskClearExtended, At599.maskClearExtended + 4:
      setMask(queues: state.queueMask & ~Self.whole(value, at), other: state.otherMask)
    case At599.autoMask:
      interrupts.queueAutoMask = state.queueAutoMask & ~0xffff | low
      interrupts.otherAutoMask = value & 0x7fff_0000
      put(at, value)
    case At599.autoMaskExtended, At599.autoMaskExtended + 4:
      let keep: UInt64 = at & 4 == 0 ? 0xffff_ffff_0000_0000 : 0xffff_ffff
      interrupts.queueAutoMask = state.queueAutoMask & keep | Self.whole(value, at)
      put(at, value)
    case At599.throttleLow..<At599.throttleLow + 96: writeThrottle((at - At599.throttleLow) / 4, at, value)
    case At599.throttleHigh..<At599.throttleHigh + 416: writeThrottle((at - At599.throttleHigh) / 4 + 24, at, value)
    case At599.vectors..<At599.vectors + 256:
      put(at, value)
      let queue = (at - At599.vectors) / 2
      interrupts.receiveVector[queue] = vector(value)
      interrupts.transmitVector[queue] = vector(value >> 8)
      interrupts.receiveVector[queue + 1] = vector(value >> 16)
      interrupts.transmitVector[queue + 1] = vector(value >> 24)
    case At599.vectorsOther:
      put(at, value)
      interrupts.timerVector = vector(value)
      interrupts.otherVector = vector(value >> 8)
    default: put(at, value)
    }
    signalInterrupts()
  }

  /// EICS: as if it had happened. With GPIE.EIMEN moderation is passed by.
  private func force(queues: UInt64, other: UInt32) {
    interrupts.queueCauses |= queues
    interrupts.signalledQueues &= ~queues
    raise(other: other)
    guard get(At599.generalInterrupt) & Bit599.immediate != 0 else { return }
    for vector in 0..<64 where queues >> UInt64(vector) & 1 != 0 { interrupts.quietUntil[vector] = 0 }
  }

  /// IVAR's byte: valid bit and vector.
  private func vector(_ byte: UInt32) -> UInt8 { byte & 0x80 != 0 ? UInt8(byte & 0x3f) : 0xff }

  /// EITR: the interval in bits 11 to 3, units of 2 microseconds. Unless bit 31 forbids it the running
  /// counter is written too.
  private func writeThrottle(_ vector: Int, _ at: Int, _ value: UInt32) {
    put(at, value & 0x0fe0_8ff8)
    if value & 1 << 31 == 0, vector < 64 { interrupts.quietUntil[vector] = 0 }
  }

  private func interval(_ vector: Int) -> UInt64 {
    let at = vector < 24 ? At599.throttleLow + vector * 4 : At599.throttleHigh + (vector - 24) * 4
    return UInt64(get(at) >> 3 & 0x1ff) * 2000
  }

  // MARK: Delivery

  /// Sends what is due. Returns messages sent.
  @discardableResult func signalInterrupts() -> Int {
    let queues = interrupts.pendingQueues & ~interrupts.signalledQueues
    let other = interrupts.pendingOther & ~interrupts.signalledOther
    guard queues != 0 || other != 0, !faults.isSilent else { return 0 }
    return usesVectors ? signalVectors(queues, other) : signalLine(queues & 0xffff, other)
  }

  private func signalLine(_ queues: UInt64, _ other: UInt32) -> Int {
    guard queues != 0 || other != 0, bus.now >= interrupts.quietUntil[0] else { return 0 }
    interrupts.quietUntil[0] = bus.now &+ interval(0)
    interrupts.signalledQueues |= queues
    interrupts.signalledOther |= other
    bus.interrupt(0)
    return 1
  }

  private func signalVectors(_ queues: UInt64, _ other: UInt32) -> Int {
    var sent = 0
    var rest = queues
    while rest != 0 {
      let vector = rest.trailingZeroBitCount
      rest &= rest - 1
      sent += fire(vector, queues: 1 << UInt64(vector), other: 0)
    }
    let timer = other & Bit599.causeTimer
    if other & ~timer != 0, interrupts.otherVector < 64 {
      sent += fire(Int(interrupts.otherVector), queues: 0, other: other & ~timer)
    }
    if timer != 0, interrupts.timerVector < 64 { sent += fire(Int(interrupts.timerVector), queues: 0, other: timer) }
    return sent
  }

  /// One MSI-X message, with auto-clear (EIAC; vectors from 16 on always) and auto-mask (EIAM).
  private func fire(_ vector: Int, queues: UInt64, other: UInt32) -> Int {
    guard bus.now >= interrupts.quietUntil[vector] else { return 0 }
    interrupts.quietUntil[vector] = bus.now &+ interval(vector)
    interrupts.signalledQueues |= queues
    interrupts.signalledOther |= other
    clearCauses(
      queues: queues & (UInt64(interrupts.autoClear & 0xffff) | ~0xffff), other: other & interrupts.autoClear)
    if get(At599.generalInterrupt) & Bit599.extendedAutoMask != 0 {
      setMask(
        queues: interrupts.queueMask & ~(queues & interrupts.queueAutoMask),
        other: interrupts.otherMask & ~(other & interrupts.otherAutoMask))
    }
    bus.interrupt(vector)
    return 1
  }

  /// When the next moderated interrupt may go.
  var nextInterrupt: UInt64? {
    let queues = interrupts.pendingQueues & ~interrupts.signalledQueues
    let other = interrupts.pendingOther & ~interrupts.signalledOther
    guard queues != 0 || other != 0, !faults.isSilent else { return nil }
    guard usesVectors else { return queues & 0xffff != 0 || other != 0 ? interrupts.quietUntil[0] : nil }
    var first: UInt64?
    func add(_ vector: Int) { first = min(first ?? .max, interrupts.quietUntil[vector]) }
    var rest = queues
    while rest != 0 {
      add(rest.trailingZeroBitCount)
      rest &= rest - 1
    }
    if other & ~Bit599.causeTimer != 0, interrupts.otherVector < 64 { add(Int(interrupts.otherVector)) }
    if other & Bit599.causeTimer != 0, interrupts.timerVector < 64 { add(Int(interrupts.timerVector)) }
    return first
  }

  /// A broken card: every connected vector, without cause.
  func storm() {
    guard !faults.isSilent else { return }
    for vector in 0..<64 where interrupts.queueMask >> UInt64(vector) & 1 != 0 { bus.interrupt(vector) }
    if interrupts.otherMask != 0, interrupts.otherVector < 64 { bus.interrupt(Int(interrupts.otherVector)) }
  }
}
