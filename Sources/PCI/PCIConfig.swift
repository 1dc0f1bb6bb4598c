// Configuration space, parsed from a copy (PCI Local Bus Specification 3.0, chapter 6; PCI Express
// Base Specification, chapter 7). The copy comes from sysfs or from a held function; 64 bytes of it
// (all that an unprivileged reader of sysfs gets) are enough for the header.

/// A copy of one function's configuration space.
public struct PCIConfig: Sendable {
  /// 64, 256 or 4096 bytes, little-endian.
  public let bytes: [UInt8]
  /// The standard capabilities in list order.
  public let capabilities: [PCICapability]
  /// The extended capabilities (from offset 0x100) in list order.
  public let extendedCapabilities: [PCICapability]
  /// Why the walk over the capabilities stopped before its end, if it did.
  public let capabilityFault: PCICapabilityFault?

  /// - Throws: `tooShort` below 64 bytes, `gone` when the function answers all ones.
  public init(bytes: [UInt8]) throws(PCIConfigError) {
    guard bytes.count >= 64 else { throw .tooShort(count: bytes.count) }
    guard bytes[0] != 0xff || bytes[1] != 0xff else { throw .gone }
    self.bytes = bytes
    let standard = Self.walkStandard(bytes)
    capabilities = standard.list
    let isExpress = standard.list.contains { $0.id == PCICapability.express }
    let extended = isExpress ? Self.walkExtended(bytes) : (list: [], fault: nil)
    extendedCapabilities = extended.list
    capabilityFault = standard.fault ?? extended.fault
  }

  /// Reads `count` bytes (a multiple of 4) of a held function.
  public init(of function: any PCIFunction, count: Int = 256) throws(PCIConfigError) {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count)
    for offset in stride(from: 0, to: count, by: 4) {
      let word = function.readConfig32(at: offset)
      for shift in stride(from: 0, to: 32, by: 8) { bytes.append(UInt8(truncatingIfNeeded: word >> UInt32(shift))) }
    }
    try self.init(bytes: bytes)
  }

  public var identity: PCIIdentity {
    PCIIdentity(
      vendor: read16(0x00), device: read16(0x02), subsystemVendor: isBridge ? 0 : read16(0x2c),
      subsystemDevice: isBridge ? 0 : read16(0x2e), revision: bytes[0x08], classCode: read32(0x08) >> 8)
  }
  /// Header type 1: a bridge between two buses.
  public var isBridge: Bool { bytes[0x0e] & 0x7f == 1 }
  public var isMultifunction: Bool { bytes[0x0e] & 0x80 != 0 }
  public var command: PCICommand { PCICommand(rawValue: read16(0x04)) }
  public var status: PCIStatus { PCIStatus(rawValue: read16(0x06)) }

  /// The MSI-X capability, when the function has one and all of it is in this copy.
  public var msix: PCIMSIX? {
    guard let offset = offset(of: PCICapability.msix), offset + 12 <= bytes.count else { return nil }
    let table = read32(offset + 4)
    let pending = read32(offset + 8)
    let control = read16(offset + 2)
    return PCIMSIX(
      offset: offset, vectors: Int(control & 0x7ff) + 1, isEnabled: control & 0x8000 != 0,
      isMasked: control & 0x4000 != 0, tableBAR: Int(table & 7), tableOffset: Int(table & ~7),
      pendingBAR: Int(pending & 7), pendingOffset: Int(pending & ~7))
  }

  /// The PCI Express capability, when the function has one and all of it is in this copy.
  public var express: PCIExpress? {
    guard let offset = offset(of: PCICapability.express), offset + 0x14 <= bytes.count else { return nil }
    let capabilities = read16(offset + 2)
    let link = read16(offset + 0x12)
    return PCIExpress(
      offset: offset, version: Int(capabilities & 0xf), portType: Int(capabilities >> 4 & 0xf),
      canResetFunction: read32(offset + 4) & 1 << 28 != 0, maxPayload: 128 << Int(read16(offset + 8) >> 5 & 7),
      linkSpeed: Int(link & 0xf), linkWidth: Int(link >> 4 & 0x3f))
  }

  /// Where the first capability with this id lies.
  public func offset(of capability: UInt16) -> Int? { capabilities.first { $0.id == capability }?.offset }

  /// Little-endian reads; the offset must lie inside the copy.
  func read16(_ offset: Int) -> UInt16 { UInt16(bytes[offset]) | UInt16(bytes[offset + 1]) << 8 }
  func read32(_ offset: Int) -> UInt32 { UInt32(read16(offset)) | UInt32(read16(offset + 2)) << 16 }

  /// Follows the list at 0x34. Each entry lies at or above 0x40 on a word boundary and is visited
  /// once, so a list that bites its tail ends the walk.
  private static func walkStandard(_ bytes: [UInt8]) -> (list: [PCICapability], fault: PCICapabilityFault?) {
    guard bytes[0x06] & 0x10 != 0, bytes.count >= 256 else { return ([], nil) }
    var list: [PCICapability] = []
    var seen: Set<Int> = []
    var offset = Int(bytes[0x34]) & ~3
    while offset != 0 {
      guard offset >= 0x40, offset + 2 <= 256 else { return (list, .outside(offset)) }
      guard seen.insert(offset).inserted else { return (list, .loop(offset)) }
      list.append(PCICapability(id: UInt16(bytes[offset]), offset: offset, version: 0))
      offset = Int(bytes[offset + 1]) & ~3
    }
    return (list, nil)
  }

  /// Follows the list at 0x100 (PCI Express Base Specification, 7.6.3).
  private static func walkExtended(_ bytes: [UInt8]) -> (list: [PCICapability], fault: PCICapabilityFault?) {
    guard bytes.count >= 4096 else { return ([], nil) }
    var list: [PCICapability] = []
    var seen: Set<Int> = []
    var offset = 0x100
    while offset != 0 {
      guard offset >= 0x100, offset + 4 <= 4096 else { return (list, .outside(offset)) }
      guard seen.insert(offset).inserted else { return (list, .loop(offset)) }
      let header = (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
      if header == 0 || header == .max { break }
      list.append(
        PCICapability(id: UInt16(truncatingIfNeeded: header), offset: offset, version: Int(header >> 16 & 0xf)))
      offset = Int(header >> 20) & ~3
    }
    return (list, nil)
  }
}

public enum PCIConfigError: Error, Equatable, CustomStringConvertible {
  case tooShort(count: Int)
  case gone

  public var description: String {
    switch self {
    case .tooShort(let count):
      "configuration space gave \(count) bytes, its header alone has 64. Check the device with `ringway devices`."
    case .gone:
      "the function answers all ones: it was unplugged or has lost power. Check with `ringway devices`."
    }
  }
}
