import CRingway
import DMAMemory
import NetmapAPI
import NetmapCore
import NetmapPorts
import NetmapServer
import Netisr
import Platform
import Synchronization
import Testing

/// One after the other: they count the process's descriptors.
@Suite("netmap's server", .serialized) enum ServerSuites {}

/// Memory that a program has mapped.
@safe final class Mapping: @unchecked Sendable {
  let base: UnsafeMutableRawPointer
  let bytes: Int

  init?(_ descriptor: Int32, _ bytes: Int) {
    guard let base = unsafe rw_raw_mmap(nil, bytes, Int32(PROT_READ | PROT_WRITE), Int32(MAP_SHARED), descriptor, 0) else { return nil }
    unsafe self.base = base
    self.bytes = bytes
  }
  deinit { _ = unsafe munmap(base, bytes) }

  func load(_ offset: Int) -> UInt32 { unsafe rw_load_acquire32(base + offset) }
  func store(_ offset: Int, _ value: UInt32) { unsafe rw_store_release32(base + offset, value) }
  func add(_ offset: Int, _ value: UInt32) -> UInt32 { unsafe rw_add32(base + offset, value) }
  func wait(_ offset: Int, _ expected: UInt32, _ nanoseconds: UInt64) {
    unsafe rw_futex_wait((base + offset).assumingMemoryBound(to: UInt32.self), expected, nanoseconds)
  }
}

struct TestAnswer {
  var errno: Int32
  var payload: [UInt8]
  var text: String
  var descriptors: [Int32]
  func close() { for descriptor in descriptors { _ = CRingway.close(descriptor) } }
}

/// A program's end of a descriptor, with nothing but system calls.
final class TestClient: @unchecked Sendable {
  let socket: Int32

  init(socket: Int32) { self.socket = socket }
  deinit { _ = close(socket) }

  /// A packet as it is, with descriptors.
  @discardableResult func send(_ bytes: [UInt8], _ descriptors: [Int32]) -> Int {
    unsafe bytes.withUnsafeBytes { buffer in
      unsafe descriptors.withUnsafeBufferPointer { list in
        // An empty array may have no address.
        var nothing: UInt8 = 0
        return unsafe withUnsafePointer(to: &nothing) { spare in
          unsafe rw_answer_packet(
            socket, buffer.baseAddress ?? UnsafeRawPointer(spare), buffer.count, list.baseAddress, UInt32(list.count))
        }
      }
    }
  }

  static func pair() -> (mine: Int32, theirs: Int32) {
    var ends: [Int32] = [-1, -1]
    _ = unsafe socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends)
    return (ends[0], ends[1])
  }

  /// Waits for an answer; nil when the other end was closed without one.
  static func receive(_ end: Int32, milliseconds: Int32 = 5000) -> TestAnswer? {
    var watched = pollfd(fd: end, events: Int16(POLLIN), revents: 0)
    guard unsafe poll(&watched, 1, milliseconds) == 1 else { return nil }
    var bytes = [UInt8](repeating: 0, count: NetmapMessageLimit.bytes)
    var descriptors = [Int32](repeating: -1, count: 32)
    var number: UInt32 = 0, cut: UInt32 = 0
    let length = unsafe bytes.withUnsafeMutableBytes { buffer in
      unsafe rw_take_packet(end, buffer.baseAddress!, buffer.count, &descriptors, 32, &number, &cut)
    }
    guard length > 0, let (head, payload, text) = try? NetmapReplyHead.read(packet: Array(bytes[..<length])) else { return nil }
    return TestAnswer(errno: head.errno, payload: payload, text: text, descriptors: Array(descriptors[..<Int(number)]))
  }

  /// Sends a packet with an answering end, and waits for the answer.
  func ask(_ bytes: [UInt8], extra: [Int32] = []) -> TestAnswer? {
    let (mine, theirs) = Self.pair()
    defer { _ = close(mine) }
    let sent = send(bytes, [theirs] + extra)
    _ = close(theirs)
    return sent < 0 ? nil : Self.receive(mine)
  }

  func request(_ kind: NetmapMessageKind, number: UInt64 = 0, _ payload: [UInt8] = []) -> TestAnswer? {
    ask(NetmapRequestHead(kind, number: number).packet(payload))
  }

  /// REGISTER. What the answer's body says; nil on an error.
  func register(_ name: String, _ mode: RegisterMode = .allNIC, _ flags: RegisterFlags = [], extra: UInt32 = 0, region: UInt16 = 0) -> RegisterRequest? {
    var wish = RegisterRequest()
    wish.setMode(mode)
    wish.flags = flags.rawValue
    wish.extraBuffers = extra
    wish.memoryID = region
    let flat = FlatRequest(.register, name: name, body: wish)
    guard let answer = request(.ioctl, number: NetmapIoctl.control, flat.encoded()), answer.errno == 0,
      let done = try? FlatRequest(decoding: answer.payload)
    else { return nil }
    return try? RegisterRequest(decoding: done.body)
  }

  func attach() -> TestPort? {
    guard let answer = request(.attach), answer.errno == 0, let reply = try? NetmapAttachReply(decoding: answer.payload) else { return nil }
    defer { for descriptor in answer.descriptors.prefix(2) { _ = close(descriptor) } }
    guard answer.descriptors.count == 2 + Int(reply.doorbells), let region = Mapping(answer.descriptors[0], Int(reply.regionBytes)),
      let page = Mapping(answer.descriptors[1], Int(reply.pageBytes))
    else { return nil }
    return TestPort(reply, region, page, Array(answer.descriptors[2...]))
  }
}

