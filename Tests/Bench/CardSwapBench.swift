// Card to card by swapping buffer indexes, on models whose doorbells are shared memory.
//
//    generator ── model A ── rx ring ── swap ── tx ring ── model B ── nothing
//                             └────── timed ──────┘   the models step outside the clock

import Attach
import DMAMemory
import DeviceIO
import DriverKit
import E1000e
import Ifnet
import Ixgbe
import ModelKit
import Models
import NetmapAPI
import NetmapCore
import NetmapPorts
import Netisr
import PCI
import Platform
import VirtioNet

struct CardSwapBench {
  let packets: Int

  func run(_ rounds: Int, _ report: inout Report) throws {
    for kind in SwapKind.allCases {
      for size in [60, 1500] {
        let rig = try SwapRig(kind, size: size)
        _ = try rig.forward(min(packets, 10_000))
        var times: [Double] = []
        for _ in 0..<rounds { times.append(try rig.forward(packets)) }
        report.add("Card to card by swap, in process", "\(kind.rawValue), \(size) bytes", times)
        rig.close()
      }
    }
  }
}

enum SwapKind: String, CaseIterable {
  case e1000e = "82574", ixgbe = "82599", virtio = "virtio-net"

  func model(_ wire: any ModelWire) throws -> any DeviceModel {
    switch self {
    case .e1000e: return try E1000eModel(wire: wire)
    case .ixgbe: return try Intel82599Model(device: 0x10f7, wire: wire)
    case .virtio:
      var options = VirtioNetModelOptions()
      options.queueSize = 1024
      let model = try VirtioNetModel(options)
      model.wire = wire
      return model
    }
  }

  var driver: any NetDriver.Type {
    switch self {
    case .e1000e: E1000eDriver.self
    case .ixgbe: IxgbeDriver.self
    case .virtio: VirtioNetDriver.self
    }
  }
}

/// The models' time; who sleeps lets them act.
private final class SwapClock: TimeSource, @unchecked Sendable {
  var cards: [InProcessCard] = []
  func now() -> UInt64 { (cards.map(\.model.bus.now).max() ?? 0) &+ 1_000_000_000 }
  func sleep(nanoseconds: UInt64) { for card in cards { card.advance(nanoseconds: nanoseconds) } }
}

/// The cards, for a closure that other threads might call; here there are none.
private struct Reachable: @unchecked Sendable { let cards: [InProcessCard] }

final class SwapRig {
  private let cards: [InProcessCard]
  private let sink = NullWire()
  private let clock = SwapClock()
  private let netisr: Netisr
  private var attachments: [CardAttachment] = []
  private var ports: [NetmapPort] = []

  init(_ kind: SwapKind, size: Int) throws {
    var settings = GeneratorSettings()
    settings.sizes = size...size
    cards = [
      InProcessCard(try kind.model(GeneratorWire(settings)), name: "a", mode: .shared),
      InProcessCard(try kind.model(sink), name: "b", mode: .shared),
    ]
    clock.cards = cards
    var configuration = NetisrConfiguration()
    configuration.isManual = true
    netisr = try Netisr(configuration, clock: clock)
    let table = InterfaceTable(netisr)
    let space = IOVAAllocator()
    let memory = CardMemory(try Self.allocator(cards, space))
    var memoryOptions = NetmapMemoryOptions(sizes: PoolSizes(interfaces: 8, rings: 16, buffers: 16384), backing: .normalPages)
    memoryOptions.sizes.minimumBuffers = 16384
    let reachable = Reachable(cards: cards)
    let system = NetmapSystem(netisr, memory: NetmapMemory(memoryOptions, space: space, reachable: { reachable.cards }))
    var options = AttachOptions()
    options.port.receiveDescriptors = 1024
    options.port.transmitDescriptors = 1024
    for card in cards {
      let attachment = try CardAttachment(card, driver: kind.driver, table: table, memory: memory, options: options, clock: clock)
      attachments.append(attachment)
      try attachment.interface.bringUp()
    }
    for _ in 0..<20 where !attachments.allSatisfy({ $0.interface.linkStatus == .up }) {
      clock.sleep(nanoseconds: 1_000_000_000)
      netisr.settle()
    }
    for attachment in attachments {
      let card = try attachment.netmap(in: system.memory), name = attachment.interface.name
      ports.append(try system.onControl { () throws(NetmapError) in try system.open(card, PortRequest(name, RingSelection(.allNIC))) })
    }
  }

  private static func allocator(_ cards: [InProcessCard], _ space: IOVAAllocator) throws -> NetmapAllocator {
    try NetmapAllocator(
      sizes: PoolSizes(interfaces: 8, rings: 16, buffers: 16384, minimumBuffers: 16384, descriptorBytes: 4 << 20),
      backing: .normalPages, reachable: cards, space: space)
  }

  func close() {
    for port in ports { port.close() }
    for attachment in attachments { attachment.detach() }
  }

  /// Nanoseconds a packet of receive sync, swap and transmit sync.
  func forward(_ packets: Int) throws -> Double {
    let input = ports[0].receiveRings[0], output = ports[1].transmitRings[0], wall = MonotonicClock()
    var moved = 0, spent: UInt64 = 0, idle = 0
    let before = sink.frames
    while moved < packets {
      cards[0].step(budget: 256)
      let start = wall.now()
      ports[0].sync(.receive)
      let n = Self.swap(input, output)
      ports[1].sync(.transmit)
      spent += wall.now() - start
      moved += n
      cards[1].step(budget: 4096)
      idle = n == 0 ? idle + 1 : 0
      if idle > 100 {
        // The models look at their timers as time passes.
        for card in cards { card.advance(nanoseconds: 1000) }
      }
      if idle > 100_000 { throw BenchError("card to card: the models bring no packets") }
    }
    for _ in 0..<64 where sink.frames - before < moved {
      ports[1].sync(.transmit)
      cards[1].advance(nanoseconds: 1000)
    }
    guard sink.frames - before + 1024 > moved else { throw BenchError("\(moved) packets were swapped, \(sink.frames - before) came out") }
    return Double(spent) / Double(moved)
  }

  /// What the program does: indexes change places, lengths go along.
  private static func swap(_ input: NetmapProgramRing, _ output: NetmapProgramRing) -> Int {
    var from = input.head, to = output.head
    let n = min(input.space, output.space)
    for _ in 0..<n {
      let full = input.slot(from), empty = output.slot(to)
      output.setSlot(to, NetmapSlot(bufferIndex: full.bufferIndex, length: full.length, flags: .bufferChanged))
      input.setSlot(from, NetmapSlot(bufferIndex: empty.bufferIndex, length: full.length, flags: .bufferChanged))
      from = input.next(from)
      to = output.next(to)
    }
    input.setHead(from)
    output.setHead(to)
    return Int(n)
  }
}
