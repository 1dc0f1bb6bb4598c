// vlan: the frames of an Ethernet interface that carry one tag (IEEE 802.1Q).
//
//     in:  parent: input ─> Ether takes the tag out ─> vlan0: input
//     out: vlan0: if_start ─> the tag goes in (by the card where it can) ─> parent: transmit
//
// What the VLAN needs of its parent it asks for and gives back: promiscuous mode, groups. What the parent becomes it
// follows: address, link, MTU. A parent that goes leaves the VLAN without one, as in the BSDs.

public import Ether
public import Ifnet
internal import Netisr
internal import Packet
internal import Platform
internal import Wire

/// A VLAN's driver: its parent's.
@safe final class VLANDriver: InterfaceDriver {
  let tag: UInt16
  private let ether: EtherLayer
  private struct State {
    var parent: Interface?
    var hasOwnAddress = false
    var isPromiscuous = false
    var isAllMulticast = false
    /// Promiscuous because its own address is not the parent's.
    var isForeign = false
    var groups: [MACAddress: Int] = [:]
  }
  private let state: Guarded<State>

  init(_ ether: EtherLayer, parent: Interface, tag: UInt16, hasOwnAddress: Bool) {
    self.ether = ether
    self.tag = tag
    state = Guarded(State(parent: parent, hasOwnAddress: hasOwnAddress))
  }

  var parent: Interface? { state.withLock { $0.parent } }
  var hasOwnAddress: Bool { state.withLock { $0.hasOwnAddress } }

  /// Bytes that fit: a parent that counts the tag into its MTU leaves four less.
  static func largestMTU(_ parent: Interface) -> Int {
    parent.mtu - (parent.capabilities.contains(.vlanMTU) ? 0 : Ethernet.vlanTagSize)
  }

  // MARK: Control, on worker 0

  private func demandParent(_ interface: Interface) throws(InterfaceError) -> Interface {
    guard let parent else { throw InterfaceError(.ENXIO, "\(interface.name): its parent has gone") }
    return parent
  }

  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {
    switch request {
    case .setFlags(let old, let new): try setFlags(old, new, interface)
    case .setMTU(let mtu):
      let largest = Self.largestMTU(try demandParent(interface))
      guard mtu <= largest else {
        throw InterfaceError(.EINVAL, "\(interface.name): at most \(largest) bytes fit into a frame of its parent")
      }
    case .addMulticast(let group):
      let parent = try demandParent(interface)
      try parent.addMulticast(.link(parent.index.index, group))
      state.withLock { $0.groups[group, default: 0] += 1 }
    case .deleteMulticast(let group):
      let was = state.withLock { state -> Int in
        let was = state.groups[group] ?? 0
        state.groups[group] = was > 1 ? was - 1 : nil
        return was
      }
      if was > 0, let parent { try parent.deleteMulticast(.link(parent.index.index, group)) }
    case .setLinkAddress(let address): try setAddress(address, interface)
    case .setCapabilities: return
    default: throw InterfaceError(.EOPNOTSUPP, "\(interface.name): a VLAN cannot do this")
    }
  }

  private func setFlags(_ old: InterfaceFlags, _ new: InterfaceFlags, _ interface: Interface) throws(InterfaceError) {
    guard let parent else {
      interface.setDriverFlags([], clear: .running)
      if new.contains(.up), !old.contains(.up) { throw InterfaceError(.ENXIO, "\(interface.name): its parent has gone") }
      return
    }
    let (promiscuous, all) = state.withLock { ($0.isPromiscuous, $0.isAllMulticast) }
    if new.contains(.promisc) != promiscuous {
      try parent.setPromiscuous(new.contains(.promisc))
      state.withLock { $0.isPromiscuous = new.contains(.promisc) }
    }
    if new.contains(.allMulti) != all {
      try parent.setAllMulticast(new.contains(.allMulti))
      state.withLock { $0.isAllMulticast = new.contains(.allMulti) }
    }
    let isUp = new.contains(.up)
    interface.setDriverFlags(isUp ? .running : [], clear: isUp ? [] : .running)
    interface.setLink(parent.linkStatus, baudRate: parent.baudRate)
  }

  /// An address that is not the parent's is heard by a promiscuous parent only.
  private func setAddress(_ address: MACAddress, _ interface: Interface) throws(InterfaceError) {
    let parent = try demandParent(interface)
    let (isForeign, was) = (address != parent.linkAddress, state.withLock { $0.isForeign })
    if isForeign != was { try parent.setPromiscuous(isForeign) }
    state.withLock { ($0.isForeign, $0.hasOwnAddress) = (isForeign, isForeign) }
  }

  /// Gives back what was asked of the parent, and forgets it.
  func leaveParent(_ interface: Interface, parentIsThere: Bool) {
    let left = state.withLock { state -> State in
      defer { state = State(parent: nil, hasOwnAddress: state.hasOwnAddress) }
      return state
    }
    guard let parent = left.parent else { return }
    ether.setVLAN(tag, of: parent, to: nil)
    interface.setDriverFlags([], clear: .running)
    interface.setLink(.down)
    guard parentIsThere else { return }
    // What a parent refuses to take back it does not need any more.
    if left.isPromiscuous { try? parent.setPromiscuous(false) }
    if left.isForeign { try? parent.setPromiscuous(false) }
    if left.isAllMulticast { try? parent.setAllMulticast(false) }
    for (group, count) in left.groups { for _ in 0..<count { try? parent.deleteMulticast(.link(parent.index.index, group)) } }
  }

