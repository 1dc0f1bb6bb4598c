// A stack without threads, drivers that remember frames, and packets made by the test's own hands.

import DMAMemory
import DeviceIO
import Ether
import Ifnet
import Netisr
import Packet
import Platform
import Routes
import Synchronization
import Testing
import Wire

@testable import Inet6

/// A clock that moves when the test says so.
final class ManualClock: TimeSource {
  private let time = Atomic<UInt64>(1_000_000_000)
  func now() -> UInt64 { time.load(ordering: .relaxed) }
  func sleep(nanoseconds: UInt64) { time.wrappingAdd(nanoseconds, ordering: .relaxed) }
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
  private let frames = Guarded<[[UInt8]]>([])
  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {}
  func start(_ subqueue: Subqueue) {
    var batch = PacketBatch(capacity: 64)
    while subqueue.dequeue(into: &batch) > 0 {
      var sent: [[UInt8]] = []
      batch.forEach { sent.append($0.bytes()) }
      frames.withLock { $0 += sent }
      batch.removeAll()
    }
  }
  /// What was sent since the last call.
  func take() -> [[UInt8]] {
    frames.withLock { frames in
      defer { frames = [] }
      return frames
    }
  }
}

func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) { #expect(holds, sourceLocation: location) }

func ip(_ text: String) -> IPv6Address { IPv6Address(text) ?? .any }

/// "86 dd 60" as bytes.
func hex(_ text: String) -> [UInt8] {
  let digits = text.filter { $0.isHexDigit }
  return stride(from: 0, to: digits.count - 1, by: 2).map { i in
    let start = digits.index(digits.startIndex, offsetBy: i)
    return UInt8(digits[start..<digits.index(start, offsetBy: 2)], radix: 16) ?? 0
  }
}

func text(_ bytes: [UInt8]) -> String { bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() }

/// Packets, put together independently of the module's own code.
enum Make {
  static func word(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 0xff), UInt8(value & 0xff)] }

  static func ipv6(_ from: String, _ to: String, next: UInt8, hops: UInt8 = 64, _ payload: [UInt8]) -> [UInt8] {
    [0x60, 0, 0, 0] + word(payload.count) + [next, hops] + ip(from).bytes + ip(to).bytes + payload
  }

  /// 16-bit words added one by one, carries folded in.
  static func checksum(_ from: String, _ to: String, next: UInt8, _ message: [UInt8]) -> Int {
    var bytes = ip(from).bytes + ip(to).bytes + [0, 0] + word(message.count) + [0, 0, 0, next] + message
    if bytes.count % 2 == 1 { bytes.append(0) }
    var sum = 0
    for i in stride(from: 0, to: bytes.count, by: 2) {
      sum += Int(bytes[i]) << 8 + Int(bytes[i + 1])
      if sum > 0xffff { sum = (sum & 0xffff) + 1 }
    }
    return ~sum & 0xffff
  }

  static func icmp(_ from: String, _ to: String, _ type: UInt8, code: UInt8 = 0, _ rest: [UInt8]) -> [UInt8] {
    let sum = checksum(from, to, next: 58, [type, code, 0, 0] + rest)
    return [type, code] + word(sum) + rest
  }

  /// A whole ICMPv6 packet.
  static func packet(_ from: String, _ to: String, _ type: UInt8, code: UInt8 = 0, hops: UInt8 = 255, _ rest: [UInt8]) -> [UInt8] {
    ipv6(from, to, next: 58, hops: hops, icmp(from, to, type, code: code, rest))
  }

  static func echo(_ from: String, _ to: String, hops: UInt8 = 64, id: Int = 1, sequence: Int = 1, _ data: [UInt8] = Array(0..<56)) -> [UInt8] {
    packet(from, to, 128, hops: hops, word(id) + word(sequence) + data)
  }

  static func solicitation(_ from: String, _ to: String, target: String, source: MACAddress?) -> [UInt8] {
    packet(from, to, 135, [0, 0, 0, 0] + ip(target).bytes + (source.map { [1, 1] + $0.bytes } ?? []))
  }

  static func advertisement(_ from: String, _ to: String, target: String, flags: UInt8, link: MACAddress?) -> [UInt8] {
    packet(from, to, 136, [flags, 0, 0, 0] + ip(target).bytes + (link.map { [2, 1] + $0.bytes } ?? []))
  }

  /// Fragments of a packet without extension headers: offsets and lengths of its payload.
  static func fragments(_ packet: [UInt8], id: UInt8, _ pieces: [(offset: Int, count: Int)]) -> [[UInt8]] {
    let payload = Array(packet[40...])
    return pieces.map { piece in
      let data = Array(payload[piece.offset..<piece.offset + piece.count])
      let more = piece.offset + piece.count < payload.count ? 1 : 0
      let body = [packet[6], 0] + word(piece.offset | more) + [0, 0, 0, id] + data
      return Array(packet[0..<4]) + word(body.count) + [44, packet[7]] + packet[8..<40] + body
    }
  }
}

