// What a stack counts, as records: netisr's tables, protocols, drops, samples for `ringway top`.

public import Control
internal import Attach
internal import CRingway
internal import Ifnet
internal import Inet
internal import Inet6
internal import Netisr
internal import Packet

/// The time of day.
enum WallClock {
  /// Nanoseconds since 1970 (CLOCK_REALTIME).
  static func nanoseconds() -> UInt64 {
    var time = timespec()
    // SAFETY: a local variable; the clock always exists.
    _ = unsafe clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(clamping: time.tv_sec) &* 1_000_000_000 &+ UInt64(clamping: time.tv_nsec)
  }
  static func seconds() -> Double { Double(nanoseconds()) / 1e9 }
}

extension Stack {
  /// A table of the controls by column names; nothing when there is no such table.
  private func table(_ name: String) -> [[String: String]] {
    guard case .table(let columns, let rows)? = try? netisr.sysctl.read(name) else { return [] }
    return rows.map { row in Dictionary(zip(columns, row), uniquingKeysWith: { first, _ in first }) }
  }

  private func number(_ name: String) -> String { (try? netisr.sysctl.read(name)).map { "\($0)" } ?? "n/a" }

  /// The tables of `netstat -Q`.
  public func netisrRecord() -> NetisrRecord {
    let configuration = netisr.configuration
    let limit = number("net.isr.maxthreads")
    let settings: [NetisrRecord.Setting] = [
      .init("Thread count", "\(netisr.workers.count)", limit == "n/a" ? "\(netisr.workers.count)" : limit),
      .init("Default queue limit", "\(min(configuration.defaultQueueLimit, configuration.maxQueueLimit))", "\(configuration.maxQueueLimit)"),
      .init("Dispatch policy", number("net.isr.dispatch"), "n/a"),
      .init("Threads bound to CPUs", configuration.bindThreads ? "enabled" : "disabled", "n/a"),
    ]
    let protocols = table("net.isr.proto").map { row in
      NetisrRecord.Proto(
        name: row["Name"] ?? "", proto: Int(row["Proto"] ?? "") ?? 0, queueLimit: Int(row["QLimit"] ?? "") ?? 0,
        policy: row["Policy"] ?? "", dispatch: row["Dispatch"] ?? "", flags: row["Flags"] ?? "---")
    }
    return NetisrRecord(configuration: settings, protocols: protocols, workstreams: workstreams())
  }

  private func workstreams() -> [NetisrRecord.Workstream] {
    table("net.isr.work").map { row in
      func count(_ column: String) -> UInt64 { UInt64(row[column] ?? "") ?? 0 }
      return NetisrRecord.Workstream(
        wsid: Int(row["WSID"] ?? "") ?? -1, cpu: Int(row["CPU"] ?? "") ?? -1, name: row["Name"] ?? row["Proto"] ?? "", length: count("Len"),
        watermark: count("WMark"), dispatched: count("Disp'd"), hybridDispatched: count("HDisp'd"), queueDrops: count("QDrops"),
        queued: count("Queued"), handled: count("Handled"))
    }
  }

  /// Names of netisr's protocols, by number.
  func protocolNames() -> [Int: String] {
    let known = [1: "ip", 2: "igmp", 3: "route", 4: "arp", 5: "ether", 6: "ip6", 8: "epair", 9: "ip_direct", 10: "ip6_direct"]
    return table("net.isr.proto").reduce(into: known) { names, row in
      if let number = Int(row["Proto"] ?? ""), let name = row["Name"], !name.isEmpty { names[number] = name }
    }
  }

  /// What was dropped since the start.
  public func dropRecords(interface name: String? = nil) throws(ControlError) -> [DropRecord] {
    let wanted = try name.map { name throws(ControlError) in try interface(name).index }
    let names = protocolNames()
    return netisr.drops.snapshot().filter { wanted == nil || $0.interface == wanted }.map { line in
      DropRecord(
        interface: interfaces.interface(line.interface)?.name, index: Int(line.interface.index), queue: Int(line.queue),
        proto: line.proto == 0 ? "" : names[Int(line.proto)] ?? "\(line.proto)", reason: line.reason.description, packets: line.packets,
        bytes: line.bytes)
    }
  }

