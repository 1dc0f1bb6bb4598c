// tap: an interface whose other end is an interface of Linux.
//
//     if_start ──write──> /dev/net/tun ──> Linux's end      Linux's end ──read, by the worker that watches──> input

internal import CRingway
internal import Glibc
public import Ifnet
internal import Netisr
internal import Packet
internal import Platform
internal import Wire

/// Frames between an interface and a TAP of Linux.
@safe final class TapDriver: InterfaceDriver, @unchecked Sendable {
  /// TUNSETCARRIER (linux/if_tun.h, Linux 5.0): whether Linux's end has a link.
  private static let setCarrier: UInt = 0x4004_54e2
  private static let linkPeriod: UInt64 = 200_000_000
  /// Frames that one wake-up reads.
  private static let budget = 128
  private static let headroom = 64

  /// The Linux interface's name.
  let linuxName: String
  /// /dev/net/tun: valid until the worker has closed it.
  private let file: Int32
  private let worker: Worker
  private struct State: ~Copyable {
    /// nil: closed.
    var handle: TapHandle?
    var watch: WorkerToken?
    var timer: WorkerToken?
  }
  private let state: Guarded<State>
  // The worker's own.
  private weak var interface: Interface?
  private var batch = PacketBatch(capacity: 32)
  private let scratch: UnsafeMutableRawBufferPointer

  init(_ handle: consuming TapHandle, worker: Worker) {
    linuxName = handle.name
    file = handle.file.raw
    self.worker = worker
    state = Guarded(State(handle: handle))
    unsafe scratch = .allocate(byteCount: 65536, alignment: 64)
  }

  // SAFETY: this object's own memory.
  deinit { unsafe scratch.deallocate() }

  /// Before anything is received.
  func join(_ interface: Interface) { self.interface = interface }

  // MARK: Control, on worker 0

  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {
    switch request {
    case .setFlags(_, let new): try new.contains(.up) ? up(interface) : down(interface)
    case .setMTU(let mtu):
      guard mtu <= TapCloner.largestMTU else {
        throw InterfaceError(.EINVAL, "\(interface.name): frames of Linux carry at most \(TapCloner.largestMTU) bytes")
      }
    // Linux's end sees every frame: there is no filter to set.
    case .addMulticast, .deleteMulticast, .setLinkAddress, .setCapabilities: return
    default: throw InterfaceError(.EOPNOTSUPP, "\(interface.name): a TAP interface cannot do this")
    }
  }

  func answer(_ query: DriverQuery, on interface: Interface) throws(InterfaceError) -> DriverAnswer {
    switch query {
    case .status: return .text("peer: \(linuxName) (Linux)")
    case .generic(let name) where name == "peer": return .text(linuxName)
    default: throw InterfaceError(.EOPNOTSUPP, "\(interface.name) does not say this")
    }
  }

  var media: MediaStatus? {
    let isUp = peerIsUp
    return MediaStatus(
      configured: "Ethernet autoselect", active: isUp ? "10Gbase-T <full-duplex>" : "none", status: isUp ? "active" : "no carrier",
      baudRate: isUp ? 10_000_000_000 : 0)
  }

  private func up(_ interface: Interface) throws(InterfaceError) {
    guard state.withLock({ $0.watch == nil }) else { return }
    let token: WorkerToken
    do { token = try worker.watch(file) { [weak self] in self?.receive() } } catch {
      throw InterfaceError(.EIO, "\(interface.name): \(error)")
    }
    let timer = worker.schedule(after: Self.linkPeriod, every: Self.linkPeriod) { [weak self] in self?.look() }
    state.withLock { ($0.watch, $0.timer) = (token, timer) }
    carrier(true)
    interface.setDriverFlags(.running)
    interface.setLink(peerIsUp ? .up : .down, baudRate: 10_000_000_000)
  }

  private func down(_ interface: Interface) {
    let tokens = state.withLock { state in
      let tokens = (state.watch, state.timer)
      (state.watch, state.timer) = (nil, nil)
      return tokens
    }
    tokens.0?.cancel()
    tokens.1?.cancel()
    carrier(false)
    interface.setDriverFlags([], clear: .running)
    interface.setLink(.down)
  }

  private func carrier(_ isUp: Bool) {
    var value: Int32 = isUp ? 1 : 0
    // SAFETY: the kernel reads an int. A kernel that does not know the request leaves the link up.
    _ = unsafe rw_ioctl(file, Self.setCarrier, &value)
  }

  private var peerIsUp: Bool {
    state.withLock { state in
      guard let control = state.handle?.control.raw else { return false }
      var request = InterfaceRequestBytes(linuxName)
      return request.perform(RW_SIOCGIFFLAGS, on: control) && request.flags & 1 != 0
    }
  }

  private func look() {
    guard let interface, interface.flags.contains(.running) else { return }
    interface.setLink(peerIsUp ? .up : .down, baudRate: 10_000_000_000)
  }

  func detached(_ interface: Interface) {
    down(interface)
    // The descriptors stay open until the worker is through with them.
    worker.post { [self] in
      self.interface = nil
      state.withLock { $0.handle = nil }
    }
  }

  // MARK: From Linux, on the worker

  private func receive() {
    guard let interface else { return }
    let buffers = interface.mtu + 18 + Self.headroom
    var left = Self.budget
    while left > 0 {
      let more = readFrame(interface, buffers)
      left -= 1
      if !more || batch.room == 0 { interface.input(&batch) }
      if !more { return }
    }
    if !batch.isEmpty { interface.input(&batch) }
  }

