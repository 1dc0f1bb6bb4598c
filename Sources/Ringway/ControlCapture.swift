// Captures over the control socket: what passes interfaces, and what is dropped.
//
// Workers copy a frame's first bytes into the subscription's bounded queue and go on; a reader that is too slow is
// told how many it missed.

internal import Control
internal import Ifnet
internal import Packet
internal import Synchronization

/// One capture: a tap on interfaces, an observer of drops.
private final class ControlCapture: InterfaceTap, DropObserver {
  let stream: ControlStream
  let direction: PacketDirection?
  let snapLength: Int
  /// nil: all.
  let only: InterfaceIndex?
  let nameOf: @Sendable (InterfaceIndex) -> String?
  /// Names of netisr's protocols.
  let protocols: [Int: String]

  init(_ stream: ControlStream, _ request: CaptureStart, only: InterfaceIndex?, protocols: [Int: String],
    nameOf: @escaping @Sendable (InterfaceIndex) -> String?
  ) {
    self.stream = stream
    direction = request.direction == "in" ? .input : request.direction == "out" ? .output : nil
    snapLength = request.snapLength ?? 65535
    self.only = only
    self.nameOf = nameOf
    self.protocols = protocols
  }

  func passed(_ packet: borrowing Packet, _ direction: PacketDirection, on interface: Interface) {
    guard self.direction == nil || self.direction == direction else { return }
    var captured = CapturedPacket(
      time: WallClock.nanoseconds(), interface: interface.name, index: Int(interface.index.index), length: packet.count, data: bytes(packet))
    captured.direction = direction == .input ? "in" : "out"
    stream.push { .packet(captured) }
  }

  func dropped(_ packet: borrowing Packet, reason: DropReason, interface: InterfaceIndex, queue: UInt8, proto: UInt8) {
    let index = interface
    guard only == nil || only == index else { return }
    // A packet that was dropped above Ethernet has its link header in front of it, or gets one again.
    let front = LostHeader.bytes(for: packet)
    var captured = CapturedPacket(
      time: WallClock.nanoseconds(), interface: nameOf(index), index: Int(index.index), length: front.count + packet.count,
      data: bytes(packet, behind: front))
    captured.drop = reason.description
    captured.queue = Int(queue)
    captured.proto = proto == 0 ? nil : protocols[Int(proto)] ?? "\(proto)"
    stream.push { .packet(captured) }
  }

  /// The frame as it was on the wire, from all its buffers: a VLAN tag that the card took out is put back.
  private func bytes(_ packet: borrowing Packet, behind front: [UInt8] = []) -> String {
    var bytes = front + packet.bytes()
    if packet.flags.contains(.vlan), bytes.count >= 12 {
      bytes.insert(contentsOf: [0x81, 0, UInt8(packet.vlan >> 8), UInt8(packet.vlan & 0xff)], at: 12)
    }
    return Base64.encode(Array(bytes.prefix(snapLength)))
  }
}

extension Stack {
  func serveCaptures(_ server: ControlServer) {
    server.handle(CaptureStart.self) { [self] (request, context) throws(ControlError) in
      guard request.traffic || request.drops else { throw ControlError("EINVAL", "a capture without traffic and without drops shows nothing.") }
      guard [nil, "in", "out"].contains(request.direction) else { throw ControlError("EINVAL", "a direction is \"in\" or \"out\".") }
      guard (1...262_144).contains(request.snapLength ?? 65535), (1...1_000_000).contains(request.backlog ?? 4096) else {
        throw ControlError("EINVAL", "a snap length is 1 to 262144 bytes, a backlog 1 to 1000000 packets.")
      }
      let chosen = try request.interface.map { name throws(ControlError) in [try interface(name)] } ?? interfaces.interfaces
      let stream = context.openStream(backlog: request.backlog ?? 4096, isLossy: true)
      let capture = ControlCapture(stream, request, only: request.interface == nil ? nil : chosen.first?.index, protocols: protocolNames()) { [weak interfaces] in
        interfaces?.interface($0)?.name
      }
      if request.traffic { for interface in chosen { interface.add(capture) } }
      if request.drops { netisr.drops.add(capture) }
      stream.whenEnded { [drops = netisr.drops] in
        for interface in chosen { interface.remove(capture) }
        drops.remove(capture)
      }
      return CaptureStarted(
        subscription: stream.id,
        interfaces: chosen.map { CaptureInterface(name: $0.name, index: Int($0.index.index), linkType: $0.type == .loopback || $0.type == .tunnel ? 12 : 1) })
    }
  }
}
