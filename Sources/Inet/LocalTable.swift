// What the data path knows of addresses and interfaces: read by all workers, changed by none.
//
// As the port table of Ethernet: a change builds a new one and publishes it; the old one goes when a message has
// passed every worker.

internal import Ether
internal import Ifnet
internal import Packet
internal import Synchronization
internal import Wire

/// An IPv4 address of an interface.
struct InetAddress: Sendable {
  var address: IPv4Address
  var prefixLength: Int
  /// nil on point-to-point interfaces and on prefixes of 31 and 32 bits without one.
  var broadcast: IPv4Address?
  var destination: IPv4Address?
  var entry: InterfaceAddress
  /// Being probed: neither used nor answered for.
  var isTentative = false

  func isOnNetwork(_ other: IPv4Address) -> Bool {
    if let destination { return other == destination }
    return (other.rawValue ^ address.rawValue) & IPv4Address.mask(prefixLength).rawValue == 0
  }
}

enum LocalKind: UInt8 { case none, own, broadcast }

/// An address that this machine takes packets for.
struct LocalEntry {
  var address: UInt32
  var interface: InterfaceIndex
  var kind: LocalKind
}

/// A network of an interface.
struct NetworkEntry {
  var address: UInt32
  var mask: UInt32
  var broadcast: UInt32
  var own: UInt32
}

/// What is known of one interface.
@safe struct InetPort {
  let interface: Unmanaged<Interface>?
  let index: InterfaceIndex
  /// Its link layer is Ethernet: neighbours have to be resolved.
  let isEthernet: Bool
  let isLoopback: Bool
  let networkCount: Int
  let networks: UnsafeMutablePointer<NetworkEntry>
  let groupCount: Int
  let groups: UnsafeMutablePointer<UInt32>

  /// The interface's own address on the network of `other`, or its first; 0: none.
  func source(towards other: IPv4Address) -> UInt32 {
    for i in 0..<networkCount where unsafe (networks[i].address ^ other.rawValue) & networks[i].mask == 0 { return unsafe networks[i].own }
    return networkCount > 0 ? unsafe networks[0].own : 0
  }
  func isOnNetwork(_ other: IPv4Address) -> Bool {
    for i in 0..<networkCount where unsafe (networks[i].address ^ other.rawValue) & networks[i].mask == 0 { return true }
    return false
  }
  @inline(__always) func isBroadcast(_ other: IPv4Address) -> Bool {
    if other == .broadcast { return true }
    var i = 0
    while i < networkCount {
      if unsafe networks[i].broadcast == other.rawValue, other.rawValue != 0 { return true }
      i &+= 1
    }
    return false
  }
  func isMember(_ group: IPv4Address) -> Bool {
    if group == .allHosts { return true }
    for i in 0..<groupCount where unsafe groups[i] == group.rawValue { return true }
    return false
  }
}

/// The table as it is read.
@safe struct LocalHead {
  let mask: Int
  let entries: UnsafeMutablePointer<LocalEntry>
  let portCount: Int
  let ports: UnsafeMutablePointer<InetPort>

  /// Own addresses and broadcasts; `.none`: not ours.
  @inline(__always) func find(_ address: IPv4Address) -> LocalEntry {
    var at = Int(truncatingIfNeeded: (address.rawValue &* 0x9e37_79b1) >> 8) & mask
    while unsafe entries[at].kind != .none {
      if unsafe entries[at].address == address.rawValue { return unsafe entries[at] }
      at = (at &+ 1) & mask
    }
    return unsafe entries[at]
  }

  @inline(__always) func port(_ index: InterfaceIndex) -> UnsafePointer<InetPort>? {
    guard Int(index.index) < portCount else { return nil }
    let port = unsafe UnsafePointer(ports + Int(index.index))
    guard unsafe port.pointee.interface != nil, unsafe port.pointee.index.generation == index.generation else { return nil }
    return unsafe port
  }
}

