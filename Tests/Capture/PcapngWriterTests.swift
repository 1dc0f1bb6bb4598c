import Foundation
import Packet
import Platform
import SystemPackage
import Testing

@testable import Capture

@Suite struct PcapngWriterTests {
  let frames = Frames()
  static let time: UInt64 = 1_700_000_000_123_456_789

  @Test func blocksAreAsSpecified() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("a.pcapng")
    let frame = Zoo.frames[12]
    do {
      var writer = try PcapngWriter(
        path: path,
        interfaces: [
          CaptureInterface(
            name: "em0", description: "82574L at 0000:03:00.0", filter: "arp", macAddress: [2, 0, 0, 0, 0, 1], speed: 1000),
          CaptureInterface(name: "vtnet0"),
        ], snapLength: 61, application: "Ringway test")
      try writer.write(frames.packet(frame + [1, 2, 3]), time: Self.time, direction: .inbound, comment: "hello")
      try writer.write(frames.packet(frame), interface: 1, time: Self.time + 1, direction: .outbound)
      try writer.write(
        CaptureStatistics(start: Self.time, end: Self.time + 2, received: 7, dropped: 3, accepted: 2), interface: 0)
      #expect(writer.packets == 2)
      #expect(writer.bytes == 61 + 60)
      try writer.flush()
    }
    let blocks = try Block.all(in: path)
    #expect(blocks.map(\.type) == [0x0a0d_0d0a, 1, 1, 6, 6, 5])

    #expect(blocks[0].u32(0) == 0x1a2b_3c4d)
    #expect(blocks[0].u16(4) == 1)
    #expect(blocks[0].u16(6) == 0)
    #expect(try blocks[0].options(from: 16)[4] == Array("Ringway test".utf8))

    let interface = try blocks[1].options(from: 8)
    #expect(blocks[1].u16(0) == 1)
    #expect(blocks[1].u32(4) == 61)
    #expect(interface[2] == Array("em0".utf8))
    #expect(interface[3] == Array("82574L at 0000:03:00.0".utf8))
    #expect(interface[6] == [2, 0, 0, 0, 0, 1])
    #expect(interface[8] == [0x00, 0xca, 0x9a, 0x3b, 0, 0, 0, 0])
    #expect(interface[9] == [9])
    #expect(interface[11] == [0] + Array("arp".utf8))
    #expect(try blocks[2].options(from: 8).keys.sorted() == [2, 9])

    let packet = blocks[3]
    #expect(packet.u32(0) == 0)
    #expect(UInt64(packet.u32(4)) << 32 | UInt64(packet.u32(8)) == Self.time)
    #expect(packet.u32(12) == 61)
    #expect(packet.u32(16) == 63)
    #expect(Array(packet.body[20..<81]) == frame + [1])
    #expect(packet.body[81..<84].allSatisfy { $0 == 0 })
    let options = try packet.options(from: 84)
    #expect(options[2] == [0b01101, 0, 0, 0])  // inbound, broadcast
    #expect(options[1] == Array("hello".utf8))
    #expect(blocks[4].u32(0) == 1)
    #expect(try blocks[4].options(from: 80)[2] == [2, 0, 0, 0])

