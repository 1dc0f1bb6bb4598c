// Interrupts of the 82599 model: causes, masks, vectors, moderation on virtual time.

import ModelKit
import Testing

@testable import Models

/// Causes, masks, vectors and moderation on virtual time; both modes give the same.
@Suite struct Intel82599InterruptTests {
  private func rig() throws -> Rig599 {
    let rig = try Rig599()
    rig.model.bus.interruptKind = .msix
    rig.model.bus.deliver = { _, _ in }
    // MSI-X, auto-clear and auto-mask of vectors 0 to 3; queue 0 to vector 0 (receive) and 1
    // (transmit), everything else to vector 2.
    rig.write(1 << 4 | 1 << 5 | 1 << 30, 0x898)
    rig.write(0xf, 0x810)
    rig.write(0xf, 0xad0)
    rig.write(0x8180, 0x900)
    rig.write(0x8200, 0xa00)
    _ = rig.read(0x800)
    return rig
  }
  private func count(_ rig: Rig599, _ vector: Int) -> Int { rig.model.bus.interrupts[vector, default: 0] }

  @Test func queuesHaveTheirVectors() throws {
    let rig = try rig()
    rig.startReceive(0)
    rig.startTransmit(0)
    rig.arrive([Frame599.plain(60)])
    #expect(count(rig, 0) == 0 && rig.read(0x808) & 1 == 1, "masked")
    rig.write(3, 0xaa0)
    #expect(count(rig, 0) == 1 && rig.read(0x808) & 1 == 0 && rig.read(0x880) & 3 == 2, "cleared, masked")
    rig.arrive([Frame599.plain(60)])
    #expect(count(rig, 0) == 1)
    rig.write(1, 0x880)
    #expect(count(rig, 0) == 2)
    rig.queueFrame(0, [Frame599.plain(60)])
    rig.ring(0)
    #expect(count(rig, 1) == 1 && count(rig, 2) == 0)
  }

  @Test func linkChangesComeOverTheOtherVector() throws {
    let rig = try rig()
    rig.write(1 << 20, 0x880)
    rig.model.setLink(up: false)
    rig.card.settle()
    #expect(count(rig, 2) == 1 && rig.read(0x800) == 1 << 20 && rig.read(0x800) == 0)
    rig.model.setLink(up: true)
    rig.card.settle()
    #expect(count(rig, 2) == 2)
    rig.card.settle()
    #expect(count(rig, 2) == 2, "signalled once")
  }

  @Test func moderationHoldsBack() throws {
    let rig = try rig()
    rig.write(0, 0xad0)
    rig.write(1, 0x880)
    rig.startReceive(0)
    // 50 microseconds: 25 units of 2, from bit 3 on.
    rig.write(25 << 3, 0x820)
    rig.arrive([Frame599.plain(60)])
    #expect(count(rig, 0) == 1)
    for _ in 0..<10 {
      rig.card.advance(nanoseconds: 4_000)
      rig.arrive([Frame599.plain(60)])
    }
    #expect(count(rig, 0) == 1 && rig.model.deadline == 50_000)
    rig.card.advance(nanoseconds: 10_000)
    #expect(count(rig, 0) == 2 && rig.model.deadline == nil)
  }

  @Test func forcedCausesReachTheLine() throws {
    let rig = try Rig599()
    rig.model.bus.interruptKind = .msi
    _ = rig.read(0x800)
    rig.write(.max, 0x888)
    for bit in 0..<10 {
      let mask = UInt32(1) << UInt32(bit)
      rig.write(~mask & 0x7fff, 0x888)
      rig.write(~mask & 0x7fff, 0x808)
      #expect(count(rig, 0) == bit, "masked causes are silent")
      _ = rig.read(0x800)
      rig.write(mask, 0x880)
      rig.write(mask, 0x808)
      #expect(count(rig, 0) == bit + 1 && rig.read(0x800) == mask)
      rig.write(mask, 0x888)
    }
  }

