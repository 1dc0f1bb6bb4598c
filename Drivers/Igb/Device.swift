// Reset and initialisation, in the order of the datasheet (82576, 4.5: software initialisation and
// diagnostics).

import DeviceIO
import DriverKit
import IntelRings

extension IgbDriver {
  /// False when the card answers all ones: it was removed, or its memory is off.
  var isPresent: Bool { !function.isGone && registers.read32(at: Reg.status.offset) != .max }

  /// Makes earlier register writes reach the card.
  func flush() { _ = registers.read32(at: Reg.status.offset) }

  func warn(_ sentence: String) {
    if warnings.count < 16 { warnings.append(sentence) }
  }

  func maskEverything() {
    registers.write(.all, to: Reg.imc)
    registers.write(Plain(.max), to: Reg.eimc)
  }

  /// Masks, stops both directions, lets requests to memory end, resets, waits for the card to read
  /// its non-volatile memory. Afterwards nothing moves and nothing interrupts (4.2.1.6, 5.2.3.3).
  func resetCard() throws(DriverError) {
    maskEverything()
    registers.write([], to: Reg.rctl)
    registers.modify(Reg.tctl) { $0.remove(.enable) }
    flush()
    // What is on its way to or from memory arrives.
    clock.sleep(nanoseconds: 10_000_000)
    registers.modify(Reg.ctrl) { $0.insert(.masterDisable) }
    if !clock.poll(within: 80_000, every: 100, until: { !registers.read(Reg.status).contains(.masterEnabled) }) {
      guard isPresent else { throw lose() }
      warn("\(name): the card kept requests to memory open before its reset")
    }
    registers.modify(Reg.ctrl) { $0.insert(.reset) }
    clock.sleep(nanoseconds: 1_000_000)
    guard clock.poll(within: 10_000, until: { !registers.read(Reg.ctrl).contains(.reset) }) else {
      throw isPresent ? .timeout(card: name, waitingFor: "the end of a reset, CTRL.RST") : lose()
    }
    // Both bits stay clear on a card without non-volatile memory, so neither wait is a failure.
    _ = clock.poll(within: 10_000, every: 1000) { registers.read(Reg.eecd).contains(.autoReadDone) }
    let configured = kind == .i210 || kind == .i211 ? Reg.eemngctlI210 : Reg.eemngctl
    let bit = UInt32(1) << UInt32(18 + registers.read(Reg.status).port)
    _ = clock.poll(within: 40_000, every: 1000) { registers.read(configured) & bit != 0 }
    guard isPresent else { throw lose() }
    maskEverything()
    _ = registers.readClearing(Reg.icr)
    registers.write(Plain(.max), to: Reg.eicr)
    registers.modify(Reg.ctrl) { $0.remove(.masterDisable) }
  }

  /// Everything from a fresh reset to moving frames. The receive queues hold their buffers.
  func bringUp() throws(DriverError) {
    registers.modify(Reg.ctrlExt) { $0.insert(.driverLoaded) }
    setUpFlowControl()
    setUpLink()
    programFilters()
    programScaling()
    for i in 0..<kind.queues {
      try programReceive(i)
      try programTransmit(i)
    }
    registers.modify(Reg.tctl) {
      $0.subtract(.collisionFields)
      $0.formUnion([.enable, .padShortPackets, .retransmitLateCollision, .collisions])
    }
    programInterrupts()
    clearStatistics()
    // The receiver last, then descriptors for it (4.5.9).
    applyFilter()
    for i in 0..<queueCount {
      unsafe receivers[i].running = true
      unsafe transmitters[i].running = true
      unsafe receivers[i].open()
    }
  }

  /// No flow control: a slow receiver loses frames rather than to stop the other ports.
  private func setUpFlowControl() {
    registers.write(Plain(0x00c2_8001), to: Reg.fcal)
    registers.write(Plain(0x0100), to: Reg.fcah)
    registers.write(Plain(0x8808), to: Reg.fct)
    registers.write(0, to: Reg.fcttv)
    registers.write(0, to: Reg.fcrtl)
    registers.write(0, to: Reg.fcrth)
  }

