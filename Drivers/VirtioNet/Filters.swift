// Which frames the device lets through, and its address: commands on the control queue.

public import DriverKit
import VirtioTransport
public import Wire

/// What the device was last told, so that only differences are sent.
struct ProgrammedFilter {
  /// CTRL_VLAN was agreed on. The table starts empty, so it is taken only when VLANs are to be
  /// filtered: taking it shuts every other tagged frame out.
  var filtersVLANs = false
  var vlans: Set<UInt16> = []
  var hasAddresses = false
}

extension VirtioNetDriver {
  /// Sends one command and waits for its answer.
  func run(_ command: ControlCommand) throws(DriverError) {
    guard let control = unsafe queues.control else {
      throw .unsupported(card: card, what: "\(command.what): it has no control queue")
    }
    try unsafe control.pointee.run(command, card: card, clock: clock)
  }

  /// A device without VIRTIO_NET_F_CTRL_RX lets everything through, and one without CTRL_VLAN all
  /// VLANs: `capabilities` says so, and the filter is kept for what it is worth.
  public func setReceiveFilter(_ filter: ReceiveFilter) throws(DriverError) {
    for vlan in filter.vlans ?? [] where vlan < 1 || vlan > 4094 {
      throw .option(card: card, name: "VLAN", value: "\(vlan)", allowed: "1 to 4094")
    }
    for address in filter.unicast where !address.isUnicast {
      throw .option(card: card, name: "unicast filter", value: "\(address)", allowed: "station addresses")
    }
    for address in filter.multicast where !address.isMulticast {
      throw .option(card: card, name: "multicast filter", value: "\(address)", allowed: "group addresses")
    }
    let before = self.filter
    self.filter = filter
    guard state == .running else { return }
    let wantsVLANs = filter.vlans != nil && controlIndex != nil
    if wantsVLANs != programmed.filtersVLANs, transport.readOfferedFeatures().contains(.controlVLAN) {
      // Features are agreed on between a reset and DRIVER_OK only.
      let events = recover()
      if events.contains(.lost) { throw state == .gone ? .gone(card: card) : .device(card: card, problem: "\(state)") }
      return
    }
    do { try programFilter() } catch {
      self.filter = before
      throw error
    }
  }

  /// Tells the device the filter, as far as it can filter.
  func programFilter() throws(DriverError) {
    if features.contains(.controlReceive) {
      let fits = filter.unicast.count + filter.multicast.count <= ControlQueue.addressCapacity
      try run(.promiscuous(filter.promiscuous || (!fits && !filter.unicast.isEmpty)))
      try run(.allMulticast(filter.allMulticast || !fits))
      let wanted = fits && !(filter.unicast.isEmpty && filter.multicast.isEmpty)
      if wanted || programmed.hasAddresses {
        try run(
          .addressTable(unicast: wanted ? filter.unicast : [], multicast: wanted ? filter.multicast : []))
        programmed.hasAddresses = wanted
      }
    }
    guard programmed.filtersVLANs else { return }
    let wanted = Set(filter.vlans ?? [])
    for id in programmed.vlans.subtracting(wanted).sorted() {
      try run(.vlan(id, add: false))
      programmed.vlans.remove(id)
    }
    for id in wanted.subtracting(programmed.vlans).sorted() {
      try run(.vlan(id, add: true))
      programmed.vlans.insert(id)
    }
  }

  public func setMACAddress(_ address: MACAddress) throws(DriverError) {
    guard address.isUnicast else {
      throw .option(card: card, name: "address", value: "\(address)", allowed: "station addresses")
    }
    guard features.contains(.controlMAC) else {
      throw .unsupported(card: card, what: "changing its address (VIRTIO_NET_F_CTRL_MAC_ADDR)")
    }
    if state == .running { try run(.setAddress(address)) }
    macAddress = address
  }
}
