// A card that is a list of answers: registers are memory, and the few that must react do. QEMU's 82576
// judges the driver (Tests/Testbed/igb.py); this one plays what QEMU does not: other members, stuck
// firmware, hangs, lies.

import DMAMemory
import DeviceIO
import DriverKit
import NetmapCore
import PCI
import Packet
import Testing

@testable import Igb

/// Time that passes only when somebody sleeps or a test says so.
final class TestClock: TimeSource, @unchecked Sendable {
  var time: UInt64 = 1_000_000
  func now() -> UInt64 { time }
  func sleep(nanoseconds: UInt64) { time &+= nanoseconds }
}

/// A macro cannot look into an expression with a noncopyable value; this can.
func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }

/// 128 KiB of registers. The numbers are the datasheet's (82576, chapter 8), not the driver's.
final class ScriptedRegisters: RegisterSpace {
  let count = 0x20000
  private var words = [UInt32](repeating: 0, count: 0x20000 / 4)
  /// Offset and value of each write, in order.
  var writes: [(offset: Int, value: UInt32)] = []
  var isGone = false
  var nvm = [UInt16](repeating: 0, count: 0x400)
  var phy: [UInt32: UInt16] = [0: 0x1140, 1: 0x7949]
  /// What the firmware holds in SW_FW_SYNC, never letting go.
  var heldByFirmware: UInt32 = 0
  /// Which of the chip's ports this is; how it is joined to the wire (CTRL_EXT, 23:22).
  var port: UInt32 = 0 { didSet { powerUp() } }
  var linkMode: UInt32 = 0 { didSet { powerUp() } }
  /// The card takes its address from the non-volatile memory.
  var addressIsLoaded = true { didSet { powerUp() } }
  var resets = 0
  var resetNeverEnds = false
  var queuesNeverStart = false
  private var traps: TrappedDoorbells?

  init() {
    nvm[0] = 0x5452
    nvm[1] = 0x1200
    nvm[2] = 0x5634
    seal(from: 0)
    powerUp()
  }

  /// Makes the checksum of a section right.
  func seal(from start: Int) {
    nvm[start + 0x3f] = 0
    nvm[start + 0x3f] = 0xbaba &- nvm[start..<(start + 0x3f)].reduce(0, &+)
  }

  func powerUp() {
    words = [UInt32](repeating: 0, count: words.count)
    self[0x0008] = 1 << 19 | 0x80 | port << 2
    self[0x0018] = linkMode << 22
    self[0x0010] = 1 << 9
    self[0x1010] = 0xf << 18
    self[0x12030] = 0xf << 18
    // Queue 0 is on after a reset.
    self[0xc028] = 1 << 25
    self[0xe028] = 1 << 25
    if addressIsLoaded {
      self[0x5400] = 0x1200_5452
      self[0x5404] = 0x8000_5634
    }
  }

  subscript(_ offset: Int) -> UInt32 {
    get { words[offset / 4] }
    set { words[offset / 4] = newValue }
  }

  func read32(at offset: Int) -> UInt32 {
    guard !isGone, offset >= 0, offset <= count - 4 else { return .max }
    switch offset {
    // Clear on read: causes and counters.
    case 0x1500, 0x4000..<0x4200:
      defer { self[offset] = 0 }
      return self[offset]
    case 0x5b50:
      defer { self[offset] |= 1 }
      return self[offset]
    case 0x5b5c: return self[offset] | heldByFirmware
    default: return self[offset]
    }
  }

  func write32(_ value: UInt32, at offset: Int) {
    guard !isGone, offset >= 0, offset <= count - 4 else { return }
    writes.append((offset, value))
    switch offset {
    case 0x0000: control(value)
    case 0x0008: break
    case 0x0014: self[offset] = UInt32(nvm[Int(value >> 2) % nvm.count]) << 16 | 2
    case 0x0020: manage(value)
    // Write 1 to set, to clear.
    case 0x1508: self[0x1508] |= value
    case 0x150c: self[0x1508] &= ~value
    case 0x1524: self[0x1524] |= value
    case 0x1528: self[0x1524] &= ~value
    case 0x1580: self[0x1580] &= ~value
    case 0x4000..<0x4200: break
    case 0xc000..<0xf000 where offset & 0x3f == 0x28 && queuesNeverStart: self[offset] = value & ~(1 << 25)
    default: self[offset] = value
    }
  }

  private func control(_ value: UInt32) {
    if value & 1 << 26 != 0 {
      resets += 1
      powerUp()
    }
    self[0] = resetNeverEnds ? value : value & ~(1 << 26)
    if value & 4 != 0 { self[8] &= ~(1 << 19) }
  }

  private func manage(_ value: UInt32) {
    let register = value >> 16 & 31
    if value & 1 << 26 != 0 { phy[register] = UInt16(truncatingIfNeeded: value) }
    self[0x20] = 1 << 28 | UInt32(phy[register] ?? 0)
  }

