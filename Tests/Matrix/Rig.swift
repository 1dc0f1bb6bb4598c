// A driver on a model on a wire, and an account of everything that crosses.
//
//     driver ── card ── model ── LedgerWire ── FaultyWire ── TestWire
//       │                          │ what reached the card    │ what was put in, what came out
//       └ what the driver gave     └ what left the card

import DMAMemory
import DeviceIO
import DriverKit
import ModelKit
import Models
import NetmapCore
import PCI
import Packet
import VirtioNet

/// The model's time; sleeping lets the device act once at the end of it.
final class ModelClock: TimeSource, @unchecked Sendable {
  weak var card: InProcessCard?
  func now() -> UInt64 { card?.model.bus.now ?? 0 }
  func sleep(nanoseconds: UInt64) {
    card?.model.bus.now &+= nanoseconds
    card?.step()
  }
}

/// Notes every frame that reaches the card, and every one that leaves it.
final class LedgerWire: ModelWire {
  let inner: any ModelWire
  /// Frames that reached the card; those with a wrong check sequence apart.
  var arrived: [[UInt8]] = []
  var damaged = 0
  var left: [TestWire.Sent] = []
  init(_ inner: any ModelWire) { self.inner = inner }
  var nextArrival: UInt64? { inner.nextArrival }

  func transmit(_ frame: UnsafeRawBufferPointer, queue: Int, at now: UInt64) {
    left.append(TestWire.Sent(bytes: unsafe [UInt8](frame), queue: queue))
    unsafe inner.transmit(frame, queue: queue, at: now)
  }
  func receive(at now: UInt64, _ body: (UnsafeRawBufferPointer, WireMarks) -> Void) -> Bool {
    unsafe inner.receive(at: now) { frame, marks in
      if marks.contains(.badCheckSequence) { damaged += 1 } else { arrived.append(unsafe [UInt8](frame)) }
      unsafe body(frame, marks)
    }
  }
}

/// A frame as the driver gave it.
struct Got: Equatable {
  var bytes: [UInt8]
  var flags: PacketFlags
  var vlan: UInt16
  var hash: UInt32
  static func == (a: Got, b: Got) -> Bool { a.bytes == b.bytes && a.flags == b.flags && a.vlan == b.vlan }
}

@safe final class Rig {
  let cell: Cell
  let model: any DeviceModel
  let card: InProcessCard
  let far = TestWire()
  let faulty: FaultyWire
  let ledger: LedgerWire
  let allocator: NetmapAllocator
  let pool: PacketPool
  let driver: any NetDriver
  let clock = ModelClock()
  var random: SeededGenerator
  /// Received frames of each queue, in order.
  var got: [[Got]]
  /// Frames given to the driver, of each queue, as they should be on the wire.
  var given: [[[UInt8]]]
  var failures: [String] = []
  private var batch: PacketBatch
  private var number = 0

  init(_ cell: Cell, stepsByItself: Bool = false) throws {
    self.cell = cell
    random = SeededGenerator(seed: cell.seed)
    got = Array(repeating: [], count: cell.queues)
    given = Array(repeating: [], count: cell.queues)
    batch = PacketBatch(capacity: max(64, cell.batch))
    let faults = try cell.wireFault.isEmpty ? [] : [WireFault(parsing: cell.wireFault)]
    faulty = FaultyWire(far, faults: faults, seed: cell.seed)
    ledger = LedgerWire(faulty)
    model = try cell.subject.makeModel(cell, ledger)
    card = InProcessCard(model, name: "\(cell.subject)", mode: cell.isShared ? .shared : .trapped, stepsByItself: stepsByItself)
    clock.card = card
    let buffers = cell.queues * (cell.receiveRing + cell.transmitRing) + 320
    allocator = try NetmapAllocator(
      sizes: PoolSizes(
        interfaces: 2, interfaceSize: 256, rings: 4, ringSize: 1024, buffers: buffers + 2, minimumBuffers: 16,
        descriptorBytes: 1 << 20),
      backing: .normalPages, reachable: [card])
    driver = try cell.subject.makeDriver(card, allocator, cell.options, clock)
    pool = try PacketPool.lent(by: allocator, count: buffers)
  }

  deinit { driver.stop() }

