// `ringway bridge netmap:ix0 netmap:ix1`: two of the daemon's ports, joined on their rings.

import ArgumentParser
import NetmapClient
import Platform
import Ringway

extension Bridge {
  /// Both ports are netmap's: no frame is copied where they share their memory.
  var isNetmap: Bool { NetmapName.isOne(first) && NetmapName.isOne(second) }

  func runNetmap() throws {
    let signals = try SignalWatcher()
    let live = LiveLine(json: json)
    let (a, b) = (try NetmapName.open(first), try NetmapName.open(second))
    var forwarder = NetmapForwarder(a, b)
    let note = "forwarding between \(first) and \(second), \(forwarder.isZeroCopy ? "by swapping buffers" : "copying: they are in different memory")"
    if json { live.event(NetmapEvent(event: "forwarding", text: note)) } else { live.line(note) }
    let clock = MonotonicClock(), start = clock.now(), interval = statsInterval ?? 1
    var meter = RateMeter(), nextShow = interval, rounds = 0
    var table = BridgeTable()
    let sleeper = try Epoll()
    try sleeper.add(signals.descriptor, token: 0)
    try sleeper.add(a.descriptor, token: 1)
    try sleeper.add(b.descriptor, token: 2)
    func elapsed() -> Double { Double(clock.now() - start) / 1e9 }
    while true {
      let moved = try forwarder.round()
      rounds += 1
      if moved > 0, rounds % 64 != 0 { continue }
      if let limit = time.limit, clock.now() - start >= limit { break }
      if interval > 0, elapsed() + 0.05 >= nextShow {
        nextShow = max(nextShow + interval, elapsed())
        let figures = BridgeFigures(forwarder, [first, second], seconds: elapsed())
        let rate = meter.next(figures.totals, at: elapsed())
        if json {
          live.event(figures)
        } else if self.table {
          live.refresh(lines: table.next(figures))
        } else {
          live.refresh("\(Figure.seconds(elapsed()))  \(rate.text)  \(figures.text)")
        }
      }
      if moved > 0 {
        if signals.next() != nil { break }
        continue
      }
      // Armed, and nothing came meanwhile: sleep until a port, a signal or the next line of figures.
      a.arm(for: .receive)
      b.arm(for: .receive)
      guard try forwarder.round() == 0 else { continue }
      try sleeper.wait(milliseconds: 100) { _ in }
      a.drain()
      b.drain()
      if signals.next() != nil { break }
    }
    live.finish()
    let result = BridgeFigures(forwarder, [first, second], seconds: elapsed())
    a.close()
    b.close()
    json ? print(jsonLine(result)) : print(self.table ? result.longSummary : result.summary)
  }
}

private struct NetmapEvent: Encodable {
  let event: String
  let text: String
}

extension BridgeFigures {
  init(_ forwarder: borrowing NetmapForwarder, _ names: [String], seconds: Double) {
    let (forward, backward) = (forwarder.forward, forwarder.backward)
    func side(_ name: String, _ received: ForwardCounts, _ sent: ForwardCounts) -> Side {
      Side(
        device: name, driver: "netmap", link: "up", rx_packets: received.receivedPackets, rx_bytes: received.receivedBytes,
        tx_packets: sent.sentPackets, tx_bytes: sent.sentBytes, tx_dropped: sent.dropped, drops: [:], interrupts: 0)
    }
    self.init(
      ports: [side(names[0], forward, backward), side(names[1], backward, forward)], seconds: seconds, cost: Cost())
  }
}
