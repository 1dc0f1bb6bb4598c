// Inet: IPv4 and its neighbours: ARP, ICMP, IGMP, fragments, forwarding.
//
//     netisr IP ─> input: checks ─┬─ ours ──────────> fragments together ─> ICMP, IGMP, whoever registered
//                                 └─ not ours ─> forward: route ─> time to live ─> output
//     output ─> route ─> fragments ─> next hop ─> ARP's table of this worker ─> Ethernet
//     netisr ARP ─> replies here ─> what was learnt ─> worker 0, which owns the cache ─> every worker's table
//
// Invariants
// - A worker reads only its own tables (neighbours, fragments, limits) and tables that never change (`LocalTable`).
//   What worker 0 owns (the ARP cache's states and timers) changes by message to it.
// - Every packet that comes in is delivered, forwarded, held, or dropped with a reason.
// - Nothing is believed that a packet says of its own length.

internal import CRingway
public import Ether
public import Ifnet
public import Netisr
public import Packet
internal import Platform
public import Routes
internal import Synchronization
public import Wire

/// A worker's own part.
@safe struct InetWorker {
  let id: Int
  let counters: CounterBlock
  var neighbours = NeighbourTable()
  var held: [UInt64: [UInt]] = [:]
  var fragments = FragmentTable()
  var limiter = ICMPLimiter()
  var identification: UInt16
  var pathMTUs: [IPv4Address: (mtu: Int, expires: UInt64)] = [:]
}

/// IPv4 over the interfaces of a table.
@safe public final class Inet: @unchecked Sendable {
  public let ether: EtherLayer
  public let routes: RouteTable
  public let netisr: Netisr
  public let table: InterfaceTable
  let settings = InetSettings()
  let counters: InetCounters
  /// Worker i's part; touched by worker i alone.
  let workers: UnsafeMutablePointer<InetWorker>
  let workerCount: Int
  private let tokens: [UInt32]
  /// What `State.local` owns.
  let published: Atomic<UnsafeRawPointer>
  let state: Guarded<State>
  let arp = ARPOwner()
  let igmp = IGMPOwner()

  struct State {
    var addresses: [InterfaceIndex: [InetAddress]] = [:]
    var groups: [InterfaceIndex: [IPv4Address]] = [:]
    var local: LocalTable
    var upper: [UInt8: UpperHandler] = [:]
    var onEvent: (@Sendable (InetEvent) -> Void)?
    var tokens: [WorkerToken] = []
  }

  /// A protocol above IPv4: the packet begins with its IPv4 header, in one buffer as far as the header goes. It must
  /// end in `deliver` or in a drop.
  public typealias UpperHandler = @Sendable (_ packet: consuming Packet, _ headerLength: Int) -> Void

  /// Registers IP, IP_DIRECT, ARP and IGMP at the dispatcher, and IPv4 as a family of addresses.
  /// - Throws: when one of them is registered already.
  public init(ether: EtherLayer, routes: RouteTable) throws(NetisrError) {
    self.ether = ether
    self.routes = routes
    netisr = ether.netisr
    table = ether.table
    workerCount = netisr.workers.count
    tokens = netisr.workers.map(\.token)
    counters = InetCounters(workers: workerCount)
    unsafe workers = .allocate(capacity: workerCount)
    for id in 0..<workerCount {
      unsafe (workers + id).initialize(
        to: InetWorker(id: id, counters: counters.block(id), identification: UInt16(truncatingIfNeeded: ether.netisr.clock.now() >> 10 &+ UInt64(id) << 13)))
    }
    let local = LocalTable([], addresses: [:], groups: [:], ether: nil)
    unsafe published = Atomic(UnsafeRawPointer(local.head))
    state = Guarded(State(local: local))
    try registerHandlers()
    ether.register(type: Ethernet.typeIPv4, proto: .ip)
    ether.register(type: Ethernet.typeARP, proto: .arp)
    ether.setResolver(.ipv4) { [unowned self] packet, nextHop, interface in resolve(packet, nextHop, interface) }
    addControls()
    startTimers()
    table.register(self)
    follow()
  }

  deinit {
    for token in state.withLock({ $0.tokens }) { token.cancel() }
    for id in 0..<workerCount { unsafe workers[id].dissolve() }
    unsafe workers.deinitialize(count: workerCount)
    unsafe workers.deallocate()
  }

