// A card with the 82576's rings that does nothing but move descriptors: registers that are memory,
// but for the few a driver waits for, and rings worked on through pointers.

import CRingway
import DMAMemory
import DeviceIO
import DriverKit
import ModelKit
import NetmapCore
import PCI

/// As much of an 82576 as a driver needs to start: no frames, no interrupts.
final class NullIgbModel: DeviceModel {
  static var modelName: String { "82576 without frames" }
  let configuration = ModelConfiguration(vendor: 0x8086, device: 0x10c9, classCode: 0x020000)
  let bars: [ModelBAR]
  let vectors = 10
  let bus = ModelBus()
  var wire: any ModelWire = NullWire()
  let registers: BARMemory

  init() throws {
    registers = try BARMemory(count: 0x20000)
    // The pages with the rings' registers: tails are plain stores, as on the card.
    bars = [ModelBAR(index: 0, memory: registers, shared: [0xc000..<0xd000, 0xe000..<0xf000])]
    configuration.setBAR(0, count: 0x20000, is64Bit: false)
    configuration.seal()
    reset()
  }

  func read(bar: Int, offset: Int, width: Int) -> UInt32 { registers.read(offset, width) }

  func write(_ value: UInt32, bar: Int, offset: Int, width: Int) {
    switch offset {
    // A reset is over at once; no requests to memory are open.
    case 0x0000:
      registers[0x0000] = value & ~(1 << 26)
      registers[0x0008] = value & 4 != 0 ? 0x83 : 0x8_0083
    case 0x0014: registers[offset] = value | 2
    // The PHY answers: negotiated.
    case 0x0020: registers[offset] = 1 << 28 | 0x1020
    case 0x1528: break
    default: registers.write(value, offset, width)
    }
  }

  func reset() {
    registers.clear()
    registers[0x0008] = 0x8_0083
    registers[0x0010] = 1 << 9
    registers[0x1010] = 1 << 18
    registers[0x5400] = 0x1200_5452
    registers[0x5404] = 0x8000_5634
  }

  func step(budget: Int) -> Int { 0 }
  var deadline: UInt64? { nil }
  func setLink(up: Bool) {}
  func inject(_ fault: ModelFault) {}
}

@safe final class NullIgbCard: NullCard {
  private let model: NullIgbModel
  private let card: InProcessCard
  var function: CardFunction { card }
  private var receiveRing: UnsafeMutableRawPointer?
  private var transmitRing: UnsafeMutableRawPointer?
  private var receiveTail: UnsafeMutableRawPointer?
  private var transmitTail: UnsafeMutableRawPointer?
  private var receiveHead = 0
  private var transmitHead = 0
  private let mask = 511

  init() throws {
    model = try NullIgbModel()
    card = InProcessCard(model, mode: .shared)
  }

  func attach(_ allocator: NetmapAllocator) {
    let registers = model.registers, memory = model.bus.memory
    unsafe receiveRing = memory.pointer(UInt64(registers[0xc000]), 512 * 16, writing: true)
    unsafe transmitRing = memory.pointer(UInt64(registers[0xe000]), 512 * 16, writing: true)
    unsafe receiveTail = registers.base + 0xc018
    unsafe transmitTail = registers.base + 0xe018
  }

  // SAFETY: the rings have 512 descriptors; every index is masked. The model keeps the registers.
  @inline(never) func work(frames: Int) {
    guard let receiveRing = unsafe receiveRing, let transmitRing = unsafe transmitRing,
      let receiveTail = unsafe receiveTail, let transmitTail = unsafe transmitTail
    else { return }
    let sentTo = unsafe Int(rw_read32(transmitTail))
    while transmitHead != sentTo {
      let command = unsafe transmitRing + transmitHead * 16 + 8
      if unsafe rw_read32(command) & 1 << 27 != 0 { unsafe rw_write32(command + 4, 1) }
      transmitHead = (transmitHead + 1) & mask
    }
    let freeTo = unsafe Int(rw_read32(receiveTail))
    var left = frames
    while left > 0, receiveHead != freeTo {
      let descriptor = unsafe receiveRing + receiveHead * 16
      // A hash of type 2, IPv4 and UDP; 60 bytes, done, last, both checksums checked.
      unsafe rw_write64(descriptor, 0x1234_5678_0000_0212)
      unsafe rw_write64(descriptor + 8, 60 << 32 | 0x73)
      receiveHead = (receiveHead + 1) & mask
      left -= 1
    }
  }
}
