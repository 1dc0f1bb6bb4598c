// Sends numbered test frames.

internal import CRingway
internal import Packet

/// What a generator sends.
public struct GeneratorOptions: Sendable, Equatable {
  /// Bytes of each frame without the check sequence: 60 to the port's `maximumFrame`.
  public var size = TestFrame.minimumSize
  /// Frames to send; nil goes on until stopped.
  public var count: UInt64?
  /// Frames a second; nil is as fast as the card takes them.
  public var rate: UInt64?
  /// Frames made and handed to the driver at a time.
  public var batch = 32

  public init() {}
}

/// Totals of a generator. `sent` frames have sequence numbers 0 ..< sent, in order on each queue.
public struct GeneratorCounts: Equatable, Sendable {
  public var sent: UInt64 = 0
  public var bytes: UInt64 = 0
  /// Rounds in which the card's ring or the pool had no room.
  public var full: UInt64 = 0

  public init() {}
}

/// Sends UDP datagrams with a sequence number each.
@safe public struct PacketGenerator: ~Copyable, PortWork {
  public let options: GeneratorOptions
  public private(set) var counts = GeneratorCounts()

  private let port: Port
  private let template: UnsafeMutableRawBufferPointer
  private let sum: UInt32
  private var bucket: TokenBucket
  private var batch: PacketBatch
  /// The queue that takes the batch.
  private var queue = 0
  /// Next sequence number.
  private var next: UInt64 = 0
  /// Unsent frames gave way to the rate, not to the ring.
  private var lacksRoom = false

  public init(_ port: Port, stream: TestStream, options: GeneratorOptions = GeneratorOptions()) throws(RingwayError) {
    let largest = min(port.maximumFrame, TestFrame.maximumSize)
    guard (TestFrame.minimumSize...largest).contains(options.size) else {
      throw .option(
        name: "the frame size", value: "\(options.size)",
        allowed: "\(TestFrame.minimumSize) to \(largest) bytes with this port's MTU of \(port.options.mtu)")
    }
    guard options.rate != 0 else { throw .option(name: "the rate", value: "0", allowed: "1 a second and more") }
    self.port = port
    self.options = options
    let (bytes, sum) = TestFrame.template(stream, size: options.size)
    unsafe template = .allocate(byteCount: bytes.count, alignment: 64)
    unsafe template.copyBytes(from: bytes)
    self.sum = sum
    // A burst covers a millisecond, so that a sleepy loop keeps its rate.
    bucket = TokenBucket(rate: options.rate, burst: max(UInt64(options.batch), (options.rate ?? 0) / 100))
    batch = PacketBatch(capacity: max(1, options.batch))
  }

  deinit { unsafe template.deallocate() }

  public mutating func round(now: UInt64) -> Int {
    if batch.isEmpty {
      fill(now: now)
      if batch.isEmpty { return 0 }
    }
    let sent = port.send(queue: queue, &batch)
    counts.sent &+= UInt64(sent)
    counts.bytes &+= UInt64(sent &* options.size)
    lacksRoom = !batch.isEmpty
    if lacksRoom {
      counts.full &+= 1
    } else {
      queue = queue &+ 1 == port.queueCount ? 0 : queue &+ 1
    }
    return sent
  }

  public func isDone(now: UInt64) -> Bool {
    guard let count = options.count else { return false }
    return counts.sent >= count
  }

  /// A full ring empties soon; a rate says exactly when the next frame is due.
  public func rest(now: UInt64) -> UInt64? { lacksRoom ? 10_000 : min(bucket.untilNext(), 1_000_000) }

  /// Makes as many frames as count, rate and pool allow.
  private mutating func fill(now: UInt64) {
    var wanted = batch.capacity
    if let count = options.count { wanted = Int(min(UInt64(wanted), count &- next)) }
    if wanted == 0 { return }
    wanted = bucket.take(wanted, now: now)
    let pool = unsafe port.pools[queue].state
    let shape = unsafe Shape(template: UnsafeRawBufferPointer(template), sum: sum)
    let first = next
    let made = unsafe batch.fill(max: wanted) { slots, room in
      var made = 0
      while made < room, let record = unsafe Self.make(shape, first &+ UInt64(made), now: now, from: pool) {
        unsafe (slots + made).initialize(to: record)
        made &+= 1
      }
      return made
    }
    next &+= UInt64(made)
    // Tokens without frames are given up: the pool comes back when the card has sent.
    if made < wanted {
      lacksRoom = true
      counts.full &+= 1
      port.reclaim(queue: queue)
    }
  }

  /// What all frames of a run share.
  @safe private struct Shape: BitwiseCopyable {
    let template: UnsafeRawBufferPointer
    let sum: UInt32
  }

  /// A frame with its number, or nil when the pool is empty.
  #if RINGWAY_CHECKED
    @_noAllocation @_noLocks
  #endif
  private static func make(
    _ shape: Shape, _ sequence: UInt64, now: UInt64, from pool: UnsafeMutablePointer<PoolState>
  ) -> RawPacket? {
    let capacity = unsafe pool.pointee.bufferSize
    let size = unsafe shape.template.count
    guard let head = unsafe segment(shape, at: 0, min(size, capacity), from: pool) else { return nil }
    let start = unsafe head.pointee.buffer
    // SAFETY: a buffer holds at least 64 bytes, so the 60 bytes with all fields are in the first one.
    unsafe start.storeBytes(
      of: UInt16(truncatingIfNeeded: sequence >> 32).bigEndian, toByteOffset: TestFrame.sequenceOffset, as: UInt16.self)
    unsafe start.storeBytes(
      of: UInt32(truncatingIfNeeded: sequence).bigEndian, toByteOffset: TestFrame.sequenceOffset + 2, as: UInt32.self)
    unsafe start.storeBytes(of: now.bigEndian, toByteOffset: TestFrame.timeOffset, as: UInt64.self)
    let checksum = TestFrame.checksum(sum: shape.sum, sequence: sequence, time: now)
    unsafe start.storeBytes(of: checksum.bigEndian, toByteOffset: TestFrame.udpChecksum, as: UInt16.self)
    var at = capacity
    var last = unsafe head
    while at < size {
      guard let more = unsafe segment(shape, at: at, min(size &- at, capacity), from: pool) else {
        unsafe PoolState.put(head)
        return nil
      }
      unsafe last.pointee.next = more
      unsafe last = more
      at &+= capacity
    }
    unsafe head.pointee.frameLength = UInt32(truncatingIfNeeded: size)
    return unsafe head
  }

  /// A record with a piece of the template in its buffer.
  @inline(__always)
  private static func segment(
    _ shape: Shape, at offset: Int, _ count: Int, from pool: UnsafeMutablePointer<PoolState>
  ) -> RawPacket? {
    guard let record = unsafe PoolState.get(pool) else { return nil }
    // SAFETY: `count` is at most a buffer's size, and offset + count at most the template's.
    unsafe record.pointee.buffer.copyMemory(
      from: shape.template.baseAddress.unsafelyUnwrapped + offset, byteCount: count)
    unsafe record.pointee.setSingle(length: UInt16(truncatingIfNeeded: count), offset: 0)
    unsafe record.pointee.flags = PacketFlags(rawValue: 0)
    unsafe record.pointee.interface = 0
    unsafe record.pointee.timestamp = 0
    unsafe record.pointee.generation &+= 1
    return unsafe record
  }
}
