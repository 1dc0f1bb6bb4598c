import DriverKit
import Foundation
import Packet
import Testing
import Wire

@testable import Ringway

@Suite struct GeneratorTests {
  /// Sends `count` frames over the pair and returns the account.
  func exchange(
    _ pair: FakePair, size: Int, count: UInt64, rate: UInt64? = nil, expected: UInt64? = nil, window: Int = 1 << 20
  ) throws -> (GeneratorCounts, ReceiverCounts) {
    var options = GeneratorOptions()
    options.size = size
    options.count = count
    options.rate = rate
    var generator = try PacketGenerator(pair.ports[0], stream: pair.stream(), options: options)
    var receiverOptions = ReceiverOptions()
    receiverOptions.expected = expected
    receiverOptions.window = window
    var receiver = PacketReceiver(pair.ports[1], options: receiverOptions)
    var now: UInt64 = 1_000_000
    var rounds = 0
    while !generator.isDone(now: now) && rounds < 1_000_000 {
      _ = generator.round(now: now)
      _ = receiver.round(now: now + 500)
      now += 1000
      rounds += 1
    }
    while receiver.round(now: now) > 0 {}
    return (generator.counts, receiver.counts)
  }

  @Test(arguments: [60, 61, 62, 100, 1513, 1514]) func everyFrameArrives(size: Int) throws {
    let pair = try FakePair()
    let (sent, got) = try exchange(pair, size: size, count: 2000)
    #expect(sent.sent == 2000)
    #expect(sent.bytes == UInt64(2000 * size))
    #expect(got.packets == 2000)
    #expect(got.bytes == UInt64(2000 * size))
    #expect(got.lost + got.duplicates + got.reordered + got.corrupted + got.late + got.foreign + got.other == 0)
    #expect(got.first == 0 && got.last == 1999)
    #expect(got.minimumLatency == 500 && got.meanLatency >= 500)
    for port in pair.ports { #expect(port.drain(within: 1000)) }
  }

  @Test(arguments: [2048, 2049, 4097, 9014]) func jumboFramesLieInSeveralBuffers(size: Int) throws {
    var options = PortOptions()
    options.mtu = 9000
    let pair = try FakePair(options)
    var longest = 0
    pair.wire.fault = { _, bytes in
      longest = max(longest, bytes.count)
      return [bytes]
    }
    let (_, got) = try exchange(pair, size: size, count: 200)
    #expect(longest == size)
    #expect(got.packets == 200)
    #expect(got.corrupted == 0)
    for port in pair.ports { #expect(port.drain(within: 1000)) }
  }

  @Test func severalQueuesAreUsed() throws {
    var options = PortOptions()
    options.queues = 3
    let pair = try FakePair(options)
    let (sent, got) = try exchange(pair, size: 60, count: 10_000)
    #expect(sent.sent == 10_000)
    #expect(got.packets == 10_000)
    #expect(got.lost == 0)
  }

  /// Each fault of the wire shows under its own name and no other.
  @Test func faultsAreTold() throws {
    let pair = try FakePair()
    var held: [UInt8]?
    pair.wire.fault = { number, bytes in
      switch number {
      case 100..<110: return []  // ten lost
      case 200: return [bytes, bytes, bytes]  // two duplicates
      case 300:
        held = bytes
        return []
      case 305: return [bytes, held!]  // one late by five
      case 400:
        var damaged = bytes
        damaged[70] ^= 0x10
        return [damaged]
      case 500:
        var foreign = TestFrame.template(TestStream(destination: .broadcast, source: .broadcast, run: 8), size: 60)
        let checksum = TestFrame.checksum(sum: foreign.sum, sequence: 0, time: 0)
        foreign.bytes[40] = UInt8(checksum >> 8)
        foreign.bytes[41] = UInt8(checksum & 0xff)
        return [bytes, foreign.bytes, [UInt8](repeating: 0, count: 64)]
      default: return [bytes]
      }
    }
    let (_, got) = try exchange(pair, size: 100, count: 1000, expected: 1005)
    #expect(got.packets == 989)
    #expect(got.lost == 16)  // ten, the damaged one, and five that were never sent
    #expect(got.duplicates == 2)
    #expect(got.reordered == 1)
    #expect(got.corrupted == 1)
    #expect(got.foreign == 1)
    #expect(got.other == 1)
  }

  /// A change of any bit behind the MAC addresses never passes for a good frame.
  @Test func everyBitIsWatched() throws {
    for size in [60, 61, 97] {
      let pair = try FakePair()
      let bits = (size - 12) * 8
      pair.wire.fault = { number, bytes in
        guard number > 0 else { return [bytes] }
        var damaged = bytes
        damaged[12 + (number - 1) / 8] ^= 1 << UInt8((number - 1) % 8)
        return [damaged]
      }
      let (_, got) = try exchange(pair, size: size, count: UInt64(bits + 1))
      #expect(got.packets == 1, "\(size) bytes")
      #expect(got.corrupted + got.foreign + got.other == UInt64(bits))
      #expect(got.corrupted > UInt64(bits * 3 / 4))
    }
  }

  /// Two words exchanged leave an Internet checksum as it was; the pattern does not.
  @Test func exchangedWordsAreNoticed() throws {
    let pair = try FakePair()
    pair.wire.fault = { _, bytes in
      var damaged = bytes
      damaged.swapAt(80, 90)
      damaged.swapAt(81, 91)
      return [damaged]
    }
    let (_, got) = try exchange(pair, size: 120, count: 10)
    #expect(got.corrupted == 10)
  }

  @Test func cutAndPaddedFramesAreNoticed() throws {
    let pair = try FakePair()
    pair.wire.fault = { number, bytes in number % 2 == 0 ? [Array(bytes.dropLast())] : [bytes + [0]] }
    let (_, got) = try exchange(pair, size: 200, count: 10)
    #expect(got.corrupted == 10)
    #expect(got.packets == 0)
  }

  /// The sender waits for its ring and loses nothing.
  @Test func aFullRingIsWaitedFor() throws {
    let pair = try FakePair()
    pair.drivers[0].transmitRoom = 5
    let (sent, got) = try exchange(pair, size: 60, count: 1000)
    #expect(sent.full > 0)
    #expect(got.packets == 1000)
    #expect(got.reordered == 0)
  }

  @Test func theRateHolds() throws {
    let pair = try FakePair()
    var options = GeneratorOptions()
    options.rate = 10_000
    var generator = try PacketGenerator(pair.ports[0], stream: pair.stream(), options: options)
    var receiver = PacketReceiver(pair.ports[1])
    for microsecond in UInt64(0)..<1_000_000 where microsecond % 50 == 0 {
      _ = generator.round(now: microsecond * 1000)
      _ = receiver.round(now: microsecond * 1000)
    }
    #expect((9_999...10_001).contains(generator.counts.sent))
    #expect(receiver.counts.packets == generator.counts.sent)
  }

  @Test func sizesAreChecked() throws {
    let pair = try FakePair()
    for size in [0, 59, 1515, -1, .max] {
      var options = GeneratorOptions()
      options.size = size
      do {
        _ = try PacketGenerator(pair.ports[0], stream: pair.stream(), options: options)
        Issue.record("\(size) was accepted")
      } catch {
        #expect(error.category == .usage)
        #expect("\(error)".contains("60 to 1514"))
      }
    }
  }

  /// tcpdump recomputes both checksums of what we send.
  @Test(.enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/tcpdump"))) func tcpdumpAgrees() throws {
    let pair = try FakePair()
    var frames: [[UInt8]] = []
    pair.wire.fault = { _, bytes in
      frames.append(bytes)
      return []
    }
    for size in [60, 61, 1513, 1514] { _ = try exchange(pair, size: size, count: 50) }
    // The classic format, written here: what is judged is the frames.
    var file: [UInt8] = [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]
    for frame in frames {
      let length = (0..<4).map { UInt8(frame.count >> (8 * $0) & 0xff) }
      file += [UInt8](repeating: 0, count: 8) + length + length + frame
    }
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("ringway-\(UUID().uuidString).pcap")
    try Data(file).write(to: path)
    defer { try? FileManager.default.removeItem(at: path) }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/tcpdump")
    process.arguments = ["-vvnr", path.path]
    let output = Pipe()
    process.standardOutput = output
    process.standardError = Pipe()
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    #expect(text.components(separatedBy: "[udp sum ok]").count - 1 == 200)
    #expect(!text.contains("bad cksum"))
    #expect(text.components(separatedBy: "198.18.0.1.9000 > 198.19.0.1.9").count - 1 == 200)
  }
}
