// A card as an interface.

public import DeviceIO
public import DMAMemory
public import DriverKit
public import Ifnet
public import NetmapCore
public import Netisr
public import Packet
internal import PCI
public import Platform
internal import Synchronization
internal import Wire

/// A card that is attached: `em0`, `igb0`, `ix0`, `vtnet0`.
///
/// The interface is there as soon as this is made, and down: `interface.bringUp()` starts the card. It goes with
/// `detach()`, or by itself when the card is gone, quarantined or asked back (`onLoss` hears why). Control runs on
/// worker 0; calls from other threads wait for it, calls from other workers are not allowed.
@safe public final class CardAttachment: InterfaceDriver, NetmapHost, @unchecked Sendable {
  public let table: InterfaceTable
  public let memory: CardMemory
  public let options: AttachOptions
  public let serializer: (any InterfaceSerializer)?
  var netisr: Netisr { table.netisr }
  let clock: any TimeSource
  /// Called on worker 0 when the card leaves by itself, after its interface has gone.
  public var onLoss: (@Sendable (CardAttachment, CardLoss) -> Void)? {
    get { shared.withLock { $0.onLoss } }
    set { shared.withLock { $0.onLoss = newValue } }
  }

  // Worker 0's, and changed while every owner stands still. SAFETY of the unchecked conformance.
  private var held: (any NetDriver)?
  private var makeDriver: ((PortOptions) throws(DriverError) -> any NetDriver)?
  private(set) var function: CardFunction?
  private(set) var queues: [CardQueue] = []
  private(set) var isRunning = false
  var filter = ReceiveFilter()
  var isHiding: PacketFlags = []
  var account = CardAccount()
  var tokens: [WorkerToken] = []
  var controlToken: WorkerToken?
  /// Made when it is first asked for.
  var netmapSide: NetmapCard?
  /// The owners beside worker 0, ascending.
  private var others: [Worker] = []

  /// What any thread may read.
  struct Shared {
    var link = LinkState(status: .unknown)
    var statistics: [Statistic] = []
    var health = PortHealth.stopped
    var onLoss: (@Sendable (CardAttachment, CardLoss) -> Void)?
  }
  let shared = Guarded(Shared())
  /// Set once, before anybody else sees the card.
  private var made: Interface?
  private let isAttached = Atomic(false)
  private let polling = Atomic(false)
  private let serviceQueued = Atomic(false)

  /// Attaches a card: makes its driver, and the interface.
  /// - Parameters:
  ///   - function: the card; closed when it leaves, and when this throws.
  ///   - type: the driver that serves it.
  ///   - memory: mapped for the card already, or reachable by it.
  ///   - clock: for the driver's waits and watchdogs.
  public convenience init(
    _ function: CardFunction, driver type: any NetDriver.Type, table: InterfaceTable, memory: CardMemory,
    options: AttachOptions = AttachOptions(), clock: any TimeSource = MonotonicClock()
  ) throws(AttachError) {
    let make = { (port: PortOptions) throws(DriverError) -> any NetDriver in
      try type.init(function, allocator: memory.allocator, options: port, clock: clock)
    }
    let driver: any NetDriver
    var options = options
    do throws(DriverError) { driver = try Self.makeDriver(&options, make) } catch {
      function.close()
      throw .driver(error)
    }
    try self.init(driver, function: function, table: table, memory: memory, options: options, clock: clock, remake: make)
  }

  /// Makes a driver; with `fewerQueues` one queue less as long as the card refuses their number.
  private static func makeDriver(
    _ options: inout AttachOptions, _ make: (PortOptions) throws(DriverError) -> any NetDriver
  ) throws(DriverError) -> any NetDriver {
    while true {
      do throws(DriverError) { return try make(options.port) } catch {
        guard options.fewerQueues, options.port.queues > 1, case .option(_, "queues", _, _) = error else { throw error }
        options.port.queues -= 1
      }
    }
  }

  /// Attaches a driver that is made and stopped.
  /// - Parameters:
  ///   - function: closed when the card leaves; nil where whoever made the driver does that.
  ///   - remake: makes the driver anew with other options, for requests that need it (a larger MTU, VLAN tagging).
  public init(
    _ driver: any NetDriver, function: CardFunction?, table: InterfaceTable, memory: CardMemory,
    options: AttachOptions = AttachOptions(), clock: any TimeSource = MonotonicClock(),
    remake: ((PortOptions) throws(DriverError) -> any NetDriver)? = nil
  ) throws(AttachError) {
    self.table = table
    self.memory = memory
    self.options = options
    self.clock = clock
    self.function = function
    makeDriver = remake
    held = driver
    serializer = OwnerSerializer(table.netisr, queues: driver.queueCount)
    filter.promiscuous = options.port.promiscuous
    do throws(DriverError) {
      try makeQueues(driver)
    } catch {
      release()
      throw .driver(error)
    }
    do throws(InterfaceError) { try attachInterface(driver) } catch {
      release()
      throw .interface(error)
    }
    watch()
  }

