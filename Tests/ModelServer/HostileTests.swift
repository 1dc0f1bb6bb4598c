// Clients that do not behave, and what they leave behind.

import CRingway
import ModelKit
import Platform
import Testing

@testable import ModelServer

@Suite struct HostileTests {
  /// The server takes the next client, and the device is as new.
  private func expectReady(_ bench: ServerBench, left: Int) throws {
    #expect(eventually { bench.record.left == left })
    bench.record.state.withLock { state in
      check(state.windows == 0 && state.interruptKind == nil)
    }
    let next = try bench.connect()
    #expect(try next.register(0) == CopyEngine.identity)
    #expect(try next.register(4) == 0)
    #expect(try next.read(7, 4, 2).payload[16...] == [0, 0])
    next.close()
    #expect(eventually { bench.record.left == left + 1 })
  }

  @Test(arguments: [AccessMode.trapped, .shared])
  func aClientThatIsKilledInTrafficLeavesNothing(_ mode: AccessMode) throws {
    let bench = try ServerBench(mode: mode)
    let name = "killed-\(mode)"
    let file = try memoryFile(0x40_0000, name: name)
    let event = try EventFD()
    for round in 0..<10 {
      let client = try bench.connect()
      #expect(try !client.map(0, 0x40_0000, file: file.raw).isError)
      #expect(try !client.setInterrupts(0x24, 2, 0, 2, [event.descriptor, event.descriptor]).isError)
      #expect(try mappings(named: name) == 1)
      #expect(try descriptors(of: event) == 3)
      try client.setBusMaster()
      _ = try client.write(0, 8, le64(0) + le64(0x10_0000))
      try client.setRegister(0x20, 0x8_0000)
      try client.setRegister(4, 77)
      // Questions without end whose answers nobody reads, and then nobody at all.
      for number in 1...200 as ClosedRange<UInt32> {
        client.send(10, le64(0x1000) + le32(0) + le32(4) + le32(number), flags: 0x10)
        client.send(9, le64(0) + le32(0) + le32(4))
      }
      client.close()
      try expectReady(bench, left: 2 * round + 1)
      #expect(try mappings(named: name) == 0)
      #expect(descriptors(named: name) == 1)
      #expect(try descriptors(of: event) == 1)
    }
  }

  @Test func halfMessagesAndGarbageEndTheConnection() throws {
    let bench = try ServerBench()
    var left = 0
    func disturb(_ body: (RawClient) throws -> Void) throws {
      let client = try bench.connect()
      try body(client)
      client.close()
      left += 1
      try expectReady(bench, left: left)
      left += 1
    }
    // A header alone, half a header, half a message.
    try disturb { $0.push(RawClient.header(id: 9, 9, size: 32)) }
    try disturb { $0.push([1, 2, 3]) }
    try disturb { $0.push(RawClient.header(id: 9, 10, size: 0x1000) + [UInt8](repeating: 0, count: 100)) }
    // Sizes that cannot be.
    try disturb { (client: RawClient) throws in
      client.push(RawClient.header(id: 9, 9, size: 15))
      #expect(throws: ConnectionOver.self) { try client.receive() }
    }
    try disturb { (client: RawClient) throws in
      client.push(RawClient.header(id: 9, 9, size: 0x7fff_ffff))
      #expect(throws: ConnectionOver.self) { try client.receive() }
    }
    // The largest that can be, and one more.
    try disturb { (client: RawClient) throws in
      let reply = try client.write(7, 0, [UInt8](repeating: 0, count: 4096))
      #expect(!reply.isError)
      client.push(RawClient.header(id: 9, 10, size: 16 + 16 + (1 << 20) + 1))
      #expect(throws: ConnectionOver.self) { try client.receive() }
    }
    try disturb { $0.push([UInt8](repeating: 0xff, count: 5000)) }
    // A message of another kind, and a reply to nothing.
    try disturb { (client: RawClient) throws in
      client.push(RawClient.header(id: 9, 9, size: 16, flags: 1))
      #expect(try client.register(0) == CopyEngine.identity)
      client.push(RawClient.header(id: 9, 9, size: 16, flags: 7))
      #expect(throws: ConnectionOver.self) { try client.receive() }
    }
  }

