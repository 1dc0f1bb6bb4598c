// The same through the daemon: rings in shared memory, its worker syncs them, this program asks.

import NetmapAPI
import NetmapClient
import Platform

struct DaemonBench {
  let packets: Int

  func run(_ rounds: Int, _ report: inout Report) throws {
    if let missing = BenchDaemon.missing {
      report.remarks.append("Nothing through the daemon: \(missing)")
      return
    }
    try pairs(rounds, &report)
    try syncs(rounds, &report)
    for model in ["82574", "82599", "virtio-net"] { try cards(model, rounds, &report) }
  }

  /// From one port to another, both held by this program.
  private func pairs(_ rounds: Int, _ report: inout Report) throws {
    let daemon = try BenchDaemon()
    for (section, first, second, size) in [
      ("Pipe", "p{1", "p}1", 60), ("Pipe", "p{1", "p}1", 1500), ("VALE switch", "vale0:a", "vale0:b", 64), ("VALE switch", "vale0:a", "vale0:b", 1500),
    ] {
      let (a, b) = (try open(first, daemon), try open(second, daemon))
      defer {
        a.close()
        b.close()
      }
      // The switch learns where the receiver is.
      try send(b, a, size: size, packets: 1)
      var times: [Double] = []
      for _ in 0..<rounds { times.append(try send(a, b, size: size, packets: packets)) }
      report.add("\(section), through the daemon", "\(size) bytes", times)
    }
  }

  private func open(_ name: String, _ daemon: BenchDaemon) throws -> NetmapPort {
    var request = RegisterRequest()
    request.mode = 1  // NR_REG_ALL_NIC
    return try NetmapPort(name, request, socket: daemon.socket)
  }

  /// Nanoseconds a packet, until all have come out.
  @discardableResult
  private func send(_ a: NetmapPort, _ b: NetmapPort, size: Int, packets: Int) throws -> Double {
    let out = a.transmitRings[0], into = b.receiveRings[0], clock = MonotonicClock()
    // The receiver announces itself with its first packet, which goes to everybody.
    let (to, from): (UInt8, UInt8) = packets == 1 ? (0xff, 2) : (2, 1)
    for slot in 0..<out.slotCount {
      let bytes = unsafe out.bytes(out.slot(slot).buffer)
      for i in 0..<min(size, bytes.count) {
        unsafe bytes[i] = i < 6 ? (to == 0xff ? 0xff : i == 5 ? to : 2) : i < 12 ? (i == 11 ? from : 2) : UInt8(truncatingIfNeeded: i)
      }
    }
    let start = clock.now()
    var sent = 0, received = 0, idle = 0
    while received < packets {
      // Half a ring: what was read goes back with the next receive sync, and a switch drops what finds no slot.
      var head = out.head, n = min(out.available, UInt32(packets - sent), into.slotCount / 2 - 1)
      sent += Int(n)
      while n > 0 {
        out.setSlot(head, NetmapSlotView(buffer: out.slot(head).buffer, length: UInt16(size)))
        head = out.next(head)
        n -= 1
      }
      out.setHead(head)
      try a.syncTransmit()
      try b.syncReceive()
      let came = into.available
      received += Int(came)
      into.setHead(into.tail)
      idle = came == 0 ? idle + 1 : 0
      if idle > 100_000 { throw BenchError("\(a.name) to \(b.name): \(received) of \(packets) packets came") }
    }
    return Double(clock.now() - start) / Double(packets)
  }

  /// What a sync costs that moves nothing.
  private func syncs(_ rounds: Int, _ report: inout Report) throws {
    let daemon = try BenchDaemon(), port = try open("p{1", daemon), clock = MonotonicClock()
    defer { port.close() }
    let count = max(1000, packets / 100)
    var times: [Double] = []
    for _ in 0..<rounds {
      let start = clock.now()
      for _ in 0..<count { try port.syncReceive() }
      times.append(Double(clock.now() - start) / Double(count))
    }
    report.add("A sync through the daemon that moves nothing", "one ring", times)
  }

  /// From card to card: the models, the daemon and this program share the machine's processors.
  private func cards(_ model: String, _ rounds: Int, _ report: inout Report) throws {
    let prefix = ["82574": "em", "82599": "ix", "virtio-net": "vtnet"][model] ?? "em"
    let daemon = try BenchDaemon(cards: [(model, "gen:size=60"), (model, "null")])
    let (a, b) = (try open("\(prefix)0", daemon), try open("\(prefix)1", daemon)), clock = MonotonicClock()
    defer {
      a.close()
      b.close()
    }
    let count = max(10_000, packets / 10)
    var times: [Double] = []
    for _ in 0..<rounds {
      let start = clock.now()
      var moved = 0, last = start
      while moved < count {
        let n = try swap(a, b)
        moved += n
        if n > 0 { last = clock.now() }
        if clock.now() - last > 5_000_000_000 { throw BenchError("\(model): no packets for 5 s") }
      }
      times.append(Double(clock.now() - start) / Double(moved))
    }
    report.add("Card to card by swap, through the daemon (models, daemon and program share the processors)", "\(model), 60 bytes", times)
  }

  private func swap(_ a: NetmapPort, _ b: NetmapPort) throws -> Int {
    try a.syncReceive()
    let input = a.receiveRings[0], output = b.transmitRings[0]
    var from = input.head, to = output.head
    let n = min(input.available, output.available)
    for _ in 0..<n {
      let full = input.slot(from), empty = output.slot(to)
      output.setSlot(to, NetmapSlotView(buffer: full.buffer, length: full.length, flags: NetmapSlotView.bufferChanged))
      input.setSlot(from, NetmapSlotView(buffer: empty.buffer, length: full.length, flags: NetmapSlotView.bufferChanged))
      from = input.next(from)
      to = output.next(to)
    }
    input.setHead(from)
    output.setHead(to)
    try b.syncTransmit()
    return Int(n)
  }
}
