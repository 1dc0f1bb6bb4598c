// Neighbours and their reachability (RFC 4861, section 7.3). On worker 0, but for the first functions.

internal import Ether
internal import Ifnet
internal import Netisr
public import Packet
internal import Synchronization
public import Wire

/// Where a neighbour's reachability stands (RFC 4861, section 7.3.2); `permanent` was set by hand.
public enum NeighbourState: UInt8, Sendable, CustomStringConvertible {
  case incomplete, reachable, stale, delay, probe, permanent
  /// FreeBSD's letter in `ndp -a`.
  public var description: String { ["N", "R", "S", "D", "P", "P"][Int(rawValue)] }
}

/// A neighbour, for people.
public struct NeighbourInfo: Sendable, Equatable {
  public var address: IPv6Address
  public var interface: InterfaceIndex
  public var mac: MACAddress?
  public var state: NeighbourState
  public var isRouter: Bool
  /// Seconds until the state ends; nil: it does not.
  public var expires: UInt64?
  /// Packets that wait.
  public var held: Int
}

struct NeighbourKey: Hashable, Sendable {
  var address: IPv6Address
  var link: UInt32
}

final class Neighbour {
  struct Held {
    var record: UInt
    var isForwarded: Bool
  }
  let key: NeighbourKey
  var state = NeighbourState.incomplete
  var mac: MACAddress?
  var isRouter = false
  var probes = 0
  var timer: WorkerToken?
  var deadline: UInt64 = 0
  var held: [Held] = []
  init(_ key: NeighbourKey) { self.key = key }
}

extension Inet6 {
  // MARK: Workers' side

  /// A packet whose next hop is not known here: worker 0 sees to it.
  @inline(never) func hold(_ packet: consuming Packet, for nextHop: IPv6Address, on link: InterfaceIndex, _ worker: WorkerPointer, forwarded: Bool) {
    let key = NeighbourKey(address: nextHop, link: link.word)
    let worker0 = netisr.worker(0)
    if worker0.isCurrent { return held(packet, key, forwarded) }
    guard inFlight.load(ordering: .relaxed) < 512 else {
      return unsafe dropOutput(packet, .neighbourQueueFull, link, worker.pointee.counters)
    }
    inFlight.add(1, ordering: .relaxed)
    let record = unsafe UInt(bitPattern: packet.intoRaw())
    worker0.post { [self] in
      inFlight.subtract(1, ordering: .relaxed)
      // SAFETY: the message owned the packet.
      if let raw = unsafe RawPacket(bitPattern: record) { unsafe held(Packet(unsafe: raw), key, forwarded) }
    }
  }

  /// A neighbour in doubt was used.
  @inline(never) func tellUse(of address: IPv6Address, _ link: InterfaceIndex) {
    let key = NeighbourKey(address: address, link: link.word)
    let worker0 = netisr.worker(0)
    if worker0.isCurrent {
      used(key)
    } else {
      worker0.post { [self] in used(key) }
    }
  }

  /// The link layer's question (its resolver): a packet of IPv6 towards a next hop.
  func resolve(_ packet: consuming Packet, _ nextHop: SocketAddress, _ interface: Interface) {
    guard let worker = unsafe here, case .ipv6(let address) = nextHop else {
      return netisr.drops.drop(packet, .neighbourUnresolved, interface: interface.index, proto: NetisrProtocol.ipv6.rawValue)
    }
    unsafe emit(packet, to: address, on: interface.index, worker.pointee.slot(interface.index), worker)
  }

  // MARK: Worker 0: packets

  func held(_ packet: consuming Packet, _ key: NeighbourKey, _ isForwarded: Bool) {
    let index = InterfaceIndex(word: key.link)
    guard let link = owner.links[key.link], link.isUp, !link.isDisabled, !owner.isStopped else {
      return dropOutput(packet, .interfaceDown, index, counters0)
    }
    if let known = owner.neighbours[key], known.mac != nil {
      // The worker's copy was behind.
      publish(known)
      return unsafe emit(packet, to: key.address, on: index, worker0.pointee.slot(index), worker0)
    }
    guard let neighbour = owner.neighbours[key] ?? make(key) else {
      return dropOutput(packet, .neighbourQueueFull, index, counters0)
    }
    let isNew = neighbour.timer == nil
    if neighbour.held.count >= max(1, settings.neighbourQueue) {
      drop(neighbour.held.removeFirst(), .neighbourQueueFull, index)
    }
    neighbour.held.append(Neighbour.Held(record: unsafe UInt(bitPattern: packet.intoRaw()), isForwarded: isForwarded))
    if isNew { solicit(neighbour, link) }
  }

  private func drop(_ held: Neighbour.Held, _ reason: DropReason, _ index: InterfaceIndex) {
    // SAFETY: the entry owned the packet and is gone.
    if let raw = unsafe RawPacket(bitPattern: held.record) { unsafe dropOutput(Packet(unsafe: raw), reason, index, counters0) }
  }

