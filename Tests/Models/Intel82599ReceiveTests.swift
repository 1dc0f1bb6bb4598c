// The receive side of the 82599 model, by hand-made rings.

import ModelKit
import Testing

@testable import Models

/// Filters, queues, write-back, buffers, statistics and errors of the receiving half.
@Suite struct Intel82599ReceiveTests {
  @Test func frameArrivesWhole() throws {
    let rig = try Rig599()
    rig.startReceive(0)
    let frames = [60, 61, 128, 1500].map { Frame599.plain($0) }
    rig.arrive(frames)
    let found = rig.takeReceived(0)
    #expect(found.map(\.bytes) == frames && found.allSatisfy { $0.status & 3 == 3 && $0.pieces == 1 })
    #expect(rig.read(0x1010) == 4)
    #expect(rig.read(0x4074) == 4 && rig.read(0x4074) == 0, "GPRC is cleared by reading")
    #expect(rig.read(0x405c) == 1 && rig.read(0x4060) == 1 && rig.read(0x4064) == 1 && rig.read(0x4070) == 1)
    #expect(rig.read(0x4088) == UInt32(frames.reduce(0) { $0 + $1.count + 4 }))
    #expect(rig.read(0x1030) == 4 && rig.read(0x1034) == UInt32(frames.reduce(0) { $0 + $1.count }))
  }

  @Test func longFramesTakeSeveralBuffers() throws {
    let rig = try Rig599()
    rig.startReceive(0)
    rig.arrive([Frame599.plain(1515)])
    #expect(rig.takeReceived(0).isEmpty && rig.read(0x40ac) == 1, "too long without jumbo frames: ROC")
    rig.set(4, 0x4240)
    rig.write(9022 << 16, 0x4268)
    let frame = Frame599.plain(9018)
    rig.arrive([frame, Frame599.plain(9019)])
    let found = rig.takeReceived(0)
    #expect(found.map(\.bytes) == [frame] && found.first?.pieces == 5 && rig.read(0x40ac) == 1)
  }

  @Test func addressFilters() throws {
    let rig = try Rig599()
    rig.startReceive(0)
    let other = Frame599.plain(60, to: [2, 0, 0, 0, 0, 7]), group: [UInt8] = [1, 0, 0x5e, 0, 0, 0xfb]
    let broadcast = Frame599.plain(60, to: [UInt8](repeating: 255, count: 6))
    func passes(_ frame: [UInt8]) -> Bool {
      rig.arrive([frame])
      return rig.takeReceived(0).count == 1
    }
    #expect(passes(Frame599.plain(60)) && !passes(other) && passes(broadcast) && !passes(Frame599.plain(60, to: group)))
    rig.write(0, 0x5080)
    #expect(!passes(broadcast))
    rig.write(0x200, 0x5080)
    #expect(passes(other) && !passes(Frame599.plain(60, to: group)))
    rig.write(0x100, 0x5080)
    #expect(!passes(other) && passes(Frame599.plain(60, to: group)))
    // The second receive address, and its end.
    rig.write(0x400, 0x5080)
    rig.write(0x0000_0002, 0xa208)
    rig.write(0x8000_0700, 0xa20c)
    #expect(passes(other))
    rig.write(0x700, 0xa20c)
    #expect(!passes(other))
    // Multicast table: bits 47:36 of the address; 0xfb00 >> 4 = 0xfb0.
    rig.write(4, 0x5090)
    rig.write(1 << 16, 0x5200 + 4 * (0xfb0 >> 5))
    #expect(passes(Frame599.plain(60, to: group)) && !passes(Frame599.plain(60, to: [1, 0, 0x5e, 0, 0, 0xfc])))
    #expect(rig.model.filteredOut > 0)
  }

  @Test func tagsAreFilteredAndStripped() throws {
    let rig = try Rig599()
    rig.startReceive(0)
    let frame = Frame599.plain(100), tagged = Frame599.tagged(frame, 0x6005)
    rig.arrive([tagged])
    var found = rig.takeReceived(0)
    #expect(found.map(\.bytes) == [tagged] && found.first.map { $0.status & 8 } == 0)
    rig.set(1 << 30, 0x1028)
    rig.arrive([tagged])
    found = rig.takeReceived(0)
    #expect(found.map(\.bytes) == [frame] && found.first?.tag == 0x6005 && found.first.map { $0.status & 8 } == 8)
    rig.set(1 << 30, 0x5088)
    rig.arrive([tagged, frame])
    #expect(rig.takeReceived(0).map(\.tag) == [0], "VLAN 5 is not in the table; untagged frames pass")
    rig.write(1 << 5, 0xa000)
    rig.arrive([tagged])
    #expect(rig.takeReceived(0).map(\.tag) == [0x6005])
  }

