// A card that is open and running.

public import DMAMemory
public import DeviceIO
public import DriverKit
internal import NetmapCore
internal import PCI
public import Packet
public import Platform
internal import VFIO
public import Wire

/// What `service` and `tick` found.
public struct PortEvents: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// `link` may have changed.
  public static let link = PortEvents(rawValue: 1)
  /// The driver had to reset the card; what was in its rings is lost and counted.
  public static let reset = PortEvents(rawValue: 2)
  /// The port is closed now, and `failure` says why.
  public static let lost = PortEvents(rawValue: 4)
}

/// A network card held by this process: opened by PCI address, or attached to a device model.
///
/// Each queue belongs to one thread; all other calls come from one thread. See `Packet` for what is
/// received and sent.
public final class Port {
  /// "0000:03:00.0".
  public let name: String
  /// "e1000e".
  public let driverName: String
  /// "em", "vtnet": what the BSDs call its interfaces.
  public let interfacePrefix: String
  public let memory: PortMemory
  public let options: PortOptions
  /// Queue pairs.
  public let queueCount: Int
  public let macAddress: MACAddress
  public let capabilities: DriverCapabilities
  /// Largest frame in bytes, with header, without check sequence.
  public let maximumFrame: Int
  /// Free packets of each queue, for frames that the program makes itself.
  public let pools: [PacketPool]
  /// Interrupts of the card that a loop (`PortLoop`) has woken for.
  public internal(set) var interrupts: UInt64 = 0
  /// Why the port closed by itself; nil while it is open or when the program closed it.
  public private(set) var failure: RingwayError?

  /// nil once the port is closed.
  private(set) var driver: (any NetDriver)?
  private let function: CardFunction?
  private let claim: CardClaim
  /// Free packets after the start: what `drain` waits for.
  private let idle: [Int]
  private var lastStatistics: [Statistic] = []
  private let clock: any TimeSource

  /// Buffers of a queue beyond a receive and a transmit ring (its own, or that of the port which
  /// sends what this one received): for batches.
  static let slack = 256

  /// Buffers that a port with these options takes from its memory.
  public static func buffers(for options: PortOptions) -> Int {
    options.queues * (options.receiveDescriptors + options.transmitDescriptors + slack)
  }

  /// Opens a card that is bound to vfio-pci, or a netmap port of the daemon's.
  /// - Parameters:
  ///   - address: "0000:03:00.0" or "03:00.0"; "vfio-user:/path/to.sock"; "netmap:ix0", "vale0:a" and so on.
  ///   - memory: shared with other ports; nil makes one for this port.
  public static func open(
    _ address: String, options: PortOptions = PortOptions(), memory: PortMemory? = nil,
    memoryOptions: MemoryOptions = MemoryOptions(), clock: any TimeSource = MonotonicClock()
  ) throws(RingwayError) -> Port {
    if NetmapName.isOne(address) {
      let shared: PortMemory
      if let memory { shared = memory } else { shared = try PortMemory(memoryOptions.withoutCards) }
      return try Port(netmap: address, options: options, memory: shared, clock: clock)
    }
    let card = try OpenCard(address)
    let shared: PortMemory
    if let memory { shared = memory } else { shared = try PortMemory(card.placed(memoryOptions), reachable: [card.function]) }
    return try Port(card, options: options, memory: shared, clock: clock)
  }

  /// Opens several cards or netmap ports over one memory that all of them reach.
  public static func open(
    _ addresses: [String], options: PortOptions = PortOptions(), memoryOptions: MemoryOptions = MemoryOptions(),
    clock: any TimeSource = MonotonicClock()
  ) throws(RingwayError) -> [Port] {
    // nil for netmap ports, whose memory is the daemon's.
    var cards: [OpenCard?] = []
    for address in addresses { cards.append(NetmapName.isOne(address) ? nil : try OpenCard(address)) }
    let present = cards.compactMap { $0 }
    let memory: PortMemory
    if let first = present.first {
      let sameNode = present.allSatisfy { $0.node == first.node }
      memory = try PortMemory(sameNode ? first.placed(memoryOptions) : memoryOptions, reachable: present.map { $0.function })
    } else {
      memory = try PortMemory(memoryOptions.withoutCards)
    }
    var ports: [Port] = []
    for (address, card) in zip(addresses, cards) {
      if let card {
        ports.append(try Port(card, options: options, memory: memory, clock: clock))
      } else {
        ports.append(try Port(netmap: address, options: options, memory: memory, clock: clock))
      }
    }
    return ports
  }

  /// Attaches to a function that is held already: a device model, a vfio-user socket. The port
  /// closes it.
  public convenience init(
    attaching function: CardFunction, options: PortOptions = PortOptions(), memory: PortMemory,
    clock: any TimeSource = MonotonicClock()
  ) throws(RingwayError) {
    let card = try OpenCard(function)
    try self.init(card, options: options, memory: memory, clock: clock)
  }

  private convenience init(_ card: OpenCard, options: PortOptions, memory: PortMemory, clock: any TimeSource)
    throws(RingwayError)
  {
    let identity = card.function.identity
    guard let type = DriverTable.driver(for: identity) else {
      throw .unsupported(card: card.claim.name, vendor: identity.vendor, device: identity.device)
    }
    let driver: any NetDriver
    do {
      driver = try type.init(card.function, allocator: memory.allocator, options: options, clock: clock)
    } catch { throw .driver(error) }
    try self.init(driver, function: card.release(), claim: card.claim, memory: memory, clock: clock)
  }

