// Events on their way to one reader.

public import Control
internal import Synchronization

/// A subscription: events that any thread puts in, and the control thread sends. Bounded; whoever puts in never waits.
public final class ControlStream: Sendable {
  public let id: UInt64
  /// Events that may wait.
  public let backlog: Int
  /// A reader that is too slow is told how many events it missed (captures); otherwise its subscription ends,
  /// because what it missed cannot be made up (changes).
  public let isLossy: Bool
  private let wake: @Sendable () -> Void

  private struct State {
    var events: [ControlEvent] = []
    var lost: UInt64 = 0
    var isEnded = false
    var onEnd: (@Sendable () -> Void)?
  }
  private let state = Mutex(State())

  init(id: UInt64, backlog: Int, isLossy: Bool, wake: @escaping @Sendable () -> Void) {
    self.id = id
    self.backlog = max(1, backlog)
    self.isLossy = isLossy
    self.wake = wake
  }

  /// Puts an event in; from any thread. The event is made only when there is room for it.
  public func push(_ event: () -> ControlEvent) {
    let first = state.withLock { state -> Bool in
      guard !state.isEnded else { return false }
      guard state.events.count < backlog else {
        state.lost += 1
        return false
      }
      state.events.append(event())
      return state.events.count == 1
    }
    if first { wake() }
  }

  /// Runs when the subscription is over, whatever ended it; at once when it is over already.
  public func whenEnded(_ body: @escaping @Sendable () -> Void) {
    let over = state.withLock { state -> Bool in
      if state.isEnded { return true }
      state.onEnd = body
      return false
    }
    if over { body() }
  }

  var hasEvents: Bool { state.withLock { !$0.events.isEmpty || $0.lost > 0 } }

  /// Takes up to `limit` events out. `isOver`: the last of them ends the subscription.
  func take(_ limit: Int) -> (events: [ControlEvent], isOver: Bool) {
    state.withLock { state in
      var taken = Array(state.events.prefix(limit))
      state.events.removeFirst(taken.count)
      guard state.events.isEmpty, state.lost > 0 else { return (taken, false) }
      taken.append(.lost(count: state.lost))
      state.lost = 0
      if isLossy { return (taken, false) }
      taken.append(.end(reason: "slow reader"))
      return (taken, true)
    }
  }

  func end() {
    let body = state.withLock { state -> (@Sendable () -> Void)? in
      state.isEnded = true
      state.events = []
      defer { state.onEnd = nil }
      return state.onEnd
    }
    body?()
  }
}
