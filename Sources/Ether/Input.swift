// Received frames: checks, bridge, destination, tag, protocol.

public import Ifnet
internal import Netisr
public import Packet
internal import Wire

/// Frames on their way to a VLAN interface: a batch of one for each worker and depth of tags.
@safe final class HandoverBatches: @unchecked Sendable {
  /// A tag in a tag in a tag: no frame needs more.
  static let maximumDepth = 3
  private let batches: UnsafeMutablePointer<PacketBatch>
  private let depths: UnsafeMutablePointer<Int>
  private let count: Int

  init(workers: Int) {
    count = max(1, workers) * Self.maximumDepth
    unsafe batches = .allocate(capacity: count)
    for i in 0..<count { unsafe (batches + i).initialize(to: PacketBatch(capacity: 1)) }
    unsafe depths = .allocate(capacity: max(1, workers))
    unsafe depths.initialize(repeating: 0, count: max(1, workers))
  }

  deinit {
    unsafe batches.deinitialize(count: count)
    unsafe batches.deallocate()
    unsafe depths.deallocate()
  }

  /// Puts a packet into an interface, as its driver would. Gives it back when tags are nested too deep.
  func hand(_ packet: consuming Packet, to interface: Interface, worker: Int) -> Packet? {
    // SAFETY: `worker` is the calling thread's own, so nobody else uses its batches and its depth.
    let depth = unsafe depths[worker]
    guard depth < Self.maximumDepth else { return packet }
    let batch = unsafe batches + (worker &* Self.maximumDepth &+ depth)
    if let refused = unsafe batch.pointee.append(packet) { return refused }
    unsafe depths[worker] = depth + 1
    unsafe interface.input(&batch.pointee)
    unsafe depths[worker] = depth
    return nil
  }
}

extension EtherLayer {
  public func input(_ batch: inout PacketBatch, on interface: Interface) { netisr.dispatch(.ether, batch: &batch) }

  @inline(__always) private func refuse(_ packet: consuming Packet, _ reason: DropReason) {
    netisr.drops.drop(packet, reason, proto: NetisrProtocol.ether.rawValue)
  }

  /// ETHER's handler.
  func receive(_ packet: consuming Packet) {
    let head = unsafe currentHead
    guard let port = unsafe head.pointee.port(packet.interface) else { return refuse(packet, .interfaceGone) }
    guard packet.firstCount >= Ethernet.headerSize else { return refuse(packet, .tooShort) }
    let flags = unsafe port.pointee.interface!._withUnsafeGuaranteedRef { $0.flags }
    guard flags.contains(.up) else { return refuse(packet, .interfaceDown) }
    guard !flags.contains(.monitor) else { return refuse(packet, .notForUs) }
    // SAFETY: the first buffer holds a header.
    let frame = unsafe packet.start
    let (target, source) = unsafe (frame.big48(0), frame.big48(6))
    guard source & Self.groupBit == 0, source != 0 else { return refuse(packet, .badEthernetHeader) }
    if let bridge = unsafe port.pointee.bridge {
      let (hook, member) = unsafe (bridge.takeUnretainedValue().value, port.pointee.interface!.takeUnretainedValue())
      guard let kept = hook(packet, member) else { return }
      return take(kept, from: source, to: target)
    }
    take(packet, from: source, to: target)
  }

  static var groupBit: UInt64 { 1 << 40 }

  /// The part behind the bridge: is the frame for this station, and for which protocol?
  @inline(__always) private func take(_ packet: consuming Packet, from source: UInt64, to target: UInt64) {
    let head = unsafe currentHead
    guard let port = unsafe head.pointee.port(packet.interface) else { return refuse(packet, .interfaceGone) }
    let own = unsafe port.pointee.address
    if source == own { return refuse(packet, .ownFrame) }
    packet.flags.subtract([.linkBroadcast, .linkMulticast])
    if target != own {
      guard target & Self.groupBit != 0 else { return refuse(packet, .notForUs) }
      packet.flags.insert(target == MACAddress.broadcast.rawValue ? .linkBroadcast : .linkMulticast)
    }
    guard packet.firstCount >= Ethernet.headerSize else { return refuse(packet, .tooShort) }
    let type = unsafe packet.start.big16(12)
    if packet.flags.contains(.vlan) || type == Ethernet.typeVLAN {
      return takeTagged(packet, inFrame: !packet.flags.contains(.vlan))
    }
    pass(packet, type)
  }

  @inline(__always) private func pass(_ packet: consuming Packet, _ type: UInt16) {
    guard let proto = unsafe currentHead.pointee.proto(of: type) else { return refuse(packet, .unknownEtherType) }
    packet.removeFirst(Ethernet.headerSize)
    netisr.dispatch(proto, packet)
  }

  /// A frame with a tag, in the record or in the frame: to the VLAN's interface.
  @inline(never) private func takeTagged(_ packet: consuming Packet, inFrame: Bool) {
    var tag = packet.vlan
    if inFrame {
      guard packet.firstCount >= Ethernet.headerSize + Ethernet.vlanTagSize else { return refuse(packet, .tooShort) }
      tag = unsafe packet.start.big16(14)
      packet.removeTag()
    }
    packet.flags.remove(.vlan)
    let vlan = tag & 0xfff
    // Tag 0 carries a priority and no VLAN (IEEE 802.1Q, 6.9).
    if vlan == 0 {
      let type = unsafe packet.start.big16(12)
      guard type != Ethernet.typeVLAN else { return refuse(packet, .badEthernetHeader) }
      return pass(packet, type)
    }
    let head = unsafe currentHead
    guard let worker = workerID, let port = unsafe head.pointee.port(packet.interface), let vlans = unsafe port.pointee.vlans,
      let target = unsafe head.pointee.port(vlans[Int(vlan)])
    else { return refuse(packet, .unknownVLAN) }
    let (parent, interface) = unsafe (packet.interface, target.pointee.interface!.takeUnretainedValue())
    if let refused = handover.hand(packet, to: interface, worker: worker) { return refuse(refused, .badEthernetHeader) }
    delivered(parent)
  }
}
