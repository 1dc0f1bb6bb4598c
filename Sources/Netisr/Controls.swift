// The controls below net.isr.

extension Netisr {
  /// Longest text that net.isr.dispatch takes, in characters.
  private static let longestPolicy = 19

  func addControls() {
    let root = "net.isr."
    sysctl.add(root + "dispatch", "When protocols without a policy of their own run: direct, hybrid or deferred") { [weak self] in
      .string("\(self?.dispatchPolicy ?? .direct)")
    } write: { [weak self] text throws(SysctlError) in
      try self?.setDispatch(text)
    }
    let fixed: [(String, String, Int)] = [
      ("maxthreads", "Workers asked for at start; -1: one a processor", configuration.maxThreads),
      ("bindthreads", "Whether workers are bound to processors", configuration.bindThreads ? 1 : 0),
      ("maxqlimit", "Largest limit of a queue, in packets", shared.maxQueueLimit),
      ("defaultqlimit", "Limit of a queue for protocols that name none, in packets", shared.defaultQueueLimit),
      ("maxprot", "Protocol numbers", NetisrProtocol.count),
      ("numthreads", "Workers", shared.count),
    ]
    for (name, summary, value) in fixed { sysctl.add(root + name, summary, read: { .integer(Int64(value)) }) }
    addTable(root + "proto", "Registered protocols") { [weak self] in self?.protocolTable ?? .table(columns: [], rows: []) }
    addTable(root + "workstream", "Workers and their flags") { [weak self] in self?.workerTable ?? .table(columns: [], rows: []) }
    addTable(root + "work", "Queues and counters by worker and protocol") { [weak self] in
      self?.workTable ?? .table(columns: [], rows: [])
    }
  }

  /// A table answers every write with EINVAL.
  private func addTable(_ name: String, _ summary: String, read: @escaping @Sendable () -> SysctlValue) {
    sysctl.add(name, summary, read: read) { text throws(SysctlError) in
      throw .invalid(name: name, value: text, allowed: "nothing, it is a table to read")
    }
  }

  private func setDispatch(_ text: String) throws(SysctlError) {
    let choices: [String: DispatchPolicy] = ["direct": .direct, "hybrid": .hybrid, "deferred": .deferred]
    guard text.count <= Self.longestPolicy, let policy = choices[text] else {
      throw .invalid(name: "net.isr.dispatch", value: String(text.prefix(64)), allowed: "deferred, hybrid, direct")
    }
    do { try setDispatchPolicy(policy) } catch {
      throw .invalid(name: "net.isr.dispatch", value: text, allowed: "deferred, hybrid, direct")
    }
  }

  private var protocolTable: SysctlValue {
    .table(
      columns: ["Name", "Proto", "QLimit", "Policy", "Dispatch", "Flags"],
      rows: protocols.map { ["\($0.name)", "\($0.proto)", "\($0.queueLimit)", "\($0.policy)", "\($0.dispatch)", $0.flags] })
  }

  private var workerTable: SysctlValue {
    .table(
      columns: ["WSID", "CPU", "Wakeups"],
      rows: workers.map { ["\($0.id)", "\($0.cpu ?? $0.id)", "\($0.wakeups)"] })
  }

  private var workTable: SysctlValue {
    .table(
      columns: ["WSID", "CPU", "Name", "Len", "WMark", "Disp'd", "HDisp'd", "QDrops", "Queued", "Handled"],
      rows: workStreams.map { line in
        [
          line.workstream.map(String.init) ?? "-", line.cpu.map(String.init) ?? "-", line.name, "\(line.length)",
          "\(line.watermark)", "\(line.dispatched)", "\(line.hybridDispatched)", "\(line.queueDrops)", "\(line.queued)",
          "\(line.handled)",
        ]
      })
  }
}
