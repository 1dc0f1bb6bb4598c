// An interface: its flags, its queues, its way up and its way down.
//
// What packets ask (flags, MTU, link address) lies in atomics; what only requests ask lies behind a lock; what changes
// with requests is changed on worker 0. Files: Addresses, Multicast, Promiscuous, UpDown, LinkAddress, Groups.

public import Netisr
public import Packet
internal import Platform
internal import Synchronization
public import Wire

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
  /// Packets a send queue; 0 takes the default (250), with a warning.
  public var queueLength = 0
  public var capabilities: InterfaceCapabilities = []
  /// Those that are switched on at first; nil: all.
  public var enabledCapabilities: InterfaceCapabilities?
  public var baudRate: UInt64 = 0
  public var vnet = Vnet.base

  public init(_ driverName: String, unit: Int? = nil, type: InterfaceType = .ethernet) {
    self.driverName = driverName
    self.unit = unit
    self.type = type
  }
  var name: String { driverName + (unit.map(String.init) ?? "") }
}

/// An interface: what the stack sees of a card, a TAP, a pair's end. Made by `InterfaceTable.attach`.
@safe public final class Interface: @unchecked Sendable {
  public unowned let table: InterfaceTable
  /// Below it. After the detach of one that holds its interface, a driver that does nothing.
  public internal(set) var driver: any InterfaceDriver
  public let type: InterfaceType
  public let driverName: String
  public let unit: Int?
  public let vnet: Vnet
  public internal(set) var index = InterfaceIndex.none
  public internal(set) var subqueues: [Subqueue] = []
  /// What frames mean; set by the link layer before attach ends.
  public var link: (any LinkLayer)?
  /// Its watchdog: a driver sets `timer` to seconds, and clears it when the hardware has answered.
  public let watchdog: Watchdog
  let path: SendPath

  private let atomicFlags: Atomic<UInt32>
  private let atomicMTU: Atomic<Int>
  /// The address, with bit 48 set; 0: none.
  private let atomicLinkAddress: Atomic<UInt64>
  private let atomicEnabled: Atomic<UInt32>
  private let atomicStatus = Atomic<UInt8>(LinkStatus.unknown.rawValue)
  private let dying = Atomic(false)
  let tapCount = Atomic(0)
  let references = Atomic(1)
  let blocks: CounterBlocks
  let lists: WorkerSlots<AddressList>

  struct State {
    var name: String
    var capabilities: InterfaceCapabilities
    var addresses: [InterfaceAddress] = []
    var multicast: [MulticastEntry] = []
    var linkMulticast: [MACAddress: Int] = [:]
    var groups: [String] = []
    var taps: [any InterfaceTap] = []
    var baudRate: UInt64
    var promiscuousCount = 0
    var allMulticastCount = 0
    var metric = 0
    var physical = 0
    var tsoLength = 65535
    var description = ""
    var lastChange: UInt64 = 0
    var compatible = InterfaceCounters()
    var origin: CloneOrigin?
    var common: (any LinkCommon)?
    var freeCommon: (@Sendable (any LinkCommon, InterfaceType) -> Void)?
  }
  let state: Guarded<State>

  init(_ options: InterfaceOptions, driver: any InterfaceDriver, table: InterfaceTable) {
    self.table = table
    self.driver = driver
    type = options.type
    driverName = options.driverName
    unit = options.unit
    vnet = options.vnet
    atomicFlags = Atomic(options.flags.rawValue)
    atomicMTU = Atomic(options.mtu)
    atomicLinkAddress = Atomic(options.linkAddress.map(Self.encode) ?? 0)
    atomicEnabled = Atomic((options.enabledCapabilities ?? options.capabilities).rawValue)
    blocks = CounterBlocks(table.numbers)
    path = SendPath(driver.serializer)
    let first = table.netisr.workers[0]
    watchdog = Watchdog { first }
    lists = WorkerSlots(table.numbers, AddressList([]))
    state = Guarded(State(name: options.name, capabilities: options.capabilities, baudRate: options.baudRate))
  }

  // MARK: What packets ask

