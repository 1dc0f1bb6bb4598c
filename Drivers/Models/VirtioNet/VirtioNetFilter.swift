// Which frames are let through (clauses 5.1.6.5.1 to 5.1.6.5.3).

import ModelKit
import Wire

/// The receive filter and what else commands set.
struct VirtioModelFilter {
  var promiscuous = false
  var allMulticast = false
  var allUnicast = false
  var noMulticast = false
  var noUnicast = false
  var noBroadcast = false
  var addresses: [MACAddress] = []
  var vlans: Set<UInt16> = []
  /// VIRTIO_NET_F_NOTF_COAL: how long an interrupt may wait, and for how many buffers.
  var receiveCoalescing = (packets: 0, microseconds: 0)
  var transmitCoalescing = (packets: 0, microseconds: 0)
}

extension VirtioNetModel {
  /// Whether the driver wants a frame. Without VIRTIO_NET_F_CTRL_RX it gets all of them.
  func accepts(_ frame: UnsafeRawBufferPointer) -> Bool {
    guard has(VirtioModelFeature.controlReceive), !filter.promiscuous else { return true }
    if has(VirtioModelFeature.controlVLAN), frame.count >= 16, unsafe frame.big16(12) == 0x8100 {
      if !filter.vlans.contains(unsafe frame.big16(14) & 0xfff) { return false }
    }
    guard frame.count >= 6 else { return false }
    let target = MACAddress(rawValue: UInt64(unsafe frame.big16(0)) << 32 | UInt64(unsafe frame.big32(2)))
    if target == .broadcast { return !filter.noBroadcast }
    if target.isMulticast {
      return !filter.noMulticast && (filter.allMulticast || filter.addresses.contains(target))
    }
    if filter.noUnicast { return false }
    return filter.allUnicast || target == registers.address || filter.addresses.contains(target)
  }
}
