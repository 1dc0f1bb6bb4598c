// VALE: a learning switch between netmap ports.
//
//    port a ── txsync ──> notes ──> lists, one a destination ──> lease on b's receive ring ── copy ──> b's rxsync
//    card ix0 ── its worker: received slots ──> the same            └──> or on a card's transmit ring, and a kick
//
// Frames are always copied, from the sender's buffers into the receiver's: regions differ, and programs do not trust each
// other. The copying is the sender's, in its own sync. Nobody waits: a frame that finds no room is dropped and counted at its
// destination.
//
// Who runs where. Any thread syncs any port; several fill one destination at a time (`ValeQueue`). Ports come and go on
// worker 0, under the switch's lock: a sender holds it, shared, for one sync.
//
// Invariants
// - What a sender needs to know of its ring is noted privately once a batch (`ValeSource`); what it needs to know of a
//   destination's slot is loaded once, when it is filled.
// - Frames of one sending ring stay in order, those for everybody included, as far as they meet on one destination ring.
// - Nothing goes back to the port that it came from.

internal import NetmapCore
internal import Platform
internal import Synchronization

/// A port of a switch: where frames come from and go to.
final class ValeStation: @unchecked Sendable {
  private let label: Guarded<String>
  // Under the lock of the switch, if there is one.
  /// Where frames go, by ring; nil for rings that nobody has open.
  var queues: [ValeQueue?]
  /// Bytes of the virtio-net header before each frame: 0, 10 or 12.
  var header = 0
  /// The number in the switch; -1 for none.
  fileprivate(set) var number = -1

  init(_ name: String, queues: Int) {
    label = Guarded(name)
    self.queues = Array(repeating: nil, count: max(1, queues))
  }

  /// "vale0:a".
  var name: String { label.withLock { $0 } }
  /// On worker 0.
  func rename(_ name: String) { label.withLock { $0 = name } }
}

/// A switch. Its ports change on worker 0.
final class ValeSwitch: @unchecked Sendable {
  /// "vale0".
  let name: String
  let number: Int
  /// netmap's limit.
  static let mostPorts = 254
  private let lock = ValeLock()
  private let table: ValeTable
  private var stations: [ValeStation?] = Array(repeating: nil, count: mostPorts)
  private var active: [Int] = []

  /// - Parameter lifetime: seconds after which a station that was silent counts as unknown.
  init(_ name: String, number: Int, lifetime: UInt32) {
    self.name = name
    self.number = number
    table = ValeTable(lifetime: lifetime)
  }

  // MARK: Ports, on worker 0

  var count: Int { active.count }
  func station(_ number: Int) -> ValeStation? { stations.indices.contains(number) ? stations[number] : nil }
  /// The port of a name.
  func station(named name: String) -> ValeStation? {
    active.lazy.compactMap { self.stations[$0] }.first { $0.name == name }
  }

  /// Takes ports in, all or none.
  /// - Returns: false when the switch is full.
  func add(_ new: [ValeStation]) -> Bool {
    let free = stations.indices.filter { stations[$0] == nil }.prefix(new.count)
    guard free.count == new.count else { return false }
    lock.write {
      for (station, number) in zip(new, free) {
        station.number = number
        stations[number] = station
        active.append(number)
      }
    }
    return true
  }

  /// Ports leave. When this returns nobody fills their rings any more.
  func remove(_ old: [ValeStation]) {
    lock.write {
      for station in old where station.number >= 0 {
        stations[station.number] = nil
        active.removeAll { $0 == station.number }
        table.forget(port: station.number)
        station.number = -1
      }
    }
  }

  /// Changes something about a port that senders look at.
  func change(_ body: () -> Void) { lock.write(body) }

  // MARK: Frames

  /// Forwards what a ring has handed over: the slots `from ..< to`.
  /// - Returns: the first slot that stays with the ring: a frame's that is not complete.
  func forward(_ source: ValeSource, from: UInt32, to: UInt32, ring: Int, station: ValeStation, now: UInt32) -> UInt32 {
    lock.read {
      source.begin()
      defer { source.settle() }
      var at = from
      while at != to {
        let taken = source.collect(from: at, to: to)
        if taken.next == at { break }
        at = taken.next
        // A port that has left meanwhile: its frames have nowhere to go.
        guard taken.count > 0, station.number >= 0 else { continue }
        source.dispatch(taken.count, from: station.number, header: station.header, table, now: now)
        deliver(source, ring: ring, station)
      }
      return at
    }
  }

  /// Delivers the lists of a batch and empties them.
  private func deliver(_ source: ValeSource, ring: Int, _ sender: ValeStation) {
    // SAFETY: `everybody` is the last list, and `touched` has numbers of ports.
    let everybody = unsafe source.lists[ValeTable.everybody]
    for t in 0..<source.touchedCount {
      let number = unsafe Int(source.touched[t]), list = unsafe source.lists[number]
      unsafe source.lists[number] = FrameList()
      guard let station = stations[number] else { continue }
      let wanted = ring % station.queues.count
      // Frames for everybody go to ring 0: where that is this ring too, both lists go together.
      let joined = wanted == 0 ? everybody : FrameList()
      if let queue = station.queues[wanted] {
        source.deliver(list, joined, header: sender.header, to: ValeRoute(queue: queue, header: station.header))
      }
      if wanted == 0 { unsafe source.served[number] = true }
    }
    if everybody.slots > 0 {
      for number in active where number != sender.number {
        guard unsafe !source.served[number], let station = stations[number], let queue = station.queues[0] else { continue }
        source.deliver(FrameList(), everybody, header: sender.header, to: ValeRoute(queue: queue, header: station.header))
      }
      unsafe source.lists[ValeTable.everybody] = FrameList()
    }
    for t in 0..<source.touchedCount { unsafe source.served[Int(source.touched[t])] = false }
    source.touchedCount = 0
  }
}
