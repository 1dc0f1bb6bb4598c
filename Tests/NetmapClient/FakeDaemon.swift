// A daemon of the tests' own: it follows the protocol of module NetmapAPI, or breaks it in a chosen way. A port is a
// loop: what its transmit ring sends comes out of its receive ring.

import CRingway
import NetmapAPI
import Synchronization

/// What a fake daemon does wrong.
enum Fault: CaseIterable, Sendable {
  case none, noAnswer, wrongMagic, shortAnswer, wrongLength, fewDescriptors, moreDescriptors, promisedDescriptors
  case smallRegion, smallPage, wrongPage, wrongPageRings, ringOutside, ringUnaligned, tinyRing, interfaceOutside
  case tooManyDoorbells, doorbellOutside, hugeRegion, buffersOutside
}

@safe final class FakePort {
  static let slots: UInt32 = 16
  static let bufferSize = 2048
  static let ringBytes = 256 + 16 * Int(slots)
  static let transmit = 4096, receive = 8192, interface = 64, buffers = 16384
  static let buffersCount = 2 + 2 * Int(slots) + 4
  static let bytes = buffers + buffersCount * bufferSize

  let region = unsafe rw_memfd_create("fake-region", RW_MFD_CLOEXEC)
  let page = unsafe rw_memfd_create("fake-page", RW_MFD_CLOEXEC)
  let doorbell = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
  let memory: UnsafeMutableRawPointer
  let sync: UnsafeMutableRawPointer
  var receiveTail: UInt32 = 0
  var syncs = 0
  var flags: UInt64

