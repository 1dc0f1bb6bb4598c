// Up and down, and the flags that are set by request.

internal import Netisr

extension Interface {
  /// Brings the interface up, as SIFFLAGS with UP does.
  public func bringUp() throws(InterfaceError) { try changeFlagsByRequest(set: .up, clear: []) }
  public func takeDown() throws(InterfaceError) { try changeFlagsByRequest(set: [], clear: .up) }

  func changeFlagsByRequest(set: InterfaceFlags, clear: InterfaceFlags) throws(InterfaceError) {
    try table.control { [self] () throws(InterfaceError) in try setFlags(flags.subtracting(clear).union(set)) }
  }

  /// SIFFLAGS, on worker 0. What a request cannot change stays; the driver decides before anybody is told.
  func setFlags(_ wanted: InterfaceFlags) throws(InterfaceError) {
    if wanted.contains(.polling) != flags.contains(.polling) { try setPolling(wanted.contains(.polling)) }
    let old = flags
    let settable = wanted.subtracting(.cannotChange)
    var new = old.intersection(.cannotChange).union(settable)
    // PROMISC follows from who asked: somebody by name, or somebody who counts.
    if settable.contains(.permanentPromisc) || promiscuousCount > 0 { new.insert(.promisc) } else { new.remove(.promisc) }
    let goesUp = !old.contains(.up) && new.contains(.up)
    let goesDown = old.contains(.up) && !new.contains(.up)
    if goesUp, !new.contains(.smart) { purgeSubqueues() }
    changeFlags(set: new.subtracting(old), clear: old.subtracting(new))
    do throws(InterfaceError) { try driver.handle(.setFlags(old: old, new: flags), on: self) } catch {
      // The driver's own flags (RUNNING) are as it left them.
      let own: InterfaceFlags = [.running, .oactive]
      changeFlags(set: old.subtracting(own), clear: new.subtracting(old).subtracting(own))
      throw error
    }
    if !new.contains(.smart) {
      if goesUp { wentUp() }
      if goesDown { wentDown() }
    }
    touch()
    if old != flags { table.announce(.flags(flags), self) }
  }

  /// if_up, after UP was set: addresses first, IPv6 last.
  func wentUp() {
    touch()
    let domains = table.domains
    for domain in domains where domain.family != .ipv6 { domain.changed(self, isUp: true) }
    table.announce(.up, self)
    for domain in domains where domain.family == .ipv6 { domain.changed(self, isUp: true) }
  }

  /// if_down, after UP was cleared.
  func wentDown() {
    touch()
    for domain in table.domains { domain.changed(self, isUp: false) }
    purgeSubqueues(isDying ? .sendInterfaceGone : .sendQueuePurged)
    table.announce(.down, self)
    table.netisr.barrier()
  }

  /// NPOLLING: asks the driver, and keeps the flag as it was when the driver refuses.
  func setPolling(_ isOn: Bool) throws(InterfaceError) {
    try table.control { [self] () throws(InterfaceError) in
      guard isOn != flags.contains(.polling) else { return }
      try driver.handle(.polling(isOn), on: self)
      changeFlags(set: isOn ? .polling : [], clear: isOn ? [] : .polling)
      touch()
      table.announce(.flags(flags), self)
    }
  }
}
