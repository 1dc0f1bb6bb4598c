// Stack: everything of a running Ringway in one object: memory, workers, interfaces, routes, protocols.
//
//     memory (PortMemory) ─ pools of the workers and of the cards' queues
//     Netisr: workers ─┬─ InterfaceTable ─ Ethernet, loopback ─ Inet, Inet6 ─ RouteTable
//                      ├─ cards (Attach), cloned interfaces (Clones)
//                      └─ NetmapSystem ─ cards by name (CardPorts), over memory of its own: the stack's packets never lie
//                         in memory that a program maps
//
// The daemon makes one and serves it over the control socket; a program may make one of its own.
//
// Invariants
// - Made in the order of the floors, taken down in the opposite one: netmap programs, clones, cards, protocols, workers,
//   memory.
// - A stack that is stopped leaves no buffer behind; what the allocator misses is in the report of `stop`.

public import Attach
internal import Clones
public import Control
public import DMAMemory
public import DeviceIO
internal import DriverKit
public import Ether
public import Ifnet
public import Inet
public import Inet6
public import Netisr
public import NetmapPorts
internal import NetmapServer
internal import Packet
public import Platform
public import Routes
internal import Synchronization

/// How a stack is made.
public struct StackOptions: Sendable {
  public var netisr = NetisrConfiguration()
  public var memory = MemoryOptions()
  /// Packets of each worker for what the stack itself sends.
  public var packetsPerWorker = 2048
  /// Memory and limits of netmap programs.
  public var netmap = NetmapOptions()
  public init() {}
}

/// Why a stack, or a part of it, could not be made.
public enum StackError: Error, CustomStringConvertible {
  case memory(RingwayError)
  case netisr(NetisrError)
  case interface(InterfaceError)
  public var description: String {
    switch self {
    case .memory(let error): "\(error)"
    case .netisr(let error): "\(error)"
    case .interface(let error): "\(error)"
    }
  }
}

/// A whole stack.
public final class Stack: @unchecked Sendable {
  public let options: StackOptions
  public let memory: PortMemory
  public let netisr: Netisr
  public let interfaces: InterfaceTable
  public let routes: RouteTable
  public let ether: EtherLayer
  public let loopback: LoopbackLayer
  public let inet: Inet
  public let inet6: Inet6
  public let clock: any TimeSource
  /// netmap's ports: registers programs of this process, and those that the daemon serves.
  public let netmap: NetmapSystem
  /// netmap's settings for cards.
  public let netmapSettings: NetmapSettings
  let cardMemory: CardMemory
  let openCards = OpenCards()
  private let pools: [PacketPool]
  struct State {
    var isStopped = false
    var cards: [AttachedCard] = []
    var refuseCreation: (@Sendable (String) -> ControlError?)?
    var netmapServer: NetmapServer?
  }
  let state = Mutex(State())

  /// Asked before an interface is made: why it cannot be, when the process has given up what that takes.
  public var refuseCreation: (@Sendable (String) -> ControlError?)? {
    get { state.withLock { $0.refuseCreation } }
    set { state.withLock { $0.refuseCreation = newValue } }
  }

  /// Makes everything; no thread runs yet.
  /// - Parameters:
  ///   - reachable: cards that will be attached: the memory's bus addresses are chosen so that all of them reach it.
  ///   - clock: of workers and protocols.
  public init(_ options: StackOptions = StackOptions(), reachable: [StackCard] = [], clock: any TimeSource = MonotonicClock()) throws(StackError) {
    self.options = options
    self.clock = clock
    do { memory = try PortMemory(options.memory, reachable: reachable.map { $0.opened.function }) } catch { throw .memory(error) }
    cardMemory = CardMemory(memory.allocator)
    for card in reachable { openCards.add(card.opened.function) }
    do {
      netisr = try Netisr(options.netisr, clock: clock)
      interfaces = InterfaceTable(netisr)
      routes = RouteTable(netisr)
      ether = try EtherLayer(interfaces)
      loopback = LoopbackLayer(interfaces)
      inet = try Inet(ether: ether, routes: routes)
      inet6 = try Inet6(ether: ether, routes: routes)
    } catch { throw .netisr(error) }
    do throws(InterfaceError) { try Clones.register(in: interfaces, ether: ether) } catch { throw .interface(error) }
    (netmap, netmapSettings) = Self.makeNetmap(options, netisr, interfaces, space: memory.space, openCards)
    interfaces.removeRoutes = { [routes] in routes.removeRoutes(through: $0.index) }
    var pools: [PacketPool] = []
    do {
      for worker in netisr.workers {
        let pool = try memory.takePool(count: options.packetsPerWorker)
        worker.pool = pool
        pools.append(pool)
      }
    } catch { throw .memory(.driver(error)) }
    self.pools = pools
  }

  /// Starts the workers.
  public func start() throws(StackError) {
    do { try netisr.start() } catch { throw .netisr(error) }
  }

  /// Packets that wait in send queues.
  public var queued: Int { interfaces.interfaces.reduce(0) { $0 + $1.subqueues.reduce(0) { $0 + $1.count } } }

  /// Waits until the send queues are empty, or the time is over.
  /// - Returns: packets that are still queued.
  @discardableResult public func drain(within nanoseconds: UInt64) -> Int {
    let end = clock.now() &+ nanoseconds
    while queued > 0, clock.now() < end { clock.sleep(nanoseconds: 1_000_000) }
    return queued
  }

  /// Interfaces go in the opposite order of their coming, then the workers. Idempotent.
  /// - Returns: what the allocator still misses, a sentence each.
  @discardableResult public func stop() -> [String] {
    let isFirst = state.withLock { state in
      defer { state.isStopped = true }
      return !state.isStopped
    }
    guard isFirst else { return [] }
    stopNetmap()
    takeDownInterfaces()
    inet6.stop()
    netisr.stop()
    interfaces.dissolve()
    for worker in netisr.workers { worker.pool = nil }
    memory.giveBack(pools)
    let pools = pools.filter { $0.available < $0.capacity }.map {
      "a worker's pool misses \($0.capacity - $0.available) of \($0.capacity) packets"
    }
    let regions = netmap.memory.regions.filter { !$0.allocator.leakReport().isEmpty }.map {
      "netmap's memory region \($0.id) (\($0.name)): \($0.allocator.leakReport())"
    }
    return pools + regions
  }
}
