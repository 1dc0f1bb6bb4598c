// pcapng (IETF draft-ietf-opsawg-pcapng): one section, any number of Ethernet interfaces.
//
//     SHB  who wrote it
//     IDB  interface 0: name, description, nanoseconds      IDB  interface 1 …
//     EPB  packet: interface, time, bytes, direction        EPB  …
//     ISB  interface 0: received, dropped                   ISB  …

internal import CRingway
public import Packet
public import Platform
internal import SystemPackage

/// An interface as a capture file describes it.
public struct CaptureInterface: Sendable, Equatable {
  /// "em0", "0000:03:00.0".
  public var name: String
  public var description: String
  /// The expression that packets had to match; empty is none.
  public var filter: String
  /// Six octets; empty leaves it out.
  public var macAddress: [UInt8]
  /// Megabits a second; 0 leaves it out.
  public var speed: Int

  public init(name: String, description: String = "", filter: String = "", macAddress: [UInt8] = [], speed: Int = 0) {
    self.name = name
    self.description = description
    self.filter = filter
    self.macAddress = macAddress
    self.speed = speed
  }
}

/// Which way a captured packet went (epb_flags, bits 0 and 1).
public enum CaptureDirection: UInt32, Sendable {
  case unknown = 0
  case inbound = 1
  case outbound = 2
}

/// Totals of one interface (interface statistics block).
public struct CaptureStatistics: Sendable, Equatable {
  /// Nanoseconds of the Unix epoch.
  public var start: UInt64
  public var end: UInt64
  /// Packets the interface received.
  public var received: UInt64
  /// Packets lost for want of room, at the interface.
  public var dropped: UInt64
  /// Packets that passed the filter; nil leaves it out.
  public var accepted: UInt64?

  public init(start: UInt64, end: UInt64, received: UInt64, dropped: UInt64, accepted: UInt64? = nil) {
    self.start = start
    self.end = end
    self.received = received
    self.dropped = dropped
    self.accepted = accepted
  }
}

/// Writes one pcapng section to a file, a pipe or standard output.
@safe public struct PcapngWriter: ~Copyable {
  private var output: CaptureOutput
  private let image: WireImage
  /// Bytes kept of each packet.
  public let snapLength: Int
  public let interfaceCount: Int
  /// Packets written, and bytes of them that were kept.
  public private(set) var packets: UInt64 = 0
  public private(set) var bytes: UInt64 = 0

  /// Longest comment of a packet, in bytes of UTF-8; the rest is cut off.
  public static let commentLimit = 1024

  /// Makes (or empties) the file and writes its head.
  /// - Parameter path: a file or a named pipe; "-" is standard output.
  public init(
    path: String, interfaces: [CaptureInterface], snapLength: Int = Capture.wholeFrames, application: String = "Ringway"
  ) throws(CaptureError) {
    let descriptor: OwnedDescriptor
    do throws(SystemError) {
      descriptor = try path == "-" ? Self.standardOutput() : OwnedDescriptor(opening: path, flags: O_WRONLY | O_CREAT | O_TRUNC)
    } catch { throw .open(error) }
    try self.init(
      descriptor, path: path == "-" ? "standard output" : path, interfaces: interfaces, snapLength: snapLength,
      application: application)
  }

  /// Writes to an open descriptor, which the writer closes.
  public init(
    _ descriptor: consuming OwnedDescriptor, path: String, interfaces: [CaptureInterface],
    snapLength: Int = Capture.wholeFrames, application: String = "Ringway"
  ) throws(CaptureError) {
    self.snapLength = min(max(snapLength, Capture.snapLengths.lowerBound), Capture.snapLengths.upperBound)
    interfaceCount = interfaces.count
    image = WireImage(capacity: 1 << 16)
    output = CaptureOutput(descriptor, path: path, capacity: max(1 << 18, self.snapLength + Self.commentLimit + 128))
    if self.snapLength != snapLength { throw .snapLength(snapLength) }
    try block(type: 0x0a0d_0d0a, Self.sectionHeader(application: application))
    for interface in interfaces { try block(type: 1, Self.description(of: interface, snapLength: snapLength)) }
  }

