// Ether: Ethernet between interfaces and protocols.
//
//     in:  Interface.input ─> netisr ETHER ─> bridge? ─> for us? ─> tag? ─> VLAN interface's input
//                                                              └─> by type: ARP, IPv4, IPv6
//     out: protocol ─> output(to: next hop) ─> the family's resolver (ARP, ND) ─> send(to: MAC) ─> Interface.transmit
//
// What the receive path must know of interfaces, types and hooks lies in a port table that never changes: a change
// publishes a new one, and the old one goes when every worker has come round (`PortTable`).
//
// Invariants
// - A protocol gets the packet without its Ethernet header, which still lies in front of it (headroom), and with
//   `.linkBroadcast` or `.linkMulticast` when it was not sent to this station alone.
// - Whoever has no use for a frame drops it with a reason; whoever has used one says so with `deliver`, so that
//   for every interface received = delivered + dropped.

internal import CRingway
public import Ifnet
public import Netisr
public import Packet
internal import Platform
internal import Synchronization
public import Wire

/// The Ethernet link layer of a stack.
@safe public final class EtherLayer: LinkLayer, @unchecked Sendable {
  public let table: InterfaceTable
  public let netisr: Netisr
  /// Finds the station for a next hop, and sends or holds the packet: ARP, neighbour discovery.
  public typealias Resolver = @Sendable (_ packet: consuming Packet, _ nextHop: SocketAddress, _ interface: Interface) -> Void
  /// Takes a frame of a member interface, with its Ethernet header, before protocols see it; what it gives back is
  /// for this machine and goes on as if it had come to the interface that `packet.interface` names.
  public typealias BridgeHook = @Sendable (_ packet: consuming Packet, _ member: Interface) -> Packet?

  struct State {
    var types: [UInt16: NetisrProtocol] = [:]
    var resolvers: [AddressFamily: Resolver] = [:]
    var vlans: [InterfaceIndex: [UInt16: Interface]] = [:]
    var bridges: [InterfaceIndex: BridgeHook] = [:]
    var ledgers: [InterfaceIndex: DeliveryLedger] = [:]
    var ports: PortTable
  }
  let state: Guarded<State>
  /// The port table that is valid now: what `State.ports` owns.
  let published: Atomic<UnsafeRawPointer>
  /// Batches for frames that go on to a VLAN interface: `maximumTagDepth` a worker.
  let handover: HandoverBatches
  private let tokens: [UInt32]
  private var events: WorkerToken?

  /// Registers ETHER at the dispatcher; the link layer of Ethernet, VLAN and bridge interfaces from here on.
  public init(_ table: InterfaceTable) throws(NetisrError) {
    self.table = table
    netisr = table.netisr
    tokens = netisr.workers.map(\.token)
    handover = HandoverBatches(workers: tokens.count)
    let empty = PortTable(interfaces: [], State(ports: PortTable()), workers: tokens.count)
    state = Guarded(State(ports: empty))
    unsafe published = Atomic(UnsafeRawPointer(empty.head))
    try netisr.register(
      NetisrHandler(name: "ether", proto: .ether, policy: .source, dispatch: .direct, workersOnly: true) {
        // SAFETY: the stack stops its workers before it lets its layers go. No count moves for a packet.
        [unowned(unsafe) self] packet in
        unsafe receive(packet)
      })
    for type in [InterfaceType.ethernet, .vlan, .bridge] { table.setLink(self, for: type) }
    events = table.subscribe { [weak self] event, interface in
      switch event {
      case .attach, .arrival, .linkAddress: self?.rebuild()
      case .detach: self?.rebuild(without: interface.index)
      default: break
      }
    }
    rebuild()
  }

  deinit { events?.cancel() }

  /// Frames of an EtherType go to a protocol of netisr.
  public func register(type: UInt16, proto: NetisrProtocol) {
    state.withLock { $0.types[type] = proto }
    rebuild()
  }
  public func setResolver(_ family: AddressFamily, _ resolver: @escaping Resolver) {
    state.withLock { $0.resolvers[family] = resolver }
    rebuild()
  }

  /// Frames of `parent` with a VLAN tag (1 to 4094) go to another interface; nil: to none any more.
  public func setVLAN(_ tag: UInt16, of parent: Interface, to interface: Interface?) {
    guard tag > 0, tag < 4095 else { return }
    state.withLock { $0.vlans[parent.index, default: [:]][tag] = interface }
    rebuild()
  }

  /// Frames of `member` go to a bridge first; nil: to none any more.
  public func setBridge(_ member: Interface, _ hook: BridgeHook?) {
    state.withLock { $0.bridges[member.index] = hook }
    rebuild()
  }

  // MARK: Who is calling

  /// The worker of this stack that the calling thread is; nil on other threads.
  @inline(__always) var workerID: Int? {
    let id = Int(rw_thread_worker_id())
    guard id < tokens.count, tokens[id] == rw_thread_token() else { return nil }
    return id
  }

  // MARK: Deliveries

  /// A received packet has reached its end: counts it for the interface that received it, and frees it. On a worker.
  public func deliver(_ packet: consuming Packet) {
    delivered(packet.interface)
    _ = consume packet
  }

  /// The same for a packet that goes on somewhere else (forwarded, answered in place). On a worker.
  @inline(__always) public func delivered(_ interface: InterfaceIndex, _ count: UInt64 = 1) {
    guard let worker = workerID else { return }
    unsafe currentHead.pointee.port(interface)?.pointee.deliveries?.add(count, worker: worker)
  }

  /// How many received packets of an interface have reached their end: ipackets = this + the drops, when nothing is
  /// on its way.
  public func deliveries(of interface: InterfaceIndex) -> UInt64 {
    state.withLock { $0.ledgers[interface] }?.total ?? 0
  }

  // MARK: Multicast

  public func resolveMulticast(_ group: SocketAddress, on interface: Interface) throws(InterfaceError) -> MACAddress? {
    switch group {
    case .ipv4(let address) where address.isMulticast: return Self.multicast(address)
    case .ipv6(let address) where address.isMulticast:
      return MACAddress(rawValue: 0x3333_0000_0000 | address.low & 0xffff_ffff)
    case .link(_, let bytes):
      guard bytes.count == 6, let mac = MACAddress(bytes: bytes), mac.isMulticast else {
        throw InterfaceError(.EADDRNOTAVAIL, "\(interface.name): \(group) is no multicast address")
      }
      return nil
    default: throw InterfaceError(.EADDRNOTAVAIL, "\(interface.name): \(group) is no multicast address")
    }
  }

  /// The station group of an IPv4 group: its low 23 bits behind 01:00:5e (RFC 1112, section 6.4).
  public static func multicast(_ group: IPv4Address) -> MACAddress {
    MACAddress(rawValue: 0x0100_5e00_0000 | UInt64(group.rawValue & 0x7f_ffff))
  }
}
