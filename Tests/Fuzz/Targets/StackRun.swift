// The stack in front of a network that sends anything: ARP, IPv4, IPv6 and what lies in them.
//
// Frames are the input's bytes, mostly behind headers that get them past the first checks, with checksums put
// right where the input wants them so. At the end every interface must have accounted for what it received, and
// every buffer be back.

import DMAMemory
import DeviceIO
import Ether
import Ifnet
import Inet
import Inet6
import Netisr
import Packet
import Routes
import Wire

private final class StackClock: TimeSource, @unchecked Sendable {
  var time: UInt64 = 1_000_000_000
  func now() -> UInt64 { time }
  func sleep(nanoseconds: UInt64) { time &+= nanoseconds }
}

/// Takes frames and forgets them.
private final class Nowhere: InterfaceDriver, @unchecked Sendable {
  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {}
  func start(_ subqueue: Subqueue) {
    var batch = PacketBatch(capacity: 32)
    while subqueue.dequeue(into: &batch) > 0 { batch.removeAll() }
  }
}

@safe final class StackRun {
  private static let buffers = 256
  private let clock = StackClock()
  private let memory = UnsafeMutableRawPointer.allocate(byteCount: StackRun.buffers * 2048, alignment: 4096)
  private let pool: PacketPool
  private let netisr: Netisr
  private let table: InterfaceTable
  private let ether: EtherLayer
  private let routes: RouteTable
  private let inet: Inet
  private let inet6: Inet6
  private var interfaces: [Interface] = []
  private static let macs = [MACAddress(2, 0, 0, 0, 0, 1), MACAddress(2, 0, 0, 0, 1, 1)]

  static func run(_ input: inout FuzzInput) -> [String] {
    do {
      let run = try StackRun(workers: 1 + input.below(2))
      for _ in 0..<200 where !input.isAtEnd { run.step(&input) }
      return run.settle()
    } catch { return ["the stack could not be put together: \(error)"] }
  }

  private init(workers: Int) throws {
    pool = unsafe PacketPool(unsafe: memory, stride: 2048, iova: IOVA(rawValue: 1 << 20), indices: Array(0..<UInt32(Self.buffers)))
    var configuration = NetisrConfiguration()
    configuration.isManual = true
    configuration.maxThreads = workers
    netisr = try Netisr(configuration, clock: clock)
    for worker in netisr.workers { worker.pool = pool }
    table = InterfaceTable(netisr)
    routes = RouteTable(netisr)
    ether = try EtherLayer(table)
    inet = try Inet(ether: ether, routes: routes)
    inet6 = try Inet6(ether: ether, routes: routes)
    try netisr.sysctl.write("net.inet.ip.forwarding", "1")
    try netisr.sysctl.write("net.inet6.ip6.forwarding", "1")
    for (index, name) in ["em", "ix"].enumerated() {
      var options = InterfaceOptions(name, unit: 0)
      options.linkAddress = Self.macs[index]
      let interface = try table.attach(options, driver: Nowhere())
      interface.setDriverFlags([.up, .running])
      interfaces.append(interface)
      netisr.settle()
      try control(.add(.ipv4(IPv4Address(198, 18, UInt8(index + 1), 1)), prefixLength: 24, broadcast: nil, destination: nil), index)
      let prefix = UInt64(0x2001_0002_0000_0000) | UInt64(index + 1)
      try control(.add(.ipv6(IPv6Address(high: prefix, low: 1)), prefixLength: 64, broadcast: nil, destination: nil), index)
    }
    pass(seconds: 3)
  }

  deinit { unsafe memory.deallocate() }

  private func control(_ request: AddressRequest, _ index: Int) throws {
    let domain: any ProtocolDomain
    switch request {
    case .set(.ipv6, _, _, _), .add(.ipv6, _, _, _), .delete(.ipv6): domain = inet6
    default: domain = inet
    }
    let interface = interfaces[index]
    let error = netisr.worker(0).perform { () -> InterfaceError? in
      do throws(InterfaceError) { try domain.control(request, on: interface) } catch { return error }
      return nil
    }
    netisr.settle()
    if let error { throw error }
  }

  private func pass(seconds: Int) {
    for _ in 0..<(seconds * 2) {
      clock.time &+= 500_000_000
      netisr.settle()
    }
  }

