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
// - Control requests run on worker 0; what each worker owns changes by message.
// - An index names one interface as long as its generation fits; a stale one names nothing.

public import Netisr
public import Packet
internal import Synchronization
internal import Wire

/// All interfaces over one dispatcher.
public final class InterfaceTable: @unchecked Sendable {
  public let netisr: Netisr
  public var drops: DropLedger { netisr.drops }
  private struct State {
    var interfaces: [Interface] = []
    var generation: UInt16 = 0
    var domains: [any ProtocolDomain] = []
    var subscribers: [(WorkerToken, @Sendable (InterfaceEvent, Interface) -> Void)] = []
    var links: [InterfaceType: any LinkLayer] = [:]
  }
  private let state = Mutex(State())
  /// Takes a detached interface's routes away, on every worker. Set by the route table's owner.
  public var removeRoutes: (@Sendable (Interface) -> Void)?

  /// The stages of every worker, with their rollup.
  public let staging: Staging

  public init(_ netisr: Netisr) {
    self.netisr = netisr
    staging = Staging(netisr)
  }

  /// What frames of a link type mean. Set before interfaces of the type are attached.
  public func setLink(_ link: any LinkLayer, for type: InterfaceType) { state.withLock { $0.links[type] = link } }

  /// A family that attaches to every interface there is and will be.
  public func register(_ domain: any ProtocolDomain) {
    state.withLock { $0.domains.append(domain) }
    if domain.family == .ipv6 { staging.protocolHeader = 60 }
    for interface in interfaces { domain.attach(interface) }
  }

  @discardableResult
  public func attach(_ options: InterfaceOptions, driver: any InterfaceDriver) throws(InterfaceError) -> Interface {
    let interface = Interface(options, driver: driver, table: self)
    let domains = state.withLock { state -> [any ProtocolDomain] in
      state.generation &+= 1
      interface.link = state.links[options.type]
      interface.index = InterfaceIndex(UInt16(state.interfaces.count + 1), generation: state.generation)
      state.interfaces.append(interface)
      return state.domains
    }
    for domain in domains { domain.attach(interface) }
    announce(.attach, interface)
    announce(.arrival, interface)
    return interface
  }

  public func detach(_ interface: Interface) {
    announce(.departure, interface)
    announce(.detach, interface)
    let domains = state.withLock { state in
      state.interfaces.removeAll { $0 === interface }
      return state.domains
    }
    for domain in domains { domain.detach(interface) }
    removeRoutes?(interface)
    interface.detachSubqueues()
    interface.driver.detached(interface)
  }

  public var interfaces: [Interface] { state.withLock { $0.interfaces } }
  public var domains: [any ProtocolDomain] { state.withLock { $0.domains } }
  public func interface(named name: String) -> Interface? { interfaces.first { $0.name == name } }
  public func interface(_ index: InterfaceIndex) -> Interface? { interfaces.first { $0.index == index } }

  // MARK: Events

  public func announce(_ event: InterfaceEvent, _ interface: Interface) {
    for (token, body) in state.withLock({ $0.subscribers }) where !token.isCancelled { body(event, interface) }
  }

  /// Calls `body` for every event until the token is cancelled, on the thread on which it happens.
  public func subscribe(_ body: @escaping @Sendable (InterfaceEvent, Interface) -> Void) -> WorkerToken {
    let token = WorkerToken()
    state.withLock { $0.subscribers.append((token, body)) }
    return token
  }
}
