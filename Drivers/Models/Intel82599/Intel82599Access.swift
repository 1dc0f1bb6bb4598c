// Register accesses and their side effects (datasheet, chapter 8).

extension Intel82599Model {
  /// The offset under which a register that has two is kept (8.2.3: "also mapped to").
  static func canonical(_ offset: Int) -> Int {
    switch offset {
    case At599.splitControl..<At599.splitControl + 64:
      At599.receiveQueue + (offset - At599.splitControl) * 16 + Ring599.split
    case At599.receiveCache..<At599.receiveCache + 64:
      At599.receiveQueue + (offset - At599.receiveCache) * 16 + Ring599.cache
    case At599.addressesLow..<At599.addressesLow + 128: offset - At599.addressesLow + At599.addresses
    case At599.splitTypeLow..<At599.splitTypeLow + 64: offset - At599.splitTypeLow + At599.splitType
    case Count599.queueSentAgain..<Count599.queueSentAgain + 64:
      Count599.queueSent + (offset - Count599.queueSentAgain) * 16
    default: offset
    }
  }

  public func read(bar: Int, offset: Int, width: Int) -> UInt32 {
    if faults.isGone { return .max }
    guard bar == 0 else { return bar == 4 ? bars[1].memory.read(offset, width) : .max }
    guard offset >= 0, offset + width <= memory.count else { return .max }
    let value = readRegister(Self.canonical(offset & ~3))
    if width == 4 { return value }
    return value >> UInt32((offset & 3) * 8) & (width == 2 ? 0xffff : 0xff)
  }

  private func readRegister(_ at: Int) -> UInt32 {
    switch at {
    case At599.status:
      let value = (linkIsUp ? Bit599.statusLinkUp : 0)
        | (get(At599.control) & Bit599.masterDisable == 0 ? Bit599.statusMaster : 0)
      return faults.scramble(value)
    case At599.twoWire:
      return (get(at) & ~5) | (twoWire.clockLine ? 1 : 0) | (twoWire.dataLine ? 4 : 0)
    case At599.definablePins:
      // Pin 2 tells of a module, unless the driver made an output of it.
      return get(at) & 1 << 10 != 0 ? get(at) : (get(at) & ~4) | (module.isPresent ? 4 : 0)
    case At599.freeRunningTimer: return UInt32(truncatingIfNeeded: bus.now / 1000)
    case At599.softwareSemaphore:
      let value = get(at)
      put(at, value | 1)
      return value
    case At599.links: return faults.scramble(linksRegister)
    case At599.cause: return faults.scramble(readCause())
    case At599.causeSet...At599.maskClear, At599.causeSetExtended..<At599.maskClearExtended + 8:
      return readInterrupt(at)
    case 0x3f00..<Count599.missed + 0x60, 0x4000..<0x4200, 0xcf00..<0xcf90,
      Count599.queueBytesSent..<Count599.queueBytesSent + 128:
      return faults.scramble(readClearing(at))
    case At599.receiveQueue..<At599.receiveQueue + 0x1000 where Self.isReceiveStatistic(at): return readClearing(at)
    case At599.transmitQueue..<At599.transmitQueue + 0x400 where at & 0x3f == 0x30: return readClearing(at)
    case At599.directorUse, At599.directorFailures, At599.directorMatches, At599.directorMisses:
      return readClearing(at)
    default: return get(at)
    }
  }

  /// QPRC, QBRC and QPRDC lie between the registers of the receive queues.
  private static func isReceiveStatistic(_ at: Int) -> Bool {
    let place = at & 0x3f
    return at < 0x1400 ? place == 0x30 || place == 0x34 || place == 0x38 : at < 0x1800 && place == 0x30
  }

  private func readClearing(_ at: Int) -> UInt32 {
    let value = get(at)
    put(at, 0)
    return value
  }

  public func write(_ value: UInt32, bar: Int, offset: Int, width: Int) {
    if faults.isGone { return }
    guard bar == 0 else {
      if bar == 4 { bars[1].memory.write(value, offset, width) }
      return
    }
    guard offset >= 0, offset + width <= memory.count else { return }
    let at = Self.canonical(offset & ~3)
    if width == 4 { return writeRegister(at, value) }
    bus.complain("82599: \(width) bytes written at \(hex(offset)); registers take 32 bits")
    let shift = UInt32((offset & 3) * 8), mask: UInt32 = (width == 2 ? 0xffff : 0xff) << shift
    writeRegister(at, get(at) & ~mask | value << shift & mask)
  }

