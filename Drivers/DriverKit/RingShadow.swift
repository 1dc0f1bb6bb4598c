// Ring bookkeeping that drivers share. The descriptor formats are each driver's own.

public import Packet

/// The driver's private copy of which record is on which descriptor. The device never sees it.
@frozen @safe public struct RingShadow: ~Copyable {
  public let slots: UnsafeMutablePointer<RawPacket?>
  public let count: Int

  /// - Parameter count: descriptors; a power of two.
  public init(count: Int) {
    self.count = count
    unsafe slots = .allocate(capacity: count)
    unsafe slots.initialize(repeating: nil, count: count)
  }

  deinit {
    releaseAll()
    unsafe slots.deallocate()
  }

  /// Gives every record back to its pool. Only while the device is quiet.
  public func releaseAll() {
    for i in 0..<count {
      if let record = unsafe slots[i] { unsafe PoolState.put(record) }
      unsafe slots[i] = nil
    }
  }

  /// Records held.
  public var held: Int {
    var n = 0
    for i in 0..<count where unsafe slots[i] != nil { n += 1 }
    return n
  }
}

/// What a queue counts; plain memory that its owner writes and a reader may read at any time.
@frozen public struct QueueCounters: BitwiseCopyable, Sendable, Equatable {
  public var packets: UInt64 = 0
  public var bytes: UInt64 = 0
  /// Frames the device reported as damaged, or whose description was impossible.
  public var errors: UInt64 = 0
  /// Receive: frames lost for want of a free buffer. Send: frames refused (too long, too many buffers).
  public var drops: UInt64 = 0
  /// Times the tail register or notify address was written.
  public var doorbells: UInt64 = 0
  /// Interrupts asked for: how often the queue was armed.
  public var arms: UInt64 = 0

  public init() {}
}
