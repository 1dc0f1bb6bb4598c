// netmap's ports in front of a program that writes anything: rings, slots, buffers, the interface, extra buffers' list.
//
//     the input ──> hostile program ── descriptors ──┬── pipes, monitors, switches ──┐
//                                                    └── card on a model, host rings ─┴── NetmapSystem
//     a program that behaves ── its own region ── a pipe, a switch of its own ─────────────┘
//
// The other program's frames arrive after every few steps, whole and in order. At the end everything is closed, and
// every region's account is empty: no interface, ring or buffer is anybody's.

import Attach
import CRingway
import DMAMemory
import DeviceIO
import DriverKit
import Ifnet
import Ixgbe
import ModelKit
import Models
import NetmapAPI
import NetmapCore
import NetmapPorts
import Netisr
import Packet
import Wire

/// The model's time; who sleeps lets the card act.
private final class NetmapClock: TimeSource, @unchecked Sendable {
  weak var card: InProcessCard?
  func now() -> UInt64 { (card?.model.bus.now ?? 0) &+ 1_000_000_000 }
  func sleep(nanoseconds: UInt64) { card?.advance(nanoseconds: nanoseconds) }
}

/// Takes what the stack receives, and forgets it.
private final class Forgetful: LinkLayer, @unchecked Sendable {
  func input(_ batch: inout PacketBatch, on interface: Interface) { batch.removeAll() }
  func output(_ packet: consuming Packet, to nextHop: SocketAddress, on interface: Interface) { interface.transmit(packet) }
  func resolveMulticast(_ group: SocketAddress, on interface: Interface) throws(InterfaceError) -> MACAddress? { nil }
}

/// One run.
final class NetmapRun {
  private let clock = NetmapClock()
  private let wire = TestWire()
  private let card: InProcessCard
  private let netisr: Netisr
  private let table: InterfaceTable
  private let attachment: CardAttachment
  private let system: NetmapSystem
  private let hostile: HostileProgram
  private let other: PlainProgram
  private let wasFree: Int
  private static let steps = 300

  static func run(_ input: inout FuzzInput) -> [String] {
    do {
      let run = try NetmapRun()
      return run.play(&input) + run.settle()
    } catch { return ["netmap could not be put together: \(error)"] }
  }

  private init() throws {
    let model = try Intel82599Model(device: 0x10f7, wire: wire)
    card = InProcessCard(model, name: "ix", stepsByItself: true)
    clock.card = card
    var configuration = NetisrConfiguration()
    configuration.isManual = true
    netisr = try Netisr(configuration, clock: clock)
    table = InterfaceTable(netisr)
    table.setLink(Forgetful(), for: .ethernet)
    let space = IOVAAllocator()
    let allocator = try NetmapAllocator(
      sizes: PoolSizes(
        interfaces: 1, interfaceSize: 256, rings: 1, ringSize: 1024, buffers: 1024, minimumBuffers: 16, descriptorBytes: 1 << 18),
      backing: .normalPages, reachable: [card], space: space)
    var options = AttachOptions()
    options.port.receiveDescriptors = 64
    options.port.transmitDescriptors = 64
    attachment = try CardAttachment(card, driver: IxgbeDriver.self, table: table, memory: CardMemory(allocator), options: options, clock: clock)
    var regions = NetmapMemoryOptions()
    regions.sizes = PoolSizes(interfaces: 24, interfaceSize: 1024, rings: 96, ringSize: 4352, buffers: 3000, minimumBuffers: 3000, descriptorBytes: 4096)
    regions.privateSizes = PoolSizes(interfaces: 8, rings: 16, buffers: 600, minimumBuffers: 64)
    let reachable = Cards(card)
    system = NetmapSystem(netisr, memory: NetmapMemory(regions, space: space, reachable: { [reachable.card] }))
    system.addSoftwarePorts()
    system.add(ValePorts(netisr))
    system.add(CardPorts(table))
    hostile = HostileProgram(system)
    other = try PlainProgram(system)
    // The global region is made now, that its account may be compared.
    wasFree = try system.memory.global().allocator.statistics[2].free
    let interface = attachment.interface
    let attachment = attachment
    _ = netisr.worker(0).perform { () -> InterfaceError? in
      do throws(InterfaceError) {
        try attachment.handle(.setFlags(old: interface.flags, new: interface.flags.union(.up)), on: interface)
        interface.setDriverFlags(.up)
        return nil
      } catch { return error }
    }
    for _ in 0..<20 where interface.linkStatus != .up { pass(1_000_000_000) }
  }

  /// SAFETY of the conformance: a run is one thread.
  private struct Cards: @unchecked Sendable {
    let card: InProcessCard
    init(_ card: InProcessCard) { self.card = card }
  }

  private func pass(_ nanoseconds: UInt64) {
    card.advance(nanoseconds: nanoseconds)
    netisr.settle()
    card.settle()
  }

  private func play(_ input: inout FuzzInput) -> [String] {
    for step in 0..<Self.steps where !input.isAtEnd {
      switch input.below(8) {
      case 0: pass(UInt64(1 + input.below(200)) * 10_000)
      case 1:
        var frame = [UInt8](repeating: 0xff, count: 6) + [2, 0, 0, 0, 0, input.byte(), 0x88, 0xb5] + input.take(input.below(200))
        frame += [UInt8](repeating: 0, count: max(0, 60 - frame.count))
        if wire.waiting < 64 { wire.send(frame) }
        card.settle()
      default: hostile.step(&input)
      }
      if wire.sent.count > 64 { _ = wire.takeSent() }
      if step % 8 == 7, let problem = other.exchange(pass: { pass(20_000) }) { return ["after step \(step): \(problem)"] }
    }
    return other.exchange(pass: { pass(20_000) }).map { ["at the end: \($0)"] } ?? []
  }

  /// The account.
  private func settle() -> [String] {
    var problems: [String] = []
    hostile.closeAll()
    for _ in 0..<10 { pass(300_000) }
    if let problem = other.exchange(pass: { pass(20_000) }) { problems.append("with the hostile program gone: \(problem)") }
    other.close()
    let interface = attachment.interface, attachment = attachment
    _ = netisr.worker(0).perform { () -> Bool in
      (try? attachment.handle(.setFlags(old: interface.flags, new: interface.flags.subtracting(.up)), on: interface)) != nil
    }
    for _ in 0..<10 { pass(300_000) }
    attachment.detach()
    netisr.settle()
    table.dissolve()
    for region in system.memory.regions {
      let report = region.allocator.leakReport()
      if !report.isEmpty { problems.append("region \(region.id) (\(region.name)): \(report)") }
      if region.id != NetmapRegion.globalID { problems.append("region \(region.id) (\(region.name)) is still there, with \(region.users) users") }
    }
    let free = (try? system.memory.global().allocator.statistics[2].free) ?? 0
    if free != wasFree { problems.append("\(wasFree) buffers were free at the start, \(free) are now") }
    return problems
  }
}
