// An attached card changes over while its worker runs in a thread of its own.

import DMAMemory
import DriverKit
import Ifnet
import ModelKit
import NetmapCore
import Netisr
import Packet
import Platform
import Testing

@testable import Attach

@Suite(.serialized) struct NetmapThreadTests {
  /// Lets the model act on the card's worker, with a frame on its wire now and then.
  private final class Far: WorkerPoller, @unchecked Sendable {
    let card: InProcessCard
    let wire: TestWire
    var limit = 0, number = 0
    init(_ card: InProcessCard, _ wire: TestWire) { (self.card, self.wire) = (card, wire) }
    let eventDescriptor: Int32 = -1
    func poll(budget: Int) -> Int {
      if number < limit {
        wire.send(CardRig.frame(number))
        number += 1
      }
      card.advance(nanoseconds: 20_000)
      return 0
    }
    func arm() -> Bool { number < limit }
    func disarm() {}
  }

  @Test("A program waits, reads and goes, thirty times, while frames come in: each is the program's or the stack's", arguments: CardKind.allCases)
  func changes(_ kind: CardKind) throws {
    let wire = TestWire()
    let card = InProcessCard(try kind.model(wire, queues: 1), name: "0000:05:00.0", stepsByItself: true)
    let time = CardClock()
    time.card = card
    let netisr = try Netisr(NetisrConfiguration())
    let table = InterfaceTable(netisr), catcher = Catcher()
    table.setLink(catcher, for: .ethernet)
    let allocator = try NetmapAllocator(
      sizes: PoolSizes(rings: 8, ringSize: 4352, buffers: 2050, minimumBuffers: 16, descriptorBytes: 1 << 20),
      backing: .normalPages, reachable: [card])
    let memory = CardMemory(allocator)
    var options = AttachOptions()
    options.port.receiveDescriptors = 64
    options.port.transmitDescriptors = 64
    let attachment = try CardAttachment(card, driver: kind.driver, table: table, memory: memory, options: options, clock: time)
    let far = Far(card, wire), worker = netisr.workers[0]
    let token = worker.add(far)
    try netisr.start()
    worker.perform {
      try? attachment.handle(.setFlags(old: [], new: .up), on: attachment.interface)
      attachment.interface.setDriverFlags(.up)
    }
    let clock = MonotonicClock(), end = clock.now() + 20_000_000_000
    while attachment.interface.linkStatus != .up, clock.now() < end { clock.sleep(nanoseconds: 1_000_000) }
    #expect(attachment.interface.linkStatus == .up)
    worker.perform { far.limit = 2000 }
    let netmap = try attachment.netmap()
    var mine = 0
    for round in 0..<30 {
      let port = try netmap.open(RingSelection(.nicAndSoftware))
      let ring = try #require(port.receiveRings.first)
      for _ in 0..<(round % 4 + 1) {
        guard port.wait(for: .receive, milliseconds: 20).contains(.receive) else { continue }
        while !ring.isEmpty {
          mine += 1
          ring.advance()
        }
      }
      // What is shown is read to the end before the program goes.
      port.close()
    }
    while worker.perform({ far.number < far.limit }), clock.now() < end { clock.sleep(nanoseconds: 1_000_000) }
    func stack() -> Int { worker.perform { catcher.frames.count } }
    while mine + stack() < 2000, clock.now() < end { clock.sleep(nanoseconds: 1_000_000) }
    #expect(mine + stack() == 2000 && mine > 0, "the program's \(mine), the stack's \(stack())")
    // It leaves under an open port: the program hears of it, and its memory is its own until it closes.
    let port = try netmap.open(RingSelection(.allNIC))
    attachment.detach()
    #expect(port.wait(for: .receive, milliseconds: 0).contains(.error))
    port.close()
    worker.perform { token.cancel() }
    netisr.stop()
    #expect(memory.region.users == 0 && netmap.isGone)
    #expect(allocator.statistics[1].inUse == 0 && allocator.statistics[0].inUse == 0)
  }
}
