// Intel82599Model: the card's side of an 82599 10 Gb/s controller.
//
//   driver ── registers ──> Registers (side effects) ──> Interrupts, Link, Director, NonVolatile
//      │                                                     │
//      └─ rings, buffers <── Receive <── Filters <── frames ─┴── Transmit ──> wire
//
// Written from the 82599 datasheet (Intel document 331520) and from what published drivers expect of
// a card, never from this project's own driver. It must satisfy any driver: ours, the Linux kernel's
// and DPDK's.
//
// Where it differs from silicon
// - Everything that takes the card microseconds is done when the write returns: resets, semaphores,
//   management bus, flow director commands. The link comes up after `linkDelay`.
// - Thresholds are ignored: descriptors are fetched, used and written back one by one.
// - Data centre bridging, virtual functions, receive coalescing, header split, security, wake-up and
//   time stamps are registers without effect.
//
// Invariants
// - In both modes the model itself looks at queues in `step`: enables, lengths, tails. In trapped mode
//   a write adds the side effects that the datasheet promises (reserved bits, self-clearing bits).
//   With shared doorbells the registers of queues 0 to 63 (receive) and of all transmit queues are
//   plain memory; their statistics, cleared by reading, are not kept then.
// - A DMA error stops the queue that had it, as an unsupported request would, until it is disabled or
//   the device is reset. It hurts no other queue.
// - Nothing is allocated for a frame.

public import ModelKit
public import Platform
public import Wire
import CRingway

/// An 82599 with one port.
@safe public final class Intel82599Model: DeviceModel {
  public static let modelName = "82599"

  public let configuration: ModelConfiguration
  public let bars: [ModelBAR]
  public let vectors = 64
  public let bus: ModelBus
  public var wire: any ModelWire

  /// Nanoseconds from a restart of the link until it is up.
  public var linkDelay: UInt64
  /// Resets by CTRL and by the function.
  public internal(set) var resets = 0
  /// Frames that no filter let in, or that came while the receiver was off.
  public internal(set) var filteredOut = 0
  /// Accesses to memory that went wrong; each stopped a queue.
  public internal(set) var dmaErrors = 0

  let memory: BARMemory
  /// SAFETY: `memory.base`, which lives as long as `memory`.
  @safe let io: UnsafeMutableRawPointer
  let isBackplane: Bool
  var nonVolatile: Intel82599NonVolatile
  var module: Intel82599Module
  var twoWire: Intel82599TwoWire

  // Link
  var cableIn = true
  var linkIsUp = false
  var linkUpAt: UInt64?

  // Interrupts
  var interrupts = Intel82599Interrupts()

  // Queues
  static let queueCount = 128
  @safe let sending: UnsafeMutablePointer<Intel82599TransmitQueue>
  @safe let receiving: UnsafeMutablePointer<Intel82599ReceiveQueue>
  var sendingActive = Intel82599QueueSet()
  var receivingActive = Intel82599QueueSet()
  /// A register of a queue that decides whether it runs was written.
  var queuesChanged = true
  var packetBuffer: Intel82599PacketBuffer
  let scratch = ScratchFrame()
  let received = ScratchFrame(capacity: 17 * 1024)
  let segmenter = Segmenter(largest: 17 * 1024)

  // Filters
  var filters = Intel82599Filters()
  var director = Intel82599Director()
  var faults = Intel82599Faults()

  /// - Parameters:
  ///   - address: in the non-volatile memory.
  ///   - device: 0x10fb (SFP+) or 0x10f7 (backplane, without a cage).
  ///   - module: what the cage of an SFP+ card holds.
  ///   - allowsAnyModule: the non-volatile memory lets drivers take modules of any vendor.
  ///   - packetBuffer: bytes of frames that wait for descriptors; the card has 512 KiB.
  ///   - linkDelay: nanoseconds until a restarted link is up.
  /// - Throws: when there is no memory for the registers.
  public init(
    address: MACAddress = MACAddress(0x02, 0x82, 0x59, 0x90, 0x00, 0x01), device: UInt16 = 0x10fb,
    bus: ModelBus = ModelBus(), wire: any ModelWire = TestWire(), module: Intel82599Module = .shortRange,
    allowsAnyModule: Bool = false, packetBuffer: Int = 512 * 1024, linkDelay: UInt64 = 0
  ) throws(SystemError) {
    self.bus = bus
    self.wire = wire
    self.linkDelay = linkDelay
    isBackplane = device == 0x10f7
    self.module = isBackplane ? .absent : module
    twoWire = Intel82599TwoWire(self.module)
    nonVolatile = Intel82599NonVolatile(address: address.bytes, allowsAnyModule: allowsAnyModule)
    let memory = try BARMemory(count: 128 * 1024, name: "82599-bar0")
    let table = try BARMemory(count: 16 * 1024, name: "82599-bar4")
    self.memory = memory
    unsafe io = memory.base
    bars = [
      ModelBAR(index: 0, memory: memory, is64Bit: true, shared: [0x1000..<0x2000, 0x6000..<0x8000]),
      ModelBAR(index: 4, memory: table, is64Bit: true),
    ]
    configuration = Self.makeConfiguration(device)
    sending = .allocate(capacity: Self.queueCount)
    unsafe sending.initialize(repeating: Intel82599TransmitQueue(), count: Self.queueCount)
    receiving = .allocate(capacity: Self.queueCount)
    unsafe receiving.initialize(repeating: Intel82599ReceiveQueue(), count: Self.queueCount)
    self.packetBuffer = Intel82599PacketBuffer(capacity: packetBuffer)
    reset()
    resets = 0
  }

