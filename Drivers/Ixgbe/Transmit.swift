// The transmit side: DMA engine and queues (82599 datasheet, 4.6.8 and 7.2).

import DeviceIO
import DriverKit
import IntelRings

extension IxgbeDriver {
  /// Everything but the enable bits.
  func programTransmit() {
    // Which queues exist is changed while the arbiter rests.
    registers.modify(Reg.rttdcs) { $0.insert(.arbiterDisable) }
    registers.write(0, to: Reg.mtqc)
    registers.modify(Reg.rttdcs) { $0.remove(.arbiterDisable) }
    // As much from memory in flight as the card can have (4.6.11.3.4).
    registers.write(Plain(0xfff), to: Reg.dtxmxszrq)
    // TCP flags that the first, the middle and the last segment keep (7.2.4.7): FIN and PSH only
    // the last, CWR only the first.
    registers.write(Plain(0xff6 | 0xf76 << 16), to: Reg.dtxtcpflgl)
    registers.write(Plain(0xf7f), to: Reg.dtxtcpflgh)
    let stride = Reg.queueStride
    for i in 0..<Self.mostQueues {
      let used = i < queueCount
      if used { unsafe transmitters[i].open(maximumFrame: maximumFrame, insertsVLAN: true) }
      let base = used ? rings.addresses(i).transmit.rawValue : 0
      registers.write(Plain(UInt32(truncatingIfNeeded: base)), to: Reg.tdbal, index: i, stride: stride)
      registers.write(Plain(UInt32(base >> 32)), to: Reg.tdbah, index: i, stride: stride)
      registers.write(
        Plain(used ? UInt32(options.transmitDescriptors * advancedDescriptorSize) : 0), to: Reg.tdlen, index: i,
        stride: stride)
      // Reports come as bits in descriptors, not as heads in memory.
      registers.write(0, to: Reg.tdwbal, index: i, stride: stride)
      registers.write(0, to: Reg.tdwbah, index: i, stride: stride)
      registers.write(0, to: Reg.tdh, index: i, stride: stride)
      registers.write(0, to: Reg.tdt, index: i, stride: stride)
      // A report must not overtake what it reports.
      if used { registers.modify(Reg.txDca, index: i, stride: stride) { $0.remove(.relaxedWriteBack) } }
    }
  }

  /// The engine first, then its queues (4.6.8).
  func enableTransmit() throws(DriverError) {
    registers.modify(Reg.dmatxctl) {
      $0.insert(.enable)
      $0.remove(.doubleVLAN)
    }
    for i in 0..<queueCount {
      registers.write(.transmitThresholds, to: Reg.txdctl, index: i, stride: Reg.queueStride)
      registers.modify(Reg.txdctl, index: i, stride: Reg.queueStride) { $0.insert(.enable) }
      try awaitQueue(Reg.txdctl, i, on: true, "transmit queue \(i) to start, TXDCTL.ENABLE")
    }
  }
}
