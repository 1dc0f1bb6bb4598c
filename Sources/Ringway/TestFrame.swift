// The frames that PacketGenerator sends and PacketReceiver checks.
//
//     0   destination, source MAC, 0x0800                       Ethernet
//     14  IPv4 header, 20 bytes, no options, do not fragment
//     34  UDP header
//     42  0x5257 | run | sequence, 48 bits | time, 64 bits       18 bytes, big endian
//     60  pattern: byte i of the frame is 31 i + 7               up to the frame's end
//
// A receiver knows every byte but the sequence number and the time, and those are covered by UDP's
// checksum: damage of any kind shows.

public import Wire

/// What is the same in all frames of a run.
public struct TestStream: Equatable, Sendable {
  public var destination: MACAddress
  public var source: MACAddress
  /// IPv4 addresses, host order. The defaults lie in 198.18.0.0/15 (RFC 2544).
  public var destinationAddress: UInt32 = 0xc613_0001
  public var sourceAddress: UInt32 = 0xc612_0001
  public var destinationPort: UInt16 = 9
  public var sourcePort: UInt16 = 9000
  /// Tells runs apart.
  public var run: UInt16

  public init(destination: MACAddress, source: MACAddress, run: UInt16) {
    self.destination = destination
    self.source = source
    self.run = run
  }
}

/// Where things are in a test frame, in bytes from its start.
public enum TestFrame {
  public static let minimumSize = 60
  /// Largest size: what an IPv4 packet can hold.
  public static let maximumSize = 14 + 65535
  public static let magic: UInt16 = 0x5257
  @usableFromInline static let ip = 14
  @usableFromInline static let udp = 34
  static let udpChecksum = 40
  static let magicOffset = 42
  static let runOffset = 44
  static let sequenceOffset = 46
  static let timeOffset = 52
  static let patternOffset = 60
  /// Sequence numbers have 48 bits.
  public static let sequenceLimit: UInt64 = 1 << 48

  /// A frame of `size` bytes with sequence number 0 and time 0, its UDP checksum not yet final:
  /// `sum` is the ones' complement sum of everything it covers but those two.
  static func template(_ stream: TestStream, size: Int) -> (bytes: [UInt8], sum: UInt32) {
    func be16(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 0xff), UInt8(value & 0xff)] }
    func be32(_ value: UInt32) -> [UInt8] { be16(Int(value >> 16)) + be16(Int(value & 0xffff)) }
    let addresses = be32(stream.sourceAddress) + be32(stream.destinationAddress)
    let udpLength = size - udp
    var header: [UInt8] = [0x45, 0] + be16(size - ip) + [0, 0, 0x40, 0, 64, 17, 0, 0] + addresses
    let checksum = InternetChecksum.of(header)
    header[10] = UInt8(checksum >> 8)
    header[11] = UInt8(checksum & 0xff)
    var datagram = be16(Int(stream.sourcePort)) + be16(Int(stream.destinationPort)) + be16(udpLength) + [0, 0]
    datagram += be16(Int(magic)) + be16(Int(stream.run)) + [UInt8](repeating: 0, count: 14)
    datagram += (patternOffset..<max(patternOffset, size)).map(pattern)
    let sum = InternetChecksum.sum(addresses + [0, 17] + be16(udpLength) + datagram)
    let bytes = Ethernet.header(to: stream.destination, from: stream.source, type: Ethernet.typeIPv4) + header + datagram
    return (bytes, UInt32(sum))
  }

  static func pattern(_ offset: Int) -> UInt8 { UInt8(truncatingIfNeeded: offset &* 31 &+ 7) }

  /// The UDP checksum of a frame (RFC 768: a sum of zero is sent as all ones).
  @inline(__always) static func checksum(sum: UInt32, sequence: UInt64, time: UInt64) -> UInt16 {
    var total = UInt64(sum)
    total &+= sequence >> 32 & 0xffff
    total &+= sequence >> 16 & 0xffff
    total &+= sequence & 0xffff
    total &+= time >> 48
    total &+= time >> 32 & 0xffff
    total &+= time >> 16 & 0xffff
    total &+= time & 0xffff
    total = (total & 0xffff) &+ total >> 16
    total = (total & 0xffff) &+ total >> 16
    let folded = ~UInt16(truncatingIfNeeded: total)
    return folded == 0 ? 0xffff : folded
  }
}
