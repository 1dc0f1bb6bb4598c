// An interface over a driver that notes what it is asked, on workers that the test runs itself.

import DMAMemory
import DeviceIO
import Ifnet
import Netisr
import Packet
import Platform
import Synchronization
import Testing
import Wire

/// Time that stands until the test moves it.
final class SendClock: TimeSource, @unchecked Sendable {
  private let time = Atomic<UInt64>(1_000_000_000)
  func now() -> UInt64 { time.load(ordering: .relaxed) }
  func sleep(nanoseconds: UInt64) { time.wrappingAdd(nanoseconds, ordering: .relaxed) }
}

/// Takes packets as a ring would: up to its room, and then it is oactive.
final class RingDriver: InterfaceDriver, @unchecked Sendable {
  struct Start: Equatable {
    var queue: Int
    /// nil: a thread that is no worker.
    var worker: Int?
    var frames: [[UInt8]]
  }
  struct State {
    var room = Int.max
    var starts: [Start] = []
    var watchdogs: [Int?] = []
    var inside = 0
    var overlaps = 0
  }
  let state = Guarded(State())
  let serializer: (any InterfaceSerializer)?
  /// Runs inside if_start, before packets are taken.
  let onStart = Guarded<(@Sendable (Subqueue) -> Void)?>(nil)
  /// Packets that one call takes at most.
  let budget: Int

  init(serializer: (any InterfaceSerializer)? = nil, budget: Int = 64) {
    self.serializer = serializer
    self.budget = budget
  }

  func start(_ subqueue: Subqueue) {
    state.withLock { state in
      state.inside += 1
      if state.inside > 1 { state.overlaps += 1 }
    }
    if let hook = onStart.withLock({ $0 }) { hook(subqueue) }
    var batch = PacketBatch(capacity: budget)
    subqueue.dequeue(into: &batch)
    state.withLock { state in
      var frames: [[UInt8]] = []
      let taken = min(state.room, batch.count)
      state.room -= taken
      batch.forEach { if frames.count < taken { frames.append($0.bytes()) } }
      _ = unsafe batch.drain { slots, _ in
        for i in 0..<taken { unsafe PoolState.put(slots[i]) }
        return taken
      }
      state.starts.append(Start(queue: subqueue.index, worker: Worker.current?.id, frames: frames))
      if state.room == 0 { subqueue.isActive = true }
    }
    subqueue.prepend(&batch)
    state.withLock { $0.inside -= 1 }
  }

  func watchdog(_ subqueue: Subqueue) { state.withLock { $0.watchdogs.append(Worker.current?.id) } }

  var starts: [Start] { state.withLock { $0.starts } }
  /// First bytes of all frames that were sent, in order.
  var sent: [UInt8] { starts.flatMap { $0.frames.map { $0[6] } } }
  func setRoom(_ room: Int) { state.withLock { $0.room = room } }
}

/// An interface with packets to send.
@safe final class SendRig: @unchecked Sendable {
  let clock = SendClock()
  let netisr: Netisr
  let table: InterfaceTable
  let driver: RingDriver
  let interface: Interface
  let pool: PacketPool
  private let memory: UnsafeMutableRawPointer
  private let buffers: Int
  var queue: Subqueue { interface.subqueues[0] }

  init(workers: Int = 1, queues: Int = 1, length: Int = 50, driver: RingDriver? = nil, buffers: Int = 512) throws {
    var configuration = NetisrConfiguration()
    configuration.maxThreads = workers
    configuration.isManual = true
    netisr = try Netisr(configuration, clock: clock)
    table = InterfaceTable(netisr)
    self.driver = driver ?? RingDriver()
    var options = InterfaceOptions("em", unit: 0)
    options.subqueues = queues
    options.queueLength = length
    options.linkAddress = MACAddress("02:00:00:00:00:01")
    interface = try table.attach(options, driver: self.driver)
    interface.setDriverFlags([.running, .up])
    self.buffers = buffers
    unsafe memory = .allocate(byteCount: buffers * 2048, alignment: 4096)
    pool = unsafe PacketPool(
      unsafe: memory, stride: 2048, iova: IOVA(rawValue: 0x10_0000), indices: Array(0..<UInt32(buffers)))
  }

  deinit { unsafe memory.deallocate() }

  /// A frame whose seventh byte says which it is.
  func packet(_ mark: UInt8, length: Int = 60, isMulticast: Bool = false) -> Packet {
    let packet = pool.allocate()!
    var bytes = [UInt8](repeating: 0, count: length)
    if isMulticast { bytes[0] = 1 }
    bytes[6] = mark
    check(packet.fill(with: bytes))
    return packet
  }

  /// Sends on worker `n`; nil: on a thread that is none.
  @discardableResult
  func send(_ marks: ClosedRange<UInt8>, on worker: Int? = nil, length: Int = 60, priority: Bool = false, queue: Int = 0) -> [Bool] {
    let body: @Sendable () -> [Bool] = { [self] in
      marks.map { interface.subqueues[queue].send(packet($0, length: length), priority: priority) }
    }
    guard let worker else { return body() }
    return netisr.workers[worker].perform(body)
  }

  func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }

  func drops(_ reason: DropReason) -> Int {
    Int(netisr.drops.snapshot().filter { $0.reason == reason && $0.interface == interface.index }.reduce(0) { $0 + $1.packets })
  }

  /// Every packet that was offered was sent, waits, or was dropped with a reason.
  func expectConserved(offered: Int, _ location: SourceLocation = #_sourceLocation) {
    let counters = queue.counters
    let dropped = drops(.sendQueueFull) + drops(.sendQueuePushedOut) + drops(.sendQueuePurged) + drops(.sendInterfaceGone)
    // Whoever received the packets has counted them as delivered: here they are lost on the way out.
    check(netisr.drops.snapshot().allSatisfy { $0.interface != interface.index || $0.reason.isOutput }, location)
    #expect(Int(counters.sent) + queue.count + dropped == offered, sourceLocation: location)
    #expect(Int(counters.drops) == dropped, sourceLocation: location)
    #expect(pool.available == buffers - queue.count, sourceLocation: location)
  }
}
