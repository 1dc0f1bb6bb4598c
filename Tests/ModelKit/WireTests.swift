// Wires of this process, capture files and sockets.

import CRingway
import ModelKit
import Platform
import SystemPackage
import Testing
import Wire

/// Everything that arrives by `now`.
func drain(_ wire: any ModelWire, at now: UInt64 = 0, limit: Int = 100_000) -> [[UInt8]] {
  var frames: [[UInt8]] = []
  while frames.count < limit, unsafe wire.receive(at: now, { frame, _ in unsafe frames.append([UInt8](frame)) }) {}
  return frames
}
func send(_ wire: any ModelWire, _ frame: [UInt8], queue: Int = 0, at now: UInt64 = 0) {
  unsafe frame.withUnsafeBytes { unsafe wire.transmit($0, queue: queue, at: now) }
}
func numbers(_ frames: [[UInt8]]) -> [UInt64] {
  frames.map { frame in unsafe frame.withUnsafeBytes { unsafe NumberedFrame.read($0)?.0.sequence ?? .max } }
}
func numbered(_ sequence: UInt64, size: Int = 60) -> [UInt8] {
  NumberedFrame(run: 1, flow: 0, sequence: sequence).bytes(size: size)
}

/// A directory that goes away with its owner.
final class Place {
  let path: String
  init() {
    var template = Array("/tmp/ringway-wires-XXXXXX".utf8CString)
    path = unsafe template.withUnsafeMutableBufferPointer { unsafe String(cString: mkdtemp($0.baseAddress!)) }
  }
  deinit {
    for name in (try? Files.list(path)) ?? [] { _ = unsafe unlink("\(path)/\(name)") }
    _ = unsafe rmdir(path)
  }
  func file(_ name: String, _ bytes: [UInt8]) -> String {
    let path = "\(path)/\(name)"
    if let file = try? OwnedDescriptor(opening: path, flags: O_WRONLY | O_CREAT | O_TRUNC) {
      _ = unsafe bytes.withUnsafeBytes { unsafe write(file.raw, $0.baseAddress, $0.count) }
    }
    return path
  }
}

@Suite struct GeneratorTests {
  @Test func ratesSizesAndFlows() throws {
    var settings = GeneratorSettings()
    settings.rate = 1_000_000
    settings.sizes = 60...1514
    settings.flows = 3
    settings.count = 100
    settings.seed = 7
    let wire = GeneratorWire(settings)
    let early = drain(wire, at: 5_000_000)
    #expect(early.count == 1, "the clock starts with the first look")
    #expect(wire.nextArrival == 5_001_000)
    #expect(drain(wire, at: 5_000_999).isEmpty)
    #expect(drain(wire, at: 5_010_500).count == 10)
    let rest = drain(wire, at: 6_000_000)
    #expect(rest.count == 89 && wire.sent == 100 && wire.nextArrival == nil)
    #expect(numbers(rest) == Array(11..<100))
    #expect(rest.allSatisfy { (60...1514).contains($0.count) } && Set(rest.map(\.count)).count > 50)
    for frame in rest {
      let found = try #require(unsafe frame.withUnsafeBytes { unsafe NumberedFrame.read($0) })
      #expect(found.isWhole && found.0.run == 7 && found.0.flow == Int(found.0.sequence % 3))
      #expect(found.0.time == 6_000_000)
      // The sums by other means.
      #expect(plainSum(Array(frame[14..<34])) == 0xffff)
      let length = frame.count - 34
      #expect(plainSum(Array(frame[26..<34]) + [0, 17, UInt8(length >> 8), UInt8(length & 255)] + frame[34...]) == 0xffff)
    }
    #expect(drain(GeneratorWire(settings), at: 9).first?.count == early[0].count, "the seed decides the sizes")
  }

  @Test func judgesWhatComesBack() {
    var settings = GeneratorSettings()
    settings.count = 5
    let wire = GeneratorWire(settings)
    var frames = drain(wire)
    frames[2][50] ^= 1
    frames.swapAt(3, 4)
    for frame in frames { send(wire, frame) }
    send(wire, Sample.tcp4(data: 9))
    #expect(wire.returned == 6 && wire.damaged == 1 && wire.outOfOrder == 1 && wire.returnedBytes == 5 * 60 + 63)
  }

  @Test func hugeSequences() throws {
    let frame = NumberedFrame(run: 0xffff, flow: 40000, sequence: 0xffff_ffff_ffff, time: .max)
    let back = try #require(unsafe frame.bytes(size: 61).withUnsafeBytes { unsafe NumberedFrame.read($0) })
    #expect(back.0 == frame && back.isWhole)
  }
}