/// Owns a head, and everything that it points to.
@safe final class LocalTable: @unchecked Sendable {
  let head: UnsafeMutablePointer<LocalHead>
  private let owned: [Interface]

  init(
    _ interfaces: [Interface], addresses: [InterfaceIndex: [InetAddress]], groups: [InterfaceIndex: [IPv4Address]],
    ether: EtherLayer?
  ) {
    owned = interfaces
    let portCount = Int(interfaces.map(\.index.index).max() ?? 0) + 1
    let ports = UnsafeMutablePointer<InetPort>.allocate(capacity: portCount)
    let nothing = unsafe InetPort(
      interface: nil, index: .none, isEthernet: false, isLoopback: false, networkCount: 0, networks: .allocate(capacity: 1),
      groupCount: 0, groups: .allocate(capacity: 1))
    unsafe nothing.networks.deallocate()
    unsafe nothing.groups.deallocate()
    unsafe ports.initialize(repeating: nothing, count: portCount)
    var locals: [LocalEntry] = []
    for interface in interfaces {
      let all = (addresses[interface.index] ?? []).filter { !$0.isTentative }
      let member = groups[interface.index] ?? []
      let networks = UnsafeMutablePointer<NetworkEntry>.allocate(capacity: max(1, all.count))
      for (i, address) in all.enumerated() {
        let mask = address.destination == nil ? IPv4Address.mask(address.prefixLength).rawValue : ~0
        let network = address.destination ?? address.address
        unsafe (networks + i).initialize(
          to: NetworkEntry(
            address: network.rawValue & mask, mask: mask, broadcast: address.broadcast?.rawValue ?? 0,
            own: address.address.rawValue))
        locals.append(LocalEntry(address: address.address.rawValue, interface: interface.index, kind: .own))
        if let broadcast = address.broadcast, interface.flags.contains(.broadcast) {
          locals.append(LocalEntry(address: broadcast.rawValue, interface: interface.index, kind: .broadcast))
        }
      }
      let list = UnsafeMutablePointer<UInt32>.allocate(capacity: max(1, member.count))
      for (i, group) in member.enumerated() { unsafe (list + i).initialize(to: group.rawValue) }
      unsafe ports[Int(interface.index.index)] = InetPort(
        interface: .passUnretained(interface), index: interface.index, isEthernet: ether != nil && interface.link === ether,
        isLoopback: interface.flags.contains(.loopback), networkCount: all.count, networks: networks,
        groupCount: member.count, groups: list)
    }
    var capacity = 16
    while capacity < locals.count * 2 { capacity *= 2 }
    let entries = UnsafeMutablePointer<LocalEntry>.allocate(capacity: capacity)
    unsafe entries.initialize(repeating: LocalEntry(address: 0, interface: .none, kind: .none), count: capacity)
    unsafe head = .allocate(capacity: 1)
    unsafe head.initialize(to: LocalHead(mask: capacity - 1, entries: entries, portCount: portCount, ports: ports))
    // Own addresses win over broadcasts of other networks.
    for local in locals.sorted(by: { $0.kind.rawValue < $1.kind.rawValue }) { insert(local) }
  }

  private func insert(_ local: LocalEntry) {
    let head = unsafe head.pointee
    guard head.find(IPv4Address(rawValue: local.address)).kind == .none else { return }
    var at = Int(truncatingIfNeeded: (local.address &* 0x9e37_79b1) >> 8) & head.mask
    while unsafe head.entries[at].kind != .none { at = (at + 1) & head.mask }
    unsafe head.entries[at] = local
  }

  deinit {
    let table = unsafe head.pointee
    for i in 0..<table.portCount where unsafe table.ports[i].interface != nil {
      unsafe table.ports[i].networks.deallocate()
      unsafe table.ports[i].groups.deallocate()
    }
    unsafe table.ports.deallocate()
    unsafe table.entries.deallocate()
    unsafe head.deallocate()
  }
}
