// A virtio network device that does nothing but move descriptors: the model's registers, and rings
// worked on through pointers.

import CRingway
import DMAMemory
import DeviceIO
import DriverKit
import ModelKit
import Models
import NetmapCore
import PCI

@safe final class NullVirtioNetCard: NullCard {
  private let model: VirtioNetModel
  private let card: InProcessCard
  var function: CardFunction { card }
  private var receive: VirtioModelPlace?
  private var transmit: VirtioModelPlace?
  private var receiveTaken: UInt16 = 0
  private var transmitTaken: UInt16 = 0
  /// What to add to a bus address of a buffer to have its pointer.
  private var buffers: UnsafeMutableRawPointer?
  private var bufferAddress: UInt64 = 0
  private var others: UnsafeMutableRawPointer?
  private var othersAddress: UInt64 = .max

  init() throws {
    var options = VirtioNetModelOptions()
    options.queueSize = 512
    // Commands would have to be answered while the driver waits.
    options.features &= ~VirtioModelFeature.controlQueue
    model = try VirtioNetModel(options)
    // Notifications are stores that nobody looks at, as on hardware.
    card = InProcessCard(model, mode: .shared)
  }

  func attach(_ allocator: NetmapAllocator) {
    unsafe receive = model.place(ofQueue: 0)
    unsafe transmit = model.place(ofQueue: 1)
    unsafe buffers = allocator.bufferBase
    bufferAddress = allocator.bufferIOVABase.rawValue
  }

  func alsoReach(_ allocator: NetmapAllocator) {
    unsafe others = allocator.bufferBase
    othersAddress = allocator.bufferIOVABase.rawValue
  }

  // SAFETY: the rings have 512 entries; every index is masked. Buffer addresses are the driver's
  // own, as it is the only one here.
  @inline(never) func work(frames: Int) {
    guard let receive = unsafe receive, let transmit = unsafe transmit, let buffers = unsafe buffers else { return }
    let sentTo = unsafe rw_read16(transmit.available + 2)
    while transmitTaken != sentTo {
      let slot = Int(transmitTaken & 511)
      let id = unsafe rw_read16(transmit.available + 4 + slot * 2)
      unsafe rw_write64(transmit.used + 4 + slot * 8, UInt64(id))
      transmitTaken &+= 1
    }
    unsafe rw_write16(transmit.used + 2, transmitTaken)
    unsafe rw_write16(transmit.used + 4 + 512 * 8, transmitTaken)
    let freeTo = unsafe rw_read16(receive.available + 2)
    var left = frames
    while left > 0, receiveTaken != freeTo {
      let slot = Int(receiveTaken & 511)
      let id = unsafe Int(rw_read16(receive.available + 4 + slot * 2) & 511)
      let address = unsafe rw_read64(receive.descriptors + id * 16)
      if let others = unsafe others, address >= othersAddress {
        unsafe rw_write16(others + Int(address &- othersAddress) + 10, 1)
      } else {
        unsafe rw_write16(buffers + Int(address &- bufferAddress) + 10, 1)
      }
      // 60 bytes behind a header of 12.
      unsafe rw_write64(receive.used + 4 + slot * 8, 72 << 32 | UInt64(id))
      receiveTaken &+= 1
      left -= 1
    }
    unsafe rw_write16(receive.used + 2, receiveTaken)
    unsafe rw_write16(receive.used + 4 + 512 * 8, receiveTaken)
  }
}
