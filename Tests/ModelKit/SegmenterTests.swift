// Segmentation: what leaves is what came in, cut, with headers that add up.

import ModelKit
import Testing

private func segments(_ frame: [UInt8], _ plan: SegmentationPlan) -> [[UInt8]] {
  var made: [[UInt8]] = []
  let count = unsafe frame.withUnsafeBytes { bytes in
    unsafe Segmenter().segment(bytes, plan) { unsafe made.append([UInt8]($0)) }
  }
  #expect(count == made.count)
  return made
}
private func areRight(_ frame: [UInt8]) -> Bool {
  unsafe frame.withUnsafeBytes { bytes in
    let headers = unsafe ParsedHeaders(bytes)
    return unsafe FrameChecksum.transportIsRight(bytes, headers) == true
      && FrameChecksum.ipv4HeaderIsRight(bytes, headers) != false
  }
}
private func big16(_ frame: [UInt8], _ at: Int) -> Int { Int(frame[at]) << 8 | Int(frame[at + 1]) }

@Suite struct SegmenterTests {
  @Test func tcpOverIPv4() {
    // Sequence 0xfffffff0 wraps, identification 0xffff too; CWR, ACK, PSH, FIN.
    let frame = Sample.tcp4(data: 3000, id: 0xffff, flags: 0x99)
    let made = segments(frame, SegmentationPlan(networkOffset: 14, transportOffset: 34, headerLength: 54, segmentSize: 1000))
    #expect(made.map(\.count) == [1054, 1054, 1054])
    #expect(made.map { big16($0, 18) } == [0xffff, 0, 1])
    #expect(made.map { big16($0, 16) } == [1040, 1040, 1040])
    #expect(made.map { $0[41] } == [0xf0, 0xd8, 0xc0] && made.map { $0[40] } == [0xff, 3, 7])
    #expect(made.map { $0[38] } == [0xff, 0, 0])
    #expect(made.map { $0[47] } == [0x90, 0x10, 0x19], "CWR first only, PSH and FIN last only")
    #expect(made.allSatisfy(areRight))
    #expect(made.flatMap { $0[54...] } == Array(frame[54...]))
  }

  @Test func tcpOverIPv6WithATag() {
    let frame = Sample.tcp6(data: 2001)
    var plan = SegmentationPlan(networkOffset: 14, transportOffset: 54, headerLength: 74, segmentSize: 1000)
    plan.tag = 0x6007
    let made = segments(frame, plan)
    #expect(made.map(\.count) == [1078, 1078, 79])
    #expect(made.allSatisfy { parse($0).tag == 0x6007 && parse($0).networkOffset == 18 })
    #expect(made.map { big16($0, 22) } == [1020, 1020, 21])
    #expect(made.allSatisfy(areRight))
    #expect(made.flatMap { $0[78...] } == Array(frame[74...]))
  }

  /// As Intel's drivers prepare it: the pseudo header without the length stands in the field.
  @Test func seedFromTheField() {
    var frame = Sample.tcp4(data: 700)
    let seed = plainSum(Array(frame[26..<34]) + [0, 6])
    frame[50] = UInt8(seed >> 8)
    frame[51] = UInt8(seed & 255)
    frame[16] = 0
    frame[17] = 0
    var plan = SegmentationPlan(networkOffset: 14, transportOffset: 34, headerLength: 54, segmentSize: 512)
    plan.seed = .field
    #expect(segments(frame, plan).count == 2 && segments(frame, plan).allSatisfy(areRight))
    frame[50] ^= 1
    #expect(!segments(frame, plan).contains(where: areRight), "a wrong seed must be seen on the wire")
  }

  @Test func udp() {
    var frame = Sample.tcp4(data: 988)
    frame[23] = 17
    var plan = SegmentationPlan(networkOffset: 14, transportOffset: 34, headerLength: 42, segmentSize: 400)
    plan.transport = .udp
    let made = segments(frame, plan)
    #expect(made.map(\.count) == [442, 442, 242] && made.map { big16($0, 38) } == [408, 408, 208])
    #expect(made.allSatisfy(areRight))
  }

