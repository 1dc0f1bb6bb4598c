import CRingway
import NetmapAPI
import Testing

@testable import NetmapClient

private func allNIC(_ flags: RegisterFlags = []) -> RegisterRequest {
  var request = RegisterRequest()
  request.mode = 1
  request.flags = flags.rawValue
  return request
}

private func error(_ body: () throws(NetmapClientError) -> Void) -> NetmapClientError? {
  do {
    try body()
    return nil
  } catch { return error }
}

private func fill(_ port: NetmapPort, _ values: [UInt8]) {
  let ring = port.transmitRings[0]
  var head = ring.head
  for value in values {
    var slot = ring.slot(head)
    slot.length = 60
    ring.setSlot(head, slot)
    unsafe ring.bytes(slot.buffer)[0] = value
    head = ring.next(head)
  }
  ring.setHead(head)
}

private func take(_ port: NetmapPort) -> [UInt8] {
  let ring = port.receiveRings[0]
  var found: [UInt8] = []
  var head = ring.head
  while head != ring.tail {
    unsafe found.append(ring.packet(head)[0])
    head = ring.next(head)
  }
  ring.setHead(head)
  return found
}

private func openDescriptors() -> Int {
  var count = 0
  for fd in Int32(0)..<1024 where rw_fcntl(fd, F_GETFD, 0) >= 0 { count += 1 }
  return count
}

