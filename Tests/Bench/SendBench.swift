// The send path, from a finished frame to a driver that throws it away.

import Ifnet
import Netisr
import Packet
import Wire

/// A card without a card: takes what is queued, and frees it.
final class NullDriver: InterfaceDriver {
  /// A card's: each queue is its owner worker's.
  let serializer: (any InterfaceSerializer)?
  init(_ netisr: Netisr) { serializer = OwnerSerializer(netisr, queues: netisr.workers.count) }
  func handle(_ request: DriverRequest, on interface: Interface) throws(InterfaceError) {
    if case .setFlags(_, let new) = request { interface.setDriverFlags(new.contains(.up) ? .running : []) }
  }
  func start(_ subqueue: Subqueue) {
    var batch = PacketBatch(capacity: 64)
    while subqueue.dequeue(into: &batch) > 0 { batch.removeAll() }
  }
}

struct SendBench {
  let packets: Int

  func run(_ rounds: Int, _ report: inout Report) throws {
    for workers in [1, 2] {
      var times: [Bool: [Double]] = [:], writes: [Bool: Double] = [:]
      for _ in 0..<rounds {
        for staged in [false, true] {
          let (time, starts) = try once(workers, staged)
          times[staged, default: []].append(time)
          writes[staged] = starts
        }
      }
      for staged in [false, true] {
        report.add(
          "The send path, frames of 60 bytes, one at a time", "staging \(staged ? "on" : "off"), \(workers) worker\(workers == 1 ? "" : "s")",
          times[staged] ?? [], ["tail writes a packet": writes[staged] ?? 0])
      }
    }
  }

  private func once(_ workers: Int, _ staged: Bool) throws -> (Double, Double) {
    let rig = try Rig(workers: workers)
    let netisr = rig.netisr, table = InterfaceTable(rig.netisr)
    try netisr.sysctl.write("net.link.stage_cntmax", staged ? "4" : "0")
    var options = InterfaceOptions("null", unit: 0)
    options.linkAddress = MACAddress(2, 0, 0, 0, 0, 1)
    options.subqueues = workers
    options.queueLength = 1024
    let interface = try table.attach(options, driver: NullDriver(netisr))
    for (n, subqueue) in interface.subqueues.enumerated() { subqueue.setOwner(n) }
    try netisr.start()
    defer { netisr.stop() }
    try interface.bringUp()
    let time = try rig.measure(packets) { worker, max in
      var n = 0
      while n < max, let packet = worker.allocate() {
        packet.extend(60)
        interface.transmit(packet)
        n += 1
      }
      return n
    }
    netisr.barrier()
    let counters = interface.subqueues.map(\.counters)
    let sent = counters.reduce(0) { $0 + $1.sent }, starts = counters.reduce(0) { $0 + $1.starts }
    let (total, drops) = (UInt64(packets / workers * workers), counters.reduce(0) { $0 + $1.drops })
    guard sent + drops == total, sent > 0 else { throw BenchError("of \(total) frames \(sent) reached the driver and \(drops) were dropped") }
    table.detach(interface)
    // What a full send queue dropped was not sent.
    return (time * Double(total) / Double(sent), Double(starts) / Double(sent))
  }
}