  // SAFETY: this object's own memory, of trivial values.
  deinit {
    unsafe sending.deallocate()
    unsafe receiving.deallocate()
    packetBuffer.free()
  }

  private static func makeConfiguration(_ device: UInt16) -> ModelConfiguration {
    let space = ModelConfiguration(
      vendor: 0x8086, device: device, subsystemVendor: 0x8086, subsystemDevice: device == 0x10fb ? 0x0003 : 0x000c,
      revision: 1)
    space.setBAR(0, count: 128 * 1024, is64Bit: true)
    space.setBAR(4, count: 16 * 1024, is64Bit: true)
    space.addPowerManagement(at: 0x40)
    space.addMSI(at: 0x50)
    space.addMSIX(at: 0x70, vectors: 64, bar: 4, table: 0, pending: 0x2000)
    space.addExpress(at: 0xa0, gigatransfers: 2, lanes: 8)
    space.seal()
    return space
  }

  // MARK: Registers as memory

  // SAFETY of both: offsets are the model's own constants, with queue numbers below 128, or were
  // checked against the BAR's size; all lie inside the mapping.
  @inline(__always) func get(_ offset: Int) -> UInt32 { unsafe rw_read32(io + offset) }
  @inline(__always) func put(_ offset: Int, _ value: UInt32) { unsafe rw_write32(io + offset, value) }

  /// Adds to a statistics register of 32 bits.
  @inline(__always) func count(_ offset: Int, _ by: UInt32 = 1) { put(offset, get(offset) &+ by) }
  /// Adds to one of 36 bits.
  @inline(__always) func countLong(_ offset: Int, _ by: Int) {
    let (low, carry) = get(offset).addingReportingOverflow(UInt32(truncatingIfNeeded: by))
    put(offset, low)
    if carry { put(offset + 4, (get(offset + 4) &+ 1) & 0xf) }
  }

  // MARK: DeviceModel

  public func setLink(up: Bool) {
    cableIn = up
    updateLink(restarted: false)
  }

  /// Pulls a module out of the cage or pushes another in.
  public func setModule(_ new: Intel82599Module) {
    guard !isBackplane else { return }
    module = new
    twoWire = Intel82599TwoWire(new)
    if get(At599.generalInterrupt) & Bit599.pinEnable2 != 0 { raise(other: Bit599.causePin2) }
    updateLink(restarted: false)
    signalInterrupts()
  }

  /// Changes a word of the non-volatile memory; its checksum stays as it is.
  public func setNonVolatileWord(_ at: Int, _ value: UInt16) { nonVolatile[at] = value }

  public var deadline: UInt64? {
    guard !faults.isGone else { return nil }
    let moderated = nextInterrupt
    return switch (linkUpAt, moderated) {
    case (nil, let only), (let only, nil): only
    case (let first?, let second?): min(first, second)
    }
  }

  public func step(budget: Int) -> Int {
    guard !faults.isGone else { return 0 }
    var moved = linkStep()
    scanQueues(all: queuesChanged || !bus.sharesDoorbells)
    var frames = moveFrames(budget)
    if frames == 0, bus.sharesDoorbells {
      scanQueues(all: true)
      frames = moveFrames(budget)
    }
    moved += frames
    if faults.storms { storm() }
    return moved + signalInterrupts()
  }

  private func moveFrames(_ budget: Int) -> Int {
    var moved = 0
    while moved < budget {
      let sent = transmitRound(), arrived = receiveRound(min(64, budget - moved))
      if sent + arrived == 0 { break }
      moved += sent + arrived
    }
    return moved
  }
}
