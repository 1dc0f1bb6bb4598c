// A split virtqueue's driver side: the free-running indexes, and when each side wants to hear.
//
//   post:  setDescriptor, setAvailable(next), next += 1 ...   then publish once, which notifies
//   take:  look -> n; usedElement(taken) ... taken += 1
//
// The queue's owner keeps a private shadow of what lies on each descriptor, and checks with it the
// ids that come back. The queue itself checks how far the device moves its index: it can only use
// what was published.

public import CRingway

/// Why a queue is not used any more.
@frozen public enum VirtioQueueFault: UInt8, Sendable, CustomStringConvertible {
  case none
  /// The used index moved further than there are buffers with the device.
  case usedIndex
  /// A used element names a descriptor outside the ring.
  case idOutOfRange
  /// A used element names a descriptor that the device does not hold: completed twice, or never posted.
  case notPosted
  /// A used length that does not fit the buffer.
  case length
  /// A frame that claims more buffers than the ring has, or none.
  case bufferCount

  public var description: String {
    switch self {
    case .none: "no fault"
    case .usedIndex: "its used index moved past what was posted"
    case .idOutOfRange: "it returned a descriptor outside the ring"
    case .notPosted: "it returned a descriptor that it did not hold"
    case .length: "it reported a length that does not fit the buffer"
    case .bufferCount: "it reported a frame over an impossible number of buffers"
    }
  }
}

/// The driver's side of one split virtqueue. Owned by one thread.
@frozen @safe public struct SplitQueue: ~Copyable {
  public let ring: SplitRing
  public let layout: SplitLayout
  /// VIRTIO_F_EVENT_IDX was negotiated.
  public var usesEventIndex = false
  public var notifier = VirtioNotifier.none
  /// Where the next chain goes on the available ring; free running.
  public var next: UInt16 = 0
  /// What the device has been shown.
  public var published: UInt16 = 0
  /// The next used element to take; free running.
  public var taken: UInt16 = 0
  /// Not `none`: the device misbehaved, and the queue stays silent until it is reset.
  public var fault = VirtioQueueFault.none
  /// Notifications sent.
  public var notifications: UInt64 = 0

  /// - Parameter base: `layout.count` bytes of descriptor memory, aligned to 64, which outlive the queue.
  public init(unsafe base: UnsafeMutableRawPointer, layout: SplitLayout) {
    ring = unsafe SplitRing(unsafe: base, layout: layout)
    self.layout = layout
  }

  /// Back to the state before the first buffer. Only while the device is quiet.
  public mutating func reset(eventIndex: Bool) {
    ring.clear(layout)
    usesEventIndex = eventIndex
    notifier = .none
    next = 0
    published = 0
    taken = 0
    fault = .none
  }

  /// Chains that the device holds.
  @inlinable @inline(__always) public var outstanding: Int { Int(published &- taken) }

  /// How many used elements wait. Reads the device's index once; one that moved too far is a fault.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always)
  public mutating func look() -> Int {
    let waiting = ring.loadUsedIndex() &- taken
    guard waiting <= published &- taken else {
      fault = .usedIndex
      return 0
    }
    return Int(waiting)
  }

  /// Shows the device everything up to `next`, and notifies it if it wants to be.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable @inline(__always)
  public mutating func publish() {
    let old = published
    let new = next
    guard old != new else { return }
    ring.storeAvailableIndex(new)
    published = new
    // The device's wish is read after the index is visible (clause 2.7.13.4): otherwise both sides
    // may believe that the other will look.
    rw_fence()
    let wanted =
      usesEventIndex
      ? Self.passes(ring.loadAvailableEvent(), from: old, to: new) : ring.loadUsedFlags() & 1 == 0
    if wanted {
      notifications &+= 1
      notifier.notify()
    }
  }

  /// Notifies without asking whether the device wants it: for a watchdog.
  public mutating func notify() {
    notifications &+= 1
    notifier.notify()
  }

  /// Whether moving an index from `old` to `new` passes `event` (vring_need_event, clause 2.7.10.1):
  /// true when `event` is one of old ..< new, in 16-bit arithmetic.
  @inlinable @inline(__always)
  public static func passes(_ event: UInt16, from old: UInt16, to new: UInt16) -> Bool {
    new &- event &- 1 < new &- old
  }

  // MARK: Interrupts

  /// Asks for no interrupt. With event indexes the wish lies behind `taken` and comes round after
  /// 65,535 buffers: a stray interrupt then, which does no harm.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable
  public func suppressInterrupts() {
    if usesEventIndex { ring.storeUsedEvent(taken &- 1) } else { ring.storeAvailableFlags(1) }
  }

  /// Asks for an interrupt when `after` more buffers are used (1 is the next one; without event
  /// indexes always the next one).
  /// - Returns: true when that many wait already: no interrupt may come for them.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  @inlinable
  public func requestInterrupt(after: Int = 1) -> Bool {
    if usesEventIndex {
      ring.storeUsedEvent(taken &+ UInt16(truncatingIfNeeded: after &- 1))
    } else {
      ring.storeAvailableFlags(0)
    }
    // The wish is visible before the index is read again: a buffer used in between is seen here.
    rw_fence()
    let waiting = Int(ring.loadUsedIndex() &- taken)
    return usesEventIndex ? waiting >= after : waiting != 0
  }
}
