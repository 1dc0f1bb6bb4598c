// Events: what happens to interfaces, in order, on worker 0.
//
//     any thread ─> queue ─> worker 0: subscribers, one event after the other
//                                        └─> InterfaceEventStream: a bounded buffer that somebody reads (monitor)
//
// Nothing waits for a reader: a stream that is full forgets its oldest events and says how many.

public import Netisr
public import Packet
internal import Platform

/// Events that wait for worker 0, and who wants them.
struct EventHub: Sendable {
  struct State {
    var pending: [(InterfaceEvent, Interface)] = []
    var isDelivering = false
    var subscribers: [(token: WorkerToken, body: @Sendable (InterfaceEvent, Interface) -> Void)] = []
    var handlers: [(token: WorkerToken, body: @Sendable (Interface, _ isAttach: Bool) -> Void)] = []
  }
  final class Box: Sendable { let state = Guarded(State()) }
  private let box = Box()

  func add(_ event: InterfaceEvent, _ interface: Interface) { box.state.withLock { $0.pending.append((event, interface)) } }

  func subscribe(_ body: @escaping @Sendable (InterfaceEvent, Interface) -> Void) -> WorkerToken {
    let token = WorkerToken()
    box.state.withLock { state in
      state.subscribers.removeAll { $0.token.isCancelled }
      state.subscribers.append((token, body))
    }
    return token
  }
  func handle(_ body: @escaping @Sendable (Interface, Bool) -> Void) -> WorkerToken {
    let token = WorkerToken()
    box.state.withLock { state in
      state.handlers.removeAll { $0.token.isCancelled }
      state.handlers.append((token, body))
    }
    return token
  }

  func runHandlers(_ interface: Interface, isAttach: Bool) {
    for (token, body) in box.state.withLock({ $0.handlers }) where !token.isCancelled { body(interface, isAttach) }
  }

  /// On worker 0. An event that is caused by a subscriber comes after the one that it is told of.
  func deliver() {
    let isFirst = box.state.withLock { state in
      defer { state.isDelivering = true }
      return !state.isDelivering
    }
    guard isFirst else { return }
    while true {
      let (events, subscribers) = box.state.withLock { state in
        defer { state.pending = [] }
        if state.pending.isEmpty { state.isDelivering = false }
        return (state.pending, state.subscribers)
      }
      if events.isEmpty { return }
      for (event, interface) in events {
        for (token, body) in subscribers where !token.isCancelled { body(event, interface) }
      }
    }
  }
}

/// One event, as somebody outside the stack sees it.
public struct InterfaceEventRecord: Equatable, Sendable {
  public var event: InterfaceEvent
  /// The interface's name when it happened.
  public var name: String
  public var index: InterfaceIndex
  public var vnet: Vnet
  /// Nanoseconds of the dispatcher's clock.
  public var time: UInt64
}

/// Events for a reader that has its own pace.
public final class InterfaceEventStream: Sendable {
  private struct State {
    var records: [InterfaceEventRecord] = []
    var lost = 0
  }
  private let state = Guarded(State())
  private let capacity: Int
  private let ready: (@Sendable () -> Void)?

  init(capacity: Int, ready: (@Sendable () -> Void)?) {
    self.capacity = max(1, capacity)
    self.ready = ready
  }

  func add(_ record: InterfaceEventRecord) {
    let wasEmpty = state.withLock { state in
      defer {
        if state.records.count == capacity {
          state.records.removeFirst()
          state.lost += 1
        }
        state.records.append(record)
      }
      return state.records.isEmpty
    }
    if wasEmpty { ready?() }
  }

  /// What has happened since the last call, and how many older events were forgotten.
  public func take() -> (records: [InterfaceEventRecord], lost: Int) {
    state.withLock { state in
      defer { state = State() }
      return (state.records, state.lost)
    }
  }
}

extension InterfaceTable {
  /// Tells subscribers, in order, on worker 0: now when the caller is worker 0, soon otherwise.
  public func announce(_ event: InterfaceEvent, _ interface: Interface) {
    events.add(event, interface)
    deliverEvents()
  }

  func deliverEvents() {
    let first = netisr.workers[0]
    if first.isCurrent { return events.deliver() }
    let events = self.events
    // A test's thread is the workers.
    if netisr.configuration.isManual, Worker.current == nil { return first.perform { events.deliver() } }
    first.post { events.deliver() }
  }

  /// Calls `body` for every event until the token is cancelled, on worker 0. It must be quick.
  public func subscribe(_ body: @escaping @Sendable (InterfaceEvent, Interface) -> Void) -> WorkerToken {
    events.subscribe(body)
  }

  /// The BSDs' event handlers: called before ATTACH and ARRIVAL (`isAttach`), and before DEPARTURE and DETACH; around
  /// a new name as well. On worker 0.
  public func onAttachment(_ body: @escaping @Sendable (_ interface: Interface, _ isAttach: Bool) -> Void) -> WorkerToken {
    events.handle(body)
  }

  /// A buffer of events for a slow reader.
  /// - Parameters:
  ///   - capacity: events; the oldest are forgotten, and counted, when more come.
  ///   - ready: called on worker 0 when the first event comes into an empty buffer: wakes the reader.
  public func eventStream(capacity: Int = 1024, ready: (@Sendable () -> Void)? = nil) -> (stream: InterfaceEventStream, token: WorkerToken) {
    let stream = InterfaceEventStream(capacity: capacity, ready: ready)
    let clock = netisr.clock
    let token = subscribe { event, interface in
      stream.add(
        InterfaceEventRecord(
          event: event, name: interface.name, index: interface.index, vnet: interface.vnet, time: clock.now()))
    }
    return (stream, token)
  }
}