/// A port that a program has mapped.
final class TestPort: @unchecked Sendable {
  let reply: NetmapAttachReply
  let region: Mapping
  let page: Mapping
  let doorbells: [Int32]

  init(_ reply: NetmapAttachReply, _ region: Mapping, _ page: Mapping, _ doorbells: [Int32]) {
    (self.reply, self.region, self.page, self.doorbells) = (reply, region, page, doorbells)
  }
  deinit { for doorbell in doorbells { _ = close(doorbell) } }

  func ring(_ index: Int) -> NetmapRing { unsafe NetmapRing(unsafe: region.base + Int(reply.rings[index].offset), slotCount: reply.rings[index].slots) }
  /// The place in the page of the first ring of a direction.
  func first(receive: Bool) -> Int { reply.rings.firstIndex { $0.isReceive == receive } ?? 0 }
  var bufferSize: Int { Int(unsafe rw_read32(region.base + Int(reply.rings[0].offset) + RingOffset.bufferSize)) }
  func buffer(_ index: Int, _ slot: UInt32) -> UnsafeMutableRawPointer {
    let ring = ring(index), at = Int(reply.rings[index].offset)
    let offset = unsafe Int(rw_read64(region.base + at + RingOffset.bufferOffset))
    return unsafe region.base + at + offset + Int(ring.slot(slot).bufferIndex) * bufferSize
  }

  /// Asks for a sync; the doorbell only when its worker sleeps.
  /// - Returns: what `done` has to reach.
  func ask(_ index: Int) -> UInt32 {
    let wanted = page.add(SyncPage.ring(index) + SyncPage.request, 1)
    rw_fence()
    let doorbell = Int(reply.rings[index].doorbell)
    if page.load(SyncPage.sleeping(doorbell)) != 0 { EventFD.signal(doorbells[doorbell]) }
    return wanted
  }

  /// A whole sync. false: no answer in time, or the port is gone.
  @discardableResult func sync(_ index: Int, spins: Int = 2000, milliseconds: Int = 3000) -> Bool {
    let wanted = ask(index), done = SyncPage.ring(index) + SyncPage.done, waiters = SyncPage.ring(index) + SyncPage.waiters
    func isDone() -> Bool { Int32(bitPattern: page.load(done) &- wanted) >= 0 }
    for _ in 0..<spins {
      if isDone() { return true }
      rw_pause()
    }
    let end = MonotonicClock().now() &+ UInt64(milliseconds) &* 1_000_000
    while !isDone(), page.load(SyncPage.stateOffset) == SyncPage.open, MonotonicClock().now() < end {
      _ = page.add(waiters, 1)
      let seen = page.load(done)
      if Int32(bitPattern: seen &- wanted) < 0 { page.wait(done, seen, 10_000_000) }
      _ = page.add(waiters, UInt32.max)
    }
    return isDone()
  }

  var state: UInt32 { page.load(SyncPage.stateOffset) }
  func isFaulted(_ index: Int) -> Bool { page.load(SyncPage.ring(index) + SyncPage.status) == SyncPage.faulted }
}

