// MSI-X: vectors for the queues and one for the rest (82576 datasheet, 7.3 and 8.8).
//
//    armed queue:  EIMS bit set ── frame ──> EICR bit ── vector ──> eventfd; the card clears both bits
//    the rest:     link changes (ICR); cleared and let through again by `serviceControl`
//
// Where the card has enough vectors, a queue has a second one for its sent frames, on the same
// eventfd: it is let through only while a sender waits for room. With fewer, both directions share
// one; with very few, queues share.

import CRingway
import DeviceIO
import DriverKit
import IntelRings
import Platform

extension IgbDriver {
  /// Causes to vectors, moderation, automatic clearing and masking. Queues start masked; the link
  /// is let through (7.3.4, 8.8).
  func programInterrupts() {
    maskEverything()
    registers.write([.nonSelectiveClear, .multipleVectors, .automaticMask, .pendingBits], to: Reg.gpie)
    var words = [UInt32](repeating: 0, count: 8)
    if vectors.count > 0 {
      for i in 0..<queueCount {
        let entry = kind.vectorEntry(queue: i)
        let receive = Bits.ivarValid | UInt32(vectors.vector(queue: i))
        let transmit = Bits.ivarValid | UInt32(vectors.transmitVector(queue: i))
        words[entry.word] |= receive << entry.shift | transmit << (entry.shift + 8)
      }
    }
    for (i, word) in words.enumerated() { registers.write(Plain(word), to: Reg.ivar, index: i) }
    let other = vectors.count > 0 ? (Bits.ivarValid | UInt32(vectors.controlVector)) << 8 : 0
    registers.write(Plain(other), to: Reg.ivarMisc)
    // Link changes are not moderated; queues begin anew, with little.
    let fresh = AdaptiveModeration(ceiling: options.moderationMicroseconds)
    for i in 0..<queueCount { unsafe moderation[i] = fresh }
    for i in 0..<vectors.count {
      moderate(vector: i, microseconds: i == vectors.controlVector && vectors.count > 1 ? 0 : fresh.interval)
    }
    let all = vectors.count > 0 ? UInt32(truncatingIfNeeded: 1 << vectors.count - 1) : 0
    registers.write(Plain(all), to: Reg.eiac)
    registers.write(Plain(all), to: Reg.eiam)
    registers.write([], to: Reg.iam)
    _ = registers.readClearing(Reg.icr)
    registers.write(Plain(.max), to: Reg.eicr)
    if vectors.count > 0 {
      registers.write(.linkChange, to: Reg.ims)
      registers.write(Plain(controlBit), to: Reg.eims)
    }
    for i in 0..<queueCount where unsafe receivers[i].armed { registers.write(Plain(wanted(i)), to: Reg.eims) }
  }

  private var controlBit: UInt32 { 1 << UInt32(vectors.controlVector) }

  /// EITR counts in microseconds, in bits 2 to 14 (8.8).
  private func moderate(vector: Int, microseconds: Int) {
    registers.write(
      Plain(UInt32(microseconds) << Bits.eitrInterval | Bits.eitrKeepCounter), to: Reg.eitr, index: vector)
  }

  public func eventDescriptor(queue: Int) -> Int32 {
    queue >= 0 && queue < queueCount ? vectors.descriptor(vectors.vector(queue: queue)) : -1
  }

  public var controlDescriptor: Int32 { vectors.descriptor(vectors.controlVector) }

  public func armInterrupt(queue: Int) -> Bool {
    guard queue >= 0, queue < queueCount, unsafe receivers[queue].running, vectors.count > 0 else { return true }
    let isOwn = vectors.isOwn(queue: queue)
    if isOwn {
      EventFD.drain(eventDescriptor(queue: queue))
      adapt(queue)
    }
    let bits = wanted(queue)
    // Causes left over from polling would fire at once, so they are cleared first. The read makes
    // sure that the card has done so before the look below: nothing that comes later is cleared.
    if isOwn { registers.write(Plain(bits), to: Reg.eicr) }
    guard registers.read32(at: Reg.status.offset) != .max else { return true }
    unsafe receivers[queue].armed = true
    unsafe receivers[queue].counters.arms &+= 1
    registers.write(Plain(bits), to: Reg.eims)
    rw_fence()
    return unsafe receivers[queue].hasWork || transmitters[queue].hasWork
  }

  /// Moderation by what the queue has moved since it was armed last.
  private func adapt(_ i: Int) {
    let rx = unsafe receivers[i].counters, tx = unsafe transmitters[i].counters
    let change = unsafe moderation[i].update(
      packets: rx.packets &+ tx.packets, bytes: rx.bytes &+ tx.bytes, now: clock.now())
    if let microseconds = change { moderate(vector: vectors.vector(queue: i), microseconds: microseconds) }
  }

  /// What queue `i` waits for: frames, and room when a frame found none.
  private func wanted(_ i: Int) -> UInt32 {
    let receive = UInt32(1) << UInt32(vectors.vector(queue: i))
    return unsafe transmitters[i].waitsForRoom ? receive | 1 << UInt32(vectors.transmitVector(queue: i)) : receive
  }

  public func maskInterrupt(queue: Int) {
    guard queue >= 0, queue < queueCount, vectors.count > 0 else { return }
    unsafe receivers[queue].armed = false
    let vector = vectors.vector(queue: queue)
    // A vector that others wait on stays open.
    for i in 0..<queueCount where vectors.vector(queue: i) == vector {
      if unsafe receivers[i].armed { return }
    }
    var bits = UInt32(1) << UInt32(vector) | 1 << UInt32(vectors.transmitVector(queue: queue))
    if vectors.count == 1 { bits = 0 }
    registers.write(Plain(bits), to: Reg.eimc)
  }

  public func serviceControl() -> DriverEvents {
    // Where it is a queue's as well, whoever waits looks at the queues after this call.
    EventFD.drain(controlDescriptor)
    guard health == .running else { return health == .stopped ? [] : .lost }
    guard isPresent else {
      _ = lose()
      return .lost
    }
    // Cleared before the link is looked at, so that a change after the look interrupts again.
    _ = registers.readClearing(Reg.icr)
    if vectors.count > 0 { registers.write(Plain(controlBit), to: Reg.eims) }
    return noticeLink()
  }
}
