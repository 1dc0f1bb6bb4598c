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
  private let kept = Mutex<[UInt]>([])
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
    var interfaces: [Interface] = []
    var drivers: [KeepingDriver] = []
    for n in 0..<2 {
      var options = InterfaceOptions("em", unit: n)
      options.linkAddress = MACAddress(2, 0, 0, 0, UInt8(n), 1)
      drivers.append(KeepingDriver())
      interfaces.append(try table.attach(options, driver: drivers[n]))
      interfaces[n].setDriverFlags([.up, .running])
    }
    try netisr.sysctl.write("net.inet.ip.forwarding", "1")
    let (em0, em1) = (interfaces[0], interfaces[1])
    func control(_ request: AddressRequest, _ interface: Interface) {
      netisr.worker(0).perform { _ = try? inet.control(request, on: interface) }
    }
    for (n, interface) in interfaces.enumerated() {
      control(.add(.ipv4(IPv4Address(198, 18, UInt8(n), 1)), prefixLength: 24, broadcast: nil, destination: nil), interface)
    }
    let sent = Atomic(0)
    let target = MACAddress(2, 0, 0, 0, 0, 1), peer = MACAddress(2, 0, 0, 0, 0, 9)
    for (id, worker) in netisr.workers.enumerated() {
      for round in 0..<200 {
        worker.post {
          var batch = PacketBatch(capacity: 8)
          for n in 0..<8 {
            guard let packet = Worker.current?.allocate() else { return }
            let host = IPv4Address(198, 18, 1, UInt8(9 + n % 3))
            let bytes =
              n == 0
              ? frame(target, peer, 0x806, arp(1, peer, IPv4Address(198, 18, 0, 9), noStation, IPv4Address(198, 18, 0, 1)))
              : frame(target, peer, 0x800, ipv4(IPv4Address(198, 18, 0, 9), n == 1 ? IPv4Address(198, 18, 0, 1) : host, icmp(8), id: round + id))
            packet.fill(with: bytes)
            _ = batch.append(packet)
            sent.wrappingAdd(1, ordering: .relaxed)
          }
          em0.input(&batch)
        }
      }
    }
    for round in 0..<40 {
      let extra = IPv4Address(198, 18, 7, UInt8(round + 1))
      control(.add(.ipv4(extra), prefixLength: 24, broadcast: nil, destination: nil), em1)
      try inet.setARP(IPv4Address(198, 18, 1, 9), MACAddress(2, 0, 0, 0, 1, UInt8(round + 1)), temporary: true)
      ether.setVLAN(UInt16(round + 1), of: em1, to: em0)
      _ = inet.arpEntries()
      _ = inet.statistics()
      _ = inet.sourceAddress(towards: IPv4Address(198, 18, 1, 77))
      control(.delete(.ipv4(extra)), em1)
      if round % 10 == 9 { inet.flushARP() }
    }
    netisr.barrier()
    table.detach(em1)
    table.detach(em0)
    netisr.barrier()
    netisr.barrier()
    netisr.stop()
    for driver in drivers { _ = driver.release() }
    #expect(inet.count(.ipTotal) + inet.count(.arpReceived) == UInt64(sent.load(ordering: .relaxed)))
    #expect(sent.load(ordering: .relaxed) > 1000)
    #expect(pools.map(\.pool.available) == [4096, 4096])
  }
}
