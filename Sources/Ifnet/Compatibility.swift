// Controls of the layer (net.link.*), and the counters as they were a second ago.

internal import Netisr
internal import Platform

/// `net.link.stats_compat`: once a second each interface's counters are copied into the interface, where they stand
/// still until the next second.
final class Compatibility: Sendable {
  private let token = Guarded<WorkerToken?>(nil)

  var isOn: Bool { token.withLock { $0 != nil } }

  func start(_ table: InterfaceTable) {
    stop()
    let timer = table.netisr.workers[0].schedule(after: Watchdog.period, every: Watchdog.period) { [weak table] in
      for interface in table?.interfaces ?? [] { interface.copyCounters() }
    }
    for interface in table.interfaces { interface.copyCounters() }
    token.withLock { $0 = timer }
  }

  func stop() {
    token.withLock { token in
      token?.cancel()
      token = nil
    }
  }
}

extension Interface {
  func copyCounters() {
    let now = counters
    state.withLock { $0.compatible = now }
  }
}

extension InterfaceTable {
  func addControls() {
    let tree = netisr.sysctl
    tree.add(
      "net.link.stats_compat", "1: counters of interfaces are copied once a second and stand still in between",
      read: { [weak self] in .integer(self?.compatibility.isOn == true ? 1 : 0) }
    ) { [weak self] text throws(SysctlError) in
      guard text == "0" || text == "1" else { throw .invalid(name: "net.link.stats_compat", value: text, allowed: "0 or 1") }
      guard let self else { return }
      if text == "1" { compatibility.start(self) } else { compatibility.stop() }
    }
    tree.add("net.link.ifcount", "interfaces there are") { [weak self] in .integer(Int64(self?.interfaces.count ?? 0)) }
    tree.add("net.link.interfaces", "interfaces with their index, flags, MTU and groups") { [weak self] in
      let rows = (self?.interfaces ?? []).map { interface in
        [
          interface.name, "\(interface.index)", "0x" + String(interface.flags.rawValue, radix: 16), "\(interface.mtu)",
          interface.groups.joined(separator: ","),
        ]
      }
      return .table(columns: ["Name", "Index", "Flags", "Mtu", "Groups"], rows: rows)
    }
  }
}
