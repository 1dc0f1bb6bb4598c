// What the driver shares with the firmware and with the card's other port (82599 datasheet, 10.5.4;
// X540 datasheet, 11.7.5): two bits guard the register of flags, and the flags guard the rest.
//
//    82599  SWSM.SMBI (a read that finds it clear takes it), then SWSM.SWESMBI
//    X540   SWSM.SMBI, then SW_FW_SYNC.REGSMP (likewise taken by a read)
//             └─> SW_FW_SYNC: a bit each for the EEPROM, both PHYs and the MAC's registers, once for
//                 software and five bits higher once for firmware
//
// Whoever died with a flag in hand must not keep the card from working: after a second it is taken
// from them, and that is said.

import DeviceIO
import DriverKit

extension IxgbeDriver {
  /// Runs `body` while the driver has `resource`.
  func holding<T>(_ resource: SharedResources, _ body: () throws(DriverError) -> T) throws(DriverError) -> T {
    try take(resource)
    defer { release(resource) }
    return try body()
  }

  /// Takes the flag, at the latest after a second.
  private func take(_ resource: SharedResources) throws(DriverError) {
    var blockers = resource.union(resource.ofFirmware)
    if part.isX540, resource.contains(.nonVolatileMemory) { blockers.insert(.flashByHardware) }
    for _ in 0..<200 {
      takeFlags()
      let flags = registers.read(Reg.softwareFirmwareSync)
      if flags.rawValue == .max {
        releaseFlags()
        if !isPresent { throw lose() }
      }
      if flags.isDisjoint(with: blockers) {
        registers.write(flags.subtracting(.registerLock).union(resource), to: Reg.softwareFirmwareSync)
        releaseFlags()
        return
      }
      releaseFlags()
      clock.sleep(nanoseconds: 5_000_000)
    }
    takeFlags()
    let flags = registers.read(Reg.softwareFirmwareSync)
    registers.write(
      flags.subtracting(blockers).subtracting(.registerLock).union(resource), to: Reg.softwareFirmwareSync)
    releaseFlags()
    warn("\(name): the firmware or another driver kept a semaphore (\(flags.hex)) for a second; it was taken from it")
  }

  private func release(_ resource: SharedResources) {
    takeFlags()
    registers.modify(Reg.softwareFirmwareSync) {
      $0.subtract(resource)
      $0.remove(.registerLock)
    }
    releaseFlags()
  }

  /// Takes the two bits in front of the flags. Both have a bound: whoever keeps them longer than
  /// 100 ms is gone.
  private func takeFlags() {
    if !clock.poll(within: 100_000, every: 50, until: { !registers.read(Reg.swsm).contains(.driver) }) {
      registers.modify(Reg.swsm) { $0.subtract([.driver, .firmware]) }
      _ = registers.read(Reg.swsm)
    }
    if part.isX540 {
      _ = clock.poll(within: 100_000, every: 50) { !registers.read(Reg.softwareFirmwareSync).contains(.registerLock) }
      return
    }
    _ = clock.poll(within: 100_000, every: 50) {
      registers.modify(Reg.swsm) { $0.insert(.firmware) }
      return registers.read(Reg.swsm).contains(.firmware)
    }
  }

  private func releaseFlags() {
    if part.isX540 { registers.modify(Reg.softwareFirmwareSync) { $0.remove(.registerLock) } }
    registers.modify(Reg.swsm) { $0.subtract([.driver, .firmware]) }
    flush()
  }
}

extension OptionSet where RawValue == UInt32 {
  /// For messages: "0x21".
  var hex: String { "0x" + String(rawValue, radix: 16) }
}