  func answer(_ query: DriverQuery, on interface: Interface) throws(InterfaceError) -> DriverAnswer {
    switch query {
    case .status: return .text("vlan: \(tag) parent interface: \(parent?.name ?? "none")")
    case .generic(let name) where name == "tag": return .text("\(tag)")
    case .generic(let name) where name == "parent": return .text(parent?.name ?? "")
    default: throw InterfaceError(.EOPNOTSUPP, "\(interface.name) does not say this")
    }
  }

  var media: MediaStatus? { parent?.driver.media }

  // MARK: Frames

  func start(_ subqueue: Subqueue) {
    let parent = self.parent
    let drops = subqueue.interface.table.drops
    var batch = PacketBatch(capacity: 32)
    while subqueue.dequeue(into: &batch) > 0 {
      var ordered = PacketBatch(capacity: batch.capacity)
      while let packet = batch.popLast() { _ = ordered.append(packet) }
      while let packet = ordered.popLast() {
        guard let parent, parent.flags.isSuperset(of: [.up, .running]) else {
          drops.drop(
            packet, parent == nil ? .sendInterfaceGone : .peerGone, interface: subqueue.interface.index,
            queue: UInt8(clamping: subqueue.index))
          continue
        }
        if let tagged = ether.insertTag(tag, into: packet, for: parent) { parent.transmit(tagged) }
      }
    }
  }
}

/// Makes VLANs. Parameters: `parent` (an Ethernet interface's name) and `tag` (1 to 4094), both needed; `mac`.
public final class VLANCloner: InterfaceCloner {
  public let name = "vlan"
  private let ether: EtherLayer
  private let vlans = Guarded<[Entry]>([])
  private struct Entry {
    weak var interface: Interface?
  }
  private let events: Guarded<WorkerToken?> = Guarded(nil)

  public init(_ ether: EtherLayer, _ table: InterfaceTable) {
    self.ether = ether
    let token = table.subscribe { [weak self] event, interface in self?.parentChanged(event, interface) }
    events.withLock { $0 = token }
  }

  deinit { events.withLock { $0?.cancel() } }

  private func children(of parent: Interface) -> [(Interface, VLANDriver)] {
    vlans.withLock { $0.compactMap { $0.interface } }.compactMap { interface in
      guard let driver = interface.driver as? VLANDriver, driver.parent === parent else { return nil }
      return (interface, driver)
    }
  }

  private func parentChanged(_ event: InterfaceEvent, _ parent: Interface) {
    switch event {
    case .detach:
      for (vlan, driver) in children(of: parent) { driver.leaveParent(vlan, parentIsThere: false) }
    case .link(let status):
      for (vlan, _) in children(of: parent) { vlan.setLink(status, baudRate: parent.baudRate) }
    case .linkAddress(let address):
      for (vlan, driver) in children(of: parent) where !driver.hasOwnAddress { try? vlan.setLinkAddress(address.bytes) }
    case .mtu:
      let largest = VLANDriver.largestMTU(parent)
      for (vlan, _) in children(of: parent) where vlan.mtu > largest {
        _ = try? vlan.table.perform(.on(vlan.name, .setMTU(largest)), by: .system)
      }
    default: break
    }
  }

  public func create(_ request: CloneRequest, in table: InterfaceTable) throws(InterfaceError) -> Interface {
    let asked = "\(name)\(request.unit)"
    var parameters = CloneParameters(request, of: asked)
    guard let tag = try parameters.number("tag", in: 1...4094), let parentName = parameters.text("parent") else {
      throw InterfaceError(.EINVAL, "\(asked): a VLAN needs a parent and a tag (`ringway ifconfig vlan create parent em0 tag 5`)")
    }
    let address = try parameters.address("mac")
    try parameters.finish()
    guard let parent = table.interface(named: parentName, vnet: request.vnet) else {
      throw InterfaceError(.ENXIO, "\(asked): there is no interface \(parentName.prefix(40))")
    }
    guard parent.type == .ethernet || parent.type == .vlan || parent.type == .lag, let own = parent.linkAddress else {
      throw InterfaceError(.EPROTONOSUPPORT, "\(asked): \(parent.name) is no Ethernet interface")
    }
    if children(of: parent).contains(where: { $0.1.tag == UInt16(tag) }) {
      throw InterfaceError(.EEXIST, "\(asked): \(parent.name) has a VLAN with tag \(tag) already")
    }
    let driver = VLANDriver(ether, parent: parent, tag: UInt16(tag), hasOwnAddress: address != nil && address != own)
    var options = InterfaceOptions(name, unit: request.unit, type: .vlan)
    options.linkAddress = own
    options.mtu = VLANDriver.largestMTU(parent)
    options.queueLength = SendLimits.standard
    options.subqueues = table.netisr.workers.count
    options.capabilities = parent.capabilities.contains(.linkState) ? .linkState : []
    options.vnet = request.vnet
    let interface = try table.attach(options, driver: driver)
    ether.setVLAN(UInt16(tag), of: parent, to: interface)
    vlans.withLock { $0 = $0.filter { $0.interface != nil } + [Entry(interface: interface)] }
    interface.setLink(parent.linkStatus, baudRate: parent.baudRate)
    if let address, address != own {
      do throws(InterfaceError) { try interface.setLinkAddress(address.bytes) } catch {
        try destroy(interface, in: table)
        throw error
      }
    }
    return interface
  }

  public func destroy(_ interface: Interface, in table: InterfaceTable) throws(InterfaceError) {
    table.detach(interface)
    (interface.driver as? VLANDriver)?.leaveParent(interface, parentIsThere: true)
    vlans.withLock { $0.removeAll { $0.interface == nil || $0.interface === interface } }
  }
}
