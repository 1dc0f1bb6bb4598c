// Frames out of the 82574L's model: legacy and extended descriptors, offloads, segmentation, errors.

import ModelKit
import Models
import Testing
import Wire

/// TCP over IPv4 with 20-byte headers, the pseudo header's sum in the checksum field.
func segmentable(_ payload: Int, flags: UInt8 = 0x19) -> [UInt8] {
  let addresses: [UInt8] = [198, 18, 0, 1, 198, 18, 0, 2]
  let pseudo = InternetChecksum.sum(addresses + [0, 6])
  return Ethernet.header(to: MACAddress(2, 0, 0, 0, 0, 1), from: Card82574.station, type: Ethernet.typeIPv4)
    + [0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0] + addresses
    + [0, 80, 1, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0x50, flags, 0x20, 0, UInt8(pseudo >> 8), UInt8(pseudo & 255), 0, 0]
    + (0..<payload).map { UInt8(truncatingIfNeeded: $0 &* 3) }
}

@Suite struct Intel82574TransmitTests {
  /// Context: IPv4 and TCP behind 14 bytes.
  private func context(segment: Int = 0, payload: Int = 0, header: Int = 54) -> (UInt64, UInt64) {
    let low: UInt64 = 14 | 24 << 8 | 33 << 16 | 34 << 32 | 50 << 40
    let command: UInt64 = 1 << 29 | 3 << 24 | (segment > 0 ? 1 << 26 : 0)
    return (low, UInt64(payload) | command | UInt64(header) << 40 | UInt64(segment) << 48)
  }
  /// Data: end, check sequence, report, both checksums.
  private func data(_ count: Int, extra: UInt64 = 0) -> UInt64 { UInt64(count) | 1 << 20 | 0x2b << 24 | 3 << 40 | extra }

  private func isRight(_ frame: [UInt8]) -> Bool {
    let header = Array(frame[14..<34]), length = frame.count - 34
    let pseudo = Array(header[12..<20]) + [0, 6, UInt8(length >> 8), UInt8(length & 255)]
    return InternetChecksum.sum(header) == 0xffff && InternetChecksum.sum(pseudo + frame[34...]) == 0xffff
      && Int(header[2]) << 8 | Int(header[3]) == frame.count - 14
  }

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

  @Test func bothQueuesSendAndEachCanBeSwitchedOff() throws {
    let bench = try Card82574()
    bench.start()
    bench.sendPlain(plainFrame(1), queue: 1)
    bench.sendPlain(plainFrame(2), queue: 0)
    #expect(bench.wire.takeSent().map(\.queue) == [1, 0])
    // TARC.ENABLE.
    bench[0x3940] = 3
    bench.sendPlain(plainFrame(3), queue: 1)
    #expect(bench.wire.takeSent() == [])
    bench[0x3940] = 0x403
    bench.card.settle()
    #expect(bench.wire.takeSent().map(\.bytes) == [plainFrame(3)])
    #expect(bench.model.bus.complaintCount == 0)
  }

  @Test func aFrameOverThreeDescriptorsIsOneFrame() throws {
    let bench = try Card82574()
    bench.start()
    let frame = plainFrame(1, count: 3000)
    let at = bench.lend(frame)
    bench.post(0, at, 1000 | 0x02 << 24)
    bench.post(0, at + 1000, 1000 | 0x02 << 24)
    bench.go()
    #expect(bench.wire.takeSent() == [] && bench[0x3810] == 2)
    bench.post(0, at + 2000, 1000 | 0x0b << 24)
    bench.go()
    #expect(bench.wire.takeSent().map(\.bytes) == [frame])
    #expect(bench[0x40ec] == 1, "counted among the longest")
  }

  @Test func shortFramesArePaddedAndForeignCheckSequencesTakenOff() throws {
    let bench = try Card82574()
    bench.start()
    bench.sendPlain(plainFrame(1, count: 20))
    #expect(bench.wire.takeSent().map(\.bytes) == [plainFrame(1, count: 20) + [UInt8](repeating: 0, count: 40)])
    // Without IFCS the last four bytes are the check sequence.
    let frame = plainFrame(2, count: 100)
    bench.post(0, bench.lend(frame + [1, 2, 3, 4]), 104 | 0x09 << 24)
    bench.go()
    #expect(bench.wire.takeSent().map(\.bytes) == [frame])
  }

  @Test func aLegacyChecksumGoesWhereItIsTold() throws {
    let bench = try Card82574()
    bench.start()
    var frame = plainFrame(1, count: 80)
    frame[30] = 0
    frame[31] = 0
    // IC, from 14 into 30.
    bench.post(0, bench.lend(frame), 80 | 30 << 16 | 0x0f << 24 | 14 << 40)
    bench.go()
    let sent = bench.wire.takeSent()[0].bytes
    #expect(InternetChecksum.sum(sent[14...]) == 0xffff)
    #expect(Array(sent[..<14]) == Array(frame[..<14]))
  }

