// `ringway netstat`: interfaces, netisr, routes, protocols.

import ArgumentParser
import Control
import ControlClient
import Ringway

struct Netstat: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show the daemon's interfaces, queues, routes and protocol statistics.",
    discussion: "One of -i (the default), -Q, -r, -s; -d adds the drops of each interface by reason to -i.")

  @Flag(name: .customShort("i"), help: "Interfaces and what they counted.")
  var interfaces = false
  @Flag(name: .customShort("Q"), help: "netisr: configuration, protocols, work streams.")
  var queues = false
  @Flag(name: .customShort("r"), help: "Routes.")
  var routes = false
  @Flag(name: .customShort("s"), help: "Statistics by protocol.")
  var statistics = false
  @Flag(name: .customShort("d"), help: "Drops with their reasons.")
  var drops = false
  @Flag(name: .customShort("n"), help: "Numbers instead of names (always so).")
  var numeric = false
  @Option(name: .customShort("I"), help: ArgumentHelp("This interface only.", valueName: "interface"))
  var interface: String?
  @Option(name: .customShort("f"), help: ArgumentHelp("inet or inet6 only.", valueName: "family"))
  var family: String?
  @Option(name: .customShort("p"), help: ArgumentHelp("This protocol only, with -s.", valueName: "protocol"))
  var proto: String?
  @OptionGroup var daemon: DaemonArguments

  func validate() throws {
    if [interfaces, queues, routes, statistics].filter({ $0 }).count > 1 { throw ValidationError("One of -i, -Q, -r and -s at a time.") }
    if let family, !["inet", "inet6"].contains(family) { throw ValidationError("-f takes inet or inet6.") }
  }

  func run() throws {
    let client = try daemon.connect()
    if queues {
      let tables = try client.call(NetisrTables())
      daemon.json ? try printJSON(tables) : print(NetisrText.text(tables))
    } else if routes {
      let list = try client.call(RouteList(family: family))
      daemon.json ? try printJSON(list) : print(RouteText.text(list))
    } else if statistics {
      let list = try client.call(Statistics(proto: proto))
      daemon.json ? try printJSON(list) : print(StatisticsText.text(list))
    } else {
      try showInterfaces(client)
    }
  }

  private func showInterfaces(_ client: ControlClient) throws {
    let records = try interface.map { [try client.call(InterfaceGet($0))] } ?? client.call(InterfaceList())
    let lost = try client.call(Drops(interface: interface))
    let summary = InterfaceSummary(records, lost)
    if daemon.json { return try printJSON(summary) }
    print(InterfaceTableText.text(records).joined(separator: "\n"))
    guard drops else { return }
    print("")
    print(lost.isEmpty ? "No drops." : DropsText.lines(lost).joined(separator: "\n"))
  }
}

/// `netstat -i --json`: what each interface received, and where it went.
struct InterfaceSummary: Encodable {
  struct Interface: Encodable {
    let name: String
    let index: Int
    let mtu: Int
    let counters: CountersRecord
    let drops: [DropRecord]
  }
  let interfaces: [Interface]
  /// Drops of interfaces that have gone, or of none.
  let others: [DropRecord]

  init(_ records: [InterfaceRecord], _ drops: [DropRecord]) {
    interfaces = records.map { record in
      Interface(
        name: record.name, index: record.index, mtu: record.mtu, counters: record.counters,
        drops: drops.filter { $0.interface == record.name })
    }
    let names = Set(records.map(\.name))
    others = drops.filter { $0.interface.map { !names.contains($0) } ?? true }
  }
}

/// The table of `netstat -i`.
enum InterfaceTableText {
  static func text(_ records: [InterfaceRecord]) -> [String] {
    var table = TextTable(
      ["Name", "Mtu", "Network", "Address", "Ipkts", "Ierrs", "Idrop", "Opkts", "Oerrs", "Odrop", "Coll"],
      sides: [.left, .right, .left, .left, .right])
    for record in records {
      let c = record.counters
      let up = record.flags.contains("UP") ? "" : "*"
      table.append(
        [record.name + up, "\(record.mtu)", "<Link#\(record.index)>", record.ether ?? "-"]
          + [c.ipackets, c.ierrors, c.iqdrops, c.opackets, c.oerrors, c.oqdrops, c.collisions].map(String.init))
      for address in record.addresses {
        table.append([record.name, "-", network(address), address.address, "-", "-", "-", "-", "-", "-", "-"])
      }
    }
    return table.lines
  }

