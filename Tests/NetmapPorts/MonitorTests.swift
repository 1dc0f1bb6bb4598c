import NetmapAPI
import NetmapCore
import Testing

@testable import NetmapPorts

@Suite("Monitors")
struct MonitorTests {
  private func pipe(_ lab: NetmapTestSystem, slots: UInt32 = 64) throws -> (NetmapPort, NetmapPort) {
    let a = try lab.pipe("x{1", slots: slots), b = try lab.pipe("x}1", slots: slots)
    b.sync(.receive)
    a.sync(.receive)
    return (a, b)
  }

  @Test("A copy of what is sent, marked as sent, and of what is received; the parent's buffers stay the parent's")
  func copies() throws {
    let lab = try NetmapTestSystem.complete()
    let (a, b) = try pipe(lab)
    let sent = try lab.pipe("x{1", .allNIC, .monitorTransmit, memory: .max)
    let received = try lab.pipe("x}1", .allNIC, .monitorReceive, memory: .max)
    let both = try lab.pipe("x}1", .allNIC, [.monitorReceive, .monitorTransmit], memory: .max)
    #expect(sent.adapter.name.hasPrefix("x{1/t#") && both.adapter.name.hasPrefix("x}1/rt#"))
    #expect(sent.region !== a.region && sent.region.kind == .privateMemory)
    for n in 0..<4 { TestFrame.put(a.transmitRings[0], UInt64(n), fragments: n == 2 ? 3 : 1) }
    a.sync(.transmit)
    sent.sync(.receive)
    #expect((0..<6).allSatisfy { sent.receiveRings[0].slot($0).flags.contains(.transmitMonitor) })
    for n in 0..<4 { check(TestFrame.take(sent.receiveRings[0])?.number == UInt64(n)) }
    received.sync(.receive)
    #expect(received.receiveRings[0].isEmpty, "not shown to the reader yet")
    b.sync(.receive)
    for port in [received, both] {
      port.sync(.receive)
      #expect(!port.receiveRings[0].slot(0).flags.contains(.transmitMonitor))
      for n in 0..<4 { check(TestFrame.take(port.receiveRings[0])?.number == UInt64(n)) }
    }
    for n in 0..<4 { check(TestFrame.take(b.receiveRings[0])?.number == UInt64(n)) }
    // What b sends only `both` sees.
    TestFrame.put(b.transmitRings[0], 77)
    b.sync(.transmit)
    for port in [sent, received, both] { port.sync(.receive) }
    #expect(sent.receiveRings[0].isEmpty && received.receiveRings[0].isEmpty)
    check(TestFrame.take(both.receiveRings[0])?.number == 77)
    for port in [sent, received, both, a, b] { port.close() }
    #expect(a.krings.allSatisfy { $0.tap == nil })
    try lab.expectAllBack()
  }

  @Test("A monitor that is full drops whole packets and counts them; the parent does not wait")
  func full() throws {
    let lab = try NetmapTestSystem.complete()
    let (a, b) = try pipe(lab)
    let monitor = try lab.pipe("x{1", slots: 8, .allNIC, .monitorTransmit)
    for n in 0..<5 { TestFrame.put(a.transmitRings[0], UInt64(n)) }
    TestFrame.put(a.transmitRings[0], 5, fragments: 3)
    for n in 6..<20 { TestFrame.put(a.transmitRings[0], UInt64(n)) }
    a.sync(.transmit)
    b.sync(.receive)
    monitor.sync(.receive)
    var seen: [UInt64] = []
    while let frame = TestFrame.take(monitor.receiveRings[0]) { seen.append(frame.number) }
    #expect(seen == [0, 1, 2, 3, 4, 6, 7], "the packet of three did not fit behind five of seven")
    #expect(monitor.counters(RingID(.receive, 0))?.drops == 13 && monitor.counters(RingID(.receive, 0))?.packets == 7)
    #expect(b.receiveRings[0].space == 22)
  }

