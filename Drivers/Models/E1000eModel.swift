// E1000eModel: the card's side of an 82574L, in this process.
//
//    driver ── registers ──> E1000eModelRegisters (side effects at once; tails are memory)
//       │                          │ step(): looks at the tails
//       └─ rings, buffers <─ E1000eModelMemory (bus addresses) <─┘──> sent frames, arriving frames
//
// Written from the 82574 datasheet (revision 3.4) alone; it knows nothing of any driver. It does
// what the datasheet promises and, told so by `faults`, what broken cards do.
//
// Invariants
// - Nothing moves but in `step` and `advance`: a test that repeats its calls repeats its results.
// - Memory is reached by bus address only, inside mapped windows, with bus mastering on; anything
//   else is counted in `memory.faults`.

import CRingway
public import DMAMemory
public import DeviceIO
public import PCI

/// An 82574L without a wire.
public final class E1000eModel: PCIFunction, DMAMapper {
  /// What a broken card does. Everything is off at first.
  public struct Faults {
    /// Every register reads all ones, writes go nowhere, nothing moves.
    public var gone = false
    /// The transmitter fetches nothing more.
    public var transmitHang = false
    /// Frames go out, but are never reported.
    public var neverReports = false
    /// The length written into receive descriptors.
    public var receiveLength: UInt16?
    /// So many receive descriptors get no end-of-packet bit.
    public var missingEnds = 0
    /// Error bits (31 to 24 of the status word) for so many frames.
    public var receiveErrors: UInt32 = 0
    /// CTRL.RST stays set.
    public var stuckReset = false
    /// What the head registers read.
    public var transmitHead: UInt32?
    public var receiveHead: UInt32?
    public init() {}
  }

  /// A frame that went out on the wire, and from which queue.
  public struct Sent: Equatable {
    public let bytes: [UInt8]
    public let queue: Int
  }

  public let name: String
  public let identity: PCIIdentity
  public let interruptVectors: Int
  public let memory = E1000eModelMemory()
  public private(set) lazy var registerFile = E1000eModelRegisters(self)
  public var faults = Faults()
  /// Frames that went out, oldest first.
  public var sent: [Sent] = []
  /// Frames on their way in.
  public internal(set) var arriving: [[UInt8]] = []
  /// Frames that no filter let in.
  public internal(set) var filteredOut = 0
  /// Words of the non-volatile memory.
  public var nonVolatile: [UInt16]
  /// How often CTRL.RST was written.
  public internal(set) var resets = 0
  /// How often the function itself was reset.
  public private(set) var functionResets = 0
  public private(set) var isClosed = false
  /// Model time in nanoseconds, for interrupt moderation.
  public internal(set) var time: UInt64 = 0

  var linkUp = true
  var phy = [UInt16](repeating: 0, count: 32)
  var configuration = [UInt8](repeating: 0, count: 256)
  var readsUntilConfigured = 0
  var eventDescriptors: [Int32] = []
  var vectorQuietUntil = [UInt64](repeating: 0, count: 5)
  var signalled: UInt32 = 0
  /// Interrupts sent, by vector.
  public internal(set) var interrupts = [Int](repeating: 0, count: 5)
  var transmitContexts = [TransmitContext](repeating: TransmitContext(), count: 2)
  var partialFrames = [PartialFrame](repeating: PartialFrame(), count: 2)

  /// - Parameters:
  ///   - address: the six bytes in the non-volatile memory.
  ///   - vectors: how many MSI-X vectors the function offers; the card has 5.
  ///   - device: 0x10d3, or another member of the family.
  public init(
    name: String = "model", address: [UInt8] = [0x52, 0x54, 0, 0x12, 0x34, 0x56], vectors: Int = 5,
    device: UInt16 = 0x10d3
  ) {
    self.name = name
    identity = PCIIdentity(vendor: 0x8086, device: device)
    interruptVectors = vectors
    nonVolatile = Self.makeNonVolatile(address)
    makeConfiguration()
    resetRegisters()
    resets = 0
  }

  private static func makeNonVolatile(_ address: [UInt8]) -> [UInt16] {
    var words = [UInt16](repeating: 0xffff, count: 64)
    for i in 0..<3 { words[i] = UInt16(address[2 * i]) | UInt16(address[2 * i + 1]) << 8 }
    words[0x3f] = 0
    words[0x3f] = 0xbaba &- words.reduce(0, &+)
    return words
  }

  /// A PCI Express capability at E0h with both link power states on, behind power management.
  private func makeConfiguration() {
    func put(_ value: UInt16, _ at: Int) {
      configuration[at] = UInt8(truncatingIfNeeded: value)
      configuration[at + 1] = UInt8(value >> 8)
    }
    put(identity.vendor, 0)
    put(identity.device, 2)
    put(0x10, 6)
    put(0xc8, 0x34)
    put(0xe001, 0xc8)
    put(0x0010, 0xe0)
    put(0x0043, 0xf0)
  }

