// Two ports joined: what one receives, the other sends, in the same buffers.
//
//        a ──receive──> batch ──send──> b
//        a <──send── batch <──receive── b
//
// When the other card's ring is full, the packets stay in their batch and the receiving ring takes
// the load; a ring that makes no room for `patience` is given up, and what does not fit is
// dropped and counted until it moves again.

internal import CRingway
internal import Packet

/// One direction's totals. Any thread may read them while the forwarder runs.
public struct ForwardCounts: Equatable, Sendable {
  public var receivedPackets: UInt64 = 0
  public var receivedBytes: UInt64 = 0
  public var sentPackets: UInt64 = 0
  public var sentBytes: UInt64 = 0
  /// Received, and lost because the other card took none.
  public var dropped: UInt64 = 0

  public init() {}
}

/// Figures of both directions, written by the forwarder and read by anybody.
@safe public final class ForwarderMonitor: @unchecked Sendable {
  private let words: UnsafeMutablePointer<UInt64>
  private static let fields = 5

  init() {
    unsafe words = .allocate(capacity: 2 * Self.fields)
    unsafe words.initialize(repeating: 0, count: 2 * Self.fields)
  }

  deinit { unsafe words.deallocate() }

  // SAFETY of both: `direction` is 0 or 1, so five words from there are inside; single loads and
  // stores of 64 bits do not tear.
  func store(_ counts: ForwardCounts, direction: Int) {
    let at = unsafe words + direction * Self.fields
    unsafe rw_store_relaxed64(at, counts.receivedPackets)
    unsafe rw_store_relaxed64(at + 1, counts.receivedBytes)
    unsafe rw_store_relaxed64(at + 2, counts.sentPackets)
    unsafe rw_store_relaxed64(at + 3, counts.sentBytes)
    unsafe rw_store_relaxed64(at + 4, counts.dropped)
  }

  private func load(direction: Int) -> ForwardCounts {
    let at = unsafe words + direction * Self.fields
    var counts = ForwardCounts()
    unsafe counts.receivedPackets = rw_load_relaxed64(at)
    unsafe counts.receivedBytes = rw_load_relaxed64(at + 1)
    unsafe counts.sentPackets = rw_load_relaxed64(at + 2)
    unsafe counts.sentBytes = rw_load_relaxed64(at + 3)
    unsafe counts.dropped = rw_load_relaxed64(at + 4)
    return counts
  }

  /// From the first port to the second.
  public var forward: ForwardCounts { load(direction: 0) }
  /// From the second port to the first.
  public var backward: ForwardCounts { load(direction: 1) }
}

/// Forwards every frame between two ports that share their memory.
public struct Forwarder: ~Copyable, PortWork {
  private let a: Port
  private let b: Port
  private let queues: Int
  private var forward: Direction
  private var backward: Direction
  public let monitor = ForwarderMonitor()

  /// - Parameters:
  ///   - batch: packets moved at a time.
  ///   - patience: nanoseconds that a full ring may stand still before packets are dropped. The default
  ///     outlasts a virtual card whose host is busy; a pause that long on a real one means that it is stuck.
  public init(_ a: Port, _ b: Port, batch: Int = 32, patience: UInt64 = 250_000_000) throws(RingwayError) {
    guard a.memory === b.memory else {
      throw .option(name: "the second port's memory", value: "its own", allowed: "the memory of the first port")
    }
    self.a = a
    self.b = b
    queues = min(a.queueCount, b.queueCount)
    forward = Direction(batch: batch, patience: patience)
    backward = Direction(batch: batch, patience: patience)
  }

  public mutating func round(now: UInt64) -> Int {
    var moved = 0
    var queue = 0
    while queue < queues {
      moved &+= forward.move(from: a, to: b, queue: queue, now: now)
      moved &+= backward.move(from: b, to: a, queue: queue, now: now)
      queue &+= 1
    }
    return moved
  }

  /// With packets that wait for room the loop does not sleep: no interrupt would tell of room.
  public func rest(now: UInt64) -> UInt64? { forward.isWaiting || backward.isWaiting ? 20_000 : nil }

  public mutating func publish() {
    monitor.store(forward.counts, direction: 0)
    monitor.store(backward.counts, direction: 1)
  }

  /// Queues of both ports that are served: the smaller of their numbers.
  public var queueCount: Int { queues }
}

/// One way between two ports.
private struct Direction: ~Copyable {
  var batch: PacketBatch
  var counts = ForwardCounts()
  let patience: UInt64
  /// The queue whose packets are in the batch.
  private var queue = 0
  /// When the other ring last took something; 0 when it is not waited for.
  private var waitingSince: UInt64 = 0
  /// The other ring was given up: drop until it moves.
  private var stuck = false

  init(batch: Int, patience: UInt64) {
    self.batch = PacketBatch(capacity: batch)
    self.patience = patience
  }

  var isWaiting: Bool { !batch.isEmpty }

  @inline(__always)
  mutating func move(from source: Port, to target: Port, queue: Int, now: UInt64) -> Int {
    if batch.isEmpty {
      let n = source.receive(queue: queue, into: &batch)
      if n == 0 { return 0 }
      self.queue = queue
      counts.receivedPackets &+= UInt64(n)
      counts.receivedBytes &+= bytes()
    } else if self.queue != queue {
      return 0
    }
    let before = bytes()
    let sent = target.send(queue: queue, &batch)
    counts.sentPackets &+= UInt64(sent)
    counts.sentBytes &+= before &- (batch.isEmpty ? 0 : bytes())
    if !batch.isEmpty { return sent &+ wait(sent: sent, now: now) }
    waitingSince = 0
    stuck = false
    return sent
  }

  /// The ring is full. Returns how many packets were given up.
  private mutating func wait(sent: Int, now: UInt64) -> Int {
    if sent > 0 || waitingSince == 0 { waitingSince = now | 1 }
    if sent > 0 { stuck = false }
    // `waitingSince` may be one nanosecond ahead: 0 means that nothing waits.
    if !stuck && (now <= waitingSince || now &- waitingSince < patience) { return 0 }
    stuck = true
    let lost = batch.count
    counts.dropped &+= UInt64(lost)
    batch.removeAll()
    return lost
  }

  @inline(__always) private func bytes() -> UInt64 {
    var total: UInt64 = 0
    batch.forEach { total &+= UInt64($0.count) }
    return total
  }
}
