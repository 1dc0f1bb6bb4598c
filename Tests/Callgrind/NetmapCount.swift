// The netmap mode of forward-count: a program of this process that swaps buffers between two cards of one region.
//
//    round:  both cards' device side                                                        not counted
//            A.rxsync ─ for each slot: swap index with B's transmit slot ─ B.txsync          counted
//            B.rxsync ─ … ─ A.txsync
//
// What the stack does in its place is left out: nobody polls the queues but the program.

import Attach
import DMAMemory
import DriverKit
import Ifnet
import NetmapAPI
import NetmapCore
import NetmapPorts
import Netisr
import Packet

/// A card that is attached to an interface as far as netmap mode needs it.
final class CountHost: NetmapHost, InterfaceDriver, @unchecked Sendable {
  let driver: any NetDriver
  let mapper: (any DMAMapper)?
  private let netisr: Netisr
  private let pool: PacketPool
  private var attached: Interface?
  private var tenant: (any QueueTenant)?
  var interface: Interface {
    guard let attached else { preconditionFailure("made with its interface") }
    return attached
  }

  init(_ driver: any NetDriver, _ function: CardFunction, _ table: InterfaceTable, _ pool: PacketPool, unit: Int) throws {
    self.driver = driver
    self.pool = pool
    mapper = function
    netisr = table.netisr
    attached = try table.attach(InterfaceOptions("em", unit: unit), driver: self)
    attached?.setDriverFlags([.running, .up])
  }

  func owner(ofQueue queue: Int) -> Worker { netisr.worker(queue) }
  func stackPool(ofQueue queue: Int) -> PacketPool { pool }
  func setTenant(_ tenant: (any QueueTenant)?, queue: Int) { self.tenant = tenant }
  func recallBuffers() {}
  func start(_ subqueue: Subqueue) {}
}

/// Cards of one driver in netmap mode.
struct NetmapBridge {
  let netisr: Netisr
  let hosts: [CountHost]
  let netmaps: [NetmapCard]
  let ports: [NetmapPort]

  init(_ cards: [any NullCard], _ drivers: [any NetDriver], _ pools: [PacketPool], space: IOVAAllocator) throws {
    var configuration = NetisrConfiguration()
    configuration.isManual = true
    configuration.maxThreads = 1
    netisr = try Netisr(configuration)
    let table = InterfaceTable(netisr)
    hosts = try cards.indices.map { try CountHost(drivers[$0], cards[$0].function, table, pools[$0], unit: $0) }
    let memory = NetmapMemory(
      NetmapMemoryOptions(sizes: PoolSizes(rings: 16, ringSize: 16640, buffers: 8194), backing: .normalPages), space: space,
      reachable: { [] })
    netmaps = try hosts.map { try NetmapCard($0, memory: memory) }
    ports = try netmaps.map { try $0.open(RingSelection(.allNIC)) }
    let allocator = try memory.global().allocator
    for card in cards { card.alsoReach(allocator) }
  }

  /// What a program does with one batch.
  @inline(never) static func swap(_ from: NetmapProgramRing, _ to: NetmapProgramRing, batch: UInt32) -> Int {
    var count = min(from.space, to.space, batch), moved = 0
    var i = from.head, o = to.head
    while count > 0 {
      let received = from.ring.slotWithoutPointer(i), free = to.ring.slotWithoutPointer(o)
      to.ring.setSlot(o, bufferIndex: received.bufferIndex, length: received.length, flags: .bufferChanged)
      from.ring.setSlot(i, bufferIndex: free.bufferIndex, length: free.length, flags: .bufferChanged)
      i = from.next(i)
      o = to.next(o)
      count &-= 1
      moved &+= 1
    }
    from.setHead(i)
    to.setHead(o)
    return moved
  }

  @inline(never) func forward(_ from: Int, _ to: Int, _ kings: [Kring], _ rings: [NetmapProgramRing], batch: Int) -> Int {
    let receive = from * 2 + 1, transmit = to * 2
    _ = netmaps[from].synchronise(kings[receive])
    let moved = Self.swap(rings[receive], rings[transmit], batch: UInt32(batch))
    if moved > 0 { _ = netmaps[to].synchronise(kings[transmit]) }
    return moved
  }

  /// Forwards at least `packets`; returns how many it were. On the cards' worker.
  @inline(never) func run(_ cards: [any NullCard], packets: Int, batch: Int) -> Int {
    let krings = ports.flatMap(\.krings), rings = ports.flatMap(\.rings)
    let a = cards[0], b = cards[1]
    var total = 0
    while total < packets {
      a.work(frames: batch)
      b.work(frames: batch)
      total += forward(0, 1, krings, rings, batch: batch)
      total += forward(1, 0, krings, rings, batch: batch)
    }
    return total
  }

  func close() {
    for port in ports { port.close() }
  }
}
