// Frames out of the 82574L's model: legacy and extended descriptors, offloads, segmentation, errors.

import ModelKit
import Models
import Testing
import Wire

@Suite struct Intel82574TransmitTests {
  /// Legacy descriptors (7.2.10.1), which our driver does not use, work as well.
  @Test(arguments: [InProcessCard.Mode.trapped, .shared])
  func aLegacyDescriptorIsSentAndReported(mode: InProcessCard.Mode) throws {
    let bench = try Card82574(mode: mode)
    bench.start()
    let data = (0..<64).map { UInt8($0) }
    bench.sendPlain(data)
    #expect(bench.wire.takeSent() == [TestWire.Sent(bytes: data, queue: 0)])
    #expect(bench.word(bench.transmitRing(0) + 8) >> 32 & 1 == 1)
    #expect(bench[0x3810] == 1)
    #expect(bench[0x4080] == 1)
    #expect(bench[0x4080] == 0)
  }

  @Test func addressesOutsideTheMappingsStopTheQueue() throws {
    let bench = try Card82574()
    bench.start()
    bench.post(0, 0x7777_0000, 60 | 0x0b << 24)
    bench.go()
    #expect(bench.model.bus.memory.faults == 1)
    #expect(bench.model.bus.memory.lastFault == 0x7777_0000)
    #expect(bench.model.bus.complaintCount == 1)
    bench.sendPlain(plainFrame(1))
    #expect(bench.wire.takeSent() == [])
    // Off and on again, and behind the bad descriptor: it goes on.
    bench[0x400] = 0
    bench[0x3810] = 1
    bench[0x400] = 1 << 1 | 1 << 3
    bench.card.settle()
    #expect(bench.wire.takeSent().map(\.bytes) == [plainFrame(1)])
    bench.card.setBusMaster(false)
    bench.sendPlain(plainFrame(2))
    #expect(bench.wire.takeSent() == [])
    #expect(bench.model.bus.memory.faults == 2)
  }
}
