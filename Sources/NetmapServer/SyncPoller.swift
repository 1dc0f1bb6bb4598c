// What a worker does for the sessions that it syncs.
//
//   asleep ──doorbell──> active: looked at in every pass ──nothing for a while──> asleep: says so in the page, looks again
//
// A session that is asleep costs nothing, however many there are. A worker that has nothing else to do goes on looking for
// `spin` and then sleeps with its sessions; one that is busy with others looks longer, because its looks cost little and it
// hears doorbells late.

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
  let settings: SyncSettings

  init(_ settings: SyncSettings) throws(SystemError) {
    self.settings = settings
    event = try EventFD()
  }

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
        part.idleSince = 0
      } else {
        if now == 0 { now = clock.now() }
        if rests(part, now, after: Self.patience) {
          drop(i)
          continue
        }
      }
      i += 1
    }
    return handled
  }

  /// Nanoseconds that a busy worker looks at a session in vain.
  private static let patience: UInt64 = 500_000

  /// Whether a session was looked at long enough, and sleeps now.
  private func rests(_ part: SessionPart, _ now: UInt64, after patience: UInt64) -> Bool {
    if part.idleSince == 0 { part.idleSince = now }
    return now &- part.idleSince >= patience && part.rest()
  }

  private func drop(_ i: Int) {
    active[i].isActive = false
    active.swapAt(i, active.count - 1)
    active.removeLast()
  }

  func arm() -> Bool {
    guard !active.isEmpty else { return false }
    let now = clock.now(), spin = settings.spin.load(ordering: .relaxed)
    var i = 0
    while i < active.count { if rests(active[i], now, after: spin) { drop(i) } else { i += 1 } }
    return !active.isEmpty
  }

  func disarm() {}
}

/// What can be set while the server runs.
final class SyncSettings: Sendable {
  /// Nanoseconds that a worker looks in vain before it sleeps.
  let spin: Atomic<UInt64>
  /// Some session's memory was taken away: the server looks for it.
  let hasFault = Atomic(false)
  private let server: Int32

  /// - Parameter server: the eventfd that wakes the server's thread; open for as long as a worker syncs.
  init(spinMicroseconds: Int, server: Int32) {
    spin = Atomic(UInt64(max(0, spinMicroseconds)) &* 1000)
    self.server = server
  }

  func reportFault() { if !hasFault.exchange(true, ordering: .acquiringAndReleasing) { rw_signal_event(server) } }
}