  /// Microsoft's published vectors, through registers, hash and redirection.
  @Test func publishedHashes() throws {
    let key: [UInt8] = [
      0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
      0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
      0x01, 0xfa,
    ]
    let rig = try Rig599()
    for i in 0..<10 {
      rig.write((0..<4).reduce(UInt32(0)) { $0 | UInt32(key[4 * i + $1]) << UInt32(8 * $1) }, 0x5c80 + 4 * i)
    }
    for i in 0..<32 { rig.write(0x0302_0100, 0x5c00 + 4 * i) }
    rig.write(1 << 13, 0x5000)
    for queue in 0..<4 { rig.startReceive(queue) }
    let vectors: [(source: [UInt8], target: [UInt8], ports: (Int, Int), plain: UInt32, tcp: UInt32)] = [
      ([66, 9, 149, 187], [161, 142, 100, 80], (2794, 1766), 0x323e_8fc2, 0x51cc_c178),
      ([199, 92, 111, 2], [65, 69, 140, 83], (14230, 4739), 0xd718_262a, 0xc626_b0ea),
      ([24, 19, 198, 95], [12, 22, 207, 184], (12898, 38024), 0xd2d0_a5de, 0x5c2b_394a),
      ([38, 27, 205, 30], [209, 142, 163, 6], (48228, 2217), 0x8298_9176, 0xafc7_327f),
      ([153, 39, 163, 191], [202, 188, 127, 2], (44251, 1303), 0x5d18_09c5, 0x10e8_28a2),
    ]
    for vector in vectors {
      for (fields, transport, hash, type) in [
        (3, 6, vector.tcp, 1), (2, 6, vector.plain, 2), (3, 17, vector.plain, 2), (0x42, 17, vector.tcp, 7),
      ] as [(UInt32, UInt8, UInt32, UInt32)] {
        rig.write(fields << 16 | 1, 0x5818)
        rig.arrive([Frame599.ip4(vector.source, vector.target, ports: vector.ports, transport: transport)])
        let queue = Int(hash & 3)
        let found = rig.takeReceived(queue)
        #expect(found.count == 1 && found.first?.hash == hash && found.first.map { $0.kind & 0xf } == type)
        #expect(found.first.map { $0.kind & 0xfff0 } == (transport == 6 ? 0x110 : 0x210))
      }
    }
    #expect((0..<4).allSatisfy { rig.takeReceived($0).isEmpty })
  }

  @Test func checksumsAreChecked() throws {
    let rig = try Rig599()
    rig.startReceive(0)
    let a: [UInt8] = [198, 18, 0, 1], b: [UInt8] = [198, 18, 0, 2]
    var badHeader = Frame599.ip4(a, b, ports: (1, 2))
    badHeader[24] ^= 1
    rig.arrive([
      Frame599.ip4(a, b, ports: (1, 2)), Frame599.ip4(a, b, ports: (1, 2), right: false), badHeader,
      Frame599.ip4(a, b, ports: (1, 2), transport: 17), Frame599.plain(60),
    ])
    let status = rig.takeReceived(0).map { $0.status & 0xc000_0070 }
    #expect(status == [0x60, 0x4000_0060, 0x8000_0060, 0x70, 0])
  }

  @Test func badFramesAreCountedAndKeptOnlyWhenWanted() throws {
    let rig = try Rig599()
    rig.startReceive(0)
    rig.arrive([Frame599.plain(60)], marks: .badCheckSequence)
    #expect(rig.takeReceived(0).isEmpty && rig.read(0x4000) == 1 && rig.read(0x4074) == 0)
    rig.set(2, 0x5080)
    rig.arrive([Frame599.plain(60)], marks: .badCheckSequence)
    #expect(rig.takeReceived(0).map { $0.status & 1 << 24 } == [1 << 24])
  }

