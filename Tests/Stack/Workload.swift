// Cards that make traffic by themselves, on the workers that own them.

import DMAMemory
import DeviceIO
import Ether
import Ifnet
import Inet
import Inet6
import Netisr
import Packet
import Routes
import Synchronization
import Testing
import Wire

/// Buffers in ordinary memory, a pool for each worker.
@safe final class WorkerPools: @unchecked Sendable {
  let pools: [PacketPool]
  private let memory: UnsafeMutableRawPointer
  static let each = 2048

  init(_ netisr: Netisr) {
    let count = netisr.workers.count * Self.each
    unsafe memory = .allocate(byteCount: count * 2048, alignment: 4096)
    var pools: [PacketPool] = []
    for (index, worker) in netisr.workers.enumerated() {
      let first = UInt32(index * Self.each)
      let pool = unsafe PacketPool(
        unsafe: memory, stride: 2048, iova: IOVA(rawValue: 1 << 20), indices: Array(first..<(first + UInt32(Self.each))))
      pool.bind(to: worker.token)
      worker.pool = pool
      pools.append(pool)
    }
    self.pools = pools
  }
  deinit { unsafe memory.deallocate() }

  /// Buffers that are not back.
  var missing: Int { pools.reduce(0) { $0 + $1.capacity - $1.available } }
}

/// A card whose wire gives frames of its own making and swallows what is sent. One queue, polled by its owner.
final class BusyCard: InterfaceDriver, WorkerPoller, @unchecked Sendable {
  let mac: MACAddress
  let peer: MACAddress
  /// Frames that arrive, in turn.
  private let frames: [[UInt8]]
  weak var interface: Interface?
  let isRunning = Atomic(false)
  let sent = Atomic<UInt64>(0)
  /// Refuses the ring now and then, as a full one does.
  private let stutters: Bool
  private var round = 0

  init(mac: MACAddress, peer: MACAddress, frames: [[UInt8]], stutters: Bool = false) {
    self.mac = mac
    self.peer = peer
    self.frames = frames
    self.stutters = stutters
  }

  func poll(budget: Int) -> Int {
    guard isRunning.load(ordering: .acquiring), let interface, let worker = Worker.current else { return 0 }
    var batch = PacketBatch(capacity: 32)
    for _ in 0..<8 {
      guard let packet = worker.allocate() else { break }
      round &+= 1
      packet.fill(with: frames[round % frames.count])
      _ = batch.append(packet)
    }
    let count = batch.count
    interface.input(&batch)
    if stutters, round % 64 == 0 { for queue in interface.subqueues where queue.isActive { queue.ready() } }
    return count
  }
  func arm() -> Bool { isRunning.load(ordering: .acquiring) }
  func disarm() {}
  var eventDescriptor: Int32 { -1 }

  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {
    if case .setFlags(_, let new) = request { interface.setDriverFlags(new.contains(.up) ? .running : [], clear: new.contains(.up) ? [] : .running) }
  }

  func start(_ subqueue: Subqueue) {
    var batch = PacketBatch(capacity: 32)
    while subqueue.dequeue(into: &batch) > 0 {
      sent.wrappingAdd(UInt64(batch.count), ordering: .relaxed)
      if stutters, sent.load(ordering: .relaxed) % 97 == 0 {
        subqueue.isActive = true
        subqueue.prepend(&batch)
        return
      }
      batch.removeAll()
    }
  }
  func watchdog(_ interface: Interface) {}
  func watchdog(_ subqueue: Subqueue) { subqueue.ready() }
}

enum Wireframes {
  static func be16(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }

  static func udp(_ from: IPv4Address, _ to: IPv4Address, mac: MACAddress, peer: MACAddress, ttl: UInt8 = 64, id: Int = 1, fragment: Int = 0) -> [UInt8] {
    let payload: [UInt8] = be16(1000) + be16(2000) + be16(26) + [0, 0] + [UInt8](repeating: 7, count: 18)
    var header: [UInt8] = [0x45, 0] + be16(20 + payload.count) + be16(id) + be16(fragment) + [ttl, 17, 0, 0] + from.bytes + to.bytes
    header.replaceSubrange(10..<12, with: be16(Int(InternetChecksum.of(header))))
    return Ethernet.header(to: mac, from: peer, type: Ethernet.typeIPv4) + header + payload
  }

  static func echo(_ from: IPv4Address, _ to: IPv4Address, mac: MACAddress, peer: MACAddress) -> [UInt8] {
    var message: [UInt8] = [8, 0, 0, 0, 0, 1, 0, 1] + [UInt8](repeating: 9, count: 24)
    message.replaceSubrange(2..<4, with: be16(Int(InternetChecksum.of(message))))
    var header: [UInt8] = [0x45, 0] + be16(20 + message.count) + be16(3) + be16(0) + [64, 1, 0, 0] + from.bytes + to.bytes
    header.replaceSubrange(10..<12, with: be16(Int(InternetChecksum.of(header))))
    return Ethernet.header(to: mac, from: peer, type: Ethernet.typeIPv4) + header + message
  }

  static func arpReply(_ from: IPv4Address, _ to: IPv4Address, mac: MACAddress, peer: MACAddress) -> [UInt8] {
    Ethernet.header(to: mac, from: peer, type: Ethernet.typeARP) + [0, 1, 8, 0, 6, 4, 0, 2] + peer.bytes + from.bytes + mac.bytes + to.bytes
  }

  static func v6(_ from: IPv6Address, _ to: IPv6Address, mac: MACAddress, peer: MACAddress) -> [UInt8] {
    let payload = [UInt8](repeating: 5, count: 32)
    return Ethernet.header(to: mac, from: peer, type: Ethernet.typeIPv6) + [0x60, 0, 0, 0] + be16(payload.count) + [17, 64] + from.bytes + to.bytes + payload
  }
}