  @Test("An unfinished packet is copied once, when it is complete")
  func unfinished() throws {
    let lab = try NetmapTestSystem.complete()
    let (a, b) = try pipe(lab)
    let monitor = try lab.pipe("x{1", .allNIC, .monitorTransmit), tx = a.transmitRings[0]
    TestFrame.put(tx, 1)
    TestFrame.put(tx, 2, fragments: 4)
    let end = tx.head
    for head in [3, 4, end] as [UInt32] {
      tx.setHead(head)
      a.sync(.transmit)
    }
    monitor.sync(.receive)
    #expect(monitor.receiveRings[0].space == 5)
    for n in 1...2 { check(TestFrame.take(monitor.receiveRings[0])?.number == UInt64(n)) }
    b.sync(.receive)
    for n in 1...2 { check(TestFrame.take(b.receiveRings[0])?.number == UInt64(n)) }
  }

  @Test("Zero copy takes received buffers after their release, and leaves empty ones")
  func zeroCopy() throws {
    let lab = try NetmapTestSystem.complete()
    let (a, b) = try pipe(lab)
    let monitor = try lab.pipe("x}1", .allNIC, .zeroCopyMonitor, memory: .max), second = try lab.pipe("x}1", .allNIC, .zeroCopyMonitor)
    #expect(monitor.region === a.region)
    let rx = b.receiveRings[0], tx = a.transmitRings[0]
    let buffers = (0..<3).map { tx.slot($0).bufferIndex }
    for n in 0..<3 { TestFrame.put(tx, UInt64(n)) }
    a.sync(.transmit)
    b.sync(.receive)
    monitor.sync(.receive)
    #expect(monitor.receiveRings[0].isEmpty, "not before the reader has released them")
    for n in 0..<3 { check(TestFrame.take(rx)?.number == UInt64(n)) }
    b.sync(.receive)
    monitor.sync(.receive)
    second.sync(.receive)
    #expect((0..<3).map { monitor.receiveRings[0].slot($0).bufferIndex } == buffers, "the very buffers")
    for n in 0..<3 { check(TestFrame.take(monitor.receiveRings[0])?.number == UInt64(n)) }
    for n in 0..<3 { check(TestFrame.take(second.receiveRings[0])?.number == UInt64(n), "a copy for the second") }
    // A thousand more: no buffer is in two places, none is lost.
    for n in 0..<1000 {
      TestFrame.put(tx, UInt64(n))
      a.sync(.transmit)
      b.sync(.receive)
      check(TestFrame.take(rx)?.number == UInt64(n))
      b.sync(.receive)
      monitor.sync(.receive)
      check(TestFrame.take(monitor.receiveRings[0])?.number == UInt64(n))
    }
    let all = [a, b, monitor].flatMap(\.krings).flatMap { RingRemains.slots(of: $0) }
    check(Set(all).count >= all.count - 64 * 2, "spare slots may show what they held before")
    for port in [a, b, monitor, second] { port.close() }
    try lab.expectAllBack()
  }