  @Test func checkSequenceStaysWhenNotStripped() throws {
    let rig = try Rig599()
    rig.startReceive(0)
    rig.write(rig.read(0x4240) & ~2, 0x4240)
    rig.write(0, 0x2f00)
    rig.write(0x200, 0x5080)
    let frame: [UInt8] = Frame599.plain(60)
    rig.arrive([frame])
    let found = rig.takeReceived(0).last?.bytes ?? []
    // Residue of CRC-32 over a frame and its check sequence, bit by bit.
    var crc = UInt32.max
    for byte in found {
      crc ^= UInt32(byte)
      for _ in 0..<8 { crc = crc & 1 != 0 ? crc >> 1 ^ 0xedb8_8320 : crc >> 1 }
    }
    #expect(found.count == 64 && ~crc == 0x2144_df1c)
  }

  @Test func framesWaitInThePacketBuffer() throws {
    let rig = try Rig599(packetBuffer: 2048)
    rig.startReceive(0, count: 64, posted: 2)
    let frames = (0..<20).map { Frame599.plain(200, seed: UInt8($0)) }
    rig.arrive(frames)
    #expect(rig.takeReceived(0).map(\.bytes) == Array(frames[0..<2]))
    let lost = Int(rig.read(0x3fa0))
    #expect(lost > 0 && lost < 18 && rig.read(0x808) & 1 << 17 != 0, "MPC, and its cause")
    rig.write(40, 0x1018)
    rig.card.settle()
    #expect(rig.takeReceived(0).map(\.bytes) == Array(frames[2..<20 - lost]))
  }

  @Test func fullQueueDropsWhenTold() throws {
    let rig = try Rig599()
    rig.startReceive(0, posted: 2, split: 0x1200_0002)
    rig.arrive((0..<5).map { Frame599.plain(60, seed: UInt8($0)) })
    #expect(rig.takeReceived(0).count == 2 && rig.read(0x1430) == 3)
  }

  @Test func legacyDescriptors() throws {
    let rig = try Rig599()
    rig.startReceive(0, split: 2, control: 1 << 30)
    rig.arrive([Frame599.tagged(Frame599.plain(80), 7)])
    let at = rig.receive[0]!.base
    // Length in the low half of the third word, status behind it, tag at the end.
    #expect(rig.word(at + 8) & 0xffff == 80 && rig.word(at + 12) & 0xff == 0xb && rig.word(at + 12) >> 16 == 7)
  }

  @Test func queuesFromSixtyFourOn() throws {
    let rig = try Rig599()
    rig.startReceive(100)
    // Perfect filter: everything IPv4 to queue 100.
    rig.write(1 | 1 << 4 | 1 << 5, 0xee00)
    #expect(rig.read(0xee00) & 8 != 0)
    rig.write(.max, 0xee3c)
    rig.write(.max, 0xee40)
    rig.write(0x1b, 0xee70)
    rig.write(0x0777_0001, 0xee28)
    rig.write(1 | 8 | 100 << 16 | 1 << 15, 0xee2c)
    #expect(rig.read(0xee2c) & 3 == 0)
    rig.arrive([Frame599.ip4([198, 18, 0, 1], [198, 18, 0, 2], ports: (5, 6))])
    let found = rig.takeReceived(100)
    #expect(found.count == 1 && found.first.map { $0.status & 4 } == 4 && found.first?.hash == 0x0777_0001)
    #expect(rig.read(0xee58) == 1)
  }

  @Test func directorComparesPortsThroughItsMasks() throws {
    let rig = try Rig599()
    for queue in 0..<2 { rig.startReceive(queue) }
    rig.write(1 | 1 << 4, 0xee00)
    rig.write(.max, 0xee3c)
    rig.write(.max, 0xee40)
    // Compare the destination port only: the source half (lower) is masked out.
    rig.write(0x0000_ffff, 0xee44)
    rig.write(0x13, 0xee70)
    rig.write(80 << 16 | 9, 0xee20)
    rig.write(1, 0xee28)
    rig.write(1 | 8 | 2 << 5 | 1 << 16 | 1 << 15, 0xee2c)
    let a: [UInt8] = [198, 18, 0, 1], b: [UInt8] = [198, 18, 0, 2]
    rig.arrive([Frame599.ip4(a, b, ports: (1000, 80)), Frame599.ip4(a, b, ports: (1000, 81)), Frame599.ip4(a, b, ports: (1, 80), transport: 17)])
    #expect(rig.takeReceived(1).count == 1 && rig.takeReceived(0).count == 2)
    rig.write(1, 0xee28)
    rig.write(2, 0xee2c)
    rig.arrive([Frame599.ip4(a, b, ports: (1000, 80))])
    #expect(rig.takeReceived(1).isEmpty && rig.takeReceived(0).count == 1)
  }