  private func writeRegister(_ at: Int, _ value: UInt32) {
    switch at {
    case 0x1000..<0x2000, 0xd000..<0xe000: writeReceiveQueue(at, value)
    case 0x6000..<0x8000: writeTransmitQueue(at, value)
    case 0x0800..<0x0b00, At599.throttleHigh..<At599.throttleHigh + 416: writeInterrupt(at, value)
    case At599.director..<At599.director + 0x80: writeDirector(at, value)
    case At599.addresses..<At599.addresses + 1024:
      put(at, at & 4 != 0 ? value & 0x8000_ffff : value)
      filters.isStale = true
    case At599.hashKey..<At599.hashKey + 40, At599.multipleQueues, At599.etherTypeFilter..<At599.etherTypeFilter + 32:
      put(at, value)
      filters.isStale = true
    case At599.control: writeControl(value)
    case At599.status, At599.links, At599.links2, At599.freeRunningTimer, At599.firmwareSemaphore,
      At599.functionActive, At599.transmitSecurityStatus, At599.receiveSecurityStatus:
      return
    case At599.controlExtension: put(at, value)
    case At599.twoWire:
      put(at, value)
      twoWire.drive(clock: value & 2 != 0, data: value & 8 != 0)
    case At599.nonVolatileControl...At599.nonVolatileWrite: writeNonVolatile(at, value)
    case At599.autoNegotiation: writeAutoNegotiation(value)
    case At599.autoNegotiation2:
      put(at, value)
      updateLink(restarted: false)
    case At599.mdioCommand: writeManagementBus(value)
    case At599.highLevel:
      put(at, value)
      updateLink(restarted: false)
    case At599.receiveDMA: put(at, value | Bit599.initialised)
    case At599.receiveControl, At599.transmitDMA:
      put(at, value)
      queuesChanged = true
    case At599.segmentFlagsLow, At599.segmentFlagsHigh: put(at, value & 0x0fff_0fff)
    default: put(at, value)
    }
  }

  private func writeReceiveQueue(_ at: Int, _ value: UInt32) {
    switch at & 0x3f {
    case Ring599.baseLow: put(at, value & ~0x7f)
    case Ring599.length: put(at, value & 0xf_ff80)
    case Ring599.head, Ring599.tail: put(at, value & 0xffff)
    case Ring599.control:
      put(at, value & ~Bit599.queueFlush)
      queuesChanged = true
    default: put(at, value)
    }
  }

  private func writeTransmitQueue(_ at: Int, _ value: UInt32) {
    switch at & 0x3f {
    case Ring599.baseLow: put(at, value & ~0x7f)
    case Ring599.length: put(at, value & 0xf_ff80)
    case Ring599.head, Ring599.tail: put(at, value & 0xffff)
    case Ring599.control:
      put(at, value & ~Bit599.queueFlush)
      queuesChanged = true
    default: put(at, value)
    }
  }

  /// CTRL (8.2.3.1.1).
  private func writeControl(_ value: UInt32) {
    guard value & (Bit599.deviceReset | Bit599.linkReset) != 0 else { return put(At599.control, value) }
    let pending = value & (Bit599.deviceReset | Bit599.linkReset)
    if faults.resetNeverEnds { return put(At599.control, value) }
    resetRegisters(link: pending & Bit599.linkReset != 0)
    put(At599.control, value & ~(Bit599.deviceReset | Bit599.linkReset | Bit599.masterDisable))
  }

  /// EEC, EERD, EEWR (8.2.3.2).
  private func writeNonVolatile(_ at: Int, _ value: UInt32) {
    let word = Int(value >> 2 & 0x3fff)
    switch at {
    case At599.nonVolatileControl:
      // Access to the serial lines is granted at once; the size and presence bits stay.
      let grant: UInt32 = value & 0x40 != 0 ? 0x80 : 0
      put(at, get(at) & 0xffff_ff00 | value & 0x77 | grant)
    case At599.nonVolatileRead:
      put(at, value & 1 != 0 ? UInt32(nonVolatile[word]) << 16 | value & 0xfffc | 2 : value & ~2)
    default:
      if value & 1 != 0 { nonVolatile[word] = UInt16(value >> 16) }
      put(at, value & 1 != 0 ? value & ~1 | 2 : value)
    }
  }

  func hex(_ value: Int) -> String { "0x" + String(value, radix: 16) }
  func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
}