  /// Reads a frame into the batch. Returns false when there is none.
  private func readFrame(_ interface: Interface, _ wanted: Int) -> Bool {
    guard let packet = worker.allocate(), packet.reserveHeadroom(min(Self.headroom, packet.bufferCapacity)) else {
      // Without a buffer the frame is read all the same: it would keep the worker awake.
      let got = unsafe read(file, scratch.baseAddress, scratch.count)
      guard got > 0 else { return false }
      interface.count(.ipackets)
      interface.count(.ibytes, UInt64(got))
      interface.table.drops.count(1, bytes: UInt64(got), .noBuffer, interface: interface.index)
      return true
    }
    let start = unsafe packet.record.pointee.buffer + packet.headroom
    let room = packet.tailroom
    // SAFETY: the packet's own buffer behind its headroom, then this object's memory.
    var pieces = unsafe (iovec(iov_base: start, iov_len: room), iovec(iov_base: scratch.baseAddress, iov_len: scratch.count))
    let got = unsafe withUnsafeMutableBytes(of: &pieces) {
      unsafe readv(file, $0.assumingMemoryBound(to: iovec.self).baseAddress!, 2)
    }
    guard got > 0 else { return false }
    packet.extend(min(got, room))
    if got > room, !spill(got - room, behind: packet) {
      interface.count(.ipackets)
      interface.count(.ibytes, UInt64(got))
      interface.table.drops.drop(packet, .noBuffer, interface: interface.index)
      return true
    }
    _ = batch.append(packet)
    return true
  }

  /// The rest of a long frame, from the scratch memory, in buffers of its own.
  private func spill(_ count: Int, behind packet: borrowing Packet) -> Bool {
    var done = 0
    while done < count {
      guard let more = worker.allocate() else { return false }
      let n = min(count - done, more.bufferCapacity, Int(UInt16.max))
      guard n > 0, more.extend(n) else { return false }
      // SAFETY: n bytes of the scratch memory, which the kernel has filled, into a buffer that has room for them.
      unsafe more.record.pointee.buffer.copyMemory(from: scratch.baseAddress! + done, byteCount: n)
      packet.append(more)
      done += n
    }
    return true
  }

  // MARK: To Linux

  func start(_ subqueue: Subqueue) {
    let interface = subqueue.interface
    var out = PacketBatch(capacity: 32)
    while subqueue.dequeue(into: &out) > 0 {
      // Last in, first out: turned round, so that frames leave in their order.
      var ordered = PacketBatch(capacity: out.capacity)
      while let packet = out.popLast() { _ = ordered.append(packet) }
      while let packet = ordered.popLast() { write(packet, interface, subqueue.index) }
    }
  }

  private func write(_ packet: consuming Packet, _ interface: Interface, _ queue: Int) {
    var pieces = unsafe [iovec]()
    var at: RawPacket? = unsafe packet.record
    while let record = unsafe at {
      // SAFETY: the record's bytes, which are this packet's.
      unsafe pieces.append(
        iovec(iov_base: record.pointee.buffer + Int(record.pointee.offset), iov_len: Int(record.pointee.length)))
      unsafe at = record.pointee.next
    }
    let count = packet.count
    let written = unsafe pieces.withUnsafeBufferPointer { unsafe writev(file, $0.baseAddress!, Int32($0.count)) }
    guard written != count else { return }
    // EIO: Linux's end is down. EAGAIN: its socket buffer is full.
    let reason: DropReason = errno == EIO ? .peerGone : .transmitRing
    interface.count(.oerrors)
    interface.table.drops.drop(packet, reason, interface: interface.index, queue: UInt8(clamping: queue))
  }
}

/// Makes TAP interfaces. Parameters: `peer` (the name in Linux; default rwtapN), `namespace`, `mac`, `worker`.
public final class TapCloner: InterfaceCloner {
  public let name = "tap"
  /// Bytes: what Linux takes in a frame, less the header and a tag.
  static let largestMTU = 65535 - 18
  private let opener: any TapOpener

  public init(opener: any TapOpener) { self.opener = opener }

  public func create(_ request: CloneRequest, in table: InterfaceTable) throws(InterfaceError) -> Interface {
    var parameters = CloneParameters(request, of: "\(name)\(request.unit)")
    let workers = table.netisr.workers
    let worker = try parameters.number("worker", in: 0...workers.count - 1) ?? request.unit % workers.count
    let peer = parameters.text("peer") ?? "rwtap\(request.unit)"
    let namespace = parameters.text("namespace")
    let address = try parameters.address("mac") ?? .local(last: UInt8(truncatingIfNeeded: request.unit))
    try parameters.finish()
    let handle = try opener.open(name: peer, namespace: namespace)
    let driver = TapDriver(handle, worker: workers[worker])
    var options = InterfaceOptions(name, unit: request.unit)
    options.linkAddress = address
    options.queueLength = SendLimits.standard
    options.capabilities = [.vlanMTU, .jumboMTU, .linkState]
    options.vnet = request.vnet
    let interface = try table.attach(options, driver: driver)
    driver.join(interface)
    return interface
  }

  public func destroy(_ interface: Interface, in table: InterfaceTable) throws(InterfaceError) { table.detach(interface) }
}
