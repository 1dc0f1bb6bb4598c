// Another link address for an interface (if_setlladdr).

internal import Netisr
internal import Wire

extension Interface {
  /// Sets the link-level address. When the interface is up, the driver goes down and up, and every IPv4 address is
  /// announced on the wire.
  /// - Throws: EINVAL (no link address, another length, multicast or zero), ENODEV (neither Ethernet nor VLAN nor LAG),
  ///   what the driver says; nothing has changed then.
  public func setLinkAddress(_ octets: [UInt8]) throws(InterfaceError) {
    try table.control { [self] () throws(InterfaceError) in
      let (old, wanted) = try checkLinkAddress(octets)
      replaceLinkAddress(wanted)
      do throws(InterfaceError) {
        try driver.handle(.setLinkAddress(wanted), on: self)
        if flags.contains(.up) { try restartDriver() }
      } catch {
        replaceLinkAddress(old)
        throw error
      }
      touch()
      if flags.contains(.up) { for domain in table.domains { domain.linkAddressChanged(self) } }
      table.announce(.linkAddress(wanted), self)
    }
  }

  private func checkLinkAddress(_ octets: [UInt8]) throws(InterfaceError) -> (old: MACAddress, wanted: MACAddress) {
    // As in the BSDs the length comes before the kind of the interface.
    guard let old = linkAddress, octets.count == 6, let wanted = MACAddress(bytes: octets) else {
      throw InterfaceError(
        .EINVAL, "\(name): \(linkAddress == nil ? "it has no link address" : "a link address of \(octets.count) octets does not fit")")
    }
    guard type == .ethernet || type == .vlan || type == .lag else {
      throw InterfaceError(.ENODEV, "\(name): the link address of this kind of interface cannot be set")
    }
    guard wanted.isUnicast else { throw InterfaceError(.EINVAL, "\(name): \(wanted) is no station's address") }
    return (old, wanted)
  }

  private func replaceLinkAddress(_ address: MACAddress) {
    linkAddress = address
    let entry = InterfaceAddress(.link(index.index, address), on: self)
    state.withLock { state in
      if state.addresses.first?.address.family == .link { state.addresses[0] = entry } else { state.addresses.insert(entry, at: 0) }
    }
    table.publish(self)
  }

  /// Down and up again, so that the card takes the address; the protocols do not notice.
  private func restartDriver() throws(InterfaceError) {
    let up = flags
    changeFlags(set: [], clear: .up)
    do throws(InterfaceError) {
      try driver.handle(.setFlags(old: up, new: flags), on: self)
    } catch {
      changeFlags(set: .up)
      throw error
    }
    changeFlags(set: .up)
    try driver.handle(.setFlags(old: up.subtracting(.up), new: flags), on: self)
  }
}
