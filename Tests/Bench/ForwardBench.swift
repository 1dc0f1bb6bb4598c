// IPv4 forwarding through the whole input path: Ethernet, IPv4, route, neighbour, Ethernet, send queue.

import Ether
import Ifnet
import Inet
import Netisr
import Packet
import Routes
import Wire

struct ForwardBench {
  let packets: Int
  let routes: Int

  func run(_ rounds: Int, _ report: inout Report) throws {
    let prefixes = BenchTables.routes(routes)
    for workers in [1, 2] {
      let rig = try Router(workers: workers, prefixes)
      defer { rig.stop() }
      var times: [Double] = []
      for _ in 0..<rounds { times.append(try rig.forward(packets)) }
      report.add(
        "IPv4 forwarding, frames of 60 bytes in batches of 32", "\(routes) route\(routes == 1 ? "" : "s"), \(workers) worker\(workers == 1 ? "" : "s")",
        times, ["MiB a worker's routes": Double(rig.routes.copySize) / 1048576])
    }
  }
}

/// Two interfaces without cards, and routes from one to a gateway behind the other.
@safe final class Router: @unchecked Sendable {
  let rig: Rig
  let routes: RouteTable
  private let table: InterfaceTable
  private let ether: EtherLayer
  private let inet: Inet
  private let input: Interface
  private let output: Interface
  private let frames: UnsafeMutablePointer<(UInt64, UInt64, UInt64, UInt64, UInt64)>
  private let targets: Int = 1 << 16
  private let gateway = IPv4Address(198, 19, 0, 2)

  init(workers: Int, _ prefixes: [IPv4Prefix]) throws {
    rig = try Rig(workers: workers)
    let netisr = rig.netisr
    table = InterfaceTable(netisr)
    routes = RouteTable(netisr)
    ether = try EtherLayer(table)
    inet = try Inet(ether: ether, routes: routes)
    try netisr.start()
    input = try Self.attach("in", 1, table, workers)
    output = try Self.attach("out", 2, table, workers)
    unsafe frames = .allocate(capacity: targets)
    let addresses = BenchTables.addresses(targets, below: prefixes)
    for (n, address) in addresses.enumerated() { unsafe (frames + n).initialize(to: Self.frame(to: address)) }
    for (interface, address) in [(input, IPv4Address(198, 18, 0, 1)), (output, IPv4Address(198, 19, 0, 1))] {
      _ = try table.perform(
        .on(interface.name, .addAddress(.ipv4(address), prefixLength: 24, broadcast: nil, destination: nil)), by: .system)
    }
    try netisr.sysctl.write("net.inet.ip.forwarding", "1")
    try inet.setARP(gateway, MACAddress(2, 0, 0, 0, 0, 9), on: output)
    let (gateway, index) = (self.gateway, output.index)
    try routes.add(contentsOf: prefixes.map { Route4($0, gateway: gateway, interface: index, flags: [.up, .gateway, .static]) })
    netisr.barrier()
  }

  private static func attach(_ name: String, _ last: UInt8, _ table: InterfaceTable, _ workers: Int) throws -> Interface {
    var options = InterfaceOptions(name, unit: 0)
    options.linkAddress = MACAddress(2, 0, 0, 0, 0, last)
    options.subqueues = workers
    options.queueLength = 1024
    let made = try table.attach(options, driver: NullDriver(table.netisr))
    for (n, subqueue) in made.subqueues.enumerated() { subqueue.setOwner(n) }
    try made.bringUp()
    return made
  }

  deinit { unsafe frames.deallocate() }

  func stop() { rig.netisr.stop() }

  /// 40 bytes: Ethernet and IPv4 headers (UDP, no payload but zeros), and six bytes more.
  private static func frame(to target: IPv4Address) -> (UInt64, UInt64, UInt64, UInt64, UInt64) {
    var header: [UInt8] = [0x45, 0, 0, 46, 0, 1, 0, 0, 64, 17, 0, 0, 198, 18, 0, 9] + target.bytes
    let sum = InternetChecksum.of(header)
    (header[10], header[11]) = (UInt8(sum >> 8), UInt8(sum & 255))
    let bytes = Ethernet.header(to: MACAddress(2, 0, 0, 0, 0, 1), from: MACAddress(2, 0, 0, 0, 0, 8), type: Ethernet.typeIPv4) + header
      + [0, 9, 0, 9, 0, 26]
    func word(_ at: Int) -> UInt64 { (0..<8).reduce(0) { $0 | UInt64(bytes[at + $1]) << UInt64(8 * $1) } }
    return (word(0), word(8), word(16), word(24), word(32))
  }

  func forward(_ packets: Int) throws -> Double {
    let before = output.counters.opackets
    let droppedBefore = rig.netisr.drops.snapshot().reduce(0) { $0 + $1.packets }
    let time = try rig.measure(packets) { [self] worker, max in
      var batch = PacketBatch(capacity: 32)
      var n = 0
      var next = Int(worker.id) * 7919 + Int(truncatingIfNeeded: output.index.index)
      while n < max {
        while batch.room > 0, n < max, let packet = worker.allocate() {
          packet.reserveHeadroom(64)
          packet.extend(60)
          next = (next &* 1_664_525 &+ 1_013_904_223) & 0x7fff_ffff
          // SAFETY: 40 bytes of the 60 that the packet has; a frame's number is below `targets`.
          unsafe (packet.record.pointee.buffer + 64).copyMemory(from: frames + (next >> 8) % targets, byteCount: 40)
          _ = batch.append(packet)
          n += 1
        }
        guard !batch.isEmpty else { break }
        input.input(&batch)
      }
      return n
    }
    let expected = UInt64(packets / rig.netisr.workers.count * rig.netisr.workers.count)
    var (forwarded, lost): (UInt64, UInt64) = (0, 0)
    // Kicks for what was left in a queue may still be on their way from worker to worker.
    for _ in 0..<100 where forwarded + lost < expected {
      rig.netisr.barrier()
      forwarded = output.counters.opackets - before
      lost = rig.netisr.drops.snapshot().reduce(0) { $0 + $1.packets } - droppedBefore
    }
    guard forwarded + lost >= expected, forwarded > 0 else {
      throw BenchError("of \(expected) packets \(forwarded) were forwarded and \(lost) dropped: \(rig.netisr.drops.snapshot())")
    }
    // What a full send queue dropped is no forwarding.
    return time * Double(expected) / Double(forwarded)
  }
}
