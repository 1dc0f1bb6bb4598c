// Ether: Ethernet between interfaces and protocols.
//
//     in:  Interface.input ─> netisr ETHER ─> by type: VLAN interface, bridge, ARP, IPv4, IPv6
//     out: protocol ─> output(to: next hop) ─> the family's resolver (ARP, ND) ─> send(to: MAC) ─> Interface.transmit
//
// Invariants
// - A protocol gets the packet without its Ethernet header, which still lies in front of it (headroom).
// - Whoever has no use for a frame drops it with a reason.

public import Ifnet
public import Netisr
public import Packet
internal import Synchronization
public import Wire

/// The Ethernet link layer of a stack.
public final class EtherLayer: LinkLayer, @unchecked Sendable {
  public let table: InterfaceTable
  public var netisr: Netisr { table.netisr }
  /// Finds the station for a next hop, and sends or holds the packet: ARP, neighbour discovery.
  public typealias Resolver = @Sendable (_ packet: consuming Packet, _ nextHop: SocketAddress, _ interface: Interface) -> Void
  private struct State {
    var types: [UInt16: NetisrProtocol] = [:]
    var resolvers: [AddressFamily: Resolver] = [:]
  }
  private let state = Mutex(State())

  public init(_ table: InterfaceTable) throws(NetisrError) {
    self.table = table
    try table.netisr.register(
      NetisrHandler(name: "ether", proto: .ether, policy: .source, dispatch: .direct, workersOnly: true) { [unowned self] packet in
        receive(packet)
      })
  }

  /// Frames of an EtherType go to a protocol of netisr.
  public func register(type: UInt16, proto: NetisrProtocol) { state.withLock { $0.types[type] = proto } }
  public func setResolver(_ family: AddressFamily, _ resolver: @escaping Resolver) { state.withLock { $0.resolvers[family] = resolver } }

  public func input(_ batch: inout PacketBatch, on interface: Interface) { netisr.dispatch(.ether, batch: &batch) }

  private func receive(_ packet: consuming Packet) {
    guard packet.firstCount >= Ethernet.headerSize, let high = packet.byte(at: 12), let low = packet.byte(at: 13) else {
      return netisr.drops.drop(packet, .tooShort, proto: NetisrProtocol.ether.rawValue)
    }
    let type = UInt16(high) << 8 | UInt16(low)
    guard let proto = state.withLock({ $0.types[type] }) else {
      return netisr.drops.drop(packet, .unknownEtherType, proto: NetisrProtocol.ether.rawValue)
    }
    packet.removeFirst(Ethernet.headerSize)
    netisr.dispatch(proto, packet)
  }

  public func output(_ packet: consuming Packet, to nextHop: SocketAddress, on interface: Interface) {
    guard let family = nextHop.family, let resolver = state.withLock({ $0.resolvers[family] }) else {
      return netisr.drops.drop(packet, .arpUnresolved, interface: interface.index)
    }
    resolver(packet, nextHop, interface)
  }

  /// Puts an Ethernet header in front and sends the frame.
  public func send(_ packet: consuming Packet, to target: MACAddress, type: UInt16, on interface: Interface, priority: Bool = false) {
    guard let own = interface.linkAddress, packet.prepend(Ethernet.headerSize) else {
      return netisr.drops.drop(packet, .noBuffer, interface: interface.index)
    }
    for (i, byte) in Ethernet.header(to: target, from: own, type: type).enumerated() { packet.setByte(byte, at: i) }
    interface.transmit(packet, priority: priority)
  }

  public func resolveMulticast(_ group: SocketAddress, on interface: Interface) throws(InterfaceError) -> MACAddress? {
    switch group {
    case .ipv4(let address) where address.isMulticast:
      return MACAddress(rawValue: 0x0100_5e00_0000 | UInt64(address.rawValue & 0x7f_ffff))
    case .ipv6(let address) where address.isMulticast:
      return MACAddress(rawValue: 0x3333_0000_0000 | address.low & 0xffff_ffff)
    case .link(_, let bytes):
      guard let mac = MACAddress(bytes: bytes), bytes.count == 6, mac.isMulticast else {
        throw InterfaceError(.EADDRNOTAVAIL, "\(interface.name): \(group) is no multicast address")
      }
      return nil
    default: throw InterfaceError(.EADDRNOTAVAIL, "\(interface.name): \(group) is no multicast address")
    }
  }
}
