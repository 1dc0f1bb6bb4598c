// What reading and writing each register does (82574 datasheet, 10.2).
//
// Most registers are memory. Those of the two doorbell pages must stay right when a driver stores into
// them directly: nothing there depends on seeing the access.

extension E1000eModel {
  public func read(bar: Int, offset: Int, width: Int) -> UInt32 {
    guard !faults.gone else { return .max }
    switch bar {
    case 0:
      guard offset >= 0, offset + width <= At.end else { return .max }
      let value = readRegister(Self.canonical(offset & ~3))
      endReset()
      // Registers are 32 bits wide; a narrower read sees a part of one.
      return width == 4 ? value : value >> UInt32((offset & 3) * 8) & (width == 1 ? 0xff : 0xffff)
    case 1: return flash.read(offset, width)
    case 3: return vectorTable.read(offset, width)
    default: return .max
    }
  }

  public func write(_ value: UInt32, bar: Int, offset: Int, width: Int) {
    guard !faults.gone else { return }
    switch bar {
    case 0:
      guard width == 4, offset >= 0, offset + 4 <= At.end else {
        return bus.complain("a write of \(width) bytes at \(offset): registers are 32 bits wide")
      }
      endReset()
      writeRegister(value, Self.canonical(offset & ~3))
    case 1: bus.complain("a write into the flash memory, which is write-protected")
    case 3: vectorTable.write(value, offset, width)
    default: break
    }
  }

  /// A reset takes about a microsecond: one access later it is over. Whoever reads CTRL for another
  /// purpose then must not write the bit back.
  private func endReset() {
    if registers[At.deviceControl] & 1 << 26 != 0, !faults.stuckReset { registers[At.deviceControl] &= ~(1 << 26) }
  }

  private func readRegister(_ offset: Int) -> UInt32 {
    switch offset {
    case At.deviceStatus: return garbled(statusRegister)
    case At.nvmControl: return readNVMControl()
    case At.causeRead: return readCauses()
    case At.causeSet: return causeRegister
    case At.maskSet: return interrupts.mask
    case At.maskClear: return 0
    case At.semaphore: return readSemaphore()
    case At.statisticsStart..<At.statisticsEnd: return garbled(readStatistic(offset))
    case At.timeLow: return UInt32(truncatingIfNeeded: systemTime)
    case At.timeHigh: return UInt32(truncatingIfNeeded: systemTime >> 32)
    case At.transmitHead, At.transmitHead + At.nextQueue: return reportedHead(offset, faults.transmitHead)
    case At.receiveHead, At.receiveHead + At.nextQueue: return reportedHead(offset, faults.receiveHead)
    default: return registers[offset]
    }
  }

  private func writeRegister(_ value: UInt32, _ offset: Int) {
    switch offset {
    case At.deviceControl: writeControl(value)
    case At.deviceStatus: if value & 1 << 10 == 0 { registers[offset] &= ~(1 << 10) }
    case At.nvmControl: writeNVMControl(value)
    case At.nvmRead: readNonVolatile(value)
    case At.nvmWrite: writeNonVolatile(value)
    case At.extendedControl:
      // Checking speeds (12) and reloading the non-volatile memory (13) end at once.
      registers[offset] = value & ~(1 << 12 | 1 << 13)
      if value & 1 << 13 != 0 { loadAddress() }
    case At.phyAccess: accessPHY(value)
    case At.causeRead: clearCauses(value)
    case At.causeSet: raise(value)
    case At.maskSet: setMask(value)
    case At.maskClear: clearMask(value)
    case At.externalConfiguration: writeExternalConfiguration(value)
    case At.receiveControl:
      registers[offset] = value
      if value & 2 == 0 { for queue in 0..<2 { receivers[queue].isStopped = false } }
    case At.transmitControl:
      registers[offset] = value
      if value & 2 == 0 { for queue in 0..<2 { transmitters[queue].isStopped = false } }
    case At.receiveDelay:
      registers[offset] = value & 0xffff
      if value & 1 << 31 != 0 { flushReceiveDelay() }
    case At.statisticsStart..<At.statisticsEnd: break
    case At.timeLow, At.timeHigh, At.timeIncrement: writeTime(value, offset)
    default: registers[offset] = value & Self.writable(offset)
    }
    if At.hashKey..<At.hashKey + 40 ~= offset { hash = nil }
  }

  private func writeControl(_ value: UInt32) {
    let before = registers[At.deviceControl]
    registers[At.deviceControl] = value
    if value & 1 << 26 != 0 {
      resets += 1
      resetRegisters()
      registers[At.deviceControl] |= 1 << 26
    }
    if value & 1 << 31 != 0 {
      registers[At.deviceControl] &= ~(1 << 31)
      resetPHY()
    } else if (before ^ registers[At.deviceControl]) & 1 << 6 != 0, phy.isLinked, value & 1 << 26 == 0 {
      raise(Cause.linkChange)
    }
  }

  /// Power-on and reset values (10.2), as far as they are not 0. The PHY keeps its link.
  func resetRegisters() {
    registers.clear()
    forgetFaultsOfOneRun()
    registers[At.deviceControl] = 1
    registers[At.transmitControl] = 1 << 28
    registers[At.interPacketGap] = 0x0060_2006
    registers[At.transmitArbitration] = 0x403
    registers[At.transmitArbitration + At.nextQueue] = 0x403
    registers[At.receiveDescriptorControl] = 1 << 16
    registers[At.receiveDescriptorControl + At.nextQueue] = 1 << 16
    registers[At.tagType] = 0x8100
    registers[At.packetBuffer] = 0x0014_0014
    registers[At.ledControl] = 0x0706_8302
    registers[At.nvmWrite] = 2
    // The management processor has configured what there is to configure.
    registers[At.nvmManagement] = 1 << 18
    registers[At.splitControl] = 0x0004_0402
    loadAddress()
    phy.registers[10] &= 0xff00
    phy.registers[21] = 0
    readsUntilConfigured = 2
    interrupts = Interrupts()
    serial = SerialMemory()
    time = SystemTime()
    hash = nil
    isPausing = false
    for queue in 0..<2 {
      transmitters[queue].reset()
      receivers[queue].reset()
    }
  }

  /// The station address into the first receive address.
  private func loadAddress() {
    registers[At.addressTable] = UInt32(nonVolatile[0]) | UInt32(nonVolatile[1]) << 16
    registers[At.addressTable + 4] = UInt32(nonVolatile[2]) | 1 << 31
  }

  // MARK: System time (10.2.9)

  /// SYSTIM counts up by TIMINCA's increment in each of its periods of 40 nanoseconds.
  struct SystemTime {
    var value: UInt64 = 0
    var since: UInt64 = 0
  }

  private var systemTime: UInt64 {
    let increment = registers[At.timeIncrement]
    guard increment >> 24 != 0 else { return time.value }
    let periods = (bus.now &- time.since) / (40 * UInt64(increment >> 24))
    return time.value &+ periods &* UInt64(increment & 0xff_ffff)
  }

  private func writeTime(_ value: UInt32, _ offset: Int) {
    let now = systemTime
    time.since = bus.now
    switch offset {
    case At.timeLow: time.value = now & ~0xffff_ffff | UInt64(value)
    case At.timeHigh: time.value = now & 0xffff_ffff | UInt64(value) << 32
    default:
      time.value = now
      registers[offset] = value
    }
  }
}
