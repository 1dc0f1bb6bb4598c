// DriverKit: what every driver is, and what the rest of the stack may ask of one.
//
//    Ringway, Attach ──> NetDriver (dispatched once a batch) ──> e1000e, igb, ixgbe, virtio-net
//                                                                   │
//                                    PCIFunction & DMAMapper  <─────┘─────> NetmapAllocator, PacketPool
//
// A driver's verbs are the same for every card: attach (init), reset, start, stop, receive, send,
// reclaim, and in netmap mode txsync and rxsync. Each descriptor operation (look, load, post,
// clean, ring) is written once in a driver; the packet adapter and the kring adapter are loops
// over them.
//
// Rules
// - One thread owns a queue: receive, send, reclaim and arm of queue i are called by its owner only.
//   Control calls (start, stop, filters, tick, statistics) come from one thread while no queue
//   is in use by another, unless said otherwise.
// - What the device says is checked against private copies. A device that lies is counted and, when
//   it cannot go on, quarantined: `health` says so, the queues then receive and send nothing, and
//   the process goes on.
// - `stop` leaves the card quiet (no DMA) and every buffer back in its pool; `deinit` stops.

public import DMAMemory
public import DeviceIO
public import NetmapCore
public import PCI
public import Packet
public import Wire

/// The card as drivers hold it: registers and interrupts, and memory mapped for it.
public typealias CardFunction = any PCIFunction & DMAMapper

/// Which cards a driver serves.
public struct PCIMatch: Hashable, Sendable {
  public let vendor: UInt16
  public let device: UInt16
  /// What people call it: "82574L Gigabit".
  public let model: String

  public init(vendor: UInt16, device: UInt16, model: String) {
    self.vendor = vendor
    self.device = device
    self.model = model
  }
}

/// How a port is set up. Values a card cannot do are refused by its driver with a typed error.
public struct PortOptions: Sendable, Equatable {
  /// Queue pairs.
  public var queues = 1
  /// Descriptors in each receive and transmit ring: a power of two, 64 to 4096.
  public var receiveDescriptors = 512
  public var transmitDescriptors = 512
  /// Largest payload of a frame in bytes, without the 14-byte header and VLAN tag: 68 to the card's limit.
  public var mtu = 1500
  /// How long moderation holds a queue's interrupt back at most, in microseconds; 0 switches it off.
  /// Cards that adapt hold it back less while little arrives.
  public var moderationMicroseconds = 20
  /// Take the VLAN tag out of received frames, into the packet's record.
  public var stripVLAN = false
  /// Accept every frame on the wire from the start.
  public var promiscuous = true
  /// Use pluggable modules that the card's maker has not approved (82599).
  public var allowUnsupportedSFP = false

  public init() {}
}

/// What a card can do beyond moving frames.
public struct DriverCapabilities: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static let receiveChecksum = DriverCapabilities(rawValue: 1 << 0)
  public static let transmitChecksum = DriverCapabilities(rawValue: 1 << 1)
  public static let vlanStrip = DriverCapabilities(rawValue: 1 << 2)
  public static let vlanInsert = DriverCapabilities(rawValue: 1 << 3)
  public static let vlanFilter = DriverCapabilities(rawValue: 1 << 4)
  public static let receiveHash = DriverCapabilities(rawValue: 1 << 5)
  public static let jumboFrames = DriverCapabilities(rawValue: 1 << 6)
  public static let multicastFilter = DriverCapabilities(rawValue: 1 << 7)
  public static let setMACAddress = DriverCapabilities(rawValue: 1 << 8)
  /// Cuts TCP payload into segments (`Packet.setSegmentation`), over IPv4 and IPv6.
  public static let transmitSegmentation = DriverCapabilities(rawValue: 1 << 9)
  /// Spreads received flows over queues by their hash.
  public static let receiveScaling = DriverCapabilities(rawValue: 1 << 10)
}

/// The link as the card reports it.
public struct LinkState: Equatable, Sendable {
  public enum Status: String, Sendable { case unknown, down, up }
  public var status: Status
  /// Megabits a second; 0 when unknown.
  public var speed: Int
  public var fullDuplex: Bool