/// A port whose transmit rings lose everything, and whose receive rings have nothing.
final class TestAdapter: NetmapAdapter, @unchecked Sendable {
  let name: String
  let krings: PortKrings
  var counts = RingCounts(transmit: 2, receive: 2, hostTransmit: 1, hostReceive: 1)
  /// Workers that the card's rings want.
  var workers: [Worker] = []
  let leaves = Atomic(false)
  var isGone: Bool { leaves.load(ordering: .acquiring) }

  init(_ name: String) throws(NetmapError) {
    self.name = name
    krings = try PortKrings()
  }
  func worker(of ring: RingID) -> Worker? { workers.isEmpty ? nil : workers[ring.number % workers.count] }
  func slots(_ direction: RingDirection, host: Bool) -> Int { 64 }
  func activate(_ rings: [PortRing]) throws(NetmapError) {}
  func deactivate(_ rings: [PortRing]) -> RingRemains {
    var remains = RingRemains()
    for ring in rings { remains.program += RingRemains.slots(of: ring.kring) }
    return remains
  }
  func sync(_ kring: Kring, released: (from: UInt32, to: UInt32)) {
    kring.counters.packets &+= UInt64(kring.distance(kring.hwcur, kring.rhead))
    kring.hwcur = kring.rhead
    if kring.id.direction == .transmit { kring.hwtail = kring.previous(kring.hwcur) }
  }
}

final class TestProvider: NetmapPortProvider, @unchecked Sendable {
  var ports: [String: any NetmapAdapter] = [:]
  func adapter(for request: PortRequest, in system: NetmapSystem, create: Bool) throws(NetmapError) -> (any NetmapAdapter)? {
    ports[request.name]
  }
}

/// A server with workers of its own; programs connect by socket pairs, or by its file.
final class ServerLab {
  let netisr: Netisr
  let system: NetmapSystem
  let provider = TestProvider()
  let server: NetmapServer
  let log = Guarded<[String]>([])

  init(workers: Int = 2, buffers: Int = 16384, _ change: (inout NetmapServerOptions) -> Void = { _ in }) throws {
    var configuration = NetisrConfiguration()
    configuration.maxThreads = workers
    netisr = try Netisr(configuration)
    var options = NetmapMemoryOptions()
    options.sizes = PoolSizes(
      interfaces: 256, interfaceSize: 1024, rings: 512, ringSize: 16640, buffers: buffers, minimumBuffers: buffers, descriptorBytes: 4096)
    system = NetmapSystem(netisr, memory: NetmapMemory(options))
    provider.ports["t0"] = try TestAdapter("t0")
    provider.ports["t1"] = try TestAdapter("t1")
    system.add(provider)
    var wanted = NetmapServerOptions()
    wanted.log = { [log] line in log.withLock { $0.append(line) } }
    change(&wanted)
    server = try NetmapServer(system, wanted)
    try netisr.start()
    try server.start()
  }

  deinit {
    server.stop()
    netisr.stop()
  }

  func client() -> TestClient {
    let (mine, theirs) = TestClient.pair()
    server.adopt(OwnedDescriptor(taking: theirs))
    return TestClient(socket: mine)
  }

  /// Objects of the global region's pools that are given out, but for descriptors.
  func inUse() -> [Int] { (try? system.memory.global().allocator.statistics.prefix(3).map(\.inUse)) ?? [] }

  /// Waits until something holds; false after some seconds.
  func eventually(_ what: () -> Bool) -> Bool {
    let clock = MonotonicClock(), end = clock.now() &+ 5_000_000_000
    while !what() {
      if clock.now() > end { return false }
      clock.sleep(nanoseconds: 1_000_000)
    }
    return true
  }
}

func check(_ value: Bool) -> Bool { value }

/// Open descriptors of sync pages in this process. All descriptors cannot be counted: other suites run meanwhile.
func openDescriptors() -> Int {
  let names = (try? Files.list("/proc/self/fd")) ?? []
  return names.filter { name in
    var text = [UInt8](repeating: 0, count: 128)
    // SAFETY: the kernel writes at most the array's bytes, and says how many.
    let count = unsafe text.withUnsafeMutableBytes { unsafe readlink("/proc/self/fd/\(name)", $0.baseAddress!, $0.count) }
    return count > 0 && String(decoding: text[..<count], as: UTF8.self).contains("netmap sync page")
  }.count
}
