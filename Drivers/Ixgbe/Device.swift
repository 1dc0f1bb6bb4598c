// Reset and initialisation, in the order of the datasheet (4.6.3: initialization sequence).

import DeviceIO
import DriverKit
import IntelRings

extension IxgbeDriver {
  /// False when the card answers all ones: it was removed, or its memory is off.
  var isPresent: Bool { !function.isGone && registers.read32(at: Reg.status.offset) != .max }

  /// Makes earlier register writes reach the card.
  func flush() { _ = registers.read32(at: Reg.status.offset) }

  /// Masks, stops both directions, lets requests to memory end, resets, waits for the card to take
  /// its configuration. Afterwards nothing moves and nothing interrupts (4.2.1.6, 4.6.3, 5.2.5.3.2).
  func resetCard() throws(DriverError) {
    maskEverything()
    registers.modify(Reg.rxctrl) { $0.remove(.enable) }
    for i in 0..<Self.mostQueues {
      let stride = Reg.queueStride
      registers.modify(Reg.rxdctl, index: i, stride: stride) { $0.remove(.enable) }
      registers.modify(Reg.txdctl, index: i, stride: stride) { $0.remove(.enable) }
    }
    flush()
    clock.sleep(nanoseconds: 2_000_000)
    // A link that is up stays up: the other end does not see the reset.
    let keepsLink = registers.read(Reg.links).contains(.up)
    registers.modify(Reg.ctrl) { $0.insert(.masterDisable) }
    if !clock.poll(within: 80_000, every: 100, until: { !registers.read(Reg.status).contains(.masterEnabled) }) {
      guard isPresent else { throw lose() }
      warn("\(name): the card kept requests to memory open before its reset, so it was reset twice")
      emptyBusBuffers()
      try pulseReset(keepsLink: keepsLink)
    }
    try pulseReset(keepsLink: keepsLink)
    try awaitConfiguration()
    maskEverything()
    // Reading takes every cause with it.
    _ = registers.readClearing(Reg.eicr)
    registers.modify(Reg.ctrl) { $0.remove(.masterDisable) }
  }

  private func maskEverything() {
    registers.write(.all, to: Reg.eimc)
    for i in 0..<2 { registers.write(Plain(UInt32.max), to: Reg.eimcExtended, index: i) }
  }

  /// Software reset, with the link's where that is down anyway.
  private func pulseReset(keepsLink: Bool) throws(DriverError) {
    registers.modify(Reg.ctrl) { $0.formUnion(keepsLink ? .reset : [.reset, .linkReset]) }
    flush()
    clock.sleep(nanoseconds: 1_000_000)
    guard clock.poll(within: 10_000, until: { registers.read(Reg.ctrl).isDisjoint(with: [.reset, .linkReset]) }) else {
      throw isPresent ? .timeout(card: name, waitingFor: "the end of a reset, CTRL.RST") : lose()
    }
    // The datasheet wants 10 ms (4.6.3.2); boards with slow EEPROMs take longer.
    clock.sleep(nanoseconds: 50_000_000)
  }

  /// Before a second reset: nothing more goes out, and what waits towards the bus is thrown away.
  private func emptyBusBuffers() {
    registers.modify(Reg.hlreg0) { $0.insert(.loopback) }
    flush()
    clock.sleep(nanoseconds: 3_000_000)
    if let status = pciExpress.map({ $0 + 10 }) {
      // Transactions pending (PCI Express Base Specification, 7.5.3.5).
      _ = clock.poll(within: 80_000, every: 100) { function.readConfig16(at: status) & 0x20 == 0 }
    }
    registers.modify(Reg.gcrExt) { $0.insert(.clearBuffers) }
    flush()
    clock.sleep(nanoseconds: 20_000)
    registers.modify(Reg.gcrExt) { $0.remove(.clearBuffers) }
    registers.modify(Reg.hlreg0) { $0.remove(.loopback) }
  }

  /// Where the PCI Express capability lies in configuration space.
  private var pciExpress: Int? {
    var at = Int(function.readConfig8(at: 0x34) & 0xfc)
    var hops = 0
    while at >= 0x40, at < 0x100, hops < 48 {
      if function.readConfig8(at: at) == 0x10 { return at }
      at = Int(function.readConfig8(at: at + 1) & 0xfc)
      hops += 1
    }
    return nil
  }

