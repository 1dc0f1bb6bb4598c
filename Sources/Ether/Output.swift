// Sent packets: the next hop's station, the header, the tag.

public import Ifnet
internal import Netisr
public import Packet
public import Wire

extension EtherLayer {
  public func output(_ packet: consuming Packet, to nextHop: SocketAddress, on interface: Interface) {
    let resolver: Box<Resolver>? = withHead { head in
      switch nextHop {
      case .ipv4: unsafe head.resolver4?.takeUnretainedValue()
      case .ipv6: unsafe head.resolver6?.takeUnretainedValue()
      default: nil
      }
    }
    if let resolver { return resolver.value(packet, nextHop, interface) }
    // A station's own address needs no resolver; the packet's version says what it is.
    guard case .link(_, let bytes) = nextHop, bytes.count == 6, let target = MACAddress(bytes: bytes) else {
      return netisr.drops.drop(packet, .arpUnresolved, interface: interface.index)
    }
    let type = (packet.byte(at: 0) ?? 0) >> 4 == 6 ? Ethernet.typeIPv6 : Ethernet.typeIPv4
    send(packet, to: target, type: type, on: interface)
  }

  /// Puts an Ethernet header in front and sends the frame. Padding is left to the card.
  public func send(_ packet: consuming Packet, to target: MACAddress, type: UInt16, on interface: Interface, priority: Bool = false) {
    let index = interface.index
    var own = withHead { unsafe $0.port(index)?.pointee.address ?? 0 }
    if own == 0 { own = interface.linkAddress?.rawValue ?? 0 }
    guard own != 0 else { return netisr.drops.drop(packet, .sendInterfaceGone, interface: index) }
    guard let frame = packet.withHeadroom(Ethernet.headerSize) else {
      return netisr.drops.count(1, .sendNoBuffer, interface: index)
    }
    // SAFETY: the header's room was made above.
    let start = unsafe frame.start
    unsafe start.setBig48(target.rawValue, 0)
    unsafe start.setBig48(own, 6)
    unsafe start.setBig16(type, 12)
    interface.transmit(frame, priority: priority)
  }

  /// The same on a worker, for data paths that have the interface's index: nothing is counted or locked.
  public func send(_ packet: consuming Packet, to target: UInt64, type: UInt16, through index: InterfaceIndex) {
    guard let port = unsafe currentHead.pointee.port(index), unsafe port.pointee.address != 0 else {
      return netisr.drops.drop(packet, .sendInterfaceGone, interface: index)
    }
    let own = unsafe port.pointee.address
    guard let frame = packet.withHeadroom(Ethernet.headerSize) else {
      return netisr.drops.count(1, .sendNoBuffer, interface: index)
    }
    // SAFETY: the header's room was made above; the port table holds the interface.
    let start = unsafe frame.start
    unsafe start.storeBytes(of: (target << 16 | own >> 32).bigEndian, as: UInt64.self)
    unsafe start.storeBytes(of: (UInt32(truncatingIfNeeded: own)).bigEndian, toByteOffset: 8, as: UInt32.self)
    unsafe start.setBig16(type, 12)
    let raw = unsafe frame.intoRaw()
    _ = unsafe port.pointee.interface!._withUnsafeGuaranteedRef { unsafe $0.transmit(Packet(unsafe: raw)) }
  }

  /// Gives a frame the tag of a VLAN: in the record when `parent`'s card inserts it, else in the frame.
  /// - Returns: nil when there was no room for the tag and no buffer for more; the packet is dropped then, and counted.
  public func insertTag(_ tag: UInt16, into packet: consuming Packet, for parent: Interface) -> Packet? {
    if parent.enabledCapabilities.contains(.vlanHardwareTagging) {
      packet.vlan = tag
      packet.flags.insert(.vlan)
      return packet
    }
    guard packet.firstCount >= Ethernet.headerSize else {
      netisr.drops.drop(packet, .sendNoBuffer, interface: parent.index)
      return nil
    }
    guard let frame = packet.withHeadroom(Ethernet.vlanTagSize, contiguous: Ethernet.headerSize) else {
      netisr.drops.count(1, .sendNoBuffer, interface: parent.index)
      return nil
    }
    // SAFETY: the tag's room was made in front of a whole header.
    let start = unsafe frame.start
    unsafe start.setBig48(start.big48(4), 0)
    unsafe start.setBig48(start.big48(10), 6)
    unsafe start.setBig16(Ethernet.typeVLAN, 12)
    unsafe start.setBig16(tag, 14)
    return frame
  }
}
