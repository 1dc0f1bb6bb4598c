// How an interface comes, and how it goes.
//
//     attach: com_alloc ─> link address ─> subqueues ─> index, array ─> every worker ─> domains ─> handler, ATTACH, ARRIVAL
//     detach: handler, DEPARTURE, DETACH ─> out of array and table ─> every worker ─> down ─> addresses ─> IP ─> routes
//             ─> domains ─> groups, multicast, watchdogs, queues ─> driver ─> last reference: com_free

public import Netisr
public import Packet
internal import Synchronization
internal import Wire

/// A reference to an interface (ifunit_ref); letting it go is if_rele. The interface may be detached while it is
/// held: `isDying` says so. What the link type keeps for it is freed after the last one.
public struct InterfaceReference: ~Copyable, Sendable {
  public let interface: Interface
  fileprivate init(_ interface: Interface) { self.interface = interface }
  deinit { interface.release() }
}

extension InterfaceTable {
  /// The interface of this name with a reference to it; nil: absent or dying.
  public func reference(named name: String, vnet: Vnet? = nil) -> InterfaceReference? {
    guard let interface = interface(named: name, vnet: vnet), interface.retain() else { return nil }
    return InterfaceReference(interface)
  }
  public func reference(_ index: InterfaceIndex) -> InterfaceReference? {
    guard let interface = interface(index), !interface.isDying, interface.retain() else { return nil }
    return InterfaceReference(interface)
  }

  /// Attaches an interface. From worker 0, or from a thread that is no worker.
  /// - Throws: EINVAL (no name), ENAMETOOLONG, EEXIST, ENOMEM (the link type's allocator gave nothing), ENOSPC (no
  ///   index left), EBUSY (on another worker).
  @discardableResult
  public func attach(_ options: InterfaceOptions, driver: any InterfaceDriver) throws(InterfaceError) -> Interface {
    try control { [self] () throws(InterfaceError) in
      try checkName(options.name)
      let (allocator, link) = state.withLock { ($0.allocators[options.type], $0.links[options.type]) }
      let common = allocator?.allocate(options.type)
      if allocator != nil, common == nil {
        throw InterfaceError(.ENOMEM, "\(options.name): the link type gave it nothing to keep its state in")
      }
      let interface = Interface(options, driver: driver, table: self)
      interface.link = link
      interface.setCommon(common, freedBy: allocator?.free)
      do throws(InterfaceError) { try number(interface) } catch {
        interface.release()
        throw error
      }
      if options.queueLength <= 0 { log("\(options.name): its driver sets no queue length, \(SendLimits.standard) packets are taken") }
      interface.linkUp(options.linkAddress)
      interface.makeSubqueues(count: options.subqueues, length: options.queueLength)
      publishNew(interface)
      return interface
    }
  }

  /// 15 characters, none of them one that a request or a table could stumble over.
  func checkName(_ name: String) throws(InterfaceError) {
    guard !name.isEmpty, name.utf8.allSatisfy({ $0 > 32 && $0 != 127 && $0 != 47 }) else {
      throw InterfaceError(.EINVAL, "an interface cannot be called \"\(name)\"")
    }
    guard name.utf8.count <= Self.maximumNameLength else {
      throw InterfaceError(.ENAMETOOLONG, "\"\(name)\" has more than \(Self.maximumNameLength) characters")
    }
    if state.withLock({ $0.names[name] }) != nil { throw InterfaceError(.EEXIST, "there is an interface \(name) already") }
  }

  /// An index, before anybody can see the interface.
  private func number(_ interface: Interface) throws(InterfaceError) {
    guard let index = state.withLock({ $0.index.add(interface) }) else {
      throw InterfaceError(.ENOSPC, "all 65535 interface indexes are taken")
    }
    interface.index = index
  }

  private func publishNew(_ interface: Interface) {
    let domains = state.withLock { state in
      state.interfaces.append(interface)
      state.names[interface.name] = interface
      return state.domains
    }
    interface.addToGroup("all")
    publish(interface)
    interface.startWatchdog()
    interface.touch()
    for domain in domains { domain.attach(interface) }
    events.runHandlers(interface, isAttach: true)
    announce(.attach, interface)
    announce(.arrival, interface)
  }