  init(flags: UInt64) {
    self.flags = flags
    ftruncate(region, Self.bytes)
    ftruncate(page, 4096)
    unsafe memory = unsafe rw_raw_mmap(nil, Self.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, region, 0)!
    unsafe sync = unsafe rw_raw_mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, page, 0)!
    for (offset, value) in [
      (SyncPage.magicOffset, SyncPage.magic), (SyncPage.versionOffset, SyncPage.version), (SyncPage.ringCountOffset, 2),
      (SyncPage.doorbellCountOffset, 1), (SyncPage.stateOffset, SyncPage.open),
    ] { unsafe rw_store_release32(sync + offset, value) }
    for (offset, receive) in [(Self.transmit, false), (Self.receive, true)] {
      let ring = unsafe memory + offset
      unsafe rw_write64(ring, UInt64(bitPattern: Int64(Self.buffers - offset)))
      unsafe rw_write32(ring + 8, Self.slots)
      unsafe rw_write32(ring + 12, UInt32(Self.bufferSize))
      unsafe rw_write16(ring + 18, receive ? 1 : 0)
      unsafe rw_write32(ring + 28, receive ? 0 : Self.slots - 1)
      for slot in 0..<Self.slots {
        unsafe rw_write32(ring + 256 + 16 * Int(slot), 2 + slot + (receive ? Self.slots : 0))
        unsafe rw_write16(ring + 256 + 16 * Int(slot) + 4, UInt16(Self.bufferSize))
      }
    }
    unsafe rw_store_release32(sync + SyncPage.ring(0) + SyncPage.hwtail, Self.slots - 1)
    // Four extra buffers.
    let first = 2 + 2 * Self.slots
    unsafe rw_write32(memory + Self.interface + 32, first)
    for i in 0..<UInt32(4) { unsafe rw_write32(memory + Self.buffers + Int(first + i) * Self.bufferSize, i == 3 ? 0 : first + i + 1) }
  }

  deinit {
    unsafe munmap(memory, Self.bytes)
    unsafe munmap(sync, 4096)
    for descriptor in [region, page, doorbell] { close(descriptor) }
  }

  /// One round of the worker: true when there was something to do. A byte to `socket` where somebody is armed.
  func work(_ socket: Int32) -> Bool {
    var worked = false
    for index in 0..<2 {
      let line = unsafe sync + SyncPage.ring(index)
      let wanted = unsafe rw_load_acquire32(line + SyncPage.request)
      if unsafe wanted == rw_load_acquire32(line + SyncPage.done) { continue }
      worked = true
      syncs += 1
      if index == 0 { unsafe transmitSync(line, socket) } else { unsafe receiveSync(line) }
      unsafe rw_store_release32(line + SyncPage.done, wanted)
      rw_fence()
      if unsafe rw_load_acquire32(line + SyncPage.waiters) != 0 { unsafe rw_futex_wake((line + SyncPage.done).assumingMemoryBound(to: UInt32.self)) }
    }
    return worked
  }

  private func transmitSync(_ line: UnsafeMutableRawPointer, _ socket: Int32) {
    let ring = unsafe memory + Self.transmit
    let head = unsafe rw_load_acquire32(ring + 20)
    var at = unsafe rw_load_acquire32(line + SyncPage.hwcur)
    guard head < Self.slots else {
      // A reset: back to what we know.
      unsafe rw_store_release32(ring + 20, at)
      unsafe rw_store_release32(ring + 24, at)
      unsafe rw_store_release32(line + SyncPage.status, SyncPage.faulted)
      return
    }
    unsafe rw_store_release32(line + SyncPage.status, 0)
    while at != head {
      let slot = unsafe ring + 256 + 16 * Int(at)
      unsafe deliver(memory + Self.buffers + Int(min(rw_read32(slot), UInt32(Self.buffersCount - 1))) * Self.bufferSize, rw_read16(slot + 4), socket)
      at = (at + 1) % Self.slots
    }
    unsafe rw_store_release32(line + SyncPage.hwcur, head)
    unsafe rw_store_release32(line + SyncPage.hwtail, (head + Self.slots - 1) % Self.slots)
    unsafe rw_store_release32(ring + 28, (head + Self.slots - 1) % Self.slots)
  }

  func deliver(_ bytes: UnsafeMutableRawPointer, _ length: UInt16, _ socket: Int32) {
    let hwcur = unsafe rw_load_acquire32(sync + SyncPage.ring(1) + SyncPage.hwcur)
    let next = (receiveTail + 1) % Self.slots
    if next == hwcur { return }
    let slot = unsafe memory + Self.receive + 256 + 16 * Int(receiveTail)
    unsafe memcpy(memory + Self.buffers + Int(min(rw_read32(slot), UInt32(Self.buffersCount - 1))) * Self.bufferSize, bytes, min(Int(length), Self.bufferSize))
    unsafe rw_write16(slot + 4, length)
    receiveTail = next
    rw_fence()
    if unsafe rw_load_acquire32(sync + SyncPage.receiveArmed) != 0 {
      unsafe rw_store_release32(sync + SyncPage.receiveArmed, 0)
      unsafe send(socket, "w", 1, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
    }
  }

  private func receiveSync(_ line: UnsafeMutableRawPointer) {
    let ring = unsafe memory + Self.receive
    unsafe rw_store_release32(line + SyncPage.hwcur, rw_load_acquire32(ring + 20) % Self.slots)
    unsafe rw_store_release32(line + SyncPage.hwtail, receiveTail)
    unsafe rw_store_release32(ring + 28, receiveTail)
  }
}

/// Runs on a thread of its own until it is stopped.
final class FakeDaemon: @unchecked Sendable {
  let path: String
  private let stopping = Atomic<Bool>(false)
  private let listening: Int32
  private let fault: Fault
  private let portFlags: UInt32
  private var thread = pthread_t()
  /// Milliseconds after a packet comes from outside once somebody registered; 0: never.
  let laterPacket: Int
  let registered = Atomic<Int>(0)
  let attaches = Atomic<Int>(0)
  let syncs = Atomic<Int>(0)
  let goesAway = Atomic<Bool>(false)
  /// The last request's payload, for a look by the test after its answer came.
  private let lock = Mutex<[UInt8]>([])
  var lastPayload: [UInt8] { lock.withLock { $0 } }

