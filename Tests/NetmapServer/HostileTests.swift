import CRingway
import NetmapAPI
import NetmapCore
import NetmapServer
import Platform
import Testing

extension ServerSuites {
  @Suite("A server's hostile programs")
  struct HostileTests {
    /// Whether the server still answers a new program, from registration to sync.
    private func isAlive(_ lab: ServerLab) -> Bool {
      let client = lab.client()
      guard client.register("t0") != nil, let port = client.attach() else { return false }
      return port.sync(0)
    }

    private static let control = FlatRequest(.register, name: "t0", body: RegisterRequest()).encoded()

    @Test("A request whose bytes make no sense is answered with an error, and the descriptor stays usable")
    func malformed() throws {
      let lab = try ServerLab(), client = lab.client()
      let good = NetmapRequestHead(.ioctl, number: NetmapIoctl.control).packet(Self.control)
      var cases: [[UInt8]] = [[1], Array(good.prefix(31)), Array(good.dropLast()), good + [0], [UInt8](repeating: 0xff, count: 60_000)]
      for (at, value) in [(0, UInt8(9)), (4, 9), (5, 1), (6, 1), (16, 7), (19, 0xff), (20, 1)] {
        var wrong = good
        wrong[at] = value
        cases.append(wrong)
      }
      for kind in [NetmapMessageKind.query, .attach] { cases.append(NetmapRequestHead(kind).packet([1, 2, 3])) }
      for length in [0, 1, 87, 95, 96, 200, 60_000] {
        cases.append(NetmapRequestHead(.ioctl, number: NetmapIoctl.control).packet([UInt8](repeating: 0xa5, count: length)))
      }
      for number in [0, 1, NetmapIoctl.configure, NetmapIoctl.info, NetmapIoctl.register, UInt64.max] {
        cases.append(NetmapRequestHead(.ioctl, number: number).packet([UInt8](repeating: 0x5a, count: 30)))
      }
      for packet in cases {
        let answer = client.ask(packet)
        #expect((answer?.errno ?? 0) > 0 && answer?.text.isEmpty == false && answer?.descriptors.isEmpty == true)
      }
      // Too long for a message: the bytes are cut, the answering end is not.
      #expect(client.ask([UInt8](repeating: 1, count: NetmapMessageLimit.bytes + 1))?.errno == NetmapError.Code.EMSGSIZE.rawValue)
      #expect(client.register("t0") != nil && check(lab.server.clientCount == 1))
      #expect(client.register("t0") == nil, "once")
    }

    @Test("Random bytes in requests never end the server", .timeLimit(.minutes(2)))
    func random() throws {
      let lab = try ServerLab()
      var generator = SystemRandomNumberGenerator()
      let good = NetmapRequestHead(.ioctl, number: NetmapIoctl.control).packet(Self.control)
      for _ in 0..<60 {
        let client = lab.client()
        for _ in 0..<20 {
          var packet = good
          for _ in 0..<Int.random(in: 1...6, using: &generator) {
            packet[Int.random(in: 0..<packet.count, using: &generator)] = UInt8.random(in: .min ... .max, using: &generator)
          }
          _ = client.ask(packet)
        }
      }
      #expect(isAlive(lab))
      #expect(lab.eventually { lab.inUse() == [0, 0, 0] })
    }

