// A card on a switch: its rings, and those to the host, are the switch's alone.
//
//    card ── its worker wakes the receive ring ── listener ── kick ──> worker: sync, forward, give the slots back
//    switch ── a sender fills the transmit ring, by lease ── kick ──> worker: head to what is filled, sync
//
// The switch is the rings' program, and syncs them on their worker like any other. What it knows of its rings it knows from
// the krings' private numbers, not from shared memory: the card's region is other programs' too, and they can write to the
// rings there. A head that somebody else has moved starts the transmit ring anew; frames are lost by that, and nothing else.
//
//    vale0:ix0     the card's rings
//    vale0:ix0^    the host's, if asked for: a port of its own

internal import NetmapAPI
internal import NetmapCore
internal import Netisr
internal import Synchronization

/// One of a card's rings, on its worker.
class ValeLink: @unchecked Sendable {
  let kring: Kring
  let worker: Worker
  let adapter: any NetmapAdapter
  private var kick: KickMessage?
  private var listener: Int?
  private let ended = Atomic(false)
  /// The card has gone. From the worker.
  var onVanished: @Sendable () -> Void = {}

  init(_ kring: Kring, _ adapter: any NetmapAdapter, _ netisr: Netisr) {
    self.kring = kring
    self.adapter = adapter
    worker = adapter.worker(of: kring.id) ?? netisr.worker(0)
    kick = KickMessage { [weak self] in self?.runIfLive() }
  }

  /// Something is to be done. Any thread.
  func prompt() { if let kick { worker.send(kick) } }

  func begin() {
    listener = kring.wakeup.listen { [weak self] in self?.prompt() }
    prompt()
  }

  /// On worker 0. A run that is under way ends by itself; whoever waits for the worker after this knows that there is none.
  func end() {
    ended.store(true, ordering: .sequentiallyConsistent)
    if let listener { kring.wakeup.stopListening(listener) }
    listener = nil
  }

  fileprivate func runIfLive() { if !ended.load(ordering: .acquiring) { run() } }
  fileprivate func run() {}

  /// - Returns: false when the card is gone. A ring that was reset goes on.
  fileprivate func synchronise() -> Bool {
    if adapter.synchronise(kring) || kring.isFaulted { return true }
    onVanished()
    return false
  }
}

/// From a card's receive ring, or the host's, into the switch.
final class ValeReceiveLink: ValeLink, @unchecked Sendable {
  private let vale: ValeSwitch
  private let station: ValeStation
  private let source: ValeSource
  private let netisr: Netisr
  /// Rings full that are moved before others on the worker have their turn.
  private static let rounds = 4

  init(_ kring: Kring, _ adapter: any NetmapAdapter, _ netisr: Netisr, region: NetmapRegion, _ vale: ValeSwitch, _ station: ValeStation) {
    self.vale = vale
    self.station = station
    self.netisr = netisr
    source = unsafe ValeSource(kring, base: region.allocator.bufferBase, takesIndirect: false)
    super.init(kring, adapter, netisr)
  }

  fileprivate override func run() { if move() == Self.rounds { prompt() } }

  /// Moves what has come. Returns how many rounds found something.
  private func move() -> Int {
    for round in 0..<Self.rounds {
      guard synchronise() else { return round }
      let from = kring.rhead, to = kring.rtail
      guard from != to else { return round }
      let now = UInt32(truncatingIfNeeded: netisr.clock.now() / 1_000_000_000)
      let next = vale.forward(source, from: from, to: to, ring: kring.id.number, station: station, now: now)
      source.firstBad = nil
      kring.ring.storeCur(next)
      kring.ring.storeHead(next)
      // The rest of a frame has to come first.
      if next == from { return round }
    }
    return Self.rounds
  }

  /// For pollers. Returns the frames moved, about.
  func poll() -> Int {
    let before = source.kring.counters.packets
    runIfLive()
    return Int(clamping: source.kring.counters.packets &- before)
  }
}

/// From the switch to a card's transmit ring, or the host's.
final class ValeTransmitLink: ValeLink, @unchecked Sendable {
  private(set) var queue: ValeQueue?