  @Test func checksumsAreInserted() throws {
    let bench = try Card82574()
    bench.start()
    var frame = segmentable(100)
    frame[17] = 140
    // The driver's sum has the length in it where nothing is segmented.
    let sum = InternetChecksum.sum([frame[50], frame[51], 0, 120])
    frame[50] = UInt8(sum >> 8)
    frame[51] = UInt8(sum & 255)
    let (low, high) = context()
    bench.post(0, low, high)
    bench.post(0, bench.lend(frame), data(frame.count))
    bench.go()
    let sent = bench.wire.takeSent()
    #expect(sent.count == 1 && isRight(sent[0].bytes))
    // The context stays for the next frame, which wants the TCP checksum alone.
    bench.post(0, bench.lend(frame), UInt64(frame.count) | 1 << 20 | 0x2b << 24 | 2 << 40)
    bench.go()
    let second = bench.wire.takeSent()
    try #require(second.count == 1)
    #expect(Array(second[0].bytes[24..<26]) == [0, 0])
    #expect(Array(second[0].bytes[50..<52]) == Array(sent[0].bytes[50..<52]))
  }

  @Test(arguments: [UInt16?.none, 0x6123])
  func largeFramesAreCut(tag: UInt16?) throws {
    let bench = try Card82574()
    bench.start()
    bench[0] = bench[0] | 1 << 30
    let frame = segmentable(4000)
    let (low, high) = context(segment: 1460, payload: 4000)
    bench.post(0, low, high)
    let options: UInt64 = 1 << 26 | (tag.map { 1 << 30 | UInt64($0) << 48 } ?? 0)
    // Headers and data in descriptors of their own; options count in the first, the tag in the last.
    let at = bench.lend(frame)
    bench.post(0, at, 54 | 1 << 20 | 0x26 << 24 | 3 << 40)
    bench.post(0, at + 54, data(4000, extra: options))
    bench.go()
    var sent = bench.wire.takeSent().map(\.bytes)
    if let tag {
      for i in sent.indices {
        #expect(Array(sent[i][12..<16]) == [0x81, 0, UInt8(tag >> 8), UInt8(tag & 255)])
        sent[i].removeSubrange(12..<16)
      }
    }
    #expect(sent.map(\.count) == [1514, 1514, 54 + 1080])
    #expect(sent.allSatisfy(isRight))
    #expect(sent.flatMap { Array($0[54...]) } == Array(frame[54...]))
    #expect(sent.map { Int($0[40]) << 8 | Int($0[41]) } == [0x1000, 0x1000 + 1460, 0x1000 + 2920])
    #expect(sent.map { $0[47] } == [0x10, 0x10, 0x19], "FIN and PSH in the last alone")
    #expect(sent.map { $0[19] } == [0x34, 0x35, 0x36])
    #expect(bench[0x40f8] == 1 && bench[0x40fc] == 0)
    #expect(bench.model.bus.complaintCount == 0)
  }

  @Test func nonsenseIsComplainedAboutAndSentByNobody() throws {
    let bench = try Card82574()
    bench.start()
    let frame = segmentable(100)
    let (low, high) = context(segment: 1460, payload: 100, header: 255)
    bench.post(0, low, high)
    bench.post(0, bench.lend(frame), data(frame.count, extra: 1 << 26))
    bench.post(0, bench.lend(frame), 5 | 0x0b << 24)
    bench.go()
    #expect(bench.wire.takeSent() == [])
    #expect(bench[0x40fc] == 1)
    #expect(bench.model.bus.complaintCount == 3)
    // A tail beyond the ring: once, and nothing moves.
    bench[0x3818] = 64
    bench.card.settle()
    bench.card.settle()
    #expect(bench.model.bus.complaintCount == 4)
    #expect(bench[0x3810] == 3)
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

  @Test func withoutALinkFramesAreLostAndReported() throws {
    let bench = try Card82574()
    bench.start()
    bench.model.setLink(up: false)
    bench.sendPlain(plainFrame(1))
    #expect(bench.wire.takeSent() == [])
    #expect(bench.word(bench.transmitRing(0) + 8) >> 32 & 1 == 1)
    #expect(bench[0x4080] == 0)
  }

  @Test(arguments: ["MAC", "PHY"])
  func loopbackBringsFramesBack(place: String) throws {
    let bench = try Card82574()
    bench.start()
    if place == "MAC" { bench[0x100] = bench[0x100] | 1 << 6 } else { bench[0x20] = 1 << 26 | 1 << 21 | 0x4140 }
    #expect(bench[8] & 2 != 0)
    bench.wire.send(plainFrame(9))
    bench.sendPlain(plainFrame(1, count: 1024))
    #expect(bench.wire.takeSent() == [], "the cable is cut off")
    #expect(bench.received().map(\.bytes) == [plainFrame(1, count: 1024)])
  }

  @Test func aRunningOutRingSaysSo() throws {
    let bench = try Card82574()
    bench.start()
    // LWTHRESH 2: sixteen descriptors.
    bench[0x3828] = 2 << 25
    for i in 0..<20 { bench.post(0, bench.lend(plainFrame(i), slot: i % 4), 60 | 0x0b << 24) }
    bench.go()
    #expect(bench[0xc8] & (1 << 15 | 1 << 1 | 1) == 1 << 15 | 1 << 1 | 1)
    #expect(bench[0x411c] == 1)
  }

  @Test func hangsAndMissingReportsEndWithAReset() throws {
    let bench = try Card82574()
    bench.start()
    bench.model.inject(.transmitHang)
    bench.sendPlain(plainFrame(1))
    #expect(bench.wire.takeSent() == [])
    bench.model.inject(.none)
    bench.model.inject(.neverReports)
    bench.card.settle()
    #expect(bench.wire.takeSent().count == 1)
    #expect(bench.word(bench.transmitRing(0) + 8) >> 32 & 1 == 0)
    bench[0] = 1 << 26
    #expect(!bench.model.faults.neverReports)
  }
}
