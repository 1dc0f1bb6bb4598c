// What a worker does for the sessions that it syncs.
//
//   asleep ──doorbell──> active: looked at in every pass ──nothing for a while──> asleep: says so in the page, looks again
//
// A session that is asleep costs nothing, however many there are. The worker itself sleeps when none is active.

internal import CRingway
internal import Netisr
internal import Platform
internal import Synchronization

/// Looks after the active sessions of one worker. The worker's own, but for the settings.
final class SyncPoller: WorkerPoller, @unchecked Sendable {
  /// Never signalled: the doorbells are watched one by one.
  private let event: EventFD
  var eventDescriptor: Int32 { event.descriptor }
  private var active: [SessionPart] = []
  private let clock = MonotonicClock()
  private let settings: SyncSettings

  init(_ settings: SyncSettings) throws(SystemError) {
    self.settings = settings
    event = try EventFD()
  }

  /// Nanoseconds.
  var patience: UInt64 { settings.spin.load(ordering: .relaxed) }

  func add(_ part: SessionPart) {
    guard !part.isActive else { return }
    part.isActive = true
    active.append(part)
  }

  func remove(_ part: SessionPart) {
    guard part.isActive else { return }
    part.isActive = false
    active.removeAll { $0 === part }
  }

  func poll(budget: Int) -> Int {
    var handled = 0, i = 0, now: UInt64 = 0
    while i < active.count {
      let part = active[i], done = part.serve()
      if done > 0 {
        handled += done
        reward(part)
      } else {
        if now == 0 { now = clock.now() }
        if rests(part, now) {
          drop(i)
          continue
        }
      }
      i += 1
    }
    return handled
  }

  /// Looking paid: a little longer the next time.
  private func reward(_ part: SessionPart) {
    guard part.idleSince != 0 else { return }
    part.idleSince = 0
    part.patience = min(patience, part.patience &* 2)
  }

  /// Whether a session was looked at long enough, and sleeps now.
  private func rests(_ part: SessionPart, _ now: UInt64) -> Bool {
    if part.idleSince == 0 { part.idleSince = now }
    guard now &- part.idleSince >= part.patience, part.rest() else { return false }
    part.patience = min(patience, max(patience / 8, part.patience / 2))
    return true
  }

  private func drop(_ i: Int) {
    active[i].isActive = false
    active.swapAt(i, active.count - 1)
    active.removeLast()
  }

  func arm() -> Bool {
    guard !active.isEmpty else { return false }
    let now = clock.now()
    var i = 0
    while i < active.count { if rests(active[i], now) { drop(i) } else { i += 1 } }
    return !active.isEmpty
  }

  func disarm() {}
}

/// What can be set while the server runs.
final class SyncSettings: Sendable {
  /// Nanoseconds that a worker looks in vain before it sleeps.
  let spin: Atomic<UInt64>
  init(spinMicroseconds: Int) { spin = Atomic(UInt64(max(0, spinMicroseconds)) &* 1000) }
}
