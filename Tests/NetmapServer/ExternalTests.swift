import CRingway
import NetmapAPI
import NetmapCore
import NetmapServer
import Platform
import Testing

extension ServerSuites {
  @Suite("Memory that belongs to programs") struct ExternalTests {
    /// REGISTER with external memory from `offset` of a file.
    private func register(_ client: TestClient, _ file: Int32, offset: UInt64, bytes: UInt64) -> TestAnswer? {
      var wish = RegisterRequest()
      wish.setMode(.oneNIC(0))
      var flat = FlatRequest(.register, name: "t0", body: wish)
      flat.append(ExternalMemoryOption(start: offset, pools: PoolsInfo()))
      return client.ask(NetmapRequestHead(.ioctl, number: NetmapIoctl.control, extra: bytes).packet(flat.encoded()), extra: file < 0 ? [] : [file])
    }

    private func sharedFile(_ bytes: Int) throws -> OwnedDescriptor {
      let path = "/dev/shm/netmap-server-test-\(getpid())-\(UInt32.random(in: .min ... .max))"
      let file = OwnedDescriptor(taking: unsafe rw_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600))
      try #require(file.raw >= 0 && ftruncate(file.raw, bytes) == 0)
      _ = unsafe unlink(path)
      return file
    }

    @Test("A region in a program's own file; without a file, or with one that is none, an error; every descriptor is closed")
    func external() throws {
      let lab = try ServerLab()
      let other = lab.client()
      _ = try #require(other.register("t1"))
      #expect(try #require(other.attach()).sync(0))
      let before = openDescriptors()
      do {
        let file = try sharedFile(4 << 20), client = lab.client()
        #expect((register(client, -1, offset: 0, bytes: 1 << 20)?.errno ?? 0) != 0)
        let event = eventfd(0, 0)
        #expect((register(client, event, offset: 0, bytes: 1 << 20)?.errno ?? 0) != 0)
        close(event)
        #expect((register(client, file.raw, offset: 0, bytes: 8192)?.errno ?? 0) != 0, "too small")
        let answer = try #require(register(client, file.raw, offset: 1 << 20, bytes: 3 << 20))
        #expect(answer.errno == 0, "\(answer.text)")
        let attached = try #require(client.request(.attach))
        let reply = try NetmapAttachReply(decoding: attached.payload)
        #expect(reply.regionStart == 256 && reply.portFlags & NetmapAttachReply.externalMemory != 0 && reply.regionID > 1)
        attached.close()
      }
      #expect(lab.eventually { lab.server.clientCount == 1 && openDescriptors() <= before })
    }

    @Test("A file that is cut short ends its own program's session; the daemon and the others go on")
    func cut() throws {
      let lab = try ServerLab()
      let good = lab.client(), bad = lab.client()
      _ = try #require(good.register("t1"))
      let port = try #require(good.attach())
      let file = try sharedFile(4 << 20)
      #expect(register(bad, file.raw, offset: 0, bytes: 4 << 20)?.errno == 0)
      let victim = try #require(bad.attach())
      #expect(victim.sync(0))
      #expect(ftruncate(file.raw, 0) == 0)
      _ = victim.ask(0)
      var watched = pollfd(fd: bad.socket, events: 0, revents: 0)
      #expect(lab.eventually { unsafe poll(&watched, 1, 10) == 1 && watched.revents & Int16(POLLHUP) != 0 })
      #expect(lab.server.counters.quarantined == 1 && check(lab.log.withLock { $0.last?.contains("taken away") ?? false }))
      #expect(port.sync(0) && port.sync(1) && port.state == SyncPage.open)
    }
  }
}