    @Test("Without an answering end a request is dropped with its descriptor; with too many, or with ends that are none, too")
    func ends() throws {
      let lab = try ServerLab()
      // What stays is there from here on.
      #expect(isAlive(lab) && lab.eventually { lab.server.clientCount == 0 && lab.inUse() == [0, 0, 0] })
      let before = openDescriptors()
      let attach = NetmapRequestHead(.attach).packet([])
      var clients: [TestClient] = []
      func hangsUp(_ act: (TestClient) -> Void) -> Bool {
        let client = lab.client()
        clients.append(client)
        act(client)
        var watched = pollfd(fd: client.socket, events: Int16(POLLIN), revents: 0)
        return unsafe poll(&watched, 1, 3000) == 1 && watched.revents & Int16(POLLHUP) != 0
      }
      #expect(hangsUp { $0.send(attach, []) })
      #expect(hangsUp { client in
        let (mine, theirs) = TestClient.pair()
        client.send(attach, [theirs, theirs, mine])
        close(mine)
        close(theirs)
      })
      #expect(hangsUp { client in
        let (mine, theirs) = TestClient.pair()
        client.send(attach, [Int32](repeating: theirs, count: 32))
        close(mine)
        close(theirs)
      })
      #expect(hangsUp { client in
        // A file, an eventfd, a stream.
        let event = eventfd(0, 0)
        client.send(attach, [event])
        close(event)
      })
      #expect(hangsUp { client in
        var ends: [Int32] = [-1, -1]
        _ = unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends)
        client.send(attach, [ends[0]])
        close(ends[0])
        close(ends[1])
      })
      clients = []
      #expect(lab.eventually { lab.server.clientCount == 0 && openDescriptors() <= before })
      #expect(lab.server.counters.refused >= 5)
      #expect(isAlive(lab))
    }

    @Test("A program that never takes its answers, and one whose wakeups pile up, hold up nobody")
    func deaf() throws {
      let lab = try ServerLab()
      let deaf = lab.client()
      let (mine, theirs) = TestClient.pair()
      defer { close(mine) }
      // More answers than the pair holds.
      for _ in 0..<2000 {
        if deaf.send(NetmapRequestHead(.attach).packet([]), [theirs]) < 0 {
          var watched = pollfd(fd: deaf.socket, events: Int16(POLLOUT), revents: 0)
          _ = unsafe poll(&watched, 1, 1000)
        }
      }
      close(theirs)
      #expect(isAlive(lab))
      // A socket that is full of wakeups.
      let full = lab.client()
      _ = try #require(full.register("t0"))
      let port = try #require(full.attach())
      let adapter = try #require(lab.provider.ports["t0"])
      for _ in 0..<5000 {
        port.page.store(SyncPage.receiveArmed, 1)
        adapter.krings.receiveWakeup.notify()
      }
      #expect(port.sync(0))
      #expect(isAlive(lab))
    }

    @Test("Doorbells that are blocking and full stop nobody but their program")
    func doorbells() throws {
      let lab = try ServerLab(workers: 1)
      let client = lab.client()
      _ = try #require(client.register("t0"))
      let port = try #require(client.attach())
      #expect(lab.eventually { port.page.load(SyncPage.sleeping(0)) != 0 })
      _ = rw_fcntl(port.doorbells[0], F_SETFL, 0)
      var most: UInt64 = .max - 1
      #expect(unsafe write(port.doorbells[0], &most, 8) == 8)
      #expect(isAlive(lab))
      // The ring that filled it rang it, too.
      port.page.store(SyncPage.ring(0) + SyncPage.request, 1)
      #expect(isAlive(lab))
      var count: UInt64 = 0
      #expect(unsafe read(port.doorbells[0], &count, 8) == 8)
      #expect(port.sync(0) && port.sync(1))
    }

    @Test("A hundred descriptors at once; more than may be are turned away")
    func many() throws {
      let lab = try ServerLab(buffers: 65536) { $0.maximumClients = 100 }
      // The region stays.
      #expect(isAlive(lab) && lab.eventually { lab.inUse() == [0, 0, 0] })
      let before = openDescriptors()
      do {
        var held: [(TestClient, TestPort)] = []
        for number in 0..<100 {
          let client = lab.client()
          _ = try #require(client.register(number % 2 == 0 ? "t0" : "t1"))
          held.append((client, try #require(client.attach())))
        }
        #expect(lab.server.clientCount == 100)
        let late = lab.client()
        #expect(late.request(.attach) == nil && check(lab.server.counters.refused == 1))
        for (_, port) in held { #expect(port.sync(0)) }
        #expect(held.allSatisfy { $0.1.sync(1) })
      }
      #expect(lab.eventually { lab.server.clientCount == 0 && lab.inUse() == [0, 0, 0] })
      #expect(lab.eventually { openDescriptors() <= before })
    }

    @Test("One user cannot take every descriptor")
    func perUser() throws {
      let lab = try ServerLab { $0.maximumPerUser = 3 }
      func client(_ uid: UInt32) -> TestClient {
        let (mine, theirs) = TestClient.pair()
        lab.server.adopt(OwnedDescriptor(taking: theirs), peer: NetmapPeer(pid: 1, uid: uid))
        return TestClient(socket: mine)
      }
      var held = (0..<3).map { _ in client(1000) }
      for one in held { #expect(one.request(.attach)?.errno == NetmapError.Code.ENXIO.rawValue) }
      #expect(client(1000).request(.attach) == nil)
      #expect(client(1001).request(.attach) != nil)
      held.removeLast()
      #expect(lab.eventually { client(1000).request(.attach) != nil })
    }

    @Test("A page and rings scribbled over at random while others' traffic flows", .timeLimit(.minutes(2)))
    func scribbling() throws {
      let lab = try ServerLab()
      let hostile = lab.client(), good = lab.client()
      _ = try #require(hostile.register("t0"))
      _ = try #require(good.register("t1"))
      let target = try #require(hostile.attach()), port = try #require(good.attach())
      let stop = Guarded(false)
      let scribbler = try JoinedThread(name: "scribbler") {
        var generator = SystemRandomNumberGenerator()
        while !stop.withLock({ $0 }) {
          for _ in 0..<200 {
            let word = Int.random(in: 0..<target.page.bytes / 4, using: &generator) * 4
            target.page.store(word, UInt32.random(in: .min ... .max, using: &generator))
            let ring = Int(target.reply.rings[Int.random(in: 0..<target.reply.rings.count, using: &generator)].offset)
            target.region.store(ring + Int.random(in: 0..<300, using: &generator) * 4, UInt32.random(in: .min ... .max, using: &generator))
          }
          for doorbell in target.doorbells { EventFD.signal(doorbell) }
        }
      }
      let ring = port.ring(0)
      for round in 0..<20_000 {
        let head = UInt32((round + 1) % 64)
        ring.storeCur(head)
        ring.storeHead(head)
        guard port.sync(0) else {
          Issue.record("round \(round): no answer")
          break
        }
        #expect(check(ring.loadTail() == (head + 63) % 64))
      }
      stop.withLock { $0 = true }
      scribbler.join()
      #expect(lab.server.counters.syncs > 20_000)
      #expect(lab.server.record().ports.first { $0.name == "t1" }?.rings.contains { $0.resets > 0 } == false)
      #expect(isAlive(lab))
    }
  }
}
