// Which frames are let in (82576 datasheet, 7.1.1): exact addresses, a hash of multicast addresses,
// a bit for each VLAN.

import DeviceIO
import DriverKit
import Wire

extension IgbDriver {
  public func setReceiveFilter(_ filter: ReceiveFilter) throws(DriverError) {
    for address in filter.unicast where !address.isUnicast {
      throw .option(card: name, name: "a unicast address", value: "\(address)", allowed: "addresses of single stations")
    }
    for address in filter.multicast where !address.isMulticast {
      throw .option(card: name, name: "a multicast address", value: "\(address)", allowed: "addresses of groups")
    }
    for vlan in filter.vlans ?? [] where !(1...4094).contains(vlan) {
      throw .option(card: name, name: "a VLAN identifier", value: "\(vlan)", allowed: "1 to 4094")
    }
    if health == .gone { throw .gone(card: name) }
    self.filter = filter
    if health == .running { applyFilter() }
  }

  public func setMACAddress(_ address: MACAddress) throws(DriverError) {
    guard address.isUnicast else {
      throw .option(card: name, name: "the station address", value: "\(address)", allowed: "addresses of single stations")
    }
    if health == .gone { throw .gone(card: name) }
    macAddress = address
    if health == .running { writeAddress(address, at: 0) }
  }

  /// Tables first, the receive control register last: it also switches the receiver on.
  func applyFilter() {
    writeAddress(macAddress, at: 0)
    let further = kind.addresses - 1
    for i in 0..<further { writeAddress(i < filter.unicast.count ? filter.unicast[i] : nil, at: i + 1) }
    var hashes = [UInt32](repeating: 0, count: 128)
    for address in filter.multicast {
      let bit = multicastBit(address)
      hashes[bit >> 5] |= 1 << UInt32(bit & 31)
    }
    for (i, word) in hashes.enumerated() { registers.write(Plain(word), to: Reg.mta, index: i) }
    var vlans = [UInt32](repeating: 0, count: 128)
    for vlan in filter.vlans ?? [] { vlans[Int(vlan >> 5)] |= 1 << UInt32(vlan & 31) }
    // Priority-tagged frames (identifier 0) belong to no VLAN and always pass.
    if filter.vlans != nil { vlans[0] |= 1 }
    for (i, word) in vlans.enumerated() {
      for _ in 0..<kind.vlanWrites { registers.write(Plain(word), to: Reg.vfta, index: i) }
    }

    var control: Rctl = [.enable, .acceptBroadcast, .stripCheckSequence, .longPackets]
    if filter.promiscuous { control.formUnion([.unicastPromiscuous, .multicastPromiscuous]) }
    // More addresses than the card holds: it lets all in, and whoever asked sorts them out.
    if filter.unicast.count > further { control.insert(.unicastPromiscuous) }
    if filter.allMulticast { control.insert(.multicastPromiscuous) }
    if filter.vlans != nil { control.insert(.vlanFilter) }
    registers.write(control, to: Reg.rctl)
  }

  /// Receive address `i`; nil switches the pair off. The high word is written last: it holds the
  /// valid bit. Entries from 16 on lie in a table of their own (8.10).
  private func writeAddress(_ address: MACAddress?, at i: Int) {
    let low = i < 16 ? Reg.ral : Reg.ral16, high = i < 16 ? Reg.rah : Reg.rah16, index = i & 15
    let octets = (address ?? MACAddress(rawValue: 0)).bytes.map { UInt32($0) }
    registers.write(0, to: high, index: index, stride: 8)
    registers.write(
      Plain(octets[0] | octets[1] << 8 | octets[2] << 16 | octets[3] << 24), to: low, index: index, stride: 8)
    if address != nil {
      registers.write(Plain(octets[4] | octets[5] << 8 | Bits.addressValid), to: high, index: index, stride: 8)
    }
  }

  /// The hash with RCTL.MO 0: bits 47 to 36 of the address as it is sent (7.1.1).
  private func multicastBit(_ address: MACAddress) -> Int { Int(address[5]) << 4 | Int(address[4]) >> 4 }
}
