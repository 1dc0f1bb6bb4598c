// Monitors: ports that see what passes the rings of another port, which is in netmap mode.
//
//    parent's tx ring i ── tap ──┐
//                                ├──> monitor's rx ring i
//    parent's rx ring i ── tap ──┘
//
// A copying monitor (`/t`, `/r`) sees packets before they are consumed: sent ones when the program hands them over,
// received ones when they are shown to it. A zero-copy monitor (`/z`, both directions) takes the buffers afterwards: sent
// ones when the slots come back, received ones when the program has released them, and leaves its own empty ones. Packets
// that do not fit into the monitor's ring are dropped and counted; the parent never waits.
//
// Who runs where: a tap (`KringTap`) is called by whoever syncs the parent's ring, the monitor's sync by its own program.
// They meet under the monitor ring's lock. Worker 0 adds and removes taps, keeping syncs of the parent's ring out meanwhile.
// Monitors stand on their parent's `PortKrings.observers`: rings that are made later are tapped too, and when the parent's
// last program has closed, the monitor is dead: its syncs fail (POLLERR) until it is opened again.

public import NetmapAPI
public import NetmapCore
internal import Synchronization

/// A monitor of a port's rings.
public final class MonitorPort: NetmapAdapter, PortObserver, @unchecked Sendable {
  public let name: String
  public let krings: PortKrings
  public let counts: RingCounts
  let parent: any NetmapAdapter
  let directions: [RingDirection]
  let isZeroCopy: Bool
  private let slotCounts: (transmit: Int, receive: Int)
  private let dead = Atomic(false)
  // Worker 0's; a ring's own state has its lock.
  private var rings: [RingID: MonitorRing] = [:]
  private var isWatching = false

  init(_ request: PortRequest, parent: any NetmapAdapter, number: Int) throws(NetmapError) {
    let flags = request.selection.flags, isZeroCopy = flags.contains(.zeroCopyMonitor)
    self.isZeroCopy = isZeroCopy
    directions = [.transmit, .receive].filter { isZeroCopy || flags.contains($0 == .transmit ? .monitorTransmit : .monitorReceive) }
    self.parent = parent
    let letters = (isZeroCopy ? "z" : "") + (directions.contains(.receive) ? "r" : "") + (directions.contains(.transmit) ? "t" : "")
    name = "\(parent.name)/\(letters)#\(number)"
    krings = try PortKrings()
    let of = parent.counts, hosts = max(of.hostTransmit, of.hostReceive)
    counts = RingCounts(
      transmit: 1, receive: max(of.transmit, of.receive), hostTransmit: min(1, hosts), hostReceive: hosts)
    func slots(_ n: UInt32, _ direction: RingDirection) -> Int {
      min(max(2, n > 0 ? Int(n) : parent.slots(direction, host: false)), PipeProvider.mostSlots)
    }
    slotCounts = (slots(request.register.transmitSlots, .transmit), slots(request.register.receiveSlots, .receive))
  }

  public func slots(_ direction: RingDirection, host: Bool) -> Int { direction == .transmit ? slotCounts.transmit : slotCounts.receive }

  // MARK: Control, on worker 0

  /// Whoever copies has memory of its own: its program sees the packets, and not the parent's memory.
  public func defaultRegion(_ memory: NetmapMemory) throws(NetmapError) -> NetmapRegion {
    if isZeroCopy, let region = parent.krings.region { return region }
    let sizes = try memory.options.privateSizes.holding(counts, transmitSlots: slotCounts.transmit, receiveSlots: slotCounts.receive)
    return try memory.makePrivate(sizes, name: name)
  }

  public func prepare(_ region: NetmapRegion) throws(NetmapError) {
    if isZeroCopy, parent.krings.region !== region {
      throw NetmapError(.EINVAL, "\(name): a zero-copy monitor is in the memory of the port that it monitors")
    }
  }

  public func admit(_ selection: RingSelection) throws(NetmapError) {
    guard parent.krings.openPorts > 0, !dead.load(ordering: .relaxed) else {
      throw NetmapError(.EINVAL, "\(parent.name) is not in netmap mode: nobody has it open, and there is nothing to monitor")
    }
  }

