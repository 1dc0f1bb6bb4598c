// bridge: a learning switch over Ethernet interfaces, with an end of its own for this machine.
//
//     member ──Ether's hook──> learn the source ─┬─ known target ──> that member
//                                                ├─ unknown, group ──> every other member
//                                                └─ this machine's ──> bridge0 (or the member): protocols
//
// Members are an unchanging view that a change replaces; stations are a table of atomics. Frames take no lock.
// There is no spanning tree: a frame with one of our own sources is dropped, so that a loop does not feed itself.

internal import Ether
public import Ifnet
internal import Netisr
internal import Packet
internal import Platform
internal import Synchronization
public import Wire

/// What a member may do (FreeBSD's IFBIF_LEARNING, DISCOVER and PRIVATE).
public struct BridgeMemberFlags: OptionSet, Hashable, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// Its sources are learned.
  public static let learn = BridgeMemberFlags(rawValue: 1)
  /// It gets frames to stations that nobody knows.
  public static let discover = BridgeMemberFlags(rawValue: 2)
  /// It gets nothing from other private members.
  public static let `private` = BridgeMemberFlags(rawValue: 4)
}

/// What a bridge has counted.
public struct BridgeStatistics: Equatable, Sendable {
  public var forwarded: UInt64 = 0, flooded: UInt64 = 0, local: UInt64 = 0, refused: UInt64 = 0
  /// Stations that found the table full.
  public var unlearned: UInt64 = 0
  public var addresses = 0
  public init() {}
}

/// A bridge's driver. Reached through `Interface.driver`.
@safe public final class BridgeDriver: InterfaceDriver {
  /// Members a bridge.
  public static let memberLimit = 128
  let ether: EtherLayer
  let addresses: BridgeAddresses
  let drops: DropLedger
  private let clock: Netisr
  struct Counts: ~Copyable {
    let forwarded = Atomic<UInt64>(0), flooded = Atomic<UInt64>(0), local = Atomic<UInt64>(0), refused = Atomic<UInt64>(0)
  }
  let counts = Counts()
  private struct Member {
    let interface: Interface
    let slot: UInt8
    var flags: BridgeMemberFlags
    var isPromiscuous: Bool
  }
  private struct State {
    weak var bridge: Interface?
    var members: [Member] = []
    var view = BridgeView([], own: 0)
    var timer: WorkerToken?
  }
  private let state = Guarded(State())

  init(_ ether: EtherLayer, _ netisr: Netisr, limit: Int) {
    self.ether = ether
    clock = netisr
    drops = netisr.drops
    addresses = BridgeAddresses(limit: limit)
  }

  var seconds: UInt32 { UInt32(truncatingIfNeeded: clock.clock.now() / 1_000_000_000) }

  func join(_ bridge: Interface) {
    let timer = clock.worker(0).schedule(after: 1_000_000_000, every: 1_000_000_000) { [weak self] in
      guard let self else { return }
      addresses.expire(now: seconds)
    }
    state.withLock { ($0.bridge, $0.timer) = (bridge, timer) }
    publish()
  }

  // MARK: For whoever asks

  public var members: [(interface: Interface, flags: BridgeMemberFlags)] { state.withLock { $0.members.map { ($0.interface, $0.flags) } } }

  /// Every station that is known.
  public var knownAddresses: [BridgeAddress] {
    let names = state.withLock { state in Dictionary(uniqueKeysWithValues: state.members.map { ($0.slot, $0.interface.name) }) }
    let (now, timeout) = (seconds, addresses.timeout)
    return addresses.all().compactMap { entry in
      names[entry.member].map {
        let isForever = entry.isStatic || timeout == 0
        let age = now >= entry.heard ? now - entry.heard : 0
        return BridgeAddress(
          address: entry.address, member: $0, expires: isForever ? nil : Int(timeout > age ? timeout - age : 0), isStatic: entry.isStatic)
      }
    }
  }

  public var statistics: BridgeStatistics {
    var sum = BridgeStatistics()
    sum.forwarded = counts.forwarded.load(ordering: .relaxed)
    sum.flooded = counts.flooded.load(ordering: .relaxed)
    sum.local = counts.local.load(ordering: .relaxed)
    sum.refused = counts.refused.load(ordering: .relaxed)
    sum.unlearned = addresses.refused.load(ordering: .relaxed)
    sum.addresses = addresses.count
    return sum
  }

  // MARK: Members, on worker 0

  /// - Throws: EINVAL (the bridge itself, no Ethernet interface, another MTU), EEXIST, EBUSY (another bridge has it),
  ///   ENOSPC.
  public func add(_ interface: Interface, flags: BridgeMemberFlags = [.learn, .discover]) throws(InterfaceError) {
    guard let bridge = state.withLock({ $0.bridge }) else { throw InterfaceError(.ENXIO, "the bridge has gone") }
    guard interface !== bridge, interface.type == .ethernet || interface.type == .vlan, interface.linkAddress != nil else {
      throw InterfaceError(.EINVAL, "\(bridge.name): \(interface.name) cannot be a member, only Ethernet interfaces can")
    }
    let members = state.withLock { $0.members }
    if members.contains(where: { $0.interface === interface }) {
      throw InterfaceError(.EEXIST, "\(bridge.name): \(interface.name) is a member already")
    }
    let others = bridge.table.interfaces.compactMap { $0.driver as? BridgeDriver }
    if others.contains(where: { $0.members.contains { $0.interface === interface } }) {
      throw InterfaceError(.EBUSY, "\(bridge.name): \(interface.name) is a member of another bridge")
    }
    guard members.isEmpty || interface.mtu == bridge.mtu else {
      throw InterfaceError(.EINVAL, "\(bridge.name): the MTU of \(interface.name) is \(interface.mtu), members have \(bridge.mtu)")
    }
    guard let slot = (0..<Self.memberLimit).first(where: { slot in !members.contains { Int($0.slot) == slot } }) else {
      throw InterfaceError(.ENOSPC, "\(bridge.name) has \(Self.memberLimit) members, its limit")
    }
    // A member that is down is made promiscuous when it comes up.
    var isPromiscuous = false
    do throws(InterfaceError) {
      try interface.setPromiscuous(true)
      isPromiscuous = true
    } catch { if error.code != .ENETDOWN { throw error } }
    if members.isEmpty, interface.mtu != bridge.mtu { _ = try bridge.table.perform(.on(bridge.name, .setMTU(interface.mtu)), by: .system) }
    state.withLock { $0.members.append(Member(interface: interface, slot: UInt8(slot), flags: flags, isPromiscuous: isPromiscuous)) }
    publish()
  }