  @Test func descriptorsThatNobodyWantsAreClosed() throws {
    let bench = try ServerBench()
    let client = try bench.connect()
    let file = try memoryFile(0x1000, name: "unwanted")
    // On commands that take none, on unknown ones, too many, and on refused ones.
    #expect(try client.ask(4, le32(16), [file.raw]).payload.count == 16)
    #expect(try client.ask(200, [], [file.raw, file.raw]).errno == ENOSYS)
    #expect(try client.ask(4, le32(16), Array(repeating: file.raw, count: 17)).errno == EINVAL)
    #expect(try client.setInterrupts(0x24, 2, 0, 3, [file.raw, file.raw]).errno == EINVAL)
    #expect(try client.map(0x1000, 0x2000, file: file.raw).errno == EINVAL)
    client.push(RawClient.header(id: 1, 4, size: 24), [file.raw, file.raw, file.raw])
    client.close()
    #expect(eventually { bench.record.left == 1 })
    #expect(descriptors(named: "unwanted") == 1)
    #expect(try mappings(named: "unwanted") == 0)
  }

  @Test func aMessageMayComeInPiecesWithItsDescriptor() throws {
    let bench = try ServerBench()
    let client = try bench.connect()
    let file = try memoryFile(0x1000)
    let message = RawClient.header(id: 77, 2, size: 48) + le32(32) + le32(3) + le64(0) + le64(0x1000) + le64(0x1000)
    for index in message.indices { client.push([message[index]], index == 20 ? [file.raw] : []) }
    let reply = try client.receive()
    #expect(reply.id == 77 && !reply.isError)
    try client.setBusMaster()
    // Several in one piece.
    let ask = RawClient.header(id: 1, 9, size: 32) + le64(0) + le32(0) + le32(4)
    client.push(ask + ask + ask)
    for _ in 0..<3 { #expect(try client.receive().field32(16) == CopyEngine.identity) }
  }

  @Test func aClientThatDoesNotListenBlocksNobodyElse() throws {
    let bench = try ServerBench()
    let client = try bench.connect()
    // Answers that nobody reads, more than the socket takes; and the questions still fit.
    let ask = RawClient.header(id: 1, 9, size: 32) + le64(0) + le32(7) + le32(4096)
    var pushed = 0
    for _ in 0..<150 { pushed += client.push(ask) }
    #expect(pushed == 150 * 32)
    for _ in 0..<150 { #expect(try client.receive().payload.count == 16 + 4096) }
    for _ in 0..<150 { client.push(ask) }
    client.close()
    #expect(eventually { bench.record.left == 1 })
    #expect(try bench.connect().register(0) == CopyEngine.identity)
  }

  @Test func theNextClientWaitsUntilTheOneBeforeHasLeft() throws {
    let bench = try ServerBench()
    let first = try bench.connect()
    let second = try RawClient(path: bench.path)
    let text = Array(RawClient.capabilities.utf8) + [0]
    second.send(1, le16(0) + le16(0) + text)
    #expect(try first.register(0) == CopyEngine.identity)
    first.close()
    #expect(try second.receive().command == 1)
    #expect(try second.register(0) == CopyEngine.identity)
  }

  @Test func aDoorbellIsSeenWithinAMillisecondOrTwoOfSleep() throws {
    let bench = try ServerBench()
    let client = try bench.connect()
    let info = try client.regionInfo(0, room: 64)
    let file = OwnedDescriptor(taking: try #require(info.descriptors.first))
    let mapped = unsafe mmap(nil, 0x1000, PROT_READ | PROT_WRITE, MAP_SHARED, file.raw, 0x1000)
    guard let page = unsafe mapped, UInt(bitPattern: page) != .max else { return check(false, "no mapping") }
    defer { unsafe munmap(page, 0x1000) }
    let event = try EventFD()
    #expect(try !client.setInterrupts(0x24, 2, 0, 1, [event.descriptor]).isError)
    // The client cannot cut short what the server stands on.
    #expect(ftruncate(file.raw, 0) != 0)
    let clock = MonotonicClock()
    var waits: [UInt64] = []
    for number in 1...20 as ClosedRange<UInt32> {
      clock.sleep(nanoseconds: 20_000_000)
      let start = clock.now()
      unsafe rw_doorbell32(page, number)
      var list = pollfd(fd: event.descriptor, events: Int16(POLLIN), revents: 0)
      #expect(unsafe rw_poll(&list, 1, 2_000_000_000) == 1)
      waits.append(clock.now() - start)
      #expect(event.drain() == 1)
    }
    // Half of them: the machine may have other things to do.
    #expect(waits.sorted()[10] < 5_000_000)
  }
}
