// A device made for these tests: it copies memory when its doorbell rings, and interrupts.
//
//     0x00 identity, read only          0x20 bytes to copy
//     0x04 scratch                      0x24 copies done, read only
//     0x08 source address, 64 bits      0x28 time in nanoseconds, read only
//     0x10 target address, 64 bits      0x2c vector to interrupt
//     0x18 DMA errors, read only        0x30 nanoseconds from a copy to its interrupt
//     0x34 send a frame of so many bytes (write), frames received (read)
//     0x1000 doorbell: how many copies have been asked for, ever; the page can be shared

import ModelKit
import Platform

final class CopyEngine: DeviceModel {
  static let modelName = "copy-engine"
  static let identity: UInt32 = 0xc0ff_ee01
  let configuration: ModelConfiguration
  let bars: [ModelBAR]
  let vectors: Int
  let bus = ModelBus()
  var wire: any ModelWire = TestWire()
  private(set) var resets = 0
  private(set) var steps = 0
  private var interruptAt: UInt64?
  private var received: UInt32 = 0

  init(vectors: Int = 64) throws(SystemError) {
    self.vectors = vectors
    configuration = ModelConfiguration(vendor: 0x1af4, device: 0x0c09, classCode: 0xff0000)
    configuration.setBAR(0, count: 0x4000, is64Bit: true)
    configuration.setBAR(4, count: 0x1000, is64Bit: false)
    configuration.addMSI()
    configuration.addMSIX(vectors: vectors, bar: 4, table: 0, pending: 0x800)
    configuration.addExpress()
    configuration.seal()
    bars = [
      ModelBAR(index: 0, memory: try BARMemory(count: 0x4000), is64Bit: true, shared: [0x1000..<0x2000]),
      ModelBAR(index: 4, memory: try BARMemory(count: 0x1000)),
    ]
  }

  private var registers: BARMemory { bars[0].memory }
  private func address(_ offset: Int) -> UInt64 { UInt64(registers[offset]) | UInt64(registers[offset + 4]) << 32 }

  func read(bar: Int, offset: Int, width: Int) -> UInt32 {
    guard bar == 0 else { return bars[1].memory.read(offset, width) }
    registers[0] = CopyEngine.identity
    registers[0x18] = UInt32(truncatingIfNeeded: bus.memory.faults)
    registers[0x28] = UInt32(truncatingIfNeeded: bus.now)
    registers[0x34] = received
    return registers.read(offset, width)
  }

  func write(_ value: UInt32, bar: Int, offset: Int, width: Int) {
    guard bar == 0 else { return bars[1].memory.write(value, offset, width) }
    if offset == 0 || offset == 0x18 || offset == 0x24 || offset == 0x28 { return bus.complain("a write to \(offset)") }
    if offset == 0x34 { return send(Int(value & 0x3fff)) }
    registers.write(value, offset, width)
  }

  private func send(_ count: Int) {
    let frame = [UInt8](repeating: 0x5a, count: max(count, 14))
    unsafe frame.withUnsafeBytes { unsafe wire.transmit($0, queue: 0, at: bus.now) }
  }

  func reset() {
    resets += 1
    interruptAt = nil
    received = 0
    registers.clear()
  }

  func step(budget: Int) -> Int {
    steps += 1
    var moved = 0
    while moved < budget, registers[0x24] != registers[0x1000] {
      copy()
      registers[0x24] &+= 1
      moved += 1
      if registers[0x30] == 0 {
        bus.interrupt(Int(registers[0x2c] & 0xff))
      } else {
        interruptAt = interruptAt ?? bus.now + UInt64(registers[0x30])
      }
    }
    if let at = interruptAt, at <= bus.now {
      interruptAt = nil
      bus.interrupt(Int(registers[0x2c] & 0xff))
      moved += 1
    }
    while moved < budget, unsafe wire.receive(at: bus.now, { _, _ in received &+= 1 }) { moved += 1 }
    return moved
  }

  private func copy() {
    let count = Int(registers[0x20] & 0xf_ffff)
    if let bytes = bus.memory.read(address(8), count: count) { bus.memory.write(bytes, at: address(0x10)) }
  }

  var deadline: UInt64? { interruptAt }
  func setLink(up: Bool) {}
  func inject(_ fault: ModelFault) {}
}
