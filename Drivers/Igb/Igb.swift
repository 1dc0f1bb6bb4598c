// Igb: the driver for Intel's 82576, I350, I210 and I211 over any PCI function.
//
//    attach ──> stopped ── start ──> running ── stop ──> stopped
//               (card reset,           │  tick finds a transmit hang: reset, everything put back
//                no DMA, no            ├─ the card says something impossible: quarantined, no DMA
//                interrupts)           └─ it answers all ones: gone
//
//    packet path   IntelRings            rings at fixed addresses; no registers but the tails
//    control path  everything here       registers through a RegisterSpace
//
// Each file holds one concern: Registers and Kind (formats, differences between members), Device
// (reset and initialisation in the datasheet's order), Identity (semaphores, non-volatile memory,
// address), Link, Interrupts, Filters, Statistics, Recovery (hangs, lies, removal).
//
// Invariants
// - Descriptors lie in memory that no program maps. Nothing read from them becomes a pointer.
// - Bus mastering is off whenever the card is not running.
// - A queue's vector is masked unless the queue is armed; a vector that fires masks itself again.

public import DeviceIO
public import DriverKit
public import NetmapCore
public import Packet
public import Wire

import DMAMemory
import IntelRings
import PCI

/// A driver attached to one port of the family.
///
/// Source: Intel 82576EB Gigabit Ethernet Controller Datasheet, revision 2.63; Ethernet Controller
/// I350 Datasheet, 2.6; Ethernet Controller I210 Datasheet, 3.7; and their specification updates.
@safe public final class IgbDriver: NetDriver {
  public static let driverName = "igb"
  public static let interfacePrefix = "igb"
  public static let matches = Member.all.map { PCIMatch(vendor: 0x8086, device: $0.device, model: $0.model) }

  public let options: PortOptions
  public let capabilities: DriverCapabilities = [
    .receiveChecksum, .transmitChecksum, .vlanStrip, .vlanInsert, .vlanFilter, .receiveHash, .jumboFrames,
    .multicastFilter, .setMACAddress, .transmitSegmentation, .receiveScaling,
  ]
  public let queueCount: Int
  public internal(set) var macAddress = MACAddress(rawValue: 0)
  public internal(set) var health = PortHealth.stopped
  /// What was odd but not fatal while attaching, as sentences for the log.
  public internal(set) var warnings: [String] = []

  let function: CardFunction
  let registers: any RegisterSpace
  let clock: any TimeSource
  let kind: Kind
  let rings: RingSet
  let receivers: UnsafeMutablePointer<AdvancedReceiveRing>
  let transmitters: UnsafeMutablePointer<AdvancedTransmitRing>
  /// A queue's moderation belongs to the queue's owner, as the rings do.
  let moderation: UnsafeMutablePointer<AdaptiveModeration>
  let vectors: QueueVectors
  /// Which of the chip's ports this is: 0 to 3.
  var port = 0
  var pools: [PacketPool] = []
  var filter = ReceiveFilter()
  var lastLink = LinkState(status: .unknown)
  var totals = Totals()
  var watches: [TransmitWatch]
  /// Bytes that the card may write to a receive buffer.
  var bufferSize = 2048
  /// Resets because of a hang (ethtool's tx_timeout_count).
  var hangs: UInt64 = 0

  /// Largest payload in bytes: frames of 9728 bytes, less header, VLAN tags and check sequence, and
  /// what Linux allows on these cards.
  static let largestMTU = 9216
  var name: String { function.name }

  public init(
    _ function: CardFunction, allocator: NetmapAllocator, options: PortOptions, clock: any TimeSource
  ) throws(DriverError) {
    kind = try Self.check(function, options)
    let registers = try Self.openRegisters(function)
    vectors = try QueueVectors(available: function.interruptVectors, queues: options.queues, separateTransmit: true)
    rings = try RingSet(
      function, registers, allocator, options, family: .igb,
      receiveTail: { Reg.rdt.offset + $0 * Reg.queueStride }, transmitTail: { Reg.tdt.offset + $0 * Reg.queueStride })
    self.function = function
    self.registers = registers
    self.options = options
    self.clock = clock
    queueCount = options.queues
    unsafe receivers = unsafe rings.receivers
    unsafe transmitters = unsafe rings.transmitters
    unsafe moderation = .allocate(capacity: options.queues)
    unsafe moderation.initialize(
      repeating: AdaptiveModeration(ceiling: options.moderationMicroseconds), count: options.queues)
    watches = Array(repeating: TransmitWatch(), count: options.queues)
    filter.promiscuous = options.promiscuous
    // From here on a throw runs deinit, which gives everything back.
    function.setBusMaster(false)
    try resetCard()
    port = registers.read(Reg.status).port
    macAddress = try readAddress()
  }