  init(_ kring: Kring, _ adapter: any NetmapAdapter, _ netisr: Netisr, region: NetmapRegion) {
    super.init(kring, adapter, netisr)
    queue = unsafe ValeQueue(kring, base: region.allocator.bufferBase, write: kring.rhead, limit: kring.rtail) { [weak self] in
      self?.prompt()
    }
  }

  fileprivate override func run() {
    guard let queue else { return }
    let to = queue.ready
    kring.ring.storeCur(to)
    kring.ring.storeHead(to)
    guard synchronise() else { return }
    if kring.rhead == to {
      queue.setLimit(kring.rtail)
    } else {
      kring.ring.storeCur(kring.rhead)
      kring.ring.storeHead(kring.rhead)
      queue.restart(at: kring.rhead, limit: kring.rtail)
    }
  }
}

/// A card that is attached. Worker 0's.
final class ValeCard: @unchecked Sendable {
  let adapter: any NetmapAdapter
  let vale: ValeSwitch
  let station: ValeStation
  /// The host rings' port.
  let host: ValeStation?
  let port: NetmapPort
  private let receivers: [ValeReceiveLink]
  private let transmitters: [ValeTransmitLink]
  /// Not empty while the card is polled.
  private var polling: [WorkerToken] = []

  /// - Parameter port: all of the card's rings, and with `host` those to the host.
  init(_ name: String, _ port: NetmapPort, host withHost: Bool, _ vale: ValeSwitch, _ netisr: Netisr) {
    let adapter = port.adapter, counts = adapter.counts, region = port.region
    self.adapter = adapter
    self.vale = vale
    self.port = port
    let station = ValeStation(name, queues: counts.transmit)
    let host = withHost ? ValeStation(name + "^", queues: counts.hostTransmit) : nil
    self.station = station
    self.host = host
    var receivers: [ValeReceiveLink] = [], transmitters: [ValeTransmitLink] = []
    for kring in port.krings {
      guard let owner = kring.id.isHost ? host : station else { continue }
      if kring.id.direction == .receive {
        receivers.append(ValeReceiveLink(kring, adapter, netisr, region: region, vale, owner))
      } else {
        let link = ValeTransmitLink(kring, adapter, netisr, region: region)
        transmitters.append(link)
        if owner.queues.indices.contains(kring.id.number) { owner.queues[kring.id.number] = link.queue }
      }
    }
    self.receivers = receivers
    self.transmitters = transmitters
  }

  var stations: [ValeStation] { [station] + (host.map { [$0] } ?? []) }
  private var links: [ValeLink] { receivers as [ValeLink] + transmitters }

  /// After the stations are the switch's.
  func begin(onVanished: @escaping @Sendable () -> Void) {
    for link in links {
      link.onVanished = onVanished
      link.begin()
    }
  }

  /// Gives everything back. The stations have left the switch.
  func end() {
    stopPolling()
    for link in links { link.end() }
    var waited: Set<Int> = []
    for link in links where waited.insert(link.worker.id).inserted { link.worker.perform {} }
    adapter.krings.takenBy = nil
    port.close()
  }

  // MARK: Polling

  var isPolled: Bool { !polling.isEmpty }

  /// Polls the receive rings `numbers`, on their workers.
  func startPolling(_ numbers: Range<Int>) {
    var byWorker: [Int: [ValeReceiveLink]] = [:]
    for link in receivers where !link.kring.id.isHost && numbers.contains(link.kring.id.number) {
      byWorker[link.worker.id, default: []].append(link)
    }
    polling = byWorker.values.map { links in links[0].worker.add(ValePoller(links)) }
  }

  func stopPolling() {
    for token in polling { token.cancel() }
    polling = []
  }
}

/// Looks at receive rings all the time: its worker does not sleep.
private final class ValePoller: WorkerPoller {
  private let links: [ValeReceiveLink]
  init(_ links: [ValeReceiveLink]) { self.links = links }
  func poll(budget: Int) -> Int { links.reduce(0) { $0 + $1.poll() } }
  func arm() -> Bool { true }
  func disarm() {}
  var eventDescriptor: Int32 { -1 }
}
