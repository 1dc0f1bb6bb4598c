// What a program asks about an interface by name: addresses and sizes that it would look up with the system's calls.

/// The payload of a `query`: the interface's name, 64 bytes with NULs behind it.
public struct PortQuery: Equatable, Sendable {
  public static let size = NetmapLayout.nameSize
  /// "ix0".
  public var name: String

  public init(name: String) { self.name = name }

  /// EINVAL for a wrong length, or a name without an end or without a character.
  public init(decoding bytes: [UInt8]) throws(NetmapError) {
    guard bytes.count == Self.size else { throw wrongLength("A query", bytes.count, Self.size) }
    guard let name = bytes.text(0, Self.size), !name.isEmpty else {
      throw NetmapError(.EINVAL, "The query's name is empty, has no end or is not UTF-8.")
    }
    self.name = name
  }

  public func encoded() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Self.size)
    bytes.put(name, at: 0, Self.size)
    return bytes
  }
}

/// The answer's payload, 40 bytes; ENXIO when there is no such interface.
///
///     MAC address @0 · zero u16@6 · MTU u32@8 · interface flags u32@12 · tx rings u16@16 · rx rings u16@18 ·
///     host tx rings u16@20 · host rx rings u16@22 · tx slots u32@24 · rx slots u32@28 · region id u16@32 · zero@34
public struct PortQueryReply: Equatable, Sendable {
  public static let size = 40
  /// Six bytes.
  public private(set) var address: [UInt8]
  /// Bytes.
  public var mtu: UInt32
  /// `IFF_UP` and the like, Linux's numbers (netdevice(7)).
  public var flags: UInt32
  public var transmitRings: UInt16 = 0
  public var receiveRings: UInt16 = 0
  public var hostTransmitRings: UInt16 = 0
  public var hostReceiveRings: UInt16 = 0
  public var transmitSlots: UInt32 = 0
  public var receiveSlots: UInt32 = 0
  public var memoryID: UInt16 = 0

  /// Of `address` the first six bytes are taken; missing ones are 0.
  public init(address: [UInt8], mtu: UInt32, flags: UInt32) {
    self.address = Array((address + [UInt8](repeating: 0, count: 6)).prefix(6))
    self.mtu = mtu
    self.flags = flags
  }

  public init(decoding bytes: [UInt8]) throws(NetmapError) {
    guard bytes.count == Self.size else { throw wrongLength("The answer to a query", bytes.count, Self.size) }
    self.init(address: bytes.part(0, 6), mtu: bytes.u32(8), flags: bytes.u32(12))
    transmitRings = bytes.u16(16)
    receiveRings = bytes.u16(18)
    hostTransmitRings = bytes.u16(20)
    hostReceiveRings = bytes.u16(22)
    transmitSlots = bytes.u32(24)
    receiveSlots = bytes.u32(28)
    memoryID = bytes.u16(32)
  }

  public func encoded() -> [UInt8] {
    var bytes = address + [UInt8](repeating: 0, count: Self.size - 6)
    bytes.put(mtu, at: 8)
    bytes.put(flags, at: 12)
    bytes.put(transmitRings, at: 16)
    bytes.put(receiveRings, at: 18)
    bytes.put(hostTransmitRings, at: 20)
    bytes.put(hostReceiveRings, at: 22)
    bytes.put(transmitSlots, at: 24)
    bytes.put(receiveSlots, at: 28)
    bytes.put(memoryID, at: 32)
    return bytes
  }
}
