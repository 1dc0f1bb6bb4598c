// What a card's parser sees in a frame.
//
//     | destination 6 | source 6 | tags 0...2 x 4 | type 2 | network header | transport header | data |
//                                                          ^ networkOffset   ^ transportOffset  ^ payloadOffset
//
// The bytes come from a wire or from a driver: every offset is checked against the frame before it is
// believed, and a header that does not fit is as good as absent. Nothing here allocates.

/// Where the headers of an Ethernet frame are, and what kind they are.
public struct ParsedHeaders: Equatable, Sendable {
  public enum Network: UInt8, Sendable { case none, ipv4, ipv6 }
  public enum Transport: UInt8, Sendable { case none, tcp, udp, sctp }

  /// 802.1Q and 802.1ad tags in front of the type: 0 to 2.
  public var tagCount = 0
  /// Tag control information of the outermost tag; 0 without one.
  public var tag: UInt16 = 0
  /// Type of the outermost tag (0x8100, 0x88a8 or 0x9100); 0 without one.
  public var tagType: UInt16 = 0
  /// The type behind the tags; below 0x600 a length (IEEE 802.3 clause 3.2.6).
  public var etherType: UInt16 = 0
  /// First byte behind the type.
  public var networkOffset = 0
  public var network = Network.none
  /// IPv4: with its options. IPv6: the fixed header and all extension headers that were walked.
  public var networkHeaderLength = 0
  /// IPv4 options or IPv6 extension headers are there.
  public var hasExtensions = false
  /// End of the datagram by its own length field, never beyond the frame's end.
  public var networkEnd = 0
  /// The datagram claims more bytes than the frame has, or fewer than its header.
  public var isTruncated = false
  /// The upper-layer protocol (behind IPv6's extension headers).
  public var ipProtocol: UInt8 = 0
  /// Any fragment, the first one too.
  public var isFragment = false
  /// Offset 0: the fragment that has the transport header.
  public var isFirstFragment = false
  /// `none` also in fragments, the first one excepted, and when the header is cut off.
  public var transport = Transport.none
  /// First byte behind the network header, when `network` is not `none`.
  public var transportOffset = 0
  /// TCP: with its options. 8 for UDP, 12 for SCTP.
  public var transportHeaderLength = 0
  /// First byte behind every header that was understood.
  public var payloadOffset = 0

  public init() {}

  /// Reads a frame without its check sequence.
  public init(_ frame: UnsafeRawBufferPointer) { self = unsafe FrameParser.parse(frame) }

  public var isIPv4: Bool { network == .ipv4 }
  public var isIPv6: Bool { network == .ipv6 }
  public var isTCP: Bool { transport == .tcp }
  public var isUDP: Bool { transport == .udp }
  /// Bytes behind the transport header inside the datagram.
  public var payloadLength: Int { max(0, networkEnd - payloadOffset) }
  /// VLAN identifier of the outermost tag.
  public var vlan: UInt16 { tag & 0xfff }
}

/// The parser of `ParsedHeaders`.
public enum FrameParser {
  /// IPv6 extension headers walked in one frame: more are not looked through.
  public static let extensionLimit = 8

  /// Headers of a frame without its check sequence, of any length.
  public static func parse(_ frame: UnsafeRawBufferPointer) -> ParsedHeaders {
    var found = ParsedHeaders()
    guard frame.count >= 14 else { return found }
    var at = 12
    var type = unsafe frame.big16(at)
    while found.tagCount < 2, isTag(type), frame.count >= at + 6 {
      if found.tagCount == 0 {
        found.tagType = type
        found.tag = unsafe frame.big16(at + 2)
      }
      found.tagCount += 1
      at += 4
      type = unsafe frame.big16(at)
    }
    found.etherType = type
    found.networkOffset = at + 2
    found.networkEnd = frame.count
    found.payloadOffset = at + 2
    switch type {
    case 0x0800: unsafe parseIPv4(frame, &found)
    case 0x86dd: unsafe parseIPv6(frame, &found)
    default: break
    }
    return found
  }

  @inline(__always) static func isTag(_ type: UInt16) -> Bool { type == 0x8100 || type == 0x88a8 || type == 0x9100 }

  /// RFC 791, section 3.1.
  private static func parseIPv4(_ frame: UnsafeRawBufferPointer, _ found: inout ParsedHeaders) {
    let at = found.networkOffset
    let first = unsafe frame.byte(at)
    let header = Int(first & 15) * 4
    guard first >> 4 == 4, header >= 20, at + header <= frame.count else { return }
    let total = Int(unsafe frame.big16(at + 2))
    found.network = .ipv4
    found.networkHeaderLength = header
    found.hasExtensions = header > 20
    found.isTruncated = total < header || at + total > frame.count
    found.networkEnd = min(frame.count, at + max(total, header))
    found.ipProtocol = unsafe frame.byte(at + 9)
    let fragment = unsafe frame.big16(at + 6)
    found.isFragment = fragment & 0x3fff != 0
    found.isFirstFragment = found.isFragment && fragment & 0x1fff == 0
    found.transportOffset = at + header
    unsafe parseTransport(frame, &found)
  }

  /// RFC 8200, sections 3 and 4.
  private static func parseIPv6(_ frame: UnsafeRawBufferPointer, _ found: inout ParsedHeaders) {
    let at = found.networkOffset
    guard unsafe frame.byte(at) >> 4 == 6, at + 40 <= frame.count else { return }
    let total = 40 + Int(unsafe frame.big16(at + 4))
    found.network = .ipv6
    found.isTruncated = at + total > frame.count
    found.networkEnd = min(frame.count, at + total)
    var next = unsafe frame.byte(at + 6), position = at + 40
    for _ in 0..<extensionLimit {
      let size: Int
      switch next {
      case 0, 43, 60, 135: size = 8 + Int(unsafe frame.byte(position + 1)) * 8
      case 51: size = 8 + Int(unsafe frame.byte(position + 1)) * 4
      case 44: size = 8
      default: size = 0
      }
      guard size > 0, position + size <= found.networkEnd else { break }
      if next == 44 {
        let fragment = unsafe frame.big16(position + 2)
        // A fragment header of a whole datagram (RFC 6946) makes no fragment of it.
        found.isFragment = fragment & 0xfff9 != 0
        found.isFirstFragment = found.isFragment && fragment & 0xfff8 == 0
      }
      found.hasExtensions = true
      next = unsafe frame.byte(position)
      position += size
      if found.isFragment, !found.isFirstFragment { break }
    }
    found.ipProtocol = next
    found.networkHeaderLength = position - at
    found.transportOffset = position
    unsafe parseTransport(frame, &found)
  }

  private static func parseTransport(_ frame: UnsafeRawBufferPointer, _ found: inout ParsedHeaders) {
    let at = found.transportOffset
    found.payloadOffset = at
    if found.isFragment, !found.isFirstFragment { return }
    let size: Int
    let kind: ParsedHeaders.Transport
    switch found.ipProtocol {
    case 6: (kind, size) = (.tcp, max(20, Int(unsafe frame.byte(at + 12) >> 4) * 4))
    case 17: (kind, size) = (.udp, 8)
    case 132: (kind, size) = (.sctp, 12)
    default: return
    }
    guard at + size <= found.networkEnd else { return }
    found.transport = kind
    found.transportHeaderLength = size
    found.payloadOffset = at + size
  }
}