  /// What the protocols count. ENOENT
  public func statistics(proto: String?) throws(ControlError) -> [StatisticsRecord] {
    var groups: [(String, [CounterRecord])] = []
    func add(_ group: String, _ counter: CounterRecord) {
      if let at = groups.firstIndex(where: { $0.0 == group }) { groups[at].1.append(counter) } else { groups.append((group, [counter])) }
    }
    for (counter, value) in inet.statistics() { add(counter.group, CounterRecord("\(counter)", counter.text, value)) }
    for (counter, value) in inet6.statistics { add(counter.group, CounterRecord(counter.name, counter.summary, value)) }
    let all = groups.map { StatisticsRecord(proto: $0.0, counters: $0.1) }
    guard let proto else { return all }
    let chosen = all.filter { $0.proto == proto }
    guard !chosen.isEmpty else {
      throw ControlError("ENOENT", "no protocol is called \"\(proto)\": \(all.map(\.proto).joined(separator: ", ")).")
    }
    return chosen
  }

  /// One look at what only grows.
  public func topRecord() throws(ControlError) -> TopRecord {
    let streams = workstreams()
    let workerRows = table("net.isr.workstream")
    let cards = state.withLock { $0.cards }
    let workers = netisr.workers.map { worker in
      let own = streams.filter { $0.wsid == worker.id }
      let row = workerRows.first { $0["WSID"] == "\(worker.id)" } ?? [:]
      // A packet passes several protocols; it is counted where it comes in.
      let packets = own.first { $0.name == "ether" }?.handled ?? 0
      var record = TopRecord.Worker(
        id: worker.id, cpu: worker.cpu, packets: packets, batches: worker.batches)
      (record.busyCycles, record.totalCycles) = (worker.busyCycles, worker.totalCycles)
      record.wakeups = UInt64(row["Wakeups"] ?? "")
      return record
    }
    var queues: [TopRecord.Queue] = []
    for interface in interfaces.interfaces {
      for queue in interface.subqueues {
        let counters = queue.counters
        var record = TopRecord.Queue(
          interface: interface.name, direction: "tx", index: queue.index, packets: counters.sent, bytes: counters.bytes, drops: counters.drops)
        record.worker = queue.owner
        record.batches = counters.starts
        // A card's tail register is written once a send.
        if let card = cards.first(where: { $0.attachment === interface.driver })?.attachment, queue.index < card.figures.count {
          let figures = card.figures[queue.index]
          record.tailWrites = figures.sends
          var received = TopRecord.Queue(
            interface: interface.name, direction: "rx", index: queue.index, packets: figures.received, bytes: figures.receivedBytes,
            drops: netisr.drops.snapshot().filter {
              $0.interface == interface.index && Int($0.queue) == queue.index && ($0.reason == .receiveRing || $0.reason == .receiveError)
            }.reduce(0) { $0 + $1.packets })
          (received.worker, received.batches) = (queue.owner, figures.batches)
          queues.append(received)
        }
        queues.append(record)
      }
    }
    return TopRecord(
      time: clock.now(), cyclesPerSecond: nil, workers: workers,
      interfaces: interfaces.interfaces.map { TopRecord.Interface(name: $0.name, counters: counters(of: $0)) }, queues: queues,
      streams: streams, drops: try dropRecords())
  }

  // MARK: Controls

  public func sysctlRecords(_ prefix: String) throws(ControlError) -> [SysctlRecord] {
    let nodes = netisr.sysctl.list(prefix)
    guard !nodes.isEmpty || prefix.isEmpty else { throw ControlError(SysctlError.unknown(prefix)) }
    return nodes.map { node in
      let value = node.read()
      var record = SysctlRecord(name: node.name, summary: node.summary, value: "\(value)", isWritable: node.write != nil)
      switch value {
      case .integer(let number): record.integer = number
      case .string: break
      case .table(let columns, let rows): (record.columns, record.rows) = (columns, rows)
      }
      return record
    }
  }

  /// ENOENT, EPERM (read only), EINVAL.
  public func setSysctl(_ name: String, _ value: String) throws(ControlError) -> SysctlWritten {
    do {
      let old = "\(try netisr.sysctl.read(name))"
      try netisr.sysctl.write(name, value)
      return SysctlWritten(old: old, new: "\(try netisr.sysctl.read(name))")
    } catch { throw ControlError(error) }
  }
}
