// epair: the two ends of a cable. What goes into one comes out of the other, through a queue of netisr.
//
//     epair0a: if_start ──netisr.queue(EPAIR)──> the worker of epair0b ──batch──> epair0b: input
//
// The worker is FreeBSD's choice: that of the receiving end's index. A full queue drops with netisr's own reason.

public import Ifnet
internal import Netisr
internal import Packet
internal import Platform
internal import Synchronization
internal import Wire

/// One end.
@safe final class EpairEnd: InterfaceDriver {
  private struct State {
    weak var peer: Interface?
    var index = InterfaceIndex.none
  }
  private let state = Guarded(State())
  /// The other end's index and generation, for the path of packets.
  private let target = Atomic<UInt32>(0)
  private let netisr: Netisr

  init(_ netisr: Netisr) { self.netisr = netisr }

  var peer: Interface? { state.withLock { $0.peer } }

  func connect(_ peer: Interface?) {
    state.withLock { $0.peer = peer }
    let index = peer?.index ?? .none
    target.store(UInt32(index.index) | UInt32(index.generation) << 16, ordering: .releasing)
  }

  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {
    switch request {
    case .setFlags(_, let new):
      let isUp = new.contains(.up)
      interface.setDriverFlags(isUp ? .running : [], clear: isUp ? [] : .running)
      // A link has two ends.
      let peer = self.peer
      let both = isUp && (peer?.flags.contains(.up) ?? false)
      interface.setLink(both ? .up : .down, baudRate: 10_000_000_000)
      peer?.setLink(both ? .up : .down, baudRate: 10_000_000_000)
    case .setMTU, .addMulticast, .deleteMulticast, .setLinkAddress, .setCapabilities: return
    default: throw InterfaceError(.EOPNOTSUPP, "\(interface.name): a pair's end cannot do this")
    }
  }

  func answer(_ query: DriverQuery, on interface: Interface) throws(InterfaceError) -> DriverAnswer {
    switch query {
    case .status: return .text("peer: \(peer?.name ?? "none")")
    case .generic(let name) where name == "peer": return .text(peer?.name ?? "")
    default: throw InterfaceError(.EOPNOTSUPP, "\(interface.name) does not say this")
    }
  }

  var media: MediaStatus? {
    let isUp = peer?.flags.contains(.up) ?? false
    return MediaStatus(
      configured: "Ethernet 10Gbase-T (10Gbase-T <full-duplex>)", active: isUp ? "10Gbase-T <full-duplex>" : "none",
      status: isUp ? "active" : "no carrier", baudRate: 10_000_000_000)
  }

  func start(_ subqueue: Subqueue) {
    let to = target.load(ordering: .acquiring)
    let index = InterfaceIndex(UInt16(truncatingIfNeeded: to), generation: UInt16(truncatingIfNeeded: to >> 16))
    let own = subqueue.interface.index
    var batch = PacketBatch(capacity: 32)
    while subqueue.dequeue(into: &batch) > 0 {
      var ordered = PacketBatch(capacity: batch.capacity)
      while let packet = batch.popLast() { _ = ordered.append(packet) }
      while let packet = ordered.popLast() {
        guard index.index != 0 else {
          netisr.drops.drop(packet, .peerGone, interface: own, queue: UInt8(clamping: subqueue.index))
          continue
        }
        packet.interface = index
        packet.headerLengthsCleared()
        netisr.queue(.epair, packet)
      }
    }
  }

  func detached(_ interface: Interface) { connect(nil) }
}

extension Packet {
  /// What a sender asked of its card is not what a receiver's card has found.
  func headerLengthsCleared() { setHeaderLengths(link: 0, network: 0) }
}

/// Where frames of all pairs arrive: a batch for each worker.
@safe final class EpairArrivals: @unchecked Sendable {
  private struct Gather: ~Copyable {
    var batch = PacketBatch(capacity: 32)
    var interface: Interface?
  }
  private let gathers: UnsafeMutablePointer<Gather>
  private let count: Int
  private unowned let table: InterfaceTable

