// Ifnet: interfaces, as DragonFly BSD has them.
//
//     requests (ifconfig) ─> InterfaceTable ─── Interface ─┬─ addresses, groups, multicast, flags
//     protocol domains  <────────┘    │                    ├─ Subqueue 0 … : queue, staging, start
//     events (monitor) <──────────────┘                    └─ InterfaceDriver: a card, a TAP, a pair
//
//     in:  driver ─> Interface.input ─> LinkLayer.input ─> netisr
//     out: protocol ─> LinkLayer.output ─> Interface.transmit ─> Subqueue ─> if_start ─> driver
//
// Invariants
// - What is changed is changed on worker 0, so one change at a time: another thread sends it there and waits, another
//   worker sends it there and does not wait (worker 0 may be waiting for it).
// - Each worker sees interfaces and addresses through a view of its own, which is replaced by message.
// - An index names one interface as long as its generation fits; a stale one names nothing.

public import Netisr
public import Packet
internal import Platform
internal import Wire

/// What an interface's link type keeps for it (if_l2com).
public protocol LinkCommon: AnyObject, Sendable {}

/// Makes and frees what a link type keeps for each of its interfaces (if_com_alloc, if_com_free).
public struct LinkAllocator: Sendable {
  /// nil: the interface is not made.
  public var allocate: @Sendable (InterfaceType) -> (any LinkCommon)?
  public var free: @Sendable (any LinkCommon, InterfaceType) -> Void
  public init(
    allocate: @escaping @Sendable (InterfaceType) -> (any LinkCommon)?, free: @escaping @Sendable (any LinkCommon, InterfaceType) -> Void
  ) {
    self.allocate = allocate
    self.free = free
  }
}

/// All interfaces over one dispatcher.
public final class InterfaceTable: @unchecked Sendable {
  /// Bytes of an interface's or a group's name.
  public static let maximumNameLength = 15

  public let netisr: Netisr
  public var drops: DropLedger { netisr.drops }
  struct State {
    var index = IndexTable()
    var interfaces: [Interface] = []
    var names: [String: Interface] = [:]
    var groups: [String: [Interface]] = [:]
    var domains: [any ProtocolDomain] = []
    var links: [InterfaceType: any LinkLayer] = [:]
    var allocators: [InterfaceType: LinkAllocator] = [:]
  }
  let state = Guarded(State())
  let cloners = Guarded(ClonerRegistry())
  let numbers: WorkerNumbers
  let views: ViewHolder
  let events = EventHub()
  /// The stages of every worker, with their rollup.
  public let staging: Staging
  let compatibility = Compatibility()
  /// Takes a detached interface's routes away, on every worker. Set by the route table's owner.
  public var removeRoutes: (@Sendable (Interface) -> Void)?
  /// What somebody should know and nobody asked for: one sentence. Set before interfaces are attached.
  public var log: @Sendable (String) -> Void = { _ in }

  public init(_ netisr: Netisr) {
    self.netisr = netisr
    numbers = WorkerNumbers(netisr.workers)
    views = ViewHolder(numbers)
    staging = Staging(netisr)
    let views = self.views
    netisr.vnetOfInterface = { index in views.interface(index)?.vnet }
    addControls()
  }

  deinit { compatibility.stop() }

  // MARK: What other modules bring

  /// Lets families and link layers go, when a stack is taken down: they hold the table as it holds them. After the
  /// last interface, and after the last packet.
  public func dissolve() {
    state.withLock {
      $0.domains = []
      $0.links = [:]
    }
    removeRoutes = nil
  }

  /// What frames of a link type mean. Set before interfaces of the type are attached.
  public func setLink(_ link: any LinkLayer, for type: InterfaceType) { state.withLock { $0.links[type] = link } }

  /// Registers what a link type keeps for its interfaces.
  /// - Throws: EEXIST for a type that has an allocator.
  public func register(_ allocator: LinkAllocator, for type: InterfaceType) throws(InterfaceError) {
    let isNew = state.withLock { state in
      defer { if state.allocators[type] == nil { state.allocators[type] = allocator } }
      return state.allocators[type] == nil
    }
    if !isNew { throw InterfaceError(.EEXIST, "interfaces of type \(type) have an allocator already") }
  }

  /// A family that attaches to every interface there is and will be.
  public func register(_ domain: any ProtocolDomain) {
    change { table in
      table.state.withLock { $0.domains.append(domain) }
      if domain.family == .ipv6 { table.staging.protocolHeader = 60 }
      for interface in table.interfaces { domain.attach(interface) }
    }
  }

  // MARK: Where changes happen

  /// Runs `body` on worker 0 and waits. From worker 0, and from threads that are no workers.
  /// - Throws: EBUSY on another worker, which must not wait; what `body` throws.
  func control<T: Sendable>(_ body: @escaping @Sendable () throws(InterfaceError) -> T) throws(InterfaceError) -> T {
    let first = netisr.workers[0]
    if first.isCurrent { return try body() }
    guard numbers.current == numbers.count else {
      throw InterfaceError(.EBUSY, "interfaces are changed on worker 0: worker \(numbers.current) has to send it a message")
    }
    return try first.perform { Result { () throws(InterfaceError) in try body() } }.get()
  }

  /// Runs `body` on worker 0: waits for it, except on another worker, from which it is sent.
  func change(_ body: @escaping @Sendable (InterfaceTable) -> Void) {
    let first = netisr.workers[0]
    if first.isCurrent { return body(self) }
    if numbers.current == numbers.count { return first.perform { body(self) } }
    first.post { body(self) }
  }

  /// On worker 0: every worker sees the interfaces as they are now, and `changed`'s addresses, when this returns.
  func publish(_ changed: Interface? = nil) {
    let (interfaces, limit) = state.withLock { ($0.interfaces, $0.index.limit) }
    let view = TableView(interfaces, limit: limit)
    let list = changed.map { interface in AddressList(interface.state.withLock { $0.addresses }) }
    for worker in netisr.workers {
      let (id, views) = (worker.id, views)
      worker.perform {
        views.slots.install(view, worker: id)
        if let changed, let list { changed.lists.install(list, worker: id) }
      }
    }
    views.setShared(view)
  }

  // MARK: Who is there

  /// Every interface, in the order of their attachment.
  public var interfaces: [Interface] { state.withLock { $0.interfaces } }
  public var domains: [any ProtocolDomain] { state.withLock { $0.domains } }

  /// - Parameter vnet: only what this stack instance sees; nil: any.
  public func interface(named name: String, vnet: Vnet? = nil) -> Interface? {
    guard let found = state.withLock({ $0.names[name] }), !found.isDying, vnet == nil || found.vnet == vnet else { return nil }
    return found
  }
}
