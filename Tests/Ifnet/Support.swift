// A table with a driver, a family and a link layer that note what they are asked, on workers that the test runs itself.

import DeviceIO
import Ifnet
import Netisr
import Packet
import Platform
import Synchronization
import Testing
import Wire

/// A macro cannot look into an expression with a noncopyable value; this can.
func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }

/// Notes what it is asked, and refuses what it is told to refuse.
final class NotingDriver: InterfaceDriver {
  struct State {
    var requests: [DriverRequest] = []
    var refusal: InterfaceError?
    var refused: (@Sendable (DriverRequest) -> Bool) = { _ in true }
    var watchdogs: [Int?] = []
    var detached = 0
  }
  let state = Guarded(State())
  let takesRequests: Bool
  let serializer: (any InterfaceSerializer)?
  let media: MediaStatus?

  init(takesRequests: Bool = true, serializer: (any InterfaceSerializer)? = nil, media: MediaStatus? = nil) {
    self.takesRequests = takesRequests
    self.serializer = serializer
    self.media = media
  }

  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {
    let refusal = state.withLock { state -> InterfaceError? in
      state.requests.append(request)
      return state.refused(request) ? state.refusal : nil
    }
    if let refusal { throw refusal }
  }
  func answer(_ query: DriverQuery, on interface: Interface) throws(InterfaceError) -> DriverAnswer {
    switch query {
    case .status: .text("all is well")
    case .generic(let name): .text("value of \(name)")
    case .tunnel: .tunnel(source: .ipv4(IPv4Address(198, 18, 0, 1)), destination: .ipv4(IPv4Address(198, 18, 0, 2)))
    }
  }
  func start(_ subqueue: Subqueue) {
    var batch = PacketBatch(capacity: 32)
    while subqueue.dequeue(into: &batch) > 0 { batch.removeAll() }
  }
  func watchdog(_ interface: Interface) { state.withLock { $0.watchdogs.append(Worker.current?.id) } }
  func detached(_ interface: Interface) { state.withLock { $0.detached += 1 } }

  var requests: [DriverRequest] { state.withLock { $0.requests } }
  var watchdogs: [Int?] { state.withLock { $0.watchdogs } }
  /// Forgets what it was asked, and answers like this from now on.
  func refuse(_ error: InterfaceError?, when: @escaping @Sendable (DriverRequest) -> Bool = { _ in true }) {
    state.withLock { ($0.requests, $0.refusal, $0.refused) = ([], error, when) }
  }
}

/// A family that does with addresses what it is asked, and notes what it is told.
final class NotingDomain: ProtocolDomain {
  let family: AddressFamily
  let notes = Guarded<[String]>([])
  init(_ family: AddressFamily) { self.family = family }
  private func note(_ text: String) { notes.withLock { $0.append(text) } }
  var taken: [String] {
    notes.withLock { notes in
      defer { notes = [] }
      return notes
    }
  }

  func attach(_ interface: Interface) { note("attach \(interface.name)") }
  func detach(_ interface: Interface) { note("detach \(interface.name)") }
  func changed(_ interface: Interface, isUp: Bool) { note("\(interface.name) \(isUp ? "up" : "down")") }
  func mtuChanged(_ interface: Interface) { note("\(interface.name) mtu \(interface.mtu)") }
  func linkAddressChanged(_ interface: Interface) { note("\(interface.name) lladdr") }
  func control(_ request: AddressRequest, on interface: Interface) throws(InterfaceError) {
    switch request {
    case .set(let address, let length, let broadcast, let destination), .add(let address, let length, let broadcast, let destination):
      if case .set = request, let old = interface.firstAddress(family) { interface.remove(old) }
      interface.add(
        InterfaceAddress(address, on: interface, prefixLength: length ?? 24, broadcast: broadcast, destination: destination))
    case .delete(let address):
      guard let found = interface.addresses.first(where: { $0.address == address }) else {
        throw InterfaceError(.EADDRNOTAVAIL, "\(interface.name) has no address \(address)")
      }
      interface.remove(found)
    }
  }
}

