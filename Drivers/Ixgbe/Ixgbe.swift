// Ixgbe: the driver for Intel's 82599 family (and the X540, as far as it is the same) over any PCI
// function.
//
//    attach ──> stopped ── start ──> running ── stop ──> stopped
//               (card reset,           │  tick finds a transmit hang: reset, everything put back
//                EEPROM checked,       ├─ the card says something impossible: quarantined, no DMA
//                module known)         └─ it answers all ones: gone
//
//    packet path   IntelRings: rings of advanced descriptors at fixed addresses; no registers but
//                  the tail doorbells
//    control path  everything here: registers through a RegisterSpace
//
// Each file holds one concern: Part (the family's members), Registers, RegisterBits and LinkBits
// (formats), Device (reset and initialisation in the datasheet's order), Receive and Transmit (the
// two DMA engines and their queues), Semaphores (with the firmware), Identity (EEPROM, address),
// ManagementBus and Module (what is plugged in), Link, Interrupts, Filters, Statistics, Recovery.
//
// Invariants
// - Descriptors lie in memory that no program maps. Nothing read from them becomes a pointer.
// - Bus mastering is off whenever the card is not running.
// - Queue causes are masked unless a queue is armed; a vector that fires masks its cause again.
// - Where the doorbell pages are memory shared with whoever plays the card, the queues' other
//   registers are memory too: no wait hangs on a bit there that only a card would change.

public import DeviceIO
public import DriverKit
public import NetmapCore
public import Packet
public import Wire

import DMAMemory
import IntelRings
import PCI

/// A driver attached to one port of an 82599 or a sibling.
///
/// Source: Intel 82599 10 GbE Controller Datasheet, revision 3.4, and its specification update;
/// Intel Ethernet Controller X540 Datasheet, revision 2.8.
@safe public final class IxgbeDriver: NetDriver {
  public static let driverName = "ixgbe"
  public static let interfacePrefix = "ix"
  public static let matches = Part.matches
  /// Queue pairs that receive-side scaling can spread over (82599 datasheet, 7.1.2.8.2).
  public static let mostQueues = 16

  public let options: PortOptions
  public let capabilities: DriverCapabilities = [
    .receiveChecksum, .transmitChecksum, .vlanStrip, .vlanInsert, .vlanFilter, .receiveHash, .jumboFrames,
    .multicastFilter, .setMACAddress, .transmitSegmentation, .receiveScaling,
  ]
  public let queueCount: Int
  public internal(set) var macAddress = MACAddress(rawValue: 0)
  public internal(set) var health = PortHealth.stopped
  /// What was odd but not fatal, as sentences for the log; the first 16.
  public internal(set) var warnings: [String] = []
  /// What is plugged into the port; nil when nothing is, or nothing can be.
  public internal(set) var module: PluggableModule?

  let function: CardFunction
  let registers: any RegisterSpace
  let allocator: NetmapAllocator
  let clock: any TimeSource
  let part: Part
  let rings: RingSet
  let receivers: UnsafeMutablePointer<AdvancedReceiveRing>
  let transmitters: UnsafeMutablePointer<AdvancedTransmitRing>
  let vectors: QueueVectors
  /// One for each queue, written by its owner.
  let moderation: UnsafeMutablePointer<AdaptiveModeration>
  var pools: [PacketPool] = []
  var filter = ReceiveFilter()
  var lastLink = LinkState(status: .unknown)
  var linkSetup = LinkSetup()
  var totals = Totals()
  var watchdog: [TransmitWatch]
  /// The buffer size of every receive queue, as the pools allow.
  var bufferBits: Srrctl = []
  /// Resets because of a hang (ethtool's tx_timeout_count), and link changes noticed.
  var hangs: UInt64 = 0
  var linkChanges: UInt64 = 0

  /// Largest payload in bytes: 15872 on the wire, less header, VLAN tag and check sequence (8.2.3.22.13).
  static let largestMTU = 15850
  var name: String { function.name }

  public init(
    _ function: CardFunction, allocator: NetmapAllocator, options: PortOptions, clock: any TimeSource
  ) throws(DriverError) {
    part = try Self.check(function, options)
    let registers = try Self.openRegisters(function)
    // Causes are bits for 16 vectors (8.2.3.5.1): enough for two a queue up to eight queues.
    vectors = try QueueVectors(
      available: function.interruptVectors, queues: options.queues,
      separateTransmit: 2 * options.queues <= Cause.vectorCount)
    let rings = try RingSet(
      function, registers, allocator, options, family: .ixgbe,
      receiveTail: { Reg.rdt.offset + $0 * Reg.queueStride }, transmitTail: { Reg.tdt.offset + $0 * Reg.queueStride })
    self.rings = rings
    unsafe receivers = unsafe rings.receivers
    unsafe transmitters = unsafe rings.transmitters
    self.function = function
    self.registers = registers
    self.allocator = allocator
    self.options = options
    self.clock = clock
    queueCount = options.queues
    unsafe moderation = .allocate(capacity: options.queues)
    unsafe moderation.initialize(
      repeating: AdaptiveModeration(ceiling: options.moderationMicroseconds), count: options.queues)
    watchdog = Array(repeating: TransmitWatch(), count: options.queues)
    filter.promiscuous = options.promiscuous
    // From here on a throw runs deinit, which gives everything back.
    function.setBusMaster(false)
    try resetCard()
    try checkNVM()
    macAddress = try readAddress()
    try lookForModule(refusing: true)
  }

  deinit {
    stop()
    unsafe moderation.deinitialize(count: queueCount)
    unsafe moderation.deallocate()
  }

