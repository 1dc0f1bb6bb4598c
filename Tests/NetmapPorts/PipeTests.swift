import CRingway
import NetmapAPI
import NetmapCore
import Testing

@testable import NetmapPorts

@Suite("Pipes")
struct PipeTests {
  @Test("What one end sends the other receives, in order, in the sender's buffers")
  func transfer() throws {
    let lab = try NetmapTestSystem.complete()
    let a = try lab.pipe("x{1"), b = try lab.pipe("x}1")
    let tx = a.transmitRings[0], rx = b.receiveRings[0]
    let sent = (0..<3).map { tx.slot($0).bufferIndex }, empty = (0..<3).map { rx.slot($0).bufferIndex }
    for n in 0..<3 { TestFrame.put(tx, UInt64(n)) }
    a.sync(.transmit)
    #expect(rx.tail == 0, "shown at the reader's sync")
    #expect(tx.tail == 63, "before its first sync the reader is not there yet")
    b.sync(.receive)
    #expect(rx.tail == 3 && (0..<3).map { rx.slot($0).bufferIndex } == sent, "no copy: the same buffers")
    #expect((0..<3).allSatisfy { rx.slot($0).flags == .bufferChanged })
    #expect(tx.tail == 63, "nor does it change anything but at its own syncs")
    a.sync(.transmit)
    #expect(tx.tail == 2 && (0..<3).map { tx.slot($0).bufferIndex } == empty, "the sender has its slots back, with empty buffers")
    #expect((0..<3).allSatisfy { tx.slot($0).flags == .bufferChanged })
    for n in 0..<3 { check(TestFrame.take(rx)?.number == UInt64(n)) }
    b.sync(.receive)
    #expect(a.counters(RingID(.transmit, 0))?.packets == 3 && b.counters(RingID(.receive, 0))?.packets == 3)
    #expect(b.counters(RingID(.receive, 0))?.bytes == UInt64((0..<3).map { TestFrame.length($0, 0) }.reduce(0, +)))
    // And the other way, to a reader that is there.
    a.sync(.receive)
    TestFrame.put(b.transmitRings[0], 9)
    b.sync(.transmit)
    a.sync(.receive)
    check(TestFrame.take(a.receiveRings[0])?.number == 9)
    a.close()
    b.close()
    try lab.expectAllBack()
  }

  @Test("Ends open in either order: what was sent before waits in the sender's ring", arguments: ["x{1", "x}1"])
  func order(first: String) throws {
    let lab = try NetmapTestSystem.complete()
    let a = try lab.pipe(first), tx = a.transmitRings[0]
    for n in 0..<63 { TestFrame.put(tx, UInt64(n)) }
    a.sync(.transmit)
    #expect(tx.isEmpty && a.counters(RingID(.transmit, 0))?.packets == 0, "nobody takes it")
    let b = try lab.pipe(first == "x{1" ? "x}1" : "x{1")
    b.sync(.receive)
    for n in 0..<63 { check(TestFrame.take(b.receiveRings[0])?.number == UInt64(n)) }
    #expect(a.wait(for: .transmit, milliseconds: 0) == .transmit && tx.space == 63, "it moved without a sync of the sender's")
    a.close()
    b.close()
    try lab.expectAllBack()
  }

  @Test("One end closes: the other reads what came, sees no more, and goes on when the end is opened again")
  func close() throws {
    let lab = try NetmapTestSystem.complete()
    let a = try lab.pipe("x{1")
    var b = try lab.pipe("x}1")
    b.sync(.receive)
    for n in 0..<5 { TestFrame.put(b.transmitRings[0], UInt64(n)) }
    b.sync(.transmit)
    for n in 0..<7 { TestFrame.put(a.transmitRings[0], UInt64(n)) }
    a.sync(.transmit)
    b.close()
    a.sync(.receive)
    for n in 0..<5 { check(TestFrame.take(a.receiveRings[0])?.number == UInt64(n)) }
    a.sync(.receive)
    #expect(a.receiveRings[0].isEmpty)
    TestFrame.put(a.transmitRings[0], 100)
    a.sync(.transmit)
    b = try lab.pipe("x}1")
    b.sync(.receive)
    check(TestFrame.take(b.receiveRings[0])?.number == 100, "what b had not read went with it")
    a.close()
    b.sync(.receive)
    TestFrame.put(b.transmitRings[0], 1)
    b.sync(.transmit)
    #expect(b.wait(for: [.receive], milliseconds: 0) == [])
    b.close()
    try lab.expectAllBack()
  }