let peerMAC = MACAddress(0x02, 0, 0, 0, 0, 0xbb)
let ownMAC = MACAddress(0x02, 0, 0, 0, 0, 0x0a)
let otherMAC = MACAddress(0x02, 0, 0, 0, 0, 0x0b)

final class Stack {
  let clock = ManualClock()
  let netisr: Netisr
  let table: InterfaceTable
  let ether: EtherLayer
  let routes: RouteTable
  let inet6: Inet6
  let buffers = Buffers(1024)

  init(workers: Int = 1, _ change: (inout Inet6Configuration) -> Void = { _ in }) throws {
    var configuration = NetisrConfiguration()
    configuration.isManual = true
    configuration.maxThreads = workers
    netisr = try Netisr(configuration, clock: clock)
    for worker in netisr.workers { worker.pool = buffers.pool }
    table = InterfaceTable(netisr)
    ether = try EtherLayer(table)
    routes = RouteTable(netisr)
    var settings = Inet6Configuration()
    settings.seed = 1
    settings.initialDelay = 0
    settings.settings.acceptRouterAdvertisements = false
    change(&settings)
    inet6 = try Inet6(ether: ether, routes: routes, configuration: settings)
    netisr.settle()
  }

  deinit {
    inet6.stop()
    netisr.settle()
  }

  func attach(_ name: String, _ mac: MACAddress, isUp: Bool = true, mtu: Int = 1500) throws -> (Interface, FakeDriver) {
    var options = InterfaceOptions(name, unit: 0, type: .ethernet)
    options.linkAddress = mac
    options.mtu = mtu
    let driver = FakeDriver()
    let interface = try table.attach(options, driver: driver)
    if isUp {
      interface.setDriverFlags([.up, .running])
      inet6.changed(interface, isUp: true)
    }
    netisr.settle()
    return (interface, driver)
  }

  /// An interface with a global address, after duplicate address detection; nothing in the driver's memory.
  func attach(_ name: String, _ mac: MACAddress, address: String, length: Int = 64, mtu: Int = 1500) throws -> (Interface, FakeDriver) {
    let (interface, driver) = try attach(name, mac, mtu: mtu)
    try inet6.control(.add(.ipv6(ip(address)), prefixLength: length, broadcast: nil, destination: nil), on: interface)
    wait(5)
    _ = driver.take()
    return (interface, driver)
  }

  /// Seconds pass; timers run as they are due.
  func wait(_ seconds: Double) {
    netisr.settle()
    for _ in 0..<Int(seconds * 20) {
      clock.sleep(nanoseconds: 50_000_000)
      netisr.settle()
    }
  }

  /// Receives an IPv6 packet in an Ethernet frame.
  func receive(_ packet: [UInt8], on interface: Interface, from: MACAddress = peerMAC, to: MACAddress? = nil) {
    var target = to ?? interface.linkAddress ?? .broadcast
    if to == nil, packet.count >= 40, packet[24] == 0xff { target = MACAddress(0x33, 0x33, packet[36], packet[37], packet[38], packet[39]) }
    receive(frame: target.bytes + from.bytes + [0x86, 0xdd] + packet, on: interface)
  }

  func receive(frame: [UInt8], on interface: Interface) {
    var batch = PacketBatch(capacity: 1)
    guard let packet = buffers.pool.allocate() else {
      Issue.record("no buffer")
      return
    }
    // As cards do, in buffers of 2048 bytes.
    packet.fill(with: Array(frame.prefix(2048)))
    var at = 2048
    while at < frame.count, let more = buffers.pool.allocate() {
      more.fill(with: Array(frame[at..<min(frame.count, at + 2048)]))
      packet.append(more)
      at += 2048
    }
    _ = batch.append(packet)
    netisr.worker(0).perform { [netisr] in _ = netisr }
    interface.input(&batch)
    netisr.settle()
  }

  func drops(_ reason: DropReason) -> UInt64 { netisr.drops.snapshot().filter { $0.reason == reason }.reduce(0) { $0 + $1.packets } }
}
