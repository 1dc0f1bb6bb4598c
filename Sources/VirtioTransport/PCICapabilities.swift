// Where a virtio PCI device keeps its structures (virtio 1.2, clause 4.1.4).
//
// The list is the device's word: every pointer, length and BAR number is checked, and the walk is
// bounded, so a list that runs in a circle ends.

public import PCI

/// One structure: which BAR, where in it, how long.
public struct VirtioPCIStructure: Hashable, Sendable {
  /// cfg_type values.
  public enum Kind: UInt8, Sendable {
    case common = 1
    case notify = 2
    case interruptStatus = 3
    case device = 4
    case pciAccess = 5
  }
  public let kind: Kind
  /// Base address register, 0 to 5.
  public let bar: Int
  /// Bytes from the start of the BAR.
  public let offset: Int
  /// Bytes.
  public let count: Int
  /// Notification structures: bytes between the addresses of two notify offsets; else 0.
  public let notifyMultiplier: Int
}

extension PCIFunction {
  /// The vendor-specific capabilities that describe virtio structures, in the list's order. The
  /// first of a kind that can be used is the one to use.
  public func virtioStructures() -> [VirtioPCIStructure] {
    // Status register 0x06, bit 4: there is a list; its first pointer is at 0x34.
    guard readConfig16(at: 0x06) & 0x10 != 0 else { return [] }
    var found: [VirtioPCIStructure] = []
    var at = Int(readConfig8(at: 0x34) & 0xfc)
    // 48 capabilities of 4 bytes are all that fit between 0x40 and 0x100.
    for _ in 0..<48 where at >= 0x40 {
      if readConfig8(at: at) == 0x09, let structure = virtioStructure(at: at) { found.append(structure) }
      at = Int(readConfig8(at: at + 1) & 0xfc)
    }
    return found
  }

  private func virtioStructure(at: Int) -> VirtioPCIStructure? {
    let length = Int(readConfig8(at: at + 2))
    guard length >= 16, at + 16 <= 256, let kind = VirtioPCIStructure.Kind(rawValue: readConfig8(at: at + 3)) else {
      return nil
    }
    let bar = Int(readConfig8(at: at + 4))
    // Values above 5 are reserved and to be ignored (clause 4.1.4).
    guard bar <= 5 else { return nil }
    var multiplier = 0
    if kind == .notify {
      guard length >= 20, at + 20 <= 256 else { return nil }
      multiplier = Int(readConfig32(at: at + 16))
      // An even power of two, or 0 when all queues share one address (clause 4.1.4.4.1).
      guard multiplier == 0 || (multiplier >= 2 && multiplier & (multiplier - 1) == 0) else { return nil }
    }
    return VirtioPCIStructure(
      kind: kind, bar: bar, offset: Int(readConfig32(at: at + 8)), count: Int(readConfig32(at: at + 12)),
      notifyMultiplier: multiplier)
  }
}
