// The packet path of a port: one call a batch into the driver, nothing a packet.

internal import CRingway
internal import DriverKit
internal import Glibc
public import Packet
internal import Platform
internal import SystemPackage

extension Port {
  /// Takes up to `max` received frames into the batch. Returns how many; 0 also when closed.
  @discardableResult
  public func receive(queue: Int = 0, into batch: inout PacketBatch, max: Int = .max) -> Int {
    guard let driver, queue >= 0, queue < queueCount else { return 0 }
    return driver.receive(queue: queue, into: &batch, max: max)
  }

  /// Sends a prefix of the batch, in order; what does not fit in the ring stays in the batch.
  /// Returns how many were taken; 0 also when closed.
  @discardableResult
  public func send(queue: Int = 0, _ batch: inout PacketBatch) -> Int {
    guard let driver, queue >= 0, queue < queueCount else { return 0 }
    return driver.send(queue: queue, &batch)
  }

  /// Frees frames that the card has sent.
  public func reclaim(queue: Int = 0) {
    guard let driver, queue >= 0, queue < queueCount else { return }
    driver.reclaim(queue: queue)
  }

  /// An empty packet of this port's memory, or nil when none is left.
  public func allocate(queue: Int = 0) -> Packet? {
    guard queue >= 0, queue < queueCount else { return nil }
    return pools[queue].allocate()
  }

  /// The eventfd that the queue's interrupt signals; -1 when closed.
  public func eventDescriptor(queue: Int = 0) -> Int32 { driver?.eventDescriptor(queue: queue) ?? -1 }

  /// Lets the queue's interrupt through; true when frames are waiting already: then do not sleep.
  public func arm(queue: Int = 0) -> Bool { driver?.armInterrupt(queue: queue) ?? true }

  /// Keeps the queue's interrupt away, for polling.
  public func mask(queue: Int = 0) { driver?.maskInterrupt(queue: queue) }

  /// Arms the queue and sleeps until frames may be waiting.
  /// - Parameter milliseconds: -1 waits for ever.
  /// - Returns: false when the time ran out.
  public func wait(queue: Int = 0, milliseconds: Int32) throws(RingwayError) -> Bool {
    guard let driver else { throw failure ?? .closed(card: name) }
    if arm(queue: queue) {
      mask(queue: queue)
      return true
    }
    let descriptor = driver.eventDescriptor(queue: queue)
    var watched = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    // SAFETY: one local structure.
    let ready = unsafe poll(&watched, 1, milliseconds)
    if ready < 0, rw_errno() != EINTR { throw .system(SystemError("wait for", name, Errno(rawValue: rw_errno()))) }
    if ready > 0 { EventFD.drain(descriptor) }
    mask(queue: queue)
    return ready > 0
  }
}
