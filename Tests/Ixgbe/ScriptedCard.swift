// A card that is a list of answers: registers are memory, and the few that must react do. For what
// no model plays: stuck firmware, modules of every kind, resets that want a second one.

import DMAMemory
import DeviceIO
import DriverKit
import NetmapCore
import PCI
import Packet
import Testing

@testable import Ixgbe

/// Time that passes only when somebody sleeps or a test says so.
final class TestClock: TimeSource, @unchecked Sendable {
  private var time: UInt64 = 1_000_000
  /// Runs whenever time passes.
  var onSleep: () -> Void = {}
  func now() -> UInt64 { time }
  func sleep(nanoseconds: UInt64) {
    time &+= nanoseconds
    onSleep()
  }
}

/// A macro cannot look into an expression with a noncopyable value; this can.
func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }

/// 128 KiB of registers.
final class ScriptedRegisters: RegisterSpace {
  let count = 0x20000
  var words = [UInt32](repeating: 0, count: 0x20000 / 4)
  /// Offset and value of each write, in order; and of each read.
  var writes: [(offset: Int, value: UInt32)] = []
  var reads: [Int] = []
  var isGone = false
  var nvm = [UInt16](repeating: 0, count: 0x400)
  let bus = ModuleBus()
  /// What the firmware holds in SW_FW_SYNC, never letting go.
  var heldByFirmware: UInt32 = 0
  /// Somebody died with SWSM.SMBI.
  var driverBitIsStuck = false
  var resets = 0
  /// Resets until STATUS says that requests have ended.
  var resetsUntilQuiet = 0
  var resetNeverEnds = false
  var isX540 = false
  private var traps: TrappedDoorbells?

  init() {
    // A sum of BABAh, an address, no sections.
    for pointer in 3...0xe { nvm[pointer] = 0xffff }
    nvm[0x2b] = 0xffff
    seal()
    words[0x4 / 4] = 0
    powerUp()
  }

  subscript(_ offset: Int) -> UInt32 {
    get { words[offset / 4] }
    set { words[offset / 4] = newValue }
  }

  /// Makes the checksum right.
  func seal() {
    var sum: UInt16 = 0
    for i in 0..<0x3f { sum &+= nvm[i] }
    for i in 3...0xe where nvm[i] != 0xffff && nvm[i] != 0 && !(isX540 && (i == 4 || i == 5)) {
      let at = Int(nvm[i])
      for j in (at + 1)...(at + Int(nvm[at])) { sum &+= nvm[j] }
    }
    nvm[0x3f] = 0xbaba &- sum
  }

  private func powerUp() {
    self[0x0008] |= 1 << 19
    self[0x10010] = 0x300
    self[0x10110] = 0xc_0000
    self[0x2f00] = 8
    self[0x8d04] = 1
    self[0x42b0] = 1 << 16
    // One gigabit, serial kind SFI.
    self[0x42a8] = 2 << 16
    self[0xa200] = 0x1200_5452
    self[0xa204] = 0x8000_5634
  }

  func read32(at offset: Int) -> UInt32 {
    guard !isGone, offset >= 0, offset <= count - 4 else { return .max }
    reads.append(offset)
    switch offset {
    case 0x0800:
      defer { self[0x0800] = 0 }
      return self[0x0800]
    case 0x0808: return self[0x0800]
    case 0x28: return bus.levels
    case 0x10140:
      defer { self[0x10140] |= 1 }
      return self[0x10140] | (driverBitIsStuck ? 1 : 0)
    case 0x10160:
      let value = self[0x10160] | heldByFirmware
      if isX540 { self[0x10160] |= 1 << 31 }
      return value
    // Clear on read.
    case 0x4000..<0x4200, 0x3fa0..<0x3fc0:
      defer { self[offset] = 0 }
      return self[offset]
    default: return self[offset]
    }
  }