  /// Writes one packet.
  /// - Parameters:
  ///   - interface: index into the interfaces given at the start; one that is not there is refused (false).
  ///   - time: nanoseconds of the Unix epoch.
  ///   - comment: shown by readers beside the packet.
  @discardableResult
  public mutating func write(
    _ packet: borrowing Packet, interface: Int = 0, time: UInt64, direction: CaptureDirection = .unknown,
    comment: String = ""
  ) throws(CaptureError) -> Bool {
    guard interface >= 0, interface < interfaceCount else { return false }
    let (bytes, wireLength) = unsafe image.bytes(of: packet)
    try unsafe write(
      bytes, wireLength: wireLength, interface: interface, time: time, direction: direction, comment: comment)
    return true
  }

  /// Writes a packet of which `bytes` are there and which had `wireLength` bytes.
  public mutating func write(
    _ bytes: UnsafeRawBufferPointer, wireLength: Int, interface: Int, time: UInt64,
    direction: CaptureDirection = .unknown, comment: String = ""
  ) throws(CaptureError) {
    try unsafe append(
      bytes, wireLength: wireLength, interface: interface, time: time, direction: direction, comment: comment)
    packets &+= 1
    self.bytes &+= UInt64(min(bytes.count, snapLength))
  }

  /// Writes an interface's totals: once, at the end.
  public mutating func write(_ statistics: CaptureStatistics, interface: Int) throws(CaptureError) {
    try block(type: 5, Self.statistics(statistics, interface: interface))
  }

  /// A duplicate, so that closing the writer does not close the program's own.
  private static func standardOutput() throws(SystemError) -> OwnedDescriptor {
    let duplicate = rw_fcntl(1, F_DUPFD_CLOEXEC, 3)
    guard duplicate >= 0 else { throw SystemError("duplicate", "standard output", Errno(rawValue: rw_errno())) }
    return OwnedDescriptor(taking: duplicate)
  }

  /// Hands everything written so far to the system.
  public mutating func flush() throws(CaptureError) { try output.flush() }
}

extension PcapngWriter {
  /// An enhanced packet block (4.3).
  private mutating func append(
    _ bytes: UnsafeRawBufferPointer, wireLength: Int, interface: Int, time: UInt64, direction: CaptureDirection,
    comment: String
  ) throws(CaptureError) {
    let kept = min(bytes.count, snapLength)
    let text = comment.isEmpty ? 0 : min(comment.utf8.count, Self.commentLimit)
    let options = 8 + (text > 0 ? 4 + (text + 3) & ~3 : 0) + 4
    let total = 32 + (kept + 3) & ~3 + options
    try output.reserve(total)
    output.append32(6)
    output.append32(UInt32(total))
    output.append32(UInt32(interface))
    output.appendTime(time)
    output.append32(UInt32(kept))
    output.append32(UInt32(truncatingIfNeeded: wireLength))
    unsafe output.appendPadded(UnsafeRawBufferPointer(rebasing: bytes[..<kept]))
    output.append16(2)  // epb_flags
    output.append16(4)
    output.append32(unsafe Self.flags(bytes, direction))
    if text > 0 {
      var comment = comment
      output.append16(1)  // opt_comment
      output.append16(UInt16(text))
      comment.withUTF8 { utf8 in
        unsafe output.appendPadded(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(utf8)[..<text]))
      }
    }
    output.append32(0)  // opt_endofopt
    output.append32(UInt32(total))
  }

  /// Direction, and the kind of destination in bits 2 to 4 for received frames (4.3.1).
  private static func flags(_ bytes: UnsafeRawBufferPointer, _ direction: CaptureDirection) -> UInt32 {
    guard direction == .inbound, bytes.count >= 6 else { return direction.rawValue }
    let multicast = unsafe bytes[0] & 1 != 0
    let broadcast = (0..<6).allSatisfy { unsafe bytes[$0] == 0xff }
    return direction.rawValue | (broadcast ? 3 : multicast ? 2 : 1) << 2
  }

  /// Wraps a body in a block's type and its two lengths.
  private mutating func block(type: UInt32, _ body: [UInt8]) throws(CaptureError) {
    let total = UInt32(body.count + 12)
    try output.reserve(Int(total))
    output.append32(type)
    output.append32(total)
    unsafe body.withUnsafeBytes { bytes in unsafe output.appendPadded(bytes) }
    output.append32(total)
  }
}