  private func makeQueues(_ driver: any NetDriver) throws(DriverError) {
    let port = driver.options
    let buffers = port.receiveDescriptors + port.transmitDescriptors + max(0, options.extraBuffers)
    for index in 0..<driver.queueCount {
      let worker = netisr.worker(index)
      queues.append(CardQueue(self, index: index, worker: worker, pool: try memory.takePool(count: buffers, for: worker)))
    }
    others = netisr.workers.filter { worker in worker.id != 0 && queues.contains { $0.worker === worker } }
  }

  private func attachInterface(_ driver: any NetDriver) throws(InterfaceError) {
    let prefix = type(of: driver).interfacePrefix
    if let name = options.name { return try attachInterface(driver, name, nil) }
    var unit = 0
    while true {
      if table.interface(named: "\(prefix)\(unit)") == nil {
        do throws(InterfaceError) { return try attachInterface(driver, prefix, unit) } catch {
          // Somebody was quicker: the next one.
          guard error.code == .EEXIST else { throw error }
        }
      }
      unit += 1
    }
  }

  private func attachInterface(_ driver: any NetDriver, _ name: String, _ unit: Int?) throws(InterfaceError) {
    var wanted = InterfaceOptions(name, unit: unit)
    wanted.linkAddress = driver.macAddress
    wanted.mtu = driver.options.mtu
    wanted.subqueues = driver.queueCount
    wanted.queueLength = options.queueLength > 0 ? options.queueLength : driver.options.transmitDescriptors
    wanted.capabilities = Self.capabilities(of: driver)
    // Offered, but off: what the driver was not asked for, and what nothing above makes use of yet.
    var off: InterfaceCapabilities = [.polling, .tso4, .tso6]
    if !driver.options.stripVLAN { off.insert(.vlanHardwareTagging) }
    wanted.enabledCapabilities = wanted.capabilities.subtracting(off)
    wanted.vnet = options.vnet
    let interface = try table.attach(wanted, driver: self)
    for queue in queues { interface.subqueues[queue.index].setOwner(queue.worker.id) }
    interface.subqueueMap = .modulo
    made = interface
    isAttached.store(true, ordering: .releasing)
  }

  deinit {
    // Without a detach: the card is stopped at least.
    release()
  }

  // MARK: What others see

  /// nil before and after.
  var attached: Interface? { isAttached.load(ordering: .acquiring) ? made : nil }
  /// The interface; one that was detached is still there to be asked.
  public var interface: Interface {
    guard let made else { preconditionFailure("an attachment that was made has an interface") }
    return made
  }
  public var driver: any NetDriver { held ?? GoneDriver.shared }
  public var allocator: NetmapAllocator { memory.allocator }
  public var isPolling: Bool { polling.load(ordering: .relaxed) }
  func setPolling(_ isOn: Bool) { polling.store(isOn, ordering: .relaxed) }
  /// The card's and the driver's counters, at most a second old.
  public var statistics: [Statistic] { shared.withLock { $0.statistics } }
  public var health: PortHealth { shared.withLock { $0.health } }
  public var link: LinkState { shared.withLock { $0.link } }
  /// What each queue has counted of its sends.
  public var figures: [QueueFigures] { queues.map(\.figures) }

  public func owner(ofQueue queue: Int) -> Worker { queues[queue].worker }
  public func stackPool(ofQueue queue: Int) -> PacketPool { queues[queue].pool }
  public func setTenant(_ tenant: (any QueueTenant)?, queue: Int) {
    if queues.indices.contains(queue) { queues[queue].setTenant(tenant) }
  }

  // MARK: The whole card

  /// Runs `body` while every owner of a queue stands still. From worker 0, or from a thread that is no worker.
  func still<T>(_ body: @escaping () -> T) -> T {
    let work = StillWork(body)
    Self.hold(([netisr.workers[0]] + others)[...], work)
    guard let result = work.result else { preconditionFailure("a message to a worker was not run") }
    return result
  }

  private static func hold<T>(_ workers: ArraySlice<Worker>, _ work: StillWork<T>) {
    guard let first = workers.first else { return work.run() }
    first.perform { hold(workers.dropFirst(), work) }
  }

