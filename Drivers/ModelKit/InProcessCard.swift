// A model as a driver in the same process sees it.

public import DMAMemory
public import DeviceIO
public import PCI
internal import Platform

/// A PCI function whose device is a model in this process.
///
/// Trapped: every access reaches the model, and after each write (and each doorbell) the model steps
/// until it is idle, unless `stepsByItself` is off. Virtual time goes on by `nanosecondsAnAccess`
/// with each access and by `advance`. Shared: doorbells are stores, and the model moves in `step`.
public final class InProcessCard: PCIFunction, DMAMapper {
  public enum Mode: Sendable { case trapped, shared }

  public let name: String
  public let model: any DeviceModel
  public let mode: Mode
  /// Whether a trapped access is followed by what the device does about it.
  public var stepsByItself: Bool
  /// How far virtual time goes with each trapped access.
  public var nanosecondsAnAccess: UInt64 = 0
  /// Pulled out of its slot.
  public var isRemoved = false
  /// Offsets written, in order, when `recordsWrites` is on: (BAR, offset, value).
  public private(set) var writes: [(bar: Int, offset: Int, value: UInt32)] = []
  public var recordsWrites = false
  public private(set) var functionResets = 0
  public private(set) var isClosed = false
  private var descriptors: [Int32] = []
  private var spaces: [Int: ModelSpace] = [:]
  private var pendingEvents: PCIFunctionEvents = []

  public init(
    _ model: any DeviceModel, name: String? = nil, mode: Mode = .trapped, stepsByItself: Bool = false
  ) {
    self.model = model
    self.name = name ?? "model:\(type(of: model).modelName)"
    self.mode = mode
    self.stepsByItself = stepsByItself
    model.bus.sharesDoorbells = mode == .shared
    model.bus.deliver = { [unowned self] kind, vector in
      guard kind == .msix, vector < descriptors.count, descriptors[vector] >= 0 else { return }
      EventFD.signal(descriptors[vector])
    }
    model.configuration.onFunctionReset = { [unowned self] in resetModel() }
  }

  // MARK: Time

  /// Lets the device do what there is to do now. Returns what it moved.
  @discardableResult public func step(budget: Int = 4096) -> Int { isRemoved ? 0 : model.step(budget: budget) }

  /// Steps until the device is idle, at most `rounds` times.
  public func settle(rounds: Int = 64) {
    for _ in 0..<rounds where step() == 0 { return }
  }

  /// Lets virtual time pass, stopping at each of the model's deadlines on the way.
  public func advance(nanoseconds: UInt64) {
    let end = model.bus.now &+ nanoseconds
    while let next = model.deadline, next > model.bus.now, next <= end {
      model.bus.now = next
      settle()
    }
    model.bus.now = max(model.bus.now, end)
    settle()
  }

  fileprivate func accessed(writing: Bool) {
    model.bus.now &+= nanosecondsAnAccess
    if writing, stepsByItself { settle() }
  }

  fileprivate func note(_ bar: Int, _ offset: Int, _ value: UInt32) {
    if recordsWrites { writes.append((bar, offset, value)) }
  }

  public func forgetWrites() { writes = [] }

  // MARK: PCIFunction

  public var identity: PCIIdentity {
    let space = model.configuration
    return PCIIdentity(
      vendor: space.vendor, device: space.device, subsystemVendor: UInt16(space.read(0x2c, 2)),
      subsystemDevice: UInt16(space.read(0x2e, 2)), revision: UInt8(space.read(8, 1)), classCode: space.read(8, 4) >> 8)
  }

  private func config(_ offset: Int, _ width: Int) -> UInt32 {
    isRemoved || isClosed ? .max : model.configuration.read(offset, width)
  }
  public func readConfig8(at offset: Int) -> UInt8 { UInt8(truncatingIfNeeded: config(offset, 1)) }
  public func readConfig16(at offset: Int) -> UInt16 { UInt16(truncatingIfNeeded: config(offset, 2)) }
  public func readConfig32(at offset: Int) -> UInt32 { config(offset, 4) }
  private func writeConfig(_ value: UInt32, _ offset: Int, _ width: Int) {
    guard !isRemoved, !isClosed else { return }
    model.configuration.write(value, offset, width)
    model.bus.memory.isBusMaster = model.configuration.isBusMaster
  }
  public func writeConfig16(_ value: UInt16, at offset: Int) { writeConfig(UInt32(value), offset, 2) }
  public func writeConfig32(_ value: UInt32, at offset: Int) { writeConfig(value, offset, 4) }

  public func registers(bar: Int) throws(PCIFunctionError) -> any RegisterSpace {
    guard !isClosed else { throw .gone(function: name) }
    if let space = spaces[bar] { return space }
    guard let found = model.bars.first(where: { $0.index == bar }) else { throw .noSuchBAR(function: name, bar: bar) }
    let space = ModelSpace(self, found)
    spaces[bar] = space
    return space
  }

