// PCI configuration space of a model (PCI Express Base Specification, chapter 7; PCI Local Bus
// Specification 3.0, chapter 6).

/// 4096 bytes, which of them a driver may change, and what follows from that.
public final class ModelConfiguration {
  private var bytes = [UInt8](repeating: 0, count: 4096)
  private var defaults: [UInt8]?
  /// Bits that configuration writes change.
  private var writable = [UInt8](repeating: 0, count: 4096)
  private var nextFree = 0x40
  private var lastCapability = 0
  /// Called after a write that started a function-level reset (device control, bit 15).
  public var onFunctionReset: () -> Void = {}
  /// Bytes behind which registers lie (virtio's access capability).
  public var window: Range<Int> = 0..<0
  /// Called before the window is read one access at a time, and after it was written.
  public var onWindowRead: () -> Void = {}
  public var onWindowWrite: () -> Void = {}
  private var expressCapability = 0

  /// - Parameter classCode: 24 bits; 0x020000 is an Ethernet controller.
  public init(
    vendor: UInt16, device: UInt16, subsystemVendor: UInt16 = 0, subsystemDevice: UInt16 = 0, revision: UInt8 = 0,
    classCode: UInt32 = 0x020000
  ) {
    put16(vendor, 0)
    put16(device, 2)
    put16(0x0010, 6)
    bytes[8] = revision
    bytes[9] = UInt8(truncatingIfNeeded: classCode)
    bytes[10] = UInt8(truncatingIfNeeded: classCode >> 8)
    bytes[11] = UInt8(truncatingIfNeeded: classCode >> 16)
    put16(subsystemVendor, 0x2c)
    put16(subsystemDevice, 0x2e)
    bytes[0x3d] = 1
    // Command: memory, bus master, parity, SERR, INTx disable. Line and cache line size are scratch.
    allow(0x0546, 4)
    writable[0x3c] = 0xff
    writable[0x0c] = 0xff
  }

  private func put16(_ value: UInt16, _ at: Int) {
    bytes[at] = UInt8(truncatingIfNeeded: value)
    bytes[at + 1] = UInt8(value >> 8)
  }
  private func allow(_ mask: UInt16, _ at: Int) {
    writable[at] = UInt8(truncatingIfNeeded: mask)
    writable[at + 1] = UInt8(mask >> 8)
  }

  /// Declares a memory BAR of `count` bytes (a power of two).
  public func setBAR(_ index: Int, count: Int, is64Bit: Bool, isPrefetchable: Bool = false) {
    let at = 0x10 + 4 * index
    bytes[at] = (is64Bit ? 4 : 0) | (isPrefetchable ? 8 : 0)
    let mask = ~UInt64(count - 1)
    for i in 0..<(is64Bit ? 8 : 4) { writable[at + i] = UInt8(truncatingIfNeeded: mask >> UInt64(8 * i)) }
  }

  /// Adds a capability behind the others.
  /// - Parameters:
  ///   - at: where; nil takes the next free place.
  ///   - body: what follows the two header bytes.
  ///   - mask: bits of `body` that a driver may change; shorter is padded with zeros.
  /// - Returns: its offset.
  @discardableResult
  public func addCapability(_ id: UInt8, at: Int? = nil, body: [UInt8], writable mask: [UInt8] = []) -> Int {
    let offset = at ?? nextFree
    bytes[offset] = id
    for (i, byte) in body.enumerated() { bytes[offset + 2 + i] = byte }
    for (i, byte) in mask.enumerated() { writable[offset + 2 + i] = byte }
    if lastCapability == 0 { bytes[0x34] = UInt8(offset) } else { bytes[lastCapability + 1] = UInt8(offset) }
    lastCapability = offset
    nextFree = max(nextFree, (offset + 2 + body.count + 3) & ~3)
    return offset
  }

  /// Power management: D0 and D3hot, a soft reset is not made.
  public func addPowerManagement(at: Int? = nil) {
    addCapability(0x01, at: at, body: [0x23, 0, 0x08, 0, 0, 0], writable: [0, 0, 0x03, 0x01])
  }

