// Every command, and what it refuses.

import CRingway
import ModelKit
import Platform
import Testing

@testable import ModelServer

@Suite struct CommandTests {
  @Test func theVersionIsASubsetAndNoLongerThanTheQuestion() throws {
    let bench = try ServerBench()
    let client = try RawClient(path: bench.path)
    let reply = try client.greet()
    #expect(!reply.isError && reply.payload.count <= 5 + RawClient.capabilities.utf8.count)
    #expect(Array(reply.payload[..<4]) == [0, 0, 0, 0] && reply.payload.last == 0)
    let answer = try #require(JSONValue(parsing: reply.payload[4...].dropLast()))
    let offers = try #require(answer["capabilities"])
    #expect(offers["max_msg_fds"] == .number(16) && offers["pgsizes"] == .number(4096))
    #expect(offers["max_data_xfer_size"] == .number(1_048_576) && offers["max_dma_maps"] == .number(65535))
    #expect(offers["write_multiple"] == .bool(true))
    // Once is enough.
    #expect(try client.greet().errno == EINVAL)
    client.close()

    let other = try RawClient(path: bench.path)
    let little = try other.greet(#"{"capabilities":{"max_msg_fds":4,"migration":{"pgsize":4096}}}"#, minor: 3)
    #expect(little.payload[2] == 1)
    let text = try #require(JSONValue(parsing: little.payload[4...].dropLast()))
    #expect(text == .object(["capabilities": .object(["max_msg_fds": .number(16)])]))
  }

  @Test func aVersionWithoutCapabilitiesIsAnsweredWithout() throws {
    let bench = try ServerBench()
    let client = try RawClient(path: bench.path)
    #expect(try client.ask(1, le16(0) + le16(1)).payload == [0, 0, 1, 0])
    #expect(try client.register(0) == CopyEngine.identity)
  }

  @Test(arguments: ["1.0", "0", "0.0{\"a\"", "0.0[]"])
  func aWrongVersionEndsTheConnection(_ text: String) throws {
    let bench = try ServerBench()
    let errno = text == "1.0" ? EOPNOTSUPP : EINVAL
    // The version's first two numbers as the message has them, then the text.
    var payload = le16(UInt16(text.prefix(1))!)
    if text.count > 1 { payload += le16(0) + Array(text.dropFirst(3).utf8) }
    let client = try RawClient(path: bench.path)
    let reply = try client.ask(1, payload)
    #expect(reply.isError && reply.errno == errno && reply.payload.isEmpty)
    #expect(throws: ConnectionOver.self) { try client.receive() }
    #expect(try bench.connect().register(0) == CopyEngine.identity)
  }

  @Test func nothingIsDoneBeforeTheVersion() throws {
    let bench = try ServerBench()
    let client = try RawClient(path: bench.path)
    #expect(try client.ask(4, le32(16) + le32(0)).errno == EINVAL)
    #expect(throws: ConnectionOver.self) { try client.receive() }
  }

  @Test func commandsThatAreNotServedAreRefused() throws {
    let client = try ServerBench.fresh()
    for command in [0, 11, 12, 14, 16, 17, 18, 200, 65535] as [UInt16] {
      let reply = try client.ask(command, [1, 2, 3, 4])
      #expect(reply.isError && reply.errno == ENOSYS && reply.payload.isEmpty, "command \(command)")
    }
    #expect(try client.ask(6, le32(16) + le32(0) + le32(0) + le32(0)).errno == EOPNOTSUPP)
    #expect(try client.register(0) == CopyEngine.identity)
  }

  @Test func describesTheDevice() throws {
    let client = try ServerBench.fresh()
    let info = try client.ask(4, le32(16) + le32(0) + le32(0) + le32(0))
    #expect(info.payload == le32(16) + le32(3) + le32(9) + le32(5))
    #expect(try client.ask(4, le32(8)).errno == EINVAL)
    #expect(try client.ask(4).errno == EINVAL)

    var counts: [UInt32] = []
    for index in 0..<5 as Range<UInt32> {
      let reply = try client.interruptInfo(index)
      #expect(reply.field32(0) == 16 && reply.field32(8) == index)
      counts.append(reply.field32(12))
    }
    #expect(counts == [1, 1, 64, 1, 1])
    #expect(try client.interruptInfo(0).field32(4) == 7)
    #expect(try client.interruptInfo(2).field32(4) == 1)
    #expect(try client.interruptInfo(5).errno == EINVAL)
  }

  @Test func describesRegionsWithTheirSharedPages() throws {
    let client = try ServerBench.fresh()
    let short = try client.regionInfo(0)
    #expect(short.payload.count == 32 && short.field32(0) == 64 && short.field32(4) == 15)
    // Where the capabilities will be: QEMU looks at that already in the short answer.
    #expect(short.field32(12) == 32)
    for descriptor in short.descriptors { _ = close(descriptor) }

    let whole = try client.regionInfo(0, room: 64)
    #expect(whole.payload.count == 64 && whole.field32(12) == 32 && whole.field64(16) == 0x4000)
    #expect(Array(whole.payload[32...]) == le16(1) + le16(1) + le32(0) + le32(1) + le32(0) + le64(0x1000) + le64(0x1000))
    #expect(whole.descriptors.count == 1)
    for descriptor in whole.descriptors { _ = close(descriptor) }

    #expect(try client.regionInfo(4).payload == le32(32) + le32(3) + le32(4) + le32(0) + le64(0x1000) + le64(0))
    #expect(try client.regionInfo(7).field64(16) == 4096)
    for region in [1, 2, 3, 5, 6, 8] as [UInt32] {
      let reply = try client.regionInfo(region)
      #expect(reply.field64(16) == 0 && reply.field32(4) == 0 && reply.descriptors.isEmpty)
    }
    #expect(try client.regionInfo(9).errno == EINVAL)
    #expect(try client.regionInfo(0, room: 31).errno == EINVAL)
  }

  @Test func trappedModeSharesNothing() throws {
    let client = try ServerBench.fresh(.trapped)
    let info = try client.regionInfo(0, room: 64)
    #expect(info.payload.count == 32 && info.field32(4) == 3 && info.descriptors.isEmpty)
  }

  @Test func readsAndWritesAnyRange() throws {
    let client = try ServerBench.fresh(.trapped)
    try client.setRegister(4, 0x4433_2211)
    try client.setRegister(8, 0x8877_6655)
    #expect(try client.read(0, 4, 8).payload[16...] == [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88])
    #expect(try client.read(0, 5, 5).payload[16...] == [0x22, 0x33, 0x44, 0x55, 0x66])
    #expect(try client.read(0, 6, 1).payload[16...] == [0x33])
    #expect(try client.write(0, 5, [0xaa, 0xbb, 0xcc, 0xdd]).payload.count == 16)
    #expect(try client.read(0, 4, 8).payload[16...] == [0x11, 0xaa, 0xbb, 0xcc, 0xdd, 0x66, 0x77, 0x88])
    // Configuration space in one go, as QEMU reads it.
    let space = try client.read(7, 0, 256)
    #expect(space.payload.count == 16 + 256 && space.field32(16) == 0x0c09_1af4)
    #expect(try client.read(7, 0, 4096).payload.count == 16 + 4096)
    // The end of a region, and what lies beyond.
    #expect(try client.read(0, 0x3fff, 1).payload.count == 17)
    for (region, offset, count) in [
      (0, 0x3fff, 2), (0, 0x4000, 1), (0, UInt64.max, 1), (0, 1 << 63, 4), (0, 0, 0), (0, 0, 0xffff_ffff), (1, 0, 4),
      (6, 0, 4), (7, 4095, 2), (8, 0, 1), (9, 0, 4), (0xffff_ffff, 0, 4),
    ] as [(UInt32, UInt64, UInt32)] {
      #expect(try client.read(region, offset, count).errno == EINVAL, "read \(region) \(offset) \(count)")
      let write = try client.ask(10, le64(offset) + le32(region) + le32(count) + [1, 2, 3, 4])
      #expect(write.errno == EINVAL, "write \(region) \(offset) \(count)")
    }
    // Less data than was said.
    #expect(try client.ask(10, le64(4) + le32(0) + le32(8) + [1, 2, 3, 4]).errno == EINVAL)
    #expect(try client.ask(9, le64(4)).errno == EINVAL)
  }

  @Test func writesNeedNoReply() throws {
    let client = try ServerBench.fresh()
    client.send(10, le64(4) + le32(0) + le32(4) + le32(7), flags: 0x10)
    client.send(10, le64(0x4000) + le32(0) + le32(4) + le32(7), flags: 0x10)
    // The next reply is the next question's.
    #expect(try client.register(4) == 7)
  }

  @Test func severalWritesInOneMessage() throws {
    let client = try ServerBench.fresh()
    func entry(_ offset: UInt64, _ value: UInt64, _ count: UInt32) -> [UInt8] {
      le64(offset) + le32(0) + le32(count) + le64(value)
    }
    let reply = try client.ask(15, le64(2) + entry(4, 0x1234, 4) + entry(8, 0x1122_3344_5566_7788, 8))
    #expect(reply.payload == le64(2))
    #expect(try client.register(4) == 0x1234)
    #expect(try client.register(8) == 0x5566_7788)
    #expect(try client.register(12) == 0x1122_3344)
    #expect(try client.ask(15, le64(3) + entry(4, 0, 4)).errno == EINVAL)
    #expect(try client.ask(15, le64(1) + entry(4, 0, 9)).errno == EINVAL)
    #expect(try client.ask(15, le64(UInt64.max)).errno == EINVAL)
    #expect(try client.register(4) == 0x1234)
  }

  @Test func resetsByCommandAndByConfigurationSpace() throws {
    let client = try ServerBench.fresh()
    let event = try EventFD()
    #expect(try client.setInterrupts(0x24, 2, 0, 1, [event.descriptor]).errno == 0)
    try client.setBusMaster()
    try client.setRegister(4, 9)
    let reset = try client.ask(13)
    #expect(!reset.isError && reset.payload.isEmpty)
    #expect(try client.register(4) == 0)
    #expect(try client.read(7, 4, 2).payload[16...] == [0, 0])
    // Who listens, listens still: the kernel's VFIO keeps eventfds over a reset, too.
    try client.setBusMaster()
    try client.setRegister(0x1000, 1)
    #expect(eventually { event.drain() == 1 })

    // Device control's bit 15, in the PCI Express capability.
    let space = Array(try client.read(7, 0, 256).payload[16...])
    var at = Int(space[0x34])
    while space[at] != 0x10 { at = Int(space[at + 1]) }
    try client.setRegister(4, 9)
    _ = try client.write(7, UInt64(at + 8), le16(0x8000))
    #expect(try client.register(4) == 0)
  }
}

extension ServerBench {
  /// A greeted client, whose server lives as long as the test's client does.
  static func fresh(_ mode: AccessMode = .shared) throws -> RawClient {
    let bench = try ServerBench(mode: mode)
    let client = try bench.connect()
    client.keeps = bench
    return client
  }
}
