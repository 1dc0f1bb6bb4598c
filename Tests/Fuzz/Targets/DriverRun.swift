// A driver in front of a card that lies.

import CRingway
import DMAMemory
import DeviceIO
import DriverKit
import E1000e
import Ixgbe
import ModelKit
import Models
import NetmapCore
import PCI
import Packet
import VirtioNet
import Wire

/// Time that passes by sleeping, faster than asked: bounded waits end soon. The card moves meanwhile,
/// but not for every bit of a serial bus.
private final class FuzzClock: TimeSource, @unchecked Sendable {
  private var time: UInt64 = 1_000_000_000
  private let haste: UInt64
  private var rested: UInt64 = 0
  weak var card: InProcessCard?
  init(haste: UInt64) { self.haste = haste }
  func now() -> UInt64 { time }
  func sleep(nanoseconds: UInt64) {
    rested &+= nanoseconds
    if nanoseconds < 20_000 { time &+= nanoseconds } else { time &+= nanoseconds &* haste }
    guard rested >= 100_000 else { return }
    card?.advance(nanoseconds: min(rested &* haste, 100_000_000))
    rested = 0
  }
  func pass(_ nanoseconds: UInt64) {
    time &+= nanoseconds
    card?.advance(nanoseconds: min(nanoseconds, 100_000_000))
  }
}

/// One run.
final class DriverRun {
  private let model: any DeviceModel
  private let card: LyingCard
  private let wire = TestWire()
  private let clock: FuzzClock
  private let allocator: NetmapAllocator
  private let pool: PacketPool
  private var driver: (any NetDriver)?
  private var batch = PacketBatch(capacity: 64)
  private var problems: [String] = []
  private var received: UInt64 = 0
  /// Nothing that was written meanwhile has reached the card.
  private var wasRemoved = false
  private let countsAreOwn: Bool
  private static let buffers = 400
  private static let steps = 400

  static func run(_ target: FuzzTarget, _ input: inout FuzzInput) -> [String] {
    do {
      let run = try DriverRun(target, &input)
      run.play(&input)
      return run.settle()
    } catch {
      // The card was refused, with a reason: nothing is left of it.
      return "\(error)".isEmpty ? ["an error without a description"] : []
    }
  }

  private init(_ target: FuzzTarget, _ input: inout FuzzInput) throws {
    let shape = input.byte()
    var options = PortOptions()
    options.receiveDescriptors = 64
    options.transmitDescriptors = 64
    options.queues = shape & 1 != 0 && target != .e1000e ? 2 : 1
    options.mtu = shape & 2 != 0 ? 9000 : 1500
    options.promiscuous = shape & 4 != 0
    options.stripVLAN = shape & 8 != 0 && target != .virtioNet
    clock = FuzzClock(haste: shape & 16 != 0 ? 100 : 1000)
    let type: any NetDriver.Type
    switch target {
    case .e1000e: (model, type) = (try E1000eModel(), E1000eDriver.self)
    case .ixgbe: (model, type) = (try Intel82599Model(), IxgbeDriver.self)
    default: (model, type) = (try VirtioNetModel(Self.virtioOptions(&input)), VirtioNetDriver.self)
    }
    countsAreOwn = target == .virtioNet
    model.wire = wire
    let inner = InProcessCard(model, mode: shape & 32 != 0 ? .shared : .trapped, stepsByItself: shape & 64 != 0)
    inner.nanosecondsAnAccess = 1000
    card = LyingCard(inner)
    clock.card = inner
    allocator = try NetmapAllocator(
      sizes: PoolSizes(
        interfaces: 1, interfaceSize: 256, rings: 1, ringSize: 1024, buffers: Self.buffers + 2, minimumBuffers: 16,
        descriptorBytes: 1 << 18),
      backing: .normalPages, reachable: [card])
    pool = try PacketPool.lent(by: allocator, count: Self.buffers)
    // Some lie from the first register on.
    if shape & 128 != 0 { setLie(&input) }
    driver = try type.init(card, allocator: allocator, options: options, clock: clock)
    start()
  }

  private static func virtioOptions(_ input: inout FuzzInput) -> VirtioNetModelOptions {
    let shape = input.byte()
    var options = VirtioNetModelOptions()
    options.pairs = shape & 1 != 0 ? 2 : 1
    options.reversesCompletions = shape & 2 != 0
    if shape & 4 != 0 { options.features &= ~VirtioModelFeature.mergeableBuffers }
    if shape & 8 != 0 { options.features &= ~VirtioModelFeature.eventIndex }
    if shape & 16 != 0 { options.features &= ~VirtioModelFeature.controlQueue }
    if shape & 32 != 0 { options.queueSize = 32 }
    if shape & 64 != 0 { options.vectors = 0 }
    return options
  }

