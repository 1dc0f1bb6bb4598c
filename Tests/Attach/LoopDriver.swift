// A card whose transmitter is plugged into its receiver, and which notices who comes when he should not.

import DMAMemory
import DeviceIO
import DriverKit
import NetmapCore
import Packet
import Platform
import Synchronization
import Wire

/// What a loop card has seen, over all its drivers.
final class LoopWitness: Sendable {
  /// Queue calls that ran while a control call did, the other way round, or on two threads at once.
  let clashes = Atomic<Int>(0)
  let sends = Atomic<Int>(0)
  let received = Atomic<Int>(0)
  let arms = Atomic<Int>(0)
  let starts = Atomic<Int>(0)
  /// The ring takes nothing.
  let isStalled = Atomic(false)
  let inQueues = Atomic<Int>(0)
  let inControl = Atomic<Int>(0)
}

/// The queues are their owners', as those of every driver.
@safe final class LoopDriver: NetDriver, @unchecked Sendable {
  static let driverName = "loop"
  static let interfacePrefix = "lp"
  static let matches: [PCIMatch] = []

  private final class Queue {
    var frames: [UInt] = []
    let busy = Atomic(false)
    let event = try! EventFD()
    var isArmed = false
  }
  let options: PortOptions
  let capabilities: DriverCapabilities = [.jumboFrames, .multicastFilter, .setMACAddress]
  var macAddress = MACAddress(2, 0, 0, 0, 0, 7)
  var queueCount: Int { options.queues }
  var link = LinkState(status: .up, speed: 10000)
  var health = PortHealth.stopped
  var maximumFrame: Int { options.mtu + 18 }
  let witness: LoopWitness
  private let queues: [Queue]
  private let control = try! EventFD()
  private let room = 32

  init(_ options: PortOptions, _ witness: LoopWitness) {
    self.options = options
    self.witness = witness
    queues = (0..<options.queues).map { _ in Queue() }
  }
  init(_ function: CardFunction, allocator: NetmapAllocator, options: PortOptions, clock: any TimeSource)
    throws(DriverError)
  {
    throw .unsupported(card: function.name, what: "a loop has no function")
  }
  deinit { stop() }

  private func asQueue<T>(_ i: Int, _ body: (Queue) -> T) -> T {
    let queue = queues[i]
    if queue.busy.exchange(true, ordering: .acquiringAndReleasing) { witness.clashes.wrappingAdd(1, ordering: .relaxed) }
    witness.inQueues.wrappingAdd(1, ordering: .sequentiallyConsistent)
    if witness.inControl.load(ordering: .sequentiallyConsistent) != 0 { witness.clashes.wrappingAdd(1, ordering: .relaxed) }
    defer {
      witness.inQueues.wrappingSubtract(1, ordering: .sequentiallyConsistent)
      queue.busy.store(false, ordering: .releasing)
    }
    return body(queue)
  }

  private func asControl<T>(_ body: () -> T) -> T {
    if witness.inControl.wrappingAdd(1, ordering: .sequentiallyConsistent).newValue != 1 { witness.clashes.wrappingAdd(1, ordering: .relaxed) }
    if witness.inQueues.load(ordering: .sequentiallyConsistent) != 0 { witness.clashes.wrappingAdd(1, ordering: .relaxed) }
    defer { witness.inControl.wrappingSubtract(1, ordering: .sequentiallyConsistent) }
    return body()
  }

  func start(pools: [PacketPool]) throws(DriverError) {
    asControl {
      health = .running
      witness.starts.wrappingAdd(1, ordering: .relaxed)
    }
  }
  func stop() {
    asControl {
      for queue in queues {
        for frame in queue.frames { if let raw = unsafe RawPacket(bitPattern: frame) { unsafe PoolState.put(raw) } }
        queue.frames = []
      }
      health = .stopped
    }
  }
  func receive(queue: Int, into batch: inout PacketBatch, max: Int) -> Int {
    asQueue(queue) { queue in
      var n = 0
      while n < max, batch.room > 0, let frame = queue.frames.first, let raw = unsafe RawPacket(bitPattern: frame) {
        queue.frames.removeFirst()
        _ = unsafe batch.append(Packet(unsafe: raw))
        n += 1
      }
      witness.received.wrappingAdd(n, ordering: .relaxed)
      return n
    }
  }
  func send(queue: Int, _ batch: inout PacketBatch) -> Int {
    asQueue(queue) { queue in
      var n = 0
      let taken = unsafe batch.drain { slots, count in
        while n < count, queue.frames.count < room, !witness.isStalled.load(ordering: .relaxed) {
          queue.frames.append(UInt(bitPattern: unsafe slots[n]))
          n += 1
        }
        return n
      }
      witness.sends.wrappingAdd(taken, ordering: .relaxed)
      if queue.isArmed { queue.event.signal() }
      return taken
    }
  }
  func reclaim(queue: Int) { asQueue(queue) { _ in } }
  func eventDescriptor(queue: Int) -> Int32 { queues[queue].event.descriptor }
  var controlDescriptor: Int32 { control.descriptor }
  func armInterrupt(queue: Int) -> Bool {
    asQueue(queue) { queue in
      witness.arms.wrappingAdd(1, ordering: .relaxed)
      queue.isArmed = true
      return !queue.frames.isEmpty
    }
  }
  func maskInterrupt(queue: Int) { asQueue(queue) { $0.isArmed = false } }
  func serviceControl() -> DriverEvents { asControl { [] } }
  func tick() -> DriverEvents { asControl { [.reset] } }
  func setReceiveFilter(_ filter: ReceiveFilter) throws(DriverError) { asControl {} }
  func setMACAddress(_ address: MACAddress) throws(DriverError) { asControl { macAddress = address } }
  func statistics() -> [Statistic] { asControl { [Statistic("rx_missed_errors", 0)] } }
}
