// Where a function sits: domain, bus, device, function.

/// The address of a PCI function, written as sysfs does: `0000:03:00.0`, all hexadecimal.
public struct PCIAddress: Hashable, Sendable, Comparable, CustomStringConvertible {
  /// The segment group. Wider than 16 bits for the domains that Linux makes up (VMD).
  public let domain: UInt32
  public let bus: UInt8
  /// 0 to 31.
  public let device: UInt8
  /// 0 to 7.
  public let function: UInt8

  /// Nil when `device` or `function` is out of range.
  public init?(domain: UInt32 = 0, bus: UInt8, device: UInt8, function: UInt8) {
    guard device < 32, function < 8 else { return nil }
    self.domain = domain
    self.bus = bus
    self.device = device
    self.function = function
  }

  /// Parses `0000:03:00.0`, or `03:00.0` for domain 0.
  public init(_ text: String) throws(PCIAddressError) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 2 || parts.count == 3, let last = parts.last else { throw .malformed(text) }
    let slot = last.split(separator: ".", omittingEmptySubsequences: false)
    guard slot.count == 2,
      let domain = parts.count == 3 ? Self.hexadecimal(parts[0], digits: 1...8) : 0,
      let bus = Self.hexadecimal(parts[parts.count - 2], digits: 1...2),
      let device = Self.hexadecimal(slot[0], digits: 1...2),
      let function = Self.hexadecimal(slot[1], digits: 1...1)
    else { throw .malformed(text) }
    guard device < 32, function < 8,
      let address = Self(domain: domain, bus: UInt8(bus), device: UInt8(device), function: UInt8(function))
    else { throw .outOfRange(text) }
    self = address
  }

  private static func hexadecimal(_ text: Substring, digits: ClosedRange<Int>) -> UInt32? {
    guard digits.contains(text.utf8.count), text.allSatisfy({ $0.isASCII && $0.isHexDigit }) else { return nil }
    return UInt32(text, radix: 16)
  }

  public var description: String {
    "\(hex(domain, digits: 4)):\(hex(bus, digits: 2)):\(hex(device, digits: 2)).\(function)"
  }

  public static func < (left: Self, right: Self) -> Bool {
    (left.domain, left.bus, left.device, left.function) < (right.domain, right.bus, right.device, right.function)
  }
}

public enum PCIAddressError: Error, Equatable, CustomStringConvertible {
  case malformed(String)
  case outOfRange(String)

  public var description: String {
    switch self {
    case .malformed(let text):
      "\"\(text)\" is no PCI address. Write it as 0000:03:00.0 or 03:00.0; `ringway devices` lists them."
    case .outOfRange(let text):
      "\"\(text)\" names a device above 1f or a function above 7. `ringway devices` lists the addresses in use."
    }
  }
}

/// `value` in hexadecimal, filled up with zeros to at least `digits`.
public func hex(_ value: some BinaryInteger, digits: Int) -> String {
  let text = String(value, radix: 16)
  return String(repeating: "0", count: max(0, digits - text.utf8.count)) + text
}
