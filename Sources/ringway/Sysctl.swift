// `ringway sysctl`: the tree of controls.

import ArgumentParser
import Control
import Ringway

struct Sysctl: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Read and set the daemon's controls.",
    discussion: "ringway sysctl net.isr; ringway sysctl net.inet.ip.forwarding=1; -a lists all, -d says what they are.")

  @Argument(help: "NAME reads a control or a branch, NAME=VALUE sets one.")
  var names: [String] = []
  @Flag(name: .customShort("a"), help: "Every control.")
  var all = false
  @Flag(name: .customShort("d"), help: "What the controls are for, instead of their values.")
  var describe = false
  @Flag(name: .customShort("n"), help: "Values without names.")
  var valuesOnly = false
  @OptionGroup var daemon: DaemonArguments

  func validate() throws {
    if names.isEmpty && !all { throw ValidationError("Name a control, or list all with -a.") }
  }

  func run() throws {
    let client = try daemon.connect()
    var found: [SysctlRecord] = []
    for name in all ? [""] : names {
      if let equals = name.firstIndex(of: "=") {
        let key = String(name[..<equals])
        let written = try client.call(SysctlWrite(key, String(name[name.index(after: equals)...])))
        if !daemon.json { print(valuesOnly ? written.new : "\(key): \(written.old) -> \(written.new)") }
        found += try client.call(SysctlList(key))
      } else {
        let list = try client.call(SysctlList(name))
        found += list
        if !daemon.json { list.forEach(show) }
      }
    }
    if daemon.json { try printJSON(found) }
  }

  private func show(_ record: SysctlRecord) {
    if describe { return print("\(record.name): \(record.summary)") }
    if let columns = record.columns, let rows = record.rows {
      var table = TextTable(columns, sides: [.left])
      rows.forEach { table.append($0) }
      print(valuesOnly ? "" : "\(record.name):")
      return table.lines.forEach { print("  \($0)") }
    }
    print(valuesOnly ? record.value : "\(record.name): \(record.value)")
  }
}
