// The device's side of a split virtqueue (clause 2.7).

import CRingway
import ModelKit

/// One queue as the driver set it up, and how far the device is.
final class VirtioModelQueue {
  let index: Int
  var size: Int
  var vector: UInt16 = 0xffff
  var isEnabled = false
  var descriptors: UInt64 = 0
  /// The available ring.
  var driver: UInt64 = 0
  /// The used ring.
  var device: UInt64 = 0
  /// The next entry of the available ring; free running.
  var taken: UInt16 = 0
  /// The next place in the used ring; free running.
  var used: UInt16 = 0
  /// The used index as last shown.
  var published: UInt16 = 0
  /// Something is to be looked at.
  var isNotified = false
  /// Whether the driver was last told that notifications are wanted; nil: never told.
  var wantsNotification: Bool?
  /// Receive buffers taken off the available ring and not used yet, when order is not kept.
  var held: [UInt16] = []
  /// Interrupts put off (VIRTIO_NET_F_NOTF_COAL): buffers since, and until when.
  var coalesced = 0
  var coalescedUntil: UInt64?

  init(index: Int, capacity: Int) {
    self.index = index
    size = capacity
  }

  func reset(capacity: Int) {
    size = capacity
    vector = 0xffff
    isEnabled = false
    (descriptors, driver, device) = (0, 0, 0)
    (taken, used, published) = (0, 0, 0)
    isNotified = false
    wantsNotification = nil
    held.removeAll(keepingCapacity: true)
    coalesced = 0
    coalescedUntil = nil
  }
}

/// Chains of descriptors as the device read them; used again and again.
struct VirtioModelGather {
  struct Part {
    let address: UInt64
    let count: Int
    let isWritable: Bool
  }
  struct Chain {
    let id: UInt16
    let parts: Range<Int>
    /// Bytes that the device may write, and read.
    let room: Int
    let readable: Int
  }
  var parts: [Part] = []
  var chains: [Chain] = []

  mutating func removeAll() {
    parts.removeAll(keepingCapacity: true)
    chains.removeAll(keepingCapacity: true)
  }
}

extension VirtioNetModel {
  /// How many chains wait on the available ring; 0 when the index makes no sense (a fault).
  func available(_ queue: VirtioModelQueue) -> Int {
    guard queue.isEnabled else { return 0 }
    guard let now = bus.memory.read16(queue.driver + 2) else {
      memoryError("the available ring of queue \(queue.index)")
      return 0
    }
    let waiting = now &- queue.taken
    guard Int(waiting) <= queue.size else {
      fail("available index of queue \(queue.index) moved by \(waiting)")
      return 0
    }
    return Int(waiting)
  }

  /// The head of the chain `ahead` entries from the next one on the available ring.
  func head(_ queue: VirtioModelQueue, ahead: Int) -> UInt16? {
    let slot = (Int(queue.taken) + ahead) & (queue.size - 1)
    guard let id = bus.memory.read16(queue.driver + 4 + UInt64(slot) * 2) else {
      memoryError("the available ring of queue \(queue.index)")
      return nil
    }
    return id
  }

  /// Reads the chain that starts at a descriptor and adds it to `gather`. False when it is broken:
  /// a complaint, and DEVICE_NEEDS_RESET.
  func readChain(_ queue: VirtioModelQueue, head: UInt16) -> Bool {
    let first = gather.parts.count
    var table = queue.descriptors, size = queue.size
    var isIndirect = false
    var at = head
    var room = 0, readable = 0
    // A chain is no longer than the queue (clause 2.7.5.3.1), with or without a table.
    for _ in 0...queue.size {
      guard Int(at) < size else { return fail("descriptor \(at) is outside queue \(queue.index)") }
      let base = table + UInt64(at) * 16
      guard let address = bus.memory.read64(base), let words = bus.memory.read64(base + 8) else {
        return memoryError("the descriptors of queue \(queue.index)")
      }
      let count = Int(words & 0xffff_ffff)
      let flags = UInt16(truncatingIfNeeded: words >> 32)
      if count == 0 { return fail("a descriptor of queue \(queue.index) has length 0") }
      if flags & 4 != 0 {
        guard has(VirtioModelFeature.indirectDescriptors) else {
          return fail("indirect descriptors were not agreed on")
        }
        guard !isIndirect, flags & 1 == 0, count & 15 == 0, address & 15 == 0 else {
          return fail("queue \(queue.index) has a broken indirect descriptor")
        }
        (table, size, isIndirect, at) = (address, count / 16, true, 0)
        continue
      }
      let isWritable = flags & 2 != 0
      if !isWritable, room > 0 { return fail("readable after writable descriptors") }
      if isWritable { room += count } else { readable += count }
      gather.parts.append(VirtioModelGather.Part(address: address, count: count, isWritable: isWritable))
      if flags & 1 == 0 {
        gather.chains.append(
          VirtioModelGather.Chain(id: head, parts: first..<gather.parts.count, room: room, readable: readable))
        return true
      }
      at = UInt16(truncatingIfNeeded: words >> 48)
    }
    return fail("a chain of queue \(queue.index) has no end")
  }

