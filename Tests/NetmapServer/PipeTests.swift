import CRingway
import NetmapAPI
import NetmapCore
import NetmapPorts
import NetmapServer
import Platform
import Testing

extension ServerSuites {
  @Suite("Programs over a pipe")
  struct PipeTests {
    /// A number and its complement at the start of a frame.
    private static func write(_ port: TestPort, _ ring: Int, _ slot: UInt32, _ number: UInt64) {
      let buffer = unsafe port.buffer(ring, slot)
      unsafe rw_write64(buffer, number)
      unsafe rw_write64(buffer + 56, ~number)
      let old = port.ring(ring).slot(slot)
      port.ring(ring).setSlot(slot, bufferIndex: old.bufferIndex, length: 64, flags: [])
    }

    private static func read(_ port: TestPort, _ ring: Int, _ slot: UInt32) -> UInt64? {
      guard port.ring(ring).slot(slot).length == 64 else { return nil }
      let buffer = unsafe port.buffer(ring, slot)
      let number = unsafe rw_read64(buffer)
      return unsafe rw_read64(buffer + 56) == ~number ? number : nil
    }

    /// Sends numbers until there are `count`; false when the daemon does not answer.
    private static func send(_ port: TestPort, _ count: UInt64) -> Bool {
      let index = port.first(receive: false), ring = port.ring(index), slots = ring.slotCount
      var number: UInt64 = 0, head = ring.loadHead()
      while number < count {
        while head != ring.loadTail(), number < count {
          write(port, index, head, number)
          number += 1
          head = head + 1 == slots ? 0 : head + 1
        }
        ring.storeCur(head)
        ring.storeHead(head)
        guard port.sync(index) else { return false }
        // Full: the reader needs the processor.
        if head == ring.loadTail() { _ = sched_yield() }
      }
      while ring.loadTail() != (head + slots - 1) % slots { guard port.sync(index) else { return false } }
      return true
    }

    /// Receives numbers; how many came in order with their contents whole.
    private static func receive(_ port: TestPort, _ count: UInt64) -> UInt64 {
      let index = port.first(receive: true), ring = port.ring(index), slots = ring.slotCount
      let clock = MonotonicClock()
      var next: UInt64 = 0, head = ring.loadHead(), last = clock.now()
      while next < count {
        guard port.sync(index) else { return next }
        let tail = ring.loadTail()
        if head == tail {
          if clock.now() &- last > 10_000_000_000 { return next }
          _ = sched_yield()
          continue
        }
        last = clock.now()
        while head != tail {
          guard read(port, index, head) == next else { return next }
          next += 1
          head = head + 1 == slots ? 0 : head + 1
        }
        ring.storeCur(head)
        ring.storeHead(head)
      }
      return next
    }

