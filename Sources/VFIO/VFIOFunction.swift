// The function itself: opening, registers, closing.

internal import CRingway
public import DMAMemory
public import DeviceIO
public import PCI
internal import Platform
internal import Synchronization
internal import SystemPackage

/// A PCI function held through VFIO, and the IOMMU domain that it alone uses.
///
/// May be used from several threads; each call takes the function's lock. The registers and
/// doorbells that it hands out take none. Dropping the last reference closes it.
public final class VFIOFunction: PCIFunction, DMAMapper, Sendable {
  public let name: String
  public let identity: PCIIdentity
  public let interruptVectors: Int

  let channel: any VFIOChannel
  let dma: any DMAContext
  let events: FunctionEvents
  private let canReset: Bool
  /// Where configuration space keeps the power management and PCI Express registers; 0 when it has none.
  private let power: Int
  private let express: Int
  let state: Mutex<State>

  /// What changes while the function is held.
  struct State {
    var isClosed = false
    var interruptsAreOn = false
    /// By BAR number.
    var spaces: [Int: SharedSpace] = [:]
    var windows: [(bar: Int, window: BARWindow)] = []
  }

  /// A space on its way out of the lock. Spaces have no state of their own that changes, and a
  /// register access is one load or one store.
  struct SharedSpace: @unchecked Sendable { let space: any RegisterSpace }

  /// Opens a function that is bound to vfio-pci.
  ///
  /// It comes reset, awake (D0), with memory decoding on, bus mastering and INTx off.
  public static func open(_ address: PCIAddress, roots: SystemRoots = SystemRoots()) throws(VFIOError) -> VFIOFunction {
    try open(address, system: LinuxVFIO(), roots: roots)
  }

  /// The same, with the address as people write it: "0000:03:00.0", "03:00.0".
  public static func open(_ address: String, roots: SystemRoots = SystemRoots()) throws(VFIOError) -> VFIOFunction {
    guard let parsed = try? PCIAddress(address) else { throw .invalidAddress(address) }
    return try open(parsed, roots: roots)
  }

  static func open(_ address: PCIAddress, system: any VFIOSystem, roots: SystemRoots) throws(VFIOError) -> VFIOFunction {
    let name = address.description
    let group = try SharedGroup.join(address, system: system, roots: roots)
    let device: OwnedDescriptor
    do {
      device = try group.device(name, system: system)
    } catch {
      group.leave(name)
      throw error
    }
    return try VFIOFunction(KernelChannel(name: name, system: system, device: device), dma: CardMappings(group, card: name))
  }

  /// Takes over a channel and the domain its device is in. Both are closed when it fails.
  init(_ channel: any VFIOChannel, dma: any DMAContext) throws(VFIOError) {
    do {
      let found = try Findings(channel)
      events = try FunctionEvents(channel, found)
      name = channel.name
      self.channel = channel
      self.dma = dma
      canReset = found.info.canReset
      interruptVectors = found.msix
      identity = found.identity
      power = found.power
      express = found.express
      state = Mutex(State())
    } catch {
      channel.close()
      dma.close()
      throw error
    }
    // A card that the last owner left running must not write into memory of ours: nothing of it
    // is mapped yet, unless a neighbour in the group did.
    if canReset { try? channel.reset() }
    wake()
  }

  /// D0, memory decoding on, bus mastering and INTx off, errors reported.
  private func wake() {
    guard readConfig16(at: 0) != .max else { return }
    if power != 0, readConfig16(at: power + 4) & UInt16(PCI_PM_CTRL_STATE_MASK) != 0 {
      writeConfig16(readConfig16(at: power + 4) & ~UInt16(PCI_PM_CTRL_STATE_MASK), at: power + 4)
      // PCI Power Management Interface Specification 1.2, table 5-6: 10 ms from D3hot to D0.
      MonotonicClock().sleep(nanoseconds: 10_000_000)
    }
    changeCommand { $0.formUnion([.memorySpace, .interruptDisable]); $0.remove(.busMaster) }
    if express != 0 {
      // Uncorrectable errors are sent upstream, or the kernel could not tell of them (PCI Express
      // Base Specification, 7.5.3.4). Kernels before 6.6 leave this to drivers.
      let control = readConfig16(at: express + Int(PCI_EXP_DEVCTL))
      let wanted = control | UInt16(PCI_EXP_DEVCTL_NFERE | PCI_EXP_DEVCTL_FERE)
      if wanted != control { writeConfig16(wanted, at: express + Int(PCI_EXP_DEVCTL)) }
    }
  }

  /// The command register of configuration space, written only when it changes.
  private func changeCommand(_ change: (inout PCICommand) -> Void) {
    let before = PCICommand(rawValue: readConfig16(at: Int(PCI_COMMAND)))
    var after = before
    change(&after)
    // All ones is no state to write back: the card is away.
    if before.rawValue != .max, after != before { writeConfig16(after.rawValue, at: Int(PCI_COMMAND)) }
  }