  @discardableResult func fail(_ text: @autoclosure () -> String) -> Bool {
    complain(text())
    needReset()
    return false
  }

  /// Memory that could not be reached: behind an IOMMU, a driver's mistake.
  @discardableResult func memoryError(_ what: @autoclosure () -> String) -> Bool {
    counters.memoryErrors += 1
    let address = String(bus.memory.lastFault, radix: 16)
    return fail("\(what()): memory that is not mapped, at 0x\(address)")
  }

  /// Puts a chain on the used ring; `publish` shows it.
  func use(_ queue: VirtioModelQueue, _ id: UInt16, count: Int) {
    var wide = UInt32(id)
    var length = UInt32(truncatingIfNeeded: count)
    var times = 1
    switch takeMisdeed(queue.index) {
    case .id(let value): wide = value
    case .length(let value): length = value
    case .duplicate: times = 2
    case .indexJump(let by): queue.used &+= by
    case .bufferCount, nil: break
    }
    for _ in 0..<times {
      let at = queue.device + 4 + UInt64(Int(queue.used) & (queue.size - 1)) * 8
      guard bus.memory.write32(wide, at: at), bus.memory.write32(length, at: at + 4) else {
        memoryError("the used ring of queue \(queue.index)")
        return
      }
      queue.used &+= 1
    }
  }

  /// Shows the driver what was used, and interrupts it if it wants to know (clause 2.7.10).
  func publish(_ queue: VirtioModelQueue) {
    let old = queue.published, new = queue.used
    guard queue.isEnabled, old != new else { return }
    queue.published = new
    guard bus.memory.write16(new, at: queue.device + 2) else {
      memoryError("the used ring of queue \(queue.index)")
      return
    }
    // The driver's wish is read after the index is visible.
    rw_fence()
    let isWanted: Bool
    if has(VirtioModelFeature.eventIndex) {
      let event = bus.memory.read16(queue.driver + 4 + UInt64(queue.size) * 2) ?? 0
      // The event lies in old ..< new.
      isWanted = new &- event &- 1 < new &- old
    } else {
      isWanted = (bus.memory.read16(queue.driver) ?? 0) & 1 == 0
    }
    if isWanted { interrupt(queue, buffers: Int(new &- old)) }
  }

  /// Says whether the driver should notify (clause 2.7.7). With shared doorbells never: nobody would
  /// hear it.
  /// - Returns: whether chains came while notifications were unwanted.
  @discardableResult func offerNotification(_ queue: VirtioModelQueue, _ isWanted: Bool) -> Bool {
    let isWanted = isWanted && !bus.sharesDoorbells
    if has(VirtioModelFeature.eventIndex) {
      let event = isWanted ? queue.taken : queue.taken &- 1
      bus.memory.write16(event, at: queue.device + 4 + UInt64(queue.size) * 8)
    } else if queue.wantsNotification != isWanted {
      bus.memory.write16(isWanted ? 0 : 1, at: queue.device)
    }
    queue.wantsNotification = isWanted
    guard isWanted else { return false }
    rw_fence()
    return available(queue) > 0
  }

  /// Raises the queue's interrupt, now or when enough has come together (clause 5.1.6.5.8).
  private func interrupt(_ queue: VirtioModelQueue, buffers: Int) {
    let wish = queue.index & 1 == 0 ? filter.receiveCoalescing : filter.transmitCoalescing
    guard wish.microseconds > 0 || wish.packets > 1, !isControl(queue) else {
      return raise(vector: queue.vector, cause: 1)
    }
    queue.coalesced += buffers
    if wish.packets > 0, queue.coalesced >= wish.packets { return endCoalescing(queue) }
    if queue.coalescedUntil == nil { queue.coalescedUntil = bus.now &+ UInt64(wish.microseconds) * 1000 }
  }

  private func endCoalescing(_ queue: VirtioModelQueue) {
    queue.coalesced = 0
    queue.coalescedUntil = nil
    raise(vector: queue.vector, cause: 1)
  }

  /// Interrupts whose time has come. Returns how many.
  func endCoalescing() -> Int {
    var raised = 0
    for queue in queues {
      guard let until = queue.coalescedUntil, until <= bus.now else { continue }
      endCoalescing(queue)
      raised += 1
    }
    return raised
  }
}

/// Where the driver has put a queue, as pointers: for a device's side that is cheaper than this model.
@unsafe public struct VirtioModelPlace {
  public let descriptors: UnsafeMutableRawPointer
  public let available: UnsafeMutableRawPointer
  public let used: UnsafeMutableRawPointer
  public let size: Int
}

extension VirtioNetModel {
  /// nil when the queue is not enabled.
  @unsafe public func place(ofQueue index: Int) -> VirtioModelPlace? {
    let queue = queues[index]
    let memory = bus.memory
    guard queue.isEnabled,
      let descriptors = unsafe memory.pointer(queue.descriptors, queue.size * 16, writing: false),
      let available = unsafe memory.pointer(queue.driver, 6 + queue.size * 2, writing: false),
      let used = unsafe memory.pointer(queue.device, 6 + queue.size * 8, writing: true)
    else { return nil }
    return unsafe VirtioModelPlace(descriptors: descriptors, available: available, used: used, size: queue.size)
  }
}
