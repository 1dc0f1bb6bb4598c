// Which send queue a worker uses, and how many rings are worth having (ifq_map_subq, if_ring_count2).

internal import Netisr
public import Packet
internal import Synchronization

/// Which subqueue a worker sends through.
public enum SubqueueMap: Equatable, Sendable {
  /// The first, whoever sends: the default.
  case first
  /// `worker & (2^n - 1)`.
  case mask(Int)
  /// `worker % count`.
  case modulo

  /// The index of the worker's subqueue among `count`.
  public func index(worker: Int, count: Int) -> Int {
    switch self {
    case .first: 0
    case .mask(let mask): min(worker & mask, max(0, count - 1))
    case .modulo: count > 1 ? worker % count : 0
    }
  }

  var packed: Int {
    switch self {
    case .first: 0
    case .mask(let mask): mask
    case .modulo: -1
    }
  }
  init(packed: Int) { self = packed == 0 ? .first : packed < 0 ? .modulo : .mask(packed) }
}

/// What the send path keeps for an interface beside its subqueues.
final class SendPath: Sendable {
  let map = Atomic<Int>(0)
  let serializer: any InterfaceSerializer
  /// - Parameter serializer: the driver's; nil takes one lock for all of it.
  init(_ serializer: (any InterfaceSerializer)?) { self.serializer = serializer ?? LockSerializer() }
}

extension Interface {
  /// How workers choose their subqueue; set by the driver.
  public var subqueueMap: SubqueueMap {
    get { SubqueueMap(packed: path.map.load(ordering: .relaxed)) }
    set { path.map.store(newValue.packed, ordering: .relaxed) }
  }

  /// What keeps callers of the driver apart.
  public var serializer: any InterfaceSerializer { path.serializer }

  /// The subqueue of the calling worker; a thread that is no worker uses worker 0's.
  public var currentSubqueue: Subqueue {
    let queues = subqueues
    guard queues.count > 1 else { return queues[0] }
    return queues[subqueueMap.index(worker: Worker.current?.id ?? 0, count: queues.count)]
  }

  /// Throws away what waits in every subqueue.
  public func purgeSubqueues(_ reason: DropReason = .sendQueuePurged) { for subqueue in subqueues { subqueue.purge(reason) } }

  /// The end of the send path, in detach: watchdogs stopped, stages taken off on every worker, what waits dropped.
  /// What is sent from now on is dropped.
  public func detachSubqueues() { for subqueue in subqueues { subqueue.detach() } }

  /// How many rings a card should use (if_ring_count2).
  /// - Parameters:
  ///   - count: wanted; 0 or less takes `maximum`.
  ///   - maximum: what the card has: a power of two.
  /// - Returns: a power of two, at most the workers and the maximum; nil when the maximum is no power of two.
  public static func ringCount(_ count: Int, maximum: Int, workers: Int) -> Int? {
    guard maximum > 0, maximum & (maximum - 1) == 0 else { return nil }
    var rings = min(count <= 0 ? maximum : count, workers, maximum)
    rings = max(1, rings)
    while rings & (rings - 1) != 0 { rings &= rings - 1 }
    return rings
  }
}

