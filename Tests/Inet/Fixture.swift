// A stack without threads: one clock that stands still, drivers that remember what they were told to send.

import DMAMemory
import DeviceIO
import Ifnet
import Netisr
import Packet
import Platform
import Routes
import Synchronization
import Testing
import Wire

@testable import Ether
@testable import Inet

/// A clock that moves when the test says so.
final class ManualClock: TimeSource {
  private let time = Atomic<UInt64>(1_000_000_000)
  func now() -> UInt64 { time.load(ordering: .relaxed) }
  func sleep(nanoseconds: UInt64) { advance(nanoseconds) }
  func advance(_ nanoseconds: UInt64) { time.wrappingAdd(nanoseconds, ordering: .relaxed) }
}

/// Buffers in ordinary memory.
@safe final class Buffers: @unchecked Sendable {
  let pool: PacketPool
  private let base: UnsafeMutableRawPointer
  init(_ count: Int) {
    unsafe base = .allocate(byteCount: count * 2048, alignment: 4096)
    unsafe pool = PacketPool(unsafe: base, stride: 2048, iova: IOVA(rawValue: 0x10_0000), indices: Array(0..<UInt32(count)))
  }
  deinit { unsafe base.deallocate() }
}

/// Remembers frames.
final class FakeDriver: InterfaceDriver {
  struct Frame: Equatable {
    var bytes: [UInt8]
    var vlan: UInt16?
  }
  private let frames = Guarded<[Frame]>([])
  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {}
  func start(_ subqueue: Subqueue) {
    var batch = PacketBatch(capacity: 64)
    while subqueue.dequeue(into: &batch) > 0 {
      var sent: [Frame] = []
      batch.forEach { sent.append(Frame(bytes: $0.bytes(), vlan: $0.flags.contains(.vlan) ? $0.vlan : nil)) }
      frames.withLock { $0 += sent }
      batch.removeAll()
    }
  }
  /// What was sent since the last call.
  func take() -> [Frame] {
    frames.withLock { frames in
      defer { frames = [] }
      return frames
    }
  }
}

func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }

final class Stack {
  let clock = ManualClock()
  let netisr: Netisr
  let table: InterfaceTable
  let routes: RouteTable
  let ether: EtherLayer
  let inet: Inet
  let buffers: Buffers
  let size: Int
  var interfaces: [Interface] = []

  init(workers: Int = 1, buffers count: Int = 1024) throws {
    var configuration = NetisrConfiguration()
    configuration.isManual = true
    configuration.maxThreads = workers
    size = count
    buffers = Buffers(count)
    netisr = try Netisr(configuration, clock: clock)
    for worker in netisr.workers { worker.pool = buffers.pool }
    table = InterfaceTable(netisr)
    routes = RouteTable(netisr)
    ether = try EtherLayer(table)
    inet = try Inet(ether: ether, routes: routes)
    netisr.settle()
  }

  func attach(_ name: String, _ mac: MACAddress, type: InterfaceType = .ethernet, up: Bool = true, mtu: Int = 1500) throws -> (Interface, FakeDriver) {
    var options = InterfaceOptions(name, unit: 0, type: type)
    options.linkAddress = mac
    options.mtu = mtu
    let driver = FakeDriver()
    let interface = try table.attach(options, driver: driver)
    interface.setDriverFlags(up ? [.up, .running] : .running)
    netisr.settle()
    interfaces.append(interface)
    return (interface, driver)
  }

  /// An address by the family's request, on worker 0 as requests are.
  func add(_ address: IPv4Address, _ length: Int, on interface: Interface) throws(InterfaceError) {
    try control(.add(.ipv4(address), prefixLength: length, broadcast: nil, destination: nil), on: interface)
  }
  func control(_ request: AddressRequest, on interface: Interface) throws(InterfaceError) {
    let inet = inet
    let error = netisr.worker(0).perform { () -> InterfaceError? in
      do throws(InterfaceError) { try inet.control(request, on: interface) } catch { return error }
      return nil
    }
    netisr.settle()
    if let error { throw error }
  }

  /// Moves the clock in steps, and lets the workers run after each.
  func advance(seconds: Double, step: Double = 0.1) {
    var left = seconds
    while left > 0.0001 {
      clock.advance(UInt64(min(step, left) * 1e9))
      netisr.settle()
      left -= step
    }
  }

  /// Receives one frame, cut into buffers of `sizes` (the rest in the last).
  func receive(_ bytes: [UInt8], on interface: Interface, flags: PacketFlags = [], sizes: [Int] = []) {
    var batch = PacketBatch(capacity: 1)
    var rest = bytes[...]
    var parts: [[UInt8]] = []
    for size in sizes where rest.count > size {
      parts.append(Array(rest.prefix(size)))
      rest = rest.dropFirst(size)
    }
    parts.append(Array(rest))
    guard let packet = buffers.pool.allocate() else {
      Issue.record("no buffer")
      return
    }
    packet.fill(with: parts[0])
    for part in parts.dropFirst() {
      guard let more = buffers.pool.allocate() else {
        Issue.record("no buffer")
        return
      }
      more.fill(with: part)
      packet.append(more)
    }
    packet.flags.formUnion(flags)
    _ = batch.append(packet)
    interface.input(&batch)
    check(batch.isEmpty)
    netisr.settle()
  }