  private static func network(_ address: AddressRecord) -> String {
    CommandPrefix.network(address.address, address.prefixLength) ?? address.address
  }
}

/// `netstat -Q`, in FreeBSD's layout.
enum NetisrText {
  static func text(_ record: NetisrRecord) -> String {
    var lines = ["Configuration:", row("Setting".padded(30), ["Current".aligned(12), "Limit".aligned(12)])]
    lines += record.configuration.map { row($0.setting.padded(30), [$0.current.aligned(12), $0.limit.aligned(12)]) }
    lines += ["", "Protocols:", row("Name".padded(10), ["Proto".aligned(5), "QLimit".aligned(6), "Policy".aligned(6), "Dispatch".aligned(8), "Flags"])]
    lines += record.protocols.map {
      row(
        $0.name.padded(10),
        ["\($0.proto)".aligned(5), "\($0.queueLimit)".aligned(6), $0.policy.aligned(6), $0.dispatch.aligned(8), $0.flags.padded(5)])
    }
    let heads = ["WMark", "Disp'd", "HDisp'd", "QDrops", "Queued", "Handled"]
    lines += ["", "Workstreams:", "WSID CPU " + "Name".padded(10) + " " + "Len".aligned(5) + heads.map { " " + $0.aligned(8) }.joined()]
    for stream in record.workstreams {
      let numbers = [
        stream.watermark, stream.dispatched, stream.hybridDispatched, stream.queueDrops, stream.queued, stream.handled,
      ]
      // Calls from threads that are no workers have neither a number nor a processor.
      let id = stream.wsid < 0 ? "-" : "\(stream.wsid)"
      let cpu = stream.cpu < 0 ? "-" : "\(stream.cpu)"
      lines.append(
        id.aligned(4) + " " + cpu.aligned(3) + " " + stream.name.padded(10) + " " + "\(stream.length)".aligned(5)
          + numbers.map { " " + "\($0)".aligned(8) }.joined())
    }
    return lines.joined(separator: "\n")
  }

  private static func row(_ first: String, _ cells: [String]) -> String { ([first] + cells).joined(separator: " ") }
}

/// `netstat -r`.
enum RouteText {
  static func text(_ routes: [RouteRecord]) -> String {
    var lines = ["Routing tables"]
    for (family, title) in [("inet", "Internet"), ("inet6", "Internet6")] {
      let rows = routes.filter { $0.family == family }
      if rows.isEmpty { continue }
      var table = TextTable(["Destination", "Gateway", "Flags", "Netif", "MTU"], sides: [.left])
      for route in rows {
        table.append([
          CommandPrefix.short(route.prefix), route.gateway ?? "link", route.flags, route.interface ?? "-", route.mtu.map(String.init) ?? "",
        ])
      }
      lines += ["", "\(title):"] + table.lines
    }
    return lines.joined(separator: "\n")
  }
}

/// `netstat -s`.
enum StatisticsText {
  static func text(_ list: [StatisticsRecord]) -> String {
    list.map { record in
      (["\(record.proto):"] + record.counters.map { "\t\($0.value) \($0.text)" }).joined(separator: "\n")
    }.joined(separator: "\n")
  }
}

/// Drops, a line each.
enum DropsText {
  static func lines(_ drops: [DropRecord]) -> [String] {
    var table = TextTable(["Interface", "Queue", "Proto", "Reason", "Packets", "Bytes"], sides: [.left, .right, .left, .left, .right])
    for drop in drops {
      table.append([
        drop.interface ?? (drop.index == 0 ? "-" : "#\(drop.index)"), "\(drop.queue)", drop.proto.isEmpty ? "-" : drop.proto, drop.reason,
        "\(drop.packets)", "\(drop.bytes)",
      ])
    }
    return table.lines
  }
}
