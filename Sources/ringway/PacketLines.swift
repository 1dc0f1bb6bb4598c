// A line for each packet: time, addresses, what it is.

import Capture
import Glibc
import Packet
import Platform
import SystemPackage
import Wire

/// Lines on their way to standard output.
struct PacketLines: ~Copyable {
  /// Bytes of a frame that are looked at.
  let limit: Int
  private var text: [UInt8] = []

  init(limit: Int) { self.limit = limit }

  mutating func append(_ packet: borrowing Packet, time: UInt64) throws(CaptureError) {
    var head = [UInt8](repeating: 0, count: min(128, limit, packet.count))
    _ = unsafe head.withUnsafeMutableBytes { unsafe packet.copyBytes(to: $0) }
    text += Self.line(head, length: packet.count, time: time).utf8
    text.append(10)
    if text.count > 65536 { try flush() }
  }

  /// Adds a line that is ready.
  mutating func append(_ line: String) throws(CaptureError) {
    text += line.utf8
    text.append(10)
    if text.count > 65536 { try flush() }
  }

  mutating func flush() throws(CaptureError) {
    var done = 0
    while done < text.count {
      // SAFETY: write reads the array's own bytes.
      let count = unsafe text.withUnsafeBytes { unsafe write(1, $0.baseAddress! + done, $0.count - done) }
      let failed = errno
      if count < 0 && failed == EINTR { continue }
      if count <= 0 {
        text = []
        let path = "standard output"
        if failed == EPIPE { throw .readerGone(path: path) }
        if failed == ENOSPC { throw .full(path: path) }
        throw .write(SystemError("write", path, Errno(rawValue: failed)))
      }
      done += count
    }
    text.removeAll(keepingCapacity: true)
  }

  /// "12:34:56.123456789 02:… > ff:… IPv4 198.18.0.1.53 > 198.18.0.2.1024 UDP length 100".
  static func line(_ bytes: [UInt8], length: Int, time: UInt64) -> String {
    "\(clock(time)) \(PacketDecoder(bytes).description) length \(length)"
  }

  /// Time of day, UTC, in nanoseconds.
  static func clock(_ time: UInt64) -> String {
    func pad(_ value: UInt64, _ digits: Int) -> String {
      let text = String(value)
      return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
    let seconds = time / 1_000_000_000 % 86400
    return "\(pad(seconds / 3600, 2)):\(pad(seconds / 60 % 60, 2)):\(pad(seconds % 60, 2)).\(pad(time % 1_000_000_000, 9))"
  }
}

/// Names what the first bytes of a frame say. Bytes are untrusted and may end anywhere.
struct PacketDecoder: CustomStringConvertible {
  private let bytes: [UInt8]
  init(_ bytes: [UInt8]) { self.bytes = bytes }

  private func u8(_ at: Int) -> Int? { at < bytes.count ? Int(bytes[at]) : nil }
  private func u16(_ at: Int) -> Int? { at + 1 < bytes.count ? Int(bytes[at]) << 8 | Int(bytes[at + 1]) : nil }

  var description: String {
    guard let destination = MACAddress(bytes: bytes.prefix(6)), let source = MACAddress(bytes: bytes.dropFirst(6).prefix(6)),
      var type = u16(12)
    else { return "short frame" }
    var text = "\(source) > \(destination)"
    var at = 14
    while type == 0x8100 || type == 0x88a8, let tag = u16(at), let inner = u16(at + 2) {
      text += " vlan \(tag & 0xfff)"
      type = inner
      at += 4
    }
    switch type {
    case 0x0800: return text + " " + (ipv4(at) ?? "IPv4, cut")
    case 0x86dd: return text + " " + (ipv6(at) ?? "IPv6, cut")
    case 0x0806: return text + " " + (arp(at) ?? "ARP, cut")
    case ..<0x0600: return text + " 802.3"
    default: return text + " type 0x" + String(type, radix: 16)
    }
  }

  private func ipv4(_ at: Int) -> String? {
    guard let first = u8(at), let proto = u8(at + 9), let fragment = u16(at + 6), let source = address4(at + 12),
      let destination = address4(at + 16)
    else { return nil }
    if fragment & 0x1fff != 0 { return "IPv4 \(source) > \(destination) fragment at \((fragment & 0x1fff) * 8)" }
    return "IPv4 " + transport(proto, at + (first & 15) * 4, source, destination)
  }

  private func ipv6(_ at: Int) -> String? {
    guard let proto = u8(at + 6), let source = address6(at + 8), let destination = address6(at + 24) else { return nil }
    return "IPv6 " + transport(proto, at + 40, source, destination)
  }

  private func transport(_ proto: Int, _ at: Int, _ source: String, _ destination: String) -> String {
    let hosts = "\(source) > \(destination)"
    switch proto {
    case 6, 17:
      guard let from = u16(at), let to = u16(at + 2) else { return "\(hosts) \(proto == 6 ? "TCP" : "UDP")" }
      let ports = "\(source).\(from) > \(destination).\(to)"
      return proto == 17 ? "\(ports) UDP" : "\(ports) TCP\(flags(at + 13))"
    case 1, 58:
      let kind = u8(at).map { " type \($0)" } ?? ""
      return "\(hosts) \(proto == 1 ? "ICMP" : "ICMPv6")\(echo(proto, u8(at)) ?? kind)"
    default: return "\(hosts) protocol \(proto)"
    }
  }

  private func echo(_ proto: Int, _ type: Int?) -> String? {
    switch (proto, type) {
    case (1, 8), (58, 128): " echo request"
    case (1, 0), (58, 129): " echo reply"
    case (58, 135): " neighbour solicitation"
    case (58, 136): " neighbour advertisement"
    default: nil
    }
  }

  private func flags(_ at: Int) -> String {
    guard let bits = u8(at) else { return "" }
    let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"].enumerated().filter { bits >> $0.offset & 1 == 1 }
    return names.isEmpty ? "" : " " + names.map(\.element).joined(separator: ",")
  }

  private func arp(_ at: Int) -> String? {
    guard let operation = u16(at + 6), let sender = address4(at + 14), let target = address4(at + 24) else { return nil }
    return operation == 1 ? "ARP who has \(target), tell \(sender)" : "ARP \(sender) is at \(MACAddress(bytes: bytes.dropFirst(at + 8).prefix(6))?.description ?? "?")"
  }

  private func address4(_ at: Int) -> String? {
    at + 4 <= bytes.count ? bytes[at..<(at + 4)].map(String.init).joined(separator: ".") : nil
  }

  /// RFC 5952: lower case, the longest run of zeros as "::".
  private func address6(_ at: Int) -> String? {
    guard at + 16 <= bytes.count else { return nil }
    let groups = (0..<8).map { Int(bytes[at + 2 * $0]) << 8 | Int(bytes[at + 2 * $0 + 1]) }
    var best = 0..<0
    var start = 0
    for i in 0...8 {
      if i < 8 && groups[i] == 0 { continue }
      if i - start > max(best.count, 1) { best = start..<i }
      start = i + 1
    }
    func text(_ part: ArraySlice<Int>) -> String { part.map { String($0, radix: 16) }.joined(separator: ":") }
    if best.isEmpty { return text(groups[...]) }
    return text(groups[..<best.lowerBound]) + "::" + text(groups[best.upperBound...])
  }
}
