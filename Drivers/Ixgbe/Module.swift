// Which module is plugged in, and whether the card may use it (SFF-8472, 5; SFF-8636, 6; 82599
// datasheet, 6.2: the sequences that set the analog part up for each kind).

import DeviceIO
import DriverKit

/// A pluggable module as its memory describes it.
public struct PluggableModule: Equatable, Sendable, CustomStringConvertible {
  public enum Kind: String, Sendable {
    case passiveCable = "passive cable"
    case activeCable = "active cable"
    case tenGigabitFibre = "10G fibre"
    case gigabitFibre = "1G fibre"
    case gigabitCopper = "1G copper"
    /// No module of a kind that this family drives.
    case unknown = "unknown kind"
  }
  public var kind: Kind
  /// Does both 10 and 1 Gb/s.
  public var hasBothSpeeds: Bool
  /// The maker's IEEE identifier, 24 bits, and name.
  public var makerID: UInt32
  public var maker: String

  /// Intel's own.
  static let intel: UInt32 = 0x001b21
  var isGigabit: Bool { kind == .gigabitFibre || kind == .gigabitCopper }
  /// What the card's maker lets in: its own, cables, and gigabit modules.
  var isApproved: Bool {
    switch kind {
    case .passiveCable, .activeCable, .gigabitFibre, .gigabitCopper: true
    case .tenGigabitFibre: makerID == Self.intel
    case .unknown: false
    }
  }
  /// Its number in the EEPROM's list of sequences, by port.
  func sequence(port: Int) -> UInt16 { (kind == .passiveCable ? 3 : 5) + UInt16(port & 1) }

  public var description: String {
    "\(maker.isEmpty ? "nameless" : maker) (\(kind.rawValue), maker \(hex(makerID, digits: 6)))"
  }
  private func hex(_ value: UInt32, digits: Int) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
  }
}

/// Where a module's memory says what: small modules and large ones differ.
private struct ModuleLayout {
  let identifier: UInt8, tenGigabit: UInt8, gigabit: UInt8, cable: UInt8, maker: UInt8, makerID: UInt8

  static let sfp = ModuleLayout(identifier: 3, tenGigabit: 3, gigabit: 6, cable: 8, maker: 20, makerID: 37)
  static let qsfp = ModuleLayout(identifier: 13, tenGigabit: 131, gigabit: 134, cable: 131, maker: 148, makerID: 165)
}

extension IxgbeDriver {
  /// What is plugged in now; nil when nothing answers.
  func identifyModule() throws(DriverError) -> PluggableModule? {
    let resource = SharedResources.phy(registers.read(Reg.status).port)
    return try holding(resource) { () throws(DriverError) in
      defer { releaseSharedBus() }
      return takeSharedBus() ? readModule() : nil
    }
  }

  private func readModule() -> PluggableModule? {
    var bus = ManagementBus(registers, clock)
    let layout = part.media == .qsfp ? ModuleLayout.qsfp : .sfp
    guard let identifier = bus.read(0) else { return nil }
    var module = PluggableModule(kind: .unknown, hasBothSpeeds: false, makerID: 0, maker: "")
    // Some modules answer before they know who they are: they are asked again at the next tick.
    guard identifier == layout.identifier, let ten = bus.read(layout.tenGigabit), let one = bus.read(layout.gigabit),
      let cable = bus.read(layout.cable)
    else { return module }
    module.kind = kind(ten: ten, one: one, cable: cable, &bus)
    // Short range at both speeds, or long range at both (SFF-8472, table 5-3).
    module.hasBothSpeeds = (one & 1 != 0 && ten & 0x10 != 0) || (one & 2 != 0 && ten & 0x20 != 0)
    for i: UInt8 in 0..<3 { module.makerID = module.makerID << 8 | UInt32(bus.read(layout.makerID + i) ?? 0) }
    // The name is long to read; who it is has been seen already where the rest is the same.
    if let known = self.module, known.kind == module.kind, known.makerID == module.makerID {
      module.maker = known.maker
      return module
    }
    for i: UInt8 in 0..<16 {
      guard let byte = bus.read(layout.maker + i), (0x20..<0x7f).contains(byte) else { break }
      module.maker.unicodeScalars.append(Unicode.Scalar(byte))
    }
    while module.maker.last == " " { module.maker.removeLast() }
    return module
  }

