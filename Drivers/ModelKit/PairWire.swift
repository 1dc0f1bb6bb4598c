// Wires that stay in this process.

/// A cable that leads nowhere: it has carrier, takes every frame, and brings none.
public final class NullWire: ModelWire {
  /// Frames and bytes that went into it.
  public private(set) var frames = 0
  public private(set) var bytes = 0

  public init() {}

  public func transmit(_ frame: UnsafeRawBufferPointer, queue: Int, at now: UInt64) {
    frames += 1
    bytes += frame.count
  }
  public func receive(at now: UInt64, _ body: (UnsafeRawBufferPointer, WireMarks) -> Void) -> Bool { false }
}

/// One end of a cable between two models of one thread.
///
///     model A ── a.transmit ──> queue ──> b.receive ── model B      and the same the other way
///
/// An end that nobody empties loses what does not fit, and counts it, as a cable to a card without
/// buffers would.
public final class PairWire: ModelWire {
  /// Frames in flight in one direction, in buffers that are used again.
  private final class Lane {
    var slots: [[UInt8]]
    var head = 0
    var count = 0
    init(depth: Int) { slots = [[UInt8]](repeating: [], count: max(1, depth)) }
  }

  private let incoming: Lane
  private let outgoing: Lane
  private weak var other: PairWire?
  /// Whether this end is plugged in; the other end sees carrier only while both are.
  public var isPlugged = true
  /// Frames that this end sent and that found no room.
  public private(set) var dropped = 0

  private init(incoming: Lane, outgoing: Lane) {
    self.incoming = incoming
    self.outgoing = outgoing
  }

  /// Both ends of a new cable; keep both.
  /// - Parameter depth: frames in flight in each direction.
  public static func make(depth: Int = 4096) -> (PairWire, PairWire) {
    let there = Lane(depth: depth), back = Lane(depth: depth)
    let a = PairWire(incoming: back, outgoing: there), b = PairWire(incoming: there, outgoing: back)
    a.other = b
    b.other = a
    return (a, b)
  }

  public var isUp: Bool { isPlugged && other?.isPlugged == true }
  /// Frames that wait for this end.
  public var waiting: Int { incoming.count }

  public func transmit(_ frame: UnsafeRawBufferPointer, queue: Int, at now: UInt64) {
    guard isUp, outgoing.count < outgoing.slots.count else {
      dropped += 1
      return
    }
    let slot = (outgoing.head + outgoing.count) % outgoing.slots.count
    outgoing.slots[slot].removeAll(keepingCapacity: true)
    unsafe outgoing.slots[slot].append(contentsOf: frame)
    outgoing.count += 1
  }

  public func receive(at now: UInt64, _ body: (UnsafeRawBufferPointer, WireMarks) -> Void) -> Bool {
    guard incoming.count > 0 else { return false }
    let frame = incoming.slots[incoming.head]
    incoming.head = (incoming.head + 1) % incoming.slots.count
    incoming.count -= 1
    unsafe frame.withUnsafeBytes { unsafe body($0, []) }
    return true
  }

  public var nextArrival: UInt64? { incoming.count > 0 ? 0 : nil }
}
