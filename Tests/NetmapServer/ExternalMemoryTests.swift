import CRingway
import NetmapAPI
import NetmapCore
import NetmapServer
import Platform
import Testing

extension ServerSuites {
  @Suite("Programs with memory of their own")
  struct ExternalMemoryTests {
    private static let size = 4 << 20

    private func memoryFile() throws -> OwnedDescriptor {
      let raw = unsafe rw_memfd_create("programs", RW_MFD_CLOEXEC)
      try #require(raw >= 0)
      let file = OwnedDescriptor(taking: raw)
      try #require(ftruncate(raw, off_t(Self.size)) == 0)
      return file
    }

    /// REGISTER with EXTMEM.
    private func register(_ client: TestClient, _ file: Int32, start: UInt64 = 0, bytes: Int = size) -> TestAnswer? {
      var wish = RegisterRequest()
      wish.setMode(.allNIC)
      var flat = FlatRequest(.register, name: "t0", body: wish)
      flat.append(ExternalMemoryOption(start: start, pools: PoolsInfo()))
      let head = NetmapRequestHead(.ioctl, number: NetmapIoctl.control, extra: UInt64(bytes))
      return client.ask(head.packet(flat.encoded()), extra: file < 0 ? [] : [file])
    }

    @Test("A port's rings lie in the program's file, from where it says on")
    func rings() throws {
      let lab = try ServerLab(), client = lab.client(), file = try memoryFile()
      let answer = try #require(register(client, file.raw, start: 8192, bytes: Self.size - 8192))
      #expect(answer.errno == 0)
      let done = try FlatRequest(decoding: answer.payload)
      let option = try #require(try done.option(ExternalMemoryOption.self))
      let body = try RegisterRequest(decoding: done.body)
      #expect(option.pools.memoryID == body.memoryID && body.memoryID > 1 && option.pools.buffers.objects > 100)
      #expect(body.memorySize == UInt64(Self.size - 8192))
      let own = try #require(Mapping(file.raw, Self.size))
      let port = try #require(client.attach())
      #expect(port.reply.regionStart == 2 && port.reply.regionID == body.memoryID)
      #expect(port.reply.portFlags & NetmapAttachReply.externalMemory != 0)
      // Seen through the program's own mapping: slots, then what the daemon made of head.
      let at = 8192 + Int(port.reply.rings[0].offset)
      #expect(own.load(at + RingOffset.slotCount) == 64 && own.load(at + RingOffset.tail) == 63)
      own.store(at + RingOffset.cur, 10)
      own.store(at + RingOffset.head, 10)
      #expect(port.sync(0) && own.load(at + RingOffset.tail) == 9)
      _ = shutdown(client.socket, Int32(SHUT_RDWR))
      #expect(lab.eventually { lab.system.memory.region(body.memoryID) == nil })
    }

    @Test("What cannot be such memory is refused, and the descriptor stays usable")
    func refused() throws {
      let lab = try ServerLab(), client = lab.client(), file = try memoryFile()
      #expect(register(client, -1)?.errno == NetmapError.Code.EOPNOTSUPP.rawValue)
      #expect(register(client, file.raw, bytes: Self.size + 4096)?.errno == NetmapError.Code.EINVAL.rawValue)
      #expect(register(client, file.raw, start: 100)?.errno == NetmapError.Code.EINVAL.rawValue)
      #expect(register(client, file.raw, start: .max)?.errno == NetmapError.Code.EINVAL.rawValue)
      #expect(register(client, file.raw, bytes: 65536)?.errno == NetmapError.Code.ENOMEM.rawValue)
      let event = try EventFD()
      #expect(register(client, event.descriptor)?.errno == NetmapError.Code.EINVAL.rawValue)
      #expect(lab.system.memory.regions.allSatisfy { $0.id == 1 })
      #expect(register(client, file.raw)?.errno == 0)
    }

    @Test("A file that is cut short costs its program the port, and nobody else notices")
    func cut() throws {
      let lab = try ServerLab()
      let hostile = lab.client(), file = try memoryFile()
      #expect(try #require(register(hostile, file.raw)).errno == 0)
      let lost = try #require(hostile.attach())
      let other = lab.client()
      _ = try #require(other.register("t1"))
      let port = try #require(other.attach())
      #expect(lost.sync(0) && port.sync(0))
      try #require(ftruncate(file.raw, 4096) == 0)
      for index in 0..<4 { lost.sync(index, milliseconds: 100) }
      #expect(lab.eventually { lost.state == SyncPage.gone })
      #expect(lab.eventually { lab.server.counters.quarantined == 1 })
      #expect(lab.log.withLock { $0.contains { $0.contains("lost pages") } })
      for _ in 0..<100 { #expect(port.sync(0) && !port.isFaulted(0)) }
      #expect(port.state == SyncPage.open)
      _ = shutdown(hostile.socket, Int32(SHUT_RDWR))
      #expect(lab.eventually { lab.server.clientCount == 1 && lab.system.memory.regions.map(\.id) == [1] })
      #expect(port.sync(1))
    }
  }
}