  public init(status: Status, speed: Int = 0, fullDuplex: Bool = true) {
    self.status = status
    self.speed = speed
    self.fullDuplex = fullDuplex
  }
}

/// Which frames are accepted.
public struct ReceiveFilter: Equatable, Sendable {
  public var promiscuous = false
  public var allMulticast = false
  /// Further station addresses beside the card's own.
  public var unicast: [MACAddress] = []
  public var multicast: [MACAddress] = []
  /// VLAN identifiers (1 to 4094) let through; nil lets all through.
  public var vlans: [UInt16]?

  public init() {}
}

/// Whether a port can be used.
public enum PortHealth: Equatable, Sendable, CustomStringConvertible {
  case stopped
  case running
  /// The device said something impossible, or could not be recovered: no more DMA, no more packets.
  case quarantined(reason: String)
  /// The device was removed or answers all ones.
  case gone

  public var description: String {
    switch self {
    case .stopped: "stopped"
    case .running: "running"
    case .quarantined(let reason): "quarantined: \(reason)"
    case .gone: "gone"
    }
  }
}

/// What a control interrupt or a tick found.
public struct DriverEvents: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// `link` may have changed.
  public static let link = DriverEvents(rawValue: 1)
  /// A transmit hang or a device request led to a reset; what was in the rings is lost and counted.
  public static let reset = DriverEvents(rawValue: 2)
  /// `health` is no longer running.
  public static let lost = DriverEvents(rawValue: 4)
}

/// One counter under the name that users of `ethtool -S` know.
public struct Statistic: Equatable, Sendable {
  public let name: String
  public let value: UInt64
  public init(_ name: String, _ value: UInt64) {
    self.name = name
    self.value = value
  }
}

/// A driver attached to one card.
public protocol NetDriver: AnyObject {
  /// "e1000e", "virtio-net".
  static var driverName: String { get }
  /// What its interfaces are called in the BSDs: "em", "vtnet".
  static var interfacePrefix: String { get }
  static var matches: [PCIMatch] { get }

  /// Attaches: resets the card, reads its address, maps memory for it. The card is quiet afterwards.
  /// - Parameters:
  ///   - function: the card; closed by the driver's owner after `stop`.
  ///   - allocator: owns the descriptor memory; the driver attaches the card to it.
  ///   - clock: time for bounded waits and watchdogs.
  init(_ function: CardFunction, allocator: NetmapAllocator, options: PortOptions, clock: any TimeSource)
    throws(DriverError)

  var options: PortOptions { get }
  var capabilities: DriverCapabilities { get }
  var macAddress: MACAddress { get }
  var queueCount: Int { get }
  var link: LinkState { get }
  var health: PortHealth { get }
  /// Largest frame in bytes, with header, without check sequence.
  var maximumFrame: Int { get }

  /// Fills the receive rings from the pools (one a queue, or one for all) and switches the card on.
  func start(pools: [PacketPool]) throws(DriverError)
  /// Switches the card off; every buffer goes back to its pool. Idempotent.
  func stop()
  /// Changes, while the queue runs, where it takes fresh receive buffers from. Buffers that are posted
  /// already come out of `receive` as before, in packets of their own pool, and frames in the transmit
  /// ring go back to theirs: the card notices nothing. By the queue's owner, while no control call runs.
  /// - Parameters:
  ///   - pool: its buffers are no smaller than those the card was started with.
  ///   - sending: the pool that most frames to be sent are of; those are freed quickest.
  ///
  /// Whoever calls keeps the old pools until their packets are back, or the card is stopped.
  func replacePool(queue: Int, with pool: PacketPool, sending: PacketPool) throws(DriverError)

  /// Takes up to `max` received frames into the batch. Returns how many. Never throws: what is
  /// wrong is counted.
  func receive(queue: Int, into batch: inout PacketBatch, max: Int) -> Int
  /// Sends a prefix of the batch, in order, with one tail write; what does not fit stays in the batch.
  /// Sent frames are freed when the card has done with them. Returns how many were taken.
  func send(queue: Int, _ batch: inout PacketBatch) -> Int
  /// Frees frames that the card has sent. `send` does this by itself when it needs room.
  func reclaim(queue: Int)

