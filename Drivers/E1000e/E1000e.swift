// E1000e: the driver for Intel's 82574 family over any PCI function.
//
//    attach ──> stopped ── start ──> running ── stop ──> stopped
//               (card reset,           │  tick finds a transmit hang: reset, everything put back
//                no DMA, no            ├─ the card says something impossible: quarantined, no DMA
//                interrupts)           └─ it answers all ones: gone
//
//    packet path   Receive.swift, Transmit.swift    queue structs at fixed addresses; no registers
//                                                   but the tail doorbells
//    control path  everything else                  registers through a RegisterSpace
//
// Each file holds one concern: Registers and Descriptors (formats), Device (reset and
// initialisation in the datasheet's order), Identity (non-volatile memory, address), Link,
// Interrupts, Filters, Statistics, Recovery (hangs, lies, removal).
//
// Invariants
// - Descriptors lie in memory that no program maps. Nothing read from them becomes a pointer.
// - Bus mastering is off whenever the card is not running.
// - Queue causes are masked unless a queue is armed; a vector that fires masks its causes again.

public import DeviceIO
public import DriverKit
public import NetmapCore
public import Packet
public import Wire

import CRingway
import DMAMemory
import PCI
import Platform

/// A driver attached to one 82574 (or a sibling with the same rings).
///
/// Source: Intel 82574 GbE Controller Family Datasheet, revision 3.4, and its specification update.
@safe public final class E1000eDriver: NetDriver {
  public static let driverName = "e1000e"
  public static let interfacePrefix = "em"
  /// The members with these rings and extended descriptors. The 82571 to 82573 and the chipset
  /// cards (ICH, PCH) share the name in Linux, but differ in rings, interrupts or PHY.
  public static let matches = [
    PCIMatch(vendor: 0x8086, device: 0x10d3, model: "82574L Gigabit"),
    PCIMatch(vendor: 0x8086, device: 0x10f6, model: "82574LA Gigabit"),
    PCIMatch(vendor: 0x8086, device: 0x150c, model: "82583V Gigabit"),
  ]

  public let options: PortOptions
  public let capabilities: DriverCapabilities = [
    .receiveChecksum, .transmitChecksum, .vlanStrip, .vlanInsert, .vlanFilter, .receiveHash, .jumboFrames,
    .multicastFilter, .setMACAddress,
  ]
  public let queueCount: Int
  public internal(set) var macAddress = MACAddress(rawValue: 0)
  public internal(set) var health = PortHealth.stopped
  /// What was odd but not fatal while attaching, as sentences for the log.
  public internal(set) var warnings: [String] = []

  let function: CardFunction
  let registers: any RegisterSpace
  let allocator: NetmapAllocator
  let clock: any TimeSource
  let memory: DescriptorMemory
  let receivers: UnsafeMutablePointer<ReceiveQueue>
  let transmitters: UnsafeMutablePointer<TransmitQueue>
  let vectors: Vectors
  var pools: [PacketPool] = []
  var filter = ReceiveFilter()
  var lastLink = LinkState(status: .unknown)
  var totals = Totals()
  var watchdog: [Watchdog]
  /// The receive control register's buffer size, as the pools allow.
  var bufferBits: Rctl = []
  /// Resets because of a hang (ethtool's tx_timeout_count).
  var hangs: UInt64 = 0

  /// Largest payload in bytes: 9234 on the wire, less header, VLAN tag and check sequence.
  static let largestMTU = 9212
  var name: String { function.name }

  public init(
    _ function: CardFunction, allocator: NetmapAllocator, options: PortOptions, clock: any TimeSource
  ) throws(DriverError) {
    try Self.check(function, options)
    let registers = try Self.openRegisters(function)
    let vectors = try Vectors(available: function.interruptVectors, queues: options.queues)
    let rings = try Rings(function, registers, allocator, options)
    self.function = function
    self.registers = registers
    self.allocator = allocator
    self.options = options
    self.clock = clock
    self.vectors = vectors
    queueCount = options.queues
    memory = rings.memory
    unsafe receivers = unsafe rings.receivers
    unsafe transmitters = unsafe rings.transmitters
    watchdog = Array(repeating: Watchdog(), count: options.queues)
    filter.promiscuous = options.promiscuous
    // From here on a throw runs deinit, which gives everything back.
    function.setBusMaster(false)
    quietLinkPowerStates()
    try resetCard()
    macAddress = try readAddress()
  }

