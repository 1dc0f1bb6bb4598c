// Inet6: IPv6: neighbour discovery, duplicate address detection, router solicitation, MLD, ICMPv6, fragments, forwarding.
//
//     Ethernet ─> netisr IPV6 ─> checks ─┬─ own ─> extension headers ─┬─ fragment ─> reassembly ─> netisr IPV6_DIRECT
//                                        │                            └─ ICMPv6, upper protocols by their number
//                                        └─ others' ─> forward ─> route ─> neighbour ─> Ethernet
//     local output ─> source, route, path MTU, fragments ─────────────────────┘
//
//     worker 0 owns what changes: neighbours, addresses, routers, groups, their timers.   ── messages ──>
//     every worker has its copy: interfaces, own addresses, link addresses of neighbours.
//
// Invariants
// - The packet path of a worker reads its own copies alone; nothing is locked, counted or allocated a packet.
// - A worker that misses a neighbour gives the packet to worker 0, which holds it, asks, and sends it or drops it.
// - A neighbour that is in doubt carries a mark in the copies; the first worker that uses it tells worker 0 once.
// - received = delivered + forwarded + absorbed fragments + input drops, whenever nothing waits.

internal import CRingway
public import Ether
public import Ifnet
public import Netisr
public import Packet
internal import Platform
public import Routes
internal import Synchronization
public import Wire

/// IPv6 over one stack's interfaces and routes.
@safe public final class Inet6: ProtocolDomain, @unchecked Sendable {
  public let ether: EtherLayer
  public let table: InterfaceTable
  public let routes: RouteTable
  public let netisr: Netisr
  public let configuration: Inet6Configuration
  public var family: AddressFamily { .ipv6 }
  // The packet path's way to the two, without counting references; `ether` and `routes` keep them alive.
  let fastEther: Unmanaged<EtherLayer>
  let fastRoutes: Unmanaged<RouteTable>
  let workers: UnsafeMutablePointer<Inet6Worker>
  let workerCount: Int
  /// What worker 0 owns.
  let owner: OwnerState
  let errorWindow = RateWindow()
  /// Packets that are on their way to worker 0.
  let inFlight = Atomic<Int>(0)
  let paths = PathMTUCache()
  private let current: Guarded<Inet6Settings>
  private let upper = Guarded(UpperTable())
  private let observer = Guarded<(@Sendable (Inet6Event) -> Void)?>(nil)

  /// Registers with netisr, the link layer and the interfaces. Worker 0 must run (or be run by hand) for addresses
  /// to be configured.
  /// - Throws: when netisr has a handler for IPv6 already.
  public init(ether: EtherLayer, routes: RouteTable, configuration: Inet6Configuration = Inet6Configuration()) throws(NetisrError) {
    self.ether = ether
    self.routes = routes
    unsafe fastEther = Unmanaged.passUnretained(ether)
    unsafe fastRoutes = Unmanaged.passUnretained(routes)
    self.configuration = configuration
    table = ether.table
    netisr = ether.netisr
    workerCount = ether.netisr.workers.count
    current = Guarded(configuration.settings)
    let seed = configuration.seed ?? UInt64.random(in: .min ... .max)
    owner = OwnerState(seed: seed)
    unsafe workers = .allocate(capacity: workerCount)
    for id in 0..<workerCount {
      unsafe (workers + id).initialize(to: Inet6Worker(id: id, token: netisr.worker(id).token, seed: seed &+ UInt64(id), upper: UpperTable()))
      unsafe workers[id].settings = configuration.settings
    }
    try registerHandlers()
    addSysctls()
    ether.register(type: Ethernet.typeIPv6, proto: .ipv6)
    ether.setResolver(.ipv6) { [unowned self] packet, nextHop, interface in resolve(packet, nextHop, interface) }
    table.register(self)
    let token = followGroups()
    onOwner {
      $0.owner.groups = token
      $0.startHousekeeping()
    }
  }

  deinit {
    unsafe workers.deinitialize(count: workerCount)
    unsafe workers.deallocate()
  }

  private func registerHandlers() throws(NetisrError) {
    var handler = NetisrHandler(name: "ip6", proto: .ipv6, policy: .flow, queueLimit: 1024, workersOnly: true) { [unowned self] packet in
      input(packet)
    }
    handler.m2flow = { packet, _ in
      setFlow(of: packet)
      return true
    }
    try netisr.register(handler)
    try netisr.register(
      NetisrHandler(name: "ip6_direct", proto: .ipv6Direct, policy: .flow, queueLimit: 1024, workersOnly: true) { [unowned self] packet in
        inputReassembled(packet)
      })
  }

