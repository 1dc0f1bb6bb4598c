// ModelKit: what a device model is, and what it needs of the world around it.
//
//     driver in this process ── InProcessCard ──┐
//     driver or virtual machine ── ModelServer ─┤   read, write, reset, step
//                                               └──> DeviceModel ──> ModelWire ──> model, TAP, file
//                                                        │
//                                                     ModelBus: memory by bus address, interrupts, time
//
// A model is the device's side of a driver, written from the device's documents and never from a
// driver's register file. It does not know who is on the other side: a host gives it accesses to its
// registers, memory, interrupts and time, and the wire gives it frames.
//
// Two ways to be driven
// - Trapped: every access is a call of `read` or `write`. Time is what the host says (`bus.now`), so a
//   run that is repeated repeats every packet, descriptor and interrupt.
// - Shared doorbells: pages of a BAR that hold only tails (`ModelBAR.shared`) are memory of the
//   driver too. Its stores are not seen as they happen; `step` looks. The other registers on those
//   pages are then plain memory as well: the model looks at enables and lengths in `step`.
//
// What models share
// - A card's view of frames: FrameParser, Checksums, CyclicChecks, Toeplitz, Segmenter, ScratchFrame.
//   All over raw bytes, bounds-checked, without allocating for a frame.
// - The far end of the cable: TapWire, PcapWire, GeneratorWire, PairWire, DatagramWire, NullWire; around
//   any of these RecordingWire and FaultyWire. WireSpec and WireFault name them in words.
//
// Rules
// - Nothing moves but in `read`, `write`, `reset` and `step`, all called on one thread.
// - Memory is reached through `bus.memory` alone, by bus address; what is not mapped is a DMA error.
// - A model never traps on what a driver writes: it complains (`bus.complain`) and does what a card
//   would.


/// A device behind a PCI function.
public protocol DeviceModel: AnyObject {
  /// "82599", "82574", "virtio-net".
  static var modelName: String { get }
  var configuration: ModelConfiguration { get }
  var bars: [ModelBAR] { get }
  /// MSI-X vectors.
  var vectors: Int { get }
  /// Set by whoever made the model, before anything else.
  var bus: ModelBus { get }
  /// What the card's cable leads to.
  var wire: any ModelWire { get set }

  /// 1, 2 or 4 bytes of a BAR, aligned, inside of it.
  func read(bar: Int, offset: Int, width: Int) -> UInt32
  func write(_ value: UInt32, bar: Int, offset: Int, width: Int)
  /// Function-level reset: as after power-on, but for the non-volatile memory. Configuration space is
  /// reset by the host.
  func reset()

  /// Does what there is to do at `bus.now`: doorbells in shared pages, transmission, frames from the
  /// wire, timers. At most about `budget` frames.
  /// - Returns: frames, descriptors and interrupts it moved; 0 means idle.
  func step(budget: Int) -> Int
  /// When `step` has something to do although nobody calls and nothing arrives: end of a moderation
  /// interval, a link that is coming up. Nanoseconds as in `bus.now`; nil when never.
  var deadline: UInt64? { get }

  /// Plugs the cable in or out.
  func setLink(up: Bool)
  /// Makes the device break its word. See `ModelFault`.
  func inject(_ fault: ModelFault)
}

/// What a device does against its documents, for tests of drivers. Those with a count do it for so
/// many of the next opportunities; the others until `.none` (or, where it says so, a reset).
public enum ModelFault: Hashable, Sendable {
  /// Ends every fault.
  case none
  /// Pulled out: all ones are read, writes go nowhere, nothing moves.
  case gone
  /// The transmitter fetches nothing more, until the device is reset.
  case transmitHang
  /// Frames go out but are never reported as sent, until the device is reset.
  case neverReports
  /// Received frames are never reported although they were written, until the device is reset.
  case neverDelivers
  /// This length is reported for received frames instead of the right one.
  case receiveLength(UInt32, count: Int)
  /// Received frames whose end never comes: every buffer says that the frame goes on.
  case missingEnd(count: Int)
  /// Received frames that the device itself reports as damaged.
  case receiveError(count: Int)
  /// Completions name something that was not completed: an identifier (virtio), a head beyond the
  /// ring (Intel).
  case wrongCompletion(UInt32, count: Int)
  /// A completion is reported twice.
  case duplicateCompletion(count: Int)
  /// A used index or head that runs ahead by so much.
  case indexJump(UInt16, count: Int)
  /// Interrupts without cause, in every step.
  case interruptStorm
  /// Interrupts never come.
  case noInterrupts
  /// A reset never ends.
  case stuckReset
  /// The device reads or writes the wrong bus address in so many frames (nothing is mapped there).
  case wrongAddress(count: Int)
  /// Statistics and status registers read random values.
  case randomRegisters(seed: UInt64)
}

/// Memory-mapped registers of a model.
public struct ModelBAR {
  /// Base address register 0 to 5.
  public let index: Int
  public let memory: BARMemory
  public let is64Bit: Bool
  /// Pages that a driver may store into directly, when the host shares them; whole pages, ascending.
  public let shared: [Range<Int>]

  public init(index: Int, memory: BARMemory, is64Bit: Bool = false, shared: [Range<Int>] = []) {
    self.index = index
    self.memory = memory
    self.is64Bit = is64Bit
    self.shared = shared
  }
}
