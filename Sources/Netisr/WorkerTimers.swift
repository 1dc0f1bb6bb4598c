// A worker's timers: a binary heap by time, and by age among equals.

/// Timers of one worker, touched by it alone.
struct WorkerTimers {
  struct Entry {
    /// Nanoseconds of the dispatcher's clock.
    var at: UInt64
    /// Nanoseconds between runs; 0: once.
    var period: UInt64
    /// Which was scheduled first.
    var order: UInt64
    var token: WorkerToken
    var body: @Sendable () -> Void

    fileprivate func isBefore(_ other: Entry) -> Bool { at != other.at ? at < other.at : order < other.order }
  }

  private var heap: [Entry] = []
  private var orders: UInt64 = 0
  /// Cancelled timers are swept out when the heap has grown to this.
  private var sweepAt = 64

  /// When the next one is due; nil: none.
  var next: UInt64? { heap.first?.at }

  mutating func add(at: UInt64, period: UInt64, token: WorkerToken, _ body: @escaping @Sendable () -> Void) {
    orders += 1
    insert(Entry(at: at, period: period, order: orders, token: token, body: body))
  }

  mutating func insert(_ entry: Entry) {
    if heap.count >= sweepAt { sweep() }
    heap.append(entry)
    var i = heap.count - 1
    while i > 0, heap[i].isBefore(heap[(i - 1) / 2]) {
      heap.swapAt(i, (i - 1) / 2)
      i = (i - 1) / 2
    }
  }

  /// Takes out the first one that is due; cancelled ones are forgotten.
  mutating func popDue(_ now: UInt64) -> Entry? {
    while let first = heap.first, first.at <= now || first.token.isCancelled {
      removeFirst()
      if !first.token.isCancelled { return first }
    }
    return nil
  }

  mutating func removeAll() { heap.removeAll() }

  private mutating func removeFirst() {
    guard let last = heap.popLast(), !heap.isEmpty else { return }
    heap[0] = last
    sink(0)
  }

  private mutating func sink(_ start: Int) {
    var i = start
    while true {
      var least = i
      for child in [2 * i + 1, 2 * i + 2] where child < heap.count && heap[child].isBefore(heap[least]) { least = child }
      if least == i { return }
      heap.swapAt(i, least)
      i = least
    }
  }

  private mutating func sweep() {
    heap.removeAll { $0.token.isCancelled }
    for i in stride(from: heap.count / 2, through: 0, by: -1) where i < heap.count { sink(i) }
    sweepAt = max(64, heap.count * 2)
  }
}
