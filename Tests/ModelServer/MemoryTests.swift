// Memory and interrupts of a client, for real: files mapped, copies made, eventfds signalled.

import CRingway
import ModelKit
import Platform
import Testing

@testable import ModelServer

@Suite struct MemoryTests {
  /// One copy, by messages alone.
  private func copy(_ client: RawClient, from source: UInt64, to target: UInt64, _ count: UInt32, number: UInt32) throws {
    _ = try client.write(0, 8, le64(source) + le64(target))
    try client.setRegister(0x20, count)
    try client.setRegister(0x1000, number)
    #expect(try eventually { try client.register(0x24) == number })
  }

  @Test(arguments: [AccessMode.trapped, .shared])
  func copiesBetweenAClientsFiles(_ mode: AccessMode) throws {
    let bench = try ServerBench(mode: mode)
    let client = try bench.connect()
    let one = try memoryFile(0x10000), two = try memoryFile(0x10000)
    let pattern = (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    put(pattern, in: one, at: 0x2800)
    #expect(try !client.map(0x10_0000, 0x4000, file: one.raw, offset: 0x2000).isError)
    #expect(try !client.map(0x7f_ffff_f000, 0x2000, file: two.raw, offset: 0x1000).isError)
    // Without bus mastering nothing is reached.
    try copy(client, from: 0x10_0800, to: 0x7f_ffff_f000, 100, number: 1)
    #expect(try client.register(0x18) > 0)
    try client.setBusMaster()
    try copy(client, from: 0x10_0800, to: 0x7f_ffff_f010, 5000, number: 2)
    #expect(get(5000, from: two, at: 0x1010) == pattern)
    #expect(get(16, from: two, at: 0x1000) == [UInt8](repeating: 0, count: 16))
  }

  @Test func refusesMapsThatMakeNoSense() throws {
    let client = try ServerBench.fresh()
    let file = try memoryFile(0x10000)
    #expect(try !client.map(0x1000, 0x1000, file: file.raw).isError)
    #expect(try client.map(0x1000, 0x1000, file: file.raw).errno == EEXIST)
    #expect(try client.map(0, 0x3000, file: file.raw).errno == EEXIST)
    #expect(try client.map(0x10_0000, 0, file: file.raw).errno == EINVAL)
    #expect(try client.map(0x10_0800, 0x1000, file: file.raw).errno == EINVAL)
    #expect(try client.map(0x10_0000, 0x800, file: file.raw).errno == EINVAL)
    #expect(try client.map(0x10_0000, 0x1000, file: file.raw, offset: 0x800).errno == EINVAL)
    // Beyond the file's end; around the end of numbers.
    #expect(try client.map(0x10_0000, 0x11000, file: file.raw).errno == EINVAL)
    #expect(try client.map(0x10_0000, 0x1000, file: file.raw, offset: 0x10000).errno == EINVAL)
    #expect(try client.map(0x10_0000, 0x1000, file: file.raw, offset: UInt64.max & ~0xfff).errno == EINVAL)
    #expect(try client.map(UInt64.max & ~0xfff, 0x2000, file: file.raw).errno == EINVAL)
    #expect(try client.map(0, 1 << 63, file: file.raw).errno == EINVAL)
    #expect(try client.map(0x10_0000, 0x1000, file: file.raw, flags: 0).errno == EINVAL)
    #expect(try client.map(0x10_0000, 0x1000, file: file.raw, flags: 7).errno == EINVAL)
    #expect(try client.ask(2, le32(32)).errno == EINVAL)
    // No memory file at all, and two of them.
    let event = try EventFD()
    #expect(try client.map(0x10_0000, 0x1000, file: event.descriptor).errno == EINVAL)
    let request = le32(32) + le32(3) + le64(0) + le64(0x10_0000) + le64(0x1000)
    #expect(try client.ask(2, request, [file.raw, file.raw]).errno == EINVAL)
    // The last page of all is a page.
    #expect(try !client.map(UInt64.max & ~0xfff, 0x1000, file: file.raw).isError)
  }

  @Test func readOnlyMemoryIsNotWritten() throws {
    let client = try ServerBench.fresh(.trapped)
    let file = try memoryFile(0x2000)
    put([1, 2, 3, 4], in: file, at: 0)
    #expect(try !client.map(0x1000, 0x1000, file: file.raw, flags: 1).isError)
    #expect(try !client.map(0x2000, 0x1000, file: file.raw, offset: 0x1000).isError)
    try client.setBusMaster()
    try copy(client, from: 0x1000, to: 0x2000, 4, number: 1)
    #expect(get(4, from: file, at: 0x1000) == [1, 2, 3, 4])
    #expect(try client.register(0x18) == 0)
    try copy(client, from: 0x2000, to: 0x1800, 4, number: 2)
    #expect(try client.register(0x18) == 1)
    #expect(get(4, from: file, at: 0x800) == [0, 0, 0, 0])
  }

  @Test func mapsWithoutAFileAreKeptAndNeverReached() throws {
    let client = try ServerBench.fresh(.trapped)
    #expect(try !client.map(0xf_0000, 0x1_0000, flags: 1).isError)
    #expect(try client.map(0xf_8000, 0x1000).errno == EEXIST)
    try client.setBusMaster()
    try copy(client, from: 0xf_0000, to: 0xf_0000, 4, number: 1)
    #expect(try client.register(0x18) == 1)
    #expect(try !client.unmap(0xf_0000, 0x1_0000).isError)
    #expect(try !client.map(0xf_8000, 0x1000).isError)
  }

  @Test func unmapsWhatIsThereAndSaysOk() throws {
    let client = try ServerBench.fresh(.trapped)
    let file = try memoryFile(0x8000)
    for page in 0..<8 as Range<UInt64> {
      #expect(try !client.map(0x10_0000 + page * 0x1000, 0x1000, file: file.raw, offset: page * 0x1000).isError)
    }
    let never = try client.unmap(0x50_0000, 0x1000)
    #expect(!never.isError && never.payload == le32(24) + le32(0) + le64(0x50_0000) + le64(0x1000))
    // A range over all that a vIOMMU has.
    #expect(try !client.unmap(0x10_2000, 0x7f_ffef_e000).isError)
    try client.setBusMaster()
    try copy(client, from: 0x10_1000, to: 0x10_0000, 4, number: 1)
    #expect(try client.register(0x18) == 0)
    try copy(client, from: 0x10_2000, to: 0x10_0000, 4, number: 2)
    #expect(try client.register(0x18) == 1)
    #expect(try client.unmap(0x1000, 0, flags: 2).errno == EINVAL)
    #expect(try client.unmap(0, 0, flags: 1).errno == EINVAL)
    #expect(try client.ask(3, le32(24)).errno == EINVAL)
    #expect(try !client.unmap(0, 0, flags: 2).isError)
    try copy(client, from: 0x10_1000, to: 0x10_0000, 4, number: 3)
    #expect(try client.register(0x18) == 2)
  }

  @Test func thousandsOfPagesAsBehindAVirtualIOMMU() throws {
    let bench = try ServerBench(mode: .trapped)
    let client = try bench.connect()
    let file = try memoryFile(5000 * 0x1000, name: "thousands")
    put([7, 7, 7], in: file, at: 4321 * 0x1000)
    // Scattered, and each with the file again.
    for page in 0..<5000 as Range<UInt64> {
      let address = (page * 7919 % 5000) * 0x3000
      #expect(try !client.map(address, 0x1000, file: file.raw, offset: page * 0x1000).isError)
    }
    // The file is held by this test alone, and mapped once.
    #expect(descriptors(named: "thousands") == 1)
    #expect(try mappings(named: "thousands") == 1)
    try client.setBusMaster()
    let source = (4321 * 7919 % 5000) * 0x3000 as UInt64
    try copy(client, from: source, to: 0, 3, number: 1)
    #expect(get(3, from: file, at: 0) == [7, 7, 7])
    for page in 0..<5000 as Range<UInt64> { #expect(try !client.unmap(page * 0x3000, 0x1000).isError) }
    #expect(try mappings(named: "thousands") == 0)
    #expect(try !client.map(0, 0x1000).isError)
  }

  @Test func aFileThatIsCutShortEndsTheClientAndNotTheServer() throws {
    let bench = try ServerBench(mode: .trapped)
    let client = try bench.connect()
    let file = try memoryFile(0x8000)
    #expect(try !client.map(0x1000, 0x8000, file: file.raw).isError)
    try client.setBusMaster()
    _ = try client.write(0, 8, le64(0x3000) + le64(0x5000))
    try client.setRegister(0x20, 0x2000)
    try #require(ftruncate(file.raw, 0) == 0)
    client.send(10, le64(0x1000) + le32(0) + le32(4) + le32(1))
    #expect(eventually { bench.record.left == 1 })
    #expect(bench.record.lastReason.contains("shorter"))
    check(bench.record.state.withLock { $0.windows } == 0)
    #expect(try bench.connect().register(0) == CopyEngine.identity)
  }
}
