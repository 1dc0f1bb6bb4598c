// ARP for Ethernet and IPv4 (RFC 826): 28 octets.

/// An ARP message between Ethernet stations about IPv4 addresses, as a value.
@frozen public struct ARPMessage: Equatable, Sendable {
  public static let size = 28
  public static let request: UInt16 = 1
  public static let reply: UInt16 = 2

  public var operation: UInt16
  public var senderHardware: MACAddress
  public var sender: IPv4Address
  public var targetHardware: MACAddress
  public var target: IPv4Address

  public init(
    operation: UInt16, senderHardware: MACAddress, sender: IPv4Address, targetHardware: MACAddress, target: IPv4Address
  ) {
    self.operation = operation
    self.senderHardware = senderHardware
    self.sender = sender
    self.targetHardware = targetHardware
    self.target = target
  }

  /// Reads a message. nil: shorter than 28 octets, or not about Ethernet (hardware type 1, or 6 for IEEE 802; 6 octets)
  /// and IPv4 (4 octets).
  public init?(unsafe start: UnsafeRawPointer, count: Int) {
    guard count >= Self.size, unsafe start.big16(0) == 1 || start.big16(0) == 6, unsafe start.big16(2) == Ethernet.typeIPv4,
      unsafe start.octet(4) == 6, unsafe start.octet(5) == 4
    else { return nil }
    unsafe operation = start.big16(6)
    unsafe senderHardware = MACAddress(rawValue: start.big48(8))
    unsafe sender = IPv4Address(rawValue: start.big32(14))
    unsafe targetHardware = MACAddress(rawValue: start.big48(18))
    unsafe target = IPv4Address(rawValue: start.big32(24))
  }

  /// Writes the message's 28 octets; the caller knows that there is room for them.
  public func write(unsafe start: UnsafeMutableRawPointer) {
    unsafe start.setBig16(1, 0)
    unsafe start.setBig16(Ethernet.typeIPv4, 2)
    unsafe start.setOctet(6, 4)
    unsafe start.setOctet(4, 5)
    unsafe start.setBig16(operation, 6)
    unsafe start.setBig48(senderHardware.rawValue, 8)
    unsafe start.setBig32(sender.rawValue, 14)
    unsafe start.setBig48(targetHardware.rawValue, 18)
    unsafe start.setBig32(target.rawValue, 24)
  }
}
