// Reset and initialisation, in the order of the datasheet (4.6: software initialisation sequence).

import DeviceIO
import DriverKit

extension E1000eDriver {
  /// False when the card answers all ones: it was removed, or its memory is off.
  var isPresent: Bool { !function.isGone && registers.read32(at: Reg.status.offset) != .max }

  /// Masks, stops both directions, lets requests to memory end, resets, waits for the card to read
  /// its non-volatile memory. Afterwards nothing moves and nothing interrupts (4.6.2, 5.2.5.3).
  func resetCard() throws(DriverError) {
    registers.write(.all, to: Reg.imc)
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
    // The firmware must not touch the PHY while the MAC resets; the reset gives it the lock back.
    let owned = takeOwnership()
    registers.modify(Reg.ctrl) { $0.insert(.reset) }
    clock.sleep(nanoseconds: 1_000_000)
    if owned { releaseOwnership() }
    guard clock.poll(within: 10_000, until: { !registers.read(Reg.ctrl).contains(.reset) }) else {
      throw isPresent ? .timeout(card: name, waitingFor: "the end of a reset, CTRL.RST") : lose()
    }
    guard clock.poll(within: 100_000, every: 1000, until: { registers.read(Reg.eecd).contains(.autoReadDone) }) else {
      throw isPresent ? .timeout(card: name, waitingFor: "its configuration to be read, EECD.AUTO_RD") : lose()
    }
    // The PHY takes its configuration after the MAC has (82574: no bit tells when it is done).
    clock.sleep(nanoseconds: 25_000_000)
    guard isPresent else { throw lose() }
    registers.write(.all, to: Reg.imc)
    _ = registers.readClearing(Reg.icr)
    registers.modify(Reg.ctrl) { $0.remove(.masterDisable) }
    // A boot agent may have left the semaphore taken.
    registers.modify(Reg.swsm) { $0.remove(.softwareSemaphore) }
  }

  /// Makes earlier register writes reach the card.
  func flush() { _ = registers.read32(at: Reg.status.offset) }

  /// Everything from a fresh reset to moving frames. The receive queues hold their buffers.
  func bringUp(_ bufferBits: Rctl) {
    self.bufferBits = bufferBits
    applyErrata()
    dividePacketBuffer()
    setUpFlowControl()
    setUpLink()
    programReceive()
    programTransmit()
    programInterrupts()
    applyFilter()
    clearStatistics()
    for i in 0..<queueCount {
      unsafe receivers[i].running = true
      unsafe transmitters[i].running = true
      unsafe receivers[i].open()
    }
  }

  /// Bits that the specification update asks for on this card.
  private func applyErrata() {
    for i in 0..<2 {
      let stride = Reg.queueStride
      // 31 descriptors prefetched, reported at once (WTHRESH 0: reports are asked for by RS alone).
      registers.write(
        Plain(Bits.thresholdInDescriptors | Bits.txdctlMustBeOne | 1 << 8 | 31), to: Reg.txdctl, index: i, stride: stride)
      var arbitration = registers.read(Reg.tarc, index: i, stride: stride)
      arbitration = arbitration & ~Bits.tarcMustBeZero | Bits.tarcEnable | (i == 0 ? Bits.tarcErratum : 0)
      registers.write(Plain(arbitration), to: Reg.tarc, index: i, stride: stride)
    }
    registers.modify(Reg.ctrl) { $0.remove(.reserved29) }
    registers.modify(Reg.ctrlExt) {
      $0.remove(.reserved23)
      $0.formUnion([.reserved22, .driverLoaded])
    }
    registers.write(Plain(registers.read(Reg.gcr) | Bits.gcrErratum | Bits.gcrL1WithoutL0s), to: Reg.gcr)
    registers.write(Plain(registers.read(Reg.gcr2) | Bits.gcr2Erratum), to: Reg.gcr2)
  }

  /// ASPM states L0s and L1 off in the PCI Express link control register: with them on, this card
  /// loses completions and its transmitter hangs (specification update, erratum 20).
  func quietLinkPowerStates() {
    var at = Int(function.readConfig8(at: 0x34) & 0xfc)
    var hops = 0
    while at >= 0x40, at < 0x100, hops < 48 {
      if function.readConfig8(at: at) == 0x10 {
        let control = function.readConfig16(at: at + 0x10)
        if control != .max, control & 3 != 0 { function.writeConfig16(control & ~3, at: at + 0x10) }
        return
      }
      at = Int(function.readConfig8(at: at + 1) & 0xfc)
      hops += 1
    }
  }

