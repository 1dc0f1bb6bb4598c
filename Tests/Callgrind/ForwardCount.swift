// forward-count: forwards packets between two cards of one driver, for counting instructions.
//
//    round:  card A fills A's receive ring, reports A's sent descriptors   | NullE1000eCard.work: the
//            card B the same for B                                         | device's side, subtracted
//            A.receive ──> touch a byte ──> B.send;  B.receive ──> ... ──> A.send     counted
//
// tools/callgrind-check runs it for two lengths and takes the slope: what a packet costs, without
// what starting costs. Frames are 60 bytes, batches 32, rings 512.
//
// A driver takes part by a card whose type's name starts with `Null`: everything in such a type is
// the device's own work and is not counted.

import DMAMemory
import DriverKit
import E1000e
import Igb
import Ixgbe
import Models
import NetmapCore
import PCI
import Packet
import VirtioNet

/// The device's side of one card, as cheap as it can be.
protocol NullCard: AnyObject {
  var function: CardFunction { get }
  /// Looks at where the rings are, once the driver runs.
  func attach(_ allocator: NetmapAllocator)
  /// Reports what was sent, and fills up to `frames` receive descriptors.
  func work(frames: Int)
  /// Buffers that lie in this memory too, for devices that write into them.
  func alsoReach(_ allocator: NetmapAllocator)
}

extension NullCard {
  func alsoReach(_ allocator: NetmapAllocator) {}
}

struct Usage: Error, CustomStringConvertible {
  let description: String
}

/// Moves what waits on one card to the other.
@inline(never)
func forward(_ from: any NetDriver, _ to: any NetDriver, _ batch: inout PacketBatch) -> Int {
  let count = from.receive(queue: 0, into: &batch, max: 32)
  guard count > 0 else { return 0 }
  batch.forEach { packet in
    if let byte = packet.byte(at: 1) { packet.setByte(byte &+ 1, at: 1) }
  }
  let sent = to.send(queue: 0, &batch)
  batch.removeAll()
  return sent
}

/// Forwards at least `packets`; returns how many it were.
@inline(never)
func run(_ cards: [any NullCard], _ drivers: [any NetDriver], packets: Int) -> Int {
  var batch = PacketBatch(capacity: 32)
  let a = cards[0], b = cards[1], first = drivers[0], second = drivers[1]
  var total = 0
  while total < packets {
    a.work(frames: 32)
    b.work(frames: 32)
    total += forward(first, second, &batch)
    total += forward(second, first, &batch)
  }
  return total
}

@main struct ForwardCount {
  static func main() throws {
    let words = CommandLine.arguments
    let isNetmap = words.count > 3 && words[3] == "netmap", batch = words.count == 5 ? Int(words[4]) ?? 0 : 32
    guard words.count == 3 || isNetmap, words.count <= 5, (1...256).contains(batch), let packets = Int(words[2]), packets > 0 else {
      throw Usage(description: "usage: forward-count e1000e|igb|ixgbe|virtio-net PACKETS [netmap [BATCH]]")
    }
    let type: any NetDriver.Type
    let cards: [any NullCard]
    switch words[1] {
    case "e1000e":
      type = E1000eDriver.self
      cards = [try NullE1000eCard(), try NullE1000eCard()]
    case "igb":
      type = IgbDriver.self
      cards = [try NullIgbCard(), try NullIgbCard()]
    case "ixgbe":
      type = IxgbeDriver.self
      cards = [try NullIxgbeCard(), try NullIxgbeCard()]
    case "virtio-net":
      type = VirtioNetDriver.self
      cards = [try NullVirtioNetCard(), try NullVirtioNetCard()]
    default: throw Usage(description: "forward-count: no driver is called \(words[1])")
    }
    let space = IOVAAllocator()
    let allocator = try NetmapAllocator(
      sizes: PoolSizes(rings: 4, buffers: 4098), backing: .normalPages, reachable: cards.map { $0.function }, space: space)
    let pool = try PacketPool.lent(by: allocator, count: 4096)
    var drivers: [any NetDriver] = []
    for card in cards {
      let driver = try type.init(card.function, allocator: allocator, options: PortOptions(), clock: NoWaiting())
      try driver.start(pools: [pool])
      card.attach(allocator)
      drivers.append(driver)
    }
    let total: Int
    if isNetmap {
      let bridge = try NetmapBridge(cards, drivers, drivers.map { _ in pool }, space: space)
      total = bridge.run(cards, packets: packets, batch: batch)
      for driver in drivers { driver.stop() }
      bridge.close()
    } else {
      total = run(cards, drivers, packets: packets)
    }
    for driver in drivers { driver.stop() }
    guard pool.available == 4096 else { throw Usage(description: "\(4096 - pool.available) buffers were lost") }
    print("packets \(total)")
  }
}
