// Whether every worker advances: each is sent a message, and the moment at which it runs it is kept.

import Netisr
import Synchronization

/// Heartbeats of the workers.
final class Heartbeats: Sendable {
  private final class Beat: Sendable {
    let last: Atomic<UInt64>
    init(_ now: UInt64) { last = Atomic(now) }
  }
  private let beats: [(worker: Worker, kick: KickMessage, beat: Beat)]
  private let netisr: Netisr

  init(_ netisr: Netisr) {
    self.netisr = netisr
    let clock = netisr.clock
    beats = netisr.workers.map { worker in
      let beat = Beat(clock.now())
      return (worker, KickMessage { beat.last.store(clock.now(), ordering: .releasing) }, beat)
    }
  }

  /// Asks every worker; one that has not answered the last time is not asked again.
  func ask() { for beat in beats { beat.worker.send(beat.kick) } }

  /// Nanoseconds since each worker's last answer.
  var ages: [UInt64] {
    let now = netisr.clock.now()
    return beats.map {
      let last = $0.beat.last.load(ordering: .acquiring)
      return now > last ? now - last : 0
    }
  }

  /// Workers that have not answered for `nanoseconds`.
  func stuck(for nanoseconds: UInt64) -> [Int] { ages.enumerated().filter { $0.element > nanoseconds }.map(\.offset) }
}