  /// 40 KiB of packet memory: 32 for receive, unless two whole frames do not fit into the rest.
  private func dividePacketBuffer() {
    let twoFrames = (2 * (maximumFrame + 4 + descriptorSize) + 1023) / 1024
    registers.write(Plain(UInt32(40 - max(8, min(20, twoFrames)))), to: Reg.packetBuffer)
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

  private func programReceive() {
    for i in 0..<2 {
      let used = i < queueCount, stride = Reg.queueStride
      let base = used ? ringAddresses(i).receive.rawValue : 0
      registers.write(Plain(UInt32(truncatingIfNeeded: base)), to: Reg.rdbal, index: i, stride: stride)
      registers.write(Plain(UInt32(base >> 32)), to: Reg.rdbah, index: i, stride: stride)
      registers.write(
        Plain(used ? UInt32(options.receiveDescriptors * descriptorSize) : 0), to: Reg.rdlen, index: i, stride: stride)
      registers.write(0, to: Reg.rdh, index: i, stride: stride)
      registers.write(0, to: Reg.rdt, index: i, stride: stride)
      // Fetch when 32 are free and 4 are wanted; write each one back at once.
      registers.write(
        Plain(Bits.thresholdInDescriptors | 1 << 16 | 4 << 8 | 32), to: Reg.rxdctl, index: i, stride: stride)
    }
    registers.write(0, to: Reg.rdtr)
    registers.write(0, to: Reg.radv)
    registers.write(
      [.extendedDescriptors, .acknowledgeDisable, .nfsReadDisable, .nfsWriteDisable, .iscsiDisable], to: Reg.rfctl)
    registers.write([.ip, .tcpUDP, .hashInDescriptor], to: Reg.rxcsum)
    registers.write(Plain(0x8100), to: Reg.vet)
    programScaling()
  }

  /// Receive-side scaling with a key that repeats every 16 bits: both directions of a connection
  /// hash alike, and so reach the same queue (7.1.2.10).
  private func programScaling() {
    for i in 0..<10 { registers.write(Plain(0x5a6d_5a6d), to: Reg.rssrk, index: i) }
    let spread = queueCount == 2 ? Bits.retaQueue1 << 8 | Bits.retaQueue1 << 24 : 0
    for i in 0..<32 { registers.write(Plain(spread), to: Reg.reta, index: i) }
    registers.write(Plain(Bits.mrqcTwoQueues), to: Reg.mrqc)
  }

  private func programTransmit() {
    for i in 0..<2 {
      let used = i < queueCount, stride = Reg.queueStride
      if used {
        unsafe transmitters[i].open(pool: pool(i), maximumFrame: maximumFrame, insertsVLAN: options.stripVLAN)
      }
      let base = used ? ringAddresses(i).transmit.rawValue : 0
      registers.write(Plain(UInt32(truncatingIfNeeded: base)), to: Reg.tdbal, index: i, stride: stride)
      registers.write(Plain(UInt32(base >> 32)), to: Reg.tdbah, index: i, stride: stride)
      registers.write(
        Plain(used ? UInt32(options.transmitDescriptors * descriptorSize) : 0), to: Reg.tdlen, index: i, stride: stride)
      registers.write(0, to: Reg.tdh, index: i, stride: stride)
      registers.write(0, to: Reg.tdt, index: i, stride: stride)
    }
    registers.write(0, to: Reg.tidv)
    registers.write(0, to: Reg.tadv)
    // Gaps between frames for copper (10.2.6.2).
    registers.write(Plain(8 | 8 << 10 | 6 << 20), to: Reg.tipg)
    registers.modify(Reg.tctl) {
      $0.subtract(Tctl(rawValue: 0x3f_fff0))
      $0.formUnion([.enable, .padShortPackets, .retransmitLateCollision, .collisions, .multipleRequests])
    }
  }

  func warn(_ sentence: String) {
    if warnings.count < 16 { warnings.append(sentence) }
  }
}