  @Test("Room that the reader makes moves what the writer left behind, and wakes it")
  func stall() throws {
    let lab = try NetmapTestSystem.complete()
    let a = try lab.pipe("x{1", slots: 8), b = try lab.pipe("x}1")
    let tx = a.transmitRings[0], rx = b.receiveRings[0]
    b.sync(.receive)
    var n: UInt64 = 0
    for _ in 0..<2 {
      while tx.space > 0 {
        TestFrame.put(tx, n)
        n += 1
      }
      a.sync(.transmit)
    }
    #expect(n == 14 && tx.isEmpty, "seven there, seven here")
    a.krings[0].wakeup.arm()
    b.sync(.receive)
    #expect(a.krings[0].wakeup.count == 0)
    for k in 0..<3 { check(TestFrame.take(rx)?.number == UInt64(k)) }
    b.sync(.receive)
    #expect(a.krings[0].wakeup.count == 1 && tx.space == 0, "the reader carried on")
    a.sync(.transmit)
    #expect(tx.space == 3)
    for k in 3..<14 {
      if rx.isEmpty { b.sync(.receive) }
      check(TestFrame.take(rx)?.number == UInt64(k))
    }
    a.krings[0].wakeup.disarm()
    a.close()
    b.close()
    try lab.expectAllBack()
  }

  @Test("One wakeup a batch, for the ring and for its direction")
  func wakeups() throws {
    let lab = try NetmapTestSystem.complete()
    let a = try lab.pipe("x{1"), b = try lab.pipe("x}1")
    let reader = try #require(b.krings.first { $0.id.direction == .receive }).wakeup
    b.sync(.receive)
    for n in 0..<20 { TestFrame.put(a.transmitRings[0], UInt64(n)) }
    a.sync(.transmit)
    #expect(reader.count == 0, "a program that does not wait costs nothing")
    reader.arm()
    b.adapter.krings.receiveWakeup.arm()
    for n in 0..<20 { TestFrame.put(a.transmitRings[0], UInt64(n)) }
    a.sync(.transmit)
    #expect(reader.count == 1 && b.adapter.krings.receiveWakeup.count == 1)
    a.sync(.transmit)
    #expect(reader.count == 1, "nothing moved, nobody is woken")
    reader.disarm()
    b.adapter.krings.receiveWakeup.disarm()
  }

  @Test("Packets of several slots move together or not at all; too long ones are dropped")
  func fragments() throws {
    let lab = try NetmapTestSystem.complete()
    let a = try lab.pipe("x{1", slots: 128), b = try lab.pipe("x}1")
    let tx = a.transmitRings[0], rx = b.receiveRings[0]
    b.sync(.receive)
    TestFrame.put(tx, 1)
    TestFrame.put(tx, 2, fragments: 5)
    TestFrame.put(tx, 3, fragments: 2)
    let end = tx.head
    // All but the last slot of packet 3.
    tx.setHead(end - 1)
    a.sync(.transmit)
    b.sync(.receive)
    #expect(rx.tail == 6 && tx.space == 126, "the unfinished packet stays")
    tx.setHead(end)
    a.sync(.transmit)
    b.sync(.receive)
    for (n, parts) in [(1, 1), (2, 5), (3, 2)] { check(TestFrame.take(rx).map { $0 == (UInt64(n), parts) } == true) }
    // 64 slots are the most; of a longer one nothing arrives.
    TestFrame.put(tx, 4, fragments: 64)
    a.sync(.transmit)
    b.sync(.receive)
    check(TestFrame.take(rx).map { $0 == (4, 64) } == true)
    b.sync(.receive)
    TestFrame.put(tx, 5, fragments: 70)
    TestFrame.put(tx, 6)
    a.sync(.transmit)
    b.sync(.receive)
    check(TestFrame.take(rx).map { $0 == (6, 1) } == true)
    #expect(a.counters(RingID(.transmit, 0))?.drops == 1)
    // No room for the whole packet: none of it moves.
    b.sync(.receive)
    for n in 0..<100 { TestFrame.put(tx, UInt64(n)) }
    a.sync(.transmit)
    TestFrame.put(tx, 200, fragments: 40)
    a.sync(.transmit)
    b.sync(.receive)
    #expect(rx.space == 100 && tx.space == 127 - 40)
    for n in 0..<100 { check(TestFrame.take(rx)?.number == UInt64(n)) }
    b.sync(.receive)
    check(TestFrame.take(rx).map { $0 == (200, 40) } == true)
    a.close()
    b.close()
    try lab.expectAllBack()
  }

