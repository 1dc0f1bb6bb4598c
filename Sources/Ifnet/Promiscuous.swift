// Hearing everything: promiscuous for all frames, all-multicast for all groups. Both are counted; the driver hears of
// the first that wants it and of the last that does not.

internal import Netisr

extension Interface {
  public var promiscuousCount: Int { state.withLock { $0.promiscuousCount } }
  public var allMulticastCount: Int { state.withLock { $0.allMulticastCount } }

  /// ifpromisc: one more, or one less, that wants every frame.
  /// - Throws: ENETDOWN (on, while down), EINVAL (an off without an on), what the driver says; nothing has changed
  ///   then.
  public func setPromiscuous(_ isOn: Bool) throws(InterfaceError) {
    try table.control { [self] () throws(InterfaceError) in
      let before = promiscuousCount
      if !isOn, before == 0 { throw InterfaceError(.EINVAL, "\(name) is not promiscuous for anybody") }
      let after = before + (isOn ? 1 : -1)
      if flags.contains(.permanentPromisc) { return state.withLock { $0.promiscuousCount = after } }
      if isOn, !flags.contains(.up) { throw InterfaceError(.ENETDOWN, "\(name) is down: bring it up first") }
      state.withLock { $0.promiscuousCount = after }
      guard before == 0 || after == 0 else { return }
      do throws(InterfaceError) { try tellDriver(.promisc, isOn) } catch {
        state.withLock { $0.promiscuousCount = before }
        throw error
      }
    }
  }

  /// if_allmulti: the same for multicast frames; also while the interface is down.
  /// - Throws: EINVAL (an off without an on), what the driver says; nothing has changed then.
  public func setAllMulticast(_ isOn: Bool) throws(InterfaceError) {
    try table.control { [self] () throws(InterfaceError) in
      let before = allMulticastCount
      if !isOn, before == 0 { throw InterfaceError(.EINVAL, "\(name) does not receive all groups for anybody") }
      let after = before + (isOn ? 1 : -1)
      state.withLock { $0.allMulticastCount = after }
      guard before == 0 || after == 0 else { return }
      do throws(InterfaceError) { try tellDriver(.allMulti, isOn) } catch {
        state.withLock { $0.allMulticastCount = before }
        throw error
      }
    }
  }

  private func tellDriver(_ flag: InterfaceFlags, _ isOn: Bool) throws(InterfaceError) {
    let old = changeFlags(set: isOn ? flag : [], clear: isOn ? [] : flag)
    do throws(InterfaceError) { try driver.handle(.setFlags(old: old, new: flags), on: self) } catch {
      changeFlags(set: old.intersection(flag), clear: flag)
      throw error
    }
    touch()
    table.announce(.flags(flags), self)
  }
}