  private func registerHandlers() throws(NetisrError) {
    try netisr.register(
      NetisrHandler(name: "ip", proto: .ip, policy: .flow, workersOnly: true) {
        // SAFETY: the stack stops its workers before it lets its layers go. No count moves for a packet.
        [unowned(unsafe) self] packet in unsafe input(packet)
      })
    // Fragments of one datagram meet on one worker.
    var direct = NetisrHandler(name: "ip_direct", proto: .ipDirect, policy: .cpu, dispatch: .hybrid, workersOnly: true) {
      [unowned self] packet in reassemble(packet)
    }
    direct.m2cpuid = { packet, _ in .cpu(Self.fragmentHash(packet)) }
    try netisr.register(direct)
    try netisr.register(
      NetisrHandler(name: "igmp", proto: .igmp, policy: .source, workersOnly: true) { [unowned self] packet in igmpInput(packet) })
    try netisr.register(
      NetisrHandler(name: "arp", proto: .arp, policy: .source, workersOnly: true) { [unowned self] packet in arpInput(packet) })
  }

  private func startTimers() {
    let second: UInt64 = 1_000_000_000
    var tokens = [
      netisr.worker(0).schedule(after: second, every: second) { [weak self] in self?.arpTick() },
      netisr.worker(0).schedule(after: second / 5, every: second / 5) { [weak self] in self?.igmpTick() },
    ]
    for worker in netisr.workers {
      tokens.append(worker.schedule(after: second / 2, every: second / 2) { [weak self] in self?.fragmentTick() })
    }
    state.withLock { [tokens] in $0.tokens += tokens }
  }

  /// A protocol number's packets for this machine go to `handler`; nil: to nobody any more. Protocols without one are
  /// answered with "protocol unreachable".
  public func register(proto: UInt8, _ handler: UpperHandler?) { state.withLock { $0.upper[proto] = handler } }

  /// Told of conflicts, moves and expiries; on a worker.
  public func onEvent(_ body: (@Sendable (InetEvent) -> Void)?) { state.withLock { $0.onEvent = body } }
  func announce(_ event: InetEvent) { state.withLock { $0.onEvent }?(event) }

  /// What has been counted, in the order of `netstat -s`.
  public func count(_ counter: InetCounter) -> UInt64 { counters.total(counter) }
  public func statistics() -> [(counter: InetCounter, value: UInt64)] { InetCounter.allCases.map { ($0, count($0)) } }

  // MARK: Who is calling

  /// The worker of this stack that the calling thread is; nil on other threads.
  @inline(__always) var workerID: Int? {
    let id = Int(rw_thread_worker_id())
    guard id < tokens.count, tokens[id] == rw_thread_token() else { return nil }
    return id
  }

  /// The calling worker's part. Handlers run on workers only, so there is one.
  @inline(__always) var my: UnsafeMutablePointer<InetWorker> {
    // SAFETY: clamped, so that a stray caller reads a worker's part and not beyond them.
    unsafe workers + min(Int(rw_thread_worker_id()), workerCount &- 1)
  }

  /// The table of addresses; valid until the worker has done with the packet that it works on. On a worker only.
  @inline(__always) var local: UnsafePointer<LocalHead> {
    unsafe published.load(ordering: .acquiring).assumingMemoryBound(to: LocalHead.self)
  }

  /// Publishes a table of what is so now.
  func rebuild() {
    let interfaces = table.interfaces
    let old = state.withLock { state -> LocalTable in
      let new = LocalTable(interfaces, addresses: state.addresses, groups: state.groups, ether: ether)
      let old = state.local
      state.local = new
      unsafe published.store(UnsafeRawPointer(new.head), ordering: .releasing)
      return old
    }
    netisr.chain({ _ in }, done: { withExtendedLifetime(old) {} })
  }
}

/// What `ringway monitor` shows of ARP.
public enum InetEvent: Equatable, Sendable {
  /// Somebody else uses one of our addresses.
  case conflict(IPv4Address, station: MACAddress, interface: InterfaceIndex)
  case resolved(IPv4Address, MACAddress, interface: InterfaceIndex)
  case moved(IPv4Address, from: MACAddress, to: MACAddress, interface: InterfaceIndex)
  case expired(IPv4Address, interface: InterfaceIndex)
  case unresolved(IPv4Address, interface: InterfaceIndex)
}