  /// With keys of one bit the hashes can be worked out by hand.
  @Test func directorFindsSignatures() throws {
    let rig = try Rig599()
    for queue in 0..<2 { rig.startReceive(queue) }
    rig.write(1, 0xee68)
    rig.write(1 << 16, 0xee6c)
    rig.write(1 | 6 << 16, 0xee00)
    let a: [UInt8] = [198, 18, 0, 1], b: [UInt8] = [198, 18, 0, 2]
    // Folded: ports 0x03e8_0050, addresses c6120001 ^ c6120002, flexible word 0800 << 16.
    let folded: UInt32 = 0x03e8_0050 ^ 3 ^ 0x0800_0000
    // Bucket, key bit 0: the halves swapped. Signature, key bit 16: with the flow (TCP: 2 << 16) and its half.
    let bucket = (folded >> 16) & 0x7fff, sign = (folded ^ 0x2_0000 ^ 2) & 0x7fff
    rig.write(sign << 16 | bucket, 0xee28)
    rig.write(1 | 8 | 2 << 5 | 1 << 16 | 1 << 15, 0xee2c)
    rig.arrive([Frame599.ip4(a, b, ports: (1000, 80)), Frame599.ip4(a, b, ports: (1000, 81)), Frame599.ip4(a, b, ports: (1000, 80), transport: 17)])
    #expect(rig.takeReceived(1).map { $0.status & 4 } == [4] && rig.takeReceived(0).map { $0.status & 4 } == [0, 0])
    #expect(rig.read(0xee58) == 1 && rig.read(0xee5c) == 2)
  }

  @Test func memoryErrorsStopOneQueue() throws {
    let rig = try Rig599()
    rig.startReceive(0)
    rig.setWords([0x10, 0, 0, 0], at: rig.receive[0]!.base)
    rig.arrive([Frame599.plain(60), Frame599.plain(60)])
    #expect(rig.takeReceived(0).isEmpty && rig.model.dmaErrors == 1 && rig.model.bus.complaintCount == 1)
    // Disabled and set up anew it runs again.
    rig.write(0, 0x1028)
    rig.card.settle()
    rig.startReceive(0)
    rig.arrive([Frame599.plain(60)])
    #expect(rig.takeReceived(0).count == 1)
  }

  @Test func tailBeyondTheRingIsRefused() throws {
    let rig = try Rig599()
    rig.startReceive(0, posted: 0)
    rig.write(5000, 0x1018)
    rig.arrive([Frame599.plain(60)])
    #expect(rig.takeReceived(0).isEmpty && rig.model.bus.complaints.contains { $0.contains("5000") })
  }

  @Test func receiverOffMeansNothing() throws {
    let rig = try Rig599()
    rig.startReceive(0)
    rig.write(0, 0x3000)
    rig.arrive([Frame599.plain(60)])
    #expect(rig.takeReceived(0).isEmpty && rig.model.filteredOut == 1 && rig.wire.waiting == 0)
  }

  @Test func faultsOfTheReceiver() throws {
    let rig = try Rig599()
    rig.startReceive(0)
    rig.model.inject(.receiveLength(9999, count: 1))
    rig.model.inject(.receiveError(count: 2))
    rig.arrive([Frame599.plain(60)])
    let at = rig.receive[0]!.base
    #expect(rig.word(at + 12) & 0xffff == 9999 && rig.word(at + 8) & 1 << 29 != 0)
    rig.model.inject(.missingEnd(count: 1))
    rig.arrive([Frame599.plain(60)])
    #expect(rig.word(at + 24) & 3 == 1)
    rig.model.inject(.neverDelivers)
    rig.arrive([Frame599.plain(60)])
    #expect(rig.word(at + 40) & 1 == 0 && rig.read(0x1010) == 3)
  }
}
