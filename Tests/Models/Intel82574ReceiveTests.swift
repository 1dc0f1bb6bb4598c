// Frames into the 82574L's model: descriptors of every kind, filters, tags, checksums, counters.

import ModelKit
import Models
import Testing
import Wire

@Suite struct Intel82574ReceiveTests {
  let bench: Card82574
  init() throws { bench = try Card82574() }

  private let other = MACAddress(2, 0, 0, 0, 0, 77), group = MACAddress(1, 0, 0x5e, 0, 0, 5)

  /// A frame with a tag.
  private func tagged(_ tag: UInt16, type: UInt16 = 0x8100) -> [UInt8] {
    var frame = plainFrame(1, count: 100)
    frame.insert(contentsOf: [UInt8(type >> 8), UInt8(type & 255), UInt8(tag >> 8), UInt8(tag & 255)], at: 12)
    return frame
  }

  @Test func framesArriveInOrderAndOneDescriptorStaysWithTheDriver() {
    bench.start()
    for i in 0..<70 { bench.wire.send(plainFrame(i)) }
    bench.card.settle()
    #expect(bench.received().map(\.bytes) == (0..<63).map { plainFrame($0) })
    #expect(bench[0x4010] == 7 && bench[0x40a0] == 7)
    #expect(bench[0xc8] & 1 << 6 != 0, "overrun")
    bench.arrive(plainFrame(100))
    #expect(bench.received().map(\.bytes) == [plainFrame(100)])
  }

  /// Which frames come in with which bits of the control register.
  @Test(arguments: [
    (0, [true, false, false, false]), (1 << 3, [true, true, false, false]), (1 << 4, [true, false, true, false]),
    (1 << 15, [true, false, false, true]),
  ] as [(UInt32, [Bool])])
  func addressesAreFiltered(control: UInt32, expected: [Bool]) {
    bench.start()
    bench[0x100] = 2 | 1 << 26 | control
    let frames = [Card82574.station, other, group, .broadcast].enumerated().map { plainFrame($0.offset, to: $0.element) }
    for frame in frames { bench.arrive(frame) }
    let got = bench.received().map(\.bytes)
    #expect(frames.map { got.contains($0) } == expected)
    #expect(bench.model.filteredOut == expected.count { !$0 })
    #expect(bench[0x40d0] == 4, "all are counted")
    #expect(bench[0x4074] == UInt32(got.count))
  }

  @Test func furtherAddressesAndTheHashTable() {
    bench.start()
    bench[0x100] = 2 | 1 << 26
    bench[0x5478] = 0x0000_0002
    bench[0x547c] = 1 << 31 | 0x4d00
    // 01:00:5e:00:00:05, offset 0: bits 47:36 are 0x050.
    bench[0x5200 + 2 * 4] = 1 << 16
    bench.arrive(plainFrame(1, to: other))
    bench.arrive(plainFrame(2, to: group))
    bench.arrive(plainFrame(3, to: MACAddress(1, 0, 0x5e, 0, 0, 6)))
    let got = bench.received()
    #expect(got.map(\.bytes) == [plainFrame(1, to: other), plainFrame(2, to: group)])
    #expect(got.map { $0.status >> 7 & 1 } == [0, 1], "passed by a hash that others share")
  }

  @Test func tagsAreFilteredAndStripped() {
    bench.start(control: 1 << 18)
    bench[0x5600 + 4] = 1 << 5
    bench.arrive(tagged(0x6025))
    bench.arrive(tagged(0x0026))
    bench.arrive(plainFrame(2))
    #expect(bench.received().map(\.bytes) == [tagged(0x6025), plainFrame(2)])
    bench[0] = bench[0] | 1 << 30
    bench.arrive(tagged(0x6025))
    let got = bench.received()
    #expect(got.map(\.bytes) == [plainFrame(1, count: 100)])
    #expect(got.first?.tag == 0x6025 && got.first.map { $0.status & 8 } == 8)
    // The format bit: expected clear, and then set.
    bench[0x100] = bench[0x100] | 1 << 19
    bench.arrive(tagged(0x1025))
    #expect(bench.received().isEmpty)
    bench[0x100] = bench[0x100] | 1 << 20
    bench.arrive(tagged(0x1025))
    #expect(bench.received().count == 1)
    // Another type.
    bench[0x38] = 0x88a8
    bench.arrive(tagged(0x1999, type: 0x88a8))
    bench.arrive(tagged(0x1999))
    #expect(bench.received().map { $0.status & 8 } == [0])
  }

