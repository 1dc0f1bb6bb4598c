// Changing over: rings go over to a program and come back, while traffic runs.
//
//   activate     per queue, on its owner: driver's pool replaced, tenant in ─> program
//   deactivate   per queue, on its owner: pending sent or counted, unshown frames up the stack, the
//                stack's pool back ─> rings freed ─> buffers freed once the card sends none of them
//
// Worker 0 leads and asks the owners, one after the other.

public import NetmapAPI
public import NetmapCore
public import NetmapPorts
internal import Netisr
internal import Packet

extension NetmapCard {
  /// Opens the card for a program of this process, without a `NetmapSystem`: from worker 0 or from a thread that is no
  /// worker.
  public func open(_ selection: RingSelection) throws(NetmapError) -> NetmapPort {
    let system = NetmapSystem(netisr, memory: memory, settings: settings.rings), name = name
    return try system.onControl { [self] () throws(NetmapError) in try system.open(self, PortRequest(name, selection)) }
  }

  public func admit(_ selection: RingSelection) throws(NetmapError) {
    if isGone { throw NetmapError(.ENXIO, "\(name) is gone") }
  }

  /// Hands fresh rings to their queues.
  public func activate(_ rings: [PortRing]) throws(NetmapError) {
    guard let allocator = krings.region?.allocator else {
      throw NetmapError(.EINVAL, "\(name): rings are made in a region, and there is none")
    }
    if rings.contains(where: { !$0.id.isHost }) { try map(allocator) }
    var made: [RingID: PortRing] = [:]
    for ring in rings { made[ring.id] = ring }
    for number in 0..<max(queues.count, hosts.count) {
      let sent = made[RingID(.transmit, number)], received = made[RingID(.receive, number)]
      if sent != nil || received != nil {
        let (kring, slots) = (sent?.kring, received?.slots), queue = queues[number]
        do throws(NetmapError) {
          try workers[number].perform {
            Result { () throws(NetmapError) in try queue.install(transmit: kring, receive: slots, in: allocator) }
          }.get()
        } catch {
          // What is in already comes out again; nothing has been sent or shown yet.
          _ = deactivate(rings.filter { $0.id.number < number })
          throw error
        }
      }
      if let kring = made[RingID(.transmit, number, isHost: true)]?.kring {
        let pair = hosts[number]
        owner(of: kring.id).perform { pair.begin(transmit: kring, in: allocator) }
      }
      if let slots = made[RingID(.receive, number, isHost: true)]?.slots { hosts[number].begin(receive: slots, in: allocator) }
    }
  }

  /// Takes rings out of their queues.
  public func deactivate(_ rings: [PortRing]) -> RingRemains {
    var remains = RingRemains()
    if isGone {
      for ring in rings { collect(left: ring, &remains) }
      return remains
    }
    var wanted: [RingID: PortRing] = [:]
    for ring in rings { wanted[ring.id] = ring }
    for number in 0..<max(queues.count, hosts.count) {
      let sent = wanted[RingID(.transmit, number)] != nil, received = wanted[RingID(.receive, number)] != nil
      if sent || received {
        let queue = queues[number]
        let left = workers[number].perform { queue.uninstall(transmit: sent, receive: received) }
        remains.port += left.port
        remains.program += left.program
        remains.stillBusy += left.stillBusy
      }
      removeHostRings(number, wanted, &remains)
    }
    return remains
  }

  private func removeHostRings(_ number: Int, _ wanted: [RingID: PortRing], _ remains: inout RingRemains) {
    if wanted[RingID(.receive, number, isHost: true)] != nil, let slots = hosts[number].endReceive() {
      let unshown = slots.takeUnshown().count
      if unshown > 0 { count(UInt64(unshown), .modeChange, queue: number % queues.count) }
      let buffers = slots.dissolve()
      remains.port += buffers.port
      remains.program += buffers.program
    }
    if let kring = wanted[RingID(.transmit, number, isHost: true)]?.kring {
      let pair = hosts[number]
      owner(of: kring.id).perform { pair.endTransmit() }
      remains.program += RingRemains.slots(of: kring)
    }
  }

  /// What a ring of a card that has gone holds.
  private func collect(left ring: PortRing, _ remains: inout RingRemains) {
    guard let buffers = ring.slots?.dissolve() else {
      remains.program += RingRemains.slots(of: ring.kring)
      return
    }
    remains.port += buffers.port
    remains.program += buffers.program
  }

  /// The card has gone, or leaves the stack; on worker 0, after its driver was stopped. Programs that
  /// wait wake with an error. Their rings and buffers stay until they close.
  public func leave() {
    guard !isGone else { return }
    for number in queues.indices {
      let queue = queues[number]
      workers[number].perform { queue.leave() }
    }
    for ring in krings.rings where ring.id.isHost {
      let pair = hosts[ring.id.number]
      if ring.id.direction == .receive { _ = pair.endReceive() } else { owner(of: ring.id).perform { pair.endTransmit() } }
    }
    markGone()
    absorb()
    // The driver is stopped: the card uses nothing any more, and its function is about to be closed.
    unmap()
    for ring in krings.rings { wake(ring.kring) }
  }
}