  /// - Throws: ENOENT for an interface that is no member.
  public func remove(_ interface: Interface, isGoing: Bool = false) throws(InterfaceError) {
    let gone = state.withLock { state -> Member? in
      guard let at = state.members.firstIndex(where: { $0.interface === interface }) else { return nil }
      return state.members.remove(at: at)
    }
    guard let gone else { throw InterfaceError(.ENOENT, "\(interface.name) is no member of the bridge") }
    ether.setBridge(interface, nil)
    publish()
    addresses.remove { _, member, _, _ in member == gone.slot }
    if gone.isPromiscuous, !isGoing { try? interface.setPromiscuous(false) }
  }

  public func setFlags(_ flags: BridgeMemberFlags, of interface: Interface) throws(InterfaceError) {
    let isMember = state.withLock { state in
      guard let at = state.members.firstIndex(where: { $0.interface === interface }) else { return false }
      state.members[at].flags = flags
      return true
    }
    guard isMember else { throw InterfaceError(.ENOENT, "\(interface.name) is no member of the bridge") }
    publish()
  }

  /// A station that is not learned and not forgotten.
  public func addStatic(_ address: MACAddress, on interface: Interface) throws(InterfaceError) {
    guard address.isUnicast else { throw InterfaceError(.EINVAL, "\(address) is no station's address") }
    guard let slot = state.withLock({ $0.members.first { $0.interface === interface }?.slot }) else {
      throw InterfaceError(.ENOENT, "\(interface.name) is no member of the bridge")
    }
    guard addresses.insert(address.rawValue, member: slot, isStatic: true, now: seconds) else {
      throw InterfaceError(.ENOSPC, "the bridge's table of addresses is full")
    }
  }

  /// Forgets stations: one, or all that are not static, or all.
  public func forget(_ address: MACAddress) throws(InterfaceError) {
    if addresses.remove(where: { found, _, _, _ in found == address.rawValue }) == 0 {
      throw InterfaceError(.ENOENT, "the bridge does not know \(address)")
    }
  }
  public func flush(statics: Bool = false) { addresses.remove { _, _, isStatic, _ in statics || !isStatic } }

  /// Stations that are learned (1 to 8192 and up), and seconds until one is forgotten (0: never).
  public var addressLimit: Int {
    get { addresses.limit }
    set { addresses.limit = newValue }
  }
  public var addressTimeout: Int {
    get { Int(addresses.timeout) }
    set { addresses.timeout = UInt32(clamping: newValue) }
  }

  /// Makes a new view, and gives it to every member's hook.
  private func publish() {
    guard let bridge = state.withLock({ $0.bridge }) else { return }
    let view = state.withLock { state in
      state.view = BridgeView(
        state.members.map { BridgeMember($0.interface, slot: $0.slot, flags: $0.flags) }, own: bridge.linkAddress?.rawValue ?? 0)
      return state.view
    }
    for member in view.members {
      ether.setBridge(member.interface) { [unowned self, unowned bridge] packet, _ in forward(packet, from: member, view, bridge) }
    }
    let isLinked = view.members.contains { $0.interface.linkStatus != .down }
    bridge.setLink(isLinked ? .up : .down)
  }

  /// Something happened to an interface that may be a member.
  func memberChanged(_ event: InterfaceEvent, _ interface: Interface) {
    guard state.withLock({ $0.members.contains { $0.interface === interface } || $0.bridge === interface }) else { return }
    switch event {
    case .detach: if state.withLock({ $0.bridge !== interface }) { try? remove(interface, isGoing: true) }
    case .up:
      let wanted = state.withLock { $0.members.contains { $0.interface === interface && !$0.isPromiscuous } }
      guard wanted, (try? interface.setPromiscuous(true)) != nil else { return }
      state.withLock { state in
        if let at = state.members.firstIndex(where: { $0.interface === interface }) { state.members[at].isPromiscuous = true }
      }
    case .linkAddress: publish()
    case .link: if state.withLock({ $0.bridge !== interface }) { publish() }
    default: break
    }
  }

  /// Lets go of everything. On worker 0, before the bridge is detached.
  func dissolve() {
    for (member, _) in members { try? remove(member) }
    state.withLock { $0.timer?.cancel() }
  }

  // MARK: InterfaceDriver

  public func start(_ subqueue: Subqueue) {
    let view = state.withLock { $0.view }
    var batch = PacketBatch(capacity: 32)
    while subqueue.dequeue(into: &batch) > 0 {
      var ordered = PacketBatch(capacity: batch.capacity)
      while let packet = batch.popLast() { _ = ordered.append(packet) }
      while let packet = ordered.popLast() { send(packet, view, subqueue.interface) }
    }
  }

  public func detached(_ interface: Interface) { state.withLock { $0.bridge = nil } }
}