  /// Power-on and reset values (10.2), as far as they are not 0.
  func resetRegisters() {
    resets += 1
    let file = registerFile
    let kept = file[At.deviceControl] & 1 << 26
    for offset in stride(from: 0, to: file.count, by: 4) { file[offset] = 0 }
    file[At.deviceControl] = kept | 1
    file[At.transmitControl] = 1 << 28
    file[At.transmitArbitration] = 0x403
    file[At.transmitArbitration + At.nextQueue] = 0x403
    file[At.etherType] = 0x8100
    file[At.packetBuffer] = 0x0014_0014
    let words = nonVolatile
    file[At.addressTable] = UInt32(words[0]) | UInt32(words[1]) << 16
    file[At.addressTable + 4] = UInt32(words[2]) | 1 << 31
    phy = [UInt16](repeating: 0, count: 32)
    phy[0] = 0x1140
    phy[1] = 0x7949 | (linkUp ? 0x24 : 0)
    phy[2] = 0x0141
    phy[3] = 0x0cb1
    readsUntilConfigured = 2
    signalled = 0
    transmitContexts = [TransmitContext](repeating: TransmitContext(), count: 2)
    partialFrames = [PartialFrame](repeating: PartialFrame(), count: 2)
  }

  /// STATUS: link, duplex, speed, and whether requests to memory are let through.
  var statusRegister: UInt32 {
    var value: UInt32 = 1 | 2 << 6
    if linkUp && registerFile[At.deviceControl] & 1 << 6 != 0 { value |= 2 }
    if registerFile[At.deviceControl] & 4 == 0 { value |= 1 << 19 }
    return value
  }

  /// MDIC (10.2.2.7): done at once. Only the PHY at address 1 answers.
  func accessPHY(_ value: UInt32) {
    let register = Int(value >> 16 & 31)
    var result = value | 1 << 28
    if value >> 21 & 31 != 1 {
      result |= 1 << 30
    } else if value >> 26 & 3 == 2 {
      result = result & ~0xffff | UInt32(phy[register])
    } else if value >> 26 & 3 == 1 {
      phy[register] = UInt16(truncatingIfNeeded: value) & (register == 0 ? ~0x8200 : 0xffff)
      if register == 0, value & 0x200 != 0 { phy[1] |= linkUp ? 0x24 : 0 }
    }
    registerFile[At.phyAccess] = result
  }

  /// Sets a register of the PHY, as events on the cable do.
  public func setPHY(_ register: Int, _ value: UInt16) { phy[register & 31] = value }

  // MARK: The wire

  /// A frame arrives (without check sequence); it is looked at in the next `step`.
  public func receive(_ frame: [UInt8]) { arriving.append(frame) }

  /// Plugs the cable in or out.
  public func setLink(up: Bool) {
    guard up != linkUp else { return }
    linkUp = up
    phy[1] = up ? phy[1] | 0x24 : phy[1] & ~0x24
    raise(1 << 2)
  }

  /// One round: everything the tails offer goes out, everything that waits comes in.
  public func step() {
    guard !faults.gone else { return }
    for queue in 0..<2 { transmit(queue) }
    while !arriving.isEmpty { deliver(arriving.removeFirst()) }
  }

  /// Lets time pass for interrupt moderation.
  public func advance(nanoseconds: UInt64) {
    time += nanoseconds
    signalInterrupts()
  }

  // MARK: PCIFunction

  public func readConfig8(at offset: Int) -> UInt8 {
    !faults.gone && configuration.indices.contains(offset) ? configuration[offset] : .max
  }
  public func readConfig16(at offset: Int) -> UInt16 {
    UInt16(readConfig8(at: offset)) | UInt16(readConfig8(at: offset + 1)) << 8
  }
  public func readConfig32(at offset: Int) -> UInt32 {
    UInt32(readConfig16(at: offset)) | UInt32(readConfig16(at: offset + 2)) << 16
  }
  public func writeConfig16(_ value: UInt16, at offset: Int) {
    guard !faults.gone, offset >= 4, offset + 1 < configuration.count else { return }
    configuration[offset] = UInt8(truncatingIfNeeded: value)
    configuration[offset + 1] = UInt8(value >> 8)
  }
  public func writeConfig32(_ value: UInt32, at offset: Int) {
    writeConfig16(UInt16(truncatingIfNeeded: value), at: offset)
    writeConfig16(UInt16(value >> 16), at: offset + 2)
  }

  public func registers(bar: Int) throws(PCIFunctionError) -> any RegisterSpace {
    guard bar == 0 else { throw .noSuchBAR(function: name, bar: bar) }
    return registerFile
  }

  public func enableInterrupts(_ descriptors: [Int32]) throws(PCIFunctionError) {
    guard descriptors.count <= interruptVectors else {
      throw .tooFewVectors(function: name, wanted: descriptors.count, available: interruptVectors)
    }
    eventDescriptors = descriptors
  }
  public func disableInterrupts() { eventDescriptors = [] }

  public var eventDescriptor: Int32 { -1 }
  public func takeEvents() -> PCIFunctionEvents { [] }
  public func setBusMaster(_ on: Bool) { memory.busMaster = on }
  /// Whether the function may reach memory now.
  public var isBusMaster: Bool { memory.busMaster }
  public func reset() throws(PCIFunctionError) {
    functionResets += 1
    resetRegisters()
    memory.busMaster = false
    eventDescriptors = []
  }
  public var isGone: Bool { faults.gone }
  public func close() {
    memory.busMaster = false
    eventDescriptors = []
    memory.unmapAll()
    isClosed = true
  }

  // MARK: DMAMapper

  /// 39 bits, without the window for message-signalled interrupts, as behind many IOMMUs.
  public var iovaRanges: [ClosedRange<UInt64>] { [0x1000...0xfedf_ffff, 0xfef0_0000...0x7f_ffff_ffff] }
  public var iovaPageSize: Int { 4096 }
  public func map(_ source: DMASource, at iova: IOVA) throws(DMAError) { try memory.map(source, at: iova) }
  public func unmap(_ iova: IOVA, count: Int) throws(DMAError) { try memory.unmap(iova, count: count) }
}
