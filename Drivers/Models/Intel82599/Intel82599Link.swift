// Link, MDIO and auto-negotiation (datasheet, 3.7 and 8.2.3.22).

extension Intel82599Model {
  /// AUTOC.LMS: 0 and 2 are 1 Gb/s, 1 and 3 are 10 Gb/s, the others negotiate on a backplane.
  private var wants10Gigabit: Bool {
    let value = get(At599.autoNegotiation)
    switch value >> Bit599.linkModeShift & 7 {
    case 0, 2: return false
    case 1, 3: return true
    case 5: return false
    default: return value & (1 << 31 | 1 << 16) != 0
    }
  }

  /// Whether both ends can talk.
  private var linkIsPossible: Bool {
    // The MAC talks to itself, or the driver forces the link up.
    if get(At599.highLevel) & Bit599.loopback != 0 || get(At599.autoNegotiation) & Bit599.forceLinkUp != 0 {
      return true
    }
    guard cableIn, wire.isUp, get(At599.autoNegotiation2) & 0x7000_0000 == 0 else { return false }
    return isBackplane || (wants10Gigabit ? module.takes10Gigabit : module.takes1Gigabit)
  }

  /// LINKS (8.2.3.22.19).
  var linksRegister: UInt32 {
    var value: UInt32 = isBackplane ? 1 << 31 : 0
    guard linkIsUp else { return value }
    value |= 1 << 30 | 1 << 7 | 0xf00
    value |= wants10Gigabit ? 0x3000_0000 | 1 << 17 | 0x1_e000 : 0x2000_0000 | 1 << 18 | 1 << 21
    return value
  }

  /// Brings the link up or down as the cage, the cable and AUTOC say.
  func updateLink(restarted: Bool) {
    let possible = linkIsPossible
    if restarted || !possible {
      linkUpAt = nil
      if linkIsUp { setLinkState(false) }
    }
    guard possible, !linkIsUp, linkUpAt == nil else { return }
    if linkDelay == 0 { setLinkState(true) } else { linkUpAt = bus.now &+ linkDelay }
  }

  private func setLinkState(_ up: Bool) {
    linkIsUp = up
    linkUpAt = nil
    raise(other: Bit599.causeLink)
  }

  /// What time and the far end do to the link.
  func linkStep() -> Int {
    let before = linkIsUp
    if let at = linkUpAt, at <= bus.now {
      linkUpAt = nil
      if linkIsPossible { setLinkState(true) }
    }
    if linkIsUp != (linkIsPossible && linkUpAt == nil) { updateLink(restarted: false) }
    return before == linkIsUp ? 0 : 1
  }

  /// AUTOC (8.2.3.22.18): restart is a pulse.
  func writeAutoNegotiation(_ value: UInt32) {
    let changed = (get(At599.autoNegotiation) ^ value) & 7 << Bit599.linkModeShift != 0
    put(At599.autoNegotiation, value & ~Bit599.restart)
    updateLink(restarted: value & Bit599.restart != 0 && (changed || linkDelay > 0))
    signalInterrupts()
  }

  /// MSCA (8.2.3.22.11): done at once; no PHY answers behind SFI or a backplane.
  func writeManagementBus(_ value: UInt32) {
    put(At599.mdioCommand, value & ~(1 << 30))
    guard value & 1 << 30 != 0, value >> 26 & 3 >= 2 else { return }
    put(At599.mdioData, get(At599.mdioData) & 0xffff | 0xffff_0000)
  }
}