  private func step(_ input: inout FuzzInput) {
    let opcode = input.byte()
    let index = Int(opcode >> 7)
    switch opcode & 15 {
    case 0: pass(seconds: 1 + input.below(8))
    case 1: try? control(.add(.ipv4(IPv4Address(198, 18, UInt8(index + 1), input.byte())), prefixLength: 24, broadcast: nil, destination: nil), index)
    case 2: try? control(.delete(.ipv4(IPv4Address(198, 18, UInt8(index + 1), input.byte()))), index)
    case 3:
      let host = IPv4Prefix(IPv4Address(198, 19, 0, input.byte()), 24 + input.below(9))
      try? routes.add(Route4(host, gateway: IPv4Address(198, 18, 1, input.byte()), interface: interfaces[index].index, flags: [.up, .gateway]), replacing: true)
      netisr.settle()
    default: receive(Frame.build(opcode & 15, to: Self.macs[index], &input), cut: input.below(3) == 0 ? 1 + input.below(200) : 0, on: interfaces[index])
    }
  }

  private func receive(_ bytes: [UInt8], cut: Int, on interface: Interface) {
    var batch = PacketBatch(capacity: 1)
    guard let packet = pool.allocate() else { return }
    let first = cut > 0 && cut < bytes.count ? cut : bytes.count
    packet.fill(with: Array(bytes[..<first]))
    if first < bytes.count {
      guard let rest = pool.allocate() else { return }
      rest.fill(with: Array(bytes[first...]))
      packet.append(rest)
    }
    _ = batch.append(packet)
    interface.input(&batch)
    netisr.settle()
  }

  /// The account.
  private func settle() -> [String] {
    pass(seconds: 130)
    var problems: [String] = []
    for interface in interfaces {
      let received = interface.counters.ipackets
      let dropped = netisr.drops.snapshot().filter { $0.interface == interface.index && !$0.reason.isOutput }.reduce(0) { $0 + $1.packets }
      let delivered = ether.deliveries(of: interface.index)
      if received != delivered + dropped {
        problems.append("\(interface.name) received \(received), delivered \(delivered) and dropped \(dropped)")
      }
    }
    for interface in interfaces { table.detach(interface) }
    netisr.settle()
    table.dissolve()
    if pool.available != Self.buffers { problems.append("\(Self.buffers - pool.available) buffers are missing") }
    return problems
  }
}

/// Frames that get past the first checks.
private enum Frame {
  static func build(_ kind: UInt8, to mac: MACAddress, _ input: inout FuzzInput) -> [UInt8] {
    let targets = [mac, .broadcast, MACAddress(0x01, 0, 0x5e, 0, 0, 1), MACAddress(0x33, 0x33, 0, 0, 0, 1), MACAddress(2, 9, 9, 9, 9, 9)]
    let target = targets[input.below(targets.count)]
    let source = MACAddress(2, 0, 0, 0, 9, UInt8(input.below(4)))
    let size = input.below(400)
    switch kind {
    case 4: return input.take(size)
    case 5: return Ethernet.header(to: target, from: source, type: input.word16()) + input.take(size)
    case 6:
      let tag: [UInt8] = [UInt8(input.below(16)), input.byte()]
      return target.bytes + source.bytes + [0x81, 0] + tag + [0x08, 0x00] + ipv4(&input, size)
    case 7, 8: return Ethernet.header(to: target, from: source, type: 0x0806) + arp(source, &input)
    case 9, 10, 11: return Ethernet.header(to: target, from: source, type: 0x0800) + ipv4(&input, size)
    default: return Ethernet.header(to: target, from: source, type: 0x86dd) + ipv6(&input, size)
    }
  }

  private static func host4(_ input: inout FuzzInput) -> [UInt8] {
    [198, 18, UInt8(input.below(4)), [1, 9, 255, 77, 0][input.below(5)]]
  }

  private static func arp(_ source: MACAddress, _ input: inout FuzzInput) -> [UInt8] {
    var bytes: [UInt8] = [0, 1, 8, 0, 6, 4, 0, UInt8(1 + input.below(2))] + source.bytes + host4(&input)
    bytes += [UInt8](repeating: 0, count: 6) + host4(&input)
    if input.below(4) == 0 { bytes[input.below(bytes.count)] = input.byte() }
    return Array(bytes.prefix(input.below(8) == 0 ? input.below(28) : 28)) + [UInt8](repeating: 0, count: input.below(19))
  }