  init(_ table: InterfaceTable) {
    self.table = table
    count = table.netisr.workers.count
    unsafe gathers = .allocate(capacity: count)
    for n in 0..<count { unsafe (gathers + n).initialize(to: Gather()) }
  }

  deinit {
    // SAFETY: the handler has gone, so no worker uses its batch.
    unsafe gathers.deinitialize(count: count)
    unsafe gathers.deallocate()
  }

  /// A frame for the end that it names, on that end's worker. Frames for one end go up together.
  func receive(_ packet: consuming Packet) {
    guard let worker = Worker.current, worker.id < count, let interface = table.interface(packet.interface) else {
      return table.drops.drop(packet, .peerGone, proto: NetisrProtocol.epair.rawValue)
    }
    // SAFETY: the calling worker's own batch.
    let gather = unsafe gathers + worker.id
    if unsafe gather.pointee.batch.room == 0 || (gather.pointee.interface !== interface && gather.pointee.interface != nil) {
      flush(worker.id)
    }
    unsafe gather.pointee.interface = interface
    _ = unsafe gather.pointee.batch.append(packet)
  }

  /// Once after each batch of the queue.
  func flush(_ worker: Int) {
    guard worker < count, let interface = unsafe gathers[worker].interface else { return }
    unsafe gathers[worker].interface = nil
    unsafe interface.input(&gathers[worker].batch)
  }
}

/// Makes pairs: epair3 is epair3a and epair3b. Destroying an end destroys both. Parameter: `mac` (of end a; b's
/// differs in the last octet).
public final class EpairCloner: InterfaceCloner {
  public let name = "epair"
  private let arrivals: EpairArrivals

  /// Registers EPAIR at the dispatcher.
  public init(_ table: InterfaceTable) throws(InterfaceError) {
    let arrivals = EpairArrivals(table)
    self.arrivals = arrivals
    var handler = NetisrHandler(name: "epair", proto: .epair, policy: .cpu) { arrivals.receive($0) }
    handler.m2cpuid = { packet, _ in .cpu(UInt32(packet.interface.index)) }
    handler.drainedcpu = { arrivals.flush($0) }
    do { try table.netisr.register(handler) } catch { throw InterfaceError(.EBUSY, "\(error)") }
  }

  public func create(_ request: CloneRequest, in table: InterfaceTable) throws(InterfaceError) -> Interface {
    var parameters = CloneParameters(request, of: "\(name)\(request.unit)")
    let address = try parameters.address("mac") ?? .local(last: 0x0a)
    try parameters.finish()
    let ends = (EpairEnd(table.netisr), EpairEnd(table.netisr))
    func options(_ end: String, _ address: MACAddress) -> InterfaceOptions {
      var options = InterfaceOptions("\(name)\(request.unit)\(end)")
      options.linkAddress = address
      options.queueLength = SendLimits.standard
      options.subqueues = table.netisr.workers.count
      options.capabilities = [.vlanMTU, .jumboMTU, .linkState]
      options.baudRate = 10_000_000_000
      options.vnet = request.vnet
      return options
    }
    let first = try table.attach(options("a", address), driver: ends.0)
    let second: Interface
    do throws(InterfaceError) {
      second = try table.attach(options("b", MACAddress(rawValue: address.rawValue ^ 1)), driver: ends.1)
    } catch {
      table.detach(first)
      throw error
    }
    ends.0.connect(second)
    ends.1.connect(first)
    table.adopt(second, cloner: name, unit: request.unit)
    return first
  }

  public func destroy(_ interface: Interface, in table: InterfaceTable) throws(InterfaceError) {
    let peer = (interface.driver as? EpairEnd)?.peer
    (interface.driver as? EpairEnd)?.connect(nil)
    (peer?.driver as? EpairEnd)?.connect(nil)
    table.detach(interface)
    if let peer { table.detach(peer) }
  }
}
