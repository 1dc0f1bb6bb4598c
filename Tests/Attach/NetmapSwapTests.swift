import DMAMemory
import Ifnet
import ModelKit
import NetmapAPI
import NetmapCore
import NetmapPorts
import Packet
import Testing

@testable import Attach

/// Two cards in one region, and which memory a card reaches.
@Suite struct NetmapSwapTests {
  /// Trades what one ring shows for free slots of the other. Returns the indexes that went over.
  private func swap(_ from: NetmapProgramRing, _ to: NetmapProgramRing) -> [UInt32] {
    var moved: [UInt32] = []
    var i = from.head, o = to.head
    while i != from.tail, o != to.tail {
      let received = from.slot(i), free = to.slot(o)
      to.setSlot(o, NetmapSlot(bufferIndex: received.bufferIndex, length: received.length, flags: received.flags.union(.bufferChanged)))
      from.setSlot(i, NetmapSlot(bufferIndex: free.bufferIndex, length: free.length, flags: .bufferChanged))
      moved.append(received.bufferIndex)
      (i, o) = (from.next(i), to.next(o))
    }
    from.setHead(i)
    to.setHead(o)
    return moved
  }

  @Test(
    "Packets go from card to card by their index, both ways, and nothing is copied or lost",
    arguments: [(NetmapModel.ixgbe, NetmapModel.ixgbe), (.e1000e, .ixgbe), (.virtio, .ixgbe), (.e1000e, .virtio)])
  func swapped(_ kinds: (NetmapModel, NetmapModel)) throws {
    let a = try NetmapLab(kinds.0), b = try NetmapLab(kinds.1, sharing: a)
    let before = (a.freeBuffers, a.freeRings, a.freeInterfaces)
    let left = try a.card.open(RingSelection(.allNIC)), right = try b.card.open(RingSelection(.allNIC))
    #expect(left.region === right.region && b.stackAllocator !== b.allocator)
    var number = 0, there: [[UInt8]] = [], back: [[UInt8]] = [], indexes: Set<UInt32> = []
    for round in 0..<60 {
      for _ in 0..<(round % 30) {
        let frame = NetmapLab.frame(number, count: 60 + number * 7 % 1400)
        if number % 3 == 0 {
          b.wire.send(frame)
          back.append(frame)
        } else {
          a.wire.send(frame)
          there.append(frame)
        }
        number += 1
      }
      for lab in [a, b] { lab.poll(2) }
      left.sync(.receive)
      right.sync(.receive)
      indexes.formUnion(swap(left.receiveRings[0], right.transmitRings[0]))
      indexes.formUnion(swap(right.receiveRings[0], left.transmitRings[0]))
      left.sync(.transmit)
      right.sync(.transmit)
      for lab in [a, b] { lab.poll(2) }
    }
    #expect(number > 800 && b.wire.sent.map(\.bytes) == there && a.wire.sent.map(\.bytes) == back)
    #expect(indexes.count > 64, "the buffers themselves went round")
    for (port, lab) in [(left, a), (right, b)] {
      let (r, t) = (port.receiveRings[0].id, port.transmitRings[0].id)
      #expect(port.counters(r)?.drops == 0 && port.counters(r)?.resets == 0 && port.counters(t)?.resets == 0)
      port.close()
      lab.driver.stop()
      lab.poll()
    }
    #expect((a.freeBuffers, a.freeRings, a.freeInterfaces) == before)
  }

  @Test("Frames over several slots go over as they are", arguments: [NetmapModel.ixgbe, .e1000e])
  func fragments(kind: NetmapModel) throws {
    let a = try NetmapLab(kind, mtu: 9000), b = try NetmapLab(.ixgbe, mtu: 9000, sharing: a)
    let left = try a.card.open(RingSelection(.allNIC)), right = try b.card.open(RingSelection(.allNIC))
    var frames: [[UInt8]] = []
    for i in 0..<20 {
      frames.append(NetmapLab.frame(i, count: 100 + i * 400))
      a.wire.send(frames[i])
      a.poll(2)
      left.sync(.receive)
      let slots = swap(left.receiveRings[0], right.transmitRings[0]).count
      #expect(slots == (frames[i].count + 2047) / 2048)
      left.sync(.receive)
      right.sync(.transmit)
      b.poll(2)
    }
    #expect(b.wire.sent.map(\.bytes) == frames)
  }