  public var flags: InterfaceFlags { InterfaceFlags(rawValue: atomicFlags.load(ordering: .acquiring)) }
  /// Largest payload in bytes, without link header.
  public internal(set) var mtu: Int {
    get { atomicMTU.load(ordering: .relaxed) }
    set { atomicMTU.store(newValue, ordering: .relaxed) }
  }
  private static func encode(_ address: MACAddress) -> UInt64 { address.rawValue | 1 << 48 }
  public internal(set) var linkAddress: MACAddress? {
    get {
      let value = atomicLinkAddress.load(ordering: .relaxed)
      return value == 0 ? nil : MACAddress(rawValue: value)
    }
    set { atomicLinkAddress.store(newValue.map(Self.encode) ?? 0, ordering: .relaxed) }
  }
  public internal(set) var enabledCapabilities: InterfaceCapabilities {
    get { InterfaceCapabilities(rawValue: atomicEnabled.load(ordering: .relaxed)) }
    set { atomicEnabled.store(newValue.rawValue, ordering: .relaxed) }
  }
  public internal(set) var linkStatus: LinkStatus {
    get { LinkStatus(rawValue: atomicStatus.load(ordering: .relaxed)) ?? .unknown }
    set { atomicStatus.store(newValue.rawValue, ordering: .relaxed) }
  }
  /// Detached, or being detached: lookups do not find it any more.
  public internal(set) var isDying: Bool {
    get { dying.load(ordering: .acquiring) }
    set { dying.store(newValue, ordering: .releasing) }
  }

  // MARK: What requests ask

  public var name: String { state.withLock { $0.name } }
  public var baudRate: UInt64 { state.withLock { $0.baudRate } }
  public var capabilities: InterfaceCapabilities { state.withLock { $0.capabilities } }
  /// Addresses of every family, the link-level one first. On a worker its own list, without a lock.
  public var addresses: [InterfaceAddress] { lists.current?.addresses ?? state.withLock { $0.addresses } }
  /// Counters, summed over workers and send queues.
  public var counters: InterfaceCounters {
    var sum = blocks.total
    for subqueue in subqueues { subqueue.counters.add(to: &sum) }
    return sum
  }
  /// What the link type's allocator made for this interface (if_l2com).
  public var common: (any LinkCommon)? { state.withLock { $0.common } }
  /// The counters as they were at the last full second (`net.link.stats_compat`).
  public var compatibleCounters: InterfaceCounters { state.withLock { $0.compatible } }
  public var groups: [String] { state.withLock { $0.groups } }
  public var interfaceDescription: String { state.withLock { $0.description } }
  /// When something was last changed: nanoseconds of the dispatcher's clock.
  public var lastChange: UInt64 { state.withLock { $0.lastChange } }
  /// For drivers: largest TSO payload in bytes.
  public var tsoLength: Int { state.withLock { $0.tsoLength } }

  var origin: CloneOrigin? { state.withLock { $0.origin } }
  func setOrigin(_ origin: CloneOrigin) { state.withLock { $0.origin = origin } }
  func touch() {
    let now = table.netisr.clock.now()
    state.withLock { $0.lastChange = now }
  }

  /// Changes flags in one step. Returns what they were.
  @discardableResult func changeFlags(set: InterfaceFlags, clear: InterfaceFlags = []) -> InterfaceFlags {
    var old = atomicFlags.load(ordering: .relaxed)
    while true {
      let new = old & ~clear.rawValue | set.rawValue
      let (done, seen) = atomicFlags.weakCompareExchange(
        expected: old, desired: new, successOrdering: .acquiringAndReleasing, failureOrdering: .relaxed)
      if done { return InterfaceFlags(rawValue: old) }
      old = seen
    }
  }

  /// For drivers: sets or clears `running` and other flags of the driver's own. From any thread.
  public func setDriverFlags(_ set: InterfaceFlags, clear: InterfaceFlags = []) { changeFlags(set: set, clear: clear) }

  /// For drivers: the link's state; a change is announced once. From any thread.
  /// - Parameter baudRate: bits a second; 0 when unknown.
  public func setLink(_ status: LinkStatus, baudRate: UInt64 = 0) {
    let changed = state.withLock { state -> Bool in
      state.baudRate = baudRate
      guard linkStatus != status else { return false }
      linkStatus = status
      // Queued under the lock: events come in the order of the changes.
      table.events.add(.link(status), self)
      return true
    }
    guard changed else { return }
    touch()
    table.deliverEvents()
  }

  // MARK: Counting

  /// For drivers, queues and protocols: adds to a counter of the calling thread's block. No lock.
  @inline(__always) public func count(_ counter: InterfaceCounter, _ n: UInt64 = 1) { blocks.add(counter, n) }
}
