// MSI-X: a vector for each queue pair and one for the rest (82574 datasheet, 7.4 and 10.2.4).
//
//    armed queue:  IMS bit set ── frame ──> ICR bit ── vector ──> eventfd; the card clears both bits
//    the rest:     link changes; cleared and let through again by `serviceControl`
//
// With fewer vectors than that they are shared: both queues on the first, or everything on one.

import CRingway
import DeviceIO
import DriverKit
import PCI
import Platform

/// The function's vectors and the eventfds they signal.
struct Vectors {
  /// An eventfd that closes with its last user.
  private final class Event: Sendable {
    let event: EventFD
    init() throws(SystemError) { event = try EventFD() }
  }

  private let events: [Event]
  private let queues: Int
  /// How many vectors are used; 0 when the function has none and everything is polled.
  var count: Int { events.count }

  init(available: Int, queues: Int) throws(DriverError) {
    self.queues = queues
    let count = available > queues ? queues + 1 : min(available, 2)
    var events: [Event] = []
    do { for _ in 0..<count { events.append(try Event()) } } catch {
      throw .allocator("\(error)")
    }
    self.events = events
  }

  /// Which vector queue `i` signals.
  func vector(queue i: Int) -> Int { count > queues ? i : 0 }
  /// Which vector everything else signals.
  var controlVector: Int { max(0, count - 1) }
  /// Nobody else signals queue `i`'s eventfd.
  func isOwn(queue i: Int) -> Bool { count > queues }

  func descriptor(_ vector: Int) -> Int32 { vector < events.count ? events[vector].event.descriptor : -1 }

  func enable(_ function: CardFunction) throws(DriverError) {
    guard count > 0 else { return }
    do { try function.enableInterrupts(events.map { $0.event.descriptor }) } catch { throw .function(error) }
  }

  func disable(_ function: CardFunction) {
    if count > 0 { function.disableInterrupts() }
  }
}

extension E1000eDriver {
  /// Causes to vectors, moderation, automatic clearing and masking. Queues start masked; the link
  /// is let through.
  func programInterrupts() {
    registers.write(.all, to: Reg.imc)
    var map: UInt32 = 0
    for i in 0..<queueCount {
      let entry = Bits.ivarValid | UInt32(vectors.vector(queue: i))
      map |= entry << UInt32(4 * i) | entry << UInt32(8 + 4 * i)
    }
    map |= (Bits.ivarValid | UInt32(vectors.controlVector)) << 16
    registers.write(Plain(vectors.count > 0 ? map : 0), to: Reg.ivar)
    // EITR counts in 256 ns (10.2.4.9). Link changes are not moderated.
    let interval = UInt32(options.moderationMicroseconds * 1000 / 256)
    for i in 0..<5 {
      let isQueues = (0..<queueCount).contains { vectors.vector(queue: $0) == i }
      registers.write(Plain(isQueues ? interval : 0), to: Reg.eitr, index: i)
    }
    registers.write(0, to: Reg.itr)
    registers.modify(Reg.ctrlExt) {
      $0.remove(.automaticMaskOnRead)
      $0.formUnion([.automaticMask, .clearPending])
    }
    registers.write(.queues, to: Reg.iam)
    registers.write(.queues, to: Reg.eiac)
    _ = registers.readClearing(Reg.icr)
    if vectors.count > 0 { registers.write([.linkChange, .other], to: Reg.ims) }
    for i in 0..<queueCount where unsafe receivers[i].armed { letThrough(i) }
  }

  public func eventDescriptor(queue: Int) -> Int32 {
    queue >= 0 && queue < queueCount ? vectors.descriptor(vectors.vector(queue: queue)) : -1
  }

  public var controlDescriptor: Int32 { vectors.descriptor(vectors.controlVector) }

  public func armInterrupt(queue: Int) -> Bool {
    guard queue >= 0, queue < queueCount, unsafe receivers[queue].running, vectors.count > 0 else { return true }
    if vectors.isOwn(queue: queue) { EventFD.drain(eventDescriptor(queue: queue)) }
    let causes = wanted(queue)
    // Causes left over from polling would fire at once, so they are cleared first. The read makes
    // sure that the card has done so before the look below: nothing that comes later is cleared.
    registers.write(causes, to: Reg.icr)
    guard registers.read32(at: Reg.status.offset) != .max else { return true }
    unsafe receivers[queue].armed = true
    unsafe receivers[queue].counters.arms &+= 1
    letThrough(queue)
    rw_fence()
    return unsafe receivers[queue].hasWork || transmitters[queue].hasWork
  }

  /// What queue `i` waits for: frames, and room when a frame found none.
  private func wanted(_ i: Int) -> Cause {
    unsafe transmitters[i].waitsForRoom ? [.receive(i), .transmit(i)] : .receive(i)
  }

  private func letThrough(_ i: Int) { registers.write(wanted(i), to: Reg.ims) }

  public func maskInterrupt(queue: Int) {
    guard queue >= 0, queue < queueCount else { return }
    unsafe receivers[queue].armed = false
    registers.write([.receive(queue), .transmit(queue)], to: Reg.imc)
  }

  public func serviceControl() -> DriverEvents {
    // Where it is a queue's as well, whoever waits looks at the queues after this call.
    EventFD.drain(controlDescriptor)
    guard health == .running else { return health == .stopped ? [] : .lost }
    guard isPresent else {
      _ = lose()
      return .lost
    }
    let causes = registers.readClearing(Reg.icr)
    // Reading may have taken a queue's cause away before its vector fired: it is set again.
    let taken = causes.intersection(.queues)
    if !taken.isEmpty { registers.write(taken, to: Reg.ics) }
    // Cleared before the link is looked at, so that a change after the look interrupts again.
    registers.write(causes.subtracting(.queues), to: Reg.icr)
    if vectors.count > 0 { registers.write([.linkChange, .other], to: Reg.ims) }
    return noticeLink()
  }
}
