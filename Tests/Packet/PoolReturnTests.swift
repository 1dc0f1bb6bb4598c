import CRingway
import DMAMemory
import Platform
import Synchronization
import Testing

@testable import Packet

/// Makes the calling thread a worker, or none (0), for as long as `body` runs.
func asWorker<T: ~Copyable>(_ token: UInt32, _ body: () throws -> T) rethrows -> T {
  let before = unsafe rw_thread_get()
  unsafe rw_thread_set(rw_thread(token: token, worker_id: token, worker: nil, block: nil))
  defer {
    PoolState.flushReturns()
    unsafe rw_thread_set(before)
  }
  return try body()
}

@Suite struct PoolReturnTests {
  let buffers = Buffers()

  @Test func aBoundPoolGivesPacketsToItsOwnerAlone() throws {
    let pool = buffers.pool()
    pool.bind(to: 7)
    check(pool.allocate() == nil)
    asWorker(8) { check(pool.allocate() == nil) }
    asWorker(7) { check(pool.allocate() != nil) }
    #expect(pool.exhausted == 0)
    #expect(pool.available == 14)
    pool.unbind()
    check(pool.allocate() != nil)
  }

  @Test func packetsThatOthersFreeComeBack() throws {
    let pool = buffers.pool()
    pool.bind(to: 7)
    var batch = PacketBatch(capacity: 14)
    try asWorker(7) { for _ in 0..<14 { add(try take(pool), to: &batch) } }
    #expect(pool.available == 0)
    // No worker: at once.
    check(batch.popLast() != nil)
    #expect(pool.available == 1)
    // Another worker: with its batch.
    asWorker(8) {
      for _ in 0..<3 { check(batch.popLast() != nil) }
      #expect(unsafe pool.state.pointee.returnedCount.load(ordering: .relaxed) == 1)
    }
    #expect(pool.available == 4)
    #expect(unsafe pool.state.pointee.top == 0, "they are not on the stack yet")
    try asWorker(7) {
      for _ in 0..<4 {
        let packet = try take(pool)
        check(unsafe packet.record.pointee.next == nil)
        add(packet, to: &batch)
      }
      check(pool.allocate() == nil)
      #expect(pool.exhausted == 1)
      batch.removeAll()
    }
    #expect(unsafe pool.state.pointee.top == 14)
    #expect(Set((0..<14).map { unsafe UInt(bitPattern: pool.state.pointee.stack[$0]) }).count == 14)
  }

  @Test func aWorkersBatchGoesBackWhenItIsFullAndWhenThePoolChanges() throws {
    let first = buffers.pool(Array(0..<8)), second = buffers.pool(Array(8..<16))
    first.bind(to: 7)
    second.bind(to: 7)
    var batch = PacketBatch(capacity: 16)
    try asWorker(7) {
      for _ in 0..<8 { add(try take(first), to: &batch) }
      for _ in 0..<8 { add(try take(second), to: &batch) }
    }
    asWorker(8) {
      for _ in 0..<9 { check(batch.popLast() != nil) }
      #expect(unsafe second.state.pointee.returnedCount.load(ordering: .relaxed) == 8, "the pool has changed")
      #expect(unsafe first.state.pointee.returnedCount.load(ordering: .relaxed) == 0)
    }
    #expect(first.available == 1)
    asWorker(7) { batch.removeAll() }
    #expect(first.available == 8)
  }

  @Test func aChainOfSeveralPoolsGoesBackToEach() throws {
    let first = buffers.pool(Array(0..<8)), second = buffers.pool(Array(8..<16))
    first.bind(to: 7)
    let head = try asWorker(7) { try take(first) }
    let tail = try take(second)
    check(head.fill(with: [1]))
    check(tail.fill(with: [2]))
    head.append(tail)
    var batch = PacketBatch(capacity: 1)
    add(head, to: &batch)
    asWorker(8) { batch.removeAll() }
    #expect(first.available == 8)
    #expect(second.available == 8)
    #expect(unsafe first.state.pointee.top == 7)
  }

  /// An owner takes and two workers free, all at once; nothing is lost or doubled.
  @Test func ownersAndOthersAtOnce() throws {
    let pool = buffers.pool()
    pool.bind(to: 7)
    let box = Boxes(), stop = Atomic(false), shared = SendablePool(pool)
    do {
      let one = try JoinedThread(name: "frees 0") { asWorker(8) { box.free(0, until: stop) } }
      let two = try JoinedThread(name: "frees 1") { box.free(1, until: stop) }
      var sent = 0
      asWorker(7) {
        let clock = MonotonicClock(), end = clock.now() + 20_000_000_000
        while sent < 2000, clock.now() < end {
          guard let packet = shared.pool.allocate() else {
            clock.sleep(nanoseconds: 1000)
            continue
          }
          box.put(sent & 1, packet)
          sent += 1
        }
      }
      #expect(sent == 2000)
      stop.store(true, ordering: .releasing)
      one.join()
      two.join()
    }
    #expect(pool.available == 14)
    pool.unbind()
    #expect(unsafe pool.state.pointee.top == 14)
    #expect(Set((0..<14).map { unsafe UInt(bitPattern: pool.state.pointee.stack[$0]) }).count == 14)
  }
}

