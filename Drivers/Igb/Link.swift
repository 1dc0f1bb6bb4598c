// The link: set up, asked by interrupt and by poll (82576 datasheet, 3.5 and 4.5.7).

import DeviceIO
import DriverKit

extension IgbDriver {
  /// Whether the internal copper PHY makes the link; otherwise SerDes, SGMII or a backplane does.
  private var hasPHY: Bool { registers.read(Reg.ctrlExt).linkMode == 0 }

  /// The link as the card reports it now.
  public var link: LinkState {
    let raw = registers.read32(at: Reg.status.offset)
    guard raw != .max else { return LinkState(status: .unknown) }
    let status = Status(rawValue: raw)
    if hasPHY {
      guard status.contains(.linkUp) else { return LinkState(status: .down) }
      return LinkState(status: .up, speed: status.speed, fullDuplex: status.contains(.fullDuplex))
    }
    let pcs = registers.read(Reg.pcsStatus)
    guard pcs.contains([.linkUp, .synchronized]) else { return LinkState(status: .down) }
    return LinkState(status: .up, speed: pcs.speed, fullDuplex: pcs.contains(.fullDuplex))
  }

  /// The MAC takes speed and duplex from the PHY. A link that is up already stays up.
  func setUpLink() {
    let copper = hasPHY
    registers.modify(Reg.ctrl) {
      $0.insert(.setLinkUp)
      $0.subtract([.forceSpeed, .forceDuplex, .receiveFlowControl, .transmitFlowControl])
      if options.stripVLAN { $0.insert(.vlanMode) } else { $0.remove(.vlanMode) }
      if !copper && kind == .i82576 { $0.insert(.pins) }
    }
    if copper { setUpPHY() } else { setUpSerDes() }
  }

  /// A PHY that is off or idle is set going.
  private func setUpPHY() {
    guard take(.phy) else {
      warn("\(name): the firmware keeps the PHY; the link is left as it is")
      return
    }
    defer { give(.phy) }
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

  /// SerDes and SGMII negotiate in the PCS; 1000BASE-KX is forced to a gigabit (3.5.4; chapter 8, PCS).
  private func setUpSerDes() {
    registers.write(Plain(0x0400), to: Reg.serdesControl)
    registers.modify(Reg.ctrlExt) { $0.remove(.pin3) }
    let isBackplane = registers.read(Reg.ctrlExt).linkMode == 1
    registers.modify(Reg.pcsControl) {
      $0.subtract([.autonegotiate, .forcedUp, .forceSpeed, .forceLink])
      $0.formUnion([.speed1000, .fullDuplex])
      $0.formUnion(isBackplane ? .forceSpeed : [.autonegotiate, .restart])
    }
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
