// Workers with threads: traffic, addresses, neighbours and controls at once. For the thread sanitizer.

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

/// Keeps what it is told to send until the workers have stopped: packets go back to their pools on one thread.
private final class KeepingDriver: InterfaceDriver {
  private let kept = Guarded<[UInt]>([])
  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {}
  func start(_ subqueue: Subqueue) {
    var batch = PacketBatch(capacity: 32)
    while subqueue.dequeue(into: &batch) > 0 {
      while let packet = batch.popLast() {
        let address = UInt(bitPattern: unsafe packet.intoRaw())
        kept.withLock { $0.append(address) }
      }
    }
  }
  func release() -> Int {
    let all = kept.withLock { kept in
      defer { kept = [] }
      return kept
    }
    for address in all {
      guard let raw = unsafe RawPacket(bitPattern: address) else { continue }
      _ = unsafe Packet(unsafe: raw)
    }
    return all.count
  }
}

@Suite struct ThreadTests {
  @Test func changesWhileTrafficRuns() throws {
    var configuration = NetisrConfiguration()
    configuration.maxThreads = 2
    let netisr = try Netisr(configuration, clock: MonotonicClock())
    let pools = netisr.workers.map { _ in Buffers(4096) }
    for (worker, buffers) in zip(netisr.workers, pools) { worker.pool = buffers.pool }
    let table = InterfaceTable(netisr)
    let routes = RouteTable(netisr)
    let ether = try EtherLayer(table)
    let inet = try Inet(ether: ether, routes: routes)
    try netisr.start()
    // Each worker forwards between two interfaces of its own and drops nothing; a fifth is what changes. The sanitizer
    // does not see the kernel hand a contended Mutex over, and would take the send queue's for a race.
    var interfaces: [Interface] = []
    var drivers: [KeepingDriver] = []
    for n in 0..<5 {
      var options = InterfaceOptions("em", unit: n)
      options.linkAddress = MACAddress(2, 0, 0, 0, UInt8(n), 1)
      drivers.append(KeepingDriver())
      interfaces.append(try table.attach(options, driver: drivers[n]))
      interfaces[n].setDriverFlags([.up, .running])
    }
    try netisr.sysctl.write("net.inet.ip.forwarding", "1")
    try netisr.sysctl.write("net.link.ether.inet.garp_rexmit_count", "0")
    let changing = interfaces[4]
    func control(_ request: AddressRequest, _ interface: Interface) {
      netisr.worker(0).perform { _ = try? inet.control(request, on: interface) }
    }
    for n in 0..<4 {
      let address = IPv4Address(198, 18, UInt8(n), 1)
      control(.add(.ipv4(address), prefixLength: 24, broadcast: nil, destination: nil), interfaces[n])
      try inet.setARP(IPv4Address(198, 18, UInt8(n), 9), MACAddress(2, 0, 0, 0, UInt8(n), 9))
    }
    netisr.barrier()
    let sent = Atomic(0)
    for (id, worker) in netisr.workers.enumerated() {
      let (inside, outside) = (UInt8(2 * id), UInt8(2 * id + 1))
      let (own, peer) = (MACAddress(2, 0, 0, 0, inside, 1), MACAddress(2, 0, 0, 0, inside, 9))
      let (host, far) = (IPv4Address(198, 18, inside, 9), IPv4Address(198, 18, outside, 9))
      let interface = interfaces[Int(inside)]
      let frames = [
        frame(own, peer, 0x806, arp(1, peer, host, noStation, IPv4Address(198, 18, inside, 1))),
        frame(own, peer, 0x800, ipv4(host, IPv4Address(198, 18, inside, 1), icmp(8))),
        frame(own, peer, 0x800, ipv4(host, far, icmp(8))), frame(own, peer, 0x800, ipv4(host, far, proto: 17, [1, 2, 3])),
      ]
      for _ in 0..<200 {
        worker.post {
          var batch = PacketBatch(capacity: 8)
          for bytes in frames {
            guard let packet = Worker.current?.allocate() else { return }
            packet.fill(with: bytes)
            _ = batch.append(packet)
            sent.wrappingAdd(1, ordering: .relaxed)
          }
          interface.input(&batch)
        }
      }
    }
    for round in 0..<40 {
      let extra = IPv4Address(198, 18, 7, UInt8(round + 1))
      control(.add(.ipv4(extra), prefixLength: 24, broadcast: nil, destination: nil), changing)
      try inet.setARP(IPv4Address(198, 18, 1, 9), MACAddress(2, 0, 0, 0, 1, UInt8(round + 1)))
      ether.setVLAN(UInt16(round + 1), of: changing, to: interfaces[0])
      _ = inet.arpEntries()
      _ = inet.statistics()
      _ = inet.sourceAddress(towards: IPv4Address(198, 18, 1, 77))
      control(.delete(.ipv4(extra)), changing)
    }
    netisr.barrier()
    #expect(netisr.drops.snapshot() == [])
    for interface in interfaces { table.detach(interface) }
    netisr.barrier()
    netisr.barrier()
    netisr.stop()
    for driver in drivers { _ = driver.release() }
    #expect(inet.count(.ipTotal) + inet.count(.arpReceived) == UInt64(sent.load(ordering: .relaxed)))
    #expect(sent.load(ordering: .relaxed) > 1000)
    #expect(pools.map(\.pool.available) == [4096, 4096])
  }
}
