// `ringway ifconfig`: interfaces, shown and changed in the words of the BSDs.

import ArgumentParser
import Control
import ControlClient
import Ringway

struct Ifconfig: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show and change interfaces of the daemon.",
    usage: """
      ringway ifconfig [-a] [-l] [-u] [-d] [-v] [-g group] [--json] [--socket path]
      ringway ifconfig interface [keyword [value]] ...
      ringway ifconfig -C
      """,
    discussion: """
      Keywords: up, down, mtu N, metric N, inet ADDRESS[/LENGTH] [netmask MASK] [broadcast ADDRESS] [alias|delete], \
      inet6 ADDRESS[/LENGTH] [alias|delete], ether MAC, media TYPE, name NEW, description TEXT, group NAME, promisc, \
      allmulti, polling, debug, arp, link0 to link2, monitor, staticarp, rxcsum, txcsum, tso, vlanhwtag, \
      create [netns PATH] [device NAME] [vlan TAG vlandev PARENT] [member NAME], destroy, addm NAME, deletem NAME, \
      KEY=VALUE for a driver's own. A minus sign in front switches off: -promisc, -rxcsum, -group NAME, -alias.

      ringway ifconfig em0 inet 198.18.0.1/24 up
      ringway ifconfig vlan create vlan 7 vlandev em0
      """)

  @Argument(parsing: .captureForPassthrough, help: "Options, an interface and keywords.")
  var words: [String] = []

  func run() throws {
    let line = try IfconfigLine(words)
    if line.wantsHelp { throw CleanExit.helpRequest(self) }
    let client = try DaemonSession.connect(line.socket)
    switch line.action {
    case .show(let name): try show(name, line, client)
    case .cloners: try out(client.call(InterfaceCloners()), line) { $0.joined(separator: " ") }
    case .create(let name, let options, let changes):
      let made = try client.call(InterfaceCreate(name, options: options))
      if !changes.isEmpty { _ = try client.call(InterfaceSet(made.name, changes)) }
      try out(made, line) { $0.name }
    case .destroy(let name): _ = try client.call(InterfaceDestroy(name))
    case .change(let name, let changes):
      let record = try client.call(InterfaceSet(name, changes))
      if line.json { try printJSON(record) }
    }
  }

  private func out<T: Encodable>(_ value: T, _ line: IfconfigLine, _ text: (T) -> String) throws {
    line.json ? try printJSON(value) : print(text(value))
  }

  private func show(_ name: String?, _ line: IfconfigLine, _ client: ControlClient) throws {
    if let name {
      let record = try client.call(InterfaceGet(name))
      return try out(record, line) { IfconfigText.text($0, verbose: line.verbose) }
    }
    var records = try client.call(InterfaceList(group: line.group))
    if line.onlyUp { records.removeAll { !$0.flags.contains("UP") } }
    if line.onlyDown { records.removeAll { $0.flags.contains("UP") } }
    try out(records, line) { records in
      line.namesOnly
        ? records.map(\.name).joined(separator: " ")
        : records.map { IfconfigText.text($0, verbose: line.verbose) }.joined(separator: "\n")
    }
  }
}

/// How `ifconfig` prints an interface.
enum IfconfigText {
  static func text(_ record: InterfaceRecord, verbose: Bool = false) -> String {
    var lines = [
      "\(record.name): flags=\(String(record.flagBits, radix: 16))<\(record.flags.joined(separator: ","))> "
        + "metric \(record.metric) mtu \(record.mtu)"
    ]
    if let description = record.description, !description.isEmpty { lines.append("\tdescription: \(description)") }
    if !record.capabilities.isEmpty || record.optionBits != 0 {
      lines.append("\toptions=\(String(record.optionBits, radix: 16))<\(record.options.joined(separator: ","))>")
    }
    if verbose && !record.capabilities.isEmpty { lines.append("\tcapabilities: \(record.capabilities.joined(separator: ","))") }
    if let ether = record.ether { lines.append("\tether \(ether)") }
    lines += record.addresses.map { address($0, record) }
    lines += record.details.sorted { $0.key < $1.key }.map { "\t\($0.key): \($0.value)" }
    if let media = record.media {
      let active = media.active.isEmpty || media.active == "none" ? "" : " (\(media.active))"
      lines.append("\tmedia: \(media.configured)\(active)")
      if verbose && !media.choices.isEmpty { lines.append("\tsupported media: \(media.choices.joined(separator: ", "))") }
      lines.append("\tstatus: \(media.status)")
    } else if record.link != "unknown" {
      lines.append("\tstatus: \(record.link == "up" ? "active" : "no carrier")")
    }
    if !record.groups.isEmpty { lines.append("\tgroups: \(record.groups.joined(separator: " "))") }
    if verbose {
      for queue in record.subqueues {
        lines.append(
          "\tqueue \(queue.index): owner \(queue.owner.map(String.init) ?? "-") len \(queue.length)/\(queue.limit ?? 0)"
            + " drops \(queue.drops ?? 0) starts \(queue.starts ?? 0)\(queue.oactive ? " oactive" : "")")
      }
      if let groups = record.multicast, !groups.isEmpty { lines.append("\tmulticast: \(groups.joined(separator: " "))") }
    }
    return lines.joined(separator: "\n")
  }

  private static func address(_ address: AddressRecord, _ record: InterfaceRecord) -> String {
    if address.family == "inet" {
      let mask = address.prefixLength <= 0 ? 0 : ~UInt32(0) << UInt32(32 - min(32, address.prefixLength))
      let digits = String(mask, radix: 16)
      var line = "\tinet \(address.address)"
      if let destination = address.destination { line += " --> \(destination)" }
      line += " netmask 0x\(String(repeating: "0", count: 8 - digits.count))\(digits)"
      if let broadcast = address.broadcast { line += " broadcast \(broadcast)" }
      return line + (address.marks.isEmpty ? "" : " " + address.marks.joined(separator: " "))
    }
    let isLocal = address.scope == "link-local"
    var line = "\tinet6 \(address.address)\(isLocal ? "%\(record.name)" : "")"
    if let destination = address.destination { line += " --> \(destination)" }
    line += " prefixlen \(address.prefixLength)"
    if !address.marks.isEmpty { line += " " + address.marks.joined(separator: " ") }
    if isLocal { line += " scopeid 0x\(String(record.index, radix: 16))" }
    if let seconds = address.preferredLifetime { line += " pltime \(seconds)" }
    if let seconds = address.validLifetime { line += " vltime \(seconds)" }
    return line
  }
}