  /// Largest frame: payload, header and one VLAN tag.
  public var maximumFrame: Int { options.mtu + Ethernet.headerSize + Ethernet.vlanTagSize }

  // MARK: Running

  public func start(pools: [PacketPool]) throws(DriverError) {
    switch health {
    case .running: return
    case .gone: throw .gone(card: name)
    case .quarantined(let reason): throw .device(card: name, problem: reason)
    case .stopped: break
    }
    let buffer = try checkPools(pools)
    guard isPresent else { throw lose() }
    bufferBits = buffer.bits
    function.setBusMaster(true)
    do {
      try vectors.enable(function)
      try resetCard()
      self.pools = pools
      for i in 0..<queueCount {
        unsafe receivers[i].fill(from: pool(i), bufferSize: buffer.size, maximumFrame: maximumFrame)
      }
      try bringUp()
    } catch {
      function.setBusMaster(false)
      vectors.disable(function)
      takeBuffersBack()
      throw error
    }
    lastLink = link
    health = .running
  }

  public func stop() {
    guard !pools.isEmpty else { return }
    if isPresent {
      accumulateStatistics()
      disableQueues()
      // A card that does not reset is still kept from memory by the bus master bit.
      try? resetCard()
      registers.modify(Reg.ctrlExt) { $0.remove(.driverLoaded) }
    }
    function.setBusMaster(false)
    vectors.disable(function)
    takeBuffersBack()
    if health == .running { health = .stopped }
  }

  /// Every buffer back into its pool. The card is quiet.
  private func takeBuffersBack() {
    for i in 0..<queueCount {
      unsafe receivers[i].armed = false
      unsafe transmitters[i].release()
      unsafe receivers[i].release()
    }
    pools = []
  }

  public func replacePool(queue: Int, with pool: PacketPool, sending: PacketPool) throws(DriverError) {
    pools = try replacing(queue: queue, with: pool, among: pools, card: name)
    // The transmit ring frees each group to the pool that it is of.
    unsafe receivers[queue].replacePool(pool.state)
  }

  /// The pool of queue `i`: its own, or the one they share.
  func pool(_ i: Int) -> UnsafeMutablePointer<PoolState> { unsafe pools[pools.count == 1 ? 0 : i].state }

  private func checkPools(_ pools: [PacketPool]) throws(DriverError) -> (bits: Srrctl, size: Int) {
    guard pools.count == 1 || pools.count == queueCount else {
      throw .pool(card: name, wanted: queueCount, available: pools.count)
    }
    let size = pools.map { unsafe $0.state.pointee.bufferSize }.min() ?? 0
    guard let buffer = Srrctl.bufferSize(size) else {
      throw .option(card: name, name: "the buffer size", value: "\(size)", allowed: "2048 bytes or more")
    }
    let each = options.receiveDescriptors * (pools.count == 1 ? queueCount : 1)
    for pool in pools where pool.available < each {
      throw .pool(card: name, wanted: each, available: pool.available)
    }
    return buffer
  }

  // MARK: Packets

  public func receive(queue: Int, into batch: inout PacketBatch, max: Int) -> Int {
    guard queue >= 0, queue < queueCount else { return 0 }
    return unsafe receivers[queue].receive(into: &batch, max: max)
  }

  public func send(queue: Int, _ batch: inout PacketBatch) -> Int {
    guard queue >= 0, queue < queueCount else { return 0 }
    return unsafe transmitters[queue].send(&batch)
  }

  public func reclaim(queue: Int) {
    guard queue >= 0, queue < queueCount, unsafe transmitters[queue].running else { return }
    unsafe transmitters[queue].reclaim()
  }
}

extension IxgbeDriver {
  /// Refuses cards that are not of the family and options the card cannot do.
  private static func check(_ function: CardFunction, _ options: PortOptions) throws(DriverError) -> Part {
    let identity = function.identity, card = function.name
    guard let part = Part.of(vendor: identity.vendor, device: identity.device) else {
      throw .unsupported(card: card, what: "it is no 82599 (use `ringway devices` to see which driver serves it)")
    }
    func need(_ ok: Bool, _ name: String, _ value: Int, _ allowed: String) throws(DriverError) {
      if !ok { throw .option(card: card, name: name, value: "\(value)", allowed: allowed) }
    }
    try need((1...mostQueues).contains(options.queues), "the number of queues", options.queues, "1 to \(mostQueues)")
    for (name, count) in [
      ("the receive ring", options.receiveDescriptors), ("the transmit ring", options.transmitDescriptors),
    ] {
      try need(
        (64...4096).contains(count) && count & (count - 1) == 0, name, count, "a power of two from 64 to 4096 descriptors")
    }
    try need((68...largestMTU).contains(options.mtu), "the MTU", options.mtu, "68 to \(largestMTU)")
    let longest = Bits.eitrLongest * 2
    try need(
      (0...longest).contains(options.moderationMicroseconds), "interrupt moderation", options.moderationMicroseconds,
      "0 to \(longest) microseconds")
    return part
  }

  private static func openRegisters(_ function: CardFunction) throws(DriverError) -> any RegisterSpace {
    let registers: any RegisterSpace
    do { registers = try function.registers(bar: 0) } catch { throw .function(error) }
    guard registers.count >= Reg.spaceSize else {
      throw .device(card: function.name, problem: "it has \(registers.count) bytes of registers, not \(Reg.spaceSize)")
    }
    guard registers.read32(at: Reg.status.offset) != .max else { throw .gone(card: function.name) }
    return registers
  }
}