  func write32(_ value: UInt32, at offset: Int) {
    guard !isGone, offset >= 0, offset <= count - 4 else { return }
    writes.append((offset, value))
    switch offset {
    case 0x0000: control(value)
    case 0x0800: self[0x0800] &= ~value
    case 0x0808: self[0x0800] |= value
    case 0x0880: self[0x0880] |= value
    case 0x0888: self[0x0880] &= ~value
    case 0x28: bus.write(value)
    case 0x10014: self[offset] = value & 1 == 0 ? value : UInt32(nvm[Int(value >> 2) % nvm.count]) << 16 | 2
    case 0x10140:
      // The firmware's bit stays set only where the firmware lets it.
      if value & 1 == 0 { driverBitIsStuck = false }
      self[offset] = value
    case 0x425c: self[offset] = value & ~(1 << 30)
    case 0x4000..<0x4200: break
    default: self[offset] = value
    }
  }

  private func control(_ value: UInt32) {
    self[0] = value & ~(1 << 26 | 1 << 3)
    if value & (1 << 26 | 1 << 3) != 0 {
      resets += 1
      if resetNeverEnds { self[0] = value }
      powerUp()
    }
    if value & 4 != 0, resets >= resetsUntilQuiet { self[8] &= ~(1 << 19) }
  }

  func read8(at offset: Int) -> UInt8 { .max }
  func read16(at offset: Int) -> UInt16 { .max }
  func write8(_ value: UInt8, at offset: Int) {}
  func write16(_ value: UInt16, at offset: Int) {}
  func doorbell(at offset: Int) -> Doorbell? {
    guard offset >= 0, offset <= count - 4 else { return nil }
    if traps == nil {
      // SAFETY of the capture: one thread uses a card and its driver.
      nonisolated(unsafe) unowned let space = self
      traps = TrappedDoorbells { offset, _, value in unsafe space.write32(value, at: offset) }
    }
    return traps?.doorbell(at: offset)
  }

  /// Where in the writes an offset got a value that fits.
  func position(of offset: Int, where fits: (UInt32) -> Bool = { _ in true }) -> Int? {
    writes.firstIndex { $0.offset == offset && fits($0.value) }
  }
}

/// A module's memory on two wires, from the module's side (NXP UM10204).
final class ModuleBus {
  /// nil: nothing is plugged in.
  var memory: [UInt8]?
  private(set) var bytesSent = 0
  private enum State { case idle, receiving, acknowledging, sending, awaiting }
  private var state = State.idle
  private var clock = true, data = true, pulls = false, acknowledged = false, reads = false
  private var bits = 0, shift: UInt8 = 0, pointer: UInt8 = 0, bytes = 0
  private var last: UInt32 = 0xa

  var levels: UInt32 { last & 0xa | (clock ? 1 : 0) | (data && !pulls ? 4 : 0) }

  func write(_ value: UInt32) {
    last = value
    let c = value & 2 != 0, d = value & 8 != 0
    switch (clock, c) {
    case (true, true):
      if data && !d { begin() } else if !data && d { state = .idle }
    case (false, true): rising(d)
    case (true, false): falling()
    case (false, false): break
    }
    clock = c
    data = d
  }

  private func begin() {
    state = .receiving
    bits = 0
    bytes = 0
    pulls = false
  }

  private func rising(_ d: Bool) {
    switch state {
    case .receiving:
      shift = shift << 1 | (d ? 1 : 0)
      bits += 1
    case .sending: bits += 1
    case .awaiting: acknowledged = !d
    default: break
    }
  }

  private func falling() {
    switch state {
    case .receiving where bits == 8:
      if bytes == 0 { reads = shift & 1 == 1 } else { pointer = shift }
      pulls = memory != nil && (bytes > 0 || shift & 0xfe == 0xa0)
      bytes += 1
      state = pulls ? .acknowledging : .idle
    case .acknowledging:
      bits = 0
      state = reads ? .sending : .receiving
      pulls = false
      if reads { load() }
    case .sending:
      if bits == 8 {
        pulls = false
        state = .awaiting
      } else {
        shift <<= 1
        pulls = shift & 0x80 == 0
      }
    case .awaiting:
      state = acknowledged ? .sending : .idle
      if acknowledged { load() }
    default: break
    }
  }

  private func load() {
    bits = 0
    shift = memory?[Int(pointer) % (memory?.count ?? 1)] ?? 0xff
    pointer &+= 1
    bytesSent += 1
    pulls = shift & 0x80 == 0
  }
}