  /// Starts, and waits for the link.
  func start() throws {
    try driver.start(pools: [pool])
    for _ in 0..<20 where driver.link.status != .up {
      pass(1_000_000_000)
      _ = driver.serviceControl()
      _ = driver.tick()
    }
    expect(driver.link.status == .up, "no link: \(driver.link)")
  }

  func expect(_ holds: Bool, _ text: @autoclosure () -> String) {
    if !holds, failures.count < 5 { failures.append(text()) }
  }

  /// Lets time pass; the device acts at its deadlines and at the end.
  func pass(_ nanoseconds: UInt64) {
    if nanoseconds < 1_000_000 {
      card.advance(nanoseconds: nanoseconds)
    } else {
      clock.sleep(nanoseconds: nanoseconds)
      card.settle()
    }
  }

  func below(_ limit: Int) -> Int { Int(random.next() % UInt64(max(1, limit))) }
  func nextNumber() -> Int {
    number += 1
    return number
  }

  // MARK: Receiving

  /// Takes what the driver has, in batches of the cell's size, the queues in turn. A call that gives
  /// nothing means that there is nothing.
  func drain() {
    var isMoving = true
    while isMoving {
      isMoving = false
      for queue in 0..<cell.queues {
        let count = driver.receive(queue: queue, into: &batch, max: cell.batch)
        guard count > 0 else { continue }
        isMoving = true
        batch.forEach { packet in
          got[queue].append(Got(bytes: packet.bytes(), flags: packet.flags, vlan: packet.vlan, hash: packet.hash))
        }
        batch.removeAll()
      }
      if isMoving { card.settle() }
    }
  }

  /// Lets everything arrive that is on its way.
  func finish() {
    for _ in 0..<8 {
      pass(300_000)
      drain()
      for queue in 0..<cell.queues { driver.reclaim(queue: queue) }
    }
  }

  // MARK: Sending

  /// Sends one frame, as a chain of buffers cut at random places where `pieces` is more than 1, none
  /// before `head` bytes: drivers want the headers of what the card is to finish in the first buffer.
  /// - Returns: whether the driver took it before the ring stayed full.
  @discardableResult func send(
    _ bytes: [UInt8], queue: Int, pieces: Int = 1, head: Int = 14, onWire: [UInt8]? = nil, prepare: (borrowing Packet) -> Void = { _ in }
  ) -> Bool {
    guard let packet = packet(bytes, pieces: pieces, head: head) else {
      expect(false, "the pool is empty: \(pool.available)")
      return false
    }
    prepare(packet)
    if let refused = batch.append(packet) { _ = consume refused }
    if batch.count < min(cell.batch, batch.capacity) {
      given[queue].append(onWire ?? bytes)
      return true
    }
    given[queue].append(onWire ?? bytes)
    return flush(queue)
  }

  /// Sends what is in the batch.
  @discardableResult func flush(_ queue: Int) -> Bool {
    for _ in 0..<200 where !batch.isEmpty {
      _ = driver.send(queue: queue, &batch)
      card.settle()
      if !batch.isEmpty { pass(1000) }
    }
    let isEmpty = batch.isEmpty
    batch.removeAll()
    return isEmpty
  }

  /// A packet with these bytes over `pieces` buffers, or more where they are too small.
  func packet(_ bytes: [UInt8], pieces: Int, head: Int = 14) -> Packet? {
    // A tag that the driver inserts by itself needs four bytes of room in the first buffer.
    let room = 2044
    var cuts = Set((1..<max(1, pieces)).map { _ in head + below(max(1, bytes.count - head - 1)) }.filter { $0 < bytes.count })
    var from = 0
    for cut in cuts.sorted() + [bytes.count] {
      while cut - from > room {
        from += room
        cuts.insert(from)
      }
      from = cut
    }
    let edges = [0] + cuts.sorted() + [bytes.count]
    guard let first = pool.allocate(), first.fill(with: Array(bytes[0..<edges[1]])) else { return nil }
    for index in 1..<max(1, edges.count - 1) {
      guard let next = pool.allocate(), next.fill(with: Array(bytes[edges[index]..<edges[index + 1]])) else { return nil }
      first.append(next)
    }
    return first
  }

  // MARK: Counters

  /// The driver's counters by name, read once.
  func counters() -> [String: Int] {
    Dictionary(driver.statistics().map { ($0.name, Int(truncatingIfNeeded: $0.value)) }) { first, _ in first }
  }
}
