// The receive side: DMA engine, queues, hash (82599 datasheet, 4.6.7 and 7.1.2).

import DeviceIO
import DriverKit
import IntelRings

extension IxgbeDriver {
  /// Everything but the enable bits.
  func programReceive() {
    registers.modify(Reg.rdrxctl) {
      $0.formUnion([.stripCheckSequence, .reserved])
      $0.remove(.coalescedFirstSize)
    }
    registers.write([.coalescingDisable, .nfsReadDisable, .nfsWriteDisable], to: Reg.rfctl)
    registers.write(.hashInDescriptor, to: Reg.rxcsum)
    programScaling()
    let stride = Reg.queueStride
    for i in 0..<Self.mostQueues {
      let used = i < queueCount, base = used ? rings.addresses(i).receive.rawValue : 0
      registers.write(Plain(UInt32(truncatingIfNeeded: base)), to: Reg.rdbal, index: i, stride: stride)
      registers.write(Plain(UInt32(base >> 32)), to: Reg.rdbah, index: i, stride: stride)
      registers.write(
        Plain(used ? UInt32(options.receiveDescriptors * advancedDescriptorSize) : 0), to: Reg.rdlen, index: i,
        stride: stride)
      registers.write(0, to: Reg.rdh, index: i, stride: stride)
      registers.write(0, to: Reg.rdt, index: i, stride: stride)
      registers.write(0, to: Reg.rscctl, index: i, stride: stride)
      guard used else { continue }
      var split = bufferBits.union(.oneBuffer)
      // One slow queue must not stop the others; alone, it may use the packet memory to the end.
      if queueCount > 1 { split.insert(.dropEnable) }
      registers.write(split, to: Reg.srrctl, index: i, stride: stride)
      registers.modify(Reg.rxDca, index: i, stride: stride) {
        $0.subtract([.reserved12, .relaxedData, .relaxedHeader])
      }
    }
  }

  /// Receive-side scaling with a key that hashes both directions of a connection alike. UDP is
  /// hashed by addresses alone: the fragments of a datagram would reach another queue than its
  /// first, and be overtaken.
  private func programScaling() {
    for (i, word) in ReceiveScaling.keyWords.enumerated() { registers.write(Plain(word), to: Reg.rssrk, index: i) }
    for (i, word) in ReceiveScaling.tableWords(queues: queueCount).enumerated() {
      registers.write(Plain(word), to: Reg.reta, index: i)
    }
    registers.write([.scaling, .tcpIPv4, .ipv4, .tcpIPv6, .ipv6], to: Reg.mrqc)
  }

  /// Queues first, each with its buffers, then the engine; no frame reaches the engine while it
  /// starts, or the engine may hang (4.6.7 and the specification update).
  func enableReceive() throws(DriverError) {
    for i in 0..<queueCount {
      registers.modify(Reg.rxdctl, index: i, stride: Reg.queueStride) {
        $0.insert(.enable)
        if options.stripVLAN { $0.insert(.stripVLAN) } else { $0.remove(.stripVLAN) }
      }
      try awaitQueue(Reg.rxdctl, i, on: true, "receive queue \(i) to start, RXDCTL.ENABLE")
      unsafe receivers[i].open()
    }
    registers.modify(Reg.secRxCtrl) { $0.insert(.pathDisable) }
    if !clock.poll(within: 4000, every: 10, until: { registers.read(Reg.secRxStat).contains(.ready) }) {
      guard isPresent else { throw lose() }
      warn("\(name): the receive path did not fall idle before it was switched on")
    }
    registers.modify(Reg.rxctrl) { $0.insert(.enable) }
    registers.modify(Reg.secRxCtrl) { $0.remove(.pathDisable) }
    flush()
  }

  /// Waits for a queue's enable bit to say what was written.
  func awaitQueue(
    _ register: Register<QueueControl>, _ queue: Int, on: Bool, _ what: String
  ) throws(DriverError) {
    let done = clock.poll(within: 10_000, every: 10) {
      registers.read(register, index: queue, stride: Reg.queueStride).contains(.enable) == on
    }
    guard done else { throw isPresent ? .timeout(card: name, waitingFor: what) : lose() }
  }

  /// Both directions off, in order (4.6.7.1.2 and 4.6.8.1): receive first; what was handed over for
  /// sending gets 10 ms to leave.
  func disableQueues() {
    for i in 0..<queueCount {
      unsafe receivers[i].running = false
      unsafe transmitters[i].running = false
      registers.modify(Reg.rxdctl, index: i, stride: Reg.queueStride) { $0.remove(.enable) }
      try? awaitQueue(Reg.rxdctl, i, on: false, "")
    }
    // The engine finishes what it has in hand.
    clock.sleep(nanoseconds: 100_000)
    for i in 0..<queueCount {
      if health == .running, lastLink.status == .up {
        _ = clock.poll(within: 10_000, every: 100) {
          unsafe transmitters[i].reclaim()
          return unsafe transmitters[i].pending == 0
        }
      }
      registers.modify(Reg.txdctl, index: i, stride: Reg.queueStride) { $0.remove(.enable) }
      try? awaitQueue(Reg.txdctl, i, on: false, "")
    }
  }
}