  /// Starts an attached driver.
  init(
    _ driver: any NetDriver, function: CardFunction?, claim: CardClaim, memory: PortMemory, clock: any TimeSource
  ) throws(RingwayError) {
    name = claim.name
    driverName = type(of: driver).driverName
    interfacePrefix = type(of: driver).interfacePrefix
    options = driver.options
    queueCount = driver.queueCount
    macAddress = driver.macAddress
    capabilities = driver.capabilities
    maximumFrame = driver.maximumFrame
    self.memory = memory
    self.driver = driver
    self.function = function
    self.claim = claim
    self.clock = clock
    let buffers = Self.buffers(for: options) / max(1, options.queues)
    var pools: [PacketPool] = []
    do throws(DriverError) {
      for _ in 0..<driver.queueCount {
        pools.append(try memory.takePool(count: buffers))
      }
      try driver.start(pools: pools)
    } catch {
      driver.stop()
      memory.giveBack(pools)
      function?.close()
      throw .driver(error)
    }
    self.pools = pools
    idle = pools.map(\.available)
  }

  deinit { shut() }

  // MARK: State

  public var isOpen: Bool { driver != nil }
  public var link: LinkState { driver?.link ?? LinkState(status: .down) }
  public var health: PortHealth {
    if let driver { return driver.health }
    if case .gone? = failure { return .gone }
    return .stopped
  }

  /// Counters under the names that `ethtool -S` users know; after closing, the last ones.
  public func statistics() -> [Statistic] { driver?.statistics() ?? lastStatistics }

  public func setReceiveFilter(_ filter: ReceiveFilter) throws(RingwayError) {
    guard let driver else { throw failure ?? .closed(card: name) }
    do { try driver.setReceiveFilter(filter) } catch { throw .driver(error) }
  }

  public func setMACAddress(_ address: MACAddress) throws(RingwayError) {
    guard let driver else { throw failure ?? .closed(card: name) }
    do { try driver.setMACAddress(address) } catch { throw .driver(error) }
  }

  // MARK: Events

  /// Readable on link and device events; -1 when closed.
  public var controlDescriptor: Int32 { driver?.controlDescriptor ?? -1 }
  /// Readable when the kernel wants the card back; -1 when there is none.
  public var functionDescriptor: Int32 { driver == nil ? -1 : function?.eventDescriptor ?? -1 }

  /// Handles whatever made `controlDescriptor` or `functionDescriptor` readable.
  public func service() -> PortEvents {
    guard let driver else { return [] }
    if let function {
      let events = function.takeEvents()
      if events.contains(.removalRequested) || function.isGone { return lose(.gone(card: name)) }
      if events.contains(.registerFault) { return lose(.gone(card: name)) }
      if events.contains(.deviceError) {
        return lose(.quarantined(card: name, reason: "an uncorrectable PCI Express error was reported"))
      }
    }
    interrupts &+= EventFD.drain(driver.controlDescriptor)
    return handle(driver.serviceControl())
  }

  /// Call about once a second: link by poll, watchdogs.
  public func tick() -> PortEvents {
    guard let driver else { return [] }
    return handle(driver.tick())
  }

  private func handle(_ events: DriverEvents) -> PortEvents {
    switch driver?.health {
    case .gone: return lose(.gone(card: name))
    case .quarantined(let reason): return lose(.quarantined(card: name, reason: reason))
    default: break
    }
    var found: PortEvents = []
    if events.contains(.link) { found.insert(.link) }
    if events.contains(.reset) { found.insert(.reset) }
    return found
  }

  private func lose(_ reason: RingwayError) -> PortEvents {
    failure = reason
    shut()
    return .lost
  }

  // MARK: Closing

  /// Stops the card and gives it back. Packets that the program still holds stay valid. Idempotent.
  public func close() { shut() }

  private func shut() {
    guard let driver else { return }
    lastStatistics = driver.statistics()
    driver.stop()
    // The driver's memory is unmapped with it, so it goes before the function does.
    self.driver = nil
    function?.close()
    memory.giveBack(pools)
  }

  /// Waits until the card has sent everything and the program holds no packet of this port.
  /// - Returns: whether it came to that in `microseconds`.
  @discardableResult public func drain(within microseconds: UInt64) -> Bool {
    Self.drain([self], within: microseconds)
  }

  /// The same for ports that send each other's packets.
  @discardableResult public static func drain(_ ports: [Port], within microseconds: UInt64) -> Bool {
    let open = ports.filter(\.isOpen)
    return open.first?.clock.poll(within: microseconds, every: 100) {
      for port in open { for queue in 0..<port.queueCount { port.reclaim(queue: queue) } }
      return open.allSatisfy { port in zip(port.pools, port.idle).allSatisfy { $0.available >= $1 } }
    } ?? true
  }
}

extension Port {
  /// Waits for a link, at most `seconds`.
  public func waitForLink(seconds: Double) throws(RingwayError) {
    let up = clock.poll(within: UInt64(max(0, seconds) * 1e6), every: 2000) {
      if link.status != .up { _ = service() }
      if link.status == .down { _ = tick() }
      return link.status != .down || !isOpen
    }
    if let failure { throw failure }
    if !up { throw .noLink(card: name, seconds: seconds) }
  }
}
