// A worker's side of its work streams: batches out of them, and purges.

internal import Packet
internal import Synchronization

extension Worker {
  /// Handles what is queued: passes over the protocols that have something, lowest number first, until
  /// nothing is left or `max` packets are done. Returns how many.
  func runPackets(max: Int) -> Int {
    // A handler that makes its thread this worker again (a manual dispatcher's does) finds it busy.
    guard unsafe !block.pointee.isRunning else { return 0 }
    var total = 0
    while total < max {
      guard unsafe block.pointee.pending.load(ordering: .relaxed) != 0 else { break }
      var marks = unsafe block.pointee.pending.exchange(0, ordering: .sequentiallyConsistent)
      atomicMemoryFence(ordering: .sequentiallyConsistent)
      var done = 0
      unsafe block.pointee.isRunning = true
      while marks != 0 {
        done += runBatch(marks.trailingZeroBitCount)
        marks &= marks &- 1
      }
      unsafe block.pointee.isRunning = false
      total += done
      // Nothing but packets that a producer is about to hand over: later.
      if done == 0 { break }
    }
    return total
  }

  /// Handles a protocol's whole queue. Returns how many packets it had.
  private func runBatch(_ proto: Int) -> Int {
    let stream = unsafe block.pointee.streams + proto, batch = unsafe block.pointee.batch
    let drained = unsafe stream.pointee.drain(into: batch)
    if !drained.isWhole { unsafe block.pointee.pending.bitwiseOr(1 << UInt32(proto), ordering: .sequentiallyConsistent) }
    let count = drained.count
    guard count > 0 else { return 0 }
    let slot = unsafe shared.slots + proto
    guard let raw = unsafe slot.pointee.entry.load(ordering: .acquiring) else {
      for i in 0..<count { unsafe shared.drop(QueuedPacket(word: batch[i]).record, proto, .netisrUnregistered) }
      unsafe stream.pointee.count(purged: count)
      return count
    }
    unsafe Unmanaged<HandlerEntry>.fromOpaque(raw)._withUnsafeGuaranteedRef { entry in
      let handled = unsafe handle(entry, batch, count, slot, proto)
      // A handler may have taken itself away meanwhile: then its counters have started anew.
      guard unsafe slot.pointee.entry.load(ordering: .relaxed) == raw else { return }
      if handled > 0 { entry.drainedcpu?(id) }
      unsafe stream.pointee.count(handled: handled)
      unsafe stream.pointee.count(purged: count - handled)
    }
    return count
  }

  /// Hands the packets to the handler; those of a stack instance that was disabled since are dropped.
  private func handle(
    _ entry: HandlerEntry, _ batch: UnsafeMutablePointer<UInt>, _ count: Int, _ slot: UnsafeMutablePointer<HandlerSlot>,
    _ proto: Int
  ) -> Int {
    var handled = 0, i = 0
    while i < count {
      let packet = unsafe QueuedPacket(word: batch[i])
      i &+= 1
      if unsafe _slowPath(slot.pointee.isDisabledSomewhere), unsafe slot.pointee.isDisabled(packet.vnet) {
        unsafe shared.drop(packet.record, proto, .netisrPurged)
        continue
      }
      handled &+= 1
      unsafe entry.handler(Packet(unsafe: packet.record))
    }
    return handled
  }

  /// Frees the queued packets that `remove` names; the others keep their order. On this worker.
  func purge(_ proto: Int, _ remove: (QueuedPacket) -> Bool) {
    let stream = unsafe block.pointee.streams + proto
    // The batch is in use while one is handled.
    let capacity = unsafe max(1, stream.pointee.length)
    let removed = UnsafeMutablePointer<UInt>.allocate(capacity: capacity)
    defer { unsafe removed.deallocate() }
    let count = unsafe stream.pointee.purge(into: removed, most: capacity, remove)
    for i in 0..<count { unsafe shared.drop(QueuedPacket(word: removed[i]).record, proto, .netisrPurged) }
    // A queue that was emptied has no mark; one that was filled meanwhile gets it back.
    let bit = UInt32(1) << UInt32(proto)
    guard unsafe stream.pointee.length == 0 else { return }
    unsafe block.pointee.pending.bitwiseAnd(~bit, ordering: .sequentiallyConsistent)
    atomicMemoryFence(ordering: .sequentiallyConsistent)
    if unsafe stream.pointee.length != 0 { unsafe block.pointee.pending.bitwiseOr(bit, ordering: .sequentiallyConsistent) }
  }
}
