// Causes, masks, vectors and moderation (82574 datasheet, 7.4 and 10.2.4).

import Platform

extension E1000eModel {
  /// Causes that are not a queue's: they also set OTHER.
  private static let otherCauses: UInt32 = 1 << 2 | 1 << 6 | 1 << 9 | 1 << 16 | 1 << 17 | 1 << 18

  func raise(_ causes: UInt32) {
    registerFile[At.causeRead] |= causes
    if causes & Self.otherCauses != 0 { registerFile[At.causeRead] |= 1 << 24 }
    signalInterrupts()
  }

  /// Reading ICR clears it.
  func readCauses() -> UInt32 {
    let causes = registerFile[At.causeRead]
    registerFile[At.causeRead] = 0
    signalled = 0
    return causes
  }

  func clearCauses(_ causes: UInt32) {
    registerFile[At.causeRead] &= ~causes
    signalled &= ~causes
  }

  func setMask(_ causes: UInt32) {
    registerFile[At.maskSet] |= causes
    signalInterrupts()
  }

  func clearMask(_ causes: UInt32) {
    registerFile[At.maskSet] &= ~causes
    signalled &= ~causes
  }

  /// Sends each cause that is set and let through to its vector, unless the vector is quiet for its
  /// moderation interval; then it is tried again when time passes.
  func signalInterrupts() {
    for (bit, entry) in [(20, 0), (21, 4), (22, 8), (23, 12), (24, 16)] {
      let cause: UInt32 = 1 << UInt32(bit)
      let allocation = registerFile[At.vectorAllocation] >> UInt32(entry) & 0xf
      let vector = Int(allocation & 7)
      guard registerFile[At.causeRead] & registerFile[At.maskSet] & cause != 0, signalled & cause == 0,
        allocation & 8 != 0, vector < 5, vectorQuietUntil[vector] <= time
      else { continue }
      vectorQuietUntil[vector] = time + UInt64(registerFile[At.throttle + 4 * vector] & 0xffff) * 256
      interrupts[vector] += 1
      if vector < eventDescriptors.count, eventDescriptors[vector] >= 0 { EventFD.signal(eventDescriptors[vector]) }
      signalled |= cause
      if registerFile[At.autoClear] & cause != 0 {
        registerFile[At.causeRead] &= ~cause
        signalled &= ~cause
      }
      let maskAutomatically = registerFile[At.extendedControl] & 1 << 24 != 0
      if maskAutomatically && registerFile[At.autoMask] & cause != 0 { registerFile[At.maskSet] &= ~cause }
    }
  }
}