  func read8(at offset: Int) -> UInt8 { .max }
  func read16(at offset: Int) -> UInt16 { .max }
  func write8(_ value: UInt8, at offset: Int) {}
  func write16(_ value: UInt16, at offset: Int) {}
  func doorbell(at offset: Int) -> Doorbell? {
    guard offset >= 0, offset <= count - 4 else { return nil }
    if traps == nil {
      // SAFETY of the capture: one thread uses a card and its driver.
      nonisolated(unsafe) let space = Unowned(self)
      traps = TrappedDoorbells { offset, _, value in unsafe space.value.write32(value, at: offset) }
    }
    return traps?.doorbell(at: offset)
  }

  private struct Unowned {
    unowned let value: ScriptedRegisters
    init(_ value: ScriptedRegisters) { self.value = value }
  }

  /// Index of the first write to a register that satisfies `accept`.
  func position(of offset: Int, where accept: (UInt32) -> Bool = { _ in true }) -> Int? {
    writes.firstIndex { $0.offset == offset && accept($0.value) }
  }
}

final class ScriptedCard: PCIFunction, DMAMapper {
  let name = "0000:05:00.0"
  var identity: PCIIdentity
  let space = ScriptedRegisters()
  var interruptVectors = 25
  private(set) var isBusMaster = true
  private(set) var descriptors: [Int32] = []
  private var mapped: [IOVA: DMASource] = [:]

  init(device: UInt16 = 0x10c9) { identity = PCIIdentity(vendor: 0x8086, device: device) }

  func readConfig8(at offset: Int) -> UInt8 { 0 }
  func readConfig16(at offset: Int) -> UInt16 { 0 }
  func readConfig32(at offset: Int) -> UInt32 { 0 }
  func writeConfig16(_ value: UInt16, at offset: Int) {}
  func writeConfig32(_ value: UInt32, at offset: Int) {}
  func registers(bar: Int) throws(PCIFunctionError) -> any RegisterSpace { space }
  func enableInterrupts(_ descriptors: [Int32]) throws(PCIFunctionError) { self.descriptors = descriptors }
  func disableInterrupts() { descriptors = [] }
  var eventDescriptor: Int32 { -1 }
  func takeEvents() -> PCIFunctionEvents { [] }
  func setBusMaster(_ on: Bool) { isBusMaster = on }
  func reset() throws(PCIFunctionError) {}
  var isGone: Bool { space.isGone }
  func close() {}

  var iovaRanges: [ClosedRange<UInt64>] { [0x10_0000...(1 << 39) - 1] }
  var iovaPageSize: Int { 4096 }
  func map(_ source: DMASource, at iova: IOVA) throws(DMAError) { mapped[iova] = source }
  func unmap(_ iova: IOVA, count: Int) throws(DMAError) { mapped[iova] = nil }

  /// Writes a 64-bit word to memory, as the card does.
  func store(_ word: UInt64, to address: UInt64) {
    for (start, source) in mapped where address >= start.rawValue && address + 8 <= start.rawValue + UInt64(source.count) {
      unsafe source.base.storeBytes(of: word, toByteOffset: Int(address - start.rawValue), as: UInt64.self)
    }
  }
}

/// A card, memory for it, a pool, and time.
final class ScriptedBench {
  static let buffers = 1100
  let card: ScriptedCard
  let clock = TestClock()
  let allocator: NetmapAllocator
  let pool: PacketPool
  var options: PortOptions

  init(device: UInt16 = 0x10c9, _ set: (inout PortOptions) -> Void = { _ in }) throws {
    card = ScriptedCard(device: device)
    options = PortOptions()
    options.receiveDescriptors = 64
    options.transmitDescriptors = 64
    set(&options)
    allocator = try NetmapAllocator(
      sizes: PoolSizes(rings: 4, buffers: Self.buffers + 2), backing: .normalPages, reachable: [card])
    pool = try PacketPool.lent(by: allocator, count: Self.buffers)
  }

  func attach() throws -> IgbDriver { try IgbDriver(card, allocator: allocator, options: options, clock: clock) }

  func start() throws -> IgbDriver {
    let driver = try attach()
    try driver.start(pools: [pool])
    return driver
  }

  /// The card writes the first descriptor of a queue back: a whole frame.
  func complete(queue: Int, length: UInt64) {
    let low = card.space[0xc000 + 0x40 * queue], high = card.space[0xc004 + 0x40 * queue]
    card.store(length << 32 | 3, to: UInt64(high) << 32 | UInt64(low) + 8)
  }

  func packet(_ count: Int = 60) -> Packet? {
    guard let packet = pool.allocate() else { return nil }
    packet.setCount(count)
    return packet
  }
}
