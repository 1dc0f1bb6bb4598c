// What happens to a card: links, hangs, removal; and that nothing is lost without a reason.

import DMAMemory
import DeviceIO
import DriverKit
import Ifnet
import ModelKit
import Models
import NetmapCore
import Netisr
import PCI
import Packet
import Platform
import Synchronization
import Testing

@testable import Attach

@Suite struct CardEventTests {
  @Test("The link's changes are announced once, and media are what the card says", arguments: CardKind.allCases)
  func link(_ kind: CardKind) throws {
    let rig = try CardRig(kind)
    let events = Guarded<[InterfaceEvent]>([])
    let token = rig.table.subscribe { event, _ in if case .link = event { events.withLock { $0.append(event) } } }
    #expect(rig.attachment.media?.active == "none")
    try rig.up()
    let media = rig.attachment.media
    #expect(media?.configured == "Ethernet autoselect")
    #expect(media?.status == "active")
    switch kind {
    case .em: #expect(media?.active == "1000baseT <full-duplex>")
    case .ix: #expect(media?.active == "10Gbase-T <full-duplex>")
    case .vtnet: #expect(media?.baudRate == UInt64(rig.attachment.link.speed) * 1_000_000)
    }
    rig.model.setLink(up: false)
    for _ in 0..<4 { rig.pass(1_000_000_000) }
    #expect(rig.interface.linkStatus == .down)
    #expect(rig.attachment.media?.status == "no carrier")
    #expect(rig.attachment.media?.active == "none")
    rig.model.setLink(up: true)
    for _ in 0..<20 where rig.interface.linkStatus != .up { rig.pass(1_000_000_000) }
    #expect(rig.interface.linkStatus == .up)
    let changes = events.withLock { $0 }
    #expect(changes.suffix(3) == [.link(.up), .link(.down), .link(.up)])
    token.cancel()
    rig.attachment.detach()
  }

  @Test("A transmit hang is found within seconds; what was on the ring is counted, and traffic goes on", arguments: CardKind.allCases)
  func hang(_ kind: CardKind) throws {
    let rig = try CardRig(kind, options: { $0.queueLength = 1000 })
    try rig.up()
    _ = rig.wire.takeSent()
    rig.model.inject(.transmitHang)
    rig.send(0..<300)
    for _ in 0..<20 { rig.pass(1_000_000_000) }
    rig.model.inject(.none)
    for _ in 0..<20 where rig.interface.linkStatus != .up { rig.pass(1_000_000_000) }
    for _ in 0..<20 { rig.finish() }
    rig.send(1000..<1004)
    for _ in 0..<20 { rig.finish() }
    let sent = rig.wire.takeSent()
    #expect(sent.suffix(4).map(\.bytes) == (1000..<1004).map { CardRig.frame($0) })
    rig.pass(1_000_000_000)
    // 304 frames were offered: sent, or lost in the reset.
    #expect(sent.count + rig.drops(.deviceReset) == 304)
    #expect(rig.drops(.deviceReset) > 0)
    #expect(rig.interface.counters.opackets == 304)
    #expect(!rig.interface.subqueues[0].isActive)
    rig.attachment.detach()
    rig.expectNothingHeld()
  }

  @Test("A card that is pulled out takes its interface with it, and every buffer comes back", arguments: CardKind.allCases)
  func unplugged(_ kind: CardKind) throws {
    let rig = try CardRig(kind)
    let lost = Guarded<[CardLoss]>([])
    rig.attachment.onLoss = { _, reason in lost.withLock { $0.append(reason) } }
    try rig.up()
    rig.catcher.keeps.withLock { $0 = true }
    for n in 0..<10 { rig.wire.send(CardRig.frame(n)) }
    rig.send(0..<10)
    rig.finish()
    rig.card.isRemoved = true
    rig.send(10..<20)
    for _ in 0..<3 { rig.pass(1_000_000_000) }
    #expect(lost.withLock { $0 } == [.gone])
    #expect(rig.table.interface(named: rig.interface.name) == nil)
    #expect(rig.card.isClosed)
    #expect(rig.attachment.health == .gone)
    // The stack's packets outlive the card.
    #expect(rig.memory.heldByPackets == 10)
    rig.catcher.letGo()
    rig.expectNothingHeld()
    rig.send(20..<22)
    rig.expectNothingHeld()
  }

