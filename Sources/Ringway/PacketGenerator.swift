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
    var made = 0
    while made < wanted {
      guard make(now: now) else { break }
      made &+= 1
    }
    // Tokens without frames are given up: the pool comes back when the card has sent.
    if made < wanted {
      lacksRoom = true
      counts.full &+= 1
      port.reclaim(queue: queue)
    }
  }

  /// Adds one frame to the batch; false when the pool is empty.
  private mutating func make(now: UInt64) -> Bool {
    guard let packet = port.allocate(queue: queue) else { return false }
    let capacity = packet.bufferCapacity
    let size = options.size
    packet.setCount(min(size, capacity))
    unsafe packet.withBytes { bytes in
      let start = unsafe bytes.baseAddress.unsafelyUnwrapped
      // SAFETY: the buffer holds min(size, capacity) bytes, at least 60 of them; buffers of DMA
      // memory are 64-byte aligned, and unaligned stores are allowed for what lies oddly.
      unsafe start.copyMemory(from: template.baseAddress.unsafelyUnwrapped, byteCount: bytes.count)
      let sequence = next
      unsafe start.storeBytes(
        of: UInt16(truncatingIfNeeded: sequence >> 32).bigEndian, toByteOffset: TestFrame.sequenceOffset, as: UInt16.self)
      unsafe start.storeBytes(
        of: UInt32(truncatingIfNeeded: sequence).bigEndian, toByteOffset: TestFrame.sequenceOffset + 2, as: UInt32.self)
      unsafe start.storeBytes(of: now.bigEndian, toByteOffset: TestFrame.timeOffset, as: UInt64.self)
      let checksum = TestFrame.checksum(sum: sum, sequence: sequence, time: now)
      unsafe start.storeBytes(of: checksum.bigEndian, toByteOffset: TestFrame.udpChecksum, as: UInt16.self)
    }
    var at = capacity
    while at < size {
      guard let more = port.allocate(queue: queue) else { return false }
      more.setCount(min(size &- at, capacity))
      unsafe more.withBytes { bytes in
        // SAFETY: at + the buffer's count is at most the template's size.
        unsafe bytes.baseAddress.unsafelyUnwrapped.copyMemory(
          from: template.baseAddress.unsafelyUnwrapped + at, byteCount: bytes.count)
      }
      packet.append(more)
      at &+= capacity
    }
    next &+= 1
    // The batch has room: no more than its capacity is asked for.
    _ = batch.append(packet)
    return true
  }
}
