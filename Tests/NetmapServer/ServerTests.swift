import CRingway
import NetmapAPI
import NetmapCore
import NetmapPorts
import NetmapServer
import Platform
import Synchronization
import Testing

extension ServerSuites {
  @Suite("A server's sessions")
  struct ServerTests {
    @Test("A program registers, attaches, syncs through shared memory, and its end gives everything back")
    func life() throws {
      let lab = try ServerLab()
      let client = lab.client()
      #expect(client.request(.attach)?.errno == NetmapError.Code.ENXIO.rawValue, "nothing is registered")
      let registered = try #require(client.register("t0", extra: 5))
      #expect(registered.transmitRings == 2 && registered.extraBuffers == 5 && registered.memoryID == 1)
      #expect(lab.inUse() == [1, 4, 4 * 64 + 5])
      let port = try #require(client.attach())
      #expect(port.reply.rings.count == 4 && port.reply.doorbells == 1 && port.reply.interfaceOffset == registered.offset)
      #expect(port.page.load(SyncPage.magicOffset) == SyncPage.magic && port.state == SyncPage.open)
      let ring = port.ring(0)
      #expect(ring.loadTail() == 63)
      ring.storeCur(10)
      ring.storeHead(10)
      #expect(port.sync(0))
      #expect(ring.loadTail() == 9)
      #expect(port.page.load(SyncPage.ring(0) + SyncPage.hwcur) == 10 && !port.isFaulted(0))
      // A violation resets the ring; the next clean sync says so.
      ring.storeHead(64)
      #expect(port.sync(0) && port.isFaulted(0) && ring.loadHead() == 10)
      #expect(port.sync(0) && !port.isFaulted(0))
      let record = lab.server.record()
      #expect(record.sessions.map(\.port) == ["t0"] && record.sessions[0].syncs == 3 && record.sessions[0].pid == getpid())
      #expect(record.ports.map(\.name) == ["t0"] && record.ports[0].rings.count == 4)
      #expect(record.ports[0].rings.first { $0.direction == "tx" && $0.index == 0 }?.packets == 10)
      #expect(record.regions.first?.free == 16384 - 2 - 4 * 64 - 5)
      _ = shutdown(client.socket, Int32(SHUT_RDWR))
      #expect(lab.eventually { lab.inUse() == [0, 0, 0] && lab.server.clientCount == 0 })
      #expect(lab.server.counters.syncs == 3 && lab.server.counters.sessions == 1)
    }

    @Test("Sleeping workers are woken by the doorbell, and by nothing else")
    func sleeping() throws {
      let lab = try ServerLab()
      let client = lab.client()
      _ = try #require(client.register("t0"))
      let port = try #require(client.attach())
      for _ in 0..<20 {
        #expect(lab.eventually { port.page.load(SyncPage.sleeping(0)) != 0 })
        #expect(port.sync(1))
      }
      let before = lab.server.counters
      #expect(before.doorbells >= 20 && before.syncs == 20)
      // Without the doorbell nobody looks.
      #expect(lab.eventually { port.page.load(SyncPage.sleeping(0)) != 0 })
      let wanted = port.page.add(SyncPage.ring(1) + SyncPage.request, 1)
      MonotonicClock().sleep(nanoseconds: 50_000_000)
      #expect(port.page.load(SyncPage.ring(1) + SyncPage.done) == wanted - 1)
      #expect(port.sync(1))
    }

    @Test("Rings go to the workers that they want, each with its doorbell")
    func workers() throws {
      let lab = try ServerLab()
      let adapter = try #require(lab.provider.ports["t1"] as? TestAdapter)
      adapter.workers = lab.netisr.workers
      let client = lab.client()
      _ = try #require(client.register("t1"))
      let port = try #require(client.attach())
      #expect(Int(port.reply.doorbells) == lab.netisr.workers.count)
      for index in port.reply.rings.indices { #expect(port.sync(index)) }
      #expect(lab.server.counters.syncs == 4)
    }

    @Test("Wakeups reach a program that waits, once")
    func wakeups() throws {
      let lab = try ServerLab()
      let client = lab.client()
      _ = try #require(client.register("t0"))
      let port = try #require(client.attach())
      let adapter = try #require(lab.provider.ports["t0"])
      adapter.krings.receiveWakeup.notify()
      var byte: UInt8 = 0
      #expect(unsafe recv(client.socket, &byte, 1, Int32(MSG_DONTWAIT)) < 0, "nobody waits")
      port.page.store(SyncPage.receiveArmed, 1)
      adapter.krings.transmitWakeup.notify()
      #expect(unsafe recv(client.socket, &byte, 1, Int32(MSG_DONTWAIT)) < 0, "not for this direction")
      adapter.krings.receiveWakeup.notify()
      adapter.krings.receiveWakeup.notify()
      #expect(unsafe recv(client.socket, &byte, 1, Int32(MSG_DONTWAIT)) == 1)
      #expect(unsafe recv(client.socket, &byte, 1, Int32(MSG_DONTWAIT)) < 0)
      #expect(port.page.load(SyncPage.receiveArmed) == 0 && lab.server.counters.wakeups == 1)
    }

    @Test("When a card has left, its programs are woken and see that the port is gone; they close it when they like")
    func left() throws {
      let lab = try ServerLab(), client = lab.client(), other = lab.client()
      _ = try #require(client.register("t0"))
      _ = try #require(other.register("t0"))
      let port = try #require(client.attach()), second = try #require(other.attach())
      let adapter = try #require(lab.provider.ports["t0"] as? TestAdapter)
      adapter.leaves.store(true, ordering: .releasing)
      adapter.krings.receiveWakeup.notify()
      #expect(port.state == SyncPage.gone && second.state == SyncPage.gone)
      var byte: UInt8 = 0
      #expect(unsafe recv(client.socket, &byte, 1, Int32(MSG_DONTWAIT)) == 1)
      #expect(check(lab.server.clientCount == 2 && lab.inUse()[0] == 2), "nothing is freed under a program's feet")
      _ = shutdown(client.socket, Int32(SHUT_RDWR))
      _ = shutdown(other.socket, Int32(SHUT_RDWR))
      #expect(lab.eventually { lab.inUse() == [0, 0, 0] })
    }

    @Test("When the daemon ends, programs see that the port is gone, and may close later")
    func gone() throws {
      let lab = try ServerLab()
      let client = lab.client()
      _ = try #require(client.register("t0"))
      let port = try #require(client.attach())
      lab.server.stop()
      #expect(port.state == SyncPage.gone && lab.inUse() == [0, 0, 0])
      var watched = pollfd(fd: client.socket, events: Int16(POLLIN), revents: 0)
      #expect(unsafe poll(&watched, 1, 1000) == 1)
      #expect(!port.sync(0, milliseconds: 50))
    }
  }
}
