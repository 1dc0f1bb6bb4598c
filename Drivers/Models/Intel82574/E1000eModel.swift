// E1000eModel: the card's side of an 82574L.
//
//    driver ── read, write ──> Registers: side effects at once      PHY ──> link, wire
//       │                       │ tails, lengths, enables            │
//       │                      step(): looks at them ── Transmit ────┤──> frames out
//       └─ rings, buffers <──── bus.memory ──────────── Receive <────┘<── Filters <── frames in
//
// Written from the 82574 datasheet (revision 3.4) alone; it knows nothing of any driver. It does
// what the datasheet promises and, told so by `faults`, what broken cards do.
//
// Invariants
// - Nothing moves but in `step`: a run that repeats its calls repeats its results.
// - Pages 0x2000 (receive queues) and 0x3000 (transmit queues) are memory that a driver may store into
//   unseen; whatever happens because of them happens in `step`.
// - Memory is reached by bus address only. An address that does not answer stops the queue until
//   the direction is switched off and on again or the card is reset; the driver is told nothing,
//   as on a real bus.

public import ModelKit
public import Platform
public import Wire

/// An 82574L. One thread at a time.
public final class E1000eModel: DeviceModel {
  public static let modelName = "82574"

  public let configuration: ModelConfiguration
  public let bars: [ModelBAR]
  public let vectors: Int
  public let bus: ModelBus
  public var wire: any ModelWire
  /// What a broken card does. Everything is off at first.
  public var faults = Faults()
  /// Words of the non-volatile memory.
  public var nonVolatile: [UInt16]
  /// How often CTRL.RST was written.
  public internal(set) var resets = 0
  /// Frames that no filter let in.
  public internal(set) var filteredOut = 0
  /// From the start of negotiation to a link, nanoseconds of the bus.
  public var negotiationTime: UInt64

  /// BAR0. Causes, masks and the PHY live in properties of their own.
  let registers: BARMemory
  let flash: BARMemory
  let vectorTable: BARMemory
  var isPluggedIn = true
  var hadCable = true
  var phy = PHY()
  var interrupts = Interrupts()
  var serial = SerialMemory()
  var time = SystemTime()
  var readsUntilConfigured = 0
  var transmitters = [Transmitter(), Transmitter()]
  var receivers = [Receiver(), Receiver()]
  /// The other end of the cable has been asked to wait.
  var isPausing = false
  /// RSS with the key that is in the registers; nil until it is needed.
  var hash: Toeplitz?
  /// A frame on its way in that differs from what was on the wire.
  let arrival = ScratchFrame(capacity: 20 * 1024)
  let segmenter = Segmenter()

  /// - Parameters:
  ///   - address: in the non-volatile memory.
  ///   - device: 0x10d3, or another member of the family.
  ///   - vectors: how many MSI-X vectors the function offers; the card has 5.
  ///   - negotiationTime: nanoseconds that a link takes to come up. 0: at once.
  /// - Throws: when there is no memory for the registers.
  public init(
    address: MACAddress = MACAddress(0x52, 0x54, 0, 0x12, 0x34, 0x56), device: UInt16 = 0x10d3, vectors: Int = 5,
    bus: ModelBus = ModelBus(), wire: any ModelWire = Unconnected(), negotiationTime: UInt64 = 0
  ) throws(SystemError) {
    self.bus = bus
    self.wire = wire
    self.vectors = vectors
    self.negotiationTime = negotiationTime
    nonVolatile = Self.makeNonVolatile(address, device: device)
    configuration = Self.makeConfiguration(device: device, vectors: vectors)
    registers = try BARMemory(count: At.end, name: "82574-registers")
    flash = try BARMemory(count: 0x20000, name: "82574-flash")
    vectorTable = try BARMemory(count: 0x4000, name: "82574-vectors")
    bars = [
      ModelBAR(index: 0, memory: registers, shared: [0x2000..<0x4000]), ModelBAR(index: 1, memory: flash),
      ModelBAR(index: 3, memory: vectorTable),
    ]
    for offset in stride(from: 0, to: flash.count, by: 4) { flash[offset] = .max }
    reset()
  }

  /// A wire that leads nowhere: a link, but no frames.
  public final class Unconnected: ModelWire {
    public init() {}
    public func transmit(_ frame: UnsafeRawBufferPointer, queue: Int, at now: UInt64) {}
    public func receive(at now: UInt64, _ body: (UnsafeRawBufferPointer, WireMarks) -> Void) -> Bool { false }
  }

  /// Power management at C8h, MSI at D0h, PCI Express at E0h, MSI-X at A0h (9.1).
  private static func makeConfiguration(device: UInt16, vectors: Int) -> ModelConfiguration {
    let space = ModelConfiguration(vendor: 0x8086, device: device, subsystemVendor: 0x8086)
    space.setBAR(0, count: At.end, is64Bit: false)
    space.setBAR(1, count: 0x20000, is64Bit: false)
    space.setBAR(3, count: 0x4000, is64Bit: false)
    space.addPowerManagement(at: 0xc8)
    space.addMSI(at: 0xd0)
    space.addExpressVersion1(at: 0xe0)
    // Link control: both link power states on, common clock.
    space.set([0x43, 0], at: 0xf0)
    if vectors > 0 { space.addMSIX(at: 0xa0, vectors: vectors, bar: 3, table: 0, pending: 0x2000) }
    space.seal()
    return space
  }

  public func reset() {
    resetRegisters()
    resetPHY()
    registers[At.deviceStatus] = 0
    interrupts = Interrupts()
  }

  public func step(budget: Int) -> Int {
    guard !faults.gone else { return 0 }
    var moved = runInterruptTimers()
    if watchCable() { moved += 1 }
    if faults.storm { moved += storm() }
    for queue in 0..<2 { moved += transmit(queue, budget: budget) }
    moved += receive(budget: budget)
    return moved
  }

  public var deadline: UInt64? {
    let next = min(interruptDeadline, phy.negotiationEnd ?? .max)
    return next == .max || faults.gone ? nil : next
  }

  public func setLink(up: Bool) {
    isPluggedIn = up
    _ = watchCable()
  }
}