  /// Detaches an interface; one that is detached already is left alone. Returns when it is done, except on a worker
  /// other than 0, from which worker 0 is sent a message.
  public func detach(_ interface: Interface) {
    change { table in
      guard interface.table === table, !interface.isDying, table.state.withLock({ $0.interfaces.contains { $0 === interface } })
      else { return }
      table.events.runHandlers(interface, isAttach: false)
      table.announce(.departure, interface)
      table.announce(.detach, interface)
      table.takeOut(interface)
      interface.shutDown()
      interface.purgeAddresses()
      table.detachProtocols(interface)
      interface.dismantle()
      if let origin = interface.origin { table.cloners.withLock { $0.release(interface, origin) } }
      interface.driver.detached(interface)
      interface.release()
      if interface.driver.holdsInterface {
        // No worker can be about to start it any more.
        table.netisr.barrier()
        interface.driver = DetachedDriver.shared
      }
    }
  }

  private func takeOut(_ interface: Interface) {
    interface.isDying = true
    state.withLock { state in
      state.index.remove(interface.index)
      state.interfaces.removeAll { $0 === interface }
      state.names[interface.name] = nil
    }
    publish()
    netisr.barrier()
  }

  private func detachProtocols(_ interface: Interface) {
    let domains = self.domains
    for domain in domains where domain.family == .ipv4 || domain.family == .ipv6 { domain.detach(interface) }
    removeRoutes?(interface)
    for domain in domains where domain.family != .ipv4 && domain.family != .ipv6 { domain.detach(interface) }
  }
}

extension Interface {
  func retain() -> Bool {
    var count = references.load(ordering: .relaxed)
    while count > 0 {
      let (done, seen) = references.weakCompareExchange(
        expected: count, desired: count + 1, successOrdering: .acquiringAndReleasing, failureOrdering: .relaxed)
      if done { return true }
      count = seen
    }
    return false
  }

  /// The last one frees what the link type keeps for this interface.
  func release() {
    guard references.wrappingSubtract(1, ordering: .acquiringAndReleasing).newValue == 0 else { return }
    let freed = state.withLock { state -> (any LinkCommon, @Sendable (any LinkCommon, InterfaceType) -> Void)? in
      defer { (state.common, state.freeCommon) = (nil, nil) }
      return state.common.flatMap { common in state.freeCommon.map { (common, $0) } }
    }
    if let (common, free) = freed { free(common, type) }
  }

  func setCommon(_ common: (any LinkCommon)?, freedBy free: (@Sendable (any LinkCommon, InterfaceType) -> Void)?) {
    state.withLock { ($0.common, $0.freeCommon) = (common, free) }
  }

  /// The link-level address comes first in the list, with octets or without.
  func linkUp(_ address: MACAddress?) {
    let entry = InterfaceAddress(.link(index: index.index, bytes: address?.bytes ?? []), on: self)
    state.withLock { $0.addresses = [entry] }
  }

  func makeSubqueues(count: Int, length: Int) {
    subqueues = (0..<max(1, count)).map { Subqueue(interface: self, index: $0, queueLength: length) }
  }

  func startWatchdog() {
    watchdog.onExpiry { [weak self] in
      guard let self else { return true }
      guard serializer.tryEnter(.all) else { return false }
      driver.watchdog(self)
      serializer.leave(.all)
      return true
    }
    watchdog.start()
  }

  /// Polling off, down.
  func shutDown() {
    if flags.contains(.polling) {
      try? driver.handle(.polling(false), on: self)
      changeFlags(set: [], clear: .polling)
    }
    let old = flags
    guard old.contains(.up) else { return }
    changeFlags(set: [], clear: .up)
    // A driver that cannot stop any more (its card is gone) does not stop the detach.
    try? driver.handle(.setFlags(old: old, new: flags), on: self)
    wentDown()
  }

  /// Addresses go through their families, which undo what hangs on them; the link address goes last.
  func purgeAddresses() {
    for entry in state.withLock({ $0.addresses }) where entry.address.family != .link {
      if let domain = table.domains.first(where: { $0.family == entry.address.family }) {
        try? domain.control(.delete(entry.address), on: self)
      }
      if state.withLock({ $0.addresses.contains { $0 === entry } }) { remove(entry) }
    }
    state.withLock { $0.addresses = [] }
    let empty = AddressList([])
    for worker in table.netisr.workers { worker.perform { [lists] in lists.install(empty, worker: worker.id) } }
  }

  /// What is left when no protocol knows the interface any more.
  func dismantle() {
    leaveAllGroups()
    deleteAllMulticast()
    watchdog.stop()
    detachSubqueues()
    state.withLock { $0.taps = [] }
    tapCount.store(0, ordering: .releasing)
  }
}

/// What stands in a driver's place when its interface has been detached.
final class DetachedDriver: InterfaceDriver {
  static let shared = DetachedDriver()
  private init() {}
  func start(_ subqueue: Subqueue) {}
}