struct SendablePool: @unchecked Sendable {
  let pool: PacketPool
  init(_ pool: PacketPool) { self.pool = pool }
}

/// Packets on their way from the owner to those that free them: a slot for each, handed over by atomics.
@safe final class Boxes: @unchecked Sendable {
  private let slots = UnsafeMutablePointer<Atomic<UInt>>.allocate(capacity: 32)
  init() { for i in 0..<32 { unsafe (slots + i).initialize(to: Atomic(0)) } }
  deinit { unsafe slots.deallocate() }

  /// There are more slots than packets.
  func put(_ n: Int, _ packet: consuming Packet) {
    let address = unsafe UInt(bitPattern: packet.intoRaw())
    for i in n * 16..<n * 16 + 16 {
      if unsafe slots[i].compareExchange(expected: 0, desired: address, ordering: .acquiringAndReleasing).exchanged { return }
    }
  }
  func free(_ n: Int, until stop: borrowing Atomic<Bool>) {
    while true {
      let last = stop.load(ordering: .acquiring)
      var count = 0
      for i in n * 16..<n * 16 + 16 {
        if let record = unsafe RawPacket(bitPattern: slots[i].exchange(0, ordering: .acquiringAndReleasing)) {
          unsafe PoolState.put(record)
          count += 1
        }
      }
      // The end of a pass.
      PoolState.flushReturns()
      if last && count == 0 { return }
      if count == 0 { MonotonicClock().sleep(nanoseconds: 1000) }
    }
  }
}

@Suite struct LedgerTests {
  let buffers = Buffers()

  @Test func dropsAreCountedBySiteAndThread() throws {
    let ledger = DropLedger(), pool = buffers.pool()
    let site = InterfaceIndex(3, generation: 1)
    for token: UInt32 in [0, 1, 2, 1] {
      try asWorker(token) {
        let packet = try take(pool)
        check(packet.fill(with: [1, 2, 3]))
        packet.interface = site
        ledger.drop(packet, .tooShort, queue: 2, proto: 5)
      }
    }
    ledger.count(10, bytes: 100, .noBuffer, interface: .none)
    #expect(
      ledger.snapshot() == [
        DropCount(interface: .none, queue: 0, proto: 0, reason: .noBuffer, packets: 10, bytes: 100),
        DropCount(interface: site, queue: 2, proto: 5, reason: .tooShort, packets: 4, bytes: 12),
      ])
    #expect(pool.available == 14)
  }

  @Test func workersThatShareASlotUseTheLockedTable() {
    let ledger = DropLedger()
    for token: UInt32 in [5, 69, 5, 69] { asWorker(token) { ledger.count(1, .other, interface: .none) } }
    #expect(ledger.snapshot().map(\.packets) == [4])
  }

  @Test(arguments: [0, 9] as [UInt32]) func aFullTableLosesNoCount(token: UInt32) {
    let ledger = DropLedger()
    asWorker(token) {
      for i in 0..<5000 { ledger.count(2, bytes: 3, i % 2 == 0 ? .ipNoRoute : .ipTooBig, interface: InterfaceIndex(UInt16(i), generation: 1)) }
    }
    let lines = ledger.snapshot()
    #expect(lines.reduce(0) { $0 + $1.packets } == 10_000)
    #expect(lines.reduce(0) { $0 + $1.bytes } == 15_000)
    for reason in [DropReason.ipNoRoute, .ipTooBig] {
      #expect(lines.filter { $0.reason == reason }.reduce(0) { $0 + $1.packets } == 5000)
    }
  }

  @Test func observersSeeThePacketWhileItIsThere() throws {
    final class Observer: DropObserver {
      let seen = Mutex<[Int]>([])
      func dropped(_ packet: borrowing Packet, reason: DropReason, interface: InterfaceIndex, queue: UInt8, proto: UInt8) {
        let count = packet.count
        seen.withLock { $0.append(count) }
      }
    }
    let ledger = DropLedger(), observer = Observer(), pool = buffers.pool()
    ledger.add(observer)
    let first = try take(pool)
    check(first.fill(with: [1, 2]))
    ledger.drop(first, .tooShort)
    ledger.remove(observer)
    ledger.drop(try take(pool), .tooShort)
    #expect(observer.seen.withLock { $0 } == [2])
  }

  @Test func workersCountAtOnce() throws {
    let ledger = DropLedger()
    do {
      var threads: [Thread] = []
      for token: UInt32 in 0..<4 {
        threads.append(
          try Thread {
            asWorker(token) {
              for i in 0..<5000 { ledger.count(1, .ipNoRoute, interface: InterfaceIndex(UInt16(i % 50), generation: 1)) }
            }
          })
      }
      while ledger.snapshot().reduce(0, { $0 + $1.packets }) < 20_000 { MonotonicClock().sleep(nanoseconds: 100_000) }
    }
    #expect(ledger.snapshot().count == 50)
  }
}

final class Thread {
  private let thread: JoinedThread
  init(_ body: @escaping @Sendable () -> Void) throws { thread = try JoinedThread(name: "test", body) }
}