  init(_ fault: Fault = .none, portFlags: UInt32 = 0, laterPacket: Int = 0) {
    self.fault = fault
    self.portFlags = portFlags
    self.laterPacket = laterPacket
    path = "/tmp/rw-fake-\(getpid())-\(UInt32.random(in: 0...UInt32.max)).sock"
    listening = socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
    unsafe withUnsafePointer(to: &address) {
      _ = unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe bind(listening, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
    listen(listening, 64)
    let me = unsafe Unmanaged.passRetained(self)
    unsafe pthread_create(&thread, nil, { argument in
      unsafe Unmanaged<FakeDaemon>.fromOpaque(argument!).takeRetainedValue().run()
      return nil
    }, unsafe me.toOpaque())
  }

  func stop() {
    if stopping.exchange(true, ordering: .sequentiallyConsistent) { return }
    pthread_join(thread, nil)
    close(listening)
    unsafe unlink(path)
  }
  deinit { unsafe unlink(path) }

  final class Client {
    let socket: Int32
    var port: FakePort?
    var due: UInt64 = 0
    init(_ socket: Int32) { self.socket = socket }
    deinit { close(socket) }
  }

  private func run() {
    var clients: [Client] = []
    while !stopping.load(ordering: .sequentiallyConsistent) {
      if goesAway.load(ordering: .sequentiallyConsistent) { clients = [] }
      var worked = false
      for client in clients where client.port != nil { worked = client.port!.work(client.socket) || worked }
      if worked { syncs.wrappingAdd(1, ordering: .relaxed) }
      for client in clients where client.port != nil {
        unsafe rw_store_release32(client.port!.sync + SyncPage.sleeping(0), 1)
        rw_fence()
        worked = client.port!.work(client.socket) || worked
        if client.due != 0, rw_ticks_ms() >= client.due {
          client.due = 0
          var packet = (UInt64(0x1122), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0))
          unsafe withUnsafeMutableBytes(of: &packet) { unsafe client.port!.deliver($0.baseAddress!, 64, client.socket) }
        }
      }
      var entries = [pollfd(fd: listening, events: Int16(POLLIN), revents: 0)]
      for client in clients { entries.append(pollfd(fd: client.socket, events: Int16(POLLIN), revents: 0)) }
      for client in clients where client.port != nil { entries.append(pollfd(fd: client.port!.doorbell, events: Int16(POLLIN), revents: 0)) }
      unsafe poll(&entries, nfds_t(entries.count), worked ? 0 : 5)
      for client in clients where client.port != nil {
        unsafe rw_store_release32(client.port!.sync + SyncPage.sleeping(0), 0)
        var drained: UInt64 = 0
        unsafe read(client.port!.doorbell, &drained, 8)
      }
      for (index, client) in clients.enumerated().reversed() where entries[1 + index].revents != 0 {
        if !serve(client) { clients.remove(at: index) }
      }
      if entries[0].revents != 0 {
        let made = rw_accept(listening, Int32(SOCK_CLOEXEC.rawValue))
        if made >= 0 { clients.append(Client(made)) }
      }
    }
  }

  /// False when the client is to be dropped.
  private func serve(_ client: Client) -> Bool {
    var bytes = [UInt8](repeating: 0, count: 65536)
    var descriptors = [Int32](repeating: -1, count: 8)
    var came: UInt32 = 0
    let count = unsafe rw_receive_packet(client.socket, &bytes, bytes.count, &descriptors, 8, &came)
    guard count > 0, came >= 1 else { return count < 0 && rw_errno() == EAGAIN }
    defer { for i in 0..<Int(came) { close(descriptors[i]) } }
    guard let (head, payload) = try? NetmapRequestHead.read(packet: Array(bytes.prefix(count))) else { return false }
    lock.withLock { $0 = payload }
    if fault == .noAnswer, head.kind == .attach { return false }
    switch head.kind {
    case .attach:
      guard client.port != nil else {
        answer(descriptors[0], NetmapReplyHead.packet(errno: ENXIO, text: "Nothing is registered on this descriptor."), [])
        return true
      }
      attaches.wrappingAdd(1, ordering: .relaxed)
      attach(descriptors[0], client)
    case .query:
      let name = try? PortQuery(decoding: payload).name
      if name == "fake0" {
        answer(descriptors[0], NetmapReplyHead.packet(payload: PortQueryReply(address: [2, 0, 0, 0, 0, 9], mtu: 1400, flags: 1).encoded()), [])
      } else {
        answer(descriptors[0], NetmapReplyHead.packet(errno: ENXIO, text: "There is no such interface."), [])
      }
    case .ioctl: ioctl(client, payload, descriptors[0])
    }
    return true
  }

  private func ioctl(_ client: Client, _ payload: [UInt8], _ reply: Int32) {
    guard var request = try? FlatRequest(decoding: payload) else {
      return answer(reply, NetmapReplyHead.packet(errno: EINVAL, payload: payload), [])
    }
    guard request.kind == .register, var body = try? RegisterRequest(decoding: request.body) else {
      return answer(reply, NetmapReplyHead.packet(errno: 0, payload: payload), [])
    }
    if request.name == "missing" {
      return answer(reply, NetmapReplyHead.packet(errno: ENXIO, payload: payload, text: "missing: there is no such interface. `ringway ifconfig` lists them."), [])
    }
    if client.port != nil { return answer(reply, NetmapReplyHead.packet(errno: EBUSY, payload: payload, text: "Already registered."), []) }
    client.port = FakePort(flags: body.flags)
    if laterPacket > 0 { client.due = rw_ticks_ms() + UInt64(laterPacket) }
    body.offset = UInt64(FakePort.interface)
    body.memorySize = UInt64(FakePort.bytes)
    body.memoryID = 1
    request.answer(body)
    registered.wrappingAdd(1, ordering: .relaxed)
    answer(reply, NetmapReplyHead.packet(payload: request.encoded()), [])
  }

  private func attach(_ reply: Int32, _ client: Client) {
    var body = NetmapAttachReply()
    body.regionBytes = UInt64(FakePort.bytes)
    body.interfaceOffset = UInt64(FakePort.interface)
    body.flags = RegisterFlags(rawValue: client.port!.flags)
    body.pageBytes = 4096
    body.doorbells = 1
    body.portFlags = portFlags
    body.rings = [
      .init(offset: UInt64(FakePort.transmit), slots: FakePort.slots, doorbell: 0, isReceive: false, isHost: false, number: 0),
      .init(offset: UInt64(FakePort.receive), slots: FakePort.slots, doorbell: 0, isReceive: true, isHost: false, number: 0),
    ]
    var files = [client.port!.region, client.port!.page, client.port!.doorbell]
    var promised = 3
    switch fault {
    case .smallRegion: body.regionBytes += 4096
    case .hugeRegion: body.regionBytes = UInt64.max
    case .smallPage: body.pageBytes = 8192
    case .wrongPage: unsafe rw_store_release32(client.port!.sync, 7)
    case .wrongPageRings: unsafe rw_store_release32(client.port!.sync + SyncPage.ringCountOffset, 3)
    case .ringOutside: body.rings[1].offset = UInt64(FakePort.bytes - 256)
    case .ringUnaligned: body.rings[0].offset += 1
    case .tinyRing: body.rings[0].slots = 1
    case .interfaceOutside: body.interfaceOffset = UInt64(FakePort.bytes - 8)
    case .buffersOutside: unsafe rw_write64(client.port!.memory + FakePort.transmit, UInt64(bitPattern: Int64.min))
    case .fewDescriptors:
      files.removeLast()
      promised = 2
    case .moreDescriptors:
      files.append(client.port!.doorbell)
      promised = 4
    case .promisedDescriptors: promised = 9
    case .tooManyDoorbells: body.doorbells = 99
    case .doorbellOutside: body.rings[0].doorbell = 1
    default: break
    }
    var packet = NetmapReplyHead.packet(payload: body.encoded(), descriptors: promised)
    switch fault {
    case .wrongMagic: packet[0] ^= 1
    case .shortAnswer: packet = Array(packet.prefix(20))
    case .wrongLength: packet.removeLast()
    default: break
    }
    answer(reply, packet, files)
  }

  private func answer(_ socket: Int32, _ packet: [UInt8], _ descriptors: [Int32]) {
    _ = unsafe rw_send_packet(socket, packet, packet.count, descriptors, UInt32(descriptors.count))
  }
}

func rw_ticks_ms() -> UInt64 {
  var now = timespec()
  unsafe clock_gettime(CLOCK_MONOTONIC, &now)
  return UInt64(now.tv_sec) * 1000 + UInt64(now.tv_nsec) / 1_000_000
}