  @Test func causesAreClearedByReadingAndWriting() throws {
    let rig = try Rig599()
    _ = rig.read(0x800)
    rig.write(0x10_0003, 0x808)
    #expect(rig.read(0x808) == 0x10_0003)
    rig.write(1, 0x800)
    #expect(rig.read(0x800) == 0x10_0002 && rig.read(0x800) == 0)
    rig.write(1 << 5, 0x898)
    rig.write(0x10_0003, 0x808)
    #expect(rig.read(0x800) == 0x10_0003 && rig.read(0x800) == 3, "OCD: queue causes stay")
  }

  @Test func stormsAndSilence() throws {
    let rig = try rig()
    rig.write(1, 0x880)
    rig.model.inject(.interruptStorm)
    for _ in 0..<5 { rig.card.step() }
    #expect(count(rig, 0) == 5)
    rig.model.inject(.none)
    rig.model.inject(.noInterrupts)
    rig.write(1, 0x808)
    rig.card.settle()
    #expect(count(rig, 0) == 5)
  }

  /// The same traffic with trapped and with shared doorbells.
  @Test func bothModesAgree() throws {
    func run(_ mode: InProcessCard.Mode) throws -> (sent: [TestWire.Sent], received: [[Received599]], head: [UInt32]) {
      let rig = try Rig599(mode: mode)
      rig.write(3 << 16 | 1, 0x5818)
      for i in 0..<10 { rig.write(UInt32(truncatingIfNeeded: 0x9e37_79b9 &* (i + 1)), 0x5c80 + 4 * i) }
      for i in 0..<32 { rig.write(0x1403_0201, 0x5c00 + 4 * i) }
      for queue in [1, 2, 3, 4] { rig.startReceive(queue, count: 16) }
      for queue in [0, 5, 70] { rig.startTransmit(queue, count: 16) }
      var received = [[Received599]](repeating: [], count: 5)
      for round in 0..<30 {
        for queue in [0, 5, 70] {
          for i in 0...round % 4 { rig.queueFrame(queue, [Frame599.plain(60 + round, seed: UInt8(i))]) }
        }
        for queue in [0, 5, 70] { rig.write(UInt32(rig.transmit[queue]!.tail), Rig599.transmitAt(queue) + 0x18) }
        rig.arrive((0..<8).map {
          Frame599.ip4([198, 18, 0, UInt8(round)], [198, 18, 1, UInt8($0)], ports: (round * 7, $0 * 13))
        })
        for queue in 1...4 {
          received[queue] += rig.takeReceived(queue)
          let ring = rig.receive[queue]!
          rig.write(UInt32((ring.clean + ring.count - 1) % ring.count), Rig599.receiveAt(queue) + 0x18)
        }
      }
      rig.card.settle()
      #expect(rig.model.bus.complaints.isEmpty)
      return (rig.wire.sent, received, [0, 5, 70].map { rig.read(Rig599.transmitAt($0) + 0x10) })
    }
    let trapped = try run(.trapped), shared = try run(.shared)
    #expect(trapped.sent == shared.sent && trapped.received == shared.received && trapped.head == shared.head)
    #expect(trapped.sent.count == 219 && trapped.received.map(\.count).reduce(0, +) == 240)
    #expect(trapped.received.filter { !$0.isEmpty }.count == 4)
  }

  /// With shared doorbells a ring that is disabled and set up anew between two steps starts anew.
  @Test func sharedRingsMayBeReplaced() throws {
    let rig = try Rig599(mode: .shared)
    for round in 0..<3 {
      rig.startTransmit(0, count: 16)
      for i in 0..<5 { rig.queueFrame(0, [Frame599.plain(60, seed: UInt8(round * 5 + i))]) }
      rig.ring(0)
      rig.write(0, 0x6028)
    }
    #expect(rig.wire.sent.map { $0.bytes[14] } == (0..<15).map { UInt8($0) })
  }

  @Test func functionResetForgets() throws {
    let rig = try rig()
    rig.startTransmit(0)
    rig.write(1, 0x880)
    try rig.card.reset()
    #expect(rig.read(0x880) == 0 && rig.read(0x898) == 0 && rig.read(0x6028) == 0 && rig.read(0x4a80) & 1 == 0)
  }
}
