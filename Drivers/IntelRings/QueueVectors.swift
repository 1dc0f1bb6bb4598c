// The function's MSI-X vectors and the eventfds they signal: one for each queue pair, and the last
// for everything else. With fewer vectors than that, queues share them in turn.
//
// On request a queue has a second vector for its sent frames, which signals the same eventfd: so a
// driver can let it through only while a sender waits for room.
//
//    vector   0 ... n-1     n ... 2n-1           last
//             received      sent (on request)    the rest

import PCI
import Platform
public import DriverKit

/// Which vector and which eventfd belongs to what.
public struct QueueVectors: Sendable {
  /// An eventfd that closes with its last user.
  private final class Event: Sendable {
    let event: EventFD
    init() throws(SystemError) { event = try EventFD() }
  }

  private let events: [Event]
  private let queues: Int
  /// Vectors for received frames: as many as there are queues, or fewer.
  private let shares: Int
  /// Sent frames have vectors of their own.
  private let separate: Bool
  /// How many vectors are used; 0 when the function has none and everything is polled.
  public var count: Int { events.count }

  /// - Parameters:
  ///   - available: vectors that the function has.
  ///   - separateTransmit: a second vector a queue, where there are enough.
  public init(available: Int, queues: Int, separateTransmit: Bool = false) throws(DriverError) {
    self.queues = queues
    separate = separateTransmit && available > 2 * queues
    shares = max(1, min(queues, available - 1))
    var events: [Event] = []
    do {
      for _ in 0..<min(shares, available) { events.append(try Event()) }
      if separate { events += events }
      if available > shares { events.append(try Event()) }
    } catch {
      throw .allocator("\(error)")
    }
    self.events = events
  }

  /// Which vector queue `i` signals for received frames, and for sent ones unless they are separate.
  public func vector(queue i: Int) -> Int { i % shares }
  /// Which vector queue `i` signals for sent frames.
  public func transmitVector(queue i: Int) -> Int { separate ? shares + i : vector(queue: i) }
  /// Which vector everything else signals.
  public var controlVector: Int { max(0, count - 1) }
  /// Nobody else signals queue `i`'s eventfd.
  public func isOwn(queue i: Int) -> Bool { count > queues }

  /// The eventfd of a vector; -1 when there is none.
  public func descriptor(_ vector: Int) -> Int32 {
    vector >= 0 && vector < events.count ? events[vector].event.descriptor : -1
  }

  public func enable(_ function: CardFunction) throws(DriverError) {
    guard count > 0 else { return }
    do { try function.enableInterrupts(events.map { $0.event.descriptor }) } catch { throw .function(error) }
  }

  public func disable(_ function: CardFunction) {
    if count > 0 { function.disableInterrupts() }
  }
}
