// The two wires to a pluggable module, moved bit by bit through I2CCTL (82599 datasheet, 3.7.2 and
// 8.2.3.1.6; NXP UM10204; SFF-8472, 4).
//
//    start | A0h, write | ack | where | ack | start | A0h, read | ack | byte | no ack | stop
//
// A high level is a released wire: the module may pull it low. Times are those of the 100 kHz mode.

import DeviceIO

/// The module's memory at bus address A0h.
struct ManagementBus {
  private let registers: any RegisterSpace
  private let clock: any TimeSource
  /// What the driver holds the two wires at: written whole, never read back.
  private var wires: I2cctl = [.clockOut, .dataOut]

  init(_ registers: any RegisterSpace, _ clock: any TimeSource) {
    self.registers = registers
    self.clock = clock
  }

  /// One byte of the module's memory; nil when nothing answers.
  mutating func read(_ offset: UInt8) -> UInt8? {
    for _ in 0..<3 {
      if let byte = attempt(offset) { return byte }
      clear()
    }
    return nil
  }

  private mutating func attempt(_ offset: UInt8) -> UInt8? {
    start()
    guard write(0xa0), write(offset) else { return nil }
    start()
    guard write(0xa1) else { return nil }
    var byte: UInt8 = 0
    for _ in 0..<8 { byte = byte << 1 | (readBit() ? 1 : 0) }
    _ = bit(true)
    stop()
    return byte
  }

  /// Data falls while the clock is high.
  private mutating func start() {
    set(.dataOut, true)
    rest(5)
    set(.clockOut, true)
    rest(5)
    set(.dataOut, false)
    rest(4)
    set(.clockOut, false)
  }

  /// Data rises while the clock is high.
  private mutating func stop() {
    set(.dataOut, false)
    rest(5)
    set(.clockOut, true)
    rest(4)
    set(.dataOut, true)
    rest(5)
  }

  /// Nine clocks with released data: whoever is in the middle of a byte lets go.
  private mutating func clear() {
    for _ in 0..<9 { _ = bit(true) }
    start()
    stop()
  }

  /// Sends a byte, highest bit first. False when nobody acknowledges it.
  private mutating func write(_ byte: UInt8) -> Bool {
    for i in (0..<8).reversed() { _ = bit(byte >> i & 1 == 1) }
    return !readBit()
  }

  private mutating func readBit() -> Bool { bit(true).contains(.dataIn) }

  /// One turn of the clock, from low to low, with data at a level. Returns the wires while it was
  /// high; a slow module may hold the clock down for a while.
  private mutating func bit(_ high: Bool) -> I2cctl {
    set(.dataOut, high)
    rest(5)
    set(.clockOut, true)
    rest(4)
    var levels: I2cctl = []
    _ = clock.poll(within: 500, every: 5) {
      levels = registers.read(Reg.i2cctl)
      return levels.contains(.clockIn)
    }
    set(.clockOut, false)
    return levels
  }

  private mutating func set(_ wire: I2cctl, _ high: Bool) {
    if high { wires.insert(wire) } else { wires.remove(wire) }
    registers.write(wires, to: Reg.i2cctl)
  }

  private func rest(_ microseconds: UInt64) { clock.sleep(nanoseconds: microseconds * 1000) }
}