    let statistics = try blocks[5].options(from: 12)
    #expect(statistics[4] == [7, 0, 0, 0, 0, 0, 0, 0])
    #expect(statistics[5] == [3, 0, 0, 0, 0, 0, 0, 0])
    #expect(statistics[6] == [2, 0, 0, 0, 0, 0, 0, 0])
    #expect(statistics[2]?.count == 8)
  }

  @Test(.enabled(if: tcpdumpInstalled)) func tcpdumpReadsIt() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("a.pcapng")
    do {
      var writer = try PcapngWriter(path: path, interfaces: [CaptureInterface(name: "em0")])
      for (index, frame) in Zoo.frames.enumerated() {
        try writer.write(frames.packet(frame), time: Self.time + UInt64(index), direction: .inbound)
      }
      try writer.write(CaptureStatistics(start: 1, end: 2, received: 3, dropped: 4), interface: 0)
      try writer.flush()
    }
    let said = try tcpdump(["--nano", "-tt", "-ner", path])
    #expect(said.status == 0, "\(said.errors)")
    let lines = said.output.split(separator: "\n")
    #expect(lines.count == Zoo.frames.count)
    for (index, line) in lines.enumerated() {
      #expect(line.hasPrefix("1700000000.\(123_456_789 + index) "))
    }
    #expect(lines[0].contains("198.18.0.1.5000 > 198.18.0.2.53"))
    #expect(lines[12].contains("who-has 198.18.0.2 tell 198.18.0.1"))
    // Byte for byte: tcpdump prints the frame in hexadecimal.
    let dump = try tcpdump(["-t", "-xxnr", path, "ether proto 0x88cc"])
    let digits = dump.output.split(separator: "\n").dropFirst().flatMap { $0.split(separator: ":")[1].filter(\.isHexDigit) }
    #expect(String(digits) == Zoo.frames[20].map { String(format: "%02x", $0) }.joined())
  }

  @Test func framesInPiecesAndTagsAreJoined() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("a.pcapng")
    let jumbo = (0..<9000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    do {
      var writer = try PcapngWriter(path: path, interfaces: [CaptureInterface(name: "em0")])
      try writer.write(frames.chain(jumbo, piece: 2048), time: 5)
      let tagged = try frames.chain(jumbo, piece: 2000)
      tagged.vlan = 0x2005
      tagged.flags = .vlan
      try writer.write(tagged, time: 6)
      try writer.flush()
    }
    let blocks = try Block.all(in: path).filter { $0.type == 6 }
    #expect(Array(blocks[0].body[20..<9020]) == jumbo)
    #expect(blocks[1].u32(12) == 9004)
    #expect(blocks[1].u32(16) == 9004)
    #expect(Array(blocks[1].body[20..<9024]) == jumbo[..<12] + [0x81, 0, 0x20, 5] + jumbo[12...])
  }

  @Test func limitsAreRefused() throws {
    let folder = try TemporaryFolder()
    for wrong in [0, -1, 262_145, .max] {
      #expect(throws: CaptureError.snapLength(wrong)) {
        _ = try PcapngWriter(path: folder.file("x"), interfaces: [], snapLength: wrong)
      }
    }
    var writer = try PcapngWriter(path: folder.file("y"), interfaces: [CaptureInterface(name: "em0")])
    let refused = try [-1, 1, .max].map { try writer.write(frames.packet([1, 2, 3]), interface: $0, time: 0) }
    #expect(refused == [false, false, false])
    #expect(writer.packets == 0)
    // A comment longer than allowed is cut, and the file stays well formed.
    try writer.write(frames.packet([1, 2, 3]), time: 0, comment: String(repeating: "é", count: 5000))
    try writer.flush()
    let block = try #require(try Block.all(in: folder.file("y")).last)
    #expect(try block.options(from: 24)[1]?.count == PcapngWriter.commentLimit)
  }

  @Test func manyPacketsGoThroughASmallBuffer() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("a.pcapng")
    let frame = [UInt8](repeating: 0x55, count: 1500)
    do {
      var writer = try PcapngWriter(path: path, interfaces: [CaptureInterface(name: "em0")])
      let packet = try frames.packet(frame)
      for index in 0..<5000 { try writer.write(packet, time: UInt64(index)) }
      try writer.flush()
    }
    let blocks = try Block.all(in: path)
    #expect(blocks.count == 5002)
    #expect(blocks.dropFirst(2).enumerated().allSatisfy { $1.u32(8) == UInt32($0) && $1.body[20] == 0x55 })
  }

  @Test func errorsOfTheSystemAreTyped() throws {
    #expect(throws: CaptureError.open(SystemError("open", "/nonexistent/x", .noSuchFileOrDirectory))) {
      _ = try PcapngWriter(path: "/nonexistent/x", interfaces: [])
    }
    var full = try PcapngWriter(path: "/dev/full", interfaces: [CaptureInterface(name: "em0")])
    let caught = { () -> CaptureError? in
      do throws(CaptureError) { try full.flush() } catch { return error }
      return nil
    }()
    #expect(caught == .full(path: "/dev/full"))
    // It stays an error: nothing is appended behind half a block.
    #expect(throws: CaptureError.full(path: "/dev/full")) { try full.flush() }
  }

  @Test func aReaderThatLeavesIsNoticed() throws {
    signal(SIGPIPE, SIG_IGN)
    var ends: [Int32] = [0, 0]
    #expect(unsafe pipe(&ends) == 0)
    var writer = try PcapngWriter(OwnedDescriptor(taking: ends[1]), path: "the pipe", interfaces: [CaptureInterface(name: "em0")])
    try writer.flush()
    close(ends[0])
    let packet = try frames.packet(Zoo.frames[0])
    var caught: CaptureError?
    do throws(CaptureError) {
      for _ in 0..<10_000 { try writer.write(packet, time: 0) }
      try writer.flush()
    } catch { caught = error }
    #expect(caught == .readerGone(path: "the pipe"))
  }

  /// A pipe whose reader is slow, and which somebody made non-blocking.
  @Test func aSlowReaderIsWaitedFor() async throws {
    var ends: [Int32] = [0, 0]
    #expect(unsafe pipe(&ends) == 0)
    for end in ends { #expect(fcntl(end, F_SETFL, O_NONBLOCK) == 0) }
    let reading = ends[0]
    let total = 3000
    let reader = Thread {
      usleep(20_000)
      var chunk = [UInt8](repeating: 0, count: 65536)
      while true {
        let count = unsafe read(reading, &chunk, chunk.count)
        if count == 0 { break }
        if count < 0 { usleep(200) } else { ReadBytes.total.withLock { $0 += count } }
      }
      ReadBytes.done.signal()
    }
    reader.start()
    var expected = 0
    do {
      var writer = try PcapngWriter(OwnedDescriptor(taking: ends[1]), path: "pipe", interfaces: [CaptureInterface(name: "em0")])
      let packet = try frames.packet([UInt8](repeating: 1, count: 1000))
      for _ in 0..<total { try writer.write(packet, time: 0) }
      try writer.flush()
      expected = total * (32 + 1000 + 12)
    }
    ReadBytes.done.wait()
    #expect(ReadBytes.total.withLock { $0 } > expected)
    #expect(ReadBytes.total.withLock { $0 } < expected + 200)
    close(reading)
  }
}

import Synchronization

enum ReadBytes {
  static let total = Mutex(0)
  static let done = DispatchSemaphore(value: 0)
}