  @Test func checkSequencesAreKeptWhenAskedFor() {
    bench.start()
    bench[0x100] = bench[0x100] & ~(1 << 26)
    // The digits 1 to 9 have the published sum 0xcbf43926; a frame has its own, least byte first.
    bench.arrive(plainFrame(1))
    let bytes = bench.received().first?.bytes ?? []
    #expect(Array(bytes.prefix(60)) == plainFrame(1) && bytes.count == 64)
    let sum = unsafe plainFrame(1).withUnsafeBytes { unsafe EthernetCRC.of($0) }
    #expect(Array(bytes.suffix(4)) == (0..<4).map { UInt8(truncatingIfNeeded: sum >> UInt32(8 * $0)) })
  }

  @Test func damagedFramesAreCountedAndKeptOnlyWhenAskedFor() {
    bench.start()
    bench.arrive(plainFrame(1), marks: .badCheckSequence)
    #expect(bench.received().isEmpty)
    bench[0x100] = bench[0x100] | 4
    bench.arrive(plainFrame(2), marks: .badCheckSequence)
    let got = bench.received()
    #expect(got.map(\.bytes) == [plainFrame(2)] && got.first.map { $0.status >> 24 } == 1)
    #expect(bench[0x4000] == 2)
  }

  @Test func longFramesTakeSeveralBuffers() {
    bench.start()
    bench.arrive(plainFrame(1, count: 1519))
    #expect(bench.received().isEmpty && bench[0x40ac] == 1)
    bench[0x100] = bench[0x100] | 1 << 5
    for count in [1519, 4096, 4097, 9018] { bench.arrive(plainFrame(2, count: count)) }
    #expect(bench.received().map(\.bytes) == [1519, 4096, 4097, 9018].map { plainFrame(2, count: $0) })
    // 2 + 2 + 3 + 5 would have been 2048-byte buffers; now 8 KiB ones.
    let before = bench[0x2810]
    bench[0x100] = bench[0x100] | 1 << 25 | 2 << 16
    bench.arrive(plainFrame(3, count: 9018))
    #expect(bench.received().map(\.bytes) == [plainFrame(3, count: 9018)])
    #expect(bench[0x2810] == before + 2)
  }