final class ScriptedCard: PCIFunction, DMAMapper {
  let space = ScriptedRegisters()
  let identity: PCIIdentity
  let vectorCount: Int
  var vectors: [Int32] = []
  var isBusMaster = false
  var mapped: [UInt64: Int] = [:]
  let name = "scripted"

  init(device: UInt16 = 0x10fb, vectors: Int = 64, port: Int = 0) {
    identity = PCIIdentity(vendor: 0x8086, device: device)
    vectorCount = vectors
    space[8] |= UInt32(port) << 2
    space.isX540 = device == 0x1528 || device == 0x1560
  }

  func readConfig8(at offset: Int) -> UInt8 { 0 }
  func readConfig16(at offset: Int) -> UInt16 { 0 }
  func readConfig32(at offset: Int) -> UInt32 { 0 }
  func writeConfig16(_ value: UInt16, at offset: Int) {}
  func writeConfig32(_ value: UInt32, at offset: Int) {}
  func registers(bar: Int) throws(PCIFunctionError) -> any RegisterSpace { space }
  var interruptVectors: Int { vectorCount }
  func enableInterrupts(_ descriptors: [Int32]) throws(PCIFunctionError) { vectors = descriptors }
  func disableInterrupts() { vectors = [] }
  var eventDescriptor: Int32 { -1 }
  func takeEvents() -> PCIFunctionEvents { [] }
  func setBusMaster(_ on: Bool) { isBusMaster = on }
  func reset() throws(PCIFunctionError) {}
  var isGone: Bool { space.isGone }
  func close() {}
  var iovaRanges: [ClosedRange<UInt64>] { [0x1000...0x7f_ffff_ffff] }
  var iovaPageSize: Int { 4096 }
  func map(_ source: DMASource, at iova: IOVA) throws(DMAError) { mapped[iova.rawValue] = source.count }
  func unmap(_ iova: IOVA, count: Int) throws(DMAError) { mapped[iova.rawValue] = nil }

  /// A module's memory.
  static func module(
    ten: UInt8 = 0, one: UInt8 = 0, cable: UInt8 = 0, maker: [UInt8] = [0, 0x1b, 0x21], name: String = "Intel Corp",
    cableKind: UInt8 = 0, identifier: UInt8 = 3
  ) -> [UInt8] {
    var memory = [UInt8](repeating: 0, count: 256)
    memory[0] = identifier
    memory[3] = ten
    memory[6] = one
    memory[8] = cable
    memory.replaceSubrange(20..<36, with: Array(name.utf8) + [UInt8](repeating: 0x20, count: 16 - name.utf8.count))
    memory.replaceSubrange(37..<40, with: maker)
    memory[60] = cableKind
    return memory
  }
}

/// A driver on a scripted card.
final class ScriptedBench {
  let card: ScriptedCard
  let clock = TestClock()
  let allocator: NetmapAllocator
  let pool: PacketPool
  let options: PortOptions
  static let buffers = 2048

  init(_ card: ScriptedCard = ScriptedCard(), _ set: (inout PortOptions) -> Void = { _ in }) throws {
    self.card = card
    allocator = try NetmapAllocator(
      sizes: PoolSizes(rings: 4, buffers: Self.buffers + 18, minimumBuffers: Self.buffers), backing: .normalPages,
      reachable: [card])
    pool = try PacketPool.lent(by: allocator, count: Self.buffers)
    var options = PortOptions()
    options.receiveDescriptors = 64
    options.transmitDescriptors = 64
    set(&options)
    self.options = options
  }

  func attach() throws(DriverError) -> IxgbeDriver {
    try IxgbeDriver(card, allocator: allocator, options: options, clock: clock)
  }

  /// Attached and started, the writes of attaching forgotten.
  func start() throws(DriverError) -> IxgbeDriver {
    let driver = try attach()
    card.space.writes = []
    try driver.start(pools: [pool])
    return driver
  }

  /// What attaching throws; nil when it does not.
  func refusal() -> DriverError? {
    do {
      _ = try attach()
      return nil
    } catch { return error }
  }
}
