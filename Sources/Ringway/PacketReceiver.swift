// Receives numbered test frames and accounts for each.

internal import Glibc
internal import Packet
internal import Wire

/// What a receiver expects.
public struct ReceiverOptions: Sendable, Equatable {
  /// Frames that the sender sends; nil is unknown.
  public var expected: UInt64?
  /// The sender's run; nil takes the first one seen.
  public var run: UInt16?
  /// Sequence numbers kept in view.
  public var window = 1 << 20
  public var batch = 64
  /// With the last expected number seen, how long stragglers are waited for, in nanoseconds.
  public var grace: UInt64 = 500_000_000

  public init() {}
}

/// The account of a run.
public struct ReceiverCounts: Equatable, Sendable {
  /// Frames of this run that arrived whole, each sequence number once.
  public var packets: UInt64 = 0
  /// Bytes of those frames.
  public var bytes: UInt64 = 0
  public var lost: UInt64 = 0
  public var duplicates: UInt64 = 0
  public var reordered: UInt64 = 0
  /// Test frames in which a byte, a length or a checksum is wrong. Their numbers count as lost.
  public var corrupted: UInt64 = 0
  /// Too old to be told from duplicates; their numbers count as lost.
  public var late: UInt64 = 0
  /// Test frames of another run.
  public var foreign: UInt64 = 0
  /// Frames that are no test frames.
  public var other: UInt64 = 0
  /// Smallest and largest sequence number seen.
  public var first: UInt64?
  public var last: UInt64?
  /// Nanoseconds from the sender's clock reading to the receiver's; meaningful on one machine.
  public var minimumLatency: UInt64 = 0
  public var meanLatency: UInt64 = 0
  public var maximumLatency: UInt64 = 0

  public init() {}
}

/// Checks every byte of every test frame that a port receives.
@safe public struct PacketReceiver: ~Copyable, PortWork {
  public let options: ReceiverOptions
  private let port: Port
  private var window: SequenceWindow
  /// Taken out while its packets are looked at.
  private var batch: PacketBatch?
  private var tally = ReceiverCounts()
  private var run: UInt16?
  private var latencySum: UInt64 = 0
  private var latencyCount: UInt64 = 0
  /// Monotonic nanoseconds when the first and the latest number arrived; 0 before.
  public private(set) var firstArrival: UInt64 = 0
  public private(set) var lastArrival: UInt64 = 0
  /// The pattern of the longest frame, and the sum over it up to each even offset.
  private let pattern: UnsafeMutableRawBufferPointer
  private let sums: UnsafeMutablePointer<UInt32>

  public init(_ port: Port, options: ReceiverOptions = ReceiverOptions()) {
    self.port = port
    self.options = options
    run = options.run
    window = SequenceWindow(size: options.window)
    batch = PacketBatch(capacity: max(1, options.batch))
    let size = min(max(port.maximumFrame, 2048), TestFrame.maximumSize)
    unsafe pattern = .allocate(byteCount: size, alignment: 64)
    for i in 0..<size { unsafe pattern[i] = TestFrame.pattern(i) }
    unsafe sums = .allocate(capacity: size / 2 + 1)
    var sum: UInt32 = 0
    for i in 0...(size / 2) {
      unsafe (sums + i).initialize(to: sum)
      let at = 2 * i
      if at >= TestFrame.patternOffset && at + 1 < size {
        sum += UInt32(TestFrame.pattern(at)) << 8 | UInt32(TestFrame.pattern(at + 1))
        sum = (sum & 0xffff) + sum >> 16
      }
    }
  }

  deinit {
    unsafe pattern.deallocate()
    unsafe sums.deallocate()
  }

  public mutating func round(now: UInt64) -> Int {
    guard var batch = batch.take() else { return 0 }
    var total = 0
    var queue = 0
    while queue < port.queueCount {
      let n = port.receive(queue: queue, into: &batch)
      queue &+= 1
      if n == 0 { continue }
      total &+= n
      batch.forEach { account($0, now: now) }
      batch.removeAll()
    }
    self.batch = consume batch
    return total
  }

  /// All expected frames are here, or the last one is and no more came for a while.
  public func isDone(now: UInt64) -> Bool {
    guard let expected = options.expected else { return false }
    guard let last = window.last else { return expected == 0 }
    if window.distinct >= expected { return true }
    return last &+ 1 >= expected && now > lastArrival && now &- lastArrival >= options.grace
  }

  /// Nanoseconds from the first number's arrival to the latest.
  public var span: UInt64 { lastArrival &- firstArrival }
  /// The run that is accounted for; nil before the first test frame.
  public var currentRun: UInt16? { run }

  public var counts: ReceiverCounts {
    var counts = tally
    counts.packets = window.distinct
    counts.lost = window.lost(expected: options.expected)
    counts.duplicates = window.duplicates
    counts.reordered = window.reordered
    counts.late = window.late
    counts.first = window.first
    counts.last = window.last
    counts.meanLatency = latencyCount == 0 ? 0 : latencySum / latencyCount
    return counts
  }
}