  public var interruptVectors: Int { model.vectors }
  public func enableInterrupts(_ descriptors: [Int32]) throws(PCIFunctionError) {
    guard descriptors.count <= model.vectors else {
      throw .tooFewVectors(function: name, wanted: descriptors.count, available: model.vectors)
    }
    self.descriptors = descriptors
    model.bus.interruptKind = descriptors.isEmpty ? nil : .msix
  }
  public func disableInterrupts() {
    descriptors = []
    model.bus.interruptKind = nil
  }

  public var eventDescriptor: Int32 { -1 }
  /// Signals an event as the kernel would.
  public func post(_ events: PCIFunctionEvents) { pendingEvents.formUnion(events) }
  public func takeEvents() -> PCIFunctionEvents {
    defer { pendingEvents = [] }
    return pendingEvents
  }

  public func setBusMaster(_ on: Bool) {
    let command = model.configuration.command
    writeConfig(UInt32(on ? command | 4 : command & ~4), 4, 2)
  }
  public var isBusMaster: Bool { model.bus.memory.isBusMaster }

  private func resetModel() {
    functionResets += 1
    disableInterrupts()
    model.configuration.reset()
    model.bus.memory.isBusMaster = false
    model.reset()
  }
  public func reset() throws(PCIFunctionError) {
    guard !isRemoved, !isClosed else { throw .gone(function: name) }
    resetModel()
    model.configuration.write(UInt32(model.configuration.command | 2), 4, 2)
  }
  public var isGone: Bool { isRemoved || isClosed || model.configuration.read(0, 2) == 0xffff }
  public func close() {
    guard !isClosed else { return }
    resetModel()
    model.bus.memory.unmapAll()
    isClosed = true
  }

  // MARK: DMAMapper

  /// 39 bits, without the window for message-signalled interrupts, as behind many IOMMUs.
  public var iovaRanges: [ClosedRange<UInt64>] { [0x1000...0xfedf_ffff, 0xfef0_0000...0x7f_ffff_ffff] }
  public var iovaPageSize: Int { 4096 }
  public func map(_ source: DMASource, at iova: IOVA) throws(DMAError) {
    guard iova.rawValue & 0xfff == 0, source.count & 0xfff == 0,
      unsafe model.bus.memory.map(iova.rawValue, count: source.count, unsafe: source.base)
    else { throw .map(errno: 17, count: source.count, iova: iova) }
  }
  public func unmap(_ iova: IOVA, count: Int) throws(DMAError) {
    guard model.bus.memory.unmap(iova.rawValue, count: UInt64(count)) > 0 else {
      throw .unmap(errno: 2, count: count, iova: iova)
    }
  }
}

/// A BAR of an in-process card.
private final class ModelSpace: RegisterSpace, @unchecked Sendable {
  private unowned let card: InProcessCard
  private let bar: ModelBAR
  private var traps: TrappedDoorbells?

  init(_ card: InProcessCard, _ bar: ModelBAR) {
    self.card = card
    self.bar = bar
    // SAFETY of the conformance: a card, its model and its driver are used by one thread.
    traps = TrappedDoorbells { [unowned self] offset, width, value in write(value, offset, width) }
  }

  var count: Int { bar.memory.count }

  private func holds(_ offset: Int, _ width: Int) -> Bool {
    offset >= 0 && offset <= count - width && offset & (width - 1) == 0
  }

  private func isShared(_ offset: Int) -> Bool {
    card.mode == .shared && bar.shared.contains { $0.contains(offset) }
  }

  private func read(_ offset: Int, _ width: Int) -> UInt32 {
    guard holds(offset, width), !card.isRemoved, !card.isClosed else { return .max }
    if isShared(offset) { return bar.memory.read(offset, width) }
    let value = card.model.read(bar: bar.index, offset: offset, width: width)
    card.accessed(writing: false)
    return value
  }

  private func write(_ value: UInt32, _ offset: Int, _ width: Int) {
    guard holds(offset, width), !card.isRemoved, !card.isClosed else { return }
    card.note(bar.index, offset, value)
    if isShared(offset) { return bar.memory.write(value, offset, width) }
    card.model.write(value, bar: bar.index, offset: offset, width: width)
    card.accessed(writing: true)
  }

  func read8(at offset: Int) -> UInt8 { UInt8(truncatingIfNeeded: read(offset, 1)) }
  func read16(at offset: Int) -> UInt16 { UInt16(truncatingIfNeeded: read(offset, 2)) }
  func read32(at offset: Int) -> UInt32 { read(offset, 4) }
  func write8(_ value: UInt8, at offset: Int) { write(UInt32(value), offset, 1) }
  func write16(_ value: UInt16, at offset: Int) { write(UInt32(value), offset, 2) }
  func write32(_ value: UInt32, at offset: Int) { write(value, offset, 4) }

  func doorbell(at offset: Int) -> Doorbell? {
    guard holds(offset, 4) else { return nil }
    // SAFETY: inside the BAR's memory, which the model keeps.
    return isShared(offset) ? unsafe Doorbell(unsafe: bar.memory.base + offset) : traps?.doorbell(at: offset)
  }
}
