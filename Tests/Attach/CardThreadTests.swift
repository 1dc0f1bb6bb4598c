// Cards on workers with threads of their own.

import DMAMemory
import DriverKit
import Ifnet
import ModelKit
import Models
import NetmapCore
import Netisr
import Packet
import Platform
import Synchronization
import Testing
import Wire

@testable import Attach

@Suite(.serialized) struct CardThreadTests {
  /// Lets a model act on the worker that owns its card, and puts frames on its wire.
  private final class Stepper: WorkerPoller, @unchecked Sendable {
    let card: InProcessCard
    init(_ card: InProcessCard) { self.card = card }
    let eventDescriptor: Int32 = -1
    func poll(budget: Int) -> Int {
      card.advance(nanoseconds: 20_000)
      return 0
    }
    func arm() -> Bool { false }
    func disarm() {}
  }

  /// A wire that is the owner worker's.
  private final class OwnedWire: @unchecked Sendable { let wire = TestWire() }

  private func wait(_ seconds: Double = 20, until holds: () -> Bool) -> Bool {
    let clock = MonotonicClock()
    let end = clock.now() + UInt64(seconds * 1e9)
    while !holds() {
      if clock.now() > end { return false }
      clock.sleep(nanoseconds: 1_000_000)
    }
    return true
  }

  @Test("Traffic in and out of a card whose worker sleeps and is woken by its interrupt", arguments: CardKind.allCases)
  func wakes(_ kind: CardKind) throws {
    let owned = OwnedWire()
    let card = InProcessCard(try kind.model(owned.wire, queues: 1), name: "0000:05:00.0", stepsByItself: true)
    let time = CardClock()
    time.card = card
    let netisr = try Netisr(NetisrConfiguration())
    let table = InterfaceTable(netisr)
    let catcher = Catcher()
    table.setLink(catcher, for: .ethernet)
    let allocator = try NetmapAllocator(
      sizes: PoolSizes(
        interfaces: 2, interfaceSize: 256, rings: 4, ringSize: 1024, buffers: 2050, minimumBuffers: 16, descriptorBytes: 1 << 20),
      backing: .normalPages, reachable: [card])
    let memory = CardMemory(allocator)
    var options = AttachOptions()
    options.port.receiveDescriptors = 64
    options.port.transmitDescriptors = 64
    let attachment = try CardAttachment(
      card, driver: kind.driver, table: table, memory: memory, options: options, clock: time)
    let stepper = Stepper(card)
    let token = netisr.workers[0].add(stepper)
    try netisr.start()
    let worker = netisr.workers[0]
    worker.perform {
      try? attachment.handle(.setFlags(old: [], new: .up), on: attachment.interface)
      attachment.interface.setDriverFlags(.up)
    }
    #expect(wait { attachment.interface.linkStatus == .up })
    for n in 0..<50 {
      worker.perform {
        owned.wire.send(CardRig.frame(n))
        if let packet = attachment.stackPool(ofQueue: 0).allocate() {
          packet.fill(with: CardRig.frame(1000 + n))
          attachment.interface.transmit(packet)
        }
      }
      if n % 10 == 0 { MonotonicClock().sleep(nanoseconds: 3_000_000) }
    }
    #expect(wait { catcher.frames.count == 50 })
    #expect(wait { worker.perform { owned.wire.sent.filter { $0.bytes.count >= 60 && $0.bytes[12] == 0x88 }.count } == 50 })
    #expect(catcher.frames == (0..<50).map { CardRig.frame($0) })
    attachment.detach()
    worker.perform { token.cancel() }
    netisr.stop()
    #expect(memory.heldByPackets == 0)
  }

  @Test("Two workers send and receive while the card is started, stopped, remade and looked after: nobody meets")
  func stress() throws {
    var configuration = NetisrConfiguration()
    configuration.maxThreads = 2
    let netisr = try Netisr(configuration)
    guard netisr.workers.count == 2 else { return }
    let table = InterfaceTable(netisr)
    table.setLink(Catcher(), for: .ethernet)
    let allocator = try NetmapAllocator(
      sizes: PoolSizes(
        interfaces: 2, interfaceSize: 256, rings: 4, ringSize: 1024, buffers: 2050, minimumBuffers: 16, descriptorBytes: 1 << 20),
      backing: .normalPages, reachable: [])
    let memory = CardMemory(allocator)
    var options = AttachOptions()
    options.port.queues = 2
    options.port.receiveDescriptors = 64
    options.port.transmitDescriptors = 64
    let witness = LoopWitness()
    let attachment = try CardAttachment(
      LoopDriver(options.port, witness), function: nil, table: table, memory: memory, options: options
    ) { port throws(DriverError) in LoopDriver(port, witness) }
    let interface = attachment.interface
    try netisr.start()
    let isOver = Atomic(false)
    // Each worker sends packets of its own queue's pool, again and again.
    let timers = netisr.workers.map { worker in
      worker.schedule(after: 0, every: 50_000) {
        guard !isOver.load(ordering: .relaxed), attachment.health != .gone else { return }
        for n in 0..<8 {
          guard let packet = attachment.stackPool(ofQueue: worker.id).allocate() else { return }
          packet.fill(with: CardRig.frame(n))
          interface.transmit(packet)
        }
      }
    }
    func ask(_ request: DriverRequest) {
      netisr.workers[0].perform {
        do { try attachment.handle(request, on: interface) } catch { Issue.record("\(request): \(error)") }
      }
    }
    for round in 0..<60 {
      ask(.setFlags(old: [], new: .up))
      MonotonicClock().sleep(nanoseconds: 2_000_000)
      ask(.setFlags(old: .up, new: [.up, .promisc]))
      if round % 4 == 1 { ask(.setMTU(1600 + round)) }
      if round % 4 == 2 { ask(.setLinkAddress(MACAddress(2, 0, 0, 0, 1, UInt8(round)))) }
      netisr.workers[0].perform { attachment.tick() }
      if round % 4 == 3 { netisr.workers[0].perform { attachment.restart() } }
      MonotonicClock().sleep(nanoseconds: 1_000_000)
      if round % 2 == 1 { ask(.setFlags(old: .up, new: [])) }
    }
    // Both directions were in it, however little of the processors the workers got.
    ask(.setFlags(old: [], new: .up))
    #expect(wait { witness.sends.load(ordering: .relaxed) > 100 && witness.received.load(ordering: .relaxed) > 100 })
    // Without traffic the workers come to rest, and let the interrupts through.
    isOver.store(true, ordering: .relaxed)
    for timer in timers { timer.cancel() }
    netisr.barrier()
    let arms = witness.arms.load(ordering: .relaxed)
    netisr.workers[0].perform {}
    #expect(wait { witness.arms.load(ordering: .relaxed) > arms })
    #expect(witness.clashes.load(ordering: .relaxed) == 0)
    attachment.detach()
    netisr.barrier()
    netisr.stop()
    #expect(memory.heldByPackets == 0)
  }
}