  @Test("Rings and slots are those of the end that is opened first, the other way round for the other")
  func shape() throws {
    let lab = try NetmapTestSystem.complete()
    var register = RegisterRequest()
    (register.transmitRings, register.receiveRings, register.transmitSlots, register.receiveSlots) = (3, 2, 32, 16)
    let a = try lab.system.register(PortRequest("x}7", RingSelection(.allNIC), register: register))
    let b = try lab.pipe("x{7", .oneNIC(1), memory: .max)
    #expect(a.transmitRings.count == 3 && a.receiveRings.count == 2 && a.transmitRings[0].count == 32 && a.receiveRings[0].count == 16)
    #expect(b.rings.map(\.id) == [RingID(.transmit, 1), RingID(.receive, 1)] && b.receiveRings[0].count == 32)
    TestFrame.put(a.transmitRings[1], 5)
    a.sync(.transmit)
    b.sync(.receive)
    check(TestFrame.take(b.receiveRings[0])?.number == 5, "ring 1 to ring 1")
    #expect(throws: NetmapError.self) { try lab.pipe("x{7", .oneNIC(3), memory: .max) }
    #expect(try lab.pipe("x{7", .oneNIC(0), .transmitRingsOnly, memory: .max).rings.map(\.id) == [RingID(.transmit, 0)])
    #expect(throws: NetmapError.self) { try lab.pipe("x{7", .oneNIC(1), .exclusive, memory: .max) }
  }

  @Test("Names, modes and regions that cannot be")
  func refusals() throws {
    let lab = try NetmapTestSystem.complete()
    for mode in [RegisterMode.software, .nicAndSoftware, .oneSoftware(0)] {
      #expect(throws: NetmapError(.EINVAL, "x{1: a pipe has no rings to the host")) { try lab.pipe("x{1", mode) }
    }
    for name in ["{1", "x{", "x{a}b", "x{a b", "x{1/2"] {
      do {
        _ = try lab.pipe(name)
        Issue.record("\(name) was opened")
      } catch { #expect(error.code == .EINVAL) }
    }
    let a = try lab.pipe("x{1")
    let other = try lab.system.memory.makePrivate(PoolSizes(buffers: 1024, minimumBuffers: 1024), name: "other")
    #expect(throws: NetmapError.self) { try lab.pipe("x}1", memory: other.id) }
    a.close()
    let b = try lab.pipe("x}1", memory: other.id)
    #expect(b.region === other)
    #expect(try lab.pipe("x{1", memory: .max).region === other, "the other end's region, when none is asked for")
    #expect(try lab.pipe("x{2", memory: .max).region === other, "and that of other pipes of the base")
    #expect(try lab.pipe("y{2", memory: .max).region.kind == .privateMemory)
    let looked = PortRequest("y{1", RingSelection(.allNIC))
    #expect(throws: NetmapError.self) { try lab.system.adapter(for: looked, create: false) }
  }

  @Test("A pipe of a port shares that port's region and slots; another pipe of it does as well")
  func parent() throws {
    let lab = try NetmapTestSystem.complete()
    let region = try lab.system.memory.makePrivate(PoolSizes(buffers: 1024, minimumBuffers: 1024), name: "other")
    var register = RegisterRequest()
    register.memoryID = region.id
    let parent = try lab.system.register(PortRequest("t0", RingSelection(.oneNIC(0)), register: register))
    let a = try lab.open("t0{1"), b = try lab.open("t0}1"), c = try lab.open("t0}2")
    #expect(a.region === region && b.region === region && c.region === region)
    #expect(a.transmitRings[0].count == 64, "slots as the parent has them")
    for port in [a, b, c, parent] { port.close() }
    #expect(region.users == 0)
  }
}