  /// What is the same for all queues (8.10).
  private func programFilters() {
    registers.write([.nfsReadDisable, .nfsWriteDisable, .iscsiDisable], to: Reg.rfctl)
    registers.write([.ip, .tcpUDP, .hashInDescriptor], to: Reg.rxcsum)
    registers.write(Plain(0x8100_8100), to: Reg.vet)
    // With check sequence; 14 bits.
    registers.write(Plain(UInt32(maximumFrame + 4)), to: Reg.rlpml)
  }

  /// Receive-side scaling over all queues that are used (7.1.2.8).
  private func programScaling() {
    for (i, word) in ReceiveScaling.keyWords.enumerated() { registers.write(Plain(word), to: Reg.rssrk, index: i) }
    for (i, word) in ReceiveScaling.tableWords(queues: queueCount).enumerated() {
      registers.write(Plain(word), to: Reg.reta, index: i)
    }
    registers.write(Plain(Bits.mrqcScaling), to: Reg.mrqc)
  }

  /// Queue `i`'s receive ring: base, length, buffers, then the enable bit, which reads back when the
  /// queue is ready (4.5.9.2). Queues that are not used are switched off: queue 0 is on after a reset.
  private func programReceive(_ i: Int) throws(DriverError) {
    let stride = Reg.queueStride
    registers.write([], to: Reg.rxdctl, index: i, stride: stride)
    guard i < queueCount else { return }
    let base = rings.addresses(i).receive.rawValue
    registers.write(Plain(UInt32(truncatingIfNeeded: base)), to: Reg.rdbal, index: i, stride: stride)
    registers.write(Plain(UInt32(base >> 32)), to: Reg.rdbah, index: i, stride: stride)
    registers.write(
      Plain(UInt32(options.receiveDescriptors * advancedDescriptorSize)), to: Reg.rdlen, index: i, stride: stride)
    let drop = queueCount > 1 ? Bits.srrctlDrop : 0
    registers.write(Plain(UInt32(bufferSize / 1024) | Bits.srrctlOneBuffer | drop), to: Reg.srrctl, index: i, stride: stride)
    registers.write(0, to: Reg.rdh, index: i, stride: stride)
    registers.write(0, to: Reg.rdt, index: i, stride: stride)
    registers.write([.receiveThresholds, .enable], to: Reg.rxdctl, index: i, stride: stride)
    try awaitEnable(Reg.rxdctl, i, "receive")
  }

  private func programTransmit(_ i: Int) throws(DriverError) {
    let stride = Reg.queueStride
    registers.write([], to: Reg.txdctl, index: i, stride: stride)
    guard i < queueCount else { return }
    unsafe transmitters[i].open(maximumFrame: maximumFrame, insertsVLAN: true)
    let base = rings.addresses(i).transmit.rawValue
    registers.write(Plain(UInt32(truncatingIfNeeded: base)), to: Reg.tdbal, index: i, stride: stride)
    registers.write(Plain(UInt32(base >> 32)), to: Reg.tdbah, index: i, stride: stride)
    registers.write(
      Plain(UInt32(options.transmitDescriptors * advancedDescriptorSize)), to: Reg.tdlen, index: i, stride: stride)
    // Reports go into the descriptors, not to a head in memory (7.2.3).
    registers.write(0, to: Reg.tdwbal, index: i, stride: stride)
    registers.write(0, to: Reg.tdwbah, index: i, stride: stride)
    registers.write(0, to: Reg.tdh, index: i, stride: stride)
    registers.write(0, to: Reg.tdt, index: i, stride: stride)
    registers.write([.transmitThresholds, .enable], to: Reg.txdctl, index: i, stride: stride)
    try awaitEnable(Reg.txdctl, i, "transmit")
  }

  private func awaitEnable(_ register: Register<QueueControl>, _ i: Int, _ direction: String) throws(DriverError) {
    let done = clock.poll(within: 10_000) {
      registers.read(register, index: i, stride: Reg.queueStride).contains(.enable)
    }
    guard done, isPresent else {
      throw isPresent ? .timeout(card: name, waitingFor: "\(direction) queue \(i) to switch on") : lose()
    }
  }
}