  @Test func checksumsAreLookedAt() {
    bench.start()
    bench[0x5000] = 3 << 8 | 1 << 13
    var good = segmentable(20)
    good[17] = 60
    let header = InternetChecksum.of(good[14..<34])
    (good[24], good[25]) = (UInt8(header >> 8), UInt8(header & 255))
    (good[50], good[51]) = (0, 0)
    let sum = InternetChecksum.of(Array(good[26..<34]) + [0, 6, 0, 40] + good[34...])
    (good[50], good[51]) = (UInt8(sum >> 8), UInt8(sum & 255))
    var badHeader = good, badData = good
    badHeader[22] ^= 1
    badData[60] ^= 1
    for frame in [good, badHeader, badData, plainFrame(1)] { bench.arrive(frame) }
    #expect(
      bench.received().map { $0.status & 0xff00_0078 } == [0x60, 0x4000_0060, 0x2000_0060, 0])
    bench[0x5000] = 0
    bench.arrive(good)
    let got = bench.received()
    #expect(got.first.map { $0.status & 0x78 } == 0)
    // Without PCSD: the packet's own sum and its identification.
    #expect(got.first.map { UInt16($0.low >> 48) } == InternetChecksum.sum(good))
    #expect(got.first.map { UInt16($0.low >> 32 & 0xffff) } == 0x1234)
  }

  @Test func legacyDescriptorsKeepTheirAddress() {
    bench.start(receiveFilter: 0)
    bench[0] = bench[0] | 1 << 30
    bench[0x5000] = 14
    bench.arrive(tagged(0x0123))
    let address = bench.word(bench.receiveRing(0)), word = bench.word(bench.receiveRing(0) + 8)
    #expect(address == bench.iova + UInt64(bench.receiveBuffer(0, 0)))
    #expect(word & 0xffff == 100)
    #expect(UInt16(word >> 16 & 0xffff) == InternetChecksum.sum(tagged(0x0123)[14...]))
    #expect(word >> 32 & 0xff == 0x0b)
    #expect(word >> 40 & 0xff == 0)
    #expect(word >> 48 == 0x0123)
    #expect(bench.bytes(bench.receiveBuffer(0, 0), 100) == plainFrame(1, count: 100))
  }

  /// Packet split (7.1.6): headers in the first buffer, data in the others.
  @Test func headersAreSplitOff() {
    bench.start(control: 1 << 10 | 1 << 5)
    bench[0x2170] = 1 | 4 << 8 | 4 << 16
    func describe(_ index: Int) {
      for part in 0..<4 {
        bench.setWord(index * 32 + part * 8, bench.iova + UInt64(bench.receiveBuffer(0, index * 4 + part)))
      }
    }
    for index in 0..<4 { describe(index) }
    var frame = segmentable(5000)
    (frame[16], frame[17]) = (UInt8(5040 >> 8), UInt8(5040 & 255))
    // Head and tail count in 16 bytes.
    bench[0x2818] = 6
    bench.arrive(frame)
    #expect(bench[0x2810] == 2)
    #expect(bench.word(8) & 3 == 3)
    #expect(bench.word(8) >> 32 & 0xffff == 54)
    #expect(bench.word(16) & 0xffff == 0x8000 | 54)
    #expect(bench.word(16) >> 16 == 4096 | (5000 - 4096) << 16)
    #expect(bench.bytes(bench.receiveBuffer(0, 0), 54) == Array(frame[..<54]))
    #expect(bench.bytes(bench.receiveBuffer(0, 1), 4096) == Array(frame[54..<54 + 4096]))
    #expect(bench.bytes(bench.receiveBuffer(0, 2), 904) == Array(frame[4150...]))
    // No headers that are known: the buffers are filled in turn.
    bench.arrive(plainFrame(1, count: 200))
    #expect(bench.word(40) >> 32 & 0xffff == 128)
    #expect(bench.word(48) & 0x8000 == 0 && bench.word(48) >> 16 & 0xffff == 72)
  }

  @Test func theRingSaysThatItRunsLow() {
    bench.start(control: 2 << 8)
    for i in 0..<54 { bench.arrive(plainFrame(i)) }
    #expect(bench[0xc8] & 1 << 4 == 0)
    bench.arrive(plainFrame(54))
    #expect(bench[0xc8] & 1 << 4 != 0, "an eighth of 64 is left")
    #expect(bench[0x4120] == 1)
  }

  @Test func smallFramesAreToldApart() {
    bench.start()
    bench[0x2c00] = 64
    bench.arrive(plainFrame(1, count: 61))
    #expect(bench[0xc8] & 1 << 16 == 0)
    bench.arrive(plainFrame(1, count: 60))
    #expect(bench[0xc8] & 1 << 16 != 0)
  }

  @Test func pauseFramesGoNoFurther() {
    bench.start()
    (bench[0x28], bench[0x2c], bench[0x30]) = (0x00c2_8001, 0x0100, 0x8808)
    var frame = Ethernet.header(to: MACAddress(1, 0x80, 0xc2, 0, 0, 1), from: other, type: 0x8808) + [0, 1, 0xff, 0xff]
    frame += [UInt8](repeating: 0, count: 42)
    bench.arrive(frame)
    #expect(bench[0x4058] == 1, "flow control is off")
    #expect(bench.received().count == 1)
    bench[0] = bench[0] | 1 << 27
    bench.arrive(frame)
    #expect(bench.received().isEmpty && bench[0x4050] == 1)
    (frame[16], frame[17]) = (0, 0)
    bench.arrive(frame)
    #expect(bench[0x4048] == 1)
  }

  /// CTRL.TFCE: frames wait in the wire instead of being lost.
  @Test func withFlowControlNothingIsLost() {
    bench.start()
    bench[0] = bench[0] | 1 << 28
    for i in 0..<200 { bench.wire.send(plainFrame(i)) }
    var got: [[UInt8]] = []
    for _ in 0..<5 {
      bench.card.settle()
      got += bench.received().map(\.bytes)
    }
    #expect(got == (0..<200).map { plainFrame($0) })
    #expect(bench[0x4010] == 0)
    #expect(bench[0x4054] == 3 && bench[0x404c] == 3)
    // A card that does not receive takes everything, and throws it away.
    bench[0x100] = 0
    bench.arrive(plainFrame(1))
    #expect(bench.wire.waiting == 0)
  }

  @Test func countersTellSizesAndKinds() {
    bench.start()
    for count in [60, 61, 123, 124, 251, 252, 507, 508, 1019, 1020, 1518] { bench.arrive(plainFrame(1, count: count)) }
    bench.arrive(plainFrame(1, to: .broadcast))
    bench.arrive(plainFrame(1, to: group))
    _ = bench.received()
    #expect((0..<6).map { bench[0x405c + $0 * 4] } == [3, 2, 2, 2, 2, 2])
    #expect(bench[0x4078] == 1 && bench[0x407c] == 1)
    let bytes = [60, 61, 123, 124, 251, 252, 507, 508, 1019, 1020, 1518, 60, 60].reduce(0) { $0 + $1 + 4 }
    #expect(bench[0x4088] == UInt32(bytes) && bench[0x40c0] == UInt32(bytes))
    #expect(bench[0x408c] == 0 && bench[0x4088] == 0)
    #expect(bench[0x4074] == 13 && bench[0x40d0] == 13 && bench[0x40d0] == 0)
    bench.arrive([1, 2, 3])
    #expect(bench[0x40a4] == 1)
  }

  @Test func aBufferThatIsNotMappedStopsTheQueue() {
    bench.start()
    bench.setWord(bench.receiveRing(0), 0x7777_0000)
    bench.arrive(plainFrame(1))
    bench.arrive(plainFrame(2))
    #expect(bench.received().isEmpty && bench[0x2810] == 0)
    #expect(bench.model.bus.memory.faults == 1 && bench.model.bus.complaintCount == 1)
    bench.describe(0, 0)
    let control = bench[0x100]
    bench[0x100] = control & ~2
    bench[0x100] = control
    bench.arrive(plainFrame(3))
    #expect(bench.received().map(\.bytes) == [plainFrame(3)])
  }

  @Test func brokenReportsAsTold() {
    bench.start()
    bench.model.inject(.receiveLength(5, count: 1))
    for i in 0..<2 { bench.arrive(plainFrame(i)) }
    #expect(bench.received().map(\.bytes.count) == [5, 60])
    bench.model.inject(.receiveError(count: 1))
    for i in 0..<2 { bench.arrive(plainFrame(i)) }
    #expect(bench.received().map { $0.status >> 31 } == [1, 0])
    bench.model.inject(.duplicateCompletion(count: 1))
    bench.arrive(plainFrame(1))
    #expect(bench.received().count == 2)
    bench.model.inject(.wrongAddress(count: 1))
    bench.arrive(plainFrame(1))
    #expect(bench.received().isEmpty && bench.model.bus.memory.faults == 1)
    bench.model.inject(.none)
    bench.model.inject(.wrongCompletion(777, count: 2))
    #expect(bench[0x2810] == 777 && bench[0x3810] == 777)
    #expect(bench[0x2810] != 777, "twice it was")
    bench.model.inject(.none)
    bench.model.inject(.randomRegisters(seed: 3))
    #expect(bench[8] != bench[8])
  }

  /// The same stores and frames give the same bytes, descriptors and counters in both modes.
  @Test func sharedDoorbellsGiveWhatTrappedOnesDo() throws {
    var results: [[[UInt8]]] = [], counters: [[UInt32]] = []
    for mode in [InProcessCard.Mode.trapped, .shared] {
      let bench = try Card82574(mode: mode)
      bench.start(control: 1 << 5)
      var got: [[UInt8]] = []
      for round in 0..<40 {
        for i in 0..<round % 7 { bench.wire.send(plainFrame(i + round, count: 60 + i * 900 + round)) }
        bench.card.settle()
        got += bench.received().map(\.bytes)
        bench.sendPlain(plainFrame(round, count: 60 + round * 30), queue: round & 1)
        got += bench.wire.takeSent().map { [UInt8($0.queue)] + $0.bytes }
      }
      results.append(got)
      counters.append(stride(from: 0x4000, to: 0x4128, by: 4).map { bench[$0] })
    }
    #expect(results[0].count == 40 + (0..<40).reduce(0) { $0 + $1 % 7 })
    #expect(results[0] == results[1])
    #expect(counters[0] == counters[1])
  }
}