  // MARK: Steps

  private func play(_ input: inout FuzzInput) {
    var left = Self.steps
    while !input.isAtEnd, left > 0, problems.isEmpty {
      left -= 1
      let opcode = input.below(24)
      if opcode < 12 { driverStep(opcode, &input) } else { cardStep(opcode, &input) }
      judge()
    }
  }

  private func driverStep(_ opcode: Int, _ input: inout FuzzInput) {
    guard let driver else { return }
    let queue = input.below(driver.queueCount + 1)
    switch opcode {
    case 0, 1: receive(queue, max: input.below(70))
    case 2, 3: send(queue, &input)
    case 4: driver.reclaim(queue: queue)
    case 5: _ = driver.armInterrupt(queue: queue)
    case 6: driver.maskInterrupt(queue: queue)
    case 7: _ = driver.tick()
    case 8: _ = driver.serviceControl()
    case 9:
      var filter = ReceiveFilter()
      filter.promiscuous = input.flag()
      filter.allMulticast = input.flag()
      for i in 0..<input.below(20) { filter.multicast.append(MACAddress(rawValue: 0x0100_5e00_0000 + UInt64(i))) }
      for i in 0..<input.below(20) { filter.unicast.append(MACAddress(rawValue: 0x0200_5e00_0000 + UInt64(i))) }
      if input.flag() { filter.vlans = [1, input.word16()] }
      try? driver.setReceiveFilter(filter)
    case 10: try? driver.setMACAddress(MACAddress(rawValue: input.word64()))
    default:
      driver.stop()
      start()
    }
  }

  private func start() {
    batch.removeAll()
    do { try driver?.start(pools: [pool]) } catch {
      if "\(error)".isEmpty { problems.append("an error without a description") }
    }
  }

  private func receive(_ queue: Int, max: Int) {
    guard let driver else { return }
    let before = batch.count
    let got = driver.receive(queue: queue, into: &batch, max: max)
    received += UInt64(got)
    if got != batch.count - before || got > max { problems.append("\(got) frames said, \(batch.count - before) given") }
    // A frame in one buffer may be as long as the buffer.
    let most = Swift.max(driver.maximumFrame, allocator.bufferSize)
    var wrong: String?
    batch.forEach { packet in
      let count = packet.count, held = packet.bytes().count
      if count == 0 || count > most || held != count {
        wrong = "a frame of \(count) bytes in \(packet.segmentCount) buffers that hold \(held); \(most) are the most"
      }
    }
    if let wrong { problems.append(wrong) }
    if batch.room < 32 || max & 1 != 0 { batch.removeAll() }
  }

  private func send(_ queue: Int, _ input: inout FuzzInput) {
    for _ in 0..<input.below(20) {
      guard let packet = pool.allocate() else { break }
      _ = packet.setCount(14 + input.below(1600))
      let wish = input.byte()
      packet.flags = PacketFlags(rawValue: UInt32(wish & 0x5f))
      if wish & 0x80 != 0 {
        packet.setHeaderLengths(link: input.below(32), network: input.below(64))
        if wish & 0x40 != 0 { packet.setSegmentation(size: input.below(1600), transport: input.below(64)) }
        packet.setByte(input.flag() ? 0x45 : 0x60, at: 14)
      }
      if wish & 0x20 != 0, let more = pool.allocate() {
        _ = more.setCount(input.below(2000))
        packet.append(more)
      }
      _ = batch.append(packet)
    }
    _ = driver?.send(queue: queue, &batch)
    // What was not sent, or was only received, makes room.
    batch.removeAll()
  }

  private func cardStep(_ opcode: Int, _ input: inout FuzzInput) {
    switch opcode {
    case 12, 13:
      for _ in 0...input.below(8) { wire.send(frame(&input), marks: input.byte() == 255 ? .badCheckSequence : []) }
    case 14, 15: _ = card.inner.step(budget: input.below(64) + 1)
    case 16: clock.pass(UInt64(input.word16()) &* 1_000_000)
    case 17: model.inject(fault(&input))
    case 18: setLie(&input)
    case 19, 20:
      let widths = [1, 2, 4, 8]
      card.scribble(
        window: input.below(4), place: Int(input.word16()), width: widths[input.below(4)], value: input.word64())
    case 21: scribbleRing(&input)
    case 22: model.setLink(up: input.flag())
    default:
      card.inner.isRemoved = input.byte() == 255
      if card.inner.isRemoved { wasRemoved = true }
    }
  }

