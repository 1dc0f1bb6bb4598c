// The memory of all queues: made at attach, given back when the driver goes away.

import DMAMemory
import DriverKit
import NetmapCore
import Platform
import VirtioTransport

/// Both directions of one queue pair, at a fixed address.
struct QueuePair: ~Copyable {
  var receive: ReceiveQueue
  var transmit: TransmitQueue
}

/// Owns the queues and their descriptor memory. The device is quiet before this goes away.
@safe final class QueueSet {
  private let allocator: NetmapAllocator
  private let mapper: any DMAMapper
  private let card: String
  let pairs: UnsafeMutablePointer<QueuePair>
  private(set) var count = 0
  /// nil without a control queue.
  let control: UnsafeMutablePointer<ControlQueue>?
  private var memories: [DescriptorMemory] = []
  /// Three descriptors a command, one command at a time.
  static let controlSize = 4

  /// - Parameter mapper: the card, attached to `allocator`.
  init(_ probe: VirtioNetProbe, pairs wanted: Int, allocator: NetmapAllocator, mapper: any DMAMapper, card: String)
    throws(DriverError)
  {
    self.allocator = allocator
    self.mapper = mapper
    self.card = card
    unsafe pairs = .allocate(capacity: wanted)
    let hasControl = probe.controlIndex != nil
    unsafe control = hasControl ? .allocate(capacity: 1) : nil
    if let control = unsafe control {
      let queue = try makeQueue(Self.controlSize)
      let memory = try take(ControlQueue.memoryCount)
      unsafe control.initialize(to: ControlQueue(queue: queue, unsafe: memory.pointer, address: memory.iova))
      controlReady = true
    }
    for i in 0..<wanted {
      let receive = ReceiveQueue(queue: try makeQueue(probe.receiveSize))
      let queue = try makeQueue(probe.transmitSize)
      let headers = try take(TransmitQueue.headerCount(size: probe.transmitSize))
      let transmit = unsafe TransmitQueue(queue: queue, unsafe: headers.pointer, headerBase: headers.iova.rawValue)
      unsafe (pairs + i).initialize(to: QueuePair(receive: receive, transmit: transmit))
      count = i + 1
    }
  }
  private var controlReady = false

  private func take(_ bytes: Int) throws(DriverError) -> DescriptorMemory {
    do {
      let memory = try allocator.allocateDescriptors(bytes: bytes, alignment: 64, owner: mapper)
      memories.append(memory)
      return memory
    } catch { throw .allocator("\(error)") }
  }

  private func makeQueue(_ size: Int) throws(DriverError) -> SplitQueue {
    guard let layout = SplitLayout(size: size) else {
      throw .device(card: card, problem: "it wants a ring of \(size) descriptors")
    }
    let memory = try take(layout.count)
    addresses.append(layout.addresses(at: memory.iova))
    return unsafe SplitQueue(unsafe: memory.pointer, layout: layout)
  }

  /// Where the queues lie, in the order in which they were made: control (if any), then receive
  /// and transmit of each pair.
  private(set) var addresses: [QueueAddresses] = []
  var controlAddresses: QueueAddresses { addresses[0] }
  func addresses(pair: Int, transmit: Bool) -> QueueAddresses {
    addresses[(controlReady ? 1 : 0) + 2 * pair + (transmit ? 1 : 0)]
  }

  /// Every buffer goes back to its pool. Only while the device is quiet.
  func releaseBuffers() {
    for i in 0..<count {
      unsafe pairs[i].receive.releaseAll()
      unsafe pairs[i].transmit.releaseAll()
    }
  }

  /// Gives the descriptor memory back. Only while the device is quiet; the queues are of no use
  /// afterwards.
  func releaseMemory() {
    for memory in memories { memory.release() }
    memories = []
  }

  deinit {
    unsafe pairs.deinitialize(count: count)
    unsafe pairs.deallocate()
    if let control = unsafe control {
      if controlReady { unsafe control.deinitialize(count: 1) }
      unsafe control.deallocate()
    }
    releaseMemory()
  }
}

/// An eventfd that several vectors may share.
final class SharedEvent {
  let event: EventFD
  var descriptor: Int32 { event.descriptor }
  init() throws(SystemError) { event = try EventFD() }
}

/// The eventfds behind the device's interrupts: one for configuration changes, then one a vector.
final class InterruptSet {
  /// In the order of vectors; empty when the device has none.
  private let events: [SharedEvent]
  /// Signalled by nobody: what a device without interrupts is waited for on.
  private let silent: SharedEvent

  init(queues: Int, vectors: Int, card: String) throws(DriverError) {
    do {
      silent = try SharedEvent()
      var events: [SharedEvent] = []
      for _ in 0..<min(vectors, queues + 1) { events.append(try SharedEvent()) }
      self.events = events
    } catch { throw .allocator("\(card): \(error)") }
  }

  var descriptors: [Int32] { events.map(\.descriptor) }
  var controlVector: Int? { events.isEmpty ? nil : 0 }
  /// Vector 0 is shared when there is no other; further ones are shared when they are too few.
  func vector(queue: Int) -> Int? {
    switch events.count {
    case 0: nil
    case 1: 0
    default: 1 + queue % (events.count - 1)
    }
  }
  var control: Int32 { (events.first ?? silent).descriptor }
  func descriptor(queue: Int) -> Int32 { (vector(queue: queue).map { events[$0] } ?? silent).descriptor }
}