  private func awaitConfiguration() throws(DriverError) {
    func wait(_ what: String, _ microseconds: UInt64, _ condition: () -> Bool) throws(DriverError) {
      guard clock.poll(within: microseconds, every: 100, until: condition) else {
        throw isPresent ? .timeout(card: name, waitingFor: what) : lose()
      }
    }
    try wait("its configuration to be read, EEC.AUTO_RD", 200_000) { registers.read(Reg.eec).contains(.autoReadDone) }
    let port = registers.read(Reg.status).port
    if !clock.poll(
      within: 100_000, every: 1000, until: { registers.read(Reg.eemngctl).contains(.configurationDone(port)) })
    {
      // Firmware that is not there configures nothing.
      warn("\(name): the card's firmware did not report its configuration as done")
    }
    try wait("its receive memory to be ready, RDRXCTL.DMAIDONE", 100_000) {
      registers.read(Reg.rdrxctl).contains(.initialized)
    }
    guard isPresent else { throw lose() }
  }

  /// Everything from a fresh reset to moving frames. The receive queues hold their buffers.
  func bringUp() throws(DriverError) {
    registers.modify(Reg.ctrlExt) {
      $0.formUnion([.driverLoaded, .noSnoopDisable, .resetDone])
      $0.remove(.doubleVLAN)
    }
    clearUnusedFilters()
    dividePacketMemory()
    setUpFlowControl()
    programMAC()
    programReceive()
    programTransmit()
    clearStatistics()
    programInterrupts()
    applyFilter()
    try enableTransmit()
    try enableReceive()
    try setUpLink()
    for i in 0..<queueCount {
      unsafe receivers[i].running = true
      unsafe transmitters[i].running = true
    }
    guard isPresent else { throw lose() }
  }

  /// Traffic classes, virtual functions, flow director, FCoE: off, as a card that knows none of them
  /// (4.6.10 and 4.6.11).
  private func clearUnusedFilters() {
    registers.write(0, to: Reg.virtualization)
    registers.write(0, to: Reg.fdirctrl)
    registers.write(0, to: Reg.fcrxctrl)
    registers.write(0, to: Reg.synqf)
    for i in 0..<8 {
      registers.write(0, to: Reg.etqf, index: i)
      registers.write(0, to: Reg.etqs, index: i)
    }
    for i in 0..<128 { registers.write(0, to: Reg.ftqf, index: i) }
    registers.write(0, to: Reg.rtrup2tc)
    registers.write(0, to: Reg.rttup2tc)
    registers.write(0, to: Reg.rtrpcs)
    registers.write(0, to: Reg.rttpcs)
  }

  /// All packet memory for one traffic class (4.6.11.3.4).
  private func dividePacketMemory() {
    let kilobyte = Bits.packetMemoryShift
    // The room below which the card takes no further frame: one of the largest must fit.
    let threshold = part.transmitMemory - UInt32((maximumFrame + 4 + 1023) / 1024)
    for i in 0..<8 {
      registers.write(Plain(i == 0 ? part.receiveMemory << kilobyte : 0), to: Reg.rxpbsize, index: i)
      registers.write(Plain(i == 0 ? part.transmitMemory << kilobyte : 0), to: Reg.txpbsize, index: i)
      registers.write(Plain(i == 0 ? threshold : 0), to: Reg.txpbthresh, index: i)
    }
  }

  /// No flow control: a slow receiver loses frames rather than to stop the other ports.
  private func setUpFlowControl() {
    registers.write(0, to: Reg.fccfg)
    registers.write(.discardPause, to: Reg.mflcn)
    for i in 0..<4 { registers.write(0, to: Reg.fcttv, index: i) }
    for i in 0..<8 {
      registers.write(0, to: Reg.fcrtl, index: i)
      registers.write(0, to: Reg.fcrth, index: i)
    }
    registers.write(0, to: Reg.fcrtv)
  }

  private func programMAC() {
    registers.modify(Reg.hlreg0) {
      $0.formUnion([.insertCheckSequence, .stripCheckSequence, .padShortPackets, .jumbo])
      $0.remove(.loopback)
    }
    // With check sequence and without tag, which come to the same length; the card adds tags by
    // itself (8.2.3.22.13).
    registers.write(Plain(UInt32(maximumFrame) << 16), to: Reg.maxfrs)
  }

  func warn(_ sentence: String) {
    if warnings.count < 16 { warnings.append(sentence) }
  }
}