    private func pipe(_ lab: ServerLab, _ name: String = "t0") throws -> (TestClient, TestPort, TestClient, TestPort) {
      let first = lab.client(), second = lab.client()
      _ = try #require(first.register("\(name){1"))
      _ = try #require(second.register("\(name)}1"))
      return (first, try #require(first.attach()), second, try #require(second.attach()))
    }

    @Test("A million packets arrive in order, with their contents", .timeLimit(.minutes(3)))
    func million() throws {
      let lab = try ServerLab()
      lab.system.add(PipeProvider())
      let (first, sender, second, receiver) = try pipe(lab)
      defer { withExtendedLifetime((first, second)) {} }
      let count: UInt64 = 1_000_000
      let sent = Guarded(false)
      let thread = try JoinedThread(name: "sender") { sent.withLock { $0 = Self.send(sender, count) } }
      #expect(Self.receive(receiver, count) == count)
      thread.join()
      #expect(sent.withLock { $0 })
      let record = lab.server.record()
      #expect(record.ports.map(\.kind) == ["pipe", "pipe"])
      #expect(record.ports.flatMap(\.rings).allSatisfy { $0.resets == 0 && $0.drops == 0 })
    }

    @Test("Both ends of a pipe are synced by one worker, other pipes by others")
    func placement() throws {
      let lab = try ServerLab()
      lab.system.add(PipeProvider())
      let (first, one, second, other) = try pipe(lab)
      defer { withExtendedLifetime((first, second)) {} }
      #expect(one.reply.doorbells == 1 && other.reply.doorbells == 1)
      // The same doorbell's worker: while one end is asleep a sync of the other leaves it so.
      #expect(one.sync(0) && other.sync(0))
      let third = lab.client(), fourth = lab.client()
      _ = try #require(third.register("t1{1"))
      _ = try #require(fourth.register("t1}1"))
      #expect(try #require(third.attach()).sync(0) && #require(fourth.attach()).sync(1))
    }

    @Test("A receiver that sleeps is woken by what its peer sends, and not twice")
    func wakeup() throws {
      let lab = try ServerLab()
      lab.system.add(PipeProvider())
      let (first, sender, second, receiver) = try pipe(lab)
      defer { withExtendedLifetime(first) {} }
      let index = receiver.first(receive: true)
      for round in 0..<200 as Range<UInt64> {
        receiver.page.store(SyncPage.receiveArmed, 1)
        rw_fence()
        #expect(receiver.sync(index))
        #expect(check(receiver.ring(index).loadCur() == receiver.ring(index).loadTail()))
        let ring = sender.ring(0), head = ring.loadHead()
        Self.write(sender, 0, head, round)
        ring.storeCur((head + 1) % ring.slotCount)
        ring.storeHead((head + 1) % ring.slotCount)
        #expect(sender.sync(0))
        var watched = pollfd(fd: second.socket, events: Int16(POLLIN), revents: 0)
        #expect(unsafe poll(&watched, 1, 3000) == 1)
        var byte: UInt8 = 0
        #expect(unsafe recv(second.socket, &byte, 1, Int32(MSG_DONTWAIT)) == 1)
        #expect(receiver.sync(index))
        let mine = receiver.ring(index), at = mine.loadHead()
        #expect(check(Self.read(receiver, index, at) == round))
        mine.storeCur(mine.loadTail())
        mine.storeHead(mine.loadTail())
      }
    }

    @Test("Programs that are killed in mid-sync give everything back, a thousand times", .timeLimit(.minutes(3)))
    func killed() throws {
      let lab = try ServerLab(buffers: 65536)
      lab.system.add(PipeProvider())
      // What stays is there from here on.
      do { _ = try pipe(lab) }
      #expect(lab.eventually { lab.inUse() == [0, 0, 0] && lab.server.clientCount == 0 })
      let before = openDescriptors()
      for round in 0..<250 {
        let (first, one, second, other) = try pipe(lab)
        for port in [one, other] { for ring in port.reply.rings.indices { _ = port.ask(ring) } }
        if round % 3 == 0 { #expect(one.sync(0)) }
        if round % 5 == 0 { _ = shutdown(first.socket, Int32(SHUT_RDWR)) }
        withExtendedLifetime((first, second)) {}
      }
      #expect(lab.eventually { lab.inUse() == [0, 0, 0] && lab.server.clientCount == 0 })
      #expect(lab.eventually { openDescriptors() <= before }, "\(openDescriptors()) descriptors, \(before) before")
    }

    @Test("A descriptor that processes share stays until the last of them has closed it")
    func shared() throws {
      let lab = try ServerLab()
      let client = lab.client()
      _ = try #require(client.register("t0"))
      let inherited = TestClient(socket: dup(client.socket))
      let port = try #require(inherited.attach()), other = try #require(client.attach())
      #expect(port.sync(0) && other.sync(0))
      #expect(port.page.load(SyncPage.ring(0) + SyncPage.done) == 2, "one page for all")
      _ = shutdownNothing(client)
      #expect(port.sync(1) && lab.server.clientCount == 1)
    }

    /// Closes one holder's descriptor, not the connection.
    private func shutdownNothing(_ client: TestClient) -> Int32 { dup2(OwnedDescriptor.null(), client.socket) }
  }
}

extension OwnedDescriptor {
  /// An open /dev/null, for the test's life.
  static func null() -> Int32 { unsafe rw_open("/dev/null", O_RDWR | O_CLOEXEC, 0) }
}