  private static func ipv4(_ input: inout FuzzInput, _ size: Int) -> [UInt8] {
    let options = [UInt8](input.take(4 * input.below(11)))
    let padded = options + [UInt8](repeating: 0, count: (4 - options.count % 4) % 4)
    let proto = [1, 2, 17, 6, input.byte()][input.below(5)]
    var payload = input.take(size)
    if proto <= 2, payload.count >= 8, input.flag() { put(checksum(payload, at: 2, 0), into: &payload, at: 2) }
    let fragment = input.below(3) == 0 ? input.word16() : 0
    let length = 20 + padded.count + payload.count
    let source = input.below(8) == 0 ? [224, 0, 0, 1] : host4(&input)
    let target = input.below(4) == 0 ? [224, 0, 0, UInt8(input.below(23))] : host4(&input)
    var header: [UInt8] = [UInt8(0x40 | (20 + padded.count) / 4), 0, UInt8(length >> 8), UInt8(length & 255)]
    header += [0, UInt8(input.below(3)), UInt8(fragment >> 8), UInt8(fragment & 255), UInt8(input.below(4)) &* 21, proto, 0, 0]
    header += source + target + padded
    if input.below(6) == 0 { header[input.below(header.count)] = input.byte() }
    put(checksum(header, at: 10, 0), into: &header, at: 10)
    return header + payload + [UInt8](repeating: 0, count: input.below(4))
  }

  private static func host6(_ input: inout FuzzInput) -> [UInt8] {
    switch input.below(5) {
    case 0: [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, input.byte()]
    case 1: [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1]
    case 2: [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, UInt8(1 + input.below(2))]
    default: [0x20, 1, 0, 2, 0, 0, 0, UInt8(input.below(4)), 0, 0, 0, 0, 0, 0, 0, UInt8([1, 9, 77][input.below(3)])]
    }
  }

  private static func ipv6(_ input: inout FuzzInput, _ size: Int) -> [UInt8] {
    let source = input.below(8) == 0 ? [UInt8](repeating: 0, count: 16) : host6(&input)
    let target = host6(&input)
    var payload = input.take(size)
    let last: UInt8 = input.below(4) == 0 ? input.byte() : 58
    if last == 58, payload.count >= 4 {
      // Kinds that somebody listens to, and a checksum that is right.
      if input.flag() { payload[0] = [128, 130, 131, 132, 133, 134, 135, 136, 137, 143, 1, 2][input.below(12)] }
      let count = payload.count
      let pseudo = source + target + [0, 0, UInt8(count >> 8), UInt8(count & 255), 0, 0, 0, 58]
      if input.below(6) != 0 { put(checksum(payload, at: 2, UInt32(InternetChecksum.sum(pseudo))), into: &payload, at: 2) }
    }
    var chain: [UInt8] = [], next = last
    for _ in 0..<input.below(3) {
      let kind = [0, 43, 44, 60][input.below(4)] as UInt8
      var extra: [UInt8] = [next, kind == 44 ? 0 : UInt8(input.below(2))] + input.take(6)
      extra += [UInt8](repeating: 0, count: max(0, (kind == 44 ? 8 : 8 + 8 * Int(extra[1])) - extra.count))
      chain = extra + chain
      next = kind
    }
    let length = input.below(8) == 0 ? Int(input.word16()) : chain.count + payload.count
    let hops = [255, 64, 1, 0][input.below(4)] as UInt8
    return [0x60, 0, 0, 0, UInt8(length >> 8 & 255), UInt8(length & 255), next, hops] + source + target + chain + payload
  }

  private static func checksum(_ bytes: [UInt8], at: Int, _ initial: UInt32) -> UInt16 {
    var bytes = bytes
    bytes[at] = 0
    bytes[at + 1] = 0
    return InternetChecksum.of(bytes, initial: initial)
  }
  private static func put(_ value: UInt16, into bytes: inout [UInt8], at: Int) {
    bytes[at] = UInt8(value >> 8)
    bytes[at + 1] = UInt8(value & 255)
  }
}
