// ICMP (RFC 792 and those after it) and IGMP (RFC 2236, RFC 3376): numbers, and where fields lie.

/// ICMP's types and codes. A message is type, code, checksum, four octets of its own, then its data.
public enum ICMP {
  public static let headerSize = 8
  public static let echoReply: UInt8 = 0
  public static let unreachable: UInt8 = 3
  public static let sourceQuench: UInt8 = 4
  public static let redirect: UInt8 = 5
  public static let echo: UInt8 = 8
  public static let timeExceeded: UInt8 = 11
  public static let parameterProblem: UInt8 = 12
  public static let timestamp: UInt8 = 13
  public static let timestampReply: UInt8 = 14
  public static let maskRequest: UInt8 = 17
  public static let maskReply: UInt8 = 18

  /// Codes of `unreachable` (RFC 792; RFC 1122, section 3.2.2.1; RFC 1812, section 5.2.7.1).
  public enum Unreachable {
    public static let network: UInt8 = 0
    public static let host: UInt8 = 1
    public static let proto: UInt8 = 2
    public static let port: UInt8 = 3
    public static let fragmentationNeeded: UInt8 = 4
    public static let sourceRouteFailed: UInt8 = 5
    public static let filtered: UInt8 = 13
  }
  /// Codes of `redirect`.
  public static let redirectNetwork: UInt8 = 0
  public static let redirectHost: UInt8 = 1
  /// Codes of `timeExceeded`.
  public static let exceededInTransit: UInt8 = 0
  public static let exceededReassembly: UInt8 = 1

  /// Errors are never answered with errors (RFC 1122, section 3.2.2).
  public static func isError(_ type: UInt8) -> Bool {
    type == unreachable || type == sourceQuench || type == redirect || type == timeExceeded || type == parameterProblem
  }
}

/// IGMP's types; times on the wire are in tenths of a second.
public enum IGMP {
  public static let headerSize = 8
  public static let query: UInt8 = 0x11
  public static let reportV1: UInt8 = 0x12
  public static let reportV2: UInt8 = 0x16
  public static let leave: UInt8 = 0x17
  public static let reportV3: UInt8 = 0x22
  /// Octets of a version 3 query without sources, and of a group record without any.
  public static let queryV3Size = 12
  public static let recordSize = 8
  /// 224.0.0.2
  public static let allRouters = IPv4Address(224, 0, 0, 2)
  /// 224.0.0.22: where version 3 reports go.
  public static let allReportRouters = IPv4Address(224, 0, 0, 22)
  /// Group record types (RFC 3376, section 4.2.12).
  public static let modeIsInclude: UInt8 = 1
  public static let modeIsExclude: UInt8 = 2
  public static let changeToInclude: UInt8 = 3
  public static let changeToExclude: UInt8 = 4

  /// Maximum response and querier's interval codes: from 128 on a floating number (RFC 3376, section 4.1.1).
  public static func decode(_ code: UInt8) -> Int {
    code < 128 ? Int(code) : (Int(code & 15) | 16) << (Int(code >> 4 & 7) + 3)
  }
}
