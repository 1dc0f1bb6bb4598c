// ICMPv6 on the wire (RFC 4443).

public enum ICMPv6 {
  /// Type, code, checksum, and four bytes whose meaning is the type's.
  public static let headerSize = 8
  public static let checksum = 2

  public static let unreachable: UInt8 = 1
  public static let packetTooBig: UInt8 = 2
  public static let timeExceeded: UInt8 = 3
  public static let parameterProblem: UInt8 = 4
  public static let echoRequest: UInt8 = 128
  public static let echoReply: UInt8 = 129
  public static let mldQuery: UInt8 = 130
  public static let mldReport: UInt8 = 131
  public static let mldDone: UInt8 = 132
  public static let routerSolicitation: UInt8 = 133
  public static let routerAdvertisement: UInt8 = 134
  public static let neighbourSolicitation: UInt8 = 135
  public static let neighbourAdvertisement: UInt8 = 136
  public static let redirect: UInt8 = 137
  public static let mldv2Report: UInt8 = 143

  /// Types below 128 are errors (section 2.1).
  @inlinable public static func isError(_ type: UInt8) -> Bool { type < 128 }
}

/// Codes of "destination unreachable" (RFC 4443, section 3.1).
public enum ICMPv6Unreachable: UInt8, Sendable {
  case noRoute = 0, prohibited = 1, beyondScope = 2, address = 3, port = 4, sourcePolicy = 5, rejectRoute = 6
}

/// An error message to be sent: type, code, and the four bytes behind the checksum.
@frozen public struct ICMPv6Error: Sendable, BitwiseCopyable, Equatable {
  public let type: UInt8
  public let code: UInt8
  public let value: UInt32

  @inlinable public init(type: UInt8, code: UInt8, value: UInt32 = 0) {
    self.type = type
    self.code = code
    self.value = value
  }
  @inlinable public static func unreachable(_ code: ICMPv6Unreachable) -> ICMPv6Error {
    ICMPv6Error(type: ICMPv6.unreachable, code: code.rawValue)
  }
  /// - Parameter mtu: bytes that the next link carries.
  @inlinable public static func tooBig(mtu: Int) -> ICMPv6Error {
    ICMPv6Error(type: ICMPv6.packetTooBig, code: 0, value: UInt32(clamping: mtu))
  }
  @inlinable public static var hopLimitExceeded: ICMPv6Error { ICMPv6Error(type: ICMPv6.timeExceeded, code: 0) }
  @inlinable public static var reassemblyTimeExceeded: ICMPv6Error { ICMPv6Error(type: ICMPv6.timeExceeded, code: 1) }
  /// A wrong field (code 0); `at` is its offset from the IPv6 header.
  @inlinable public static func badField(at: Int) -> ICMPv6Error { ICMPv6Error(type: ICMPv6.parameterProblem, code: 0, value: UInt32(clamping: at)) }
  @inlinable public static func unknownNext(at: Int) -> ICMPv6Error { ICMPv6Error(type: ICMPv6.parameterProblem, code: 1, value: UInt32(clamping: at)) }
  @inlinable public static func unknownOption(at: Int) -> ICMPv6Error { ICMPv6Error(type: ICMPv6.parameterProblem, code: 2, value: UInt32(clamping: at)) }
  /// The first fragment has not all headers (RFC 7112, section 5).
  @inlinable public static var incompleteChain: ICMPv6Error { ICMPv6Error(type: ICMPv6.parameterProblem, code: 3) }
}
