// The link layer of interfaces without one: packets come back as they went out.

public import Ifnet
internal import Netisr
public import Packet
public import Wire

/// What packets mean on loopback interfaces: no header, the first four bits say which protocol.
///
/// The interface's driver gives what it is told to send back to `Interface.input`.
public final class LoopbackLayer: LinkLayer {
  private let netisr: Netisr

  /// The link layer of loopback and tunnel interfaces from here on.
  public init(_ table: InterfaceTable) {
    netisr = table.netisr
    for type in [InterfaceType.loopback, .tunnel] { table.setLink(self, for: type) }
  }

  /// Queues each packet for its protocol: a stack that talks to itself does not recurse.
  public func input(_ batch: inout PacketBatch, on interface: Interface) {
    var ordered = PacketBatch(capacity: max(1, batch.count))
    while let packet = batch.popLast() { _ = ordered.append(packet) }
    while let packet = ordered.popLast() {
      packet.flags.subtract([.linkBroadcast, .linkMulticast, .vlan])
      switch (packet.byte(at: 0) ?? 0) >> 4 {
      case 4: netisr.queue(.ip, packet)
      case 6: netisr.queue(.ipv6, packet)
      default: netisr.drops.drop(packet, .unknownEtherType, proto: NetisrProtocol.ether.rawValue)
      }
    }
  }

  public func output(_ packet: consuming Packet, to nextHop: SocketAddress, on interface: Interface) {
    interface.transmit(packet)
  }

  public func resolveMulticast(_ group: SocketAddress, on interface: Interface) throws(InterfaceError) -> MACAddress? { nil }
}