  @Test("A card that is asked back, or reports an uncorrectable error, is detached at once")
  func askedBack() throws {
    for (event, reason) in [
      (PCIFunctionEvents.removalRequested, CardLoss.askedBack), (.registerFault, .gone),
      (.deviceError, .quarantined("an uncorrectable PCI Express error was reported")),
    ] {
      let rig = try CardRig(.ix)
      let lost = Guarded<[CardLoss]>([])
      rig.attachment.onLoss = { _, reason in lost.withLock { $0.append(reason) } }
      try rig.up()
      rig.card.post(event)
      rig.attachment.serviceSoon()
      rig.netisr.settle()
      #expect(lost.withLock { $0 } == [reason])
      #expect(rig.card.isClosed)
      rig.expectNothingHeld()
    }
  }

  @Test("A card that lies is quarantined, its interface goes, the process stays")
  func quarantined() throws {
    let rig = try CardRig(.vtnet)
    let lost = Guarded<[CardLoss]>([])
    rig.attachment.onLoss = { _, reason in lost.withLock { $0.append(reason) } }
    try rig.up()
    for _ in 0..<20 where lost.withLock({ $0.isEmpty }) {
      rig.model.inject(.indexJump(500, count: 4))
      for n in 0..<4 { rig.wire.send(CardRig.frame(n)) }
      rig.send(0..<4)
      rig.pass(1_000_000_000)
    }
    guard case .quarantined? = lost.withLock({ $0.first }) else {
      Issue.record("it was not quarantined: \(lost.withLock { $0 }), \(rig.attachment.health)")
      return
    }
    #expect(rig.card.isClosed)
    rig.expectNothingHeld()
  }

  @Test("A card that cannot start leaves the interface down")
  func cannotStart() throws {
    let rig = try CardRig(.em, options: { $0.extraBuffers = 0 })
    rig.model.inject(.stuckReset)
    #expect(throws: InterfaceError.self) { try rig.request(.setFlags(old: [], new: .up)) }
    #expect(!rig.interface.flags.contains(.running))
    #expect(rig.attachment.stackPool(ofQueue: 0).available == rig.attachment.stackPool(ofQueue: 0).capacity)
    rig.model.inject(.none)
    try rig.up()
    rig.attachment.detach()
    rig.expectNothingHeld()
  }

  @Test("received = delivered + drops, under more load than the ring holds and with damaged frames", arguments: CardKind.allCases)
  func conservation(_ kind: CardKind) throws {
    let rig = try CardRig(kind)
    try rig.up()
    var offered = 0
    for round in 0..<12 {
      // Bursts larger than the ring, while nobody looks.
      for n in 0..<150 {
        rig.wire.send(CardRig.frame(n), marks: round % 3 == 1 && n % 10 == 0 ? .badCheckSequence : [])
        offered += 1
      }
      rig.card.advance(nanoseconds: 1_000_000)
      rig.finish()
    }
    rig.pass(1_000_000_000)
    let input = Int(rig.interface.counters.ipackets)
    let card = rig.drops(.receiveRing, .receiveError)
    #expect(rig.catcher.frames.count == input)
    #expect(input > 500)
    // The virtio model drops by itself what it finds no buffer for: its driver cannot know.
    if kind != .vtnet {
      #expect(input + card == offered)
      #expect(card > 0)
    } else {
      #expect(input + (rig.model as! VirtioNetModel).counters.noBuffer + (rig.model as! VirtioNetModel).counters.damaged == offered)
    }
    rig.attachment.detach()
    rig.expectNothingHeld()
  }