  @Test("A card reaches programs' memory from its first ring to the last buffer that it held", arguments: NetmapModel.allCases)
  func reach(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    let base = lab.allocator.bufferIOVABase.rawValue
    var isReached: Bool { unsafe lab.function.model.bus.memory.pointer(base, 64, writing: true) != nil }
    #expect(!isReached)
    let host = try lab.card.open(RingSelection(.software))
    #expect(!isReached, "host rings are no business of the card's")
    let port = try lab.card.open(RingSelection(.allNIC))
    #expect(isReached)
    port.close()
    // As many frames as it has buffers bring the last one home.
    for i in 0..<128 {
      lab.wire.send(NetmapLab.frame(i))
      if i % 16 == 0 { lab.poll(2) }
    }
    lab.poll(4)
    #expect(lab.stack.frames.count == 128 && lab.tenants[0] == nil)
    #expect(isReached, "the other port is open still")
    host.close()
    #expect(!isReached && lab.card.krings.region == nil && lab.recalls == 0)
  }

  @Test("Another region, or the end of one, has an idle card give its buffers back at once", arguments: NetmapModel.allCases)
  func regions(kind: NetmapModel) throws {
    let lab = try NetmapLab(kind)
    var sizes = lab.allocator.sizes
    sizes.buffers = 1024
    sizes.minimumBuffers = 1024
    var other: NetmapRegion? = try lab.memory.makePrivate(sizes, name: "program")
    let id = try #require(other).id
    func open(_ region: UInt16) throws(NetmapError) -> NetmapPort {
      let system = NetmapSystem(lab.netisr, memory: lab.memory)
      system.add(OneCard(lab.card))
      var register = RegisterRequest()
      register.memoryID = region
      return try system.register(PortRequest("em0", RingSelection(.allNIC), register: register))
    }
    let first = try open(1)
    #expect(first.region.kind == .global)
    do {
      _ = try open(id)
      Issue.record("an open port stays in its region")
    } catch { #expect(error.code == .EINVAL) }
    // In the place of each buffer that comes in, the card gets one of the region's.
    for i in 0..<10 { lab.wire.send(NetmapLab.frame(i)) }
    lab.poll(2)
    first.close()
    #expect(lab.card.krings.region != nil && lab.recalls == 0, "the card has buffers of it still")
    var second: NetmapPort? = try open(id)
    #expect(lab.recalls == 1 && second?.region.id == id && lab.allocator.statistics[2].inUse == 0)
    for i in 0..<5 { lab.wire.send(NetmapLab.frame(i)) }
    lab.poll(3)
    let ring = try #require(second?.receiveRings.first)
    second?.sync(.receive)
    // What the restarted card had of the stack's comes first; it is copied into the program's slots.
    #expect(lab.read(ring) == (0..<5).map { NetmapLab.frame($0) })
    second?.close()
    second = nil
    other = nil
    #expect(lab.memory.region(id) != nil)
    for _ in 0..<4 {
      lab.clock.sleep(nanoseconds: 400_000_000)
      lab.netisr.settle()
    }
    #expect(lab.recalls == 2 && lab.memory.region(id) == nil, "nobody waits for traffic that may never come")
  }

  private final class OneCard: NetmapPortProvider {
    let card: NetmapCard
    init(_ card: NetmapCard) { self.card = card }
    func adapter(for request: PortRequest, in system: NetmapSystem, create: Bool) throws(NetmapError) -> (any NetmapAdapter)? { card }
  }

  @Test("Buffers smaller than what the card writes are refused, before anything has changed")
  func small() throws {
    let lab = try NetmapLab(.ixgbe)
    var sizes = lab.allocator.sizes
    sizes.bufferSize = 1024
    let region = try lab.memory.makePrivate(sizes, name: "small")
    let system = NetmapSystem(lab.netisr, memory: lab.memory)
    do {
      _ = try system.open(lab.card, PortRequest("em0", RingSelection(.allNIC), external: region))
      Issue.record("1024 bytes are too few")
    } catch { #expect(error.code == .EINVAL && error.problem.contains("2048")) }
    #expect(region.users == 0 && region.allocator.leakReport().isEmpty && lab.tenants[0] == nil)
  }
}