/// Ethernet's pairs of groups, and nothing else.
final class PairingLink: LinkLayer {
  let received = Atomic(0)
  func input(_ batch: inout PacketBatch, on interface: Interface) {
    received.wrappingAdd(batch.count, ordering: .relaxed)
    batch.removeAll()
  }
  func output(_ packet: consuming Packet, to nextHop: SocketAddress, on interface: Interface) {
    interface.transmit(packet)
  }
  func resolveMulticast(_ group: SocketAddress, on interface: Interface) throws(InterfaceError) -> MACAddress? {
    switch group {
    case .ipv4(let address) where address.isMulticast:
      MACAddress(rawValue: 0x0100_5e00_0000 | UInt64(address.rawValue & 0x7f_ffff))
    case .link: nil
    default: throw InterfaceError(.EADDRNOTAVAIL, "\(group) is no group")
    }
  }
}

/// Everything together.
final class Bench: Sendable {
  let clock = SendClock()
  let netisr: Netisr
  let table: InterfaceTable
  let domain4 = NotingDomain(.ipv4)
  private let token: WorkerToken

  init(workers: Int = 1, families: Bool = true) throws {
    var configuration = NetisrConfiguration()
    configuration.maxThreads = workers
    configuration.isManual = true
    netisr = try Netisr(configuration, clock: clock)
    table = InterfaceTable(netisr)
    table.setLink(PairingLink(), for: .ethernet)
    let log = EventLog()
    self.log = log
    token = table.subscribe { event, interface in log.add("\(interface.name) \(event)") }
    if families { table.register(domain4) }
  }
  private let log: EventLog

  /// The events since the last call.
  var seen: [String] { log.take() }
  func note(_ text: String) { log.add(text) }

  func attach(
    _ name: String, driver: NotingDriver = NotingDriver(), type: InterfaceType = .ethernet, _ change: (inout InterfaceOptions) -> Void = { _ in }
  ) throws -> Interface {
    var options = InterfaceOptions(name, type: type)
    options.linkAddress = type == .ethernet ? MACAddress(0x52, 0x54, 0, 0, 0, UInt8(truncatingIfNeeded: name.utf8.last ?? 1)) : nil
    options.queueLength = 50
    change(&options)
    return try table.attach(options, driver: driver)
  }

  static let root = Credentials.system
  static let user = Credentials(uid: 1000, gids: [1000], isPrivileged: false)

  @discardableResult
  func ask(_ name: String, _ operation: InterfaceOperation, by who: Credentials = Bench.root) throws(InterfaceError) -> InterfaceReply {
    try table.perform(.on(name, operation), by: who)
  }

  /// The errno with which a request is refused; nil when it is not.
  func refusal(_ request: InterfaceRequest, by who: Credentials = Bench.root) -> InterfaceErrno? {
    do throws(InterfaceError) {
      _ = try table.perform(request, by: who)
      return nil
    } catch { return error.code }
  }
  func refusal(_ name: String, _ operation: InterfaceOperation, by who: Credentials = Bench.root) -> InterfaceErrno? {
    refusal(.on(name, operation), by: who)
  }

  func tick() {
    clock.sleep(nanoseconds: 1_000_000_000)
    netisr.settle()
  }
}

/// What was seen, from whatever thread.
final class EventLog: Sendable {
  private let entries = Guarded<[String]>([])
  func add(_ text: String) { entries.withLock { $0.append(text) } }
  func take() -> [String] {
    entries.withLock { entries in
      defer { entries = [] }
      return entries
    }
  }
}

/// The errno with which `body` is refused; nil when it is not.
func errno<T>(_ body: () throws -> T) -> InterfaceErrno? {
  do {
    _ = try body()
    return nil
  } catch { return (error as? InterfaceError)?.code }
}