  // MARK: Where state lives

  /// The calling worker's half; nil on a thread that is no worker of this dispatcher.
  @inline(__always) var here: WorkerPointer? {
    let id = Int(rw_thread_worker_id())
    guard id < workerCount, unsafe workers[id].token == rw_thread_token() else { return nil }
    return unsafe workers + id
  }

  /// Runs `body` on worker 0 and waits; inline when the caller is it.
  func onOwner<T: Sendable>(_ body: @escaping @Sendable (Inet6) -> T) -> T {
    netisr.worker(0).perform { [self] in body(self) }
  }

  /// Changes every worker's copy: here at once, elsewhere by message. On worker 0.
  func publish(_ change: @escaping @Sendable (WorkerPointer) -> Void) {
    for id in 0..<workerCount {
      let worker = netisr.worker(id)
      if worker.isCurrent {
        unsafe change(workers + id)
      } else {
        worker.post { [self] in unsafe change(workers + id) }
      }
    }
  }

  // MARK: Settings

  public var settings: Inet6Settings { current.withLock { $0 } }

  /// Changes settings, on every worker; joins and leaves what a router joins.
  public func set(_ change: @Sendable (inout Inet6Settings) -> Void) {
    let (old, new) = current.withLock { settings -> (Inet6Settings, Inet6Settings) in
      let old = settings
      change(&settings)
      return (old, settings)
    }
    onOwner { inet6 in
      unsafe inet6.publish { unsafe $0.pointee.settings = new }
      if old != new { inet6.settingsChanged(from: old, to: new) }
    }
  }

  // MARK: Upper protocols

  /// Takes packets of an upper protocol. The packet still has its IPv6 header; `offset` is where the upper header starts.
  public typealias UpperHandler = @Sendable (_ packet: consuming Packet, _ offset: Int) -> Void

  /// Registers a protocol by its next-header number; ICMPv6 is built in. nil takes it away.
  public func register(next: UInt8, _ handler: UpperHandler?) {
    let table = upper.withLock { table -> UpperTable in
      table.handlers[Int(next)] = handler
      return table
    }
    onOwner { inet6 in unsafe inet6.publish { unsafe $0.pointee.upper = table } }
  }

  /// Called on worker 0 when an address has been proven or found to be somebody else's; nil: nobody is.
  public func onEvent(_ body: (@Sendable (Inet6Event) -> Void)?) { observer.withLock { $0 = body } }
  func announce(_ event: Inet6Event) { observer.withLock { $0 }?(event) }

  // MARK: Statistics

  /// A counter, summed over workers.
  public subscript(counter: Inet6Counter) -> UInt64 {
    (0..<workerCount).reduce(0) { unsafe $0 &+ workers[$1].counters[counter] }
  }

  /// All counters, in the order of `netstat -s`.
  public var statistics: [(counter: Inet6Counter, value: UInt64)] { Inet6Counter.allCases.map { ($0, self[$0]) } }
}

/// What has become of an address (RFC 4862, section 5.4).
public enum Inet6Event: Equatable, Sendable {
  /// Nobody else has it: it is in use.
  case ready(IPv6Address, interface: InterfaceIndex)
  /// Somebody else has it: it stays unused.
  case duplicated(IPv6Address, interface: InterfaceIndex)
}

/// Upper protocols by their number.
struct UpperTable: Sendable {
  var handlers: [Inet6.UpperHandler?] = Array(repeating: nil, count: 256)
}

/// Puts a flow number into a packet: the same for all packets, and all fragments, between two addresses.
@inline(__always) func setFlow(of packet: borrowing Packet) {
  let bytes = packet.v6
  guard bytes.count >= IPv6Header.size else { return }
  packet.hash = mix(bytes.get64(8) ^ bytes.get64(24), bytes.get64(16) ^ bytes.get64(32))
  packet.flags.insert(.hashed)
}

@inline(__always) func mix(_ a: UInt64, _ b: UInt64) -> UInt32 {
  var hash = a &* 0x9e37_79b9_7f4a_7c15
  hash = (hash ^ hash >> 31 ^ b) &* 0xbf58_476d_1ce4_e5b9
  return UInt32(truncatingIfNeeded: hash >> 32)
}