  @Test("A polling interface never arms its card", arguments: CardKind.allCases)
  func polling(_ kind: CardKind) throws {
    let rig = try CardRig(kind)
    try rig.up()
    try rig.request(.polling(true))
    #expect(rig.attachment.isPolling)
    let queue = rig.attachment.queues[0]
    #expect(rig.netisr.workers[0].perform { queue.arm() })
    try rig.request(.polling(false))
    #expect(!rig.netisr.workers[0].perform { queue.arm() })
    // A frame that came between is found when the interrupt is let through.
    rig.netisr.workers[0].perform { queue.disarm() }
    rig.wire.send(CardRig.frame(1))
    rig.card.advance(nanoseconds: 300_000)
    #expect(rig.netisr.workers[0].perform { queue.arm() })
    rig.finish()
    #expect(rig.catcher.frames.count == 1)
    rig.attachment.detach()
  }

  /// A clock that the test moves.
  private final class TestClock: TimeSource {
    let time = Atomic<UInt64>(1_000_000_000)
    func now() -> UInt64 { time.load(ordering: .relaxed) }
    func sleep(nanoseconds: UInt64) { time.wrappingAdd(nanoseconds, ordering: .relaxed) }
  }

  @Test("A ring that stands still although its driver finds nothing: the watchdog starts the card anew, on the owner's word")
  func stuckRing() throws {
    var configuration = NetisrConfiguration()
    configuration.maxThreads = 2
    configuration.isManual = true
    let clock = TestClock()
    let netisr = try Netisr(configuration, clock: clock)
    let table = InterfaceTable(netisr)
    table.setLink(Catcher(), for: .ethernet)
    let allocator = try NetmapAllocator(
      sizes: PoolSizes(
        interfaces: 2, interfaceSize: 256, rings: 4, ringSize: 1024, buffers: 2050, minimumBuffers: 16, descriptorBytes: 1 << 20),
      backing: .normalPages, reachable: [])
    var options = AttachOptions()
    options.port.queues = 2
    options.port.receiveDescriptors = 64
    options.port.transmitDescriptors = 64
    let witness = LoopWitness()
    let attachment = try CardAttachment(
      LoopDriver(options.port, witness), function: nil, table: table, memory: CardMemory(allocator), options: options)
    let interface = attachment.interface
    try interface.bringUp()
    #expect(interface.flags.contains(.running))
    witness.isStalled.store(true, ordering: .relaxed)
    netisr.workers[1].perform {
      for n in 0..<8 {
        if let packet = attachment.stackPool(ofQueue: 1).allocate() {
          packet.fill(with: CardRig.frame(n))
          interface.transmit(packet)
        }
      }
    }
    func second() {
      clock.sleep(nanoseconds: 1_000_000_000)
      netisr.settle()
    }
    #expect(interface.subqueues[1].isActive)
    for _ in 0..<4 { second() }
    #expect(witness.starts.load(ordering: .relaxed) == 1)
    for _ in 0..<2 { second() }
    #expect(witness.starts.load(ordering: .relaxed) == 2)
    #expect(interface.counters.oerrors == 1)
    witness.isStalled.store(false, ordering: .relaxed)
    for _ in 0..<2 { second() }
    #expect(witness.sends.load(ordering: .relaxed) == 8)
    #expect(!interface.subqueues[1].isActive)
    // An MTU that needs the driver anew is refused where nobody can make it, and nothing has changed.
    #expect(throws: InterfaceError.self) {
      try netisr.workers[0].perform { () -> Result<Void, InterfaceError> in
        do throws(InterfaceError) { try attachment.handle(.setMTU(9000), on: interface) } catch { return .failure(error) }
        return .success(())
      }.get()
    }
    #expect(interface.flags.contains(.running))
    attachment.detach()
    #expect(attachment.memory.heldByPackets == 0)
    #expect(witness.clashes.load(ordering: .relaxed) == 0)
  }
}