  @Test func oneSegmentKeepsItsFlags() {
    let frame = Sample.tcp4(data: 100, flags: 0x99)
    let made = segments(frame, SegmentationPlan(networkOffset: 14, transportOffset: 34, headerLength: 54, segmentSize: 100))
    #expect(made.count == 1 && made[0][47] == 0x99)
    let empty = segments(Sample.tcp4(data: 0), SegmentationPlan(networkOffset: 14, transportOffset: 34, headerLength: 54, segmentSize: 100))
    #expect(empty.count == 1)
    let huge = SegmentationPlan(networkOffset: 14, transportOffset: 34, headerLength: 54, segmentSize: .max)
    #expect(segments(frame, huge).count == 1)
  }

  @Test func plansThatDoNotFit() {
    let frame = Sample.tcp4(data: 100)
    func plan(_ network: Int, _ transport: Int, _ header: Int, _ size: Int) -> SegmentationPlan {
      SegmentationPlan(networkOffset: network, transportOffset: transport, headerLength: header, segmentSize: size)
    }
    for bad in [
      plan(14, 34, 54, 0), plan(14, 34, 54, -5), plan(13, 34, 54, 10), plan(14, 30, 54, 10), plan(14, 34, 53, 10),
      plan(14, 34, 155, 10), plan(-1, 34, 54, 10), plan(14, .max / 2, 54, 10), plan(16, 40, 60, 10),
      plan(14, 34, .max, 10), plan(.max, .max, 54, 10), plan(14, .min + 99, 54, 10), plan(14, 34, .min + 99, 10),
    ] { #expect(segments(frame, bad).isEmpty, "\(bad)") }
    #expect(segments(Sample.tcp6(data: 5), plan(14, 34, 74, 10)).isEmpty, "no room for an IPv6 header")
  }
}

@Suite struct ScratchFrameTests {
  @Test func collectsFromMemory() {
    let memory = ModelMemory()
    memory.isBusMaster = true
    var lab = (0..<8192).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    unsafe lab.withUnsafeMutableBytes { bytes in
      // Two windows, next to each other on the bus.
      check(unsafe memory.map(0x10000, count: 4096, unsafe: bytes.baseAddress!))
      check(unsafe memory.map(0x11000, count: 4096, unsafe: bytes.baseAddress! + 4096))
      let frame = ScratchFrame(capacity: 256)
      #expect(frame.append(memory, 0x10ff0, count: 40))
      #expect(frame.append(memory, 0x10000, count: 20))
      let expected = (0..<40).map { unsafe bytes[4080 + $0] } + (0..<20).map { unsafe bytes[$0] }
      check(unsafe [UInt8](frame.bytes) == expected)
      #expect(!frame.append(memory, 0x90000, count: 4) && memory.faults == 1 && frame.count == 60 && !frame.isOverflown)
      #expect(!frame.append(memory, 0x10000, count: 197) && frame.isOverflown && frame.count == 60)
      #expect(!frame.append(memory, 0x10000, count: -1) && !frame.append(memory, 0x10000, count: .max))
      frame.removeAll()
      #expect(frame.isEmpty && !frame.isOverflown)
      memory.unmapAll()
    }
  }

  @Test func tagsAndPadding() {
    let frame = ScratchFrame(capacity: 128)
    frame.append(Sample.udp)
    frame.pad(to: 60)
    check(unsafe [UInt8](frame.bytes) == Sample.udp + [UInt8](repeating: 0, count: 13))
    #expect(frame.stripTag() == nil)
    #expect(frame.insertTag(0x2005))
    check(unsafe Array([UInt8](frame.bytes)[10..<18]) == hex("00 01 81 00 20 05 08 00"))
    #expect(frame.count == 64 && frame.stripTag() == 0x2005)
    check(unsafe Array([UInt8](frame.bytes)[0..<47]) == Sample.udp)
    frame.insertTag(7, type: 0x88a8)
    #expect(frame.stripTag() == nil && frame.stripTag(type: nil) == 7)
    for _ in 0..<40 { frame.insertTag(1) }
    #expect(frame.count <= frame.capacity && frame.count == 124, "the headroom ends")
    frame.truncate(to: 10)
    #expect(!frame.insertTag(1) && frame.stripTag() == nil)
  }
}
