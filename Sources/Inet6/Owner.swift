// What worker 0 owns: interfaces, addresses, neighbours, routers, groups, and their timers.

internal import Ether
internal import Ifnet
internal import Netisr
internal import Packet
internal import Wire

/// Random numbers that repeat when the seed does (SplitMix64).
struct SplitMix: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
    return z ^ z >> 31
  }
}

/// Touched on worker 0 alone.
final class OwnerState {
  var random: SplitMix
  var links: [UInt32: Link6] = [:]
  var neighbours: [NeighbourKey: Neighbour] = [:]
  var isStopped = false
  var housekeeping: WorkerToken?
  var groups: WorkerToken?

  init(seed: UInt64) { random = SplitMix(state: seed) }
}

/// What IPv6 knows of an interface.
final class Link6 {
  let interface: Interface
  let index: InterfaceIndex
  var isUp = false
  var isDisabled = false
  /// From a router; nil: the interface's own.
  var advertisedMTU: Int?
  var hopLimit: UInt8
  /// Milliseconds (RFC 4861, section 10).
  var baseReachable: UInt64 = 30_000
  var retransmit: UInt64 = 1000
  var addresses: [AddressRecord] = []
  var groups: [IPv6Address: Group6] = [:]
  var routers: [DefaultRouter] = []
  var prefixes: [OnLinkPrefix] = []
  var solicitations = 0
  var solicitationTimer: WorkerToken?
  var advertisementTimer: WorkerToken?
  /// Until when the link's querier speaks version 1 of MLD.
  var version1Until: UInt64 = 0
  var generalQueryTimer: WorkerToken?
  /// The default route through this link, as it was installed.
  var defaultRouter: IPv6Address?

  init(_ interface: Interface, hopLimit: Int) {
    self.interface = interface
    index = interface.index
    self.hopLimit = UInt8(clamping: hopLimit)
  }

  var isEthernet: Bool {
    switch interface.type {
    case .ethernet, .vlan, .lag, .bridge: true
    default: false
    }
  }
  var isLoopback: Bool { interface.type == .loopback || interface.flags.contains(.loopback) }
  var mtu: Int { max(IPv6Header.minimumMTU, min(interface.mtu, advertisedMTU ?? .max)) }
  /// A link-local address that may be used.
  var linkLocal: IPv6Address? { addresses.first { $0.state == .ready && $0.address.isLinkLocal }?.address }
}

extension Inet6 {
  /// Runs `body` on worker 0 after `milliseconds`.
  func after(_ milliseconds: UInt64, every: UInt64 = 0, _ body: @escaping @Sendable (Inet6) -> Void) -> WorkerToken {
    netisr.worker(0).schedule(after: milliseconds &* 1_000_000, every: every &* 1_000_000) { [weak self] in
      guard let self, !owner.isStopped else { return }
      body(self)
    }
  }

  /// Up to `milliseconds`, at random.
  func jitter(_ milliseconds: UInt64) -> UInt64 { milliseconds == 0 ? 0 : UInt64.random(in: 0...milliseconds, using: &owner.random) }

  var worker0: WorkerPointer { unsafe workers }
  var counters0: CounterBlock { unsafe workers.pointee.counters }

  /// Gives every worker an interface as it is now.
  func publishSlot(_ link: Link6) {
    var slot = InterfaceSlot()
    slot.bits = InterfaceSlot.present
    if link.isUp { slot.bits |= InterfaceSlot.up }
    if link.isEthernet { slot.bits |= InterfaceSlot.ethernet }
    if link.isDisabled { slot.bits |= InterfaceSlot.disabled }
    if link.isLoopback { slot.bits |= InterfaceSlot.loopback }
    slot.generation = link.index.generation
    slot.mtu = UInt32(clamping: link.mtu)
    slot.hopLimit = link.hopLimit
    unsafe slot.interface = Unmanaged.passUnretained(link.interface)
    let (index, value) = (link.index, slot)
    // The closure holds the interface until it has run.
    let interface = link.interface
    unsafe publish { worker in
      unsafe worker.pointee.setSlot(index, value)
      _ = interface
    }
  }

  /// Sends an ICMPv6 message on a link, whatever routes say: neighbour discovery's and MLD's way.
  /// - Parameters:
  ///   - message: its checksum is zero.
  ///   - alert: with a hop-by-hop header and a router alert, hop limit 1, as MLD wants it.
  func sendOnLink(
    _ message: [UInt8], from source: IPv6Address, to destination: IPv6Address, on link: Link6, alert: Bool = false,
    nextHop: IPv6Address? = nil
  ) {
    let extra = alert ? MLDBuilder.routerAlert : []
    let size = IPv6Header.size + extra.count + message.count
    guard unsafe worker0.pointee.slot(link.index).isUsable else { return }
    guard let packet = unsafe allocate(worker0), packet.extend(size) else { return counters0.add(.outDropped) }
    let bytes = packet.v6
    IPv6Header.write(
      bytes, payload: extra.count + message.count, next: alert ? IPv6Next.hopByHop : IPv6Next.icmp, hopLimit: alert ? 1 : 255,
      source: source, destination: destination)
    let body = IPv6Header.size + extra.count
    for (i, byte) in (extra + message).enumerated() { bytes.set8(byte, IPv6Header.size + i) }
    let sum = IPv6Header.pseudoSum(source: source, destination: destination, length: message.count, next: IPv6Next.icmp)
    bytes.set16(~InternetChecksum.fold(sum &+ bytes.sum(from: body, message.count)), body + ICMPv6.checksum)
    counters0.add(.localOut)
    unsafe emit(packet, to: nextHop ?? destination, on: link.index, worker0.pointee.slot(link.index), worker0)
  }

  /// Gives back what waits, and ends all timers: before the packets' memory goes.
  public func stop() {
    onOwner { inet6 in
      inet6.owner.isStopped = true
      inet6.owner.housekeeping?.cancel()
      inet6.owner.groups?.cancel()
      for neighbour in inet6.owner.neighbours.values {
        neighbour.timer?.cancel()
        inet6.dropHeld(neighbour, .interfaceGone)
      }
    }
    for id in 0..<workerCount {
      netisr.worker(id).perform { [self] in
        unsafe purgeFragments(of: nil, workers + id)
        unsafe workers[id].reassembly.timer?.cancel()
      }
    }
  }

  /// Once a second: lifetimes of addresses, prefixes and routers.
  func startHousekeeping() {
    owner.housekeeping = after(1000, every: 1000) { inet6 in
      let now = inet6.netisr.clock.now()
      for link in inet6.owner.links.values { inet6.expire(link, now) }
    }
  }
}