  func drops(_ reason: DropReason) -> UInt64 { netisr.drops.snapshot().filter { $0.reason == reason }.reduce(0) { $0 + $1.packets } }

  /// received = delivered + dropped, for every interface, and no buffer is missing.
  func checkLedger(held: Int = 0, _ location: SourceLocation = #_sourceLocation) {
    for interface in interfaces {
      let received = interface.counters.ipackets
      let dropped = netisr.drops.snapshot().filter { $0.interface == interface.index && !$0.reason.isOutput }.reduce(0) { $0 + $1.packets }
      #expect(received == ether.deliveries(of: interface.index) + dropped, "\(interface.name)", sourceLocation: location)
    }
    #expect(buffers.pool.available == size - held, sourceLocation: location)
  }
}

// MARK: Frames, built by hand

func be16(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }

func frame(_ target: MACAddress, _ source: MACAddress, _ type: UInt16, _ payload: [UInt8]) -> [UInt8] {
  Ethernet.header(to: target, from: source, type: type) + payload
}

/// An IPv4 packet with a right checksum.
func ipv4(
  _ source: IPv4Address, _ target: IPv4Address, proto: UInt8 = 1, _ payload: [UInt8], ttl: UInt8 = 64, id: Int = 1, fragment: Int = 0,
  options: [UInt8] = [], tos: UInt8 = 0
) -> [UInt8] {
  let length = 20 + options.count
  var header: [UInt8] =
    [UInt8(0x40 | length / 4), tos] + be16(length + payload.count) + be16(id) + be16(fragment) + [ttl, proto, 0, 0] + source.bytes
    + target.bytes + options
  header.replaceSubrange(10..<12, with: be16(Int(InternetChecksum.of(header))))
  return header + payload
}

/// An ICMP message with a right checksum.
func icmp(_ type: UInt8, _ code: UInt8 = 0, _ word: [UInt8] = [0, 7, 0, 1], _ data: [UInt8] = []) -> [UInt8] {
  var message: [UInt8] = [type, code, 0, 0] + word + data
  message.replaceSubrange(2..<4, with: be16(Int(InternetChecksum.of(message))))
  return message
}

func arp(_ operation: Int, _ hardware: MACAddress, _ sender: IPv4Address, _ targetHardware: MACAddress, _ target: IPv4Address) -> [UInt8] {
  [0, 1, 8, 0, 6, 4] + be16(operation) + hardware.bytes + sender.bytes + targetHardware.bytes + target.bytes
}
let noStation = MACAddress(rawValue: 0)

/// Two networks with a router between them: 198.18.1.0/24 on em0, 198.18.2.0/24 on em1.
struct Router {
  let stack: Stack
  let em0: Interface, em1: Interface
  let out0: FakeDriver, out1: FakeDriver
  let mac0 = MACAddress(2, 0, 0, 0, 0, 1), mac1 = MACAddress(2, 0, 0, 0, 1, 1)
  let own0 = IPv4Address(198, 18, 1, 1), own1 = IPv4Address(198, 18, 2, 1)
  let hostMAC0 = MACAddress(2, 0, 0, 0, 0, 9), hostMAC1 = MACAddress(2, 0, 0, 0, 1, 9)
  let host0 = IPv4Address(198, 18, 1, 9), host1 = IPv4Address(198, 18, 2, 9)

  /// - Parameter resolved: the neighbours have said where they are.
  init(workers: Int = 1, resolved: Bool = true, buffers: Int = 1024, mtu1: Int = 1500) throws {
    stack = try Stack(workers: workers, buffers: buffers)
    (em0, out0) = try stack.attach("em", mac0)
    (em1, out1) = try stack.attach("ix", mac1, mtu: mtu1)
    try stack.netisr.sysctl.write("net.link.ether.inet.garp_rexmit_count", "0")
    try stack.netisr.sysctl.write("net.inet.ip.forwarding", "1")
    try stack.add(own0, 24, on: em0)
    try stack.add(own1, 24, on: em1)
    if resolved {
      stack.receive(frame(mac0, hostMAC0, 0x806, arp(2, hostMAC0, host0, mac0, own0)), on: em0)
      stack.receive(frame(mac1, hostMAC1, 0x806, arp(2, hostMAC1, host1, mac1, own1)), on: em1)
    }
    _ = out0.take()
    _ = out1.take()
  }

  func receive0(_ packet: [UInt8], sizes: [Int] = []) { stack.receive(frame(mac0, hostMAC0, 0x800, packet), on: em0, sizes: sizes) }
  func receive1(_ packet: [UInt8]) { stack.receive(frame(mac1, hostMAC1, 0x800, packet), on: em1) }
  /// IPv4 packets that went to the host on em0 and em1, without their Ethernet header.
  func sent0() -> [[UInt8]] { payloads(out0, hostMAC0, mac0) }
  func sent1() -> [[UInt8]] { payloads(out1, hostMAC1, mac1) }
  private func payloads(_ driver: FakeDriver, _ target: MACAddress, _ source: MACAddress) -> [[UInt8]] {
    driver.take().map { sent in
      #expect(Array(sent.bytes.prefix(14)) == frame(target, source, 0x800, []))
      return Array(sent.bytes.dropFirst(14))
    }
  }
}
