// The device's side of a split virtqueue (clause 2.7).

import CRingway

/// One queue as the driver set it up, and how far the device is.
final class VirtioModelQueue {
  var size: Int
  var vector: UInt16 = 0xffff
  var isEnabled = false
  var descriptors: UInt64 = 0
  var driver: UInt64 = 0
  var device: UInt64 = 0
  /// The next entry of the available ring; free running.
  var taken: UInt16 = 0
  /// The used index as last published.
  var published: UInt16 = 0
  /// Receive buffers taken off the available ring and not used yet.
  var held: [VirtioModelChain] = []
  /// The next place in the used ring.
  var used: UInt16 = 0

  init(capacity: Int) { size = capacity }
}

/// A chain of descriptors, as the device read it.
struct VirtioModelChain {
  struct Part {
    let address: UInt64
    let count: Int
    let isWritable: Bool
  }
  let id: UInt16
  let parts: [Part]
}

extension VirtioNetModel {
  /// The next chain of a queue; nil when there is none, or when it is broken (a complaint, and
  /// DEVICE_NEEDS_RESET, as QEMU does).
  func takeChain(_ index: Int) -> VirtioModelChain? {
    let queue = queues[index]
    guard queue.isEnabled, busMaster, let available = memory.read16(queue.driver + 2) else { return nil }
    let waiting = available &- queue.taken
    guard waiting != 0 else { return nil }
    guard Int(waiting) <= queue.size else { return fail("available index of queue \(index) moved by \(waiting)") }
    let slot = UInt64(Int(queue.taken) & (queue.size - 1))
    guard let id = memory.read16(queue.driver + 4 + slot * 2) else { return nil }
    var parts: [VirtioModelChain.Part] = []
    var at = id
    while true {
      guard Int(at) < queue.size else { return fail("descriptor \(at) is outside queue \(index)") }
      guard parts.count < queue.size else { return fail("a chain of queue \(index) has no end") }
      let base = queue.descriptors + UInt64(at) * 16
      guard let address = memory.read64(base), let words = memory.read64(base + 8) else { return nil }
      let count = Int(words & 0xffff_ffff)
      let flags = UInt16(truncatingIfNeeded: words >> 32)
      if count == 0 { return fail("a descriptor of queue \(index) has length 0") }
      if flags & 4 != 0 { return fail("indirect descriptors were not agreed on") }
      if unsafe memory.pointer(address, count) == nil {
        return fail("queue \(index) names unmapped memory at 0x\(String(address, radix: 16))")
      }
      if flags & 2 == 0, parts.contains(where: \.isWritable) { return fail("readable after writable descriptors") }
      parts.append(VirtioModelChain.Part(address: address, count: count, isWritable: flags & 2 != 0))
      if flags & 1 == 0 { break }
      at = UInt16(truncatingIfNeeded: words >> 48)
    }
    queue.taken &+= 1
    return VirtioModelChain(id: id, parts: parts)
  }

  private func fail(_ text: String) -> VirtioModelChain? {
    complain(text)
    needReset()
    return nil
  }

  /// How many chains wait.
  func available(_ index: Int) -> Int {
    guard queues[index].isEnabled, let now = memory.read16(queues[index].driver + 2) else { return 0 }
    return Int(now &- queues[index].taken)
  }

  /// Puts a chain on the used ring; `publish` shows it.
  func use(_ index: Int, _ id: UInt16, count: Int) {
    let queue = queues[index]
    var wide = UInt32(id)
    var length = UInt32(count)
    var times = 1
    switch faults[index]?.first {
    case .id(let value): wide = value
    case .length(let value): length = value
    case .duplicate: times = 2
    case .indexJump(let by):
      queue.used &+= by
    case .bufferCount, nil: break
    }
    if case .bufferCount? = faults[index]?.first {} else if faults[index]?.isEmpty == false { faults[index]?.removeFirst() }
    for _ in 0..<times {
      let at = queue.device + 4 + UInt64(Int(queue.used) & (queue.size - 1)) * 8
      memory.write32(at, wide)
      memory.write32(at + 4, length)
      queue.used &+= 1
    }
  }

  /// Shows the driver what was used, says when the device wants to be notified again, and raises
  /// the interrupt if the driver wants one (clauses 2.7.7 and 2.7.10).
  func publish(_ index: Int) {
    let queue = queues[index]
    guard queue.isEnabled, busMaster else { return }
    let old = queue.published
    let new = queue.used
    queue.published = new
    memory.write16(queue.device + 2, new)
    if has(VirtioModelFeature.eventIndex) {
      memory.write16(queue.device + 4 + UInt64(queue.size) * 8, queue.taken)
    }
    guard old != new else { return }
    let wanted: Bool
    if has(VirtioModelFeature.eventIndex) {
      let event = memory.read16(queue.driver + 4 + UInt64(queue.size) * 2) ?? 0
      // The event lies in old ..< new.
      wanted = new &- event &- 1 < new &- old
    } else {
      wanted = (memory.read16(queue.driver) ?? 0) & 1 == 0
    }
    if wanted { raise(vector: queue.vector) }
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
    guard queue.isEnabled, let descriptors = unsafe memory.pointer(queue.descriptors, queue.size * 16),
      let available = unsafe memory.pointer(queue.driver, 6 + queue.size * 2),
      let used = unsafe memory.pointer(queue.device, 6 + queue.size * 8)
    else { return nil }
    return unsafe VirtioModelPlace(descriptors: descriptors, available: available, used: used, size: queue.size)
  }
}
