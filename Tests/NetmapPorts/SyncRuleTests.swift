import NetmapAPI
import NetmapCore
import Testing

@testable import NetmapPorts

@Suite("What every port's sync does")
struct SyncRuleTests {
  @Test("Receive syncs of ports without a card are stamped, unless that is switched off and nobody asks")
  func stamps() throws {
    let lab = try NetmapTestSystem.complete()
    let a = try lab.pipe("x{1"), ring = a.receiveRings[0].ring
    func stamp() -> UInt64 { unsafe ring.base.load(fromByteOffset: RingOffset.seconds, as: UInt64.self) }
    lab.system.settings.noTimestamp = true
    a.sync(.receive)
    #expect(stamp() == 0)
    ring.storeFlags(.timestamp)
    a.sync(.receive)
    #expect(stamp() > 1_600_000_000)
    ring.storeTimestamp(seconds: 0, microseconds: 0)
    ring.storeFlags([])
    lab.system.settings.noTimestamp = false
    a.sync(.receive)
    #expect(stamp() > 1_600_000_000)
  }

  @Test("A sync during another of the same ring is skipped, and is no error")
  func skipped() throws {
    let lab = try NetmapTestSystem.complete()
    let a = try lab.pipe("x{1")
    let kring = try #require(a.krings.first { $0.id.direction == .transmit })
    TestFrame.put(a.transmitRings[0], 1)
    check(kring.begin())
    #expect(a.synchronise(kring) && kring.skipped == 1 && kring.rhead == 0)
    kring.end()
    #expect(a.synchronise(kring) && kring.rhead == 1)
  }

  @Test("A reset of a receive ring leaves slots alone that are not the program's")
  func resetSlots() throws {
    let lab = try NetmapTestSystem.complete()
    let a = try lab.pipe("x{1"), b = try lab.pipe("x}1")
    b.sync(.receive)
    for n in 0..<4 { TestFrame.put(a.transmitRings[0], UInt64(n)) }
    a.sync(.transmit)
    b.sync(.receive)
    let ring = b.receiveRings[0]
    for i in [2, 20] as [UInt32] { ring.setSlot(i, NetmapSlot(bufferIndex: .max, length: 60)) }
    ring.setHead(50)
    #expect(b.wait(for: .receive, milliseconds: 0).contains(.error))
    #expect(ring.head == 0 && ring.slot(2).bufferIndex == 0 && ring.slot(2).length == 0, "the program's slot lost what was wrong")
    #expect(ring.slot(20).bufferIndex == .max, "the other side's slot means nothing, and is not touched")
    // The next packets come into slots with the adapter's own buffers.
    for n in 4..<30 { TestFrame.put(a.transmitRings[0], UInt64(n)) }
    a.sync(.transmit)
    b.sync(.receive)
    #expect(b.allocatorHolds((4..<30).map { ring.slot($0).bufferIndex }))
  }
}

extension NetmapPort {
  /// Whether all these buffers are the region's programs'.
  func allocatorHolds(_ buffers: [UInt32]) -> Bool {
    guard let holder = krings.first?.holder else { return false }
    return buffers.allSatisfy { region.allocator.ledger.isHeld($0, by: holder) }
  }
}
