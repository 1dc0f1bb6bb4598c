// Transmit segmentation: one large frame with a header template becomes many small ones.
//
//     | headers | data ................... |        what the driver gave
//     | headers'| data | headers''| data | ...      what leaves the card
//
// What changes in each header: IPv4 total length and identification, IPv6 payload length, TCP
// sequence number and flags, UDP length, checksums (82574 datasheet 7.2.6; 82599 datasheet 7.2.4).

/// What is to be cut, and how.
public struct SegmentationPlan: Equatable, Sendable {
  public enum Transport: Sendable { case tcp, udp }
  /// What the transport checksum starts from.
  public enum Seed: Sendable {
    /// The pseudo header is summed here, whatever stands in the field (virtio).
    case computed
    /// The driver wrote the pseudo header's sum, the length left out, into the field; the card adds
    /// the length (Intel's cards).
    case field
  }

  /// First byte of the IP header.
  public var networkOffset: Int
  /// First byte of the transport header.
  public var transportOffset: Int
  /// Bytes of all headers: what is repeated.
  public var headerLength: Int
  /// Bytes of data in each segment but the last.
  public var segmentSize: Int
  public var transport = Transport.tcp
  public var seed = Seed.computed
  public var insertsIPv4Checksum = true
  public var insertsTransportChecksum = true
  /// Goes behind the addresses of each segment when not nil.
  public var tag: UInt16?
  public var tagType: UInt16 = 0x8100
  /// Flags that stay in the first, middle and last segments, 12 bits: FIN 1, SYN 2, RST 4, PSH 8,
  /// ACK 16, URG 32, ECE 64, CWR 128. (A frame that makes one segment keeps them all.)
  public var firstFlags: UInt16 = 0xff6
  public var middleFlags: UInt16 = 0xf76
  public var lastFlags: UInt16 = 0xf7f

  public init(networkOffset: Int, transportOffset: Int, headerLength: Int, segmentSize: Int) {
    self.networkOffset = networkOffset
    self.transportOffset = transportOffset
    self.headerLength = headerLength
    self.segmentSize = segmentSize
  }
}

/// Cuts frames. Holds the buffer in which segments are made; one for each thread.
public final class Segmenter {
  private let output: ScratchFrame

  /// - Parameter largest: bytes of the largest segment with its headers.
  public init(largest: Int = 64 * 1024 + 512) { output = ScratchFrame(capacity: largest) }

  /// Gives each segment to `body`, in order; the bytes are valid during the call only.
  /// - Returns: segments made; 0, and nothing given, when the plan does not fit the frame: no data
  ///   size, headers outside of the frame or of each other, no IP version 4 or 6.
  @discardableResult public func segment(
    _ frame: UnsafeRawBufferPointer, _ plan: SegmentationPlan, _ body: (UnsafeRawBufferPointer) -> Void
  ) -> Int {
    guard unsafe fits(frame, plan) else { return 0 }
    let data = frame.count - plan.headerLength
    let largest = max(1, min(plan.segmentSize, data))
    let segments = max(1, (data + largest - 1) / largest)
    for index in 0..<segments {
      let offset = index * largest
      let size = min(largest, data - offset)
      output.removeAll()
      _ = unsafe output.append(frame.piece(0, plan.headerLength))
      _ = unsafe output.append(frame.piece(plan.headerLength + offset, size))
      unsafe rewrite(output.mutableBytes, plan, index, offset, isLast: index == segments - 1)
      if let tag = plan.tag { output.insertTag(tag, type: plan.tagType) }
      unsafe body(output.bytes)
    }
    return segments
  }

  private func fits(_ frame: UnsafeRawBufferPointer, _ plan: SegmentationPlan) -> Bool {
    let transportSize = plan.transport == .tcp ? 20 : 8
    guard plan.segmentSize > 0, plan.headerLength <= frame.count, plan.networkOffset >= 14,
      plan.transportOffset <= plan.headerLength - transportSize, plan.networkOffset <= plan.transportOffset - 20,
      plan.headerLength + min(plan.segmentSize, frame.count - plan.headerLength) <= output.capacity - 4
    else { return false }
    switch unsafe frame.byte(plan.networkOffset) >> 4 {
    case 4: return true
    case 6: return plan.transportOffset >= plan.networkOffset + 40
    default: return false
    }
  }

  private func rewrite(
    _ frame: UnsafeMutableRawBufferPointer, _ plan: SegmentationPlan, _ index: Int, _ offset: Int, isLast: Bool
  ) {
    let view = UnsafeRawBufferPointer(frame)
    let network = plan.networkOffset, transport = plan.transportOffset
    let isIPv4 = unsafe view.byte(network) >> 4 == 4
    if isIPv4 {
      unsafe frame.setBig16(UInt16(truncatingIfNeeded: frame.count - network), network + 2)
      let identification = unsafe view.big16(network + 4) &+ UInt16(truncatingIfNeeded: index)
      unsafe frame.setBig16(identification, network + 4)
      if plan.insertsIPv4Checksum { unsafe FrameChecksum.insertIPv4Header(frame, at: network) }
    } else {
      unsafe frame.setBig16(UInt16(truncatingIfNeeded: frame.count - network - 40), network + 4)
    }
    let length = frame.count - transport
    if plan.transport == .tcp {
      unsafe frame.setBig32(view.big32(transport + 4) &+ UInt32(truncatingIfNeeded: offset), transport + 4)
      if !(isLast && index == 0) {
        let mask = isLast ? plan.lastFlags : index == 0 ? plan.firstFlags : plan.middleFlags
        unsafe frame.setBig16(view.big16(transport + 12) & (mask | 0xf000), transport + 12)
      }
    } else {
      unsafe frame.setBig16(UInt16(truncatingIfNeeded: length), transport + 4)
    }
    guard plan.insertsTransportChecksum else { return }
    let field = transport + (plan.transport == .tcp ? 16 : 6)
    var seed: UInt32
    switch plan.seed {
    case .field:
      seed = UInt32(unsafe view.big16(field)) + UInt32(truncatingIfNeeded: length)
    case .computed:
      var headers = ParsedHeaders()
      headers.network = isIPv4 ? .ipv4 : .ipv6
      headers.networkOffset = network
      headers.ipProtocol = plan.transport == .tcp ? 6 : 17
      seed = unsafe FrameChecksum.pseudoHeader(view, headers, length: length)
    }
    unsafe frame.setBig16(0, field)
    let value = ~(unsafe FrameChecksum.sum(view.piece(transport, length), initial: seed))
    unsafe frame.setBig16(plan.transport == .udp && value == 0 ? 0xffff : value, field)
  }
}
