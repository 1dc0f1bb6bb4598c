// Which worker syncs a ring.

internal import NetmapCore
internal import NetmapPorts
internal import Netisr
internal import Platform

/// What a port is, by its name.
enum PortKind: String {
  case card, valeSwitch = "switch", pipe, monitor

  init(_ name: String) {
    self =
      name.contains("{") || name.contains("}") ? .pipe : name.contains("/") ? .monitor : name.hasPrefix("vale") ? .valeSwitch : .card
  }

  /// Ports with the same key hand packets to each other: they are best synced by one worker. "ix0{3" and "ix0}3" are one
  /// pipe, "vale0:a" and "vale0:b" one switch.
  static func group(_ name: String) -> String {
    if name.hasPrefix("vale"), let colon = name.firstIndex(of: ":") { return String(name[..<colon]) }
    if let brace = name.firstIndex(where: { $0 == "{" || $0 == "}" }) {
      return name[..<brace] + "{" + name[name.index(after: brace)...].prefix { $0.isNumber || $0.isLetter }
    }
    return String(name.prefix { $0 != "/" })
  }
}

/// Gives rings without a worker of their own one, and keeps those that belong together on the same.
final class Placement: Sendable {
  struct Place {
    /// Those that are involved, each once.
    var workers: [(worker: Worker, poller: SyncPoller)]
    /// For each of the port's rings, which of them.
    var doorbells: [Int]
    var release: @Sendable () -> Void
  }
  private struct Group {
    var worker: Int
    var sessions = 0
  }
  private struct State {
    var groups: [String: Group] = [:]
    /// Groups on each worker.
    var loads: [Int]
  }
  private let netisr: Netisr
  private let pollers: [SyncPoller]
  private let tokens: [WorkerToken]
  private let state: Guarded<State>

  init(_ netisr: Netisr, _ settings: SyncSettings) throws(SystemError) {
    self.netisr = netisr
    var pollers: [SyncPoller] = []
    for _ in netisr.workers { pollers.append(try SyncPoller(settings)) }
    self.pollers = pollers
    tokens = zip(netisr.workers, pollers).map { $0.add($1) }
    state = Guarded(State(loads: netisr.workers.map { _ in 0 }))
  }

  /// The workers look after nobody any more. Not from a worker.
  func end() { for (worker, token) in zip(netisr.workers, tokens) { worker.perform { token.cancel() } } }

  func place(_ port: NetmapPort) -> Place {
    let wanted = port.krings.map { port.adapter.worker(of: $0.id) }
    var release: @Sendable () -> Void = {}
    var shared: Worker?
    if wanted.contains(where: { $0 == nil }) {
      let key = PortKind.group(port.adapter.name)
      shared = netisr.worker(join(key))
      release = { [self] in leave(key) }
    }
    var workers: [(worker: Worker, poller: SyncPoller)] = []
    var doorbells: [Int] = []
    for worker in wanted {
      guard let worker = worker ?? shared else { continue }
      if let known = workers.firstIndex(where: { $0.worker === worker }) {
        doorbells.append(known)
      } else {
        doorbells.append(workers.count)
        workers.append((worker, pollers[worker.id]))
      }
    }
    return Place(workers: workers, doorbells: doorbells, release: release)
  }

  /// The worker of a group: where it is already, or where there are fewest; the control's own last.
  private func join(_ key: String) -> Int {
    state.withLock { state in
      var group = state.groups[key] ?? Group(worker: -1)
      if group.worker < 0 {
        group.worker = state.loads.indices.reversed().min { state.loads[$0] < state.loads[$1] } ?? 0
        state.loads[group.worker] += 1
      }
      group.sessions += 1
      state.groups[key] = group
      return group.worker
    }
  }

  private func leave(_ key: String) {
    state.withLock { state in
      guard var group = state.groups[key] else { return }
      group.sessions -= 1
      state.groups[key] = group.sessions > 0 ? group : nil
      if group.sessions == 0 { state.loads[group.worker] -= 1 }
    }
  }
}