  public func activate(_ made: [PortRing]) throws(NetmapError) {
    guard let base = unsafe krings.region?.allocator.bufferBase else { return }
    for ring in made where ring.id.direction == .receive {
      let receiver = unsafe MonitorRing(ring.kring, bufferBase: base) { [weak self] in self?.wake($0) }
      rings[ring.id] = receiver
      for source in parent.krings.rings { attach(receiver, to: source.kring) }
    }
    if !isWatching {
      isWatching = true
      parent.krings.observers.append(self)
    }
  }

  public func deactivate(_ unused: [PortRing]) -> RingRemains {
    var remains = RingRemains()
    for ring in unused {
      guard let receiver = rings.removeValue(forKey: ring.id) else {
        remains.program += RingRemains.slots(of: ring.kring)
        continue
      }
      for source in parent.krings.rings { change(source.kring) { $0.filter { $0.ring !== receiver } } }
      remains.program += receiver.dissolve()
    }
    return remains
  }

  public func idle() {
    parent.krings.observers.removeAll { $0 === self }
    isWatching = false
  }

  /// Rings of the parent that somebody is about to hold.
  func made(_ made: [PortRing]) {
    for receiver in rings.values {
      for source in made { attach(receiver, to: source.kring) }
    }
  }

  /// The parent has left netmap mode.
  func closed() {
    isWatching = false
    dead.store(true, ordering: .releasing)
    for receiver in rings.values { wake(receiver.kring) }
  }

  private func attach(_ receiver: MonitorRing, to kring: Kring) {
    guard kring.id.number == receiver.kring.id.number, kring.id.isHost == receiver.kring.id.isHost,
      directions.contains(kring.id.direction)
    else { return }
    change(kring) { $0 + [MonitorTap.Taker(ring: receiver, takesBuffers: isZeroCopy)] }
  }

  /// Changes who taps a ring, with its syncs kept out.
  private func change(_ kring: Kring, _ body: ([MonitorTap.Taker]) -> [MonitorTap.Taker]) {
    guard let base = unsafe parent.krings.region?.allocator.bufferBase else { return }
    kring.beginWaiting()
    defer { kring.end() }
    let takers = body((kring.tap as? MonitorTap)?.takers ?? [])
    kring.tap = takers.isEmpty ? nil : unsafe MonitorTap(takers, bufferBase: base, returnsSent: parent.returnsSentBuffers)
  }

  // MARK: Data

  /// A monitor's transmit ring takes nothing: whoever puts something in gets an error.
  public func synchronise(_ kring: Kring) -> Bool {
    guard !dead.load(ordering: .acquiring) else { return false }
    return synchroniseChecked(kring) && (kring.id.direction == .receive || kring.unsent == 0)
  }

  public func sync(_ kring: Kring, released: (from: UInt32, to: UInt32)) {
    if kring.id.direction == .receive { (kring.reader as? MonitorRing)?.receive(released) }
  }
}

/// Makes a monitor for every request with one of a monitor's flags.
public final class MonitorProvider: NetmapPortProvider {
  private let made = Atomic(0)
  public init() {}

  /// - Throws: EINVAL when the port that is to be monitored is not in netmap mode, and what looking it up throws.
  public func adapter(
    for request: PortRequest, in system: NetmapSystem, create: Bool
  ) throws(NetmapError) -> (any NetmapAdapter)? {
    let monitors: RegisterFlags = [.monitorTransmit, .monitorReceive, .zeroCopyMonitor], flags = request.selection.flags
    guard !flags.isDisjoint(with: monitors) else { return nil }
    var asked = request
    asked.selection.flags = flags.subtracting(monitors)
    let parent = try system.adapter(for: asked, create: create)
    guard parent.krings.openPorts > 0 else {
      throw NetmapError(.EINVAL, "\(parent.name) is not in netmap mode: nobody has it open, and there is nothing to monitor")
    }
    return try MonitorPort(request, parent: parent, number: made.wrappingAdd(1, ordering: .relaxed).oldValue)
  }
}
