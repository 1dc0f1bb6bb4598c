// What the card does to frames: checksums, segmentation, VLAN tags. Judged on the wire.

import DriverKit
import ModelKit
import Models
import Packet
import Testing
import Wire

@testable import Ixgbe

@Suite struct OffloadTests {
  static let modes: [InProcessCard.Mode] = [.trapped, .shared]

  @Test func receiveChecksumsAreReported() throws {
    let bench = try Bench()
    var broken = Frames.ipv4(tcp: true)
    broken[60] ^= 1
    var brokenHeader = Frames.ipv4()
    brokenHeader[22] ^= 1
    bench.arrive([Frames.ipv4(tcp: true), Frames.ipv4(), broken, brokenHeader, Frames.plain(1)])
    let batch = bench.receive()
    var flags: [PacketFlags] = []
    batch.forEach { flags.append($0.flags.subtracting(.hashed)) }
    #expect(flags.count == 5)
    #expect(flags[0] == [.ipChecksum, .tcpChecksum])
    #expect(flags[1] == [.ipChecksum, .udpChecksum])
    #expect(flags[2] == [.ipChecksum, .badChecksum])
    #expect(flags[3].contains(.badChecksum) && !flags[3].contains(.ipChecksum))
    #expect(flags[4] == [])
  }

  @Test(arguments: [true, false], [UInt16?.none, 77])
  func transmitChecksumsAreInserted(tcp: Bool, vlan: UInt16?) throws {
    let bench = try Bench()
    let packet = try bench.packet(Frames.ipv4(tcp: tcp, checksums: false))
    packet.flags = tcp ? [.ipChecksum, .tcpChecksum] : [.ipChecksum, .udpChecksum]
    packet.setHeaderLengths(link: 14, network: 20)
    if let vlan {
      packet.flags.insert(.vlan)
      packet.vlan = vlan
    }
    #expect(bench.send(packet) == 1)
    bench.card.settle()
    let expected = Frames.ipv4(tcp: tcp, vlan: vlan)
    #expect(Array(bench.wire.sent[0].bytes.prefix(expected.count)) == expected)
    bench.nothingIsLost()
    #expect(bench.model.bus.complaints == [])
  }

  /// The same headers again need no new context; another kind does, and the older one goes.
  @Test func contextsAreKept() throws {
    let bench = try Bench()
    func send(tcp: Bool, vlan: UInt16? = nil) throws {
      let packet = try bench.packet(Frames.ipv4(tcp: tcp, checksums: false))
      packet.flags = tcp ? [.ipChecksum, .tcpChecksum] : [.ipChecksum, .udpChecksum]
      packet.setHeaderLengths(link: 14, network: 20)
      if let vlan {
        packet.flags.insert(.vlan)
        packet.vlan = vlan
      }
      _ = bench.send(packet)
      bench.card.settle()
      let sent = bench.wire.takeSent(), expected = Frames.ipv4(tcp: tcp, vlan: vlan)
      #expect(sent.count == 1 && Array(sent[0].bytes.prefix(expected.count)) == expected)
    }
    for _ in 0..<20 { for tcp in [true, false] { try send(tcp: tcp) } }
    #expect(bench.statistic("tx_queue_0_contexts") == 2)
    try send(tcp: true, vlan: 5)
    for tcp in [true, false] { try send(tcp: tcp) }
    #expect(bench.statistic("tx_queue_0_contexts") ?? 0 > 3)
    bench.nothingIsLost()
  }

  /// A forwarded frame keeps its bytes: its flags speak of what was checked.
  @Test func forwardedFramesAreNotTouched() throws {
    let bench = try Bench()
    var broken = Frames.ipv4(tcp: true)
    broken[60] ^= 1
    bench.arrive([Frames.ipv4(tcp: true), broken])
    var batch = bench.receive()
    _ = bench.driver.send(queue: 0, &batch)
    bench.card.settle()
    #expect(bench.wire.sent.map(\.bytes) == [Frames.ipv4(tcp: true), broken])
  }

  /// Payload over several buffers leaves as segments with headers of their own.
  @Test(arguments: modes, [UInt16?.none, 9]) func payloadIsCut(mode: InProcessCard.Mode, vlan: UInt16?) throws {
    let bench = try Bench(mode: mode)
    let data = (0..<9000).map { UInt8(truncatingIfNeeded: $0 &* 3) }
    // FIN and PSH, as on the last of a stream.
    let packet = try bench.packet(Frames.segment(data: data, flags: 0x19, checksums: false, cut: true))
    packet.setHeaderLengths(link: 14, network: 20)
    packet.setSegmentation(size: 1448, transport: 20)
    packet.flags.insert(.ipChecksum)
    if let vlan {
      packet.flags.insert(.vlan)
      packet.vlan = vlan
    }
    #expect(bench.send(packet) == 1)
    bench.card.settle()
    let sent = bench.wire.takeSent().map(\.bytes)
    #expect(sent.count == 7)
    for (i, frame) in sent.enumerated() {
      let part = Array(data[(i * 1448)..<min(data.count, (i + 1) * 1448)])
      let expected = Frames.segment(
        data: part, sequence: 1 + UInt32(i * 1448), flags: i == sent.count - 1 ? 0x19 : 0x10, identification: i,
        vlan: vlan)
      #expect(frame == expected, "segment \(i)")
    }
    bench.nothingIsLost()
    #expect(bench.model.bus.complaints == [])
  }

  @Test func segmentationWithoutHeadersIsRefused() throws {
    let bench = try Bench()
    let packet = try bench.packet(Frames.plain(1, count: 1000))
    packet.setSegmentation(size: 1000, transport: 20)
    #expect(bench.send(packet) == 1)
    bench.card.settle()
    #expect(bench.wire.sent.isEmpty)
    #expect(bench.statistic("tx_queue_0_drops") == 1)
    bench.nothingIsLost()
  }

  @Test(arguments: modes) func tagsAreStrippedAndInserted(mode: InProcessCard.Mode) throws {
    let bench = try Bench(mode: mode) { $0.stripVLAN = true }
    bench.arrive([Frames.ipv4(vlan: 0x6123), Frames.ipv4()])
    var batch = bench.receive()
    var tags: [UInt16?] = []
    batch.forEach { packet in
      tags.append(packet.flags.contains(.vlan) ? packet.vlan : nil)
      check(packet.bytes().starts(with: Frames.ipv4()))
    }
    #expect(tags == [0x6123, nil])
    // Sent on, the tag is there again.
    _ = bench.driver.send(queue: 0, &batch)
    bench.card.settle()
    #expect(bench.wire.sent.count == 2)
    #expect(bench.wire.sent[0].bytes.starts(with: Frames.ipv4(vlan: 0x6123)))
    #expect(bench.wire.sent[1].bytes.starts(with: Frames.ipv4()))
  }

  @Test func withoutStrippingTagsStay() throws {
    let bench = try Bench()
    bench.arrive([Frames.ipv4(vlan: 9)])
    let batch = bench.receive()
    batch.forEach { check(!$0.flags.contains(.vlan) && $0.bytes().starts(with: Frames.ipv4(vlan: 9))) }
    #expect(batch.count == 1)
  }

  @Test func hashesAreGivenWithTheFrame() throws {
    let bench = try Bench()
    bench.arrive([Frames.ipv4(tcp: true), Frames.plain(1)])
    let batch = bench.receive()
    var hashes: [UInt32?] = []
    batch.forEach { hashes.append($0.flags.contains(.hashed) ? $0.hash : nil) }
    #expect(hashes.count == 2 && hashes[0] != nil && hashes[0] != 0 && hashes[1] == nil)
  }
}
