// What the receive path knows of interfaces, types and hooks: read by all workers, changed by none.
//
//     published ──> Head ──> Port[interface's index] ──> VLANs[tag], bridge's hook, deliveries by worker
//
// A change builds a new table from the state and publishes it. The old one, and the references that it holds,
// go when a message has passed every worker: no handler that could still read it is running then.

internal import Ifnet
internal import Netisr
internal import Packet
internal import Synchronization
internal import Wire

/// A closure where a raw table can point to it.
final class Box<T>: Sendable where T: Sendable {
  let value: T
  init(_ value: T) { self.value = value }
}

/// What is known of one interface.
@safe struct Port {
  let interface: Unmanaged<Interface>?
  let generation: UInt16
  let isEthernet: Bool
  let address: UInt64
  /// Indices of VLAN interfaces by tag, 4096 of them; nil: the interface has none.
  let vlans: UnsafeMutablePointer<InterfaceIndex>?
  let bridge: Unmanaged<Box<EtherLayer.BridgeHook>>?
  let deliveries: UnsafeDeliveries?
}

struct TypeEntry {
  let type: UInt16
  let proto: NetisrProtocol
}

/// The table as it is read.
@safe struct Head {
  let count: Int
  let ports: UnsafeMutablePointer<Port>
  let typeCount: Int
  let types: UnsafeMutablePointer<TypeEntry>
  let resolver4: Unmanaged<Box<EtherLayer.Resolver>>?
  let resolver6: Unmanaged<Box<EtherLayer.Resolver>>?

  /// nil: there is no such interface, or another one has its index now.
  @inline(__always) func port(_ index: InterfaceIndex) -> UnsafePointer<Port>? {
    guard Int(index.index) < count else { return nil }
    let port = unsafe UnsafePointer(ports + Int(index.index))
    guard unsafe port.pointee.interface != nil, unsafe port.pointee.generation == index.generation else { return nil }
    return unsafe port
  }

  @inline(__always) func proto(of type: UInt16) -> NetisrProtocol? {
    var i = 0
    while i < typeCount {
      if unsafe types[i].type == type { return unsafe types[i].proto }
      i &+= 1
    }
    return nil
  }
}

/// Owns a head, and everything that it points to.
@safe final class PortTable: @unchecked Sendable {
  let head: UnsafeMutablePointer<Head>
  private var vlanTables: [UnsafeMutablePointer<InterfaceIndex>] = unsafe []
  /// Keeps what the ports point to without counting.
  private let owned: [AnyObject]

  init() {
    unsafe head = .allocate(capacity: 1)
    unsafe head.initialize(
      to: Head(
        count: 0, ports: .allocate(capacity: 1), typeCount: 0, types: .allocate(capacity: 1), resolver4: nil, resolver6: nil))
    owned = []
  }

  init(interfaces: [Interface], _ state: borrowing EtherLayer.State, workers: Int) {
    let count = Int(interfaces.map(\.index.index).max() ?? 0) + 1
    let ports = UnsafeMutablePointer<Port>.allocate(capacity: count)
    unsafe ports.initialize(
      repeating: Port(
        interface: nil, generation: 0, isEthernet: false, address: 0, vlans: nil, bridge: nil, deliveries: nil), count: count)
    var owned: [AnyObject] = interfaces
    for interface in interfaces {
      var vlans: UnsafeMutablePointer<InterfaceIndex>?
      if let tags = state.vlans[interface.index], !tags.isEmpty {
        let table = UnsafeMutablePointer<InterfaceIndex>.allocate(capacity: 4096)
        unsafe table.initialize(repeating: .none, count: 4096)
        for (tag, target) in tags { unsafe table[Int(tag & 4095)] = target.index }
        unsafe vlanTables.append(table)
        unsafe vlans = table
      }
      let bridge = state.bridges[interface.index].map { Box($0) }
      if let bridge { owned.append(bridge) }
      let ledger = state.ledgers[interface.index]
      if let ledger { owned.append(ledger) }
      unsafe ports[Int(interface.index.index)] = Port(
        interface: .passUnretained(interface), generation: interface.index.generation,
        isEthernet: interface.type != .loopback && interface.type != .tunnel,
        address: interface.linkAddress?.rawValue ?? 0, vlans: vlans,
        bridge: bridge.map { unsafe Unmanaged.passUnretained($0) }, deliveries: ledger?.slots)
    }
    let types = UnsafeMutablePointer<TypeEntry>.allocate(capacity: max(1, state.types.count))
    // IPv4 first: most frames are looked up with one comparison.
    for (i, entry) in state.types.sorted(by: { $0.key < $1.key }).enumerated() {
      unsafe (types + i).initialize(to: TypeEntry(type: entry.key, proto: entry.value))
    }
    let (box4, box6) = (state.resolvers[.ipv4].map { Box($0) }, state.resolvers[.ipv6].map { Box($0) })
    for box in [box4, box6] { if let box { owned.append(box) } }
    unsafe head = .allocate(capacity: 1)
    unsafe head.initialize(
      to: Head(
        count: count, ports: ports, typeCount: state.types.count, types: types,
        resolver4: box4.map { unsafe Unmanaged.passUnretained($0) }, resolver6: box6.map { unsafe Unmanaged.passUnretained($0) }))
    self.owned = owned
  }

  deinit {
    for unsafe table in unsafe vlanTables { unsafe table.deallocate() }
    unsafe head.pointee.ports.deallocate()
    unsafe head.pointee.types.deallocate()
    unsafe head.deallocate()
  }
}

extension EtherLayer {
  /// The table; valid until the worker has done with the packet that it works on. On a worker of this stack only.
  @inline(__always) var currentHead: UnsafePointer<Head> {
    unsafe published.load(ordering: .acquiring).assumingMemoryBound(to: Head.self)
  }

  /// Lends the table on any thread.
  func withHead<R>(_ body: (borrowing Head) -> R) -> R {
    if workerID != nil { return unsafe body(currentHead.pointee) }
    let ports = state.withLock { $0.ports }
    return withExtendedLifetime(ports) { unsafe body(ports.head.pointee) }
  }

  /// Publishes a table of what is so now. A renamed interface detaches and attaches: its hooks stay.
  func rebuild(without gone: InterfaceIndex? = nil) {
    let all = table.interfaces
    let interfaces = all.filter { $0.index != gone }
    let old = state.withLock { state -> PortTable in
      for interface in interfaces where state.ledgers[interface.index] == nil {
        state.ledgers[interface.index] = DeliveryLedger(workers: netisr.workers.count)
      }
      let known = Set(all.map(\.index))
      state.vlans = state.vlans.filter { known.contains($0.key) }
      state.bridges = state.bridges.filter { known.contains($0.key) }
      let old = state.ports
      let new = PortTable(interfaces: interfaces, state, workers: netisr.workers.count)
      state.ports = new
      unsafe published.store(UnsafeRawPointer(new.head), ordering: .releasing)
      return old
    }
    netisr.chain({ _ in }, done: { withExtendedLifetime(old) {} })
  }
}