  deinit {
    stop()
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
    bufferSize = try checkPools(pools)
    guard isPresent else { throw lose() }
    function.setBusMaster(true)
    do {
      try vectors.enable(function)
      try resetCard()
    } catch {
      vectors.disable(function)
      function.setBusMaster(false)
      throw error
    }
    self.pools = pools
    for i in 0..<queueCount {
      unsafe receivers[i].fill(from: pool(i), bufferSize: bufferSize, maximumFrame: maximumFrame)
    }
    do { try bringUp() } catch {
      stop()
      throw error
    }
    lastLink = link
    health = .running
  }

  public func stop() {
    guard !pools.isEmpty else { return }
    for i in 0..<queueCount {
      unsafe receivers[i].running = false
      unsafe transmitters[i].running = false
    }
    if isPresent {
      accumulateStatistics()
      // A card that does not reset is still kept from memory by the bus master bit.
      try? resetCard()
      registers.modify(Reg.ctrlExt) { $0.remove(.driverLoaded) }
    }
    function.setBusMaster(false)
    vectors.disable(function)
    for i in 0..<queueCount {
      unsafe transmitters[i].release()
      unsafe receivers[i].release()
    }
    pools = []
    if health == .running { health = .stopped }
  }

  public func replacePool(queue: Int, with pool: PacketPool, sending: PacketPool) throws(DriverError) {
    pools = try replacing(queue: queue, with: pool, among: pools, card: name)
    // The transmit ring frees each group to the pool that it is of.
    unsafe receivers[queue].replacePool(pool.state)
  }

  /// The pool of queue `i`: its own, or the one they share.
  func pool(_ i: Int) -> UnsafeMutablePointer<PoolState> { unsafe pools[pools.count == 1 ? 0 : i].state }

  /// Bytes of a receive buffer as the card is told: whole kilobytes (8.10).
  private func checkPools(_ pools: [PacketPool]) throws(DriverError) -> Int {
    guard pools.count == 1 || pools.count == queueCount else {
      throw .pool(card: name, wanted: queueCount, available: pools.count)
    }
    let size = pools.map { unsafe $0.state.pointee.bufferSize }.min() ?? 0
    let used = min(size, AdvancedFamily.igb.largestBuffer) / 1024 * 1024
    guard used >= 2048 else {
      throw .option(card: name, name: "the buffer size", value: "\(size)", allowed: "2048 bytes or more")
    }
    let each = options.receiveDescriptors * (pools.count == 1 ? queueCount : 1)
    for pool in pools where pool.available < each {
      throw .pool(card: name, wanted: each, available: pool.available)
    }
    return used
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

extension IgbDriver {
  /// Refuses cards that are not of the family and options the card cannot do.
  private static func check(_ function: CardFunction, _ options: PortOptions) throws(DriverError) -> Kind {
    let card = function.name
    guard let member = Member.of(function.identity) else {
      throw .unsupported(card: card, what: "it is no 82576, I350 or I210 (use `ringway devices` to see which driver serves it)")
    }
    func need(_ ok: Bool, _ name: String, _ value: Int, _ allowed: String) throws(DriverError) {
      if !ok { throw .option(card: card, name: name, value: "\(value)", allowed: allowed) }
    }
    let queues = member.kind.queues
    try need((1...queues).contains(options.queues), "the number of queues", options.queues, "1 to \(queues)")
    for (name, count) in [
      ("the receive ring", options.receiveDescriptors), ("the transmit ring", options.transmitDescriptors),
    ] {
      try need(
        (64...4096).contains(count) && count & (count - 1) == 0, name, count, "a power of two from 64 to 4096 descriptors")
    }
    try need((68...largestMTU).contains(options.mtu), "the MTU", options.mtu, "68 to \(largestMTU)")
    let longest = 8191
    try need(
      (0...longest).contains(options.moderationMicroseconds), "interrupt moderation", options.moderationMicroseconds,
      "0 to \(longest) microseconds")
    return member.kind
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
