// The function's MSI-X vectors and the eventfds they signal: one for each queue pair, and the last
// for everything else. With fewer vectors than that, all queues share the first.

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
  /// How many vectors are used; 0 when the function has none and everything is polled.
  public var count: Int { events.count }

  /// - Parameter available: vectors that the function has.
  public init(available: Int, queues: Int) throws(DriverError) {
    self.queues = queues
    let count = available > queues ? queues + 1 : min(available, 2)
    var events: [Event] = []
    do { for _ in 0..<count { events.append(try Event()) } } catch {
      throw .allocator("\(error)")
    }
    self.events = events
  }

  /// Which vector queue `i` signals.
  public func vector(queue i: Int) -> Int { count > queues ? i : 0 }
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
