// Interrupts, link, and the watchdog.

import DeviceIO
public import DriverKit
import Platform
import VirtioTransport

extension VirtioNetDriver {
  public func eventDescriptor(queue: Int) -> Int32 { interrupts.descriptor(queue: queue) }
  public var controlDescriptor: Int32 { interrupts.control }

  /// Also asks to be told of sent frames when the transmit ring is nearly full: whoever waits then
  /// waits for room.
  public func armInterrupt(queue: Int) -> Bool {
    // A queue that has faulted, or has stopped, has nothing to wait for.
    guard queue >= 0, queue < queueCount, health == .running else { return false }
    unsafe pairs[queue].receive.counters.arms &+= 1
    unsafe pairs[queue].receive.queue.publish()
    var waiting = unsafe pairs[queue].receive.queue.requestInterrupt()
    let outstanding = unsafe pairs[queue].transmit.queue.outstanding
    let free = unsafe pairs[queue].transmit.free.count
    if free < options.transmitDescriptors / 4, outstanding > 0 {
      if unsafe pairs[queue].transmit.queue.requestInterrupt(after: max(1, outstanding / 2)) { waiting = true }
    }
    return waiting
  }

  public func maskInterrupt(queue: Int) {
    guard queue >= 0, queue < queueCount else { return }
    unsafe pairs[queue].receive.queue.suppressInterrupts()
    unsafe pairs[queue].transmit.queue.suppressInterrupts()
  }

  /// A queue's fault shows here at once; the device is silenced at the next `tick`.
  public var health: PortHealth {
    guard state == .running, let (queue, fault) = findFault() else { return state }
    return .quarantined(reason: "on \(queue), \(fault)")
  }

  private func findFault() -> (String, VirtioQueueFault)? {
    for i in 0..<queueCount {
      let receive = unsafe pairs[i].receive.queue.fault
      if receive != .none { return ("receive queue \(i)", receive) }
      let transmit = unsafe pairs[i].transmit.queue.fault
      if transmit != .none { return ("transmit queue \(i)", transmit) }
    }
    return nil
  }

  public func serviceControl() -> DriverEvents {
    EventFD.drain(interrupts.control)
    return inspect()
  }

  public func tick() -> DriverEvents {
    var events = inspect()
    if state == .running && events.isEmpty { events.formUnion(watch()) }
    return events
  }

  /// Device status, faults of the queues, link.
  private func inspect() -> DriverEvents {
    guard state == .running else { return [] }
    if transport.isGone { return lose() }
    if let (queue, fault) = findFault() {
      counters.faults += 1
      return quarantine("on \(queue), \(fault)")
    }
    if transport.readStatus().contains(.needsReset) { return recover() }
    let now = readLink()
    guard now != link else { return [] }
    link = now
    counters.linkChanges += 1
    return .link
  }

  /// Link state: configuration field `status` (clause 5.1.4), up when the device does not report it.
  func readLink() -> LinkState {
    guard features.contains(.status) else { return LinkState(status: .up) }
    let reports = features.contains(.speedDuplex)
    let read = transport.readConfiguration { space in
      (
        space.read16(at: NetConfiguration.status), reports ? space.read32(at: NetConfiguration.speed) : 0,
        reports ? space.read8(at: NetConfiguration.duplex) : 1
      )
    }
    guard let (status, speed, duplex) = read else { return LinkState(status: .unknown) }
    // Speeds above 2^31 - 1 and other duplex values mean "unknown".
    return LinkState(
      status: status & NetConfiguration.linkUp != 0 ? .up : .down, speed: speed <= 0x7fff_ffff ? Int(speed) : 0,
      fullDuplex: duplex != 0)
  }

  /// Nanoseconds that a transmit queue may stand still with frames on it.
  static var hangLimit: UInt64 { 5_000_000_000 }

  /// A transmit queue that stands still is notified once more, then the device is reset.
  private func watch() -> DriverEvents {
    let now = clock.now()
    for i in 0..<queueCount {
      unsafe pairs[i].transmit.reclaim()
      let taken = unsafe pairs[i].transmit.queue.taken
      let moved = unsafe pairs[i].transmit.queue.outstanding == 0 || taken != pairs[i].transmit.watchedIndex
      if moved || link.status == .down {
        unsafe pairs[i].transmit.watchedIndex = taken
        unsafe pairs[i].transmit.stoodStillSince = nil
        continue
      }
      let since = unsafe pairs[i].transmit.stoodStillSince ?? now
      unsafe pairs[i].transmit.stoodStillSince = since
      if now &- since > Self.hangLimit {
        counters.transmitTimeouts += 1
        return recover()
      }
      unsafe pairs[i].transmit.queue.notify()
    }
    return []
  }
}