@Suite struct PairWireTests {
  @Test func bothWaysAndFull() {
    let (a, b) = PairWire.make(depth: 3)
    for number in 0..<5 { send(a, numbered(UInt64(number))) }
    send(b, numbered(100))
    #expect(a.dropped == 2 && b.waiting == 3 && a.nextArrival == 0)
    #expect(numbers(drain(b)) == [0, 1, 2] && numbers(drain(a)) == [100])
    #expect(b.nextArrival == nil && drain(b).isEmpty)
    for round in 0..<10 {
      send(a, numbered(UInt64(round)))
      #expect(numbers(drain(b)) == [UInt64(round)], "slots are used again")
    }
    b.isPlugged = false
    #expect(!a.isUp && !b.isUp)
    send(a, numbered(9))
    #expect(b.waiting == 0 && a.dropped == 3)
  }

  @Test func theOtherEndGone() {
    var (a, b): (PairWire, PairWire?) = PairWire.make()
    #expect(b?.isUp == true)
    b = nil
    #expect(!a.isUp)
    a = PairWire.make().0
    send(a, numbered(1))
    #expect(a.dropped == 1)
  }
}

@Suite struct CaptureFileTests {
  private let place = Place()
  private func little(_ values: [UInt32]) -> [UInt8] { values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } } }
  private func big(_ values: [UInt32]) -> [UInt8] { values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - 8 * $0)) } } }

  private func read(_ bytes: [UInt8]) throws -> [CapturedFrame] {
    let reader = try CaptureReader(path: place.file("in", bytes))
    var frames: [CapturedFrame] = []
    while let frame = try reader.next() { frames.append(frame) }
    return frames
  }

  @Test func classicInEveryForm() throws {
    let frame = numbered(1)
    for (magic, order, nanoseconds) in [
      (UInt32(0xa1b2_c3d4), little, UInt64(7000)), (0xa1b2_c3d4, big, 7000), (0xa1b2_3c4d, little, 7), (0xa1b2_3c4d, big, 7),
    ] as [(UInt32, ([UInt32]) -> [UInt8], UInt64)] {
      let header = magic == 0 ? [] : order([magic]) + order([0x0004_0002]) + order([0, 0, 65535, 1])
      let frames = try read(header + order([5, 7, 60, 60]) + frame + order([6, 0, 20, 1000]) + frame[0..<20] + order([7, 0, 60, 60]) + [1])
      #expect(frames.count == 2, "the third is cut off")
      #expect(frames[0] == CapturedFrame(time: 5_000_000_000 + nanoseconds, bytes: frame, originalLength: 60))
      #expect(frames[1].originalLength == 1000 && frames[1].bytes.count == 20)
    }
    // Link type with F bit: four bytes of check sequence behind each frame.
    let withCheck = try read(little([0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 0x2400_0001, 1, 0, 64, 64]) + frame + [1, 2, 3, 4])
    #expect(withCheck.first?.bytes == frame)
  }

  /// Padded to 32 bits.
  private func padded(_ bytes: [UInt8]) -> [UInt8] { bytes + [UInt8](repeating: 0, count: (4 - bytes.count % 4) % 4) }
  private func block(_ type: UInt32, _ body: [UInt8], _ order: ([UInt32]) -> [UInt8]) -> [UInt8] {
    order([type, UInt32(body.count + 12)]) + body + order([UInt32(body.count + 12)])
  }

  @Test func blocksInBothOrders() throws {
    let frame = numbered(1, size: 61)
    for (order, name) in [(little, "little"), (big, "big")] {
      let half: (UInt32, UInt32) = name == "big" ? (1 << 16, 9 << 16 | 1) : (1, 9 | 1 << 16)
      let section = block(0x0a0d_0d0a, order([0x1a2b_3c4d, name == "big" ? 1 << 16 : 1, .max, .max]), order)
      let loose = name == "big" ? order([113 << 16]) : order([113])
      let interface = block(1, order([half.0, 0]) + order([half.1]) + [9, 0, 0, 0] + order([0]), order)
      let other = block(1, loose + order([0]), order)
      let enhanced = block(6, order([0, 1, 5, 61, 61]) + padded(frame), order)
      let foreign = block(6, order([1, 0, 0, 61, 61]) + padded(frame), order)
      let simple = block(3, order([61]) + padded(frame), order)
      let unknown = block(0xbad, [1, 2, 3, 4], order)
      let frames = try read(section + interface + other + unknown + enhanced + foreign + simple + section + interface + enhanced)
      #expect(frames.map(\.bytes) == [frame, frame, frame], "\(name)")
      #expect(frames.map(\.time) == [0x1_0000_0005, 0, 0x1_0000_0005], "nanoseconds, as the interface says")
    }
  }

  @Test func whatIsNoCapture() throws {
    let cases: [([UInt8], String)] = [
      ([], "empty"), ([1, 2, 3], "empty"), (Array("#!/bin/sh\n".utf8), "starts with"),
      (little([0xa1b2_c3d4, 0x0004_0002]), "cut off"), (little([0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 105]), "link type is 105"),
      (little([0x0a0d_0d0a, 28, 7]), "byte order"), (little([0x0a0d_0d0a, 12, 0x1a2b_3c4d]), "cut off"),
    ]
    for (bytes, text) in cases {
      let error = #expect(throws: WireError.self) { try read(bytes) }
      #expect(error?.description.contains(text) == true, "\(String(describing: error))")
    }
    #expect(throws: WireError.self) { try CaptureReader(path: "/nowhere/x.pcap") }
    let header = little([0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1])
    #expect(throws: WireError.self) { try read(header + little([0, 0, 0xffff_ffff, 60])) }
    let section = block(0x0a0d_0d0a, little([0x1a2b_3c4d, 1, .max, .max]), little)
    for bad in [block(6, little([0, 0, 0, 4, 4, 0]), little), little([6, 8]), little([6, 13, 0, 0]), little([6, 0xffff_fffc, 0])] {
      #expect(throws: WireError.self) { try read(section + bad) }
    }
  }

  @Test func everyCutAndEveryByte() throws {
    let frame = numbered(1)
    let section = block(0x0a0d_0d0a, little([0x1a2b_3c4d, 1, .max, .max]), little)
    let blocks = section + block(1, little([1, 0]), little) + block(6, little([0, 1, 5, 60, 60]) + frame, little)
    let classic = little([0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1, 5, 7, 60, 60]) + frame
    for file in [blocks, classic] {
      for cut in 0..<file.count { #expect(((try? read(Array(file[0..<cut])))?.count ?? 0) == 0) }
      for at in 0..<min(file.count, 120) {
        var changed = file
        changed[at] ^= 0xff
        let frames = try? read(changed)
        #expect((frames?.count ?? 0) <= 1)
      }
    }
  }

  @Test func writtenAndReadAgain() throws {
    let path = "\(place.path)/out.pcap"
    do {
      let wire = try PcapWire(input: nil, output: path)
      #expect(wire.isOver && drain(wire).isEmpty && wire.nextArrival == nil)
      for number in 0..<2000 { send(wire, numbered(UInt64(number), size: 60 + number % 1400), at: UInt64(number) * 1_000_000_007) }
      #expect(wire.sent == 2000)
    }
    let bytes = try Files.bytes(path)
    #expect(Array(bytes[0..<24]) == little([0xa1b2_3c4d, 0x0004_0002, 0, 0, 262_144, 1]))
    let wire = try PcapWire(input: path)
    let frames = drain(wire)
    #expect(numbers(frames) == Array(0..<2000) && wire.received == 2000 && wire.cut == 0 && wire.failure == nil)
    #expect(frames.enumerated().allSatisfy { $1.count == 60 + $0 % 1400 })
    let timed = try PcapWire(input: path, speed: .real)
    #expect(drain(timed, at: 500).count == 1 && timed.nextArrival == 1_000_000_507)
    #expect(drain(timed, at: 1_000_000_506).isEmpty && drain(timed, at: 3_000_000_521).count == 3)
  }

  @Test func damageInTheMiddle() throws {
    let header = little([0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1])
    let good = little([1, 0, 60, 60]) + numbered(4), short = little([1, 0, 9, 9]) + [UInt8](repeating: 1, count: 9)
    let wire = try PcapWire(input: place.file("in", header + short + good + little([1, 0, 0x7fff_ffff, 60])))
    #expect(numbers(drain(wire)) == [4] && wire.skipped == 1 && wire.failure != nil)
  }

  @Test func recordsBothWays() throws {
    let path = "\(place.path)/both.pcap"
    let (a, b) = PairWire.make()
    do {
      let wire = RecordingWire(a, to: try CaptureWriter(path: path))
      send(wire, numbered(1), at: 10)
      send(b, numbered(2))
      #expect(wire.nextArrival == 0 && numbers(drain(wire, at: 20)) == [2] && numbers(drain(b)) == [1])
    }
    let frames = try read(try Files.bytes(path))
    #expect(numbers(frames.map(\.bytes)) == [1, 2] && frames.map(\.time) == [10, 20])
  }

  @Test func datagrams() throws {
    let a = try DatagramWire(local: "\(place.path)/a", remote: "\(place.path)/b")
    send(a, numbered(1))
    #expect(a.refused == 1, "nobody is there yet")
    do {
      let b = try DatagramWire(local: "\(place.path)/b", remote: "\(place.path)/a")
      send(a, numbered(2, size: 9014))
      send(b, numbered(3))
      #expect(numbers(drain(b)) == [2] && numbers(drain(a)) == [3] && a.sent == 1 && b.received == 1)
    }
    #expect(!Files.exists("\(place.path)/b"))
    #expect(throws: WireError.self) { try DatagramWire(local: "\(place.path)/a", remote: "x") }
    #expect(throws: WireError.self) { try DatagramWire(local: String(repeating: "x", count: 108), remote: "x") }
  }
}
