// Deliveries of an interface, counted by each worker on a cache line of its own.

internal import Synchronization

/// A worker's counter: written by that worker alone, read by anybody.
@safe struct UnsafeDeliveries: @unchecked Sendable {
  /// Workers times eight counters, of which the first counts.
  let base: UnsafeMutablePointer<Atomic<UInt64>>

  @inline(__always) func add(_ count: UInt64, worker: Int) {
    // SAFETY: the ledger that owns the memory outlives the port table that lends it; `worker` is one of its workers.
    let counter = unsafe base + worker &* 8
    unsafe counter.pointee.store(counter.pointee.load(ordering: .relaxed) &+ count, ordering: .relaxed)
  }
}

/// What of an interface's packets reached their end.
@safe final class DeliveryLedger: @unchecked Sendable {
  let slots: UnsafeDeliveries
  private let workers: Int

  init(workers: Int) {
    self.workers = workers
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 64 * max(1, workers), alignment: 64)
    let base = unsafe memory.bindMemory(to: Atomic<UInt64>.self, capacity: 8 * max(1, workers))
    for i in 0..<8 * max(1, workers) { unsafe (base + i).initialize(to: Atomic(0)) }
    unsafe slots = UnsafeDeliveries(base: base)
  }

  deinit { unsafe UnsafeMutableRawPointer(slots.base).deallocate() }

  var total: UInt64 {
    (0..<workers).reduce(0) { unsafe $0 &+ (slots.base + $1 * 8).pointee.load(ordering: .relaxed) }
  }
}