  /// The eventfd that the queue's interrupt signals.
  func eventDescriptor(queue: Int) -> Int32
  /// The eventfd for link and device events. May be the same as a queue's.
  var controlDescriptor: Int32 { get }
  /// Lets the queue's interrupt through, then looks again: true when frames are already waiting, and
  /// then the caller must not sleep.
  func armInterrupt(queue: Int) -> Bool
  /// Keeps the queue's interrupt away, for polling.
  func maskInterrupt(queue: Int)
  /// Handles link and device events after `controlDescriptor` became readable.
  func serviceControl() -> DriverEvents
  /// Call about once a second: link by poll, transmit-hang watchdog, counters that wrap.
  func tick() -> DriverEvents

  func setReceiveFilter(_ filter: ReceiveFilter) throws(DriverError)
  func setMACAddress(_ address: MACAddress) throws(DriverError)
  /// The card's and the driver's counters.
  func statistics() -> [Statistic]
}

extension NetDriver {
  /// A driver that cannot change pools under way serves no netmap programs.
  public func replacePool(queue: Int, with pool: PacketPool, sending: PacketPool) throws(DriverError) {
    throw .unsupported(card: Self.driverName, what: "change its buffers while it runs")
  }

  /// Checks what every `replacePool` asks for.
  /// - Parameters:
  ///   - pools: those the driver was started with; empty while it is stopped.
  ///   - card: for the error.
  /// - Returns: one pool a queue, with `pool` in its place.
  public func replacing(
    queue: Int, with pool: PacketPool, among pools: [PacketPool], card: String
  ) throws(DriverError) -> [PacketPool] {
    guard queue >= 0, queue < queueCount else {
      throw .option(card: card, name: "the queue", value: "\(queue)", allowed: "0 to \(queueCount - 1)")
    }
    guard let first = pools.first, health == .running else {
      throw .unsupported(card: card, what: "change its buffers while it is \(health)")
    }
    // The card was told of the smallest.
    let size = pools.map { unsafe $0.state.pointee.bufferSize }.min() ?? 0
    guard unsafe pool.state.pointee.bufferSize >= size else {
      throw .option(
        card: card, name: "the buffer size", value: "\(unsafe pool.state.pointee.bufferSize)", allowed: "\(size) bytes or more")
    }
    var all = pools.count == queueCount ? pools : Array(repeating: first, count: queueCount)
    all[queue] = pool
    return all
  }
}

/// What went wrong in a driver.
public enum DriverError: Error, Equatable, CustomStringConvertible {
  case function(PCIFunctionError)
  case memory(DMAError)
  case allocator(String)
  /// An option the card cannot do: which, the value, what is possible.
  case option(card: String, name: String, value: String, allowed: String)
  /// A bounded wait ran out: what did not happen.
  case timeout(card: String, waitingFor: String)
  /// The card said something impossible.
  case device(card: String, problem: String)
  /// The packet pool is too small for the rings.
  case pool(card: String, wanted: Int, available: Int)
  case unsupported(card: String, what: String)
  case gone(card: String)

  public var description: String {
    switch self {
    case .function(let error): error.description
    case .memory(let error): error.description
    case .allocator(let message): message
    case .option(let card, let name, let value, let allowed):
      "\(card): \(name) cannot be \(value); allowed: \(allowed)."
    case .timeout(let card, let what):
      "\(card): the card did not answer in time (\(what)). Try again; if it stays so, `ringway unbind \(card)` and bind it anew."
    case .device(let card, let problem): "\(card): the card misbehaves: \(problem). It is not used further."
    case .pool(let card, let wanted, let available):
      "\(card): the rings need \(wanted) packet buffers, \(available) are free. Use smaller rings or a larger buffer pool."
    case .unsupported(let card, let what): "\(card) cannot do this: \(what)."
    case .gone(let card): "\(card) is gone: it was unplugged or unbound. Check with `ringway devices`."
    }
  }
}