  private func frame(_ input: inout FuzzInput) -> [UInt8] {
    let kind = input.byte()
    var bytes = [UInt8](repeating: 0xff, count: 6) + [2, 0, 0, 0, 0, kind]
    if kind & 1 != 0 { bytes += [0x81, 0, 0, kind] }
    bytes += kind & 2 != 0 ? [8, 0, 0x45] : [0x86, 0xdd, 0x60]
    bytes += input.take(Int(kind & 7))
    let count = kind & 8 != 0 ? input.below(9500) : input.below(1600)
    if bytes.count < count { bytes += [UInt8](repeating: kind, count: count - bytes.count) }
    return bytes
  }

  private func setLie(_ input: inout FuzzInput) {
    let kind = input.byte()
    card.lie = RegisterLie(
      kind: RegisterLie.Kind(rawValue: Int(kind & 7) % RegisterLie.Kind.allCases.count) ?? .zero,
      value: input.word32(), left: kind & 8 != 0 ? 100_000 : input.below(256),
      offset: kind & 16 != 0 ? Int(input.word16()) * 4 : nil)
  }

  private func fault(_ input: inout FuzzInput) -> ModelFault {
    let count = input.below(8) + 1
    switch input.below(17) {
    case 0: return .gone
    case 1: return .transmitHang
    case 2: return .neverReports
    case 3: return .neverDelivers
    case 4: return .receiveLength(input.word32(), count: count)
    case 5: return .receiveLength(UInt32(input.word16()), count: count)
    case 6: return .missingEnd(count: count)
    case 7: return .receiveError(count: count)
    case 8: return .wrongCompletion(input.word32(), count: count)
    case 9: return .wrongCompletion(UInt32(input.byte()), count: count)
    case 10: return .duplicateCompletion(count: count)
    case 11: return .indexJump(input.word16(), count: count)
    case 12: return .interruptStorm
    case 13: return .noInterrupts
    case 14: return .stuckReset
    case 15: return .wrongAddress(count: count)
    default: return input.flag() ? .randomRegisters(seed: UInt64(count)) : .none
    }
  }

  /// virtio: what the used ring says. Other cards write descriptors back, which `scribble` reaches.
  private func scribbleRing(_ input: inout FuzzInput) {
    guard let virtio = model as? VirtioNetModel else {
      return card.scribble(window: 0, place: input.below(64 * 2), width: 8, value: input.word64())
    }
    let queue = input.below(virtio.options.pairs * 2 + 1)
    switch input.below(4) {
    case 0: virtio.misbehave(.id(UInt32(input.byte())), queue: queue)
    case 1: virtio.misbehave(.bufferCount(UInt16(input.byte())), queue: queue)
    case 2: virtio.misbehave(.length(UInt32(input.word16())), queue: queue)
    default:
      guard let place = unsafe virtio.place(ofQueue: queue) else { return }
      // SAFETY: the used ring's 6 + 8 * size bytes, at even offsets.
      let offset = unsafe input.below(3 + 4 * place.size) * 2
      unsafe rw_write16(place.used + offset, input.word16())
    }
  }

  // MARK: The account

  private func judge() {
    guard let driver else { return }
    if case .stopped = driver.health, "\(driver.health)".isEmpty { problems.append("a health without a name") }
    if batch.count > batch.capacity { problems.append("a batch of \(batch.count)") }
  }

  /// After the last step: stop, and count.
  private func settle() -> [String] {
    batch.removeAll()
    driver?.stop()
    if countsAreOwn, let said = driver?.statistics().first(where: { $0.name == "rx_packets" })?.value, said != received {
      problems.append("\(received) frames received, the driver counts \(said)")
    }
    if let driver, driver.health == .running { problems.append("a stopped driver runs") }
    if !wasRemoved, card.inner.isBusMaster { problems.append("a stopped card may reach memory") }
    if pool.available != Self.buffers { problems.append("\(Self.buffers - pool.available) buffers are missing") }
    var seen = Set<UInt>()
    for i in 0..<pool.available { unsafe seen.insert(UInt(bitPattern: pool.state.pointee.stack[i])) }
    if seen.count != pool.available { problems.append("\(pool.available - seen.count) buffers were freed twice") }
    card.inner.isRemoved = false
    driver = nil
    if model.bus.memory.bytes != 0 { problems.append("\(model.bus.memory.bytes) bytes are still mapped") }
    return problems
  }
}
