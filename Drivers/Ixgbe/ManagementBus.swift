// The two wires to a pluggable module, moved bit by bit through I2CCTL (82599 datasheet, 3.7.2 and
// 8.2.3.1.6; NXP UM10204; SFF-8472, 4).
//
//    start | A0h, write | ack | where | ack | start | A0h, read | ack | byte | no ack | stop
//
// A high level is a released wire: the module may pull it low. Times are those of the 100 kHz mode.

import DeviceIO

/// The module's memory at bus address A0h.
struct ManagementBus {
  let registers: any RegisterSpace
  let clock: any TimeSource

  /// One byte of the module's memory; nil when nothing answers.
  func read(_ offset: UInt8) -> UInt8? {
    for _ in 0..<3 {
      if let byte = attempt(offset) { return byte }
      clear()
    }
    return nil
  }

  private func attempt(_ offset: UInt8) -> UInt8? {
    start()
    guard write(0xa0), write(offset) else { return nil }
    start()
    guard write(0xa1) else { return nil }
    var byte: UInt8 = 0
    for _ in 0..<8 { byte = byte << 1 | (readBit() ? 1 : 0) }
    writeBit(true)
    stop()
    return byte
  }

  /// Data falls while the clock is high.
  private func start() {
    set(.dataOut, true)
    set(.clockOut, true)
    rest(5)
    set(.dataOut, false)
    rest(4)
    set(.clockOut, false)
    rest(5)
  }

  /// Data rises while the clock is high.
  private func stop() {
    set(.dataOut, false)
    rest(1)
    set(.clockOut, true)
    rest(4)
    set(.dataOut, true)
    rest(5)
  }

  /// Nine clocks with released data: whoever is in the middle of a byte lets go.
  private func clear() {
    set(.dataOut, true)
    for _ in 0..<9 {
      set(.clockOut, true)
      rest(4)
      set(.clockOut, false)
      rest(5)
    }
    start()
    stop()
  }

  /// Sends a byte, highest bit first. False when nobody acknowledges it.
  private func write(_ byte: UInt8) -> Bool {
    for bit in (0..<8).reversed() { writeBit(byte >> bit & 1 == 1) }
    return !readBit()
  }

  private func writeBit(_ bit: Bool) {
    set(.dataOut, bit)
    rest(1)
    raiseClock()
    rest(4)
    set(.clockOut, false)
    rest(5)
  }

  private func readBit() -> Bool {
    set(.dataOut, true)
    raiseClock()
    rest(4)
    let level = registers.read(Reg.i2cctl).contains(.dataIn)
    set(.clockOut, false)
    rest(5)
    return level
  }

  /// A slow module may hold the clock down for a while.
  private func raiseClock() {
    set(.clockOut, true)
    _ = clock.poll(within: 500, every: 5) { registers.read(Reg.i2cctl).contains(.clockIn) }
  }

  private func set(_ wire: I2cctl, _ high: Bool) {
    registers.modify(Reg.i2cctl) { if high { $0.insert(wire) } else { $0.remove(wire) } }
  }

  private func rest(_ microseconds: UInt64) { clock.sleep(nanoseconds: microseconds * 1000) }
}