@Suite("A port of the daemon's", .serialized)
struct NetmapPortTests {
  @Test("Packets go out and come back, through many turns of the rings")
  func loop() throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    let port = try NetmapPort("fake0", allNIC(), socket: daemon.path)
    #expect(port.transmitRings.count == 1)
    #expect(port.receiveRings.count == 1)
    #expect(port.transmitRings[0].available == FakePort.slots - 1)
    #expect(port.registration.memoryID == 1)
    var value: UInt8 = 0
    for round in 0..<200 {
      let sent = (0...UInt8(round % 7)).map { _ in
        value &+= 1
        return value
      }
      fill(port, sent)
      #expect(try port.wait(for: .transmit, nanoseconds: 1_000_000_000) == .transmit)
      #expect(try port.wait(for: .receive, nanoseconds: 1_000_000_000) == .receive)
      #expect(take(port) == sent)
    }
  }

  @Test("A sync hands packets over without a wait; the next one takes what came")
  func syncs() throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    let port = try NetmapPort("fake0", allNIC(), socket: daemon.path)
    fill(port, [1, 2, 3])
    try port.syncTransmit()
    #expect(take(port) == [])
    try port.syncReceive()
    #expect(take(port) == [1, 2, 3])
    #expect(port.transmitRings[0].available == FakePort.slots - 1)
  }

  @Test("A wait for nothing transmits what is pending, unless NO_TX_POLL says otherwise")
  func pollTransmits() throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    let port = try NetmapPort("fake0", allNIC(), socket: daemon.path)
    fill(port, [9])
    #expect(try port.wait(for: [], nanoseconds: 0) == [])
    try port.syncReceive()
    #expect(take(port) == [9])

    let quiet = try NetmapPort("fake0", allNIC(.noTransmitPoll), socket: daemon.path)
    fill(quiet, [9])
    #expect(try quiet.wait(for: [], nanoseconds: 0) == [])
    try quiet.syncReceive()
    #expect(take(quiet) == [])
    try quiet.syncTransmit()
    try quiet.syncReceive()
    #expect(take(quiet) == [9])
  }

  @Test("A wait ends when its time is over, and when a packet comes meanwhile")
  func waits() throws {
    let daemon = FakeDaemon(laterPacket: 60)
    defer { daemon.stop() }
    let port = try NetmapPort("fake0", allNIC(), socket: daemon.path)
    let start = rw_ticks_ms()
    #expect(try port.wait(for: .receive, nanoseconds: 10_000_000) == [])
    #expect(rw_ticks_ms() - start >= 10)
    #expect(try port.wait(for: .receive, nanoseconds: 5_000_000_000) == .receive)
    #expect(rw_ticks_ms() - start < 3000)
    #expect(take(port) == [0x22])
  }

  @Test("A bad head resets the ring: the wait says so, the sync does not")
  func badHead() throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    let port = try NetmapPort("fake0", allNIC(), socket: daemon.path)
    unsafe rw_write32(port.transmitRings[0].header + 20, 999)
    try port.syncTransmit()
    #expect(port.transmitRings[0].head == 0)
    unsafe rw_write32(port.transmitRings[0].header + 20, 999)
    #expect(error { () throws(NetmapClientError) in _ = try port.wait(for: .receive, nanoseconds: 0) }?.errno == EIO)
    fill(port, [5])
    #expect(try port.wait(for: .receive, nanoseconds: 1_000_000_000) == .receive)
    #expect(take(port) == [5])
  }

  @Test("The daemon's sentence and errno reach the program")
  func refused() throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    let refused = error { () throws(NetmapClientError) in _ = try NetmapPort("missing", allNIC(), socket: daemon.path) }
    #expect(refused?.errno == ENXIO)
    #expect(refused?.sentence == "missing: there is no such interface. `ringway ifconfig` lists them.")
    let nobody = error { () throws(NetmapClientError) in _ = try NetmapPort("fake0", allNIC(), socket: "/tmp/rw-nobody-\(getpid())") }
    #expect(nobody?.errno == ENOENT)
    #expect(nobody?.sentence.contains("ringwayd") == true)
    let long = error { () throws(NetmapClientError) in _ = try NetmapPort("fake0", allNIC(), socket: "/" + String(repeating: "x", count: 200)) }
    #expect(long?.errno == ENAMETOOLONG)
  }

  @Test("A daemon that ends fails syncs and waits; the port opens again at the next one")
  func daemonGone() throws {
    let daemon = FakeDaemon()
    let port = try NetmapPort("fake0", allNIC(), socket: daemon.path)
    daemon.goesAway.store(true, ordering: .sequentiallyConsistent)
    #expect(error { () throws(NetmapClientError) in _ = try port.wait(for: .receive, nanoseconds: 5_000_000_000) }?.errno == ENXIO)
    #expect(error { () throws(NetmapClientError) in try port.syncReceive() }?.errno == ENXIO)
    #expect(!port.isOpen)
    daemon.goesAway.store(false, ordering: .sequentiallyConsistent)
    try port.reopen()
    #expect(port.isOpen)
    fill(port, [7])
    #expect(try port.wait(for: .receive, nanoseconds: 1_000_000_000) == .receive)
    #expect(take(port) == [7])
    daemon.stop()
    #expect(error { () throws(NetmapClientError) in try port.reopen() }?.errno == ENOENT)
    #expect(port.descriptor == -1)
  }

  @Test("Extra buffers leave the list and come back")
  func extraBuffers() throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    let port = try NetmapPort("fake0", allNIC(), socket: daemon.path)
    let first = 2 + 2 * FakePort.slots
    #expect((0..<5).map { _ in port.takeExtraBuffer() } == [first, first + 1, first + 2, first + 3, nil])
    port.giveExtraBuffer(first + 2)
    port.giveExtraBuffer(first)
    #expect(port.takeExtraBuffer() == first)
    #expect(port.takeExtraBuffer() == first + 2)
    #expect(port.takeExtraBuffer() == nil)
  }

  @Test("What INDIRECT slots point to is copied for a switch port; a pointer to nowhere empties the packet")
  func indirect() throws {
    let daemon = FakeDaemon(portFlags: NetmapAttachReply.valeSwitch)
    defer { daemon.stop() }
    let port = try NetmapPort("vale0:a", allNIC(), socket: daemon.path)
    let ring = port.transmitRings[0]
    let mine = UnsafeMutableRawBufferPointer.allocate(byteCount: 60, alignment: 8)
    defer { unsafe mine.deallocate() }
    for i in 0..<60 { unsafe mine[i] = UInt8(i + 100) }
    ring.setSlot(0, .init(buffer: ring.slot(0).buffer, length: 60, flags: 0x10, pointer: UInt64(UInt(bitPattern: mine.baseAddress!))))
    ring.setSlot(1, .init(buffer: ring.slot(1).buffer, length: 60, flags: 0x10, pointer: 8))
    ring.setHead(2)
    try port.syncTransmit()
    try port.syncReceive()
    let received = port.receiveRings[0]
    #expect(received.available == 2)
    unsafe #expect(Array(received.packet(0)) == (100..<160).map { UInt8($0) })
    unsafe #expect(received.packet(1).count == 0)
  }

  @Test("Neither an open nor a refused port leaves a descriptor behind")
  func descriptors() throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    do { _ = try NetmapPort("fake0", allNIC(), socket: daemon.path) }
    usleep(50_000)
    let before = openDescriptors()
    for _ in 0..<50 {
      do { _ = try NetmapPort("fake0", allNIC(), socket: daemon.path) }
      _ = try? NetmapPort("missing", allNIC(), socket: daemon.path)
    }
    // The daemon, in the same process, closes its ends when it sees them.
    var after = openDescriptors()
    for _ in 0..<100 where after > before {
      usleep(10_000)
      after = openDescriptors()
    }
    #expect(after <= before)
  }

  @Test("What the daemon knows of an interface", arguments: ["fake0", "em9"])
  func query(name: String) throws {
    let daemon = FakeDaemon()
    defer { daemon.stop() }
    let descriptor = try NetmapChannel.connect(daemon.path)
    defer { close(descriptor) }
    if name == "fake0" {
      let reply = try NetmapChannel.query(name, on: descriptor)
      #expect(reply.mtu == 1400)
      #expect(reply.address == [2, 0, 0, 0, 0, 9])
    } else {
      #expect(error { () throws(NetmapClientError) in _ = try NetmapChannel.query(name, on: descriptor) }?.errno == ENXIO)
    }
  }

  @Test("A daemon that breaks the protocol is an error, never a crash", arguments: Fault.allCases.filter { $0 != .none })
  func hostile(fault: Fault) {
    let daemon = FakeDaemon(fault)
    defer { daemon.stop() }
    let refused = error { () throws(NetmapClientError) in _ = try NetmapPort("fake0", allNIC(), socket: daemon.path) }
    #expect(refused != nil)
    #expect(refused?.sentence.hasSuffix(".") == true)
    #expect([EIO, ENXIO].contains(refused?.errno ?? 0))
  }
}
