// The link: set up for what is plugged in, asked by interrupt and by poll (82599 datasheet, 3.7 and
// 4.6.4).
//
//    SFP+, QSFP   module known ──> its sequence into the analog part ──> ten gigabit serial, or a
//                 gigabit; modules that do both are tried at one speed after the other
//    backplane    what the EEPROM says, negotiated
//    X540         the PHY negotiates by itself; it is woken and, where the link is down, restarted

import DeviceIO
import DriverKit

/// How far setting the link up has come.
struct LinkSetup {
  /// Ticks in a row that found the link down.
  var ticksDown = 0
  /// A module that does both speeds is tried at a gigabit.
  var triesGigabit = false
}

extension IxgbeDriver {
  /// The link as the card reports it now.
  public var link: LinkState {
    // The first read may give what was long ago (8.2.3.22.20: latched low).
    _ = registers.read32(at: Reg.links.offset)
    let raw = registers.read32(at: Reg.links.offset)
    guard raw != .max else { return LinkState(status: .unknown) }
    let links = Links(rawValue: raw)
    return links.contains(.up) ? LinkState(status: .up, speed: links.speed) : LinkState(status: .down)
  }

  /// After a reset. A link that is up already stays up.
  func setUpLink() throws(DriverError) {
    linkSetup = LinkSetup()
    switch part.media {
    case .sfp, .qsfp:
      // While frames are moving, a module that is refused costs the link, not the port.
      try lookForModule(refusing: health != .running)
      try startModule()
    case .backplane:
      allowLink()
      if !registers.read(Reg.links).contains(.up) { try restartLink(registers.read(Reg.autoc)) }
    case .copper: try wakePHY()
    }
  }

  /// Asks what is plugged in.
  /// - Parameter refusing: throw for a module that must not be used; otherwise there is none, then.
  /// - Returns: whether it is another one than before.
  @discardableResult
  func lookForModule(refusing: Bool) throws(DriverError) -> Bool {
    guard part.media == .sfp || part.media == .qsfp else { return false }
    var found = try identifyModule()
    if found == module { return false }
    if let one = found, let sentence = try refusal(of: one) {
      if refusing { throw .unsupported(card: name, what: sentence) }
      warn("\(name): \(sentence)")
      found = nil
    }
    let changed = found != module
    module = found
    return changed
  }

  /// Sets the link up for the module, when there is one.
  private func startModule() throws(DriverError) {
    guard let module else { return }
    allowLink()
    let gigabit = module.isGigabit || (module.hasBothSpeeds && linkSetup.triesGigabit)
    let current = registers.read(Reg.autoc)
    let wanted = current.with(gigabit ? .gigabitNegotiated : .tenGigabitSerial)
    if current == wanted, registers.read(Reg.links).contains(.up) { return }
    try writeSequence(for: module)
    registers.modify(Reg.esdp) {
      $0.insert(.transmitDisableOut)
      $0.remove(.transmitDisable)
      guard module.hasBothSpeeds else { return }
      $0.insert(.rateSelectOut)
      if gigabit { $0.remove(.rateSelect) } else { $0.insert(.rateSelect) }
    }
    try restartLink(wanted)
  }

  /// Some EEPROMs switch the link off until a driver comes.
  private func allowLink() {
    if !registers.read(Reg.autoc2).isDisjoint(with: .linkDisabled) {
      registers.modify(Reg.autoc2) { $0.subtract(.linkDisabled) }
    }
  }

  /// Writes the link mode and starts the link anew. The mode's top bit is turned over first: a
  /// plain restart leaves the analog part as it was (82599 specification update).
  private func restartLink(_ control: Autoc) throws(DriverError) {
    guard registers.read(Reg.mmngc) & Bits.linkVeto == 0 else {
      warn("\(name): the management firmware keeps the link; it is left as it is")
      return
    }
    try holding(.macRegisters) { () throws(DriverError) in
      let restart = control.union(.restart)
      registers.write(restart.symmetricDifference(.modeTopBit), to: Reg.autoc)
      _ = clock.poll(within: 40_000, every: 4000) { registers.read(Reg.anlp1) & Bits.negotiationState != 0 }
      registers.write(restart, to: Reg.autoc)
      flush()
    }
  }

  /// About once a second: while the link is down, looks for modules and tries the other speed.
  func tendLink() throws(DriverError) {
    guard lastLink.status != .up else {
      linkSetup.ticksDown = 0
      return
    }
    linkSetup.ticksDown += 1
    let ticks = linkSetup.ticksDown
    guard part.media == .sfp || part.media == .qsfp else { return }
    // Asking takes its time; a module that is there is asked less often.
    if module == nil || ticks % 4 == 0, try lookForModule(refusing: false) { return try startModule() }
    if ticks % 3 == 0, module?.hasBothSpeeds == true {
      linkSetup.triesGigabit.toggle()
      try startModule()
    }
  }

  /// A module was plugged in or out.
  func moduleChanged() throws(DriverError) {
    if try lookForModule(refusing: false) { try startModule() }
  }

  /// `.link` when the link differs from what was seen last.
  func noticeLink() -> DriverEvents {
    let now = link
    guard now != lastLink else { return [] }
    lastLink = now
    linkChanges &+= 1
    return .link
  }
}

// MARK: X540

extension IxgbeDriver {
  private func wakePHY() throws(DriverError) {
    let port = registers.read(Reg.status).port
    try holding(.phy(port)) { () throws(DriverError) in
      guard let power = readPHY(PHY.vendor, PHY.control), let status = readPHY(PHY.negotiation, PHY.status),
        let control = readPHY(PHY.negotiation, PHY.control)
      else { return warn("\(name): the PHY does not answer; the link is left as it is") }
      if power & PHY.lowPower != 0 { _ = writePHY(PHY.vendor, PHY.control, power & ~PHY.lowPower) }
      if status & PHY.linkUp == 0 { _ = writePHY(PHY.negotiation, PHY.control, control | PHY.restart) }
    }
  }

  private func readPHY(_ device: UInt32, _ register: UInt32) -> UInt16? {
    guard command(.address, device, register), command(.read, device, register) else { return nil }
    return UInt16(truncatingIfNeeded: registers.read(Reg.msrwd) >> 16)
  }

  private func writePHY(_ device: UInt32, _ register: UInt32, _ value: UInt16) -> Bool {
    registers.write(Plain(UInt32(value)), to: Reg.msrwd)
    return command(.address, device, register) && command(.write, device, register)
  }

  private func command(_ operation: Msca.Operation, _ device: UInt32, _ register: UInt32) -> Bool {
    registers.write(.command(operation, device: device, register: register), to: Reg.msca)
    return clock.poll(within: 10_000, every: 10) { !registers.read(Reg.msca).contains(.busy) }
  }
}
