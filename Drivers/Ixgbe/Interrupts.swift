// MSI-X: a vector for each queue pair and one for the rest (82599 datasheet, 7.3 and 8.2.3.5).
//
//    armed queue:  EIMS bit set ── frame ──> EICR bit ── EITR's interval ── vector ──> eventfd; the
//                  card clears both bits
//    the rest:     link, modules, errors; cleared and let through again by `serviceControl`
//
// Up to eight queues have a second vector each for sent frames, on the same eventfd, which is let
// through only while a sender waits for room. With more queues sent frames wake them too.
//
// With fewer vectors than queues, these share them in turn. A shared vector is never masked by one
// of its queues and never cleared by it: what is pending may be another's. It masks itself when it
// fires.

import CRingway
import DeviceIO
import DriverKit
import IntelRings
import Platform

extension IxgbeDriver {
  /// What the control vector is let through for.
  private var controlCauses: Cause {
    var causes: Cause = [.linkChange, .eccError, .other]
    if part.media == .sfp || part.media == .qsfp { causes.formUnion([.module, .moduleSignal]) }
    return causes
  }

  /// Causes to vectors, moderation, automatic clearing and masking. Queues start masked; the rest
  /// is let through.
  func programInterrupts() {
    registers.write(.all, to: Reg.eimc)
    var mode: Gpie = [.multipleVectors, .otherClearDisable, .automaticMask, .pendingBits]
    if part.media == .sfp || part.media == .qsfp { mode.formUnion([.pin1, .pin2]) }
    registers.write(vectors.count > 0 ? mode : [], to: Reg.gpie)
    // Queues 2n and 2n + 1 in one word: receive, transmit, receive, transmit.
    for pair in 0..<(Self.mostQueues / 2) {
      var word: UInt32 = 0
      for i in [2 * pair, 2 * pair + 1] where i < queueCount && vectors.count > 0 {
        let received = Bits.ivarValid | UInt32(vectors.vector(queue: i))
        let sent = Bits.ivarValid | UInt32(vectors.transmitVector(queue: i))
        word |= (received | sent << 8) << UInt32(16 * (i & 1))
      }
      registers.write(Plain(word), to: Reg.ivar, index: pair)
    }
    let control = Bits.ivarValid | UInt32(vectors.controlVector)
    registers.write(Plain(vectors.count > 0 ? control << 8 : 0), to: Reg.ivarMisc)
    // Link changes are not moderated.
    for vector in 0..<vectors.count { moderate(vector, microseconds: 0) }
    for i in 0..<queueCount where vectors.count > 0 {
      let isOwn = vectors.isOwn(queue: i)
      moderate(vectors.transmitVector(queue: i), microseconds: options.moderationMicroseconds)
      moderate(
        vectors.vector(queue: i), microseconds: unsafe isOwn ? moderation[i].interval : options.moderationMicroseconds)
    }
    registers.write(.vectors, to: Reg.eiac)
    registers.write(.vectors, to: Reg.eiam)
    registers.write(Plain(Cause.vectors.rawValue), to: Reg.eiamExtended)
    _ = registers.readClearing(Reg.eicr)
    if vectors.count > 0 { registers.write(controlCauses, to: Reg.eims) }
    for i in 0..<queueCount where unsafe receivers[i].armed { letThrough(i) }
  }

  private func moderate(_ vector: Int, microseconds: Int) {
    let units = UInt32(min(microseconds / 2, Bits.eitrLongest))
    registers.write(Plain(units << Bits.eitrInterval | Bits.eitrKeepCounter), to: Reg.eitr, index: vector)
  }

  public func eventDescriptor(queue: Int) -> Int32 {
    queue >= 0 && queue < queueCount ? vectors.descriptor(vectors.vector(queue: queue)) : -1
  }

  public var controlDescriptor: Int32 { vectors.descriptor(vectors.controlVector) }

  public func armInterrupt(queue: Int) -> Bool {
    guard queue >= 0, queue < queueCount, unsafe receivers[queue].running, vectors.count > 0 else { return true }
    if vectors.isOwn(queue: queue) {
      EventFD.drain(eventDescriptor(queue: queue))
      adapt(queue)
      // A cause left over from polling would fire at once, so it is cleared first. The read makes
      // sure that the card has done so before the look below: nothing that comes later is cleared.
      registers.write(causes(queue), to: Reg.eicr)
    }
    guard registers.read32(at: Reg.status.offset) != .max else { return true }
    unsafe receivers[queue].armed = true
    unsafe receivers[queue].counters.arms &+= 1
    letThrough(queue)
    rw_fence()
    return unsafe receivers[queue].hasWork || transmitters[queue].hasWork
  }

  /// Everything that is queue `i`'s.
  private func causes(_ i: Int) -> Cause {
    [.vector(vectors.vector(queue: i)), .vector(vectors.transmitVector(queue: i))]
  }

  /// What queue `i` waits for: frames, and room when a frame found none.
  private func letThrough(_ i: Int) {
    let wanted = unsafe transmitters[i].waitsForRoom ? causes(i) : .vector(vectors.vector(queue: i))
    registers.write(wanted, to: Reg.eims)
  }

  /// Sets the queue's interval after what it has moved since it was armed last.
  private func adapt(_ i: Int) {
    let rx = unsafe receivers[i].counters, tx = unsafe transmitters[i].counters
    let change = unsafe moderation[i].update(
      packets: rx.packets &+ tx.packets, bytes: rx.bytes &+ tx.bytes, now: clock.now())
    if let change { moderate(vectors.vector(queue: i), microseconds: change) }
  }

  public func maskInterrupt(queue: Int) {
    guard queue >= 0, queue < queueCount else { return }
    unsafe receivers[queue].armed = false
    if vectors.isOwn(queue: queue) { registers.write(causes(queue), to: Reg.eimc) }
  }

  public func serviceControl() -> DriverEvents {
    // Where it is a queue's as well, whoever waits looks at the queues after this call.
    EventFD.drain(controlDescriptor)
    guard health == .running else { return health == .stopped ? [] : .lost }
    guard isPresent else {
      _ = lose()
      return .lost
    }
    // EICS gives the causes without clearing them; queues' causes are theirs to clear. Cleared
    // before the link is looked at, so that a change after the look interrupts again.
    let causes = registers.read(Reg.eics).subtracting(.vectors)
    registers.write(causes, to: Reg.eicr)
    if vectors.count > 0 { registers.write(controlCauses, to: Reg.eims) }
    if causes.contains(.eccError) { return recoverFrom("its packet memory reported an error that it cannot correct") }
    if !causes.isDisjoint(with: [.module, .moduleSignal]) {
      do { try moduleChanged() } catch { return failed(error) }
    }
    return noticeLink()
  }
}
