// What an interface asks of its card: flags, MTU, capabilities, addresses, polling. On worker 0.

internal import DriverKit
public import Ifnet
internal import Netisr
internal import Packet
internal import Wire

extension CardAttachment {
  public func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {
    do throws(DriverError) {
      switch request {
      case .setFlags(_, let new): try setFlags(new)
      case .setMTU(let mtu): try setMTU(mtu)
      case .setCapabilities(let wanted): try setCapabilities(wanted, on: interface)
      case .addMulticast(let group):
        guard !filter.multicast.contains(group) else { return }
        try changeFilter { $0.multicast.append(group) }
      case .deleteMulticast(let group): try changeFilter { $0.multicast.removeAll { $0 == group } }
      case .setLinkAddress(let address): try setAddress(address)
      case .polling(let isOn): setPolling(isOn)
      case .setMedia(let media) where media == Self.autoselect: return
      default: throw .unsupported(card: interface.name, what: "\(request)")
      }
    } catch { throw InterfaceError(Self.code(of: error), "\(error)") }
  }

  /// UP starts and stops the card; the others choose what it hears.
  private func setFlags(_ flags: InterfaceFlags) throws(DriverError) {
    guard flags.contains(.up) else {
      stopCard()
      filter.promiscuous = flags.contains(.promisc)
      filter.allMulticast = flags.contains(.allMulti)
      return
    }
    try changeFilter {
      $0.promiscuous = flags.contains(.promisc)
      $0.allMulticast = flags.contains(.allMulti)
    }
    try startCard()
  }

  /// The card gets the new filter if it runs, or it stays with the old one.
  private func changeFilter(_ change: (inout ReceiveFilter) -> Void) throws(DriverError) {
    var wanted = filter
    change(&wanted)
    guard wanted != filter else { return }
    let old = filter
    filter = wanted
    guard isRunning else { return }
    let result = still { [self] () -> Result<Void, DriverError> in
      do throws(DriverError) { try driver.setReceiveFilter(wanted) } catch {
        // It may have taken half of it.
        try? driver.setReceiveFilter(old)
        return .failure(error)
      }
      return .success(())
    }
    do throws(DriverError) { try result.get() } catch {
      filter = old
      throw error
    }
  }

  /// Rings are laid out for the largest frame: a larger MTU needs them anew, a smaller one does not.
  private func setMTU(_ mtu: Int) throws(DriverError) {
    if mtu <= driver.options.mtu, mtu >= 68 { return }
    try remake { $0.mtu = mtu }
  }

  private func setAddress(_ address: MACAddress) throws(DriverError) {
    let result = still { [self] () -> Result<Void, DriverError> in
      do throws(DriverError) { try driver.setMACAddress(address) } catch { return .failure(error) }
      return .success(())
    }
    try result.get()
  }

  // MARK: Capabilities

  /// What the card can do, in the interface's words.
  static func capabilities(of driver: any NetDriver) -> InterfaceCapabilities {
    let can = driver.capabilities
    var all: InterfaceCapabilities = [.vlanMTU, .polling, .linkState, .netmap]
    if can.contains(.receiveChecksum) { all.insert(.rxcsum) }
    if can.contains(.transmitChecksum) { all.insert(.txcsum) }
    if can.isSuperset(of: [.vlanStrip, .vlanInsert]) { all.insert(.vlanHardwareTagging) }
    if can.contains(.jumboFrames) { all.insert(.jumboMTU) }
    if can.contains(.transmitSegmentation) { all.formUnion([.tso4, .tso6]) }
    if can.contains(.receiveScaling) { all.insert(.rss) }
    return all
  }

  /// Received checksums are a matter of what the stack is told; tagging is the card's. What is sent carries its
  /// offloads with it: the stack asks for none that is off.
  private func setCapabilities(_ wanted: InterfaceCapabilities, on interface: Interface) throws(DriverError) {
    let strips = wanted.contains(.vlanHardwareTagging) && driver.capabilities.contains(.vlanStrip)
    if interface.capabilities.contains(.vlanHardwareTagging), strips != driver.options.stripVLAN {
      try remake { $0.stripVLAN = strips }
    }
    let hidden: PacketFlags = wanted.contains(.rxcsum) ? [] : [.ipChecksum, .tcpChecksum, .udpChecksum, .badChecksum]
    guard hidden != isHiding else { return }
    isHiding = hidden
    still { [self] in for queue in queues { queue.hide(hidden) } }
  }

  static func code(of error: DriverError) -> InterfaceErrno {
    switch error {
    case .gone: .ENXIO
    case .unsupported: .EOPNOTSUPP
    case .option: .EINVAL
    case .pool, .allocator, .memory: .ENOMEM
    case .function, .timeout, .device: .EIO
    }
  }
}
