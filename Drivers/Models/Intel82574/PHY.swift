// The PHY behind MDIC and the link that it negotiates (82574 datasheet, 8 and 10.2.2.7; IEEE 802.3,
// clauses 22, 28 and 40).
//
//    cable in ── negotiation ──> link of the PHY ── CTRL.SLU ──> STATUS.LU, and LSC when it changes
//
// The other end of the cable can do everything. Registers 0 to 15 and the page register 22 are the
// same on each page; the others are plain memory.

extension E1000eModel {
  /// A PHY at address 1.
  struct PHY {
    /// Registers by page; page 0 has what the rest of the model looks at.
    var pages: [UInt16: [UInt16]] = [:]
    /// Page 0.
    var registers = [UInt16](repeating: 0, count: 32)
    /// Whether the link was lost since the status register was read.
    var lostLink = false
    /// Whether the PHY has a link now.
    var isLinked = false
    /// When negotiation ends; nil when none runs.
    var negotiationEnd: UInt64?
    /// Negotiation has ended, with whatever result.
    var isNegotiated = false
    /// 10, 100 or 1000 megabits a second.
    var speed = 1000
    var fullDuplex = true

    init() {
      // Negotiate, full duplex, 1000.
      registers[0] = 0x1140
      registers[2] = 0x0141
      registers[3] = 0x0cb1
      registers[4] = 0x0de1
      registers[9] = 0x0e00
      registers[15] = 0x3000
      registers[16] = 0x0360
      registers[20] = 0x0c60
    }

    var isLooped: Bool { registers[0] & 1 << 14 != 0 }
    var isOff: Bool { registers[0] & (1 << 11 | 1 << 10) != 0 }
    var negotiates: Bool { registers[0] & 1 << 12 != 0 }

    /// The best that both ends can do; nil when they have nothing in common.
    var bestCommon: (speed: Int, fullDuplex: Bool)? {
      if registers[9] & 0x0200 != 0 { return (1000, true) }
      if registers[9] & 0x0100 != 0 { return (1000, false) }
      if registers[4] & 0x0100 != 0 { return (100, true) }
      if registers[4] & 0x0080 != 0 { return (100, false) }
      if registers[4] & 0x0040 != 0 { return (10, true) }
      return registers[4] & 0x0020 != 0 ? (10, false) : nil
    }

    /// Speed selection without negotiation: bits 6 and 13 of the control register.
    var forced: (speed: Int, fullDuplex: Bool) {
      let control = registers[0]
      let speed = control & 1 << 6 != 0 ? 1000 : control & 1 << 13 != 0 ? 100 : 10
      return (speed, control & 1 << 8 != 0)
    }

    /// Basic status: every speed at both duplexes, extended status, negotiation.
    mutating func readStatus() -> UInt16 {
      let value = 0x7949 | (isNegotiated ? 0x20 : 0) | (isLinked && !lostLink ? UInt16(4) : 0)
      lostLink = false
      return value
    }

    /// Copper status: speed, duplex, resolved, link.
    var copperStatus: UInt16 {
      guard isLinked else { return 0 }
      return (speed == 1000 ? 0x8000 : speed == 100 ? 0x4000 : 0) | (fullDuplex ? 0x2000 : 0) | 0x0c00
    }
  }

  /// MDIC: done at once. Only the PHY at address 1 answers.
  func accessPHY(_ value: UInt32) {
    let register = Int(value >> 16 & 31), operation = value >> 26 & 3
    var result = value & ~(1 << 30) | 1 << 28
    if value >> 21 & 31 != 1 {
      result |= 1 << 30
    } else if operation == 2 {
      result = result & ~0xffff | UInt32(readPHY(register))
    } else if operation == 1 {
      writePHY(register, UInt16(truncatingIfNeeded: value))
    } else {
      bus.complain("MDIC: operation \(operation) is neither a read nor a write")
      result |= 1 << 30
    }
    registers[At.phyAccess] = result
    if value & 1 << 29 != 0 { raise(Cause.phyAccessed) }
  }

  /// The page that registers 16 to 31 belong to; nil for page 0 and for what all pages share.
  private func page(_ register: Int) -> UInt16? {
    let page = phy.registers[22]
    return register < 16 || register == 22 || page == 0 ? nil : page
  }