extension PacketReceiver {
  private mutating func account(_ packet: borrowing Packet, now: UInt64) {
    guard let header = header(of: packet) else {
      tally.other &+= 1
      return
    }
    if run == nil { run = header.run }
    guard header.run == run else {
      tally.foreign &+= 1
      return
    }
    guard isWhole(packet, header) else {
      tally.corrupted &+= 1
      return
    }
    switch window.record(header.sequence) {
    case .new, .reordered: tally.bytes &+= UInt64(packet.count)
    case .duplicate, .late: return
    }
    lastArrival = now
    if firstArrival == 0 { firstArrival = now }
    let latency = now > header.time ? now &- header.time : 0
    if latencyCount == 0 || latency < tally.minimumLatency { tally.minimumLatency = latency }
    tally.maximumLatency = max(tally.maximumLatency, latency)
    latencySum &+= latency
    latencyCount &+= 1
  }

  /// What tells a test frame, and its number.
  private struct Header {
    var run: UInt16
    var sequence: UInt64
    var time: UInt64
    /// Sum over the addresses, the ports and the run: what differs between streams.
    var constantSum: UInt32
    var udpLength: Int
    var checksum: UInt16
  }

  /// nil for a frame that is none of a generator's.
  private func header(of packet: borrowing Packet) -> Header? {
    guard packet.firstCount >= TestFrame.minimumSize else { return nil }
    return unsafe packet.withBytes { bytes in
      // SAFETY: all offsets are below the 60 bytes that are there.
      func be16(_ at: Int) -> UInt16 { unsafe bytes.loadUnaligned(fromByteOffset: at, as: UInt16.self).bigEndian }
      guard be16(12) == Ethernet.typeIPv4, unsafe bytes[23] == 17, be16(TestFrame.magicOffset) == TestFrame.magic else {
        return nil
      }
      var sum: UInt32 = 17
      for at in stride(from: 26, to: 38, by: 2) { sum += UInt32(be16(at)) }
      sum += UInt32(TestFrame.magic) + UInt32(be16(TestFrame.runOffset))
      let sequence =
        UInt64(be16(TestFrame.sequenceOffset)) << 32
        | UInt64(unsafe bytes.loadUnaligned(fromByteOffset: TestFrame.sequenceOffset + 2, as: UInt32.self).bigEndian)
      return Header(
        run: be16(TestFrame.runOffset), sequence: sequence,
        time: unsafe bytes.loadUnaligned(fromByteOffset: TestFrame.timeOffset, as: UInt64.self).bigEndian,
        constantSum: sum, udpLength: Int(be16(38)), checksum: be16(TestFrame.udpChecksum))
    }
  }

  /// Lengths agree, both checksums are right, and the pattern is what it should be.
  private func isWhole(_ packet: borrowing Packet, _ header: Header) -> Bool {
    let size = packet.count
    guard unsafe size <= pattern.count, header.udpLength == size - TestFrame.udp else { return false }
    let headerIsRight = unsafe packet.withBytes { bytes in
      var sum: UInt32 = 0
      for at in stride(from: TestFrame.ip, to: TestFrame.udp, by: 2) {
        sum += UInt32(unsafe bytes.loadUnaligned(fromByteOffset: at, as: UInt16.self).bigEndian)
      }
      sum = (sum & 0xffff) + sum >> 16
      sum = (sum & 0xffff) + sum >> 16
      let length = Int(unsafe bytes.loadUnaligned(fromByteOffset: 16, as: UInt16.self).bigEndian)
      return unsafe sum == 0xffff && bytes[14] == 0x45 && length == size - TestFrame.ip
    }
    guard headerIsRight else { return false }
    var sum = header.constantSum &+ 2 &* UInt32(header.udpLength)
    unsafe sum &+= sums[size / 2]
    if size & 1 == 1 { sum &+= UInt32(TestFrame.pattern(size - 1)) << 8 }
    guard TestFrame.checksum(sum: sum, sequence: header.sequence, time: header.time) == header.checksum else { return false }
    return patternIsRight(packet)
  }

  /// Compares everything behind the numbers, over all buffers of the frame.
  private func patternIsRight(_ packet: borrowing Packet) -> Bool {
    var at = 0
    var segment: RawPacket? = unsafe packet.record
    while let record = unsafe segment {
      let count = unsafe Int(record.pointee.length)
      let skip = at < TestFrame.patternOffset ? min(count, TestFrame.patternOffset - at) : 0
      guard unsafe at + count <= pattern.count else { return false }
      // SAFETY: a record's offset and length lie inside its buffer; the pattern is at least as long
      // as the frame.
      let here = unsafe record.pointee.buffer + Int(record.pointee.offset) + skip
      guard unsafe memcmp(here, pattern.baseAddress.unsafelyUnwrapped + at + skip, count - skip) == 0 else { return false }
      at += count
      unsafe segment = record.pointee.next
    }
    return at == packet.count
  }
}
