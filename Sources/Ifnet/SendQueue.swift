// What waits to be sent: the classic queue, and what may stand in its place (ALTQ's set_methods).
//
//     prepended (the ring refused them) ─┐
//     priority ──────────────────────────┼─> dequeue
//     normal ────────────────────────────┘      a full queue pushes normal packets out for priority

public import Packet

/// How much a queue takes. Full means that one of the two is reached.
public struct SendLimits: Equatable, Sendable {
  /// Packets.
  public var length: Int
  /// Bytes: 2048 for each packet.
  public var bytes: Int
  /// The length that interfaces without one of their own get.
  public static let standard = 250
  static let longest = 1 << 20
  public init(length: Int, bytes: Int) {
    self.length = length
    self.bytes = bytes
  }
}

/// What an enqueue gave up: freed by the subqueue with their reasons when its lock is open again.
public struct SendRefusals: ~Copyable {
  /// ENOBUFS: there was no room.
  public var refused = PacketFIFO()
  /// Had waited, and made room for a packet of priority.
  public var pushedOut = PacketFIFO()
  public init() {}
}

/// What a discipline is asked beside packets.
public enum SendQueueRequest: Equatable, Sendable {
  /// ALTRQ_PURGE: everything goes into the refusals.
  case purge
  /// The limits have changed.
  case limits(SendLimits)
}

/// A queue discipline other than the classic one. Always called under the subqueue's lock; it must neither block nor
/// call the subqueue.
public protocol SendQueueDiscipline: AnyObject, Sendable {
  /// Packets, and bytes, that wait.
  var count: Int { get }
  var bytes: Int { get }
  /// Takes a packet, or puts it (or others, to make room) into the refusals. Returns whether it was taken.
  func enqueue(_ packet: consuming Packet, priority: Bool, limits: SendLimits, _ refusals: inout SendRefusals) -> Bool
  func dequeue() -> Packet?
  /// ALTDQ_POLL: bytes of the packet that `dequeue` would give; nil for none.
  func poll() -> Int?
  func handle(_ request: SendQueueRequest, _ refusals: inout SendRefusals)
}

/// The classic queue: two rings, priority before normal, and packets that came back in front of both.
struct ClassicQueue: ~Copyable {
  var limits: SendLimits
  private var prepended = PacketFIFO()
  private var priority = PacketFIFO()
  private var normal: PacketFIFO

  init(limits: SendLimits) {
    self.limits = limits
    normal = PacketFIFO(capacity: min(limits.length, 4096))
  }

  var count: Int { prepended.count &+ priority.count &+ normal.count }
  var bytes: Int { prepended.bytes &+ priority.bytes &+ normal.bytes }

  private func isFull(without count: Int = 0, bytes left: Int = 0) -> Bool {
    self.count &- count >= limits.length || bytes &- left >= limits.bytes
  }

  mutating func enqueue(_ packet: consuming Packet, priority isPriority: Bool, _ refusals: inout SendRefusals) -> Bool {
    guard isFull() else {
      if isPriority { priority.append(packet) } else { normal.append(packet) }
      return true
    }
    guard isPriority, makeRoom(&refusals) else {
      refusals.refused.append(packet)
      return false
    }
    priority.append(packet)
    return true
  }

  /// Drops normal packets from the head until there is room; nothing when priority has its half already, or when
  /// all of them would not be enough.
  private mutating func makeRoom(_ refusals: inout SendRefusals) -> Bool {
    guard priority.count < limits.length / 2, priority.bytes < limits.bytes / 2,
      !isFull(without: normal.count, bytes: normal.bytes)
    else { return false }
    while isFull(), let packet = normal.popFirst() { refusals.pushedOut.append(packet) }
    return true
  }

  mutating func dequeue() -> Packet? {
    if let packet = prepended.popFirst() { return packet }
    if let packet = priority.popFirst() { return packet }
    return normal.popFirst()
  }

  func poll() -> Int? { prepended.firstBytes ?? priority.firstBytes ?? normal.firstBytes }

  mutating func prepend(_ packet: consuming Packet) { prepended.prepend(packet) }

  mutating func purge(_ refusals: inout SendRefusals) {
    while let packet = dequeue() { refusals.refused.append(packet) }
  }
}
