// What a bridge does with a frame: on the worker that has it, over a view that never changes.

internal import Ether
internal import Ifnet
internal import Netisr
internal import Packet
internal import Synchronization
internal import Wire

/// A member, as frames see it.
final class BridgeMember: Sendable {
  let interface: Interface
  /// Its number in the table of addresses.
  let slot: UInt8
  let flags: BridgeMemberFlags
  let address: UInt64
  init(_ interface: Interface, slot: UInt8, flags: BridgeMemberFlags) {
    self.interface = interface
    self.slot = slot
    self.flags = flags
    address = interface.linkAddress?.rawValue ?? 0
  }
}

/// A bridge and its members at one time: replaced as a whole when something changes.
final class BridgeView: Sendable {
  let members: [BridgeMember]
  let bySlot: [BridgeMember?]
  let own: UInt64
  init(_ members: [BridgeMember], own: UInt64) {
    self.members = members
    self.own = own
    var bySlot: [BridgeMember?] = []
    for member in members {
      while bySlot.count <= Int(member.slot) { bySlot.append(nil) }
      bySlot[Int(member.slot)] = member
    }
    self.bySlot = bySlot
  }
}

extension BridgeDriver {
  private static let groupBit: UInt64 = 1 << 40
  private static let broadcast: UInt64 = 0xffff_ffff_ffff

  /// Ether's hook: a frame that a member received. What is returned is for this machine.
  func forward(_ packet: consuming Packet, from member: BridgeMember, _ view: BridgeView, _ bridge: Interface) -> Packet? {
    guard bridge.flags.contains(.up) else { return packet }
    let (target, source) = packet.stations
    // A frame of our own that comes in again: somewhere there is a loop.
    if source == view.own || view.members.contains(where: { $0.address == source }) {
      refuse(packet, .bridgeLoop, member)
      return nil
    }
    if member.flags.contains(.learn), !addresses.learn(source, member: member.slot, now: seconds) {
      refuse(packet, .bridgeFiltered, member)
      return nil
    }
    if target & Self.groupBit != 0 {
      // 01:80:c2:00:00:0x stays on its link (IEEE 802.1D, 7.12.6).
      if target & 0xffff_ffff_fff0 == 0x0180_c200_0000 {
        refuse(packet, .bridgeFiltered, member)
        return nil
      }
      flood(packet, from: member, view)
      return keep(packet, for: bridge, from: member)
    }
    if target == view.own { return keep(packet, for: bridge, from: member) }
    if target == member.address { return packet }
    if let other = view.members.first(where: { $0.address == target }) { return keep(packet, for: other.interface, from: member) }
    unicast(packet, target, from: member, view)
    return nil
  }

  /// A frame that this machine sends through the bridge.
  func send(_ packet: consuming Packet, _ view: BridgeView, _ bridge: Interface) {
    guard packet.firstCount >= Ethernet.headerSize else { return drops.drop(packet, .tooShort, interface: bridge.index) }
    let target = packet.stations.target
    if target & Self.groupBit == 0, let slot = addresses.lookup(target), let member = view.member(slot) {
      return transmit(packet, on: member, accountedTo: bridge.index)
    }
    var last: BridgeMember?
    for member in view.members where canFlood(to: member, target) {
      if let ready = last { sendCopy(of: packet, on: ready, accountedTo: bridge.index) }
      last = member
    }
    guard let last else { return drops.drop(packet, .bridgeNoTarget, interface: bridge.index) }
    transmit(packet, on: last, accountedTo: bridge.index)
  }

  private func canFlood(to member: BridgeMember, _ target: UInt64) -> Bool {
    (member.flags.contains(.discover) || target & Self.groupBit != 0) && member.interface.flags.isSuperset(of: [.up, .running])
  }

  private func unicast(_ packet: consuming Packet, _ target: UInt64, from member: BridgeMember, _ view: BridgeView) {
    if let slot = addresses.lookup(target), let out = view.member(slot) {
      // It heard the frame itself, or it may not hear it.
      guard out !== member, !out.flags.isSuperset(of: .private) || !member.flags.contains(.private) else {
        return refuse(packet, .bridgeFiltered, member)
      }
      counts.forwarded.wrappingAdd(1, ordering: .relaxed)
      ether.delivered(member.interface.index)
      return transmit(packet, on: out, accountedTo: nil)
    }
    var last: BridgeMember?
    for other in view.members where other !== member && canFlood(to: other, target) && !bothPrivate(other, member) {
      if let ready = last { sendCopy(of: packet, on: ready, accountedTo: nil) }
      last = other
    }
    guard let last else { return refuse(packet, .bridgeNoTarget, member) }
    counts.flooded.wrappingAdd(1, ordering: .relaxed)
    ether.delivered(member.interface.index)
    transmit(packet, on: last, accountedTo: nil)
  }

  private func bothPrivate(_ a: BridgeMember, _ b: BridgeMember) -> Bool { a.flags.contains(.private) && b.flags.contains(.private) }

  /// Copies of a broadcast or multicast frame to every other member; the frame itself stays.
  private func flood(_ packet: borrowing Packet, from member: BridgeMember, _ view: BridgeView) {
    let target = packet.stations.target
    counts.flooded.wrappingAdd(1, ordering: .relaxed)
    for other in view.members where other !== member && canFlood(to: other, target) && !bothPrivate(other, member) {
      sendCopy(of: packet, on: other, accountedTo: nil)
    }
  }

  private func sendCopy(of packet: borrowing Packet, on member: BridgeMember, accountedTo index: InterfaceIndex?) {
    guard let copy = packet.copied() else { return drops.count(1, .sendNoBuffer, interface: member.interface.index) }
    transmit(copy, on: member, accountedTo: index)
  }

  /// Out through a member, with its tag in the frame where its card inserts none.
  private func transmit(_ packet: consuming Packet, on member: BridgeMember, accountedTo index: InterfaceIndex?) {
    let out = member.interface
    let account = index ?? out.index
    guard out.flags.isSuperset(of: [.up, .running]) else { return drops.drop(packet, .sendInterfaceGone, interface: account) }
    guard packet.count <= out.mtu + Ethernet.headerSize + Ethernet.vlanTagSize else {
      return drops.drop(packet, .sendTooLong, interface: account)
    }
    packet.headerLengthsCleared()
    if packet.flags.contains(.vlan), !out.enabledCapabilities.contains(.vlanHardwareTagging) {
      let tag = packet.vlan
      packet.flags.remove(.vlan)
      if let tagged = ether.insertTag(tag, into: packet, for: out) { out.transmit(tagged) }
      return
    }
    out.transmit(packet)
  }

  /// The frame is for this machine, at `interface`: counted there, and gone on from the member.
  private func keep(_ packet: consuming Packet, for interface: Interface, from member: BridgeMember) -> Packet? {
    ether.delivered(member.interface.index)
    counts.local.wrappingAdd(1, ordering: .relaxed)
    packet.interface = interface.index
    interface.count(.ipackets)
    interface.count(.ibytes, UInt64(packet.count))
    return packet
  }

  private func refuse(_ packet: consuming Packet, _ reason: DropReason, _ member: BridgeMember) {
    counts.refused.wrappingAdd(1, ordering: .relaxed)
    drops.drop(packet, reason, interface: member.interface.index, proto: NetisrProtocol.ether.rawValue)
  }
}

extension BridgeView {
  func member(_ slot: UInt8) -> BridgeMember? { Int(slot) < bySlot.count ? bySlot[Int(slot)] : nil }
}