  /// MSI with one vector, 64-bit addresses.
  public func addMSI(at: Int? = nil) {
    addCapability(
      0x05, at: at, body: [0x80, 0] + [UInt8](repeating: 0, count: 10),
      writable: [0x71, 0, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
  }

  /// MSI-X with the table and the pending bits in one BAR.
  public func addMSIX(at: Int? = nil, vectors: Int, bar: Int, table: Int, pending: Int) {
    func le32(_ value: Int) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
    let size = vectors - 1
    addCapability(
      0x11, at: at, body: [UInt8(size & 0xff), UInt8(size >> 8 & 7)] + le32(table | bar) + le32(pending | bar),
      writable: [0, 0xc0])
  }

  /// PCI Express endpoint, version 2, with function-level reset.
  /// - Parameter gigatransfers: link speed code: 1 for 2.5 GT/s, 2 for 5 GT/s.
  public func addExpress(at: Int? = nil, gigatransfers: UInt8 = 1, lanes: UInt8 = 1) {
    var body = [UInt8](repeating: 0, count: 58)
    body[0] = 0x02
    body[2] = 0x02
    body[5] = 0x10 | 0x80 >> 3
    let link = UInt16(gigatransfers) | UInt16(lanes) << 4
    body[10] = UInt8(truncatingIfNeeded: link)
    body[11] = UInt8(link >> 8) | 0x0c
    body[16] = UInt8(truncatingIfNeeded: link)
    body[17] = UInt8(link >> 8)
    var mask = [UInt8](repeating: 0, count: 58)
    mask[6] = 0xff
    mask[7] = 0xff
    mask[14] = 0xcb
    mask[38] = 0x1f
    // Function-level reset: device capabilities, bit 28.
    body[2] = 0x02
    body[3] = 0
    body[4] = 0
    body[5] = 0x10
    expressCapability = addCapability(0x10, at: at, body: body, writable: mask)
  }

  /// PCI Express endpoint, version 1 (20 bytes: as on cards of 2.5 GT/s and one lane), with
  /// function-level reset.
  public func addExpressVersion1(at: Int? = nil) {
    var body = [UInt8](repeating: 0, count: 18)
    body[0] = 0x01
    // Payloads of 256 bytes; device capabilities, bit 28: function-level reset.
    body[2] = 0x01
    body[5] = 0x10
    body[10] = 0x11
    body[11] = 0x0c
    body[16] = 0x11
    var mask = [UInt8](repeating: 0, count: 18)
    mask[6] = 0xff
    mask[7] = 0xff
    mask[14] = 0xcb
    expressCapability = addCapability(0x10, at: at, body: body, writable: mask)
  }

  /// Changes bytes for good, outside of a driver's reach (virtio's structures, serial numbers).
  public func set(_ value: [UInt8], at offset: Int) {
    for (i, byte) in value.enumerated() where offset + i < bytes.count { bytes[offset + i] = byte }
  }

  /// What reset brings back is what was there at this call.
  public func seal() { defaults = bytes }
  public func reset() { if let defaults { bytes = defaults } }

  public var command: UInt16 { UInt16(bytes[4]) | UInt16(bytes[5]) << 8 }
  public var isBusMaster: Bool { command & 4 != 0 }
  public var vendor: UInt16 { UInt16(read(0, 2)) }
  public var device: UInt16 { UInt16(read(2, 2)) }

  /// 1, 2 or 4 bytes; all ones outside.
  public func read(_ offset: Int, _ width: Int) -> UInt32 {
    guard offset >= 0, offset + width <= bytes.count else { return .max }
    if window.overlaps(offset..<offset + width) { onWindowRead() }
    return (0..<width).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
  }

  public func write(_ value: UInt32, _ offset: Int, _ width: Int) {
    guard offset >= 0, offset + width <= bytes.count else { return }
    for i in 0..<width {
      let byte = UInt8(truncatingIfNeeded: value >> UInt32(8 * i)), mask = writable[offset + i]
      bytes[offset + i] = bytes[offset + i] & ~mask | byte & mask
    }
    if window.overlaps(offset..<offset + width) { onWindowWrite() }
    let control = expressCapability + 9
    guard expressCapability > 0, offset <= control, control < offset + width, bytes[control] & 0x80 != 0 else { return }
    bytes[control] &= 0x7f
    onFunctionReset()
  }

  /// All of it, as a client reads it in one go.
  public func bytes(_ range: Range<Int>) -> [UInt8] { Array(bytes[range.clamped(to: 0..<bytes.count)]) }
}
