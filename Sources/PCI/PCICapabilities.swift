// The parts of configuration space that have names of their own.

/// The command register (PCI Local Bus Specification 3.0, 6.2.2).
public struct PCICommand: OptionSet, Sendable, Hashable {
  public let rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }
  public static let ioSpace = PCICommand(rawValue: 1 << 0)
  /// The function answers accesses to its memory BARs.
  public static let memorySpace = PCICommand(rawValue: 1 << 1)
  /// The function may do DMA.
  public static let busMaster = PCICommand(rawValue: 1 << 2)
  public static let interruptDisable = PCICommand(rawValue: 1 << 10)
}

/// The status register (PCI Local Bus Specification 3.0, 6.2.3).
public struct PCIStatus: OptionSet, Sendable, Hashable {
  public let rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }
  public static let interrupt = PCIStatus(rawValue: 1 << 3)
  public static let capabilityList = PCIStatus(rawValue: 1 << 4)
  public static let masterDataParityError = PCIStatus(rawValue: 1 << 8)
  public static let receivedTargetAbort = PCIStatus(rawValue: 1 << 12)
  public static let receivedMasterAbort = PCIStatus(rawValue: 1 << 13)
  public static let signalledSystemError = PCIStatus(rawValue: 1 << 14)
  public static let parityError = PCIStatus(rawValue: 1 << 15)
}

/// An entry of a capability list.
public struct PCICapability: Hashable, Sendable {
  public let id: UInt16
  /// In bytes from the start of configuration space.
  public let offset: Int
  /// Of extended capabilities; 0 otherwise.
  public let version: Int

  public static let powerManagement: UInt16 = 0x01
  public static let msi: UInt16 = 0x05
  public static let vendorSpecific: UInt16 = 0x09
  public static let express: UInt16 = 0x10
  public static let msix: UInt16 = 0x11
}

/// Why a capability list could not be followed to its end.
public enum PCICapabilityFault: Hashable, Sendable, CustomStringConvertible {
  case loop(Int)
  case outside(Int)

  public var description: String {
    switch self {
    case .loop(let offset): "the capability list comes back to offset 0x\(hex(offset, digits: 2))"
    case .outside(let offset): "the capability list points to offset 0x\(hex(offset, digits: 2)), where none can be"
    }
  }
}

/// MSI-X (PCI Local Bus Specification 3.0, 6.8.2).
public struct PCIMSIX: Hashable, Sendable {
  /// Of the capability, in bytes.
  public let offset: Int
  /// 1 to 2048; the table has 16 bytes for each.
  public let vectors: Int
  public let isEnabled: Bool
  /// All vectors are masked, whatever their own mask bits say.
  public let isMasked: Bool
  /// The BAR that holds the table (0 to 5; 6 and 7 are reserved) and the table's place in it.
  public let tableBAR: Int
  public let tableOffset: Int
  /// The same for the pending bits.
  public let pendingBAR: Int
  public let pendingOffset: Int

  /// Bytes of the BAR that the table covers.
  public var tableRange: Range<Int> { tableOffset..<tableOffset + 16 * vectors }
}

/// PCI Express (PCI Express Base Specification, 7.5.3).
public struct PCIExpress: Hashable, Sendable {
  public let offset: Int
  public let version: Int
  /// 0 endpoint, 1 legacy endpoint, 4 root port, 9 integrated endpoint.
  public let portType: Int
  /// Function Level Reset is offered.
  public let canResetFunction: Bool
  /// Bytes in one packet on the link, as set.
  public let maxPayload: Int
  /// 1 is 2.5 GT/s, 2 is 5, 3 is 8, 4 is 16, 5 is 32.
  public let linkSpeed: Int
  public let linkWidth: Int
}