  private func readPHY(_ register: Int) -> UInt16 {
    if let page = page(register) { return phy.pages[page]?[register] ?? 0 }
    switch register {
    case 1: return phy.readStatus()
    case 17: return phy.copperStatus
    default: return phy.registers[register]
    }
  }

  private func writePHY(_ register: Int, _ value: UInt16) {
    if let page = page(register) {
      phy.pages[page, default: [UInt16](repeating: 0, count: 32)][register] = value
      return
    }
    switch register {
    case 0: writePHYControl(value)
    case 1, 2, 3, 5, 6, 8, 10, 15, 17: break
    default: phy.registers[register] = value
    }
  }

  /// Reset (15) and restart (9) clear themselves.
  private func writePHYControl(_ value: UInt16) {
    let before = phy.registers[0]
    phy.registers[0] = value & ~0x8200
    if value & 1 << 15 != 0 {
      // A reset keeps what was asked for, and drops the link.
      startNegotiation()
    } else if value & 1 << 9 != 0 || before != phy.registers[0] {
      startNegotiation()
    }
  }

  /// As after power-on, which a hardware reset of the PHY repeats.
  func resetPHY() {
    phy = PHY()
    registers[At.deviceStatus] |= 1 << 10
    startNegotiation()
  }

  /// The link goes down and comes up again, if it can.
  func startNegotiation() {
    setPHYLink(false)
    phy.isNegotiated = false
    phy.negotiationEnd = nil
    if phy.isOff { return }
    if phy.isLooped { return establish(phy.forced) }
    guard hasCable else { return }
    phy.negotiationEnd = bus.now &+ negotiationTime
    finishNegotiation()
  }

  /// Ends a negotiation whose time has come. Returns whether it did.
  @discardableResult func finishNegotiation() -> Bool {
    guard let end = phy.negotiationEnd, end <= bus.now else { return false }
    phy.negotiationEnd = nil
    guard phy.negotiates else {
      establish(phy.forced)
      return true
    }
    phy.isNegotiated = true
    phy.registers[5] = 0xcde1
    phy.registers[6] = 0x000f
    if let common = phy.bestCommon {
      phy.registers[10] = common.speed == 1000 ? 0x7c00 : 0x0c00
      establish(common)
    }
    return true
  }

  private func establish(_ mode: (speed: Int, fullDuplex: Bool)) {
    (phy.speed, phy.fullDuplex) = mode
    setPHYLink(true)
  }

  private func setPHYLink(_ up: Bool) {
    guard up != phy.isLinked else { return }
    phy.isLinked = up
    if !up { phy.lostLink = true }
    raise(Cause.linkChange)
  }

  /// Looks at the cable: its other end may have come or gone. Returns whether it did.
  func watchCable() -> Bool {
    guard hasCable != hadCable else { return finishNegotiation() }
    hadCable = hasCable
    if !phy.isLooped { startNegotiation() }
    return true
  }

  var hasCable: Bool { isPluggedIn && wire.isUp }

  /// Whether frames can pass between MAC and PHY: the driver has to let the MAC see the link (CTRL.SLU).
  var isLinkUp: Bool { phy.isLinked && registers[At.deviceControl] & 1 << 6 != 0 }

  /// STATUS (10.2.2.2): link, duplex, speed, PHY reset, and whether requests to memory are let through.
  var statusRegister: UInt32 {
    let control = registers[At.deviceControl]
    var value = registers[At.deviceStatus] & 1 << 10
    let isForced = control & 1 << 11 != 0
    let speed = isForced ? control >> 8 & 3 : phy.speed == 1000 ? 2 : phy.speed == 100 ? 1 : 0
    value |= min(speed, 2) << 6
    if control & 1 << 12 != 0 ? control & 1 != 0 : phy.fullDuplex { value |= 1 }
    if isLinkUp { value |= 2 }
    if control & 4 == 0 { value |= 1 << 19 }
    return value
  }

  /// Sets a register of the PHY's first page, as events on the cable do.
  public func setPHY(_ register: Int, _ value: UInt16) { phy.registers[register & 31] = value }
}
