// The link: set up, asked by interrupt and by poll (82574 datasheet, 3.2 and 8).

import DeviceIO
import DriverKit

extension E1000eDriver {
  /// The link as the card reports it now.
  public var link: LinkState {
    let raw = registers.read32(at: Reg.status.offset)
    guard raw != .max else { return LinkState(status: .unknown) }
    let status = Status(rawValue: raw)
    guard status.contains(.linkUp) else { return LinkState(status: .down) }
    return LinkState(status: .up, speed: status.speed, fullDuplex: status.contains(.fullDuplex))
  }

  /// The MAC takes speed and duplex from the PHY; a PHY that is off or idle is set going. A link
  /// that is up already stays up.
  func setUpLink() {
    registers.modify(Reg.ctrl) {
      $0.insert(.setLinkUp)
      $0.subtract([
        .forceSpeed, .forceDuplex, .invertLossOfSignal, .autoSpeedDetection, .receiveFlowControl, .transmitFlowControl,
      ])
      if options.stripVLAN { $0.insert(.vlanMode) } else { $0.remove(.vlanMode) }
    }
    guard takeOwnership() else {
      warn("\(name): the firmware keeps the PHY; the link is left as it is")
      return
    }
    defer { releaseOwnership() }
    guard let control = readPHY(PHY.control), let status = readPHY(PHY.status) else {
      warn("\(name): the PHY does not answer; the link is left as it is")
      return
    }
    guard control & PHY.powerDown != 0 || control & PHY.autonegotiate == 0 || status & PHY.complete == 0 else { return }
    // Everything up to a gigabit, without pause (IEEE 802.3, 28.2.4 and 40.5.1.1).
    _ = writePHY(PHY.advertisement, 0x01e1)
    _ = writePHY(PHY.gigabitControl, 0x0200)
    _ = writePHY(PHY.control, control & ~PHY.powerDown | PHY.autonegotiate | PHY.restart)
  }

  /// Whether both error counters stand at their ends: this PHY then receives nothing any more and
  /// wants a reset (82574 specification update: PHY hang).
  var isPHYStuck: Bool {
    guard takeOwnership() else { return false }
    defer { releaseOwnership() }
    guard readPHY(PHY.receiveErrors) == .max, let status = readPHY(PHY.gigabitStatus) else { return false }
    return status & 0xff == 0xff
  }

  private func readPHY(_ register: UInt32) -> UInt16? {
    registers.write(.read(register), to: Reg.mdic)
    return awaitPHY()
  }

  private func writePHY(_ register: UInt32, _ value: UInt16) -> Bool {
    registers.write(.write(register, value), to: Reg.mdic)
    return awaitPHY() != nil
  }

  /// A management frame takes 64 bit times of 400 ns at least.
  private func awaitPHY() -> UInt16? {
    var value: Mdic = []
    let ready = clock.poll(within: 10_000, every: 50) {
      value = registers.read(Reg.mdic)
      return value.contains(.ready)
    }
    return ready && !value.contains(.error) ? value.data : nil
  }

  /// `.link` when the link differs from what was seen last.
  func noticeLink() -> DriverEvents {
    let now = link
    guard now != lastLink else { return [] }
    lastLink = now
    return .link
  }
}