  /// A body and its result on their way through the workers. SAFETY of the conformance: one has it after the other.
  private final class StillWork<T>: @unchecked Sendable {
    private var body: (() -> T)?
    var result: T?
    init(_ body: @escaping () -> T) { self.body = body }
    func run() {
      result = body?()
      // A worker may hold the message a little longer than the caller waits.
      body = nil
    }
  }

  /// Starts the card; on worker 0.
  func startCard() throws(DriverError) {
    guard !isRunning else { return }
    let result = still { [self] () -> Result<Void, DriverError> in
      guard let driver = held else { return .failure(.gone(card: options.name ?? "the card")) }
      do throws(DriverError) {
        try driver.setReceiveFilter(filter)
        try driver.start(pools: queues.map(\.pool))
      } catch { return .failure(error) }
      for queue in queues { queue.activate(driver, hiding: isHiding) }
      isRunning = true
      return .success(())
    }
    try result.get()
    attached?.setDriverFlags(.running)
    for subqueue in attached?.subqueues ?? [] {
      subqueue.isActive = false
      subqueue.startWatchdog()
    }
    watchControl()
    lookAfter()
  }

  /// Stops the card: no DMA, every buffer that it had back in its pool. On worker 0.
  func stopCard() {
    guard isRunning else { return }
    attached?.setDriverFlags([], clear: .running)
    for subqueue in attached?.subqueues ?? [] { subqueue.stopWatchdog() }
    controlToken?.cancel()
    controlToken = nil
    still { [self] in
      isRunning = false
      for queue in queues {
        queue.reclaim()
        queue.deactivate()
      }
      settleAccount()
      held?.stop()
      // What was still on the rings is lost now.
      settleAccount()
    }
    for subqueue in attached?.subqueues ?? [] { subqueue.isActive = false }
    setLink(LinkState(status: .unknown))
    shared.withLock { $0.health = held?.health ?? .gone }
  }

  /// The driver made anew with other options, started again if it ran; when that fails, the old options are back.
  func remake(_ change: (inout PortOptions) -> Void) throws(DriverError) {
    guard let makeDriver, held != nil else {
      throw .unsupported(card: attached?.name ?? "the card", what: "options that need its driver to be made anew")
    }
    // No reference to the old driver may outlive `held`: it would stop the card under the new one.
    let before = driver.options, address = driver.macAddress
    var wanted = before
    change(&wanted)
    let ran = isRunning
    stopCard()
    // One driver a card: the old one goes first.
    held = nil
    account.forgetDriver()
    var failure: DriverError?
    for options in [wanted, before] {
      do throws(DriverError) {
        held = try makeDriver(options)
        if held?.macAddress != address { try held?.setMACAddress(address) }
        if ran { try startCard() }
        break
      } catch {
        failure = failure ?? error
        held?.stop()
        held = nil
      }
    }
    if let failure {
      // Not even as it was: the card has to go.
      if held == nil { netisr.workers[0].post { [weak self] in self?.lose(.quarantined("\(failure)")) } }
      throw failure
    }
  }

  // MARK: The end

  /// Takes the card out: interface detached, card stopped, function closed. Idempotent.
  public func detach() {
    guard let interface = attached else { return }
    table.detach(interface)
  }

  public var holdsInterface: Bool { true }

  /// The last step of the interface's detach.
  public func detached(_ interface: Interface) {
    stopCard()
    netmapSide?.leave()
    netmapSide = nil
    for token in tokens { token.cancel() }
    tokens = []
    isAttached.store(false, ordering: .releasing)
    release()
  }

  /// Driver, function, pools. The driver's memory is unmapped with it, so it goes before the function does.
  private func release() {
    held?.stop()
    held = nil
    function?.close()
    function = nil
    // It holds the function too.
    makeDriver = nil
    for queue in queues { memory.giveBack(queue.pool, of: queue.worker) }
    queues = []
    shared.withLock { if $0.health != .gone { $0.health = .stopped } }
  }

  // MARK: The queues

  public func start(_ subqueue: Subqueue) {
    guard queues.indices.contains(subqueue.index) else { return }
    queues[subqueue.index].start(subqueue)
  }

  /// Has worker 0 look at the card's events, once for however many asked.
  func serviceSoon() {
    guard serviceQueued.compareExchange(expected: false, desired: true, ordering: .acquiringAndReleasing).exchanged else { return }
    netisr.workers[0].post { [weak self] in
      guard let self else { return }
      serviceQueued.store(false, ordering: .releasing)
      service()
    }
  }
}
