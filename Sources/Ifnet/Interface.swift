// An interface.

public import Netisr
public import Packet
internal import Synchronization
public import Wire

/// What an interface counts; one block a worker, written by it alone.
@frozen public struct InterfaceCounters: BitwiseCopyable, Sendable, Equatable {
  public var ipackets: UInt64 = 0, ibytes: UInt64 = 0, ierrors: UInt64 = 0, imcasts: UInt64 = 0, iqdrops: UInt64 = 0
  public var opackets: UInt64 = 0, obytes: UInt64 = 0, oerrors: UInt64 = 0, omcasts: UInt64 = 0, oqdrops: UInt64 = 0
  public var collisions: UInt64 = 0, noproto: UInt64 = 0
  public init() {}
}

/// How an interface is made.
public struct InterfaceOptions: Sendable {
  /// "em" and 0, or the name alone.
  public var driverName: String
  public var unit: Int?
  public var type: InterfaceType
  public var flags: InterfaceFlags = [.broadcast, .simplex, .multicast]
  public var linkAddress: MACAddress?
  public var mtu = 1500
  public var subqueues = 1
  /// Packets a send queue; 0 takes the default (250).
  public var queueLength = 0
  public var capabilities: InterfaceCapabilities = []
  public var baudRate: UInt64 = 0
  public var vnet = Vnet.base

  public init(_ driverName: String, unit: Int? = nil, type: InterfaceType = .ethernet) {
    self.driverName = driverName
    self.unit = unit
    self.type = type
  }
}

/// An interface: what the stack sees of a card, a TAP, a pair's end. Made by `InterfaceTable.attach`.
public final class Interface: @unchecked Sendable {
  public unowned let table: InterfaceTable
  public let driver: any InterfaceDriver
  public let type: InterfaceType
  public let driverName: String
  public let unit: Int?
  public let vnet: Vnet
  public internal(set) var index = InterfaceIndex.none
  public private(set) var subqueues: [Subqueue] = []
  let path: SendPath
  /// What frames mean; set by the link layer before attach ends.
  public var link: (any LinkLayer)?

  struct State {
    var name: String
    var flags: InterfaceFlags
    var mtu: Int
    var linkAddress: MACAddress?
    var linkStatus = LinkStatus.unknown
    var capabilities: InterfaceCapabilities
    var enabled: InterfaceCapabilities
    var addresses: [InterfaceAddress] = []
    var taps: [any InterfaceTap] = []
    var counters = InterfaceCounters()
    var baudRate: UInt64
  }
  let state: Mutex<State>

  init(_ options: InterfaceOptions, driver: any InterfaceDriver, table: InterfaceTable) {
    self.table = table
    self.driver = driver
    type = options.type
    driverName = options.driverName
    unit = options.unit
    vnet = options.vnet
    path = SendPath(driver.serializer)
    state = Mutex(
      State(
        name: options.driverName + (options.unit.map(String.init) ?? ""), flags: options.flags, mtu: options.mtu,
        linkAddress: options.linkAddress, capabilities: options.capabilities, enabled: options.capabilities,
        baudRate: options.baudRate))
    subqueues = (0..<max(1, options.subqueues)).map { Subqueue(interface: self, index: $0, queueLength: options.queueLength) }
  }

  public var name: String { state.withLock { $0.name } }
  public var flags: InterfaceFlags { state.withLock { $0.flags } }
  /// Largest payload in bytes, without link header.
  public var mtu: Int { state.withLock { $0.mtu } }
  public var linkAddress: MACAddress? { state.withLock { $0.linkAddress } }
  public var linkStatus: LinkStatus { state.withLock { $0.linkStatus } }
  public var baudRate: UInt64 { state.withLock { $0.baudRate } }
  public var capabilities: InterfaceCapabilities { state.withLock { $0.capabilities } }
  public var enabledCapabilities: InterfaceCapabilities { state.withLock { $0.enabled } }
  /// Addresses of every family, the link-level one first.
  public var addresses: [InterfaceAddress] { state.withLock { $0.addresses } }
  /// Counters, summed over workers.
  public var counters: InterfaceCounters {
    var sum = state.withLock { $0.counters }
    for subqueue in subqueues { subqueue.counters.add(to: &sum) }
    return sum
  }

  /// For drivers: sets or clears `running` and other flags of the driver's own.
  public func setDriverFlags(_ set: InterfaceFlags, clear: InterfaceFlags = []) {
    state.withLock { $0.flags = $0.flags.subtracting(clear).union(set) }
  }

  /// Links an address in (ifa_iflink), at the head or the tail, on every worker; announces it.
  public func add(_ address: InterfaceAddress, atHead: Bool = false) {
    state.withLock { $0.addresses.insert(address, at: atHead ? min(1, $0.addresses.count) : $0.addresses.count) }
    table.announce(.addressAdded(address.address), self)
  }

  /// Takes an address out (ifa_ifunlink); announces it.
  public func remove(_ address: InterfaceAddress) {
    state.withLock { $0.addresses.removeAll { $0 === address } }
    table.announce(.addressRemoved(address.address), self)
  }

  /// For drivers: received frames go up. Marks them with this interface, counts them, shows them to taps. The batch
  /// is empty afterwards. On a worker.
  public func input(_ batch: inout PacketBatch, queue: Int = 0) {
    let index = self.index
    var packets: UInt64 = 0, bytes: UInt64 = 0
    batch.forEach {
      $0.interface = index
      packets += 1
      bytes += UInt64($0.count)
    }
    let (count, byteCount) = (packets, bytes)
    let taps = state.withLock { state in
      state.counters.ipackets += count
      state.counters.ibytes += byteCount
      return state.taps
    }
    for tap in taps { batch.forEach { tap.passed($0, .input, on: self) } }
    if let link { link.input(&batch, on: self) } else { batch.removeAll() }
  }

  /// For link layers: a finished frame goes out, through the worker's subqueue, which counts it. Shows it to taps.
  @discardableResult public func transmit(_ packet: consuming Packet, priority: Bool = false) -> Bool {
    let taps = state.withLock { $0.taps }
    for tap in taps { tap.passed(packet, .output, on: self) }
    return currentSubqueue.send(packet, priority: priority)
  }

  /// For drivers: the link's state; a change is announced once.
  public func setLink(_ status: LinkStatus, baudRate: UInt64 = 0) {
    let changed = state.withLock { state in
      defer { (state.linkStatus, state.baudRate) = (status, baudRate) }
      return state.linkStatus != status
    }
    if changed { table.announce(.link(status), self) }
  }

  public func add(_ tap: any InterfaceTap) { state.withLock { $0.taps.append(tap) } }
  public func remove(_ tap: any InterfaceTap) { state.withLock { $0.taps.removeAll { $0 === tap } } }
}
