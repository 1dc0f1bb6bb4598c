// Interfaces, addresses and routes as the kernel speaks of them (rtnetlink(7)). What was dumped can
// be sent back: an answer to GETADDR is a request for NEWADDR but for its type and flags.

import CRingway
import Glibc

/// One routing socket. Bounded: a kernel that does not answer within a second is an error.
struct Netlink: ~Copyable {
  private let descriptor: Int32

  init() throws(EffectError) {
    descriptor = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { throw EffectError(operation: "open", path: "rtnetlink", errno: errno) }
    var patience = timeval(tv_sec: 1, tv_usec: 0)
    // SAFETY: setsockopt reads the structure given.
    unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
  }

  deinit { close(descriptor) }

  /// Every message of a dump.
  func dump(_ type: UInt16, family: UInt8) throws(EffectError) -> [NetlinkMessage] {
    // The longest of the family headers: struct rtmsg and struct ifinfomsg take less or as much.
    let request = NetlinkMessage(type: type, payload: [family] + [UInt8](repeating: 0, count: 15))
    try send(request, flags: UInt16(NLM_F_REQUEST | NLM_F_DUMP))
    var result: [NetlinkMessage] = []
    while true {
      for message in try receive() {
        if message.type == UInt16(NLMSG_DONE) { return result }
        if message.type == UInt16(NLMSG_ERROR) { throw failure("dump", message) }
        result.append(message)
      }
    }
  }

  /// Sends a request and waits for its answer.
  func talk(_ message: NetlinkMessage, flags: Int32 = NLM_F_CREATE | NLM_F_REPLACE) throws(EffectError) {
    try send(message, flags: UInt16(NLM_F_REQUEST | NLM_F_ACK | flags))
    for answer in try receive() where answer.type == UInt16(NLMSG_ERROR) {
      if answer.int32(at: 0) != 0 { throw failure("request \(message.type)", answer) }
    }
  }

  private func failure(_ operation: String, _ answer: NetlinkMessage) -> EffectError {
    EffectError(operation: operation, path: "rtnetlink", errno: -(answer.int32(at: 0) ?? -EIO))
  }

  private func send(_ message: NetlinkMessage, flags: UInt16) throws(EffectError) {
    let bytes = message.bytes(flags: flags)
    // SAFETY: send reads the array's own bytes.
    let count = unsafe bytes.withUnsafeBytes { unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, 0) }
    guard count == bytes.count else { throw EffectError(operation: "send", path: "rtnetlink", errno: errno) }
  }

  private func receive() throws(EffectError) -> [NetlinkMessage] {
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    // SAFETY: recv fills at most the array's own length.
    let count = unsafe buffer.withUnsafeMutableBytes { unsafe recv(descriptor, $0.baseAddress, $0.count, 0) }
    guard count > 0 else { throw EffectError(operation: "receive", path: "rtnetlink", errno: count < 0 ? errno : EIO) }
    return NetlinkMessage.parse(Array(buffer[..<count]))
  }
}

/// A message: its type, and what follows struct nlmsghdr.
struct NetlinkMessage: Hashable {
  var type: UInt16
  var payload: [UInt8]

  /// struct nlmsghdr (16 bytes: length, type, flags, sequence, port) and the payload.
  func bytes(flags: UInt16) -> [UInt8] {
    var header = Self.words(UInt32(16 + payload.count))
    header += [UInt8(truncatingIfNeeded: type), UInt8(type >> 8), UInt8(truncatingIfNeeded: flags), UInt8(flags >> 8)]
    return header + Self.words(1) + Self.words(0) + payload
  }

  static func parse(_ bytes: [UInt8]) -> [NetlinkMessage] {
    var result: [NetlinkMessage] = []
    var offset = 0
    while offset + 16 <= bytes.count {
      let length = (0..<4).reduce(0) { $0 | Int(bytes[offset + $1]) << (8 * $1) }
      guard length >= 16, offset + length <= bytes.count else { break }
      let type = UInt16(bytes[offset + 4]) | UInt16(bytes[offset + 5]) << 8
      result.append(NetlinkMessage(type: type, payload: Array(bytes[(offset + 16)..<(offset + length)])))
      offset += (length + 3) & ~3
    }
    return result
  }

  /// Where the value of attribute `wanted` lies, behind a family header of `header` bytes.
  func attribute(_ wanted: Int, after header: Int) -> Range<Int>? {
    var offset = header
    while offset + 4 <= payload.count {
      let length = Int(payload[offset]) | Int(payload[offset + 1]) << 8
      guard length >= 4, offset + length <= payload.count else { return nil }
      if (Int(payload[offset + 2]) | Int(payload[offset + 3]) << 8) & 0x3fff == wanted {
        return offset + 4..<offset + length
      }
      offset += (length + 3) & ~3
    }
    return nil
  }

  mutating func append(attribute: Int, _ value: [UInt8]) {
    let length = 4 + value.count
    payload += [UInt8(truncatingIfNeeded: length), UInt8(length >> 8), UInt8(attribute), 0] + value
    payload += [UInt8](repeating: 0, count: (4 - length % 4) % 4)
  }

  func int32(at offset: Int) -> Int32? {
    guard offset + 4 <= payload.count else { return nil }
    return (0..<4).reduce(0) { $0 | Int32(bitPattern: UInt32(payload[offset + $1]) << UInt32(8 * $1)) }
  }

  mutating func setInt32(_ value: Int32, at offset: Int) {
    guard offset + 4 <= payload.count else { return }
    payload.replaceSubrange(offset..<offset + 4, with: Self.words(UInt32(bitPattern: value)))
  }

  /// Little-endian, as every machine this runs on.
  static func words(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
}