  func dropHeld(_ neighbour: Neighbour, _ reason: DropReason) {
    let all = neighbour.held
    neighbour.held = []
    for held in all { drop(held, reason, InterfaceIndex(word: neighbour.key.link)) }
  }

  /// A new entry; the oldest one without packets makes room. nil: none can go.
  func make(_ key: NeighbourKey) -> Neighbour? {
    if owner.neighbours.count >= max(1, settings.neighbourLimit) {
      counters0.add(.overflowNeighbours)
      let old = owner.neighbours.values.lazy.filter { $0.state == .stale && !$0.isRouter }.min { $0.deadline < $1.deadline }
      guard let old else { return nil }
      forget(old, .neighbourUnresolved)
    }
    let made = Neighbour(key)
    owner.neighbours[key] = made
    return made
  }

  /// Takes an entry away, everywhere.
  func forget(_ neighbour: Neighbour, _ reason: DropReason) {
    neighbour.timer?.cancel()
    let key = neighbour.key
    owner.neighbours[key] = nil
    unsafe publish { unsafe $0.pointee.neighbours.remove(key.address, key.link) }
    dropHeld(neighbour, reason)
  }

  /// Gives every worker the entry's link address.
  func publish(_ neighbour: Neighbour) {
    guard let mac = neighbour.mac else { return }
    let key = neighbour.key
    let copy = NeighbourCopy(mac: mac.rawValue, tellsOwner: neighbour.state == .stale)
    unsafe publish { unsafe $0.pointee.neighbours.set(key.address, key.link, copy) }
  }

  // MARK: Worker 0: states

  func enter(_ state: NeighbourState, _ neighbour: Neighbour) {
    neighbour.timer?.cancel()
    neighbour.timer = nil
    neighbour.state = state
    guard let link = owner.links[neighbour.key.link] else { return }
    let wait: UInt64
    switch state {
    case .incomplete, .probe: wait = link.retransmit
    // Between half and one and a half of the base, so that neighbours do not ask in step (RFC 4861, section 6.3.2).
    case .reachable: wait = link.baseReachable / 2 + jitter(link.baseReachable)
    case .delay: wait = 5000
    case .stale: wait = 86_400_000
    case .permanent:
      neighbour.deadline = .max
      return publish(neighbour)
    }
    if state != .probe, state != .incomplete { neighbour.probes = 0 }
    neighbour.deadline = netisr.clock.now() &+ wait &* 1_000_000
    let key = neighbour.key
    neighbour.timer = after(wait) { $0.timeOut(key) }
    publish(neighbour)
  }

  func used(_ key: NeighbourKey) {
    guard let neighbour = owner.neighbours[key], neighbour.state == .stale else { return }
    enter(.delay, neighbour)
  }

  private func timeOut(_ key: NeighbourKey) {
    guard let neighbour = owner.neighbours[key], let link = owner.links[key.link] else { return }
    switch neighbour.state {
    case .incomplete, .probe:
      if neighbour.probes < 3 { return solicit(neighbour, link) }
      unreachable(neighbour, link)
    case .reachable: enter(.stale, neighbour)
    case .delay:
      neighbour.probes = 0
      neighbour.state = .probe
      solicit(neighbour, link)
    case .stale: forget(neighbour, .neighbourUnresolved)
    case .permanent: break
    }
  }

  /// Asks for the neighbour: everybody who may be it, or it alone (section 7.2.2).
  func solicit(_ neighbour: Neighbour, _ link: Link6) {
    neighbour.probes += 1
    let target = neighbour.key.address
    if let source = unsafe selectSource(for: target, on: link.index, worker0) {
      counters0.add(.solicitationOut)
      let message = NDBuilder.solicitation(target: target, source: link.interface.linkAddress)
      let isUnicast = neighbour.state == .probe
      sendOnLink(message, from: source, to: isUnicast ? target : target.solicitedNode, on: link)
    }
    enter(neighbour.state, neighbour)
  }

  /// Nobody answered: senders hear of it (section 7.2.2), a router loses its place.
  private func unreachable(_ neighbour: Neighbour, _ link: Link6) {
    let held = neighbour.held
    neighbour.held = []
    let wasRouter = neighbour.isRouter
    forget(neighbour, .neighbourUnresolved)
    for one in held {
      guard let raw = unsafe RawPacket(bitPattern: one.record) else { continue }
      // SAFETY: the entry owned the packet and is gone.
      let packet = unsafe Packet(unsafe: raw)
      if one.isForwarded { unsafe sendError(.unreachable(.address), about: packet, worker0) }
      dropOutput(packet, .neighbourUnresolved, link.index, counters0)
    }
    if wasRouter { chooseRouter(link) }
  }

  /// Sends what waited.
  func flush(_ neighbour: Neighbour) {
    let held = neighbour.held
    neighbour.held = []
    let index = InterfaceIndex(word: neighbour.key.link)
    for one in held {
      guard let raw = unsafe RawPacket(bitPattern: one.record) else { continue }
      // SAFETY: the entry owned the packet.
      unsafe emit(Packet(unsafe: raw), to: neighbour.key.address, on: index, worker0.pointee.slot(index), worker0)
    }
  }
}
