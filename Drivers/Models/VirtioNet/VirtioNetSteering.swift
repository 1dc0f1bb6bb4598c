// Which receive queue a frame goes to (clauses 5.1.6.4.3 and 5.1.6.5.6 to 5.1.6.5.7).
//
// With RSS: a Toeplitz hash of addresses and ports, and the driver's indirection table. Without: the
// queue pair over which the driver last sent a frame of the same flow.

import ModelKit

/// The device's steering, as the driver configured it.
final class VirtioModelSteering {
  /// rss_max_key_size, rss_max_indirection_table_length.
  static let keyLimit = 40
  static let tableLimit = 128
  /// supported_hash_types: IPv4, TCPv4, UDPv4, IPv6, TCPv6, UDPv6.
  static let supportedTypes: UInt32 = 0x3f
  private static let flowCount = 1024

  let pairs: Int
  private(set) var activePairs = 1
  private(set) var hashTypes: UInt32 = 0
  private(set) var table: [UInt16] = []
  private(set) var unclassified: UInt16 = 0
  private var toeplitz = Toeplitz(key: [])
  private(set) var usesTable = false
  /// By flow: queue pair, or `unknown`.
  private var flows: [UInt16]
  private static let unknown: UInt16 = 0xffff

  init(pairs: Int) {
    self.pairs = pairs
    flows = Array(repeating: Self.unknown, count: Self.flowCount)
  }

  func reset() {
    activePairs = 1
    hashTypes = 0
    usesTable = false
    forgetFlows()
  }

  private func forgetFlows() { for i in flows.indices { flows[i] = Self.unknown } }

  /// VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET: back to steering by flows.
  func setPairs(_ count: Int) -> Bool {
    guard count >= 1, count <= pairs else { return false }
    activePairs = count
    usesTable = false
    forgetFlows()
    return true
  }

  /// VIRTIO_NET_CTRL_MQ_RSS_CONFIG. - Parameter data: the command's, as the standard lays it out.
  func configureTable(_ data: [UInt8]) -> Bool {
    func word(_ at: Int) -> Int { Int(data[at]) | Int(data[at + 1]) << 8 }
    guard data.count >= 8 else { return false }
    let types = UInt32(word(0)) | UInt32(word(2)) << 16
    let mask = word(4)
    let size = mask + 1
    guard mask & size == 0, size <= Self.tableLimit, data.count >= 8 + 2 * size + 3 else { return false }
    let queues = (0..<size).map { word(8 + 2 * $0) }
    let senders = word(8 + 2 * size)
    let keyAt = 8 + 2 * size + 3
    let keySize = Int(data[keyAt - 1])
    guard types & ~Self.supportedTypes == 0, keySize <= Self.keyLimit, data.count == keyAt + keySize,
      queues.allSatisfy({ $0 < pairs }), word(6) < pairs, senders >= 1, senders <= pairs
    else { return false }
    hashTypes = types
    table = queues.map { UInt16($0) }
    unclassified = UInt16(word(6))
    toeplitz = Toeplitz(key: Array(data[keyAt...]))
    activePairs = max(senders, (queues.max() ?? 0) + 1)
    usesTable = true
    return true
  }

  /// VIRTIO_NET_CTRL_MQ_HASH_CONFIG: hashes for reports alone.
  func configureHash(_ data: [UInt8]) -> Bool {
    guard data.count >= 13, Int(data[12]) <= Self.keyLimit, data.count == 13 + Int(data[12]) else { return false }
    let types = (0..<4).reduce(UInt32(0)) { $0 | UInt32(data[$1]) << UInt32(8 * $1) }
    guard types & ~Self.supportedTypes == 0 else { return false }
    hashTypes = types
    toeplitz = Toeplitz(key: Array(data[13...]))
    return true
  }

  /// The hash of a frame and the report's name for it (clause 5.1.6.4.3.1); 0 and 0 without one.
  func hash(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders) -> (value: UInt32, report: UInt16) {
    let base: UInt32 = headers.isIPv4 ? 0 : 3
    guard hashTypes != 0, headers.network != .none else { return (0, 0) }
    func wants(_ bit: UInt32) -> Bool { hashTypes & 1 << bit != 0 }
    if headers.isTCP, wants(base + 1), let value = unsafe toeplitz.hash(frame, headers, over: .addressesAndPorts) {
      return (value, UInt16(base + 2))
    }
    if headers.isUDP, wants(base + 2), let value = unsafe toeplitz.hash(frame, headers, over: .addressesAndPorts) {
      return (value, UInt16(base + 3))
    }
    if wants(base), let value = unsafe toeplitz.hash(frame, headers, over: .addresses) {
      return (value, UInt16(base + 1))
    }
    return (0, 0)
  }

  /// The pair for a frame whose hash is known.
  func pair(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders, hash: UInt32, report: UInt16) -> Int {
    if usesTable { return Int(report == 0 ? unclassified : table[Int(hash) & (table.count - 1)]) }
    guard activePairs > 1 else { return 0 }
    let flow = unsafe Self.flow(frame, headers)
    let known = flows[flow % Self.flowCount]
    return known == Self.unknown ? flow % activePairs : Int(known) % activePairs
  }

  /// Remembers over which pair a flow is sent.
  func learn(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders, pair: Int) {
    flows[unsafe Self.flow(frame, headers) % Self.flowCount] = UInt16(truncatingIfNeeded: pair)
  }

  /// The same number in both directions: addresses and ports, or station addresses.
  private static func flow(_ frame: UnsafeRawBufferPointer, _ headers: ParsedHeaders) -> Int {
    var mix: UInt32 = 0
    let at = headers.networkOffset
    switch headers.network {
    case .none:
      mix = unsafe frame.big32(0) ^ frame.big32(6) ^ UInt32(frame.big16(4) ^ frame.big16(10))
    case .ipv4: mix = unsafe frame.big32(at + 12) ^ frame.big32(at + 16)
    case .ipv6: for i in 0..<8 { mix ^= unsafe frame.big32(at + 8 + 4 * i) }
    }
    if headers.transport != .none {
      mix ^= unsafe UInt32(frame.big16(headers.transportOffset) ^ frame.big16(headers.transportOffset + 2)) << 8
    }
    return Int(mix ^ mix >> 10 ^ mix >> 20) & 0xffff
  }
}
