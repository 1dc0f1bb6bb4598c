// A card with the 82599's rings that does nothing but move descriptors: the model's registers, and
// rings worked on through pointers.

import CRingway
import DMAMemory
import DeviceIO
import DriverKit
import ModelKit
import Models
import NetmapCore
import PCI

@safe final class NullIxgbeCard: NullCard {
  private let model: Intel82599Model
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
    model = try Intel82599Model()
    // Tails are plain stores, as on the card; the model itself never steps.
    card = InProcessCard(model, mode: .shared)
  }

  func attach(_ allocator: NetmapAllocator) {
    let registers = model.bars[0].memory, memory = model.bus.memory
    unsafe receiveRing = memory.pointer(UInt64(registers[0x1000]), 512 * 16, writing: true)
    unsafe transmitRing = memory.pointer(UInt64(registers[0x6000]), 512 * 16, writing: true)
    unsafe receiveTail = registers.base + 0x1018
    unsafe transmitTail = registers.base + 0x6018
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