  private func kind(ten: UInt8, one: UInt8, cable: UInt8, _ bus: inout ManagementBus) -> PluggableModule.Kind {
    if part.media == .qsfp {
      // SFF-8636, table 6-17: passive cables say 40GBASE-CR4.
      if cable & 0x08 != 0 { return .passiveCable }
    } else {
      if cable & 0x04 != 0 { return .passiveCable }
      // Only active cables whose amplifier limits are driven (SFF-8472, byte 60).
      if cable & 0x08 != 0 { return (bus.read(60) ?? 0) & 0x04 != 0 ? .activeCable : .unknown }
    }
    if ten & 0x30 != 0 { return .tenGigabitFibre }
    if one & 0x08 != 0 { return .gigabitCopper }
    return one & 0x03 != 0 ? .gigabitFibre : .unknown
  }

  /// Boards with QSFP cages share the bus between ports: a pin asks, another grants.
  private func takeSharedBus() -> Bool {
    guard part.media == .qsfp else { return true }
    registers.modify(Reg.esdp) {
      $0.subtract([.native01, .busGrantOut])
      $0.formUnion([.busRequestOut, .busRequest])
    }
    return clock.poll(within: 1_000_000, every: 5000) { registers.read(Reg.esdp).contains(.busGrant) }
  }

  private func releaseSharedBus() {
    if part.media == .qsfp { registers.modify(Reg.esdp) { $0.remove(.busRequest) } }
  }

  /// Whether the card uses the module; a sentence when not.
  func refusal(of module: PluggableModule) throws(DriverError) -> String? {
    if module.kind == .unknown { return "the module \(module) is of no kind that this card drives" }
    if module.isApproved { return nil }
    let capabilities = try holding(.nonVolatileMemory) { () throws(DriverError) in try readNVM(NVM.capabilities) }
    if capabilities != .max, capabilities & NVM.anyModule != 0 { return nil }
    guard options.allowUnsupportedSFP else {
      return "the module \(module) is not approved by the card's maker; plug another one in, or allow this one with "
        + "--allow-unsupported-sfp"
    }
    warn("\(name): the module \(module) is not approved by the card's maker; it is used because you allow it")
    return nil
  }

  /// Sets the analog part up for the module, as the EEPROM wants it. Boards without a list for it
  /// work with what they have loaded.
  func writeSequence(for module: PluggableModule) throws(DriverError) {
    let port = registers.read(Reg.status).port
    let words = try holding(.nonVolatileMemory) { () throws(DriverError) in try sequence(module.sequence(port: port)) }
    guard !words.isEmpty else { return }
    try holding(.macRegisters) { () throws(DriverError) in
      for word in words {
        registers.write(Plain(UInt32(word)), to: Reg.coreControl)
        flush()
      }
    }
  }

  /// The list holds pairs of a kind's number and a pointer, ends with FFFFh, and begins behind a
  /// word; each sequence likewise.
  private func sequence(_ number: UInt16) throws(DriverError) -> [UInt16] {
    let list = try readNVM(NVM.moduleSequences)
    guard list != 0, list < NVM.last - 64 else { return [] }
    var start: UInt16 = 0
    for entry: UInt16 in 0..<16 {
      let kind = try readNVM(list + 1 + entry * 2)
      if kind == .max { return [] }
      if kind == number {
        start = try readNVM(list + 2 + entry * 2)
        break
      }
    }
    guard start != 0, start < NVM.last - 512 else { return [] }
    var words: [UInt16] = []
    for i: UInt16 in 1...512 {
      let word = try readNVM(start + i)
      if word == .max { break }
      words.append(word)
    }
    return words
  }
}
