// An attached card changes over while its worker runs in a thread of its own.

import DMAMemory
import DriverKit
import Ifnet
import ModelKit
import Models
import NetmapCore
import NetmapPorts
import Netisr
import Packet
import Platform
import Synchronization
import Testing

@testable import Attach

@Suite(.serialized) struct NetmapThreadTests {
  /// Lets the model act on the card's worker, and puts numbered frames on its wire.
  private final class Far: WorkerPoller, @unchecked Sendable {
    let card: InProcessCard
    let wire = TestWire()
    let catcher: Catcher
    /// Frames on the way at a time: with fewer than any ring has slots, none may be lost.
    let window: Int
    /// Frames of a poll.
    let burst: Int
    /// Frames up to this number go out; those that did; those that the program has read.
    let limit = Atomic(0), sent = Atomic(0), read = Atomic(0)
    init(_ kind: CardKind, _ catcher: Catcher, window: Int, burst: Int) throws {
      card = InProcessCard(try kind.model(wire, queues: 1), name: "0000:05:00.0", stepsByItself: true)
      (self.catcher, self.window, self.burst) = (catcher, window, burst)
    }
    let eventDescriptor: Int32 = -1
    private var maySend: Bool {
      let number = sent.load(ordering: .relaxed)
      guard number < limit.load(ordering: .relaxed) else { return false }
      return number - read.load(ordering: .relaxed) - catcher.caught.withLock(\.count) < window
    }
    func poll(budget: Int) -> Int {
      for _ in 0..<burst where maySend {
        wire.send(CardRig.frame(sent.load(ordering: .relaxed)))
        sent.wrappingAdd(1, ordering: .relaxed)
      }
      card.advance(nanoseconds: 20_000)
      return 0
    }
    func arm() -> Bool { maySend }
    func disarm() {}
  }

  /// A card that is up, on a worker with a thread, and what has become of its frames.
  private final class Bench: @unchecked Sendable {
    let catcher = Catcher(), clock = MonotonicClock(), time = CardClock()
    let far: Far, netisr: Netisr, worker: Worker, allocator: NetmapAllocator, memory: CardMemory
    let programs: NetmapMemory
    let attachment: CardAttachment
    private let token: WorkerToken
    /// Numbers of the frames that the program has read.
    var mine: [Int] = []

    init(_ kind: CardKind, window: Int, burst: Int = 1) throws {
      far = try Far(kind, catcher, window: window, burst: burst)
      time.card = far.card
      netisr = try Netisr(NetisrConfiguration())
      worker = netisr.workers[0]
      let table = InterfaceTable(netisr)
      table.setLink(catcher, for: .ethernet)
      let sizes = PoolSizes(rings: 8, ringSize: 4352, buffers: 2050, minimumBuffers: 16, descriptorBytes: 1 << 20)
      let space = IOVAAllocator()
      let stack = try NetmapAllocator(sizes: sizes, backing: .normalPages, reachable: [far.card], space: space)
      programs = NetmapLab.makeMemory(sizes, [far.card], space)
      allocator = try programs.global().allocator
      memory = CardMemory(stack)
      var options = AttachOptions()
      options.port.receiveDescriptors = 64
      options.port.transmitDescriptors = 64
      attachment = try CardAttachment(
        far.card, driver: kind.driver, table: table, memory: memory, options: options, clock: time)
      token = worker.add(far)
      try netisr.start()
      let attachment = attachment
      worker.perform {
        try? attachment.handle(.setFlags(old: [], new: .up), on: attachment.interface)
        attachment.interface.setDriverFlags(.up)
      }
      #expect(wait { attachment.interface.linkStatus == .up })
    }

    /// Half a minute at most: other programs may want the processors too.
    func wait(until holds: () throws -> Bool) rethrows -> Bool {
      let end = clock.now() + 30_000_000_000
      while try !holds() {
        if clock.now() > end { return false }
        clock.sleep(nanoseconds: 1_000_000)
      }
      return true
    }

    var sent: Int { far.sent.load(ordering: .relaxed) }
    var stack: Int { catcher.caught.withLock(\.count) }
    /// So many frames more may come.
    func allow(_ count: Int) { far.limit.store(sent + count, ordering: .relaxed) }