  @Test("Zero copy takes sent buffers when their slots come back")
  func zeroCopySent() throws {
    let lab = try NetmapTestSystem.complete()
    let port = try lab.open("t0", .oneNIC(0)), tx = port.transmitRings[0]
    let monitor = try lab.system.register(PortRequest("t0", RingSelection(.oneNIC(0), flags: .zeroCopyMonitor)))
    let buffers = (0..<2).map { tx.slot($0).bufferIndex }
    for n in 0..<2 { TestFrame.put(tx, UInt64(n)) }
    port.sync(.transmit)
    monitor.sync(.receive)
    #expect((0..<2).map { monitor.receiveRings[0].slot($0).bufferIndex } == buffers)
    #expect((0..<2).allSatisfy { !buffers.contains(tx.slot($0).bufferIndex) && tx.slot($0).flags.contains(.bufferChanged) })
    for n in 0..<2 { check(TestFrame.take(monitor.receiveRings[0])?.number == UInt64(n)) }
    #expect(throws: NetmapError.self) {
      let other = try lab.system.memory.makePrivate(PoolSizes(buffers: 1024, minimumBuffers: 1024), name: "other")
      var register = RegisterRequest()
      register.memoryID = other.id
      _ = try lab.system.register(PortRequest("t0", RingSelection(.allNIC, flags: .zeroCopyMonitor), register: register))
    }
    monitor.close()
    port.close()
    try lab.expectAllBack()
  }

  @Test("Only a port in netmap mode can be monitored; rings that are made later are monitored too; a parent that closes ends it")
  func parent() throws {
    let lab = try NetmapTestSystem.complete()
    func fails(_ code: NetmapError.Code, _ name: String) {
      do {
        _ = try lab.pipe(name, .allNIC, .monitorReceive)
        Issue.record("\(name) is monitored")
      } catch { #expect(error.code == code) }
    }
    fails(.EINVAL, "t0")
    fails(.EINVAL, "x{1")
    fails(.ENXIO, "nobody")
    let first = try lab.open("t0", .oneNIC(0))
    let monitor = try lab.pipe("t0", slots: 0, .allNIC, .monitorTransmit)
    #expect(monitor.receiveRings.count == 2 && monitor.transmitRings.count == 1 && monitor.receiveRings[0].count == 64)
    let second = try lab.open("t0", .oneNIC(1))
    TestFrame.put(second.transmitRings[0], 5)
    second.sync(.transmit)
    #expect(monitor.wait(for: .receive, milliseconds: 0) == .receive)
    check(TestFrame.take(monitor.receiveRings[1])?.number == 5)
    // Nothing can be sent through it.
    monitor.transmitRings[0].advance()
    #expect(!monitor.synchronise(monitor.krings[0]))
    monitor.transmitRings[0].setHead(1)
    first.close()
    #expect(monitor.wait(for: .receive, milliseconds: 0).contains(.error), "a slot was handed over to the transmit ring")
    second.close()
    #expect(monitor.wait(for: .receive, milliseconds: 0) == .error)
    let again = try lab.open("t0", .allNIC)
    #expect(monitor.wait(for: .receive, milliseconds: 0) == .error, "it stays dead")
    monitor.close()
    again.close()
    try lab.expectAllBack()
  }

  @Test("What a monitored program breaks is left out, and what the monitor's breaks resets its ring alone")
  func hostile() throws {
    let lab = try NetmapTestSystem.complete()
    let (a, b) = try pipe(lab)
    let monitor = try lab.pipe("x{1", .allNIC, .monitorTransmit), tx = a.transmitRings[0]
    for n in 0..<4 { TestFrame.put(tx, UInt64(n)) }
    for (i, index) in [(1, UInt32.max), (2, 0)] as [(UInt32, UInt32)] { tx.setSlot(i, NetmapSlot(bufferIndex: index, length: 60)) }
    a.sync(.transmit)
    monitor.sync(.receive)
    check(TestFrame.take(monitor.receiveRings[0])?.number == 0)
    check(TestFrame.take(monitor.receiveRings[0])?.number == 3)
    #expect(a.krings[0].isFaulted && monitor.counters(RingID(.receive, 0))?.drops == 2)
    monitor.receiveRings[0].setSlot(0, NetmapSlot(bufferIndex: 1, length: 0))
    #expect(monitor.wait(for: .receive, milliseconds: 0).contains(.error))
    #expect(monitor.receiveRings[0].head == 0 && monitor.counters(RingID(.receive, 0))?.resets == 1)
    b.sync(.receive)
    check(TestFrame.take(b.receiveRings[0])?.number == 0)
  }
}

@Suite("Null ports")
struct NullPortTests {
  @Test("A null port is for a region's memory, under any name; it needs to say which region")
  func memory() throws {
    let lab = try NetmapTestSystem.complete()
    var register = RegisterRequest()
    for name in ["nobody", "t0", "x{1", "vale0:a"] {
      register.memoryID = 1
      register.extraBuffers = 5
      let port = try lab.system.register(PortRequest(name, RingSelection(.null), register: register))
      #expect(port.rings.isEmpty && port.extraBuffers == 5 && port.adapter.name == "null:\(name)")
      #expect(try port.region === lab.system.memory.global() && lab.inUse() == [1, 0, 5])
      port.sync(.transmit)
      #expect(port.wait(for: [.receive, .transmit], milliseconds: 0) == [])
      port.close()
      #expect(try lab.inUse() == [0, 0, 0])
      register.memoryID = 0
      #expect(throws: NetmapError.self) { try lab.system.register(PortRequest(name, RingSelection(.null), register: register)) }
      register.memoryID = 99
      #expect(throws: NetmapError.self) { try lab.system.register(PortRequest(name, RingSelection(.null), register: register)) }
    }
  }
}