  // MARK: Configuration space

  private static let config = Int(VFIO_PCI_CONFIG_REGION_INDEX)

  public func readConfig8(at offset: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: channel.read(region: VFIOFunction.config, offset: offset, width: 1) ?? .max)
  }
  public func readConfig16(at offset: Int) -> UInt16 {
    UInt16(truncatingIfNeeded: channel.read(region: VFIOFunction.config, offset: offset, width: 2) ?? .max)
  }
  public func readConfig32(at offset: Int) -> UInt32 {
    channel.read(region: VFIOFunction.config, offset: offset, width: 4) ?? .max
  }
  public func writeConfig16(_ value: UInt16, at offset: Int) {
    channel.write(UInt32(value), region: VFIOFunction.config, offset: offset, width: 2)
  }
  public func writeConfig32(_ value: UInt32, at offset: Int) {
    channel.write(value, region: VFIOFunction.config, offset: offset, width: 4)
  }

  public func setBusMaster(_ on: Bool) {
    changeCommand { if on { $0.insert(.busMaster) } else { $0.remove(.busMaster) } }
  }

  // MARK: Registers

  /// Maps the BAR when it is first asked for. Afterwards the same space is given again.
  public func registers(bar: Int) throws(PCIFunctionError) -> any RegisterSpace {
    try state.withLock { (state: inout State) throws(PCIFunctionError) -> SharedSpace in
      guard !state.isClosed else { throw .gone(function: name) }
      if let space = state.spaces[bar] { return space }
      guard 0...5 ~= bar, let region = try? channel.region(bar), region.count > 0 else {
        throw .noSuchBAR(function: name, bar: bar)
      }
      var parts: [BARSpace.Part] = []
      for area in region.areas {
        do throws(Errno) {
          let window = try channel.map(region, area, event: events.fault)
          parts.append(BARSpace.Part(start: area.lowerBound, window: window))
        } catch {
          throw .mapping(function: name, bar: bar, errno: error.rawValue)
        }
      }
      let space: SharedSpace
      if parts.count == 1, parts[0].window.count == region.count {
        let window = parts[0].window
        space = unsafe SharedSpace(space: MMIOSpace(unsafe: window.base, count: window.count, owner: window))
      } else {
        space = SharedSpace(space: BARSpace(region, parts: parts, channel: channel))
      }
      state.spaces[bar] = space
      state.windows += parts.map { (bar, $0.window) }
      return space
    }.space
  }

  /// Whether an access to a mapped BAR has faulted since it was mapped (anew).
  public var registersHaveFaulted: Bool { state.withLock { $0.windows.contains { $0.window.hasFaulted } } }

  /// Maps the BARs that faulted again, at the addresses they had. `reset` does this too.
  public func remapRegisters() throws(PCIFunctionError) {
    try state.withLock { (state: inout State) throws(PCIFunctionError) in try remap(&state) }
  }

  private func remap(_ state: inout State) throws(PCIFunctionError) {
    guard !state.isClosed else { throw .gone(function: name) }
    for (bar, window) in state.windows where window.hasFaulted {
      do throws(Errno) {
        try channel.remap(window)
      } catch {
        throw error == .noDevice ? .gone(function: name) : .mapping(function: name, bar: bar, errno: error.rawValue)
      }
    }
  }

  // MARK: Reset, presence, closing

  public func reset() throws(PCIFunctionError) {
    try state.withLock { (state: inout State) throws(PCIFunctionError) in
      guard !state.isClosed else { throw .gone(function: name) }
      setBusMaster(false)
      interruptsOff(&state)
      if canReset {
        do throws(Errno) {
          try channel.reset()
        } catch {
          throw error == .noDevice ? .gone(function: name) : .reset(function: name, errno: error.rawValue)
        }
      }
      wake()
      try remap(&state)
    }
    if readConfig32(at: 0) == .max { throw .gone(function: name) }
  }

  public var isGone: Bool { readConfig16(at: 0) == .max || registersHaveFaulted }

  public func close() {
    state.withLock { state in
      guard !state.isClosed else { return }
      setBusMaster(false)
      interruptsOff(&state)
      events.stop(channel)
      dma.unmapAll()
      if canReset { try? channel.reset() }
      state.isClosed = true
      // The mappings hold the device's file; without them closing it gives the device back.
      for (_, window) in state.windows { window.detach() }
      state.spaces = [:]
      channel.close()
      dma.close()
    }
  }

  deinit { close() }

  // MARK: DMA

  public var iovaRanges: [ClosedRange<UInt64>] { dma.iovaRanges }
  public var iovaPageSize: Int { dma.iovaPageSize }
  public func map(_ source: DMASource, at iova: IOVA) throws(DMAError) { try dma.map(source, at: iova) }
  public func unmap(_ iova: IOVA, count: Int) throws(DMAError) { try dma.unmap(iova, count: count) }
}