  deinit {
    stop()
    for i in 0..<queueCount {
      unsafe (receivers + i).deinitialize(count: 1)
      unsafe (transmitters + i).deinitialize(count: 1)
    }
    unsafe receivers.deallocate()
    unsafe transmitters.deallocate()
    memory.release()
    try? allocator.detach(function)
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
      unsafe receivers[i].fill(from: pool(i), bufferSize: buffer.size, maximumFrame: maximumFrame)
    }
    bringUp(buffer.bits)
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
    unsafe receivers[queue].replacePool(pool.state)
    unsafe transmitters[queue].replacePool(sending.state)
  }

  /// The pool of queue `i`: its own, or the one they share.
  func pool(_ i: Int) -> UnsafeMutablePointer<PoolState> { unsafe pools[pools.count == 1 ? 0 : i].state }

  private func checkPools(_ pools: [PacketPool]) throws(DriverError) -> (bits: Rctl, size: Int) {
    guard pools.count == 1 || pools.count == queueCount else {
      throw .pool(card: name, wanted: queueCount, available: pools.count)
    }
    let size = pools.map { unsafe $0.state.pointee.bufferSize }.min() ?? 0
    guard let buffer = Rctl.bufferSize(size) else {
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
    unsafe transmitters[queue].collect()
  }
}

/// Descriptor memory cut into rings, and the queues over it.
@safe private struct Rings {
  let memory: DescriptorMemory
  let receivers: UnsafeMutablePointer<ReceiveQueue>
  let transmitters: UnsafeMutablePointer<TransmitQueue>

  init(
    _ function: CardFunction, _ registers: any RegisterSpace, _ allocator: NetmapAllocator, _ options: PortOptions
  ) throws(DriverError) {
    let receiveBytes = options.receiveDescriptors * descriptorSize
    let transmitBytes = options.transmitDescriptors * descriptorSize
    do { try allocator.attach(function) } catch { throw .allocator("\(error)") }
    do {
      // Rings are aligned to 128 bytes (10.2.5.5); their sizes keep each one aligned.
      memory = try allocator.allocateDescriptors(
        bytes: (receiveBytes + transmitBytes) * options.queues, alignment: 128, owner: function)
    } catch {
      try? allocator.detach(function)
      throw .allocator("\(error)")
    }
    unsafe receivers = .allocate(capacity: options.queues)
    unsafe transmitters = .allocate(capacity: options.queues)
    for i in 0..<options.queues {
      guard let receiveTail = registers.doorbell(at: Reg.rdt.offset + i * Reg.queueStride),
        let transmitTail = registers.doorbell(at: Reg.tdt.offset + i * Reg.queueStride)
      else {
        for j in 0..<i {
          unsafe (receivers + j).deinitialize(count: 1)
          unsafe (transmitters + j).deinitialize(count: 1)
        }
        unsafe receivers.deallocate()
        unsafe transmitters.deallocate()
        memory.release()
        try? allocator.detach(function)
        throw .unsupported(card: function.name, what: "its tail registers cannot be mapped")
      }
      let base = unsafe memory.pointer + (receiveBytes + transmitBytes) * i
      // SAFETY: both rings lie inside the descriptor memory, which outlives the queues.
      unsafe (receivers + i).initialize(
        to: ReceiveQueue(
          unsafe: DescriptorWindow(unsafe: base), count: options.receiveDescriptors, tail: receiveTail))
      unsafe (transmitters + i).initialize(
        to: TransmitQueue(
          unsafe: DescriptorWindow(unsafe: base + receiveBytes), count: options.transmitDescriptors,
          tail: transmitTail))
    }
  }
}

extension E1000eDriver {
  /// Bus address of queue `i`'s receive ring, then of its transmit ring.
  func ringAddresses(_ i: Int) -> (receive: IOVA, transmit: IOVA) {
    let receiveBytes = options.receiveDescriptors * descriptorSize
    let start = (receiveBytes + options.transmitDescriptors * descriptorSize) * i
    return (memory.iova.advanced(by: start), memory.iova.advanced(by: start + receiveBytes))
  }

  /// Refuses cards that are not of the family and options the card cannot do.
  private static func check(_ function: CardFunction, _ options: PortOptions) throws(DriverError) {
    let identity = function.identity, card = function.name
    guard let match = matches.first(where: { $0.vendor == identity.vendor && $0.device == identity.device }) else {
      throw .unsupported(card: card, what: "it is no 82574 (use `ringway devices` to see which driver serves it)")
    }
    // The 82583V has one queue pair (82583V datasheet, 1.4).
    let queues = match.device == 0x150c ? 1 : 2
    func need(_ ok: Bool, _ name: String, _ value: Int, _ allowed: String) throws(DriverError) {
      if !ok { throw .option(card: card, name: name, value: "\(value)", allowed: allowed) }
    }
    try need((1...queues).contains(options.queues), "the number of queues", options.queues, "1 to \(queues)")
    for (name, count) in [
      ("the receive ring", options.receiveDescriptors), ("the transmit ring", options.transmitDescriptors),
    ] {
      try need(
        (64...4096).contains(count) && count & (count - 1) == 0, name, count, "a power of two from 64 to 4096 descriptors")
    }
    try need((68...largestMTU).contains(options.mtu), "the MTU", options.mtu, "68 to \(largestMTU)")
    let longest = 65535 * 256 / 1000
    try need(
      (0...longest).contains(options.moderationMicroseconds), "interrupt moderation", options.moderationMicroseconds,
      "0 to \(longest) microseconds")
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