    /// Takes all that a ring shows. Returns whether there was anything.
    func take(_ port: NetmapPort, _ ring: NetmapProgramRing, milliseconds: Int) -> Bool {
      guard port.wait(for: .receive, milliseconds: milliseconds).contains(.receive), !ring.isEmpty else { return false }
      while !ring.isEmpty {
        unsafe ring.withBuffer(ring.slot(ring.cur).bufferIndex) { unsafe mine.append(Int($0[14]) << 8 | Int($0[15])) }
        ring.advance()
        far.read.wrappingAdd(1, ordering: .relaxed)
      }
      return true
    }

    /// Every frame's number that was seen, by whomever.
    var seen: [Int] { (mine + catcher.frames.map { Int($0[14]) << 8 | Int($0[15]) }).sorted() }
    /// What the ledger says of the interface.
    func drops(_ reason: DropReason? = nil) -> Int {
      netisr.drops.snapshot().filter { $0.interface == attachment.interface.index && (reason ?? $0.reason) == $0.reason }
        .reduce(0) { $0 + Int($1.packets) }
    }

    /// The card leaves under an open port: the program hears of it, and its memory is its own until it closes.
    func end() throws {
      let netmap = try attachment.netmap(in: programs), port = try netmap.open(RingSelection(.allNIC))
      attachment.detach()
      #expect(port.wait(for: .receive, milliseconds: 0).contains(.error))
      port.close()
      worker.perform { [token] in token.cancel() }
      netisr.stop()
      #expect((try? programs.global().users) == 0 && netmap.isGone)
      #expect(allocator.statistics[1].inUse == 0 && allocator.statistics[0].inUse == 0)
    }
  }

  @Test("A program waits, reads and goes, thirty times, while frames come in: each is the program's or the stack's", arguments: CardKind.allCases)
  func changes(_ kind: CardKind) throws {
    let bench = try Bench(kind, window: 32), netmap = try bench.attachment.netmap(in: bench.programs)
    for round in 0..<30 {
      let port = try netmap.open(RingSelection(.nicAndSoftware))
      let ring = try #require(port.receiveRings.first)
      bench.allow(500)
      for _ in 0..<(round % 4 + 1) {
        // What is shown is read to the end before the program goes.
        try #require(bench.wait { bench.take(port, ring, milliseconds: 20) }, "round \(round): nothing for the program")
      }
      // Every other time it leaves frames behind that it was never shown.
      if round % 2 == 0 { try #require(bench.wait { bench.sent - bench.mine.count - bench.stack >= 16 }) }
      port.close()
      let before = bench.stack
      bench.allow(500)
      try #require(bench.wait { bench.stack > before }, "round \(round): nothing for the stack")
    }
    bench.far.limit.store(0, ordering: .relaxed)
    bench.worker.perform {}
    #expect(bench.wait { bench.mine.count + bench.stack >= bench.sent })
    #expect(bench.seen == Array(0..<bench.sent), "\(bench.sent) were sent; the program's \(bench.mine.count), the stack's \(bench.stack)")
    #expect(bench.mine.count >= 30 && bench.stack >= 30 && bench.drops() == 0)
    try bench.end()
  }

  @Test("A program does not read while more frames come than all rings hold: each is read, the stack's, or the card's loss in the ledger", arguments: CardKind.allCases)
  func overflows(_ kind: CardKind) throws {
    let total = 4000, bench = try Bench(kind, window: .max, burst: 8), netmap = try bench.attachment.netmap(in: bench.programs)
    let port = try netmap.open(RingSelection(.nicAndSoftware))
    let ring = try #require(port.receiveRings.first)
    bench.allow(total)
    #expect(bench.wait { bench.sent == total })
    // What fits into its ring, and what the card kept meanwhile, is the program's; what comes then is the stack's.
    for _ in 0..<2 { #expect(bench.wait { bench.take(port, ring, milliseconds: 20) }) }
    port.close()
    let attachment = bench.attachment
    func isAccounted() -> Bool {
      bench.worker.perform { attachment.tick() }
      return bench.mine.count + bench.stack + bench.drops() >= total
    }
    #expect(bench.wait(until: isAccounted))
    let seen = bench.seen
    #expect(seen.count + bench.drops() == total, "\(bench.mine.count) read, \(bench.stack) the stack's, \(bench.drops()) lost")
    #expect(Set(seen).count == seen.count && bench.mine.count > 63)
    // The 82574's model has no memory of its own: what finds no descriptor is lost.
    if kind == .em { #expect(bench.drops(.receiveRing) > 3000) }
    try bench.end()
  }
}
